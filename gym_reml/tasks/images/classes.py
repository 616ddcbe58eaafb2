"""N-way K-shot classification tasks: new classes, with a few examples of each."""

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
from gym_reml.tasks.base import WEIGHTS, Batch, Forward, Generators, Tasks, padded
from gym_reml.tasks.supervised import Classification

PATCHES = 7
"""The signal holds the mean brightness of PATCHES x PATCHES patches."""


@dataclass(frozen=True)
class ClassFamily(Classification):
    """Base of families of `ways`-way classification tasks.

    Classes, and examples within a task, are drawn without replacement: support and query sets have no example in
    common, and the same number of examples of each class. With the same generators, tasks that differ only in `shots`
    or `queries` have the same classes, and the smaller sets are subsets of the larger ones. Splits have no class in
    common.

    Attributes:
        shots: number of support examples of each class.
        queries: total number of query examples of a task, a multiple of `ways`.
        ways: number of classes of a task.

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
        """Number of examples of each class of the split, (classes,), in a fixed order."""

    @property
    @abstractmethod
    def example_shape(self) -> tuple[int, ...]:
        """Shape of an example: (features,), or (height, width) or (height, width, channels) for images."""

    @abstractmethod
    def pick(self, tasks: Tasks, numbers: NDArray[np.int64], generators: Generators) -> NDArray[Any]:
        """The examples with these numbers (n, ways, k) of the tasks' classes.

        Returns:
            (n, ways * k, *example_shape), float32, or uint8, which is then scaled from [0, 255] to [0, 1].
        """

    @property
    def in_features(self) -> int:
        return math.prod(self.example_shape)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(features,), or for images (channels, height, width): inputs are flattened with the channels first."""
        if len(self.example_shape) == 1:
            return self.example_shape
        height, width, *channels = self.example_shape
        return math.prod(channels), height, width

    @property
    def out_features(self) -> int:
        return self.ways

    @property
    def image_shape(self) -> tuple[int, int] | None:
        return self.example_shape if len(self.example_shape) == 2 else None

    def draw(self, generators: Generators) -> Tasks:
        """Draws one task per generator.

        Returns:
            `class` (n, ways) int64, indices into `class_sizes`; `support` (n, ways, shots) and `query` (n, ways,
            queries / ways), numbers of examples of these classes.

        Raises:
            ValueError: the split has fewer classes than `ways`.
        """
        return self._draw_examples(self._draw_classes(generators), generators)

    def draw_given(self, parameters: Tasks, generators: Generators) -> Tasks:
        # Drawn and discarded, so that a task given with the seed that drew it has the same examples.
        self._draw_classes(generators)
        return self._draw_examples(parameters["class"], generators)

    def _draw_classes(self, generators: Generators) -> NDArray[np.int64]:
        """Draws classes (n, ways) of the split."""
        sizes = self.class_sizes
        if self.ways > len(sizes):
            raise ValueError(f"ways={self.ways}: the {self.split!r} split has {len(sizes)} classes")
        choices = [generator.choice(len(sizes), self.ways, replace=False) for generator in generators]
        return np.stack(choices)

    def _draw_examples(self, chosen: NDArray[np.int64], generators: Generators) -> Tasks:
        """Tasks with these classes (n, ways), whose examples are drawn."""
        sizes, each, rows = self.class_sizes, self.queries // self.ways, len(generators)
        support = np.empty((rows, self.ways, self.most_shots), dtype=np.int64)
        query = np.empty((rows, self.ways, each), dtype=np.int64)
        for row, generator in enumerate(generators):
            for way, number in enumerate(chosen[row]):
                order = generator.permuted(np.arange(sizes[number]))
                # From opposite ends, so that neither set depends on the size of the other.
                support[row, way], query[row, way] = order[: self.most_shots], order[::-1][:each]
        return {"class": chosen, "support": support, "query": query}

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """The support examples.

        Returns:
            Inputs (n, ways * shots, in_features) float32, targets (n, ways * shots) int64, and for images
            `extras["signal"]` (n, signal_size) float32, see `support_signal`.
        """
        numbers, extras = tasks["support"], {}
        examples = self.pick(tasks, numbers, generators)
        counts = self.draw_counts(generators)
        if counts is not None:
            # Only the first `counts` examples of each class have weight.
            within = np.tile(np.arange(self.most_shots), self.ways)
            places, extras[WEIGHTS] = padded(within, counts)
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
        if examples.ndim == 5:
            examples = np.moveaxis(examples, -1, 2)
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
        """For images the `summary` of the support set, which depends neither on labels nor on the order of examples."""
        return batch.extras["signal"] if self.signal_size else super().support_signal(outputs, batch)


def summary(images: NDArray[Any], weights: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Mean brightness of 7 x 7 patches, and mean absolute difference of neighbouring pixels (large if permuted).

    Args:
        images: (n, points, height, width) or (n, points, height, width, channels): uint8, or floats.
        weights: (n, points), 0 for images to ignore and equal for all others; None to use all images.

    Returns:
        (n, patches + 1) float32; for uint8 in [0, 1], and computed in integers, so independent of the order of images.
    """
    is_uint8 = images.dtype == np.uint8
    sum_dtype: Any = np.int64 if is_uint8 else np.float64
    rows, _, height, width = images.shape[:4]
    points: Any = images.shape[1]
    if weights is not None:
        images = images * (weights > 0).reshape(*weights.shape, *[1] * (images.ndim - 2)).astype(images.dtype)
        points = np.count_nonzero(weights, axis=1)[:, None]
    channels = math.prod(images.shape[4:])
    total = images.sum(axis=1, dtype=sum_dtype).reshape(rows, height, width, channels).sum(axis=3)
    down, across = (np.linspace(0, size, min(PATCHES, size) + 1).round().astype(int) for size in (height, width))
    patches = np.add.reduceat(np.add.reduceat(total, down[:-1], axis=1), across[:-1], axis=2)
    areas = np.outer(np.diff(down), np.diff(across)) * channels
    signed = images.astype(np.int16) if is_uint8 else images
    steps = [np.abs(np.diff(signed, axis=axis)).reshape(rows, -1) for axis in (2, 3)]
    total_difference = sum(step.sum(axis=1, dtype=sum_dtype) for step in steps)
    # Number of differences in a single image.
    differences = max(1, sum(step.shape[1] for step in steps) // images.shape[1])
    brightness = patches.reshape(rows, -1) / (points * areas.ravel())
    scaled = np.concatenate([brightness, total_difference[:, None] / (points * differences)], axis=1)
    return (scaled / 255 if is_uint8 else scaled).astype(np.float32)
