"""N-way K-shot tasks: telling classes apart that were never seen, by a few examples of each."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import is_integer
from gym_reml.tasks.base import WEIGHTS, Batch, Forward, Generators, Tasks, counted
from gym_reml.tasks.supervised import Classification

PATCHES = 7
"""A side: of how many patches the signal shows the mean brightness."""


@dataclass(frozen=True)
class ClassFamily(Classification):
    """Base of families whose every task tells `ways` classes apart.

    Classes, and examples within a task, are drawn without replacement: a query example is never a support example, and
    every class has as many. With the same generators, tasks that differ in `shots` or `queries` alone share their
    classes, and the examples of the smaller are among those of the larger. Splits have no class in common.

    Attributes:
        shots: support examples of each class.
        queries: query examples of a task, all together: a multiple of `ways`, the same number for each class.
        ways: classes of a task.

    Raises:
        ValueError: an argument is out of range.
    """

    varying_shots: ClassVar[bool] = True

    ways: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_integer(self.ways) or self.ways < 2:
            raise ValueError(f"ways={self.ways!r}: must be an integer from 2")
        if self.queries % self.ways:
            raise ValueError(f"queries={self.queries}: must be a multiple of ways={self.ways}")

    @property
    @abstractmethod
    def class_sizes(self) -> NDArray[np.int64]:
        """How many examples each class of the split has, (classes,), in a fixed order."""

    @property
    @abstractmethod
    def example_shape(self) -> tuple[int, ...]:
        """Of one example: (features,), or (height, width) or (height, width, channels) of images."""

    @abstractmethod
    def pick(self, tasks: Tasks, numbers: NDArray[np.int64], generators: Generators) -> NDArray[Any]:
        """The examples of these numbers (n, ways, k) of the tasks' classes.

        Returns:
            (n, ways * k, ...) by `example_shape`, float32, or uint8 from 0 to 255 for inputs from 0 to 1.
        """

    @property
    def in_features(self) -> int:
        return math.prod(self.example_shape)

    @property
    def out_features(self) -> int:
        return self.ways

    @property
    def image_shape(self) -> tuple[int, int] | None:
        return self.example_shape if len(self.example_shape) == 2 else None

    def draw(self, generators: Generators) -> Tasks:
        """Draws one task per generator.

        Returns:
            `class` (n, ways) int64, positions in `class_sizes`; `support` (n, ways, shots) and `query` (n, ways,
            queries / ways), numbers of examples of these classes.

        Raises:
            ValueError: the split has fewer classes than `ways`.
        """
        return self._of_classes(self._choose(generators), generators)

    def draw_given(self, parameters: Tasks, generators: Generators) -> Tasks:
        # Chosen and dropped, so that a task which is given with the seed that drew it has the same examples.
        self._choose(generators)
        return self._of_classes(parameters["class"], generators)

    def _choose(self, generators: Generators) -> NDArray[np.int64]:
        """Classes (n, ways) of the split."""
        sizes = self.class_sizes
        if self.ways > len(sizes):
            raise ValueError(f"ways={self.ways}: the {self.split!r} split has {len(sizes)} classes")
        choices = [generator.choice(len(sizes), self.ways, replace=False) for generator in generators]
        return np.stack(choices)

    def _of_classes(self, chosen: NDArray[np.int64], generators: Generators) -> Tasks:
        """Draws the examples of tasks with these classes (n, ways)."""
        sizes, each, rows = self.class_sizes, self.queries // self.ways, len(generators)
        support = np.empty((rows, self.ways, self.most_shots), dtype=np.int64)
        query = np.empty((rows, self.ways, each), dtype=np.int64)
        for row, generator in enumerate(generators):
            for way, number in enumerate(chosen[row]):
                order = generator.permuted(np.arange(sizes[number]))
                # From both ends, so that neither changes with the size of the other.
                support[row, way], query[row, way] = order[: self.most_shots], order[::-1][:each]
        return {"class": chosen, "support": support, "query": query}

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """The support examples.

        Returns:
            Inputs (n, ways * shots, in_features) float32, targets (n, ways * shots) int64; of images,
            `extras["signal"]` (n, signal_size) float32, what `support_signal` shows.
        """
        numbers, extras = tasks["support"], {}
        examples = self.pick(tasks, numbers, generators)
        counts = self.draw_counts(generators)
        if counts is not None:
            # Each class's examples, the first `counts` of which count.
            within = np.tile(np.arange(self.most_shots), self.ways)
            places, extras[WEIGHTS] = counted(within, counts)
            places += np.arange(examples.shape[1]) - within
            examples = examples[np.arange(len(examples))[:, None], places]
        if self.signal_size:
            extras["signal"] = torch.from_numpy(summary(examples, None if counts is None else extras[WEIGHTS].numpy()))
        return self._batch(examples, extras)

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """The query examples: inputs (n, queries, in_features) float32, targets (n, queries) int64."""
        return self._batch(self.pick(tasks, tasks["query"], generators), {})

    def _batch(self, examples: NDArray[Any], extras: dict[str, Tensor]) -> Batch:
        rows, points = examples.shape[:2]
        inputs = examples.reshape(rows, points, -1)
        if inputs.dtype == np.uint8:
            inputs = np.divide(inputs, np.float32(255), dtype=np.float32)
        targets = torch.arange(self.ways, device="cpu").repeat_interleave(points // self.ways).repeat(rows, 1)
        return Batch(torch.from_numpy(inputs), targets, extras)

    @property
    def signal_size(self) -> int:
        if len(self.example_shape) == 1:
            return 0
        height, width = self.example_shape[:2]
        return min(PATCHES, height) * min(PATCHES, width) + 1

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Of images the support set's `summary`: it knows neither labels nor the order or number of examples."""
        return batch.extras["signal"] if self.signal_size else super().support_signal(outputs, batch)


def summary(images: NDArray[Any], weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The mean image in 7 x 7 patches, and how much neighbouring pixels differ, which tells permuted images.

    Args:
        images: (n, points, height, width) or (n, points, height, width, channels): uint8, or floats.
        weights: (n, points), 0 for images that do not count and the same for all others; None if all count.

    Returns:
        (n, patches + 1) float32, in [0, 1] for uint8, whose sums are of integers: their order changes no bit.
    """
    whole = images.dtype == np.uint8
    exact: Any = np.int64 if whole else np.float64
    rows, _, height, width = images.shape[:4]
    points: Any = images.shape[1]
    if weights is not None:
        images = images * (weights > 0).reshape(*weights.shape, *[1] * (images.ndim - 2)).astype(images.dtype)
        points = np.count_nonzero(weights, axis=1)[:, None]
    channels = math.prod(images.shape[4:])
    total = images.sum(axis=1, dtype=exact).reshape(rows, height, width, channels).sum(axis=3)
    down, across = (np.linspace(0, size, min(PATCHES, size) + 1).round().astype(int) for size in (height, width))
    patches = np.add.reduceat(np.add.reduceat(total, down[:-1], axis=1), across[:-1], axis=2)
    areas = np.outer(np.diff(down), np.diff(across)) * channels
    signed = images.astype(np.int16) if whole else images
    steps = [np.abs(np.diff(signed, axis=axis)).reshape(rows, -1) for axis in (2, 3)]
    rough = sum(step.sum(axis=1, dtype=exact) for step in steps)
    # Of a single image.
    differences = max(1, sum(step.shape[1] for step in steps) // images.shape[1])
    bright = patches.reshape(rows, -1) / (points * areas.ravel())
    scaled = np.concatenate([bright, rough[:, None] / (points * differences)], axis=1)
    return (scaled / 255 if whole else scaled).astype(np.float32)
