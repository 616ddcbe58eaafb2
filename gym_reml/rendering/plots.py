"""Parts of plots: frame with tick labels, legend, lines with gaps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.canvas import GRID, MUTED, RULE, Canvas, Colour, text_width
from gym_reml.rendering.scales import Scale, number

GUTTER = 48.0
"""Width of the tick labels left of a plot."""


def plot_area(
    canvas: Canvas, area: tuple[float, float, float, float], scale: Scale, ticks: list[float], ruled: bool = True
) -> None:
    """The frame of a plot, with tick labels at its left side."""
    left, top, right, bottom = area
    for tick, place in zip(ticks, scale.fraction(ticks).tolist(), strict=True):
        y = bottom - place * (bottom - top)
        if ruled:
            canvas.line([(left, y), (right, y)], GRID)
        canvas.text(left - 6, y, number(tick), 14, MUTED, "rm")
    canvas.box(area, outline=RULE)


def legend(canvas: Canvas, x: float, y: float, entries: list[tuple[str, Colour, str]]) -> None:
    """A row of entries (text, colour, kind of mark: "line", "wide", "round", "square" or "point")."""
    for words, colour, kind in entries:
        if kind != "point":
            canvas.line([(x, y), (x + 22, y)], colour, 5.0 if kind == "wide" else 2.5)
        if kind in ("round", "point"):
            canvas.dot(x + 11, y, 4.5, colour)
        elif kind == "square":
            canvas.square(x + 11, y, 4.0, colour)
        canvas.text(x + 28, y, words, 15)
        x += 28 + text_width(words, 15) + 18


def broken_line(canvas: Canvas, x: NDArray[np.float64], y: NDArray[np.float64], colour: Colour, width: float) -> None:
    """A line through the points, with gaps where they are not finite."""
    finite = np.isfinite(x) & np.isfinite(y)
    for run in np.split(np.arange(len(x)), np.flatnonzero(np.diff(finite)) + 1):
        if len(run) and finite[run[0]]:
            points = list(zip(x[run].tolist(), y[run].tolist(), strict=True))
            # Pillow draws nothing for a single point.
            canvas.line(points if len(points) > 1 else points * 2, colour, width)
