"""Adaptation curves of the results page: a panel for each of its tables."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter
from PIL import Image

from agents.report import COLOURS, LOG_TICKS
from agents.result_groups import Group

MAIN = ("maml_5", "reml", "meta_sgd", "maml_plus_plus", "router", "maml_matched", "reml_multipliers", "scratch")
"""Who is drawn unless a section says otherwise, one for each of the colours: they keep theirs in all sections."""

MARKERS = "osDv^PX*"
PANELS_IN_A_ROW = 3
DPI = 110
PALETTE = 256  # colours of the file: about a quarter of the size of full colour


def drawn(groups: Sequence[Group], curves: Sequence[str]) -> list[str]:
    """Who of those that may have a curve takes part, in the order of the tables."""
    return list(dict.fromkeys(name for group in groups for name in group.learners if name in curves))


def alt_text(groups: Sequence[Group], curves: Sequence[str]) -> str:
    """What the plot shows, for those who do not see it."""
    metrics = " and ".join(dict.fromkeys(group.metric for group in groups))
    return (
        f"Adaptation curves of {', '.join(drawn(groups, curves))}: {metrics} over gradient steps, with 95 % bands over "
        "seeds. A panel for each of the section's tables of results, in their order"
    )


def plot_groups(groups: Sequence[Group], path: Path, curves: Sequence[str]) -> None:
    """Draws the means with their 95 % intervals over seeds, on logarithmic axes where less is better.

    Args:
        groups: a panel each.
        path: of the PNG.
        curves: the learners that may have one, each with the colour of its place; no more than there are colours.
    """
    columns = min(len(groups), PANELS_IN_A_ROW)
    lines = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(max(3.0 * columns, 6.0), 2.7 * lines + 0.6), layout="constrained")
    panels = list(figure.subplots(lines, columns, squeeze=False).flat)
    handles: dict[str, Any] = {}
    for group, axes in zip(groups, panels, strict=False):
        for name in drawn([group], curves):
            handles[name] = _curve(axes, group, name, curves.index(name))
        axes.set_title(group.title, fontsize=8)
        axes.set_xlabel("gradient steps", fontsize=8)
        axes.set_ylabel(group.metric, fontsize=8)
        axes.set_xticks(group.steps)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        if group.lower_is_better:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_formatter(NullFormatter())
            low, high = axes.get_ylim()
            axes.set_yticks([tick for tick in LOG_TICKS if low <= tick <= high])
            axes.set_ylim(low, high)
    for axes in panels[len(groups) :]:
        axes.axis("off")
    names = drawn(groups, curves)
    figure.legend([handles[name] for name in names], names, loc="outside lower center", fontsize=8, ncols=4)
    _save(figure, path)


def _curve(axes: Any, group: Group, name: str, place: int) -> Any:
    rows = sorted(group.rows[name].items())
    steps = [step for step, _ in rows]
    mean = np.array([row["mean"] for _, row in rows])
    width = np.array([row["ci95"] or 0.0 for _, row in rows])
    style = {"color": COLOURS[place], "marker": MARKERS[place], "markersize": 3.5}
    (line,) = axes.plot(steps, mean, linewidth=2.2 if name.startswith("reml") else 1.2, **style)
    # a logarithmic axis has no place for the part of a band that reaches below zero
    floor = np.maximum(mean - width, mean * 0.1) if group.lower_is_better else mean - width
    axes.fill_between(steps, floor, mean + width, color=COLOURS[place], alpha=0.2, linewidth=0)
    return line


def _save(figure: Figure, path: Path) -> None:
    full = io.BytesIO()
    figure.savefig(full, dpi=DPI)
    with Image.open(full) as image:
        image.convert("RGB").quantize(PALETTE, dither=Image.Dither.NONE).save(path, optimize=True)
