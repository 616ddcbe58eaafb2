"""The paths of a policy on the plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.canvas import PALE, SUPPORT, Canvas
from gym_reml.rendering.frames import Paths
from gym_reml.rendering.plane import Box, Plane, draw_key, square_in
from gym_reml.rendering.plots import legend
from gym_reml.rendering.scales import plane_reach


def draw_paths(canvas: Canvas, paths: Paths, area: Box) -> None:
    """Paths of the initial and of the current network, the current ones on top."""
    left, top, right, bottom = area
    places: Sequence[NDArray[np.float64]] = [np.reshape(points, (-1, 2)) for points in (paths.before, paths.now)]
    reach = plane_reach(np.concatenate([*places, np.reshape(paths.goal, (1, 2))]))
    plane = Plane(canvas, square_in((left + 48, top + 24, right, bottom - 20)), reach)
    for trajectories, colour in ((paths.before, PALE), (paths.now, SUPPORT)):
        for trajectory in trajectories:
            plane.path(trajectory, colour, 1.5)
    plane.landmarks(paths.goal)
    canvas.text(left, top + 7, "Paths", 15, bold=True)
    legend(canvas, left + 54, top + 7, [("at start", PALE, "line"), ("now", SUPPORT, "line")])
    draw_key(canvas, right, top + 7)
