"""Texts and axes of a frame of an episode."""

from __future__ import annotations

import numpy as np

from gym_reml.rendering.frames import Curve, Frame
from gym_reml.rendering.scales import TINY, Scale, number, range_scale, tamed


def curve_scales(curve: Curve) -> tuple[Scale, Scale]:
    """The axes of a fit: determined by target and support set only, so that they do not follow the prediction."""
    across = range_scale(np.concatenate([np.ravel(curve.x), np.ravel(curve.support_x)]), 0.0)
    return across, range_scale(np.concatenate([np.ravel(curve.target), np.ravel(curve.support_y)]), 0.15)


def loss_scale(frame: Frame) -> Scale:
    """The axis of both losses: whole decades, or linear where one is negative; linear for returns."""
    values = tamed([value for course in frame.courses.values() for value in course])
    values = values[np.isfinite(values)]
    if frame.measure == "return" or (values.size and values.min() < 0):
        return range_scale(values, 0.05)
    values = np.maximum(values, TINY) if values.size else np.array([0.1, 1.0])
    low, high = np.floor(np.log10(values.min())), np.ceil(np.log10(values.max()))
    return Scale(float(10.0**low), float(10.0 ** max(high, low + 1)), log=True)


def step_scale(frame: Frame) -> Scale:
    """The log axis of the step sizes: their allowed range."""
    low, high = tamed(frame.step_range).tolist()
    low = low if low > TINY else TINY
    return Scale(low, high if high > low * 1.001 else low * 10, log=True)


def action_words(frame: Frame) -> str:
    """The last action as a sentence; before the first step, the initial layers."""
    head = f"step {frame.steps} of {frame.horizon}: "
    if not frame.steps:
        names = ", ".join(map(str, frame.layers[:8])) + (", ..." if len(frame.layers) > 8 else "")
        noun = "layer" if len(frame.layers) == 1 else "layers"
        return head + (f"no step yet, the network starts with {noun} {names}" if names else "no step yet")
    return head + ", ".join(_value_words(frame, name, values[-1]) for name, values in frame.decided.items())


def _value_words(frame: Frame, name: str, value: float) -> str:
    """The last decision of that name as text."""
    if name != "layer":
        # "step size 0.02", "step size head 0.02"
        return f"{name.replace('_', ' ')} {number(value)}"
    layer = int(value)
    if not layer:
        return "append no layer"
    if frame.appended[-1]:
        return f"append layer {layer}"
    return f"layer {layer} " + ("ignored (network full)" if len(frame.layers) >= frame.slots else "not appended")


def pool_words(frame: Frame) -> str:
    """A description of the pool."""
    return f"{frame.pool_size} {frame.kind} layer{'s' * (frame.pool_size != 1)} of width {frame.width}"
