"""A run of training as an image: the metric and the losses over the decisions, and the dials below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gym_reml.rendering.canvas import (
    ALERT,
    BAND,
    HEIGHT,
    LEFT,
    MUTED,
    QUERY,
    RIGHT,
    STEEL,
    SUPPORT,
    WIDTH,
    Canvas,
    Colour,
    shortened,
    text_width,
)
from gym_reml.rendering.frames import TuningFrame
from gym_reml.rendering.plots import GUTTER, broken_line, legend, plot_area
from gym_reml.rendering.scales import Scale, number
from gym_reml.rendering.tuning.words import by_part, clock, dial_scale, in_words, loss_scale, metric_scale, title

Box = tuple[float, float, float, float]

PART_COLOURS: dict[str, Colour] = {"train": SUPPORT, "validation": QUERY, "test": STEEL}
MIDDLE = 448.0
TOP, DIALS_TOP, BOTTOM = 96.0, 346.0, 544.0
MOST_LINES = 6


def draw_tuning(frame: TuningFrame) -> NDArray[np.uint8]:
    """Renders a frame: (HEIGHT, WIDTH, 3) uint8."""
    canvas = Canvas(WIDTH, HEIGHT)
    canvas.text(LEFT, 27, shortened(title(frame), RIGHT - LEFT, 18), 18, bold=True)
    canvas.box((LEFT, 47, RIGHT, 79), fill=BAND, radius=6)
    verdict = "DIVERGED: counts as untrained" if frame.diverged else ""
    canvas.text(RIGHT - 12, 63, verdict, 16, ALERT, "rm", bold=True)
    sentence = clock(frame)
    room = RIGHT - LEFT - 28 - (text_width(verdict, 16) + 16 if verdict else 0)
    canvas.text(LEFT + 12, 63, shortened(sentence[0].upper() + sentence[1:], room, 17), 17)
    halves = ((LEFT, MIDDLE - 12), (MIDDLE + 12, RIGHT))
    for (left, right), what, scale in zip(
        halves, (frame.metric, "loss"), (metric_scale(frame), loss_scale(frame)), strict=True
    ):
        area = (left + GUTTER, TOP + 40, right, DIALS_TOP - 36)
        canvas.text(left, TOP + 7, in_words(what).capitalize(), 15, bold=True)
        _draw_courses(canvas, frame, area, by_part(frame, what), scale)
    if not frame.dials:
        _draw_lines(canvas, frame)
        return canvas.to_array()
    width = (RIGHT - LEFT + 24) / len(frame.shown)
    for index, (name, values) in enumerate(frame.shown.items()):
        left = LEFT + index * width
        _draw_dial(canvas, frame, name, values, (left, DIALS_TOP, left + width - 24, BOTTOM))
    return canvas.to_array()


def _across(frame: TuningFrame, area: Box, steps: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The horizontal positions of decisions, the same for courses and dials; without dials, of minibatches."""
    return np.asarray(area[0] + np.asarray(steps) / frame.length * (area[2] - area[0]))


def _draw_courses(
    canvas: Canvas, frame: TuningFrame, area: Box, courses: Mapping[str, Sequence[float]], scale: Scale
) -> None:
    plot_area(canvas, area, scale, scale.ticks(4))
    for part, course in courses.items():
        y = area[3] - np.clip(scale.fraction(course), 0.0, 1.0) * (area[3] - area[1])
        broken_line(canvas, _across(frame, area, frame.places(course)), y, PART_COLOURS[part], 2.5)
    entries = [(f"{part} {number(course[-1])}", PART_COLOURS[part], "line") for part, course in courses.items()]
    legend(canvas, area[0] - GUTTER, TOP + 27, entries)
    _label_steps(canvas, frame, area)


def _draw_dial(canvas: Canvas, frame: TuningFrame, name: str, values: Sequence[float], panel: Box) -> None:
    """The dial's value at each decision, as a line of steps."""
    left, top, right, bottom = panel
    words = in_words(name).capitalize()
    canvas.text(left, top + 7, words, 15, bold=True)
    area = (left + GUTTER, top + 22, right, bottom - 20)
    if not values:
        canvas.text(left + text_width(words, 15) + 12, top + 7, "none yet", 14, MUTED)
        return
    scale = dial_scale(frame, name)
    if scale.log:
        canvas.text(left + text_width(words, 15) + 12, top + 7, "log scale", 14, MUTED)
    plot_area(canvas, area, scale, scale.ticks(4))
    heights = np.repeat(area[3] - np.clip(scale.fraction(values), 0.0, 1.0) * (area[3] - area[1]), 2)
    edges = np.repeat(np.arange(len(values) + 1.0), 2)[1:-1]
    broken_line(canvas, _across(frame, area, edges), heights, STEEL, 2.5)
    _label_steps(canvas, frame, area)


def _draw_lines(canvas: Canvas, frame: TuningFrame) -> None:
    """What was written, a line for each decision, below each other."""
    canvas.text(LEFT, DIALS_TOP + 7, "Rule", 15, bold=True)
    if not frame.lines:
        canvas.text(LEFT + text_width("Rule", 15) + 12, DIALS_TOP + 7, "none yet", 14, MUTED)
    # The last ones, if there are more than fit.
    for place, line in enumerate(frame.lines[-MOST_LINES:]):
        last = place == min(len(frame.lines), MOST_LINES) - 1
        canvas.text(LEFT, DIALS_TOP + 38 + 28 * place, shortened(line, RIGHT - LEFT, 17), 17, bold=last)


def _label_steps(canvas: Canvas, frame: TuningFrame, area: Box) -> None:
    scale = Scale(0.0, float(frame.length))
    for tick in scale.ticks(5):
        if tick == round(tick):
            canvas.text(float(_across(frame, area, [tick])[0]), area[3] + 11, number(tick), 14, MUTED, "mm")
    canvas.text(area[0] - 6, area[3] + 11, "step" if frame.dials else "batch", 14, MUTED, "rm")
