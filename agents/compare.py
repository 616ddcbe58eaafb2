"""Meta-learners on the same tasks under the same protocol: `python -m agents.compare --family sinusoid --shots 5`."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from rich import print as show

from .comparison.benchmarks import BENCHMARKS
from .comparison.jobs import Job
from .comparison.learners import LEARNERS
from .comparison.rows import merge_rows
from .comparison.stored_jobs import run_job, single_thread
from .comparison.summarise import rows_of
from .comparison.tables import table_of
from .runs.command_line import check_options, default_is, run_command

if TYPE_CHECKING:
    Name = str
    LearnerName = str
else:
    NAMES = ("all", *BENCHMARKS)
    Name, LearnerName = Literal[NAMES], Literal[tuple(LEARNERS)]

QUICK_TASKS, QUICK_EVALUATION_TASKS, QUICK_SEEDS = 640, 20, 2


@dataclass(frozen=True)
class Config:
    """Trains every meta-learner on a benchmark's tasks, for several seeds, and tabulates how they do on held-out ones.

    Interrupted, the same command goes on where it was: what is finished lies in the run directory.
    """

    family: Name = "sinusoid"
    """the benchmark; "all" is the whole of docs/results (hours)"""
    shots: int | None = None
    """support points of a task"""
    learners: Annotated[tuple[LearnerName, ...], default_is("all of the benchmark's")] = ()
    """who takes part"""
    seeds: int | None = None
    """trainings of each"""
    tasks: int | None = None
    """training tasks that each may draw"""
    evaluation_tasks: int | None = None
    """held-out tasks"""
    workers: int = 1
    """trainings side by side, each on a core of its own"""
    run: Path = Path("runs/compare")
    """run directory"""
    results: Annotated[Path | None, default_is("the run directory")] = None
    """folder of the result files that the rows are merged into"""
    quick: bool = False
    """everything tiny: shows that it works, not what it is worth"""

    def implied(self) -> dict[str, str]:
        """What the benchmark implies, for `--help`."""
        if self.family == "all":
            return dict.fromkeys(("shots", "seeds", "tasks", "evaluation_tasks"), "each benchmark's own")
        benchmark = BENCHMARKS[self.family]
        everyone = f"{' and '.join(map(str, benchmark.shots))}, by the benchmark {self.family}"
        tasks = QUICK_TASKS if self.quick else "as many as REML draws"
        seeds = QUICK_SEEDS if self.quick else benchmark.seeds
        evaluated = QUICK_EVALUATION_TASKS if self.quick else benchmark.evaluation_tasks
        return {"shots": everyone, "seeds": f"{seeds}", "tasks": f"{tasks}", "evaluation_tasks": f"{evaluated}"}


def jobs_of(config: Config) -> list[Job]:
    """Every training that the configuration asks for, seed by seed."""
    check_options(config, shots=1, seeds=1, tasks=1, evaluation_tasks=2, workers=1)
    jobs = []
    for name in BENCHMARKS if config.family == "all" else (config.family,):
        benchmark = BENCHMARKS[name]
        for learner in config.learners:
            if learner not in benchmark.choices:
                raise ValueError(f"--learners {learner}: not for {name!r}; choices: {', '.join(benchmark.choices)}")
        seeds = config.seeds or (QUICK_SEEDS if config.quick else benchmark.seeds)
        tasks = config.tasks or (QUICK_TASKS if config.quick else None)
        evaluated = config.evaluation_tasks or (QUICK_EVALUATION_TASKS if config.quick else benchmark.evaluation_tasks)
        for seed in range(seeds):
            for shots in benchmark.shots if config.shots is None else (config.shots,):
                for learner in config.learners or benchmark.learners:
                    jobs.append(Job(config.run, name, shots, learner, seed, tasks, evaluated))
    return jobs


def main(config: Config) -> None:
    """Runs what is left to run, and merges the rows of all that is there, of earlier runs too."""
    jobs = jobs_of(config)
    left = [job for job in jobs if not job.finished]
    show(f"run directory: {config.run} ({len(left)} of {len(jobs)} trainings left to do)")
    failed = _run(left, config.workers)
    for (benchmark, shots), example in {(job.benchmark, job.shots): job for job in jobs}.items():
        path = (config.results or config.run) / BENCHMARKS[benchmark].file
        rows = rows_of(example.finished_like_it())
        merge_rows(path, rows)
        print(f"\n{benchmark}, {shots} shots, into {path}:\n\n{table_of(rows)}")
    if failed:
        raise ValueError(f"{len(failed)} trainings failed, see {', '.join(str(job.log) for job in failed)}")


def _run(jobs: list[Job], workers: int) -> list[Job]:
    """Runs the jobs; those that failed come back."""
    failed = []
    context = get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=single_thread) as pool:
        running = {pool.submit(run_job, job): job for job in jobs}
        try:
            for done, future in enumerate(as_completed(running), start=1):
                job = running[future]
                error = future.exception()
                if error is not None:
                    failed.append(job)
                said = f"failed: {error!r}" if error is not None else f"{future.result():.0f} s"
                print(f"[{done}/{len(jobs)}] {job}: {said}", flush=True)
        except BaseException:
            # Interrupted: without this, all that is queued would still be run.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


if __name__ == "__main__":
    run_command(main, Config)
