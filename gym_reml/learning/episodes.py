"""Finished episodes, with all that a replay needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gym_reml.tasks.base import Batch


@dataclass
class Episodes:
    """B finished episodes of T steps, with all that is needed to live them again.

    Attributes:
        support: the support set of every step; a single entry where the data stays the same.
        query: likewise.
        layers: (T, B) int64, pool number of the layer appended at each step, 0 for none.
        step_sizes: (T, B) float32; 0 for a step that was refused.
        initial_layers: pool layers present before the first step.
        slots: how many layers fit.
    """

    support: list[Batch]
    query: list[Batch]
    layers: Tensor
    step_sizes: Tensor
    initial_layers: tuple[int, ...]
    slots: int

    def __len__(self) -> int:
        return self.layers.shape[1]

    def map(self, function: Callable[[Tensor], Tensor]) -> Episodes:
        """The same with `function` of every tensor of the data, and of layers and step sizes."""
        support, query = ([batch.map(function) for batch in batches] for batches in (self.support, self.query))
        return Episodes(
            support, query, function(self.layers), function(self.step_sizes), self.initial_layers, self.slots
        )

    def take(self, index: Tensor) -> Episodes:
        """The episodes at `index` (B',) int64."""
        support, query = ([batch.rows(index) for batch in batches] for batches in (self.support, self.query))
        return Episodes(
            support, query, self.layers[:, index], self.step_sizes[:, index], self.initial_layers, self.slots
        )

    @staticmethod
    def concatenate(parts: Sequence[Episodes]) -> Episodes:
        """All episodes of the parts, in order."""
        first = parts[0]
        support = [Batch.concatenate(batches) for batches in zip(*(part.support for part in parts), strict=True)]
        query = [Batch.concatenate(batches) for batches in zip(*(part.query for part in parts), strict=True)]
        layers = torch.cat([part.layers for part in parts], dim=1)
        step_sizes = torch.cat([part.step_sizes for part in parts], dim=1)
        return Episodes(support, query, layers, step_sizes, first.initial_layers, first.slots)

    def slot_contents(self) -> tuple[Tensor, Tensor]:
        """What is in the slots: pool numbers at the end, (slots, B), and depth after each step, (T + 1, B)."""
        steps, count = self.layers.shape
        contents = self.layers.new_zeros(self.slots, count)
        for slot, layer in enumerate(self.initial_layers):
            contents[slot] = layer
        depth = self.layers.new_full((steps + 1, count), len(self.initial_layers))
        columns = torch.arange(count, device=self.layers.device)
        for step in range(steps):
            growing = (self.layers[step] > 0) & (depth[step] < self.slots)
            contents[depth[step][growing], columns[growing]] = self.layers[step][growing]
            depth[step + 1] = depth[step] + growing
        return contents, depth
