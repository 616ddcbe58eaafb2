"""The options and the course of `python -m agents.train --env NetTune-v0` and its siblings."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from rich import print as show

from gym_reml.evaluation import Result
from gym_reml.evaluation.results import half_width, table
from gym_reml.files import write_file, write_folder, write_text

from ..runs.command_line import check_options, default_is, program
from ..runs.run import Run
from ..runs.seeds import SeedOptions
from ..runs.workers import check_none_failed, run_all
from ..tuning.recipes import RECIPES
from ..tuning.setting import SETTINGS, RunSetting
from ..tuning.training import TuningAgent, load
from .benchmarks import BENCHMARKS
from .jobs import Job
from .tuning import TuningBenchmark

SIBLINGS = {name: benchmark for name, benchmark in BENCHMARKS.items() if isinstance(benchmark, TuningBenchmark)}
"""The benchmarks of environments whose agent decides how networks are trained."""

AGENT = "ppo"
"""The algorithm by default."""

if TYPE_CHECKING:
    EnvName = str
    AlgorithmName = str
else:
    EnvName = Literal[tuple(SETTINGS)]
    AlgorithmName = Literal[tuple(RECIPES)]


@dataclass(frozen=True)
class Config(SeedOptions):
    """Trains an agent that decides how networks are trained, and compares it with other choices on held-out tasks."""

    env: EnvName = "NetTune-v0"
    """what it decides"""
    algorithm: AlgorithmName = AGENT
    """by which the agent is trained"""
    family: str | None = None
    """the distribution of data sets of one of the environment's benchmarks, or the name of a further one on the same"""
    tasks: int | None = None
    """episodes that it is trained on"""
    seed: int = 0
    """of weights and training tasks"""
    evaluation_tasks: int | None = None
    """held-out tasks of the table"""
    competitors: Annotated[
        tuple[str, ...], default_is("all of the benchmark but the plain agent of another algorithm")
    ] = ()
    """who is compared with it"""
    run: Annotated[Path | None, default_is("a new one in runs/")] = None
    """run directory"""
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: a new run)")] = None
    """go on with an interrupted run; all other arguments are taken from it, but what it runs on"""

    def implied(self) -> dict[str, str]:
        """What the environment implies, for `--help`."""
        _, benchmark = self.benchmark()
        return {
            "family": f"{benchmark.setting.family}, of {', '.join(self.choices())}",
            "tasks": "as many as the recipe has",
            "evaluation_tasks": f"{benchmark.evaluation_tasks}",
        }

    def benchmark(self) -> tuple[str, TuningBenchmark]:
        """The benchmark of the environment and the family, and its name.

        Raises:
            ValueError: a family that none of the environment's benchmarks has.
        """
        choices = self.choices()
        name = next(iter(choices.values())) if self.family is None else choices.get(self.family)
        if name is None:
            raise ValueError(f"--family {self.family}: not for {self.env}; choices: {', '.join(choices)}")
        return name, SIBLINGS[name]

    def choices(self) -> dict[str, str]:
        """The environment's benchmarks by what names them: their data sets, or their own names where that is taken."""
        found: dict[str, str] = {}
        for name, one in SIBLINGS.items():
            if type(one.setting) is SETTINGS[self.env]:
                found[name if one.setting.family in found else one.setting.family] = name
        return found

    def jobs(self, folder: Path) -> list[Job]:
        """The agent's training, and everyone's evaluation."""
        check_options(self, tasks=1, seed=0, evaluation_tasks=2)
        name, benchmark = self.benchmark()
        for competitor in self.competitors:
            if competitor not in benchmark.choices:
                raise ValueError(f"--competitors {competitor}: choices: {', '.join(benchmark.choices)}")
        (variant,) = benchmark.variants()
        competitors = self.competitors or [row for row in benchmark.choices if row not in RECIPES]
        several = {row for row, entrant in benchmark.choices.items() if entrant.seeded}
        return [
            Job(
                folder,
                name,
                variant,
                entrant,
                self.seed if entrant in several else 0,
                self.tasks,
                self.evaluation_tasks or benchmark.evaluation_tasks,
            )
            for entrant in dict.fromkeys((self.algorithm, *competitors))
        ]


