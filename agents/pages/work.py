"""Figures over work: what a few gradient steps reach, against the inner gradients of a training run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.transforms import Bbox

from ..comparison.rows import Row
from .groups import Group
from .plots import in_lines, interval, panels_of, save
from .report import COLOURS, log_scale
from .sections import Section

LABEL_SIZE = 6.5
"""Points of the learners' names."""

MARKER = 6.0
"""Pixels that a point takes."""

UPWARD = (0.0, *(sign * 4.5 * line for line in range(1, 8) for sign in (1, -1)))

OFFSETS = [(right, up, side) for up in UPWARD for right, side in ((5, "left"), (-5, "right"))]
"""Places of a name beside its point, in points right and up, and how it is aligned; the first that is free is taken."""

Panel = tuple[Group, int]
"""A table and a step."""


def over_work(groups: Sequence[Group]) -> list[Panel]:
    """The panels of a section's figure over work: none where no run counted any. Families trained on are left out."""
    return [
        (group, step)
        for group in groups
        if group.split != "train"
        for step in group.section.work_steps
        if points(group, step)
    ]


def points(group: Group, step: int) -> dict[str, Row]:
    """The rows of learners that took inner gradients, after that step."""
    found = {name: group.rows[name].get(step) for name in group.learners}
    return {name: row for name, row in found.items() if row is not None and row["inner_gradients"]}


def work_alt_text(panels: Sequence[Panel], section: Section) -> str:
    """What the figure shows, for those who do not see it."""
    metrics = " and ".join(dict.fromkeys(group.metric for group, _ in panels))
    names = ", ".join(dict.fromkeys(name for panel in panels for name in points(*panel)))
    return (
        f"{metrics.capitalize()} of {names} as points, with 95 % intervals, over the inner gradients of training. A "
        f"panel for each family, number of shots and number of {section.axis}"
    )


def plot_work(panels: Sequence[Panel], path: Path, section: Section) -> None:
    """Draws a labelled point with its interval for every learner, the work on a logarithmic axis.

    Args:
        panels: of `over_work`, at least one.
        path: of the PNG.
        section: of the panels.
    """
    figure, places = panels_of(len(panels), lowest=6.0, below=0.0, width=4.0, height=3.2)
    for (group, step), axes in zip(panels, places, strict=False):
        rows = points(group, step)
        for name, row in rows.items():
            low, high = interval(group, row)
            own = name.startswith("reml")
            axes.errorbar(
                row["inner_gradients"],
                row["mean"],
                yerr=[[row["mean"] - low], [high - row["mean"]]],
                color=COLOURS[1 if own else 0],
                marker="D" if own else "o",
                markersize=4,
                capsize=2,
                linewidth=1.0,
            )
        axes.set_title(in_lines(f"{group.title}, {section.column(step)}"), fontsize=8)
        axes.set_xlabel("million inner gradients of a training run", fontsize=8)
        axes.set_ylabel(group.metric, fontsize=8)
        axes.set_xscale("log")
        axes.margins(x=0.35)
        log_scale(axes, "x", unit=1e6)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if group.lower_is_better:
            log_scale(axes)
    # Only now the panels have their places.
    figure.draw_without_rendering()
    for panel, axes in zip(panels, places, strict=False):
        _label(axes, points(*panel))
    save(figure, path)


def _label(axes: Any, rows: dict[str, Row]) -> None:
    """Writes every learner's name beside its point, where there is room on no other name or point."""
    frame = axes.get_window_extent()
    at = {name: (row["inner_gradients"], row["mean"]) for name, row in rows.items()}
    centres = axes.transData.transform(list(at.values()))
    taken = [Bbox.from_extents(*(centre - MARKER / 2), *(centre + MARKER / 2)) for centre in centres]
    for name in sorted(at, key=lambda name: -at[name][1]):
        texts = [
            axes.annotate(
                name,
                at[name],
                xytext=(right, up),
                textcoords="offset points",
                ha=side,
                va="center",
                fontsize=LABEL_SIZE,
            )
            for right, up, side in OFFSETS
        ]
        places = [text.get_window_extent() for text in texts]
        inside = [frame.x0 <= place.x0 and place.x1 <= frame.x1 for place in places]
        free = [fits and not place.count_overlaps(taken) for fits, place in zip(inside, places, strict=True)]
        chosen = free.index(True) if any(free) else inside.index(True) if any(inside) else 0
        taken.append(places[chosen])
        for text in texts[:chosen] + texts[chosen + 1 :]:
            text.remove()
