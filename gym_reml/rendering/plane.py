"""Plots of paths on the plane, with start and goal."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from gym_reml.rendering.canvas import GRID, INK, MUTED, RULE, WHITE, Canvas, Colour, text_width
from gym_reml.rendering.scales import Scale, number, tamed

Box = tuple[float, float, float, float]


class Plane:
    """A square of the plane around (0, 0), drawn on a canvas.

    Args:
        canvas: To draw on.
        area: (left, top, right, bottom) of the square, without the numbers left of it and below.
        reach: Largest coordinate shown, in all directions.
    """

    def __init__(self, canvas: Canvas, area: Box, reach: float) -> None:
        self.canvas, self.area, self.scale = canvas, area, Scale(-reach, reach)
        left, top, right, bottom = area
        ticks = self.scale.ticks(4)
        for tick, place in zip(ticks, self.scale.fraction(ticks).tolist(), strict=True):
            x, y = left + place * (right - left), bottom - place * (bottom - top)
            canvas.line([(left, y), (right, y)], GRID)
            canvas.line([(x, top), (x, bottom)], GRID)
            canvas.text(left - 6, y, number(tick), 14, MUTED, "rm")
            canvas.text(x, bottom + 11, number(tick), 14, MUTED, "mm")
        canvas.box(area, outline=RULE)

    def pixels(self, points: ArrayLike) -> list[tuple[float, float]]:
        """Canvas coordinates of the finite ones of points (n, 2)."""
        left, top, right, bottom = self.area
        places = self.scale.fraction(tamed(points).reshape(-1, 2))
        places = places[np.isfinite(places).all(axis=1)]
        return list(zip(left + places[:, 0] * (right - left), bottom - places[:, 1] * (bottom - top), strict=True))

    def path(self, points: ArrayLike, colour: Colour, width: float, dashed: bool = False) -> None:
        """Draws a path (n, 2), with a dot at its end."""
        places = self.pixels(points)
        if not places:
            return
        for line in dashes(places) if dashed else [places]:
            self.canvas.line(line, colour, width)
        self.canvas.dot(*places[-1], 1.5 + width, colour, WHITE)

    def landmarks(self, goal: ArrayLike) -> None:
        """Draws the start, (0, 0), and the goal (2,)."""
        for place in self.pixels([0.0, 0.0]):
            draw_start(self.canvas, *place)
        for place in self.pixels(goal):
            draw_goal(self.canvas, *place)


def dashes(places: list[tuple[float, float]], on: float = 5.0, off: float = 3.5) -> list[list[tuple[float, float]]]:
    """The pieces of a dashed line: of length ``on``, with gaps of length ``off``."""
    corners = np.array(places)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(corners, axis=0).T))])
    pieces = []
    for start in np.arange(0.0, along[-1], on + off):
        end = min(start + on, along[-1])
        inside = along[(along > start) & (along < end)]
        x, y = (np.interp([start, *inside, end], along, side) for side in corners.T)
        pieces.append(list(zip(x.tolist(), y.tolist(), strict=True)))
    return pieces


def draw_start(canvas: Canvas, x: float, y: float) -> None:
    """The mark of a start."""
    canvas.box((x - 5.5, y - 5.5, x + 5.5, y + 5.5), WHITE, INK, 2.0)


def draw_goal(canvas: Canvas, x: float, y: float) -> None:
    """The mark of a goal."""
    canvas.dot(x, y, 8.0, WHITE)
    canvas.dot(x, y, 7.0, INK)
    canvas.dot(x, y, 4.8, WHITE)
    canvas.dot(x, y, 2.6, INK)


def draw_key(canvas: Canvas, right: float, y: float) -> float:
    """Draws the legend of the marks, right-aligned at ``right``; returns its left end."""
    for words, draw in (("goal", draw_goal), ("start", draw_start)):
        canvas.text(right, y, words, 15, anchor="rm")
        right -= text_width(words, 15) + 13
        draw(canvas, right, y)
        right -= 20
    return right


def square_in(area: Box) -> Box:
    """The largest centred square in an area."""
    left, top, right, bottom = area
    side = min(right - left, bottom - top)
    x, y = (left + right - side) / 2, (top + bottom - side) / 2
    return x, y, x + side, y + side
