"""Pictures of the results page: adaptation curves, or means of trials as points, a panel for each table."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from gym_reml.files import write_file

from ..comparison.rows import Row
from .groups import Group
from .report import COLOURS, MARKERS, log_scale
from .sections import Section

PANELS_IN_A_ROW = 3
TITLE_WIDTH = 40  # letters above a panel
DPI = 110
PALETTE = 256  # colours of the file: about a quarter of the size of full colour


def in_lines(title: str) -> str:
    """The title of a panel, in lines that do not reach into the next one."""
    return textwrap.fill(title, TITLE_WIDTH)


def alt_text(groups: Sequence[Group], section: Section) -> str:
    """What the plot shows, for those who do not see it."""
    metrics = " and ".join(dict.fromkeys(group.metric for group in groups))
    names = ", ".join(drawn(groups, section))
    if section.trials:
        return (
            f"Means of {names} as points: {metrics} {section.measured}, with 95 % intervals. A panel for each family "
            f"and number of {section.axis}"
        )
    return (
        f"Adaptation curves of {names}: {metrics} over {section.axis}, with 95 % bands. "
        "A panel for each of the section's tables of results, in their order"
    )


def drawn(groups: Sequence[Group], section: Section) -> list[str]:
    """Who is drawn, in the order of the tables: in trials all, else those that have a colour."""
    learners = dict.fromkeys(name for group in groups for name in group.learners)
    coloured = section.colours(learners)
    return [name for name in learners if section.trials or name in coloured]


def plot_groups(groups: Sequence[Group], path: Path, section: Section) -> None:
    """Draws the section's picture.

    Args:
        groups: of its tables.
        path: of the PNG.
        section: how they are to be read.
    """
    if section.trials:
        _plot_points(groups, path, section)
    else:
        _plot_curves(groups, path, section)


def _plot_curves(groups: Sequence[Group], path: Path, section: Section) -> None:
    """Means with their 95 % intervals, on logarithmic axes where less is better."""
    figure, panels = panels_of(len(groups), lowest=6.0, below=0.6)
    handles: dict[str, Any] = {}
    names = drawn(groups, section)
    colours = section.colours(names)
    for group, axes in zip(groups, panels, strict=False):
        for name in filter(group.rows.__contains__, names):
            handles[name] = _curve(axes, group, name, colours[name])
        axes.set_title(in_lines(group.title), fontsize=8)
        axes.set_xlabel(section.axis, fontsize=8)
        axes.set_ylabel(group.metric, fontsize=8)
        axes.set_xticks(group.steps)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if group.on_log_axis:
            log_scale(axes)
    figure.legend([handles[name] for name in names], names, loc="outside lower center", fontsize=8, ncols=4)
    save(figure, path)


def panels_of(
    count: int, *, lowest: float, below: float, width: float = 3.0, height: float = 2.7
) -> tuple[Figure, list[Any]]:
    """A figure with so many panels of that size, at least `lowest` wide, with a place of that height `below` them."""
    columns = min(count, PANELS_IN_A_ROW)
    lines = math.ceil(count / columns)
    figure = Figure(figsize=(max(width * columns, lowest), height * lines + below), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axes in panels[count:]:
        axes.axis("off")
    return figure, panels


BOUNDS = {"accuracy": (0.0, 1.0), "log_ratio": (-6.0, 1.0)}
"""What values of a metric can be; the interval over a few seeds can reach beyond."""


def interval(group: Group, row: Row) -> tuple[float, float]:
    """The ends of a mean's interval as they are drawn, the mean itself where there is none."""
    mean, width = row["mean"], group.half_width(row) or 0.0
    # A logarithmic axis has no place for the part of an interval that reaches below zero.
    low, high = (max(mean - width, mean * 0.1) if group.on_log_axis else mean - width), mean + width
    least, most = BOUNDS.get(group.metric, (-math.inf, math.inf))
    return max(low, least), min(high, most)


def _curve(axes: Any, group: Group, name: str, place: int) -> Any:
    rows = sorted(group.rows[name].items())
    steps = [step for step, _ in rows]
    style = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 3.5}
    (line,) = axes.plot(
        steps, [row["mean"] for _, row in rows], linewidth=2.2 if name.startswith("reml") else 1.2, **style
    )
    floor, ceiling = zip(*(interval(group, row) for _, row in rows), strict=True)
    axes.fill_between(steps, floor, ceiling, color=COLOURS[place], alpha=0.2, linewidth=0)
    return line


def _plot_points(groups: Sequence[Group], path: Path, section: Section) -> None:
    """A panel for each length of trials of each family, a line for each policy, the same ones in all panels."""
    shown = [(step, group) for step in sorted({step for group in groups for step in group.steps}) for group in groups]
    shown = [(step, group) for step, group in shown if step in group.steps]
    figure, panels = panels_of(len(shown), lowest=6.0, below=0.0)
    names = drawn(groups, section)
    for (step, group), axes in zip(shown, panels, strict=False):
        for place, name in enumerate(names):
            row = group.rows.get(name, {}).get(step)
            if row is None:
                continue
            learned = row["meta_training_tasks"] > 0
            axes.errorbar(
                row["mean"],
                place,
                xerr=group.half_width(row),
                color=COLOURS[1 if learned else 0],
                marker="D" if learned else "o",
                markerfacecolor="white" if section.is_informed(name) else None,
                markersize=4,
                capsize=2,
                linewidth=1.2,
            )
        axes.set_title(f"{group.family}, {section.column(step)}", fontsize=8)
        axes.set_xlabel(group.metric, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=7)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure as a PNG of few colours."""
    full = io.BytesIO()
    figure.savefig(full, dpi=DPI)
    with Image.open(full) as image:
        small = image.convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE)
        write_file(path, partial(small.save, format="png", optimize=True))
