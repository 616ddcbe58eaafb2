"""Finished episodes: data and actions, as needed to replay them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.networks.weights import CLIP
from gym_reml.tasks.base import Batch


class SlotContents(NamedTuple):
    """Pool layers in the slots of B networks.

    Attributes:
        layers: (slots, B) int64, numbers of the pool layers at the end of the episodes, on the episodes' device.
        numbers: the same as an array.
        depth: (T + 1, B) int64, number of filled slots before and after each step.
    """

    layers: Tensor
    numbers: NDArray[np.int64]
    depth: NDArray[np.int64]


@dataclass
class Episodes:
    """B finished episodes of T steps: data and actions, as needed to replay them.

    Attributes:
        support: what the gradient steps are taken on, support sets or minibatches of them, one batch of B rows per
            step; a single batch if the data is the same at every step.
        query: query sets, likewise.
        layers: (T, B) int64, number (from 1) of the pool layer appended at each step, 0 for none.
        step_sizes: (T, B) float32, or (T, slots + 2, B) for one at each position; 0 for a refused step.
        initial_layers: numbers of the pool layers present before the first step.
        slots: number of slots, the largest depth.
        clip: norm at which the inner gradients were clipped, None for none.
        optimizer: of the inner steps, a name of `gym_reml.networks.optimizers.OPTIMIZERS`.
    """

    support: list[Batch]
    query: list[Batch]
    layers: Tensor
    step_sizes: Tensor
    initial_layers: tuple[int, ...]
    slots: int
    clip: float | None = CLIP
    optimizer: str = "sgd"

    def __len__(self) -> int:
        """Number of episodes, B."""
        return self.layers.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> Episodes:
        """Episodes with `function` applied to every tensor: data, layers and step sizes."""
        support, query = ([batch.map(function) for batch in batches] for batches in (self.support, self.query))
        layers, step_sizes = function(self.layers), function(self.step_sizes)
        return replace(self, support=support, query=query, layers=layers, step_sizes=step_sizes)

    def take(self, index: Tensor) -> Episodes:
        """The episodes at `index` (k,) int64."""
        support, query = ([batch.rows(index) for batch in batches] for batches in (self.support, self.query))
        layers, step_sizes = self.layers[:, index], self.step_sizes[..., index]
        return replace(self, support=support, query=query, layers=layers, step_sizes=step_sizes)

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """All episodes of `parts`, in order; all must have the same T, initial layers, slots, clip and optimizer."""
        first = parts[0]
        support = [Batch.concatenate(batches) for batches in zip(*(part.support for part in parts), strict=True)]
        query = [Batch.concatenate(batches) for batches in zip(*(part.query for part in parts), strict=True)]
        layers = torch.cat([part.layers for part in parts], dim=1)
        step_sizes = torch.cat([part.step_sizes for part in parts], dim=-1)
        return replace(first, support=support, query=query, layers=layers, step_sizes=step_sizes)

    def state(self) -> dict[str, Any]:
        """The episodes as a dict of plain data that `torch.load(weights_only=True)` accepts."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Episodes:
        """The episodes that returned this `state()`."""
        batches = {name: [Batch(**batch) for batch in state[name]] for name in ("support", "query")}
        return cls(**(state | batches))

    def slot_contents(self) -> SlotContents:
        """What the slots hold, found on the CPU: accelerators would be waited for at every step."""
        layers = self.layers.cpu().numpy()
        steps, count = layers.shape
        numbers = np.zeros((self.slots, count), dtype=np.int64)
        numbers[: len(self.initial_layers)] = np.array(self.initial_layers, dtype=np.int64)[:, None]
        depth = np.full((steps + 1, count), len(self.initial_layers), dtype=np.int64)
        for step in range(steps):
            growing = (layers[step] > 0) & (depth[step] < self.slots)
            numbers[depth[step][growing], growing.nonzero()[0]] = layers[step][growing]
            depth[step + 1] = depth[step] + growing
        return SlotContents(torch.from_numpy(numbers).to(self.layers.device), numbers, depth)
