"""What a person sees of an episode: arrays in, a picture or a text out.

``Frame`` holds everything there is to show and nothing of how it came about, so this part of the package knows no
environment, network or task. ``render_rgb`` draws a frame with Pillow (``rendering_rgb``), ``render_ansi`` writes it
as text of at most 80 columns (``rendering_ansi``). What both need lives here: the words and the axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gym_reml.plain_text import printable

# Far beyond anything worth reading, and small enough that ranges and differences of it do not overflow.
HUGE = 1e30
# A perfect fit has loss 0, which has no place on a log axis: it is drawn at this floor.
TINY = 1e-8
# Goals of navigation lie within .5 of the start, on each axis.
_LEAST_REACH = 0.7


@dataclass(frozen=True)
class Curve:
    """The fit of a one-dimensional regression.

    Attributes:
        x: (g,) float, grid.
        target: (g,) float, true function on the grid.
        prediction: (g,) float, the network on the grid.
        support_x: (k,) float, inputs of the support points.
        support_y: (k,) float, targets of the support points.
    """

    x: np.ndarray
    target: np.ndarray
    prediction: np.ndarray
    support_x: np.ndarray
    support_y: np.ndarray


@dataclass(frozen=True)
class Paths:
    """Ways on the plane that the network, a policy, took in the support set.

    Attributes:
        before: (m, steps + 1, 2) float, places by trajectory and step before the first step, NaN after the end.
        now: (m, steps + 1, 2) float, the same of the present network.
        goal: (2,) float, where it was to go.
    """

    before: np.ndarray
    now: np.ndarray
    goal: np.ndarray


@dataclass(frozen=True)
class Frame:
    """One moment of an episode of building and training a network.

    Attributes:
        family: Name of the task, such as "sinusoid, 5 shots".
        kind: Layer kind, such as "residual".
        width: Units per layer.
        slots: How many pool layers fit between stem and head.
        pool_size: Number of layers L in the pool.
        layers: Pool numbers (1..L) of the layers in the network, in order.
        horizon: Steps in an episode.
        actions: Layer part of each action so far (0 = append nothing).
        step_sizes: Gradient step sizes so far, one per step.
        step_range: Smallest and largest step size there is.
        diverged: Whether each step was refused.
        support_loss: Loss on the support set at steps 0..t, length t + 1.
        query_loss: Loss on the query set at steps 0..t, length t + 1.
        curve: The fit, for one-dimensional regression.
        measure: What the field calls the losses: "loss", or "return" where they are minus it.
        paths: Ways on the plane, for policies that move on one.
        images: (ways, h, w) float in [0, 1], one support image a class, for classification.
        query_accuracy: Share of the query set classified correctly, for classification.
    """

    family: str
    kind: str
    width: int
    slots: int
    pool_size: int
    layers: tuple[int, ...]
    horizon: int
    actions: tuple[int, ...]
    step_sizes: tuple[float, ...]
    step_range: tuple[float, float]
    diverged: tuple[bool, ...]
    support_loss: tuple[float, ...]
    query_loss: tuple[float, ...]
    measure: str = "loss"
    curve: Curve | None = None
    paths: Paths | None = None
    images: np.ndarray | None = None
    query_accuracy: float | None = None

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return len(self.step_sizes)

    @property
    def refused(self) -> bool:
        """Whether the last step was refused."""
        return bool(self.diverged and self.diverged[-1])

    @property
    def courses(self) -> dict[str, tuple[float, ...]]:
        """Losses over the steps by the set they are of, or returns, as ``measure`` says."""
        sign = -1.0 if self.measure == "return" else 1.0
        series = {"support": self.support_loss, "query": self.query_loss}
        # Adding 0.0 turns the minus zero of a return into zero.
        return {name: tuple(sign * loss + 0.0 for loss in losses) for name, losses in series.items()}

    @cached_property
    def appended(self) -> tuple[bool, ...]:
        """Whether each action put its layer into the network; a full network ignores the choice.

        The frame tells what was chosen and what is there, which settles it: the history is played again from every
        number of initial layers, with refused steps keeping their layer or not, until it ends at the present network.
        """
        for initial in range(len(self.layers) + 1):
            for kept in (True, False):
                layers, appended = list(self.layers[:initial]), []
                for step, action in enumerate(self.actions):
                    refused = step < len(self.diverged) and self.diverged[step]
                    appended.append(action > 0 and len(layers) < self.slots and (kept or not refused))
                    if appended[-1]:
                        layers.append(action)
                if tuple(layers) == self.layers:
                    return tuple(appended)
        return tuple(action > 0 for action in self.actions)


@dataclass(frozen=True)
class Scale:
    """An axis: where in [0, 1] a value lies between ``low`` and ``high``.

    Attributes:
        low: Value at 0.
        high: Value at 1, above ``low``.
        log: Whether the axis is logarithmic; then ``low`` is positive.
    """

    low: float
    high: float
    log: bool = False

    def fraction(self, values: ArrayLike) -> NDArray[np.float64]:
        """Place values on the axis: float64 of the same shape, outside [0, 1] beyond the ends, NaN where not finite."""
        array, low, high = tamed(values), self.low, self.high
        if self.log:
            array, low, high = np.log10(np.maximum(array, min(TINY, low))), np.log10(low), np.log10(high)
        return np.asarray((array - low) / (high - low), dtype=np.float64)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values on the axis, about ``count`` of them; on a long log axis whole powers of ten."""
        if self.log:
            first, last = int(np.ceil(np.log10(self.low) - 1e-9)), int(np.floor(np.log10(self.high) + 1e-9))
            if last - first <= 1:
                powers = [multiple * 10.0**power for power in range(first - 1, last + 1) for multiple in (1, 2, 5)]
                return [tick for tick in powers if self.low * 0.999 <= tick <= self.high * 1.001]
            every = max(1, -(-(last - first) // count))
            return [float(10.0**power) for power in range(first, last + 1, every)]
        rough = (self.high - self.low) / count
        unit = 10.0 ** np.floor(np.log10(rough))
        gap = unit * next(multiple for multiple in (1, 2, 5, 10) if multiple * unit >= rough * 0.999)
        steps = np.arange(np.ceil(self.low / gap - 1e-9), np.floor(self.high / gap + 1e-9) + 1)
        # Adding 0.0 turns the minus zero of a rounded tick into zero.
        return [float(step * gap) + 0.0 for step in steps]


def tamed(values: ArrayLike) -> NDArray[np.float64]:
    """Values as float64 with NaN for everything that is not finite and the huge brought within ``HUGE``."""
    array = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(array), np.clip(array, -HUGE, HUGE), np.nan)


def number(value: float) -> str:
    """A value in words of at most ten characters."""
    if not np.isfinite(value):
        return "not finite"
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e5 else f"{value:.3g}"


def range_scale(values: ArrayLike, margin: float) -> Scale:
    """The linear axis that holds the finite ones of ``values`` and a share of ``margin`` on both sides."""
    array = tamed(values).ravel()
    array = array[np.isfinite(array)]
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 1.0)
    # A constant function needs an axis too, wide enough for the difference to survive rounding.
    span = high - low if high - low > 1e-9 * max(1.0, abs(high)) else 2.0 * max(1.0, abs(high))
    middle, half = (low + high) / 2, span * (0.5 + margin)
    return Scale(middle - half, middle + half)


