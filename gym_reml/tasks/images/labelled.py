"""N-way K-shot tasks of user-provided labelled examples: features, images, or folders of image files."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gym_reml.checks import check_integer, check_places, is_integer
from gym_reml.tasks.arrays import immutable, read_array, read_finite, standardised
from gym_reml.tasks.base import SPLITS, Generators, Tasks
from gym_reml.tasks.images.archives import import_pillow
from gym_reml.tasks.images.classes import ClassFamily

HELD_OUT_SHARE = 0.2
"""Fraction of the classes for each of validation and test."""
QUERIES = 15
"""Default number of query examples of each class."""
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GREY = ("1", "L", "LA")


@dataclass(frozen=True, eq=False)
class LabelledClasses(ClassFamily):
    """N-way K-shot tasks of labelled examples. Created by `from_classes`.

    Attributes:
        examples: (examples, features), (examples, height, width) or (examples, height, width, channels); float32, or
            uint8 for images to be scaled from [0, 255] to [0, 1].
        labels: (examples,) integers or text.
        classes: the labels of each split. None assigns classes by a fixed hash of their labels: a fifth of the classes,
            but at least `ways`, to each of validation and test. Copies by `replace` keep the splits.
    """

    name: ClassVar[str] = "labelled-classes"

    examples: NDArray[Any] = field(kw_only=True)
    labels: NDArray[Any] = field(kw_only=True)
    classes: Mapping[str, Sequence[Any]] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        examples, labels = _read_examples(self.examples), _read_labels(self.labels)
        if len(examples) != len(labels):
            raise ValueError(f"labels: {len(labels)} of them for {len(examples)} examples")
        names, first, sizes = np.unique(np.sort(labels), return_index=True, return_counts=True)
        if (labels[1:] < labels[:-1]).any():
            order = np.argsort(labels, kind="stable")
            examples, labels = immutable(examples[order]), immutable(labels[order])
        given = split_classes(names.tolist(), self.ways) if self.classes is None else self.classes
        classes = _check_classes(given, names.tolist(), self.ways, self.split)
        required = self.most_shots + self.queries // self.ways
        for name, size in zip(names.tolist(), sizes, strict=True):
            if size < required and any(name in members for members in classes.values()):
                raise ValueError(
                    f"shots={self.shots} and queries={self.queries} need {self.most_shots} + "
                    f"{self.queries // self.ways} different examples of each class (ways={self.ways}): class {name!r} "
                    f"has {size}"
                )
        for name, value in (("examples", examples), ("labels", labels), ("classes", classes)):
            object.__setattr__(self, name, value)
        # Not fields, because they are derived from the fields.
        members = np.isin(names, np.array(classes[self.split], dtype=names.dtype))
        object.__setattr__(self, "_first", first[members])
        object.__setattr__(self, "_sizes", sizes[members])

    @property
    def class_sizes(self) -> NDArray[np.int64]:
        sizes: NDArray[np.int64] = self.__dict__["_sizes"]
        return sizes

    @property
    def example_shape(self) -> tuple[int, ...]:
        return self.examples.shape[1:]

    def pick(self, tasks: Tasks, numbers: NDArray[np.int64], generators: Generators) -> NDArray[Any]:
        index = self.__dict__["_first"][tasks["class"]][..., None] + numbers
        return self.examples[index.reshape(len(index), -1)]

    def task_parameters(self, tasks: Tasks) -> Tasks:
        return {"class": tasks["class"]}

    def check_parameters(self, parameters: Tasks) -> None:
        check_places("class", parameters["class"], len(self.class_sizes))
        classes = np.sort(parameters["class"], axis=1)
        if (classes[:, 1:] == classes[:, :-1]).any():
            raise ValueError("options: task: a class is there twice")

    def describe(self, tasks: Tasks, row: int) -> dict[str, Any]:
        first = self.__dict__["_first"][tasks["class"][row]]
        return {"family": self.name, "classes": self.labels[first].tolist()}


def from_classes(
    examples: ArrayLike | str | os.PathLike[str],
    labels: ArrayLike | None = None,
    *,
    ways: int = 5,
    shots: int | tuple[int, int] = 1,
    queries: int | None = None,
    split: str = "train",
    classes: Mapping[str, Sequence[Any]] | None = None,
    size: int | tuple[int, int] | None = None,
    standardise: bool = False,
) -> LabelledClasses:
    """A family of N-way K-shot classification tasks from labelled examples (N = `ways`, K = `shots`).

    Classes are split: test tasks consist of classes that no training task contains. Support and query sets hold the
    same number of examples of each class, and have none in common.

    Args:
        examples: features (examples, features); images (examples, height, width) or (examples, height, width,
            channels), of which uint8 is scaled to [0, 1] and floats are not changed; or a folder with a folder of image
            files for each class (needs Pillow).
        labels: (examples,) integers or text; not for a folder.
        ways: number of classes of a task.
        shots: number of support examples of each class, or (low, high).
        queries: total number of query examples of a task, a multiple of `ways`; None for 15 of each class, or less if
            the smallest class has fewer.
        split: "train", "validation" or "test".
        classes: the labels of each split, `{"train": [...], "validation": [...], "test": [...]}`. By default a fixed
            hash of the labels assigns a fifth of the classes, but at least `ways`, to each of validation and test.
        size: (height, width) to which the images of a folder are resized, or one number for both.
        standardise: shift and scale each feature, or each channel of images, such that the examples of the training
            classes have mean 0 and standard deviation 1; other classes do not enter the statistics.

    Raises:
        ValueError: inconsistent shapes, values that are not finite, too few classes, or too few examples of a class.
        FileNotFoundError: no such folder.
        ImportError: a folder without Pillow.
    """
    if isinstance(examples, str | os.PathLike):
        if labels is not None:
            raise ValueError("labels: not for a folder, whose own folders are the classes")
        examples, labels = _read_folder(Path(examples).expanduser(), size)
    elif size is not None:
        raise ValueError(f"size={size!r}: for folders of pictures only; arrays have their size")
    if labels is None:
        raise ValueError("labels=None: must be the class of every example")
    if queries is None:
        check_integer("ways", ways)
        most: Any = shots[1] if isinstance(shots, Sequence) and len(shots) == 2 else shots
        queries = ways * _most_queries(_read_labels(labels), classes, most if is_integer(most) else 1)
    family = LabelledClasses(
        examples=read_array("examples", examples),
        labels=read_array("labels", labels),
        classes=classes,
        ways=ways,
        shots=shots,
        queries=queries,
        split=split,
    )
    if not standardise:
        return family
    assert family.classes is not None
    if not family.classes["train"]:
        raise ValueError("standardise=True: uses statistics of the training classes, but classes= names none")
    is_training = np.isin(family.labels, np.array(family.classes["train"], dtype=family.labels.dtype))
    # Statistics are kept for each element of the last axis: features or channels.
    shape = family.examples.shape if family.examples.ndim != 3 else (*family.examples.shape, 1)
    stored = family.examples.reshape(shape)
    return family.replace(examples=standardised(stored, stored[is_training]).reshape(family.examples.shape))


def _most_queries(labels: NDArray[Any], classes: Any, shots: int) -> int:
    """Number of query examples of each class: `QUERIES`, or less if the smallest class of the splits has fewer."""
    sizes = Counter(labels.tolist())
    if isinstance(classes, Mapping):
        named = [member for members in classes.values() if isinstance(members, Iterable) for member in members]
        sizes = Counter({name: size for name, size in sizes.items() if name in named}) or sizes
    return max(1, min(QUERIES, min(sizes.values()) - shots))


def _read_examples(values: Any) -> NDArray[Any]:
    """Immutable examples: uint8 for images of that dtype, else float32."""
    given = read_array("examples", values)
    if given.ndim not in (2, 3, 4) or 0 in given.shape or (given.ndim == 4 and given.shape[3] > 4):
        raise ValueError(
            f"examples {given.shape}: must be (examples, features), (examples, height, width) or (examples, height, "
            "width, channels) with at most 4 channels, the last axis"
        )
    if given.ndim > 2 and given.dtype.kind in "iu" and given.dtype != np.uint8:
        raise ValueError(
            f"examples: images of {given.dtype}: must be uint8, which is scaled to [0, 1], or floats, which are not "
            "changed"
        )
    if given.ndim == 4 and given.shape[3] == 1:
        given = given[..., 0]
    return immutable(given) if given.dtype == np.uint8 and given.ndim > 2 else read_finite("examples", given)


def _read_labels(values: Any) -> NDArray[Any]:
    """Immutable labels, int64 or text."""
    given = read_array("labels", values)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    # Columns of text or integers of a data frame, and integers stored as floats.
    if given.dtype.kind in "OT" and all(isinstance(label, str) for label in given.flat):
        given = np.array(given.tolist())
    integers = given.dtype == object and all(map(is_integer, given.flat))
    if integers or (given.dtype.kind == "f" and np.isfinite(given).all() and (given == np.floor(given)).all()):
        given = given.astype(np.int64)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iubU":
        raise ValueError(
            f"labels {given.shape} {given.dtype}: must be (examples,) integers or text; of one-hot rows take "
            "labels.argmax(axis=1)"
        )
    return immutable(given if given.dtype.kind == "U" else given.astype(np.int64, copy=False))


def split_classes(names: Sequence[Any], ways: int) -> dict[str, list[Any]]:
    """Classes of each split, assigned by a fixed hash of their labels."""
    if len(names) < ways * len(SPLITS):
        raise ValueError(
            f"labels: {len(names)} classes are too few for ways={ways}: train, validation and test need {ways} "
            f"different ones each, {ways * len(SPLITS)} together; or assign them by classes="
        )
    # A hash is the same in all versions of all libraries.
    order = sorted(names, key=lambda name: hashlib.sha256(f"gym_reml classes {name}".encode()).digest())
    held_out = max(ways, round(HELD_OUT_SHARE * len(order)))
    held_out = min(held_out, (len(order) - ways) // 2)
    return {"train": order[2 * held_out :], "validation": order[:held_out], "test": order[held_out : 2 * held_out]}


def _check_classes(given: Any, names: Sequence[Any], ways: int, split: str) -> dict[str, tuple[Any, ...]]:
    """Validates a user's classes: those of each split, sorted; () for a split that is not given."""
    if not isinstance(given, Mapping) or not set(given) <= set(SPLITS):
        raise ValueError(f"classes={given!r}: must be a dict from {', '.join(map(repr, SPLITS))} to lists of labels")
    classes = {}
    for part in SPLITS:
        members = given.get(part, ())
        if isinstance(members, str) or not isinstance(members, Sequence | np.ndarray):
            raise ValueError(f"classes: {part!r} is {members!r}, must be a list of labels")
        requested = {member.item() if isinstance(member, np.generic) else member for member in members}
        unknown = sorted(map(repr, requested - set(names)))
        if unknown:
            raise ValueError(f"classes: {part!r} names {', '.join(unknown)}, which no example is of")
        classes[part] = tuple(sorted(requested))
    repeated = sorted(name for name, count in Counter(sum(classes.values(), ())).items() if count > 1)
    if repeated:
        raise ValueError(f"classes: {', '.join(map(repr, repeated))} in more than one split")
    if len(classes[split]) < ways:
        raise ValueError(f"ways={ways}: the {split!r} split has {len(classes[split])} classes")
    return classes