def train(config: Config) -> None:
    """Trains, or continues training, evaluates everyone, and reports."""
    torch.set_num_threads(1)
    start = time.monotonic()
    resumed = Run(config.resume) if config.resume is not None else None
    if resumed is not None:
        config = replace(resumed.options(Config), run=resumed.folder, resume=None)
    name, benchmark = config.benchmark()
    config.jobs(Path())
    run = resumed or Run.create(config.run, replace(config, run=None), f"{name}-{config.algorithm}")
    print(f"run directory: {run.folder} (after an interruption: {program('train')} --resume {run.folder})")
    jobs = config.jobs(run.folder)
    check_none_failed(run_all([job for job in jobs if not job.finished], 1))
    metric = benchmark.setting.measured
    results = results_of(jobs)
    title = f"{config.env}, {benchmark.setting}, held-out tasks"
    text = table(results, metric, steps=(1,))
    show(f"\n[bold]{title}[/bold]\n{metric} on the test part, mean ± 95 % interval over tasks (median):\n")
    print(text + "\n")
    found = results[0].notes
    with write_folder(run.folder / "results") as folder:
        write_text(folder / "table.md", f"{title}: {metric} on the test part\n\n{text}\n")
        plot_means(results, metric, folder / "means.png", title)
        if found:
            write_text(folder / "found.json", json.dumps(found, indent=1))
            print("\n".join(f"{key}: {value}" for key, value in found.items()))
        else:
            agent = load(jobs[0].folder / "training", benchmark.setting)
            decided = decisions(agent, benchmark.setting, jobs[0].evaluation_tasks)
            write_text(folder / "decisions.json", json.dumps({key: value.tolist() for key, value in decided.items()}))
            plot_decisions(decided, folder / "decisions.png", title)
    show(f"table, pictures and what was found: {run.folder / 'results'}; done in {time.monotonic() - start:.0f} s")


def results_of(jobs: list[Job]) -> list[Result]:
    """What finished jobs found on the distribution that the agent is trained on."""
    test = SIBLINGS[jobs[0].benchmark].setting.family
    return [job.result(name, test) for job in jobs for name in job.summary["names"]]


def decisions(agent: TuningAgent, setting: RunSetting, tasks: int) -> dict[str, NDArray[np.float64]]:
    """What the agent decides at each step of held-out runs, (horizon, tasks) by name."""
    arguments = setting.arguments("test")
    envs: Any = gym.make_vec(setting.env_id, num_envs=tasks, autoreset_mode="Disabled", **arguments)
    observation, _ = envs.reset(seed=0)
    taken: dict[str, list[NDArray[np.float64]]] = {}
    for _ in range(setting.horizon):
        observation, *_ = envs.step(agent.policy.predict(observation, deterministic=True)[0])
        for name, values in envs.unwrapped.tuning.values.items():
            taken.setdefault(name, []).append(np.array(values, dtype=np.float64))
    envs.close()
    return {name: np.stack(values) for name, values in taken.items()}


def plot_means(results: list[Result], metric: str, path: Path, title: str) -> None:
    """Means over tasks as points, with their 95 % intervals."""
    figure = Figure(figsize=(6.0, 0.9 + 0.32 * len(results)), layout="constrained")
    axes = figure.subplots()
    for place, result in enumerate(results):
        values = result.values(1, metric)
        axes.errorbar(values.mean(), place, xerr=half_width(values), fmt="o", color="#0072B2", capsize=3)
    axes.set_yticks(range(len(results)), [result.learner for result in results])
    axes.invert_yaxis()
    axes.set_xlabel(f"{metric} on the test part")
    figure.suptitle(title, fontsize=9)
    axes.grid(alpha=0.3, axis="x")
    write_file(path, partial(figure.savefig, format="png", dpi=130))


def plot_decisions(decided: dict[str, NDArray[np.float64]], path: Path, title: str) -> None:
    """Medians over tasks at every step, and the middle half of them."""
    figure = Figure(figsize=(6.0, 1.0 + 1.5 * len(decided)), layout="constrained")
    panels = figure.subplots(len(decided), 1, squeeze=False, sharex=True)[:, 0]
    for (name, values), axes in zip(decided.items(), panels, strict=True):
        low, middle, high = np.quantile(values, (0.25, 0.5, 0.75), axis=1)
        steps = np.arange(1, len(values) + 1)
        axes.plot(steps, middle, color="#0072B2")
        axes.fill_between(steps, low, high, color="#0072B2", alpha=0.25, linewidth=0)
        axes.set_ylabel(name.replace("_", " "), fontsize=8)
        if (low > 0).all() and high.max() > 30 * low.min():
            axes.set_yscale("log")
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("decision")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    panels[0].set_title(f"{title}:\nmedians over tasks, and the middle half", fontsize=9)
    write_file(path, partial(figure.savefig, format="png", dpi=130))
