"""How long the jobs of a comparison take on many machines: `python -m agents.comparison.scaling`."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np

from gym_reml.evaluation.results import markdown_table

from ..runs.cluster import outcomes_on
from ..runs.command_line import default_is, run_command
from ..runs.pieces import Piece
from .benchmarks import BENCHMARKS
from .rows import read_rows

FOLDER_BYTES = 1_000_000


@dataclass(frozen=True)
class Config:
    """Simulates a cluster that does the jobs of the published tables, whose lengths are known."""

    results: Path = Path("docs/results")
    """folder of the result files, which hold the mean seconds of every entrant"""
    workers: tuple[int, ...] = (1, 2, 64, 1024)
    """numbers of cores"""
    driver: Annotated[float | None, default_is("measured on this machine, which needs Ray")] = None
    """seconds of the driver for each job: sending it, and writing what comes back"""
    copies: int = 1
    """how many times all jobs are done, as with so many times as many seeds"""


def job_lengths(results: Path) -> list[float]:
    """Seconds of training of every job behind the result files in a folder, in the order of `agents.compare`."""
    lengths = []
    for benchmark in BENCHMARKS.values():
        path = results / benchmark.file
        rows = read_rows(path) if path.is_file() else []
        # A job has a row for each step and each test, and rows of its controls, which train nothing.
        runs = {(row["command"], row["learner"]): row for row in rows if row["learner"] in benchmark.choices}
        most = max((row["seeds"] for row in runs.values()), default=0)
        lengths += [row["seconds"] for seed in range(most) for row in runs.values() if seed < row["seeds"]]
    return lengths


@dataclass(frozen=True)
class Nothing(Piece):
    """A piece of work that takes no time, and leaves a folder as large as that of a REML agent."""

    root: Path
    number: int

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return self.root / f"{self.number}"

    def moved(self, root: Path) -> Nothing:
        """The same piece in another folder."""
        return replace(self, root=root)

    def work(self) -> float:
        """Writes the file."""
        (self.folder / "content").write_bytes(np.random.default_rng(self.number).bytes(FOLDER_BYTES))
        return 0.0


def measure_driver(pieces: int = 200) -> float:
    """CPU seconds of this process for each piece of a cluster of this machine, without starting it."""
    with TemporaryDirectory() as folder:
        done = outcomes_on("local", [Nothing(Path(folder), number) for number in range(pieces)])
        next(done)
        cpu, wall = time.process_time(), time.perf_counter()
        rest = len(list(done))
        cpu, wall = ((now - then) / rest for now, then in ((time.process_time(), cpu), (time.perf_counter(), wall)))
    print(f"{rest} jobs of no length: {cpu:.4f} CPU seconds of the driver for each, one in {wall:.3f} s")
    return cpu


def makespan(lengths: Sequence[float], workers: int, driver: float = 0.0) -> float:
    """Seconds until all jobs are done and collected.

    Jobs are taken in their order by the first core that is free. The driver does one thing at a time: half of its
    seconds for a job go into sending it, which the job waits for, and half into collecting what it returned.

    Args:
        lengths: seconds of each job.
        workers: number of cores.
        driver: seconds of the driver for each job.
    """
    free = [0.0] * min(workers, len(lengths))
    ends = []
    for number, length in enumerate(lengths, start=1):
        end = max(heapq.heappop(free), number * driver / 2.0) + length
        heapq.heappush(free, end)
        ends.append(end)
    collected = len(lengths) * driver / 2.0
    for end in sorted(ends):
        collected = max(collected, end) + driver / 2.0
    return collected


def main(config: Config) -> None:
    """Prints a table with a row for each number of cores."""
    lengths = job_lengths(config.results) * config.copies
    driver = measure_driver() if config.driver is None else config.driver
    total, longest = sum(lengths), max(lengths)
    print(
        f"{len(lengths)} jobs of {np.mean(lengths):.0f} s on average, the longest {longest:.0f} s; the driver, at "
        f"{driver:.4f} s a job, is the limit from {np.mean(lengths) / driver:,.0f} cores on\n"
    )
    rows = []
    for workers in config.workers:
        in_order = makespan(lengths, workers, driver)
        rows.append([f"{workers:,}", f"{in_order / 3600:.2f}", f"{total / in_order:,.1f}"])
    print(markdown_table(["cores", "hours", "times as fast as one core"], rows))


if __name__ == "__main__":
    run_command(main, Config)
