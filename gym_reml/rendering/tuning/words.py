"""Texts and axes of a frame of a run of training."""

from __future__ import annotations

import numpy as np

from gym_reml.rendering.frames import TuningFrame
from gym_reml.rendering.scales import TINY, Scale, number, range_scale, tamed


def title(frame: TuningFrame) -> str:
    """What is trained, and by what."""
    return f"{frame.title}: " + ", ".join(filter(None, (frame.task_words, frame.optimizer)))


def in_words(name: str) -> str:
    """The name of a dial or a metric."""
    return name.replace("_", " ")


def dial_value(frame: TuningFrame, name: str) -> str:
    """The last value of a dial."""
    value = frame.dials[name][-1]
    return in_words(frame.words[name][round(value)]) if name in frame.words else number(value)


def clock(frame: TuningFrame) -> str:
    """The last decision as a sentence."""
    head = f"step {frame.steps} of {frame.horizon}: "
    if not frame.steps:
        return head + "none yet"
    if not frame.dials:
        return head + frame.lines[-1]
    dials = ", ".join(f"{in_words(name)} {dial_value(frame, name)}" for name in frame.shown)
    return f"{head}{dials} for {frame.updates} minibatch{'es' * (frame.updates > 1)}"


def by_part(frame: TuningFrame, what: str) -> dict[str, tuple[float, ...]]:
    """The courses of the metric or of the "loss", by part: "train", "validation", "test"."""
    return {name.removesuffix(f"_{what}"): course for name, course in frame.courses.items() if name.endswith(what)}


def metric_scale(frame: TuningFrame) -> Scale:
    """The axis of the metric: from 0 to 1 for labels, else the range of the values."""
    if frame.metric != "score":
        return Scale(0.0, 1.0)
    return range_scale([value for course in by_part(frame, frame.metric).values() for value in course], 0.05)


def loss_scale(frame: TuningFrame) -> Scale:
    """The log axis of the losses, over whole decades."""
    values = tamed([value for course in by_part(frame, "loss").values() for value in course])
    values = np.maximum(values[np.isfinite(values)], TINY)
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    return Scale(float(10.0**low), float(10.0 ** max(high, low + 1)), log=True)


def dial_scale(frame: TuningFrame, name: str) -> Scale:
    """The axis of a dial."""
    low, high, log = frame.axes[name]
    if not log:
        return Scale(low, high)
    return Scale(low, high if high > low * 1.001 else low * 10, log=True)
