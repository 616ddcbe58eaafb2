"""The view of navigation trials: paths on the plane, returns, and distances to the goal."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase, digits

import numpy as np

from gym_reml.rendering.canvas import LEFT, MUTED, RIGHT, Canvas, text_width
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.plane import Plane, draw_key
from gym_reml.rendering.plots import GUTTER, broken_line, plot_area
from gym_reml.rendering.scales import Scale, number, plane_reach
from gym_reml.rendering.text import plane_lines, wrapped
from gym_reml.rendering.trial.returns import BOTTOM, TOP, Box, draw_returns, episode_colours, every_nth, return_lines
from gym_reml.rendering.trial.view import TrialView, plural, step_clock

_RIGHT_PANELS = 496.0


# Capitals without S and G, which mark start and goal.
_PATH_MARKS = digits[1:] + ascii_lowercase + ascii_uppercase.replace("G", "").replace("S", "")


class NavigationView(TrialView):
    """Paths on the plane, returns, and distances to the goal."""

    def title(self, frame: TrialFrame) -> str:
        """Number of inner episodes."""
        return f"Finding one goal: {plural(frame.horizon, 'inner episode')}"

    def clock(self, frame: TrialFrame) -> str:
        """The inner episode, its step, and the distance to the goal."""
        return step_clock(frame) + (f"{number(-frame.rewards[-1])} from the goal" if frame.steps else "")

    def picture(self, canvas: Canvas, frame: TrialFrame) -> None:
        """Paths at the left; returns, and distances, which are the negative rewards, at the right."""
        middle = (TOP + BOTTOM) / 2
        colours = episode_colours(frame.horizon)
        _draw_paths(canvas, frame)
        draw_returns(canvas, frame, (_RIGHT_PANELS, TOP, RIGHT, middle - 8), colours)
        _draw_distances(canvas, frame, (_RIGHT_PANELS, middle + 8, RIGHT, BOTTOM))

    def lines(self, frame: TrialFrame) -> list[str]:
        """The returns, and the plane with a character for each inner episode."""
        paths = [frame.path(episode) for episode in range(len(frame.lengths))]
        marks = [_PATH_MARKS[min(episode, len(_PATH_MARKS) - 1)] for episode in range(len(paths))]
        layers: list[tuple[Sequence[np.ndarray], str]] = [
            ([path], mark) for path, mark in zip(paths, marks, strict=True)
        ]
        goal = frame.task["goal"]
        kinds = ([mark for mark in marks if mark in kind] for kind in (digits, ascii_lowercase, ascii_uppercase))
        ranges = [f"{kind[0]} to {kind[-1]}" if len(kind) > 1 else kind[0] for kind in kinds if kind]
        key = f"{', '.join(ranges)}: inner episodes" if ranges else ""
        lines = [*return_lines(frame), ""]
        lines += wrapped("paths", f"S start   G goal ({number(goal[0])}, {number(goal[1])})   {key}".split(" "), " ")
        return lines + plane_lines(layers, goal)


def _draw_paths(canvas: Canvas, frame: TrialFrame) -> None:
    """The path of each inner episode in its colour, dashed during the burn-in, later ones on top."""
    paths = [frame.path(episode) for episode in range(len(frame.lengths))]
    goal = frame.task["goal"]
    side = BOTTOM - 20 - TOP - 24
    left = LEFT + GUTTER
    area = (left, TOP + 24, left + side, TOP + 24 + side)
    plane = Plane(canvas, area, plane_reach(np.concatenate([*paths, goal[None]])))
    colours = episode_colours(frame.horizon)
    # Many paths are easier to distinguish when they are thin.
    width = 2.5 if frame.horizon <= 10 else 1.5
    for episode, path in enumerate(paths):
        plane.path(path, colours[episode], width, dashed=episode < frame.burn_in)
    plane.landmarks(goal)
    canvas.text(LEFT, TOP + 7, "Paths", 15, bold=True)
    key = draw_key(canvas, area[2], TOP + 7)
    _draw_ramp(canvas, frame, left + 4, key)


def _draw_ramp(canvas: Canvas, frame: TrialFrame, left: float, right: float) -> None:
    """The legend of the inner episodes' colours, from first to last."""
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
    # Room for the right half of the last tick label.
    area = (left + GUTTER, top + 24, right - 10, bottom - 20)
    farthest = float(np.max(-frame.rewards, initial=float(np.hypot(*frame.task["goal"]))))
    scale = Scale(0.0, 1.05 * farthest)
    plot_area(canvas, area, scale, scale.ticks(4))
    longest = max(10, int(frame.lengths.max(initial=0)))
    # Rounded up to tens, so that the axis seldom changes during the first inner episode.
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
