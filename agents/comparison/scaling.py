"""How long the jobs of a comparison take on many machines: `python -m agents.comparison.scaling`."""

from __future__ import annotations

import heapq
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np

from gym_reml.evaluation.results import markdown_table

from ..runs.command_line import default_is, run_command
from ..runs.pieces import Piece
from ..runs.workers import outcomes
from .benchmarks import BENCHMARKS
from .rows import read_rows

FOLDER_BYTES = 1_000_000
STARTING, JOBS, WAITING, WAITED = 8, 200, 12, 120.0
"""Jobs that start a cluster, jobs of no length that measure the driver, jobs that wait, and for how many seconds."""


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
class Waiting(Piece):
    """A piece of work that waits for `seconds`, and leaves a folder as large as that of a REML agent."""

    root: Path
    number: int
    seconds: float = 0.0

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return self.root / f"{self.number}"

    def moved(self, root: Path) -> Waiting:
        """The same piece in another folder."""
        return replace(self, root=root)

    def work(self) -> float:
        """Waits, and writes the file."""
        time.sleep(self.seconds)
        (self.folder / "content").write_bytes(np.random.default_rng(self.number).bytes(FOLDER_BYTES))
        return self.seconds


def measure(address: str | None, lengths: Sequence[float]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of this process for jobs of these lengths, without the start of a cluster.

    Args:
        address: of a cluster that does them; None for this process.
        lengths: seconds of each job.
    """
    with TemporaryDirectory() as folder:
        # The first jobs start the processes of the cluster.
        given = enumerate([0.0] * STARTING + list(lengths))
        pieces = [Waiting(Path(folder), number, length) for number, length in given]
        done = outcomes(pieces, 1, address)
        failed = [outcome for _, outcome in islice(done, STARTING) if isinstance(outcome, str)]
        wall, cpu = time.perf_counter(), time.process_time()
        failed += [outcome for _, outcome in done if isinstance(outcome, str)]
        if failed:
            raise ValueError(f"{len(failed)} pieces failed: {failed[0]}")
        return time.perf_counter() - wall, time.process_time() - cpu


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


def measured_driver(lengths: Sequence[float]) -> float:
    """CPU seconds of the driver for each job, by a cluster of this machine; prints what it measures."""
    _, cpu = measure("local", [0.0] * JOBS)
    some = np.array(lengths[:: -(-len(lengths) // WAITING)])
    shorter = (some * (WAITED / some.sum())).tolist()
    cores = os.cpu_count() or 1
    rows = []
    for name, address, workers in (("this process", None, 1), ("a cluster of this machine", "local", cores)):
        seconds, _ = measure(address, shorter)
        rows.append([f"{workers}, {name}", f"{seconds:.1f}", f"{makespan(shorter, workers, cpu / JOBS):.1f}"])
    print(f"\n{len(shorter)} jobs that wait for {WAITED:.0f} s in all, in proportion to those of the tables\n")
    print(f"{markdown_table(['cores', 'seconds', 'simulated'], rows)}\n")
    return cpu / JOBS


def main(config: Config) -> None:
    """Prints a table with a row for each number of cores."""
    lengths = job_lengths(config.results) * config.copies
    driver = measured_driver(lengths) if config.driver is None else config.driver
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
