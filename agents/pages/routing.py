"""Which layers and step sizes a learner chooses for which tasks, as a picture."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from gym_reml.evaluation import MetaLearner, rollout
from gym_reml.tasks.base import TaskFamily, Tasks
from gym_reml.tasks.images.omniglot import Omniglot
from gym_reml.tasks.mixture import Mixture

from .report import COLOURS, MARKERS

TASKS, POLICY_TASKS = 300, 100
"""How many held-out tasks are shown."""

UNITS = {"phase": "rad", "slow_phase": "rad", "fast_phase": "rad", "velocity": "m/s"}
"""Of the parameters of tasks that have some."""

COLOUR_MAP = "cividis"  # also for readers who see no red or no green
FEW = 6
"""So many different values of a parameter are shown one by one."""
SHOWN_STEPS = 4
SHARE_SHOWN = 2 / 3
"""So many tasks must have a colour of their own."""
CELLS = 200
"""So many cells of a map have room for their numbers."""

Groups = dict[str, NDArray[np.bool_]]
"""Tasks (n,) that belong together, by what they have in common."""


@dataclass(frozen=True)
class Choices:
    """What a learner chose for n tasks.

    Attributes:
        tasks: their parameters.
        layers: (horizon, n) int64, the layer that each step appended, 0 for none.
        sizes: (horizon, n) float64, the gradient step sizes; geometric means of those of several positions.
        pool: number of layers to choose from.
    """

    tasks: Tasks
    layers: NDArray[np.int64]
    sizes: NDArray[np.float64]
    pool: int

    @property
    def networks(self) -> list[tuple[int, ...]]:
        """The layers that each task's network was given, in order."""
        return [tuple(int(layer) for layer in column if layer) for column in self.layers.T]

    @property
    def routed(self) -> bool:
        """Whether networks differ at all."""
        return len(set(self.networks)) > 1

    @property
    def mean_sizes(self) -> NDArray[np.float64]:
        """Each task's geometric mean step size, (n,)."""
        return np.exp(np.log(self.sizes).mean(axis=0))


def choices_of(learner: MetaLearner, family: TaskFamily, *, seed: int, tasks: int | None = None) -> Choices:
    """Lets the learner act on held-out tasks, for one horizon.

    Args:
        learner: who.
        family: on what.
        seed: of the first task.
        tasks: how many at most.
    """
    most = TASKS if family.fixed_data else POLICY_TASKS
    seeds = [seed + row for row in range(most if tasks is None else min(most, tasks))]
    moments = rollout(learner, family.replace(split="test"), seeds=seeds, steps=sys.maxsize)
    first = next(moments)
    # The learner's arguments need not name its horizon; the process has it.
    moments = islice(moments, first.mdp.objective.horizon)
    tasks_drawn, infos = dict(first.mdp.tasks), [moment.info for moment in moments]
    layers, sizes = (np.stack([info[name] for info in infos]) for name in ("layer", "step_size"))
    if sizes.ndim > 2:
        sizes = np.exp(np.log(sizes).mean(axis=2))
    return Choices(tasks_drawn, layers, sizes, learner.pool.layers)


def plot_routing(
    learner: MetaLearner, family: TaskFamily, path: Path, *, seed: int, title: str, tasks: int | None = None
) -> None:
    """Draws which layers and which step sizes the learner chooses for which of a family's held-out tasks.

    Tasks with two parameters are points, coloured by their networks' layers and by their step sizes. Of other tasks,
    those that have a member, domain or range of a parameter in common are a row of a map.

    Args:
        learner: who chooses.
        family: of the tasks.
        path: of the PNG.
        seed: of the first task.
        title: of the picture.
        tasks: how many at most.
    """
    choices = choices_of(learner, family, seed=seed, tasks=tasks)
    places = parameters(choices.tasks)
    if len(places) == 2 and not isinstance(family, Mixture) and all(_many(values) for values in places.values()):
        figure = _plot_points(choices, places)
    else:
        figure = _plot_maps(choices, groups_of(family, choices.tasks, places))
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)


