"""Entrants on the same tasks under the same protocol: `python -m agents.compare --family sinusoid --shots 5`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich import print as show

from gym_reml.envs.common.devices import find_device

from .comparison.base import Benchmark
from .comparison.benchmarks import BENCHMARKS, benchmark_of
from .comparison.entrants import ENTRANTS
from .comparison.few_shot import FewShotBenchmark
from .comparison.jobs import Job
from .comparison.rows import merge_rows
from .comparison.summarise import rows_of
from .comparison.tables import table_of
from .problems.own import is_own, names_or_own
from .runs.command_line import check_options, default_is, run_command
from .runs.workers import check_none_failed, run_all

if TYPE_CHECKING:
    Name = str
else:
    Name = names_or_own(str, ("all", *BENCHMARKS), "MODULE:FAMILY")

EVERYONE = ",".join(dict.fromkeys(name for table in ENTRANTS.values() for name in table))

QUICK_TASKS, QUICK_EVALUATION_TASKS, QUICK_SEEDS = 640, 20, 2


@dataclass(frozen=True)
class Config:
    """Trains every entrant of a benchmark for several seeds, and tabulates how they do on the same held-out tasks.

    Entrants are meta-learners, or RL² and classical policies where tasks are trials. Interrupted, the same command goes
    on where it was: what is finished lies in the run directory.
    """

    family: Name = "sinusoid"
    """the benchmark, "all" for the whole of docs/results (hours), or MODULE:FAMILY, a family or Benchmark of yours"""
    shots: int | None = None
    """support points of a task; trials have none"""
    learners: Annotated[
        tuple[str, ...],
        tyro.conf.arg(metavar=f"{{{EVERYONE}}}|MODULE:LEARNER [...]"),
        default_is("all of the benchmark's"),
    ] = ()
    """which entrants take part; MODULE:LEARNER is yours: a function (problem, folder) -> MetaLearner, or an Entrant"""
    seeds: int | None = None
    """runs of each entrant that draws random numbers"""
    tasks: int | None = None
    """training tasks (or trials) that each may draw"""
    evaluation_tasks: int | None = None
    """held-out tasks (or trials)"""
    workers: int = 1
    """runs side by side, each on a core of its own"""
    ray: Annotated[str | None, default_is("processes of this machine")] = None
    """cluster that runs it instead, a run on each core: an address, "auto", or "local" for one of this machine"""
    device: str = "cpu"
    """any torch device, for the networks of few-shot tasks"""
    run: Path = Path("runs/compare")
    """run directory"""
    results: Annotated[Path | None, default_is("the run directory")] = None
    """folder of the result files that the rows are merged into"""
    quick: bool = False
    """everything tiny: shows that it works; the numbers mean nothing"""

    def implied(self) -> dict[str, str]:
        """What the benchmark implies, for `--help`."""
        if self.family == "all":
            return dict.fromkeys(("shots", "seeds", "tasks", "evaluation_tasks"), "each benchmark's own")
        benchmark = benchmark_of(self.family)
        shots = "none, as tasks are trials"
        if isinstance(benchmark, FewShotBenchmark):
            shots = f"{' and '.join(map(str, benchmark.shots))}, by the benchmark {self.family}"
        return {
            "shots": shots,
            "seeds": f"{self.seeds_of(benchmark)}",
            "tasks": f"{QUICK_TASKS}" if self.quick else self._tasks_in_words(benchmark),
            "evaluation_tasks": f"{self.evaluation_tasks_of(benchmark)}",
        }

    @staticmethod
    def _tasks_in_words(benchmark: Benchmark) -> str:
        own = benchmark.tasks if isinstance(benchmark, FewShotBenchmark) else None
        return "as many as the recipes have" if own is None else f"{own}"

    def seeds_of(self, benchmark: Benchmark) -> int:
        """How many seeds an entrant has that draws random numbers."""
        return self.seeds or (QUICK_SEEDS if self.quick else benchmark.seeds)

    def evaluation_tasks_of(self, benchmark: Benchmark) -> int:
        """How many held-out tasks there are."""
        return self.evaluation_tasks or (QUICK_EVALUATION_TASKS if self.quick else benchmark.evaluation_tasks)


def jobs_of(config: Config) -> list[Job]:
    """Every job of the configuration, seed by seed.

    Raises:
        ValueError: a number below the least that makes sense, an entrant that is none of the benchmark's, or shots of
            trials, or another device than the CPU for anything but few-shot tasks or on a cluster.
        ImportError: a module of the user's own that cannot be imported.
    """
    check_options(config, shots=1, seeds=1, tasks=1, evaluation_tasks=2, workers=1)
    if config.ray is not None and config.device != "cpu":
        raise ValueError(f"--device {config.device}: a cluster runs a job on each core, so --ray takes the CPU alone")
    jobs = []
    for name in BENCHMARKS if config.family == "all" else (config.family,):
        benchmark = benchmark_of(name)
        if config.device != "cpu" and not isinstance(benchmark, FewShotBenchmark):
            raise ValueError(f"--device {config.device}: {name!r} runs on the CPU; leave it out")
        find_device(config.device)
        for learner in config.learners:
            if not is_own(learner) and learner not in benchmark.choices:
                choices = ", ".join(benchmark.choices)
                raise ValueError(f"--learners {learner}: not for {name!r}; choices: {choices}, or MODULE:LEARNER")
            benchmark.entrant(learner)
        tasks = config.tasks or (QUICK_TASKS if config.quick else None)
        jobs += [
            Job(config.run, name, variant, learner, seed, tasks, config.evaluation_tasks_of(benchmark), config.device)
            for seed in range(config.seeds_of(benchmark))
            for variant in benchmark.variants(config.shots)
            for learner in config.learners or benchmark.learners or benchmark.choices
            if benchmark.enters(learner, variant) and (seed == 0 or benchmark.entrant(learner).seeded)
        ]
    return jobs


def main(config: Config) -> None:
    """Runs what is left to run, and merges the rows of all that is there, of earlier runs too."""
    jobs = jobs_of(config)
    left = [job for job in jobs if not job.finished]
    show(f"run directory: {config.run} ({len(left)} of {len(jobs)} runs left to do)")
    failed = run_all(left, config.workers, config.ray)
    for (name, variant), example in {(job.benchmark, job.variant): job for job in jobs}.items():
        path = (config.results or config.run) / benchmark_of(name).file
        rows = rows_of(example.finished_like_it(config.learners))
        merge_rows(path, rows)
        print(f"\n{name}, {benchmark_of(name).label(variant)}, into {path}:\n\n{table_of(rows)}")
    check_none_failed(failed)


if __name__ == "__main__":
    run_command(main, Config)
