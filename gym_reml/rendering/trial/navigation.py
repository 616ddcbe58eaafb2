"""The picture of a navigation trial: the paths on the plane, the returns, and how the goal came nearer."""

from __future__ import annotations

import numpy as np

from gym_reml.rendering.canvas import LEFT, MUTED, RIGHT, Canvas, text_width
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.plane import Plane, draw_key
from gym_reml.rendering.plots import GUTTER, broken_line, plot_area
from gym_reml.rendering.scales import Scale, plane_reach
from gym_reml.rendering.trial.returns import BOTTOM, TOP, Box, draw_returns, episode_colours, every_nth

_RIGHT_PANELS = 496.0


def draw_navigation(canvas: Canvas, frame: TrialFrame) -> None:
    """Paths at the left; returns and distances, which are what rewards tell, at the right."""
    middle = (TOP + BOTTOM) / 2
    colours = episode_colours(frame.horizon)
    _draw_paths(canvas, frame)
    draw_returns(canvas, frame, (_RIGHT_PANELS, TOP, RIGHT, middle - 8), colours)
    _draw_distances(canvas, frame, (_RIGHT_PANELS, middle + 8, RIGHT, BOTTOM))


def _draw_paths(canvas: Canvas, frame: TrialFrame) -> None:
    """The way of each inner episode in its colour, dashed where it does not count, later ones on top."""
    ways = [frame.way(episode) for episode in range(len(frame.lengths))]
    goal = frame.task["goal"]
    side = BOTTOM - 20 - TOP - 24
    left = LEFT + GUTTER
    area = (left, TOP + 24, left + side, TOP + 24 + side)
    plane = Plane(canvas, area, plane_reach(np.concatenate([*ways, goal[None]])))
    colours = episode_colours(frame.horizon)
    # Of many paths, thin ones remain to be told apart.
    width = 2.5 if frame.horizon <= 10 else 1.5
    for episode, way in enumerate(ways):
        plane.path(way, colours[episode], width, dashed=episode < frame.burn_in)
    plane.landmarks(goal)
    canvas.text(LEFT, TOP + 7, "Paths", 15, bold=True)
    key = draw_key(canvas, area[2], TOP + 7)
    _draw_ramp(canvas, frame, left + 4, key)


def _draw_ramp(canvas: Canvas, frame: TrialFrame, left: float, right: float) -> None:
    """Which colours are the first inner episodes' and which the last ones'."""
    y = TOP + 7
    shown = episode_colours(min(frame.horizon, 12))
    canvas.text(left + 8, y, "first", 15)
    x = left + 8 + text_width("first", 15) + 6
    cell = 72.0 / len(shown)
    for colour in shown:
        canvas.box((x, y - 5, x + cell, y + 5), colour)
        x += cell
    canvas.text(x + 6, y, "last", 15)
    x += 6 + text_width("last", 15) + 16
    if frame.burn_in and x + text_width("dashed: burn-in", 15) < right:
        canvas.text(x, y, "dashed: burn-in", 15)


def _draw_distances(canvas: Canvas, frame: TrialFrame, panel: Box) -> None:
    """The distance to the goal over the steps of each inner episode."""
    left, top, right, bottom = panel
    canvas.text(left, top + 7, "Distance to the goal", 15, bold=True)
    # The last number below is as wide as the room left for it.
    area = (left + GUTTER, top + 24, right - 10, bottom - 20)
    farthest = float(np.max(-frame.rewards, initial=float(np.hypot(*frame.task["goal"]))))
    scale = Scale(0.0, 1.05 * farthest)
    plot_area(canvas, area, scale, scale.ticks(4))
    longest = max(10, int(frame.lengths.max(initial=0)))
    # Whole tens, so that the axis seldom moves while the first inner episode goes on.
    steps = -(-longest // 10) * 10
    colours = episode_colours(frame.horizon)
    for episode in range(len(frame.lengths)):
        distances = np.concatenate([[np.hypot(*frame.task["goal"])], -frame.rewards[frame.of(episode)]])
        x = area[0] + np.arange(len(distances)) / steps * (area[2] - area[0])
        y = area[3] - scale.fraction(distances) * (area[3] - area[1])
        broken_line(canvas, x, y, colours[episode], 2.5 if frame.horizon <= 10 else 1.5)
    nth = every_nth((area[2] - area[0]) / steps, text_width(str(steps), 14) + 10)
    for step in range(0, steps + 1, nth):
        canvas.text(area[0] + step / steps * (area[2] - area[0]), area[3] + 11, str(step), 14, MUTED, "mm")
    canvas.text(left, area[3] + 11, "step", 14, MUTED)
