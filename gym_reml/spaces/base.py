"""The interface of action encodings: a Gymnasium space, and conversion between its actions and decisions."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.spaces.decision import Decided, Decision, Masks

Generators = Sequence[np.random.Generator]

LOWEST, HIGHEST = np.array([-1.0, 1.0], dtype=np.float32).reshape(2, 1)
"""Bounds of numbers, as arrays: on few rows, a ufunc of a Python number takes twice as long."""

SHARED = ("cpu",)
"""Types of devices whose tensors share their memory with arrays: there, numpy is faster than torch on few rows."""


class ActionEncoding(ABC):
    """Represents a decision as an action of a Gymnasium space.

    All methods work on n rows at once. An option that is not allowed is replaced by the first that is.

    Attributes:
        name: of the encoding.
        decision: what is decided.
        step_bins: number of values that finite encodings offer for each number, evenly spaced in [-1, 1].
        space: of one action.
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
        """The decisions that n actions stand for.

        Args:
            actions: n actions, batched as Gymnasium batches `space`: arrays, or tensors on any device.
            allowed: masks of the options that each row may take.
            generators: one for each row, to break ties.

        Raises:
            ValueError: a wrong shape, NaN, or an option out of range.
        """

    @abstractmethod
    def encode(self, decided: Decided) -> Any:
        """The actions for n decisions, batched as Gymnasium batches `space`; numbers are rounded to the nearest bin."""

    def mask(self, allowed: Masks, count: int) -> NDArray[np.bool_]:
        """The action masks of `count` rows in the format of sb3-contrib's MaskablePPO: (count, options) bool.

        Raises:
            ValueError: the encoding's actions cannot be masked.
        """
        raise ValueError(
            f"action={self.name!r}: this encoding has no masks; 'multidiscrete', 'discrete' and 'hybrid' have"
        )

    def info_mask(self, allowed: Masks, count: int) -> Any:
        """The mask in infos: int8 (count, options), or a dict of these by part of the action; None without masks."""
        return None

    def sample_mask(self, mask: Any) -> Any:
        """One row's `info_mask` in the format of `space.sample(mask=...)`."""
        return mask

    def bins(self) -> NDArray[np.float32]:
        """The values that finite encodings offer for each number, (step_bins,) float32 in [-1, 1]."""
        if self.step_bins == 1:
            return np.zeros(1, dtype=np.float32)
        return np.linspace(-1.0, 1.0, self.step_bins, dtype=np.float32)

    def nearest_bin(self, numbers: NDArray[np.float32]) -> NDArray[np.int64]:
        """The index of the bin nearest to each number, in the same shape."""
        if self.step_bins == 1:
            return np.zeros(numbers.shape, dtype=np.int64)
        index = (np.clip(numbers, -1.0, 1.0) + 1.0) / 2.0 * (self.step_bins - 1)
        return np.rint(index).astype(np.int64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.decision}, step_bins={self.step_bins})"


class ActionError(ValueError):
    """An invalid action.

    Attributes:
        actions: the invalid actions of n rows.
        problem: what is wrong with them; a format string with a "{}" for each shape.
        shapes: the shapes in the message, each with the axis of rows first.
    """

    def __init__(self, actions: Any, problem: str, *shapes: tuple[int, ...]) -> None:
        """Takes the attributes."""
        self.actions, self.problem, self.shapes = actions, problem, shapes
        super().__init__(f"action={actions!r}: {problem.format(*shapes)}")

    def of_one(self) -> ActionError:
        """The same error about a single action, where there is only one row."""
        if isinstance(self.actions, Mapping):
            one: Any = {name: _plain(values[0]) for name, values in self.actions.items()}
        else:
            one = _plain(self.actions[0])
        return ActionError(one, self.problem, *(shape[1:] for shape in self.shapes))

    def __reduce__(self) -> Any:
        # Errors of worker processes are pickled.
        return ActionError, (self.actions, self.problem, *self.shapes)


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python number, anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def read_integers(
    actions: Any, shape: tuple[int, ...], limits: Sequence[int] | int, *, part: str = ""
) -> NDArray[np.int64]:
    """The actions as int64 of this shape, from 0 to below the limits; raises an `ActionError` otherwise."""
    array = _read_array(part, actions, shape)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.bool_)):
        raise ActionError(actions, f"{part}must be integers, found {array.dtype}")
    if ((array < 0) | (array >= limits)).any():
        raise ActionError(actions, f"{part}out of range, choices are 0 to below {limits}")
    return array.astype(np.int64)


def read_numbers(actions: Any, shape: tuple[int, ...], *, part: str = "") -> NDArray[np.float32]:
    """The actions as float32 of this shape, clipped to [-1, 1]; raises an `ActionError` otherwise."""
    array = _read_array(part, actions, shape)
    if array.dtype.kind not in "biuf":
        raise ActionError(actions, f"{part}must be numbers, found {array.dtype}")
    # These ufuncs keep NaN, as np.clip does, which costs several times as much on small arrays.
    values = np.minimum(np.maximum(array, LOWEST), HIGHEST).astype(np.float32, copy=False)
    if math.isnan(np.add.reduce(values, axis=None)):
        raise ActionError(actions, f"{part}NaN is no action; values lie in [-1, 1], others are clipped to it")
    return values


def shares_memory(device: torch.device) -> bool:
    """Whether tensors of that device share their memory with arrays."""
    return device.type in SHARED


def on_host(actions: Any) -> Any:
    """A tensor, on any device, as an array; anything else as it is."""
    if not isinstance(actions, Tensor):
        return actions
    # numpy has no bfloat16.
    return (actions.float() if actions.is_floating_point() else actions).detach().cpu().numpy()


def _read_array(part: str, actions: Any, shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.asarray(on_host(actions))
    except (TypeError, ValueError) as error:
        raise ActionError(actions, part + "is no array of shape {}", shape) from error
    if array.shape == shape:
        return array
    # Libraries differ in the shape of scalar actions: (n,) or (n, 1).
    if {array.shape, shape} == {shape[:1], (*shape[:1], 1)}:
        return array.reshape(shape)
    raise ActionError(actions, part + "has shape {}, must have {}", array.shape, shape)


def only_allowed(choices: NDArray[np.int64], allowed: Masks) -> NDArray[np.int64]:
    """The options (n, C), with those that are not allowed replaced by the first that is."""
    rows = np.arange(len(choices))
    taken = choices.copy()
    for index, mask in enumerate(allowed):
        options = choices[:, index]
        taken[:, index] = np.where(mask[rows, options], options, mask.argmax(axis=1))
    return taken
