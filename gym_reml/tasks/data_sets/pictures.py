"""Parts of collections of labelled images, such as Fashion-MNIST, as data sets."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from gym_reml.checks import check_integer
from gym_reml.streams import SPLITS, check_split
from gym_reml.tasks.data_sets.base import DataSet, DataSets, Examples, Task
from gym_reml.tasks.data_sets.variation import Variation, flip_labels, random_shares
from gym_reml.tasks.images.collections import Collection, read_collection

SHARES = (0.6, 0.2, 0.2)
"""Of a collection's images, those that tasks of each split are drawn from."""


@dataclass(frozen=True)
class Pictures(Variation, DataSets):
    """Random images of a collection, with their classes.

    Tasks of different splits share no image: three fifths of the collection are for training tasks, one for validation
    tasks and one for test tasks.

    Attributes:
        collection: its name, see `gym_reml.tasks.images.collections.COLLECTIONS`.
        side: images are shrunk to this height and width by averaging; None to leave them as they are.
        root, download: see `read_collection`.
    """

    collection: str = "fashion_mnist"
    side: int | None = 14
    root: str | None = None
    download: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_split(self.split)
        if self.side is not None:
            check_integer("side", self.side)
        read = read_collection(self.collection, root=self.root, download=self.download)
        self.check_unseen(len(read.classes))
        available, needed = len(_places(len(read.labels), self.split)), max(self.examples) + 2 * self.held_out
        if needed > available:
            raise ValueError(
                f"examples={self.examples!r}, held_out={self.held_out!r}: a data set would need {needed} images, the "
                f"{self.split!r} split of {self.collection!r} has {available}"
            )
        if self.unseen:
            self._check_images_of_classes(read)

    @property
    def name(self) -> str:  # type: ignore[override]
        """The name of the collection."""
        return self.collection

    def _check_images_of_classes(self, read: Collection) -> None:
        """Raises a ValueError unless any `unseen` classes have enough images to hold out, and others to train on."""
        counts = np.sort(np.bincount(read.labels[_places(len(read.labels), self.split)], minlength=len(read.classes)))
        for argument, needed, classes in (
            ("held_out", 2 * self.held_out, self.unseen),
            ("examples", max(self.examples), len(counts) - self.unseen),
        ):
            available = int(counts[:classes].sum())
            if needed > available:
                raise ValueError(
                    f"unseen={self.unseen!r}, {argument}={getattr(self, argument)!r}: a data set would need {needed} "
                    f"images of {classes} classes, the {self.split!r} split of {self.collection!r} may have {available}"
                )

    def draw(self, generator: np.random.Generator) -> Task:
        return self.vary(generator)

    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        read = read_collection(self.collection, root=self.root)
        places, train = _places(len(read.labels), self.split), int(task["examples"])
        seen, tested = self.part_classes(len(read.classes), generator)
        shares = random_shares(task["imbalance"], len(seen), generator)
        if shares is None and not self.unseen:
            drawn = generator.choice(places, min(train + 2 * self.held_out, len(places)), replace=False)
        else:
            order = generator.permutation(places)
            if self.unseen:
                among = np.isin(read.labels[order], tested)
                held, left = order[among][: 2 * self.held_out], order[~among]
            else:
                held, left = np.split(order, [2 * self.held_out])
            if shares is not None:
                counts = np.zeros(len(read.classes), dtype=np.int64)
                counts[seen] = generator.multinomial(train, shares)
                left = _imbalanced(left, read.labels[left], counts)
            drawn = np.concatenate([held, left[:train]])
        images = _shrunk(read, self.side)[torch.from_numpy(drawn)]
        labels = torch.from_numpy(read.labels[drawn])
        held_out, test, rest = torch.arange(len(drawn), device="cpu").split(
            [self.held_out, self.held_out, len(drawn) - 2 * self.held_out]
        )
        noisy = flip_labels(labels[rest], task["label_noise"], seen, generator)
        return DataSet(
            Examples(images[rest], noisy),
            Examples(images[held_out], labels[held_out]),
            Examples(images[test], labels[test]),
            int(task["batch_size"]),
            len(read.classes),
        )


def _imbalanced(places: NDArray[np.int64], labels: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """So many of these places by label; where there are fewer, the next of other labels take their place."""
    others = np.ones(len(places), dtype=np.bool_)
    for label, count in enumerate(counts):
        own = np.flatnonzero(labels == label)
        others[own[:count]] = False
    # Those that are wanted first, in the order of the places.
    return places[np.argsort(others, kind="stable")[: counts.sum()]]


@lru_cache(maxsize=8)
def _places(count: int, split: str) -> NDArray[np.int64]:
    """The images of a split: a random part of them, always the same."""
    order = np.random.default_rng(0).permutation(count)
    ends = np.rint(np.cumsum(SHARES) * count).astype(int)
    return np.split(order, ends[:-1])[SPLITS.index(split)]


@lru_cache(maxsize=2)
def _shrunk(read: Collection, side: int | None) -> Tensor:
    """The images (N, channels, side, side) float32 in [0, 1]; collections are hashed by identity."""
    images = torch.tensor(read.images, device="cpu").float() / 255.0
    size = images.shape[2] if side is None else min(side, images.shape[2])
    return images if size == images.shape[2] else functional.adaptive_avg_pool2d(images, size)