def _read_folder(folder: Path, size: Any) -> tuple[NDArray[np.uint8], list[str]]:
    """The images of a folder of classes, (n, height, width), or (..., 3) unless all are grey, and their labels."""
    if not folder.is_dir():
        raise FileNotFoundError(f"examples={str(folder)!r}: no such folder")
    pillow = import_pillow("from_classes")
    requested = (size, size) if is_integer(size) else size
    fits = isinstance(requested, Sequence) and len(requested) == 2
    if requested is not None and not (fits and all(is_integer(length) and length > 0 for length in requested)):
        raise ValueError(f"size={size!r}: must be a number of pixels, or (height, width)")
    class_folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    paths = [
        path
        for class_folder in class_folders
        for path in sorted(class_folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not paths:
        raise ValueError(f"{folder}: must hold a folder for every class, with pictures in it")
    pictures = []
    for path in paths:
        try:
            with pillow.open(path) as picture:
                if picture.mode[0] in "IF":
                    raise ValueError(f"its pixels have more than 8 bits (mode {picture.mode}); give them as an array")
                picture = picture.convert("L" if picture.mode in GREY else "RGB")
                if requested is not None:
                    picture = picture.resize(requested[::-1], pillow.Resampling.BILINEAR)
                pictures.append(np.asarray(picture))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read ({error})") from error
    for path, image in zip(paths, pictures, strict=True):
        if image.shape[:2] != pictures[0].shape[:2]:
            raise ValueError(
                f"{path}: has {image.shape[0]} x {image.shape[1]} pixels, {paths[0]} has {pictures[0].shape[0]} x "
                f"{pictures[0].shape[1]}; size=(height, width) brings all to the same"
            )
    if any(image.ndim == 3 for image in pictures):
        pictures = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in pictures]
    return np.stack(pictures), [path.parent.name for path in paths]
