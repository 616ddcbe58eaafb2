"""A run of training as text of at most 80 columns, with the content of the image."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from gym_reml.rendering.frames import TuningFrame
from gym_reml.rendering.scales import Scale, number, window
from gym_reml.rendering.text import COLUMNS, MARGIN, spark, wrapped
from gym_reml.rendering.tuning.words import (
    by_part,
    clock,
    dial_scale,
    dial_value,
    in_words,
    loss_scale,
    metric_scale,
    title,
)


def write_tuning(frame: TuningFrame) -> str:
    """Renders a frame as lines of at most ``COLUMNS`` characters."""
    lines = [*textwrap.wrap(title(frame), COLUMNS), "=" * COLUMNS]
    lines += wrapped("now", clock(frame).split(" "), " ")
    if frame.diverged:
        lines += wrapped("", ["DIVERGED: counts as untrained"], "")
    for what, scale in ((frame.metric, metric_scale(frame)), ("loss", loss_scale(frame))):
        lines += ["", f"{in_words(what)}, from {number(scale.low)} to {number(scale.high)}"]
        lines += [_line(part, course, scale) for part, course in by_part(frame, what).items()]
    if frame.lines:
        lines += ["", "rule", *(text for line in frame.lines for text in textwrap.wrap(line, COLUMNS))]
    if frame.steps and frame.dials:
        all_shown = len(frame.shown) == len(frame.dials)
        lines += ["", "dials" if all_shown else f"{len(frame.shown)} of {len(frame.dials)} dials"]
        lines += [
            _line(in_words(name), values, dial_scale(frame, name), dial_value(frame, name))
            for name, values in frame.shown.items()
        ]
    return "\n".join(line.rstrip() for line in lines)


def _line(name: str, values: Sequence[float], scale: Scale, last: str | None = None) -> str:
    """A name, the last value, and the last values as bars."""
    head = f"{name:<{MARGIN + 6}} {(number(values[-1]) if last is None else last) + ' ':<11}"
    return head + spark(window(values, COLUMNS - len(head))[1], scale)
