"""What every action encoding offers: a Gymnasium space, and translation to and from what is decided."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.decision import Decided, Decision, Masks

Generators = Sequence[np.random.Generator]


class ActionEncoding(ABC):
    """How agents write down a decision.

    All methods work on n rows at once. An option that is not allowed is read as the first one that is.

    Attributes:
        decision: what is decided.
        step_bins: into how many values finite encodings cut each number, evenly.
        space: the space of one action.
    """

    name: ClassVar[str]
    space: spaces.Space[Any]

    def __init__(self, decision: Decision, *, step_bins: int = 13) -> None:
        self.decision = decision
        self.step_bins = step_bins
        self.space = self._make_space()

    @abstractmethod
    def _make_space(self) -> spaces.Space[Any]: ...

    @abstractmethod
    def decode(self, actions: Any, allowed: Masks, *, generators: Generators) -> Decided:
        """What n actions mean.

        Args:
            actions: n actions, batched as Gymnasium batches `space`.
            allowed: which options each row may take.
            generators: the rows' own, to break ties.

        Raises:
            ValueError: a wrong shape, a value that is NaN, or an option out of range.
        """

    @abstractmethod
    def encode(self, decided: Decided) -> Any:
        """n actions that mean this, with the nearest possible numbers, batched as Gymnasium batches `space`."""

    def mask(self, allowed: Masks, count: int) -> NDArray[np.bool_]:
        """Which options `count` rows may take, as sb3-contrib's MaskablePPO wants it: (count, options).

        Raises:
            ValueError: for encodings whose options cannot be masked.
        """
        raise ValueError(
            f"action={self.name!r}: this encoding has no masks; 'multidiscrete', 'discrete' and 'hybrid' have"
        )

    def info_mask(self, allowed: Masks, count: int) -> Any:
        """The same for infos: int8 (count, options), or a dict of such by the action's parts; None without masks."""
        return None

    def sample_mask(self, mask: Any) -> Any:
        """One row's `info_mask` as `space.sample` takes it."""
        return mask

    def bins(self) -> NDArray[np.float32]:
        """The values that finite encodings offer for each number, (step_bins,)."""
        if self.step_bins == 1:
            return np.zeros(1, dtype=np.float32)
        return np.linspace(-1.0, 1.0, self.step_bins, dtype=np.float32)

    def nearest_bin(self, numbers: NDArray[np.float32]) -> NDArray[np.int64]:
        """Which bin is nearest to each of some numbers, of any shape."""
        if self.step_bins == 1:
            return np.zeros(numbers.shape, dtype=np.int64)
        place = (np.clip(numbers, -1.0, 1.0) + 1.0) / 2.0 * (self.step_bins - 1)
        return np.rint(place).astype(np.int64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.decision}, step_bins={self.step_bins})"


class ActionError(ValueError):
    """Something that is no action.

    Attributes:
        actions: what was given, of n rows.
        problem: what is wrong with it, with a place for each of the shapes.
        shapes: those that the problem speaks of, with the row first.
    """

    def __init__(self, actions: Any, problem: str, *shapes: tuple[int, ...]) -> None:
        """Takes the attributes."""
        self.actions, self.problem, self.shapes = actions, problem, shapes
        super().__init__(f"action={actions!r}: {problem.format(*shapes)}")

    def of_one(self) -> ActionError:
        """The same, said of the action of the only row."""
        if isinstance(self.actions, Mapping):
            one: Any = {name: _plain(values[0]) for name, values in self.actions.items()}
        else:
            one = _plain(self.actions[0])
        return ActionError(one, self.problem, *(shape[1:] for shape in self.shapes))

    def __reduce__(self) -> Any:
        # Worker processes send their errors.
        return ActionError, (self.actions, self.problem, *self.shapes)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def read_integers(
    actions: Any, shape: tuple[int, ...], limits: Sequence[int] | int, *, part: str = ""
) -> NDArray[np.int64]:
    """The actions as integers below the limits, or an `ActionError` that says what is wrong with them."""
    array = _read_array(part, actions, shape)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.bool_)):
        raise ActionError(actions, f"{part}must be integers, found {array.dtype}")
    if ((array < 0) | (array >= limits)).any():
        raise ActionError(actions, f"{part}out of range, choices are 0 to below {limits}")
    return array.astype(np.int64)


def read_numbers(actions: Any, shape: tuple[int, ...], *, part: str = "") -> NDArray[np.float32]:
    """The actions clipped to [-1, 1], or an `ActionError` that says what is wrong with them."""
    array = _read_array(part, actions, shape)
    if array.dtype.kind not in "biuf":
        raise ActionError(actions, f"{part}must be numbers, found {array.dtype}")
    # The plain ufuncs, which keep NaN: np.clip wraps them in several times their cost.
    values = np.minimum(np.maximum(array, -1.0), 1.0).astype(np.float32, copy=False)
    if math.isnan(np.add.reduce(values, axis=None)):
        raise ActionError(actions, f"{part}NaN is no action; values lie in [-1, 1], others are clipped to it")
    return values


def _read_array(part: str, actions: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.asarray(actions)
    except (TypeError, ValueError) as error:
        raise ActionError(actions, part + "is no array of shape {}", shape) from error
    if array.shape == shape:
        return array
    # Where a row's action is one number, libraries differ in whether it has an axis of its own.
    if {array.shape, shape} == {shape[:1], (*shape[:1], 1)}:
        return array.reshape(shape)
    raise ActionError(actions, part + "has shape {}, must have {}", array.shape, shape)


def only_allowed(choices: NDArray[np.int64], allowed: Masks) -> NDArray[np.int64]:
    """The options (n, C) as they are where they are allowed, elsewhere the first that is."""
    rows = np.arange(len(choices))
    taken = choices.copy()
    for index, mask in enumerate(allowed):
        options = choices[:, index]
        taken[:, index] = np.where(mask[rows, options], options, mask.argmax(axis=1))
    return taken