def parameters(tasks: Tasks) -> dict[str, NDArray[np.float64]]:
    """The numbers that describe tasks and differ between them, (n,) each, by what axes call them."""
    found: dict[str, NDArray[np.float64]] = {}
    for name, values in tasks.items():
        label, unit = name.replace("_", " "), f" ({UNITS[name]})" if name in UNITS else ""
        if values.dtype.kind == "f" and values.ndim == 1:
            found[label + unit] = values
        elif values.dtype.kind == "f" and values.ndim == 2 and values.shape[1] <= 3:
            found |= {
                f"{label}, {axis}{unit}": values[:, place]
                for place, axis in zip(range(3), "xyz", strict=True)
                if place < values.shape[1]
            }
    return {label: values for label, values in found.items() if len(np.unique(values)) > 1}


def groups_of(family: TaskFamily, tasks: Tasks, places: Mapping[str, NDArray[np.float64]]) -> Groups:
    """The family's tasks by member, domain, or parameters; none where they have nothing in common."""
    if isinstance(family, Mixture):
        names = [member.name for member in family.members]
        labels = [name if names.count(name) == 1 else f"{name} {place}" for place, name in enumerate(names, start=1)]
        return _by_number(labels, tasks["member"])
    if isinstance(family, Omniglot):
        return _by_number(family.domains, tasks["domain"]) if len(family.domains) > 1 else {}
    numbers = {name: values for name, values in tasks.items() if values.ndim == 1 and values.dtype.kind in "iub"}
    groups: Groups = {}
    for label, values in {**numbers, **places}.items():
        different = np.unique(values)
        if len(different) <= FEW:
            groups |= {f"{label} {value:.3g}": values == value for value in different.tolist()}
        elif label in places:
            parts = 3 if len(places) > 1 else 8
            edges = np.quantile(values, np.linspace(0.0, 1.0, parts + 1))
            part = np.searchsorted(edges[1:-1], values, side="right")
            groups |= {
                f"{label} {low:.3g} to {high:.3g}": part == number
                for number, (low, high) in enumerate(pairwise(edges.tolist()))
            }
    return groups


def _by_number(labels: Sequence[str], numbers: NDArray[Any]) -> Groups:
    return {label: numbers == number for number, label in enumerate(labels) if (numbers == number).any()}


def _many(values: NDArray[np.float64]) -> bool:
    return len(np.unique(values)) > FEW


# -- points ----------------------------------------------------------------------------------------------------------


