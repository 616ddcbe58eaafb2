"""N-way K-shot tasks of Fashion-MNIST, scikit-learn's digits, and sign language digits."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.checks import is_integer
from gym_reml.tasks.arrays import immutable
from gym_reml.tasks.base import Generators, Tasks
from gym_reml.tasks.images.archives import import_pillow
from gym_reml.tasks.images.classes import ClassFamily
from gym_reml.tasks.images.collections import find_files, read_collection
from gym_reml.tasks.images.downloads import StampedFile
from gym_reml.tasks.images.labelled import LabelledClasses, from_classes, split_classes

WAYS = 3
GREY_SHARES = (19595, 38470, 7471)
"""Shares of red, green and blue in grey, in 65536ths (ITU-R BT.601, as Pillow has them)."""


@dataclass(frozen=True)
class CollectionClasses(ClassFamily):
    """Base of few-shot families of a collection of labelled images, `gym_reml.tasks.images.collections`.

    The ten classes are split in a fixed random order: 4 for training, 3 for validation, 3 for testing.

    Attributes:
        shots: number of support images of each class.
        queries: total number of query images of a task, a multiple of `ways`.
        ways: number of classes of a task.
        root: folder of the files, see `read_collection`.
        download: download the files if they are missing.
        grey: turn images in colour into grey ones.
        size: height and width to which images are resized, None for their own.

    Raises:
        FileNotFoundError: the files are missing.
        ImportError: `size` without Pillow, or digits without scikit-learn.
        ValueError: an argument is out of range, or a file is damaged.
    """

    queries: int = 30
    ways: int = WAYS
    root: str | None = None
    download: bool = False
    grey: bool = False
    size: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", None if self.root is None else os.fspath(self.root))
        super().__post_init__()
        for argument in ("download", "grey"):
            if not isinstance(getattr(self, argument), bool | np.bool_):
                raise ValueError(f"{argument}={getattr(self, argument)!r}: must be true or false")
        if self.size is not None and not (is_integer(self.size) and self.size > 0):
            raise ValueError(f"size={self.size!r}: must be a number of pixels")
        files = find_files(self.name, root=self.root, download=bool(self.download))
        # Not a field: derived from the fields, and no part of a specification.
        object.__setattr__(self, "_files", files)
        _ = self.labelled

    @property
    def labelled(self) -> LabelledClasses:
        """The same tasks, with their images as arrays; cached."""
        return _labelled(self, self.__dict__["_files"])

    def identity(self) -> dict[str, Any]:
        """What tasks depend on: the images, not the location of their files."""
        excluded = ("root", "download", "_files")
        attributes = {name: value for name, value in super().identity().items() if name not in excluded}
        return attributes | {"images": self.labelled.examples, "labels": self.labelled.labels}

    @property
    def class_sizes(self) -> NDArray[np.int64]:
        return self.labelled.class_sizes

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.labelled.example_shape

    def pick(self, tasks: Tasks, numbers: NDArray[np.int64], generators: Generators) -> NDArray[Any]:
        return self.labelled.pick(tasks, numbers, generators)

    def task_parameters(self, tasks: Tasks) -> Tasks:
        return self.labelled.task_parameters(tasks)

    def check_parameters(self, parameters: Tasks) -> None:
        self.labelled.check_parameters(parameters)

    def describe(self, tasks: Tasks, row: int) -> dict[str, Any]:
        return self.labelled.describe(tasks, row) | {"family": self.name}


@dataclass(frozen=True)
class FashionMNIST(CollectionClasses):
    """`ways`-way classification of garments, 1 x 28 x 28 (Xiao et al. 2017, arXiv:1708.07747)."""

    name: ClassVar[str] = "fashion_mnist"


@dataclass(frozen=True)
class Digits(CollectionClasses):
    """`ways`-way classification of scikit-learn's handwritten digits, 1 x 8 x 8 (Alpaydin and Kaynak 1998)."""

    name: ClassVar[str] = "digits"


@dataclass(frozen=True)
class SignDigits(CollectionClasses):
    """`ways`-way classification of photographs of digits in sign language, 3 x 32 x 32 (arXiv:2011.08927)."""

    name: ClassVar[str] = "sign_digits"


@lru_cache(maxsize=16)
def _labelled(family: CollectionClasses, files: tuple[StampedFile, ...]) -> LabelledClasses:
    images, labels = _examples(family.name, family.root, files, bool(family.grey), family.size)
    names = np.unique(labels).tolist()
    return from_classes(
        images,
        labels,
        ways=family.ways,
        shots=family.shots,
        queries=family.queries,
        split=family.split,
        # As for three ways, whatever number there is: classes must not change their split.
        classes=split_classes(names, WAYS),
    )


@lru_cache(maxsize=4)
def _examples(
    name: str, root: str | None, files: tuple[StampedFile, ...], grey: bool, size: int | None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """Images (N, height, width) or (N, height, width, channels), sorted by class, and the names of their classes (N,).

    Args:
        name: of the collection.
        root: where its files are.
        files: these files, so that what is cached belongs to them.
        grey: whether to turn images in colour into grey ones.
        size: height and width to resize to, None for their own.
    """
    collection = read_collection(name, root=root)
    labels = np.array(collection.classes)[collection.labels]
    order = np.argsort(labels, kind="stable")
    images = collection.images.transpose(0, 2, 3, 1)[order]
    if grey and images.shape[3] == len(GREY_SHARES):
        images = ((images @ np.array(GREY_SHARES) + 2**15) >> 16).astype(np.uint8)[..., None]
    if images.shape[3] == 1:
        images = images[..., 0]
    if size is not None and images.shape[1:3] != (size, size):
        pillow = import_pillow(f"size={size}")
        resized = (pillow.fromarray(image).resize((size, size), pillow.Resampling.BILINEAR) for image in images)
        images = np.stack([np.asarray(image) for image in resized])
    return immutable(images), immutable(labels[order])