def curve_scales(curve: Curve) -> tuple[Scale, Scale]:
    """The axes of a fit: fixed by target and support, so that they stay where they are as the prediction moves."""
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


def plane_reach(points: ArrayLike) -> float:
    """How far the axes of a plane reach to all sides of (0, 0): a round number, so that it seldom changes.

    Args:
        points: (..., 2) float, what is to lie within; what is not finite lies nowhere.
    """
    places = np.abs(tamed(points))
    farthest = float(np.max(places, initial=_LEAST_REACH, where=np.isfinite(places)))
    unit = 10.0 ** np.floor(np.log10(farthest))
    return float(next(unit * multiple for multiple in (1, 1.5, 2, 3, 5, 7, 10) if unit * multiple >= farthest * 0.999))


def step_scale(frame: Frame) -> Scale:
    """The log axis of the step sizes: the range they may come from."""
    low, high = tamed(frame.step_range).tolist()
    low = low if low > TINY else TINY
    return Scale(low, high if high > low * 1.001 else low * 10, log=True)


def action_words(frame: Frame) -> str:
    """The last action as a sentence, without a verdict on it."""
    head = f"step {frame.steps} of {frame.horizon}: "
    if not frame.steps:
        names = ", ".join(map(str, frame.layers[:8])) + (", ..." if len(frame.layers) > 8 else "")
        noun = "layer" if len(frame.layers) == 1 else "layers"
        return head + (f"nothing done yet, the network starts with {noun} {names}" if names else "nothing done yet")
    layer = frame.actions[-1] if frame.actions else 0
    if not layer:
        words = "append nothing"
    elif frame.appended[-1]:
        words = f"append layer {layer}"
    elif len(frame.layers) >= frame.slots:
        words = f"layer {layer} ignored (network full)"
    else:
        words = f"layer {layer} not appended"
    return f"{head}{words}, gradient step {number(frame.step_sizes[-1])}"


def pool_words(frame: Frame) -> str:
    """The pool in words."""
    return f"{frame.pool_size} {frame.kind} layer{'s' * (frame.pool_size != 1)} of width {frame.width}"


def window(values: Sequence[float], most: int) -> tuple[int, Sequence[float]]:
    """The last ``most`` of ``values``, and how many were left out before them."""
    left_out = max(0, len(values) - most)
    return left_out, values[left_out:]


def need_pillow() -> None:
    """Raises an ImportError that names the extra where Pillow is not installed."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError('render_mode="rgb_array" draws with Pillow: pip install "gym-reml[render]"') from error


def render_rgb(frame: Frame) -> NDArray[np.uint8]:
    """Draw a frame.

    Args:
        frame: What to show.

    Returns:
        (560, 896, 3) uint8, the same size for every frame. Both sides are multiples of 16, as video encoders want.

    Raises:
        ImportError: Pillow is not installed.
    """
    need_pillow()
    from gym_reml.rendering_rgb import draw_frame

    return draw_frame(frame)


def render_ansi(frame: Frame) -> str:
    """Write a frame as plain text, legible without colour.

    Args:
        frame: What to show.

    Returns:
        Lines of at most 80 columns, which the present standard output can hold (`gym_reml.plain_text.printable`).
    """
    from gym_reml.rendering_ansi import write_frame

    return printable(write_frame(frame))