def _plot_points(choices: Choices, places: Mapping[str, NDArray[np.float64]]) -> Figure:
    """A point a task: coloured by its layers, where those differ, and by its step sizes."""
    sizes = {"step size, geometric mean of the episode": choices.mean_sizes}
    if not choices.routed:
        sizes = {f"size of step {step}": row for step, row in enumerate(choices.sizes[:SHOWN_STEPS], start=1)}
    count = choices.routed + len(sizes)
    lines = -(-count // 2)
    figure = Figure(figsize=(4.6 * min(count, 2) + 0.8, 4.2 * lines), layout="constrained")
    panels = list(figure.subplots(lines, min(count, 2), squeeze=False).flat)
    for axes in panels[count:]:
        axes.axis("off")
    panels = panels[:count]
    (across, x), (upward, y) = places.items()
    if choices.routed:
        _points_by_layers(panels[0], choices, x, y)
    norm = _log_norm(list(sizes.values()))
    for axes, (label, values) in zip(panels[choices.routed :], sizes.items(), strict=True):
        drawn = axes.scatter(x, y, c=values, cmap=COLOUR_MAP, norm=norm, s=24, edgecolors="black", linewidths=0.3)
        axes.set_title(label, fontsize=9)
    _colour_bar(figure, drawn, panels[choices.routed :], "gradient step size")
    for axes in panels:
        axes.set(xlabel=across, ylabel=upward)
        axes.grid(alpha=0.3)
    return figure


def _points_by_layers(axes: Any, choices: Choices, x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    """The commonest networks have colours and signs of their own, the others share one.

    Where these are too many, the first layer alone decides.
    """
    keys, title = choices.networks, "layers that the network was given, in order"
    common = _commonest(keys)
    if sum(count for _, count in common) < SHARE_SHOWN * len(keys):
        keys, title = [network[:1] for network in keys], "first layer that the network was given"
        common = _commonest(keys)
    shown = {_words(key): np.array([other == key for other in keys]) for key, _ in common}
    others = ~np.any(list(shown.values()), axis=0)
    if others.any():
        shown["others"] = others
    for place, (label, rows) in enumerate(shown.items()):
        entry = f"{label} ({rows.mean():.0%})"
        axes.scatter(x[rows], y[rows], color=COLOURS[place], marker=MARKERS[place], s=26, label=entry, linewidths=0)
    axes.set_title(title, fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8, ncols=3, frameon=False)


def _commonest(keys: Sequence[tuple[int, ...]]) -> list[tuple[tuple[int, ...], int]]:
    """Those that have a colour each, and how often they are there: all, or all but what shares the last colour."""
    found = Counter(keys).most_common()
    return found if len(found) <= len(COLOURS) else found[: len(COLOURS) - 1]


def _words(network: tuple[int, ...]) -> str:
    return f"layer{'s' * (len(network) > 1)} {', '.join(map(str, network))}" if network else "none"


def _log_norm(values: Any) -> LogNorm:
    """The logarithmic scale that holds these, also where they are all the same."""
    low, high = float(np.min(values)), float(np.max(values))
    return LogNorm(low, max(high, 1.01 * low))


def _colour_bar(figure: Figure, drawn: Any, panels: Sequence[Any], label: str) -> None:
    """What the colours of step sizes mean."""
    ticks = np.geomspace(drawn.norm.vmin, drawn.norm.vmax, 5)
    bar = figure.colorbar(drawn, ax=list(panels), label=label)
    bar.set_ticks(ticks.tolist(), labels=[f"{tick:.2g}" for tick in ticks])
    bar.ax.minorticks_off()


# -- maps ------------------------------------------------------------------------------------------------------------


def _plot_maps(choices: Choices, groups: Groups) -> Figure:
    """A row a group of tasks; layers by the share of tasks that get them, where those differ, and step sizes."""
    tasks = choices.layers.shape[1]
    together = groups or {"all tasks": np.ones(tasks, dtype=np.bool_)}
    labels = [f"{label} ({np.count_nonzero(rows)})" for label, rows in together.items()]
    count = 1 + choices.routed
    horizon = len(choices.sizes)
    widths = [choices.pool + 1] * choices.routed + [horizon]
    figure = Figure(
        figsize=(2.6 + 0.45 * sum(max(5, width) for width in widths) + 1.0 * count, 2.2 + 0.32 * len(labels)),
        layout="constrained",
    )
    panels = figure.subplots(1, count, squeeze=False, width_ratios=[max(5, width) for width in widths])[0]
    if choices.routed:
        given = np.stack([(choices.layers == layer).any(axis=0) for layer in range(1, choices.pool + 1)])
        given = np.concatenate([~given.any(axis=0, keepdims=True), given])
        shares = np.array([given[:, rows].mean(axis=1) for rows in together.values()])
        names = ["none", *map(str, range(1, choices.pool + 1))]
        drawn = _map(panels[0], shares, names, lambda share: f"{share:.0%}", {"vmin": 0.0, "vmax": 1.0})
        panels[0].set(xlabel="layer of the pool")
        panels[0].set_title("share of tasks whose network was given the layer", fontsize=9)
        figure.colorbar(drawn, ax=panels[0], label="share of tasks")
    sizes = np.array([np.exp(np.log(choices.sizes[:, rows]).mean(axis=1)) for rows in together.values()])
    names = [str(step) for step in range(1, horizon + 1)]
    drawn = _map(panels[-1], sizes, names, lambda size: f"{size:.2g}", {"norm": _log_norm(sizes)})
    panels[-1].set(xlabel="step of the episode")
    panels[-1].set_title("step size, geometric mean", fontsize=9)
    _colour_bar(figure, drawn, panels[-1:], "gradient step size")
    panels[0].set_yticks(range(len(labels)), labels, fontsize=8)
    for axes in panels[1:]:
        axes.set_yticks([])
    panels[0].set_ylabel("held-out tasks (how many)")
    return figure


def _map(axes: Any, values: NDArray[np.float64], columns: Sequence[str], said: Any, colours: dict[str, Any]) -> Any:
    """A cell a group and column, with its number in it where there is room."""
    drawn = axes.imshow(values, cmap=COLOUR_MAP, aspect="auto", **colours)
    if len(columns) <= 20:
        axes.set_xticks(range(len(columns)), columns, fontsize=8)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if values.size <= CELLS and values.shape[1] <= 12:
        for (row, column), value in np.ndenumerate(values):
            # The lower half of the colours is dark.
            colour = "white" if drawn.norm(value) < 0.5 else "black"
            axes.text(column, row, said(value), ha="center", va="center", fontsize=6.5, color=colour)
    return drawn
