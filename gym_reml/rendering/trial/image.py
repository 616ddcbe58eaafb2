"""A trial as an image: title and last step above, the drawing of its `TrialView` below."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.canvas import BAND, HEIGHT, LEFT, RIGHT, WIDTH, Canvas, shortened, text_width
from gym_reml.rendering.frames import TrialFrame
from gym_reml.rendering.scales import number
from gym_reml.rendering.trial import find_view


def draw_trial(frame: TrialFrame) -> NDArray[np.uint8]:
    """Renders a frame: (HEIGHT, WIDTH, 3) uint8."""
    view, canvas = find_view(frame.name), Canvas(WIDTH, HEIGHT)
    canvas.text(LEFT, 27, shortened(view.title(frame), RIGHT - LEFT, 20), 20, bold=True)
    canvas.box((LEFT, 47, RIGHT, 79), fill=BAND, radius=6)
    words = f"return {number(frame.total)}"
    canvas.text(RIGHT - 12, 63, words, 17, anchor="rm", bold=True)
    room = RIGHT - LEFT - 48 - text_width(words, 17)
    sentence = view.clock(frame)
    canvas.text(LEFT + 12, 63, shortened(sentence[0].upper() + sentence[1:], room, 17), 17)
    view.picture(canvas, frame)
    return canvas.to_array()
