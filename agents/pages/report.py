"""The end of a run: a table of the learner among its controls, adaptation curves, and fits on a few held-out tasks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich import print as show

from gym_reml.evaluation import MetaLearner, Result, controls, evaluate, rollout
from gym_reml.evaluation.protocol import at_most
from gym_reml.evaluation.results import half_width, table
from gym_reml.files import file_name, write_file, write_text
from gym_reml.tasks.base import TaskFamily

from ..comparison.rows import LOWER_IS_BETTER
from ..problems.problem import POLICY_STEPS, TABLE_STEPS

CURVE_STEPS = tuple(range(11))
# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osDv^PX*"


def compare_with_controls(
    learner: MetaLearner, family: TaskFamily, tasks: int, seed: int, *, full: bool
) -> list[Result]:
    """The learner, from scratch, and the controls on the same tasks; `full` adds those that try every composition.

    They are not added for policies, whose every try is another set of trajectories. A family that holds fewer tasks is
    judged on all of them.
    """
    tasks = at_most(tasks, family, "test")
    steps = CURVE_STEPS if family.fixed_data else POLICY_STEPS
    protocol: dict[str, Any] = {"steps": steps, "tasks": tasks, "seed": seed}
    results = [
        controls.from_scratch(learner, family, **protocol),
        evaluate(learner, family, **protocol),
        controls.random_layer(learner, family, **protocol),
        controls.constant_step(learner, family, **protocol),
        controls.shuffled_observation(learner, family, **protocol),
        controls.zeroed_observation(learner, family, **protocol),
    ]
    if full and family.fixed_data:
        results.append(controls.best_composition(learner, family, **protocol))
        results.append(controls.oracle(learner, family, **protocol))
    return results


def write_report(results: Sequence[Result], metric: str, folder: Path, *, title: str) -> None:
    """Prints the table, and writes it, every task's losses and the curves to the folder."""
    steps = TABLE_STEPS if max(TABLE_STEPS) in results[0].steps else POLICY_STEPS
    text = table(results, metric, steps=steps)
    show(f"\n[bold]{title}[/bold]\n{metric} on the query set, mean ± 95 % interval over tasks (median):\n")
    print(text + "\n")
    write_text(folder / "table.md", f"{title}: {metric} on the query set, mean ± 95 % interval (median)\n\n{text}\n")
    for result in results:
        result.save(folder / f"{file_name(result.learner)}.json")
    plot_curves(results, metric, folder / "curves.png", title)


