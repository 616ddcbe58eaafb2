"""Which of a problem's numbers belong to which tensor."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """The tensors that a problem's P parameters, written one after another, are cut into.

    Attributes:
        shapes: of the tensors, T of them.
    """

    shapes: tuple[tuple[int, ...], ...]

    @cached_property
    def sizes(self) -> list[int]:
        """The number of parameters of each tensor."""
        return [math.prod(shape) for shape in self.shapes]

    @property
    def count(self) -> int:
        """P."""
        return sum(self.sizes)

    @cached_property
    def owner(self) -> Tensor:
        """The tensor that each parameter belongs to, (P,) int64."""
        return torch.repeat_interleave(torch.arange(len(self.sizes)), torch.tensor(self.sizes))

    def cut(self, flat: Tensor) -> list[Tensor]:
        """The tensors (n, *shape) of n problems, from (n, P)."""
        parts = flat.split(self.sizes, dim=1)
        return [part.reshape(-1, *shape) for part, shape in zip(parts, self.shapes, strict=True)]

    def means(self, values: Tensor) -> Tensor:
        """The means of each tensor, (n, T, ...), of numbers of the parameters (n, P, ...)."""
        if len(self.sizes) == 1:
            return values.mean(dim=1, keepdim=True)
        return torch.stack([part.mean(dim=1) for part in values.split(self.sizes, dim=1)], dim=1)

    def spread(self, values: Tensor) -> Tensor:
        """Numbers of the tensors (n, T, ...) for each of their parameters, (n, P, ...)."""
        return values[:, self.owner.to(values.device)]


def flatten(tensors: Sequence[Tensor]) -> Tensor:
    """The parameters (n, P) of tensors (n, ...)."""
    return torch.cat([tensor.flatten(start_dim=1) for tensor in tensors], dim=1)
