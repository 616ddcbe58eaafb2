"""Buffers that outlive a step, and views of them: what keeps small networks from waiting for allocations and views."""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, cast

import torch
from torch import Tensor

FEW_ROWS = 8
"""Up to here one call fewer still matters more than how fast it is."""


class BiasedInputs:
    """Activations with a column of ones behind them, (n, points, width + 1), and views of them, each made only once.

    At few rows making a view costs as much as computing with it, and the buffers of a workspace outlive many steps.
    """

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._first: dict[int, BiasedInputs] = {}
        self._rest: dict[int, BiasedInputs] = {}

    @cached_property
    def body(self) -> Tensor:
        """All but the ones."""
        return self.tensor[..., :-1]

    @cached_property
    def transposed(self) -> Tensor:
        """(n, width + 1, points)."""
        return self.tensor.transpose(1, 2)

    def first(self, points: int) -> BiasedInputs:
        """Those of the first points of each row."""
        if points not in self._first:
            self._first[points] = BiasedInputs(self.tensor[:, :points])
        return self._first[points]

    def rest(self, points: int) -> BiasedInputs:
        """Those of the other points."""
        if points not in self._rest:
            self._rest[points] = BiasedInputs(self.tensor[:, points:])
        return self._rest[points]

    def __reduce__(self) -> tuple[type[BiasedInputs], tuple[Tensor]]:
        # Without the views: pickled, they would come back as tensors of their own.
        return (BiasedInputs, (self.tensor,))


class Workspace:
    """Buffers by name, made once and reused: fresh allocations are what a step would otherwise wait for."""

    def __init__(self) -> None:
        self._buffers: dict[Any, tuple[Any, Any]] = {}
        self._views: dict[int, BiasedInputs] = {}

    def take(self, name: str, position: int, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """The buffer of that name and position, zeros at first; made anew when its shape changed."""
        known, buffer = self._buffers.get((name, position), (None, None))
        if known != shape:
            if buffer is not None:
                self._forget(buffer)
            buffer = torch.zeros(shape, dtype=like.dtype, device=like.device)
            self._buffers[name, position] = (shape, buffer)
            self._views[id(buffer)] = BiasedInputs(buffer)
        return cast(Tensor, buffer)

    def _forget(self, buffer: Tensor) -> None:
        views = self._views.pop(id(buffer))
        self._views.pop(id(views.transposed), None)

    def views(self, tensor: Tensor) -> BiasedInputs:
        """Views of a tensor, the same ones every time if it is a buffer that `take` gave, or one `turned`."""
        return self._views.get(id(tensor)) or BiasedInputs(tensor)

    def turned(self, buffer: Tensor) -> Tensor:
        """The transpose of a buffer that `take` gave."""
        turned = self._views[id(buffer)].transposed
        if id(turned) not in self._views:
            self._views[id(turned)] = BiasedInputs(turned)
        return turned

    def activations(self, position: int, shape: tuple[int, ...], like: Tensor) -> BiasedInputs:
        """The buffer for the activations behind this position, whose body has this shape, its ones in place."""
        known, buffer = self._buffers.get(position, (None, None))
        if known != shape:
            buffer = BiasedInputs(torch.ones((*shape[:2], shape[2] + 1), dtype=like.dtype, device=like.device))
            self._buffers[position] = (shape, buffer)
        return cast(BiasedInputs, buffer)

    def __reduce__(self) -> tuple[type[Workspace], tuple[()]]:
        # Copies and pickles start with empty buffers: they hold nothing that cannot be computed again.
        return (Workspace, ())


def constant(value: float, like: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
    """A tensor of that number everywhere, not to be changed: torch takes one in half the time of a Python number."""
    return _constant(value, shape, like.dtype, like.device)


@lru_cache(maxsize=64)
def _constant(value: float, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # for replays too
        return torch.full(shape, value, dtype=dtype, device=device)
