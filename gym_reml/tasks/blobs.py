"""Synthetic classification: clusters of points around random centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from gym_reml.checks import check_integer
from gym_reml.tasks.base import Batch, Forward, Generators, Tasks
from gym_reml.tasks.supervised import Classification

CENTRES = 2
"""Clusters of a class, so that classes are not separable by planes."""
NOISE = 0.5
"""Standard deviation of the points of a cluster; that of the centres is 1."""


@dataclass(frozen=True)
class Blobs(Classification):
    """Points around random centres, two for each class; every task draws its own centres.

    Attributes:
        ways: number of classes.
        features: length of an input.
    """

    name: ClassVar[str] = "blobs"

    ways: int = 5
    features: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_integer("ways", self.ways, 2)
        check_integer("features", self.features)

    @property
    def in_features(self) -> int:
        return self.features

    @property
    def out_features(self) -> int:
        return self.ways

    def draw(self, generators: Generators) -> Tasks:
        shape = (self.ways, CENTRES, self.features)
        return {"centres": np.stack([generator.standard_normal(shape) for generator in generators])}

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._points(tasks, generators, self.ways * self.most_shots)

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        return self._points(tasks, generators, self.queries)

    def _points(self, tasks: Tasks, generators: Generators, count: int) -> Batch:
        """Points of all classes in turn, of which there are as many if `count` is a multiple of them."""
        labels = np.arange(count) % self.ways
        inputs = np.empty((len(generators), count, self.features), dtype=np.float32)
        for row, centres, generator in zip(inputs, tasks["centres"], generators, strict=True):
            # Point by point, so that smaller sets are the beginnings of larger ones; the first number picks the centre.
            numbers = generator.standard_normal((count, 1 + self.features))
            row[:] = centres[labels, (numbers[:, 0] > 0.0).astype(int)] + NOISE * numbers[:, 1:]
        targets = torch.from_numpy(labels).expand(len(generators), count).clone()
        return Batch(torch.from_numpy(inputs), targets)
