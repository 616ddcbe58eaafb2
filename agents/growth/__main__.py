"""How time and memory grow with sizes: `python -m agents.growth`.

Measured are a step of n environments, and an update of a pool by the meta-gradient of n episodes, exact, first-order,
and exact with a bound on the episodes that are differentiated at a time. One size varies, the others stay. Networks are
full from the start, so that every layer counts.

Every point is measured in a process of its own, forked from this one, so it needs Linux: the median CPU time, and the
peak of the resident memory above that at the start. Exponents are slopes on logarithmic scales, fitted to the largest
three sizes; 1 means proportional, 0 constant.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch
from matplotlib.figure import Figure

import gym_reml  # noqa: F401  (registers the environments)
from gym_reml.evaluation.results import markdown_table
from gym_reml.files import write_file, write_text
from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import make_family

from ..pages.report import COLOURS, MARKERS
from ..runs.command_line import run_command

FITTED = 3
AT_ONCE = 64


class Sizes(NamedTuple):
    """What may grow."""

    n: int
    depth: int = 2
    width: int = 40
    shots: int = 5
    horizon: int = 5
    pool: int = 8

    @property
    def initial_layers(self) -> tuple[int, ...]:
        """A layer of the pool in each slot."""
        return tuple(1 + slot % self.pool for slot in range(self.depth))


@dataclass(frozen=True)
class Config:
    """Measures, prints a table, and writes figures and picture."""

    folder: Path = Path("docs")
    """folder of results/growth.json and _static/growth.png"""
    quick: bool = False
    """two small sizes each, once"""


def environment(sizes: Sizes) -> Callable[[], Any]:
    """A step of n environments."""
    envs: Any = gym.make_vec(
        "NetBuild-v0",
        sizes.n,
        autoreset_mode="SameStep",
        pool="random",
        depth=sizes.depth,
        width=sizes.width,
        shots=sizes.shots,
        horizon=sizes.horizon,
        layers=sizes.pool,
        initial_layers=sizes.initial_layers,
    )
    envs.reset(seed=0)
    generator = np.random.default_rng(0)
    actions = generator.uniform(-1.0, 1.0, (4, *envs.action_space.shape)).astype(np.float32)
    stream = itertools.cycle(actions)
    return lambda: envs.step(next(stream))


def update(sizes: Sizes, rule: str = "maml", rows_at_once: int | None = None) -> Callable[[], Any]:
    """An update of a pool from n new episodes."""
    family = make_family("sinusoid", shots=sizes.shots)
    pool = LayerPool.random(in_features=1, out_features=1, width=sizes.width, layers=sizes.pool)
    learner = PoolLearner(pool, family, rule, LearningOptions(rows_at_once=rows_at_once))
    objective, layers = Objective(sizes.horizon), sizes.initial_layers
    mdp = TrainingMDP(sizes.n, family, pool, objective, slots=sizes.depth, initial_layers=layers)
    mdp.seed(range(sizes.n), many_streams(0, sizes.n, family.split))
    no_layers = torch.zeros((sizes.horizon, sizes.n), dtype=torch.int64)
    step_sizes = torch.full((sizes.horizon, sizes.n), 0.01)

    def step() -> None:
        mdp.draw()
        learner.update(mdp.episodes(no_layers, step_sizes))

    return step


class Subject(NamedTuple):
    """What is measured: how it is made, at which n, and the values of each size."""

    make: Callable[[Sizes], Callable[[], Any]]
    n: int
    values: dict[str, tuple[int, ...]]


EVERY: dict[str, tuple[int, ...]] = {
    "n": (16, 64, 256, 1024, 4096),
    "depth": (1, 2, 4, 8, 16),
    "width": (10, 20, 40, 80, 160),
    "shots": (5, 20, 80, 320, 1280),
    "horizon": (1, 2, 5, 10, 20),
    "pool": (2, 8, 32, 128, 512),
}
OF_UPDATES = EVERY | {"n": (16, 64, 256, 1024), "shots": (5, 20, 80, 320)}
SUBJECTS = {
    "environment": Subject(environment, 256, EVERY),
    "exact meta-gradient": Subject(update, 64, OF_UPDATES),
    "first-order meta-gradient": Subject(partial(update, rule="fomaml"), 64, OF_UPDATES),
    f"exact, {AT_ONCE} rows at once": Subject(
        partial(update, rows_at_once=AT_ONCE), 64, {"n": (*OF_UPDATES["n"], 2048)}
    ),
}


class Point(NamedTuple):
    """A measurement: milliseconds of CPU time, and MB of memory."""

    subject: str
    size: str
    value: int
    milliseconds: float
    megabytes: float

    @property
    def figures(self) -> tuple[float, float]:
        """Time and memory."""
        return self.milliseconds, self.megabytes


def measure(subject: str, size: str, value: int, quick: bool) -> Point:
    """Measures in this process, which should be new."""
    torch.set_num_threads(1)
    made = SUBJECTS[subject]
    sizes = Sizes(4 if quick else made.n)._replace(**{size: value})
    made.make(Sizes(2))()  # loads what is loaded at the first use
    start = _peak()
    work = made.make(sizes)
    work()
    times: list[float] = []
    while len(times) < 3 or sum(times) < 0.2:
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
        if quick:
            break
    return Point(subject, size, value, round(1e3 * float(np.median(times)), 2), round(_peak() - start, 1))


def _peak() -> float:
    """The largest resident memory of this process so far, in MB; of a forked one at least that of the fork."""
    import resource  # Windows has no such module

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def exponent(values: Sequence[float], found: Sequence[float]) -> float:
    """The slope on logarithmic scales over the largest sizes."""
    # Less than a page is nothing.
    logs = np.log(values[-FITTED:]), np.log(np.maximum(found[-FITTED:], 0.01))
    return float(np.polyfit(*logs, 1)[0])


def curves(points: Sequence[Point]) -> dict[tuple[str, str], list[Point]]:
    """The points by subject and size."""
    found: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        found.setdefault((point.subject, point.size), []).append(point)
    return found


def table(points: Sequence[Point]) -> str:
    """What grows how, as Markdown."""
    lines = []
    for (subject, size), curve in curves(points).items():
        values, times, memory = zip(*((point.value, *point.figures) for point in curve), strict=True)
        lines.append(
            [
                *(subject, size, f"{values[0]:,} to {values[-1]:,}"),
                *(f"{times[0]:.1f} to {times[-1]:,.1f}", f"{exponent(values, times):.2f}"),
                *(f"{memory[0]:.1f} to {memory[-1]:,.1f}", f"{exponent(values, memory):.2f}"),
            ]
        )
    return markdown_table(["", "size", "values", "ms", "exponent", "MB", "exponent"], lines)


def picture(points: Sequence[Point]) -> Figure:
    """A column for each size, time above and memory below; a curve for each subject."""
    figure = Figure(figsize=(3 * len(EVERY), 6), layout="constrained")
    axes = figure.subplots(2, len(EVERY), sharex="col", sharey="row")
    styles = dict(zip(SUBJECTS, zip(COLOURS, MARKERS, strict=False), strict=False))
    for (subject, size), curve in curves(points).items():
        colour, marker = styles[subject]
        for row, axis in enumerate(axes[:, list(EVERY).index(size)]):
            found = [max(point.figures[row], 0.1) for point in curve]
            axis.loglog([point.value for point in curve], found, color=colour, marker=marker, label=subject)
    for (row, label), (column, size) in itertools.product(enumerate(("ms of CPU time", "MB")), enumerate(EVERY)):
        axis = axes[row, column]
        axis.grid(alpha=0.3)
        if row:
            axis.set_xlabel(size)
        if not column:
            axis.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SUBJECTS))
    return figure


def main(config: Config) -> None:
    """Measures every point, prints the table, and writes figures and picture."""
    jobs = [
        (name, size, value, config.quick)
        for name, subject in SUBJECTS.items()
        for size, values in subject.values.items()
        for value in (values[:2] if config.quick else values)
    ]
    for subject in SUBJECTS.values():
        subject.make(Sizes(2))  # imports what every process needs; autograd must not run before a fork
    with multiprocessing.get_context("fork").Pool(1, maxtasksperchild=1) as pool:
        points = pool.starmap(measure, jobs, chunksize=1)
    print(table(points))
    write_text(
        config.folder / "results" / "growth.json", json.dumps([point._asdict() for point in points], indent=1) + "\n"
    )
    write_file(config.folder / "_static" / "growth.png", partial(picture(points).savefig, format="png", dpi=80))


if __name__ == "__main__":
    run_command(main, Config)