def plot_curves(results: Sequence[Result], metric: str, path: Path, title: str) -> None:
    """Adaptation curves: mean over tasks with its 95 % interval."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    error = LOWER_IS_BETTER.get(metric, True)
    for result, colour in zip(results, COLOURS, strict=False):
        values = [result.values(step, metric) for step in result.steps]
        mean = np.array([value.mean() for value in values])
        width = np.array([half_width(value) for value in values])
        floor = np.maximum(mean - width, mean * 0.1) if error else mean - width
        axes.plot(result.steps, mean, color=colour, label=result.learner, marker="o", markersize=3)
        axes.fill_between(result.steps, floor, mean + width, color=colour, alpha=0.2, linewidth=0)
    axes.set(xlabel="gradient steps", ylabel=f"{metric} on the query set", title=title)
    if error:
        log_scale(axes)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8, ncols=4)
    write_file(path, partial(figure.savefig, format="png", dpi=130))


def log_scale(axes: Any, axis: str = "y", unit: float = 1.0) -> None:
    """Makes an axis logarithmic, marked at 1, 2 and 5 times powers of ten, in a short range more finely.

    Args:
        axes: whose axis.
        axis: "y" or "x".
        unit: that its marks count in.
    """
    axes.set(**{f"{axis}scale": "log"})
    scale: Any = getattr(axes, f"{axis}axis")
    scale.set_minor_formatter(NullFormatter())
    low, high = scale.get_view_interval()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), range(1, 10), np.arange(2, 20) / 2, np.arange(10, 100) / 10):
        ticks = [float(f"{digit}e{power}") for power in powers for digit in digits]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) > 1:
            break
    scale.set_ticks(ticks, [f"{tick / unit:g}" for tick in ticks])
    axes.set(**{f"{axis}lim": (low, high)})


def plot_examples(learner: MetaLearner, family: TaskFamily, path: Path, *, seed: int, tasks: int = 4) -> None:
    """A few held-out tasks: fits of functions as they adapt, or query images and what the network says of them."""
    seeds = [seed + row for row in range(tasks)]
    moments = rollout(learner, family.replace(split="test"), seeds=seeds, steps=5)
    draw = _plot_images if family.image_shape is not None else _plot_fits
    figure = draw(moments, tasks, family)
    if figure is not None:
        write_file(path, partial(figure.savefig, format="png", dpi=130))


def _plot_fits(moments: Any, tasks: int, family: TaskFamily) -> Figure | None:
    figure = Figure(figsize=(3.2 * tasks, 3.4), layout="constrained")
    panels = figure.subplots(1, tasks, squeeze=False)[0]
    for moment in moments:
        if moment.step not in (0, 1, 5):
            continue
        for row, axes in enumerate(panels):
            curve = family.curve(moment.mdp.tasks, row)
            if curve is None:
                return None
            grid, target = curve
            inputs = torch.from_numpy(grid.astype(np.float32)).reshape(1, -1, 1).expand(tasks, -1, -1)
            if moment.step == 0:
                batch = moment.mdp.support
                axes.plot(grid, target, color="black", label="target")
                axes.plot(batch.inputs[row, :, 0], batch.targets[row, :, 0], "k^", label="support set")
            prediction = moment.mdp.outputs(inputs)[row, :, 0]
            style = {0: ":", 1: "--", 5: "-"}[moment.step]
            label = f"after {moment.step} step{'s' if moment.step != 1 else ''}"
            axes.plot(grid, prediction, style, color=COLOURS[1], label=label)
            axes.set_title(f"task {row + 1}: mse {moment.info['query_loss'][row]:.2g} after {moment.step}", fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", fontsize=8, ncols=5)
    return figure


def _plot_images(moments: Any, tasks: int, family: TaskFamily) -> Figure | None:
    assert family.image_shape is not None
    *_, last = moments
    shown = 10
    ways = family.out_features
    figure = Figure(figsize=(0.7 * (ways + shown + 1), 0.85 * tasks), layout="constrained")
    panels = figure.subplots(tasks, ways + 1 + shown, squeeze=False)
    guesses = last.mdp.outputs(last.mdp.query.inputs).argmax(dim=-1)
    for row in range(tasks):
        support, query = last.mdp.support, last.mdp.query
        for column, axes in enumerate(panels[row]):
            axes.set_xticks([])
            axes.set_yticks([])
            if column < ways:
                place = int((support.targets[row] == column).nonzero()[0])
                axes.imshow(support.inputs[row, place].reshape(family.image_shape), cmap="gray_r", vmin=0, vmax=1)
                axes.set_title(f"class {column + 1}" if row == 0 else "", fontsize=7)
            elif column == ways:
                axes.axis("off")
            else:
                place = (column - ways - 1) * query.inputs.shape[1] // shown
                guess, truth = int(guesses[row, place]), int(query.targets[row, place])
                axes.imshow(query.inputs[row, place].reshape(family.image_shape), cmap="gray_r", vmin=0, vmax=1)
                colour = COLOURS[2] if guess == truth else COLOURS[1]
                axes.set_title(
                    f"{guess + 1}" if guess == truth else f"{guess + 1} (is {truth + 1})", fontsize=7, color=colour
                )
                for side in axes.spines.values():
                    side.set(color=colour, linewidth=2)
    figure.suptitle("support set (left) and query images with the class the network says after 5 steps", fontsize=8)
    return figure
