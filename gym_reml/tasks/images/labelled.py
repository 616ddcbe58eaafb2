"""N-way K-shot tasks of the user's own labelled examples: features, images, or folders of pictures."""

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
"""Of the classes, for validation and for test each."""
QUERIES = 15
"""Query examples of a class where nobody says how many."""
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
GREY = ("1", "L", "LA")


@dataclass(frozen=True, eq=False)
class LabelledClasses(ClassFamily):
    """N-way K-shot tasks of labelled examples. Made by `from_classes`.

    Attributes:
        examples: (examples, features), (examples, height, width) or (examples, height, width, channels), uint8 for
            images of which 255 is to be 1, else float32.
        labels: (examples,) integers or text.
        classes: the labels of each split. None lets every class's name decide, by a fixed hash: a fifth of the classes
            for validation and for test each, but `ways` at least. That is done once: families made of this one by
            `replace` keep the splits.
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
        given = _split_classes(names.tolist(), self.ways) if self.classes is None else self.classes
        classes = _check_classes(given, names.tolist(), self.ways, self.split)
        needed = self.most_shots + self.queries // self.ways
        for name, size in zip(names.tolist(), sizes, strict=True):
            if size < needed and any(name in members for members in classes.values()):
                raise ValueError(
                    f"shots={self.shots} and queries={self.queries} need {self.most_shots} + "
                    f"{self.queries // self.ways} different examples of each class (ways={self.ways}): class {name!r} "
                    f"has {size}"
                )
        for name, value in (("examples", examples), ("labels", labels), ("classes", classes)):
            object.__setattr__(self, name, value)
        # No fields: they follow from these.
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
    """A family of N-way K-shot tasks from labelled examples: each tells `ways` classes apart by `shots` of each.

    Splits are of classes: no class of a test task was ever trained on. Support and query sets hold as many examples of
    each class, none of them twice.

    Args:
        examples: features (examples, features); images (examples, height, width) or (examples, height, width,
            channels), where uint8 is scaled to [0, 1] and floats stay as they are; or a folder that holds a folder of
            pictures for every class (needs Pillow).
        labels: (examples,) whole numbers or text; not for a folder.
        ways: classes of a task.
        shots: support examples of each class, or (low, high).
        queries: query examples of a task, all together, a multiple of `ways`; None for 15 of each class, or as many as
            the smallest class leaves.
        split: "train", "validation" or "test".
        classes: the labels of each split, `{"train": [...], "validation": [...], "test": [...]}`. By default a fixed
            hash of the labels decides: a fifth of the classes for validation and for test each, but `ways` at least.
        size: (height, width) that the pictures of a folder are brought to, or one number for both.
        standardise: shift and scale the examples such that those of the training classes have mean 0 and deviation 1:
            each feature, or each channel of images. Validation and test classes have no part in it.

    Raises:
        ValueError: shapes that do not fit, values that are not finite, too few classes, or too few examples of one.
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
        raise ValueError("standardise=True: goes by the training classes, of which classes= names none")
    known = np.isin(family.labels, np.array(family.classes["train"], dtype=family.labels.dtype))
    # A last axis that statistics are kept for: a feature's or a channel's own.
    shape = family.examples.shape if family.examples.ndim != 3 else (*family.examples.shape, 1)
    stored = family.examples.reshape(shape)
    return family.replace(examples=standardised(stored, stored[known]).reshape(family.examples.shape))


def _most_queries(labels: NDArray[Any], classes: Any, shots: int) -> int:
    """Query examples of each class: `QUERIES`, or as many as the smallest class leaves that a split has."""
    sizes = Counter(labels.tolist())
    if isinstance(classes, Mapping):
        named = [member for members in classes.values() if isinstance(members, Iterable) for member in members]
        sizes = Counter({name: size for name, size in sizes.items() if name in named}) or sizes
    return max(1, min(QUERIES, min(sizes.values()) - shots))


def _read_examples(values: Any) -> NDArray[Any]:
    """Immutable examples, uint8 where they are images of that type, else float32."""
    given = read_array("examples", values)
    if given.ndim not in (2, 3, 4) or 0 in given.shape or (given.ndim == 4 and given.shape[3] > 4):
        raise ValueError(
            f"examples {given.shape}: must be (examples, features), (examples, height, width) or (examples, height, "
            "width, channels) with at most 4 channels, the last axis"
        )
    if given.ndim > 2 and given.dtype.kind in "iu" and given.dtype != np.uint8:
        raise ValueError(
            f"examples: images of {given.dtype}: must be uint8, which is scaled to [0, 1], or floats, which stay as "
            "they are"
        )
    if given.ndim == 4 and given.shape[3] == 1:
        given = given[..., 0]
    return immutable(given) if given.dtype == np.uint8 and given.ndim > 2 else read_finite("examples", given)


def _read_labels(values: Any) -> NDArray[Any]:
    """Immutable labels, int64 or text."""
    given = read_array("labels", values)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    # A data frame's columns of text or of whole numbers, and numbers that have been through a file of floats.
    if given.dtype.kind in "OT" and all(isinstance(label, str) for label in given.flat):
        given = np.array(given.tolist())
    whole = given.dtype == object and all(map(is_integer, given.flat))
    if whole or (given.dtype.kind == "f" and np.isfinite(given).all() and (given == np.floor(given)).all()):
        given = given.astype(np.int64)
    if given.ndim != 1 or not len(given) or given.dtype.kind not in "iubU":
        raise ValueError(
            f"labels {given.shape} {given.dtype}: must be (examples,) integers or text; of one-hot rows take "
            "labels.argmax(axis=1)"
        )
    return immutable(given if given.dtype.kind == "U" else given.astype(np.int64, copy=False))


def _split_classes(names: Sequence[Any], ways: int) -> dict[str, list[Any]]:
    """Which classes are trained on, and which are held out, by a fixed random rank of their names."""
    if len(names) < ways * len(SPLITS):
        raise ValueError(
            f"labels: {len(names)} classes are too few for ways={ways}: train, validation and test have {ways} "
            f"different ones each, {ways * len(SPLITS)} together; or say which are which by classes="
        )
    # A hash, for it is the same in every version of every library.
    order = sorted(names, key=lambda name: hashlib.sha256(f"gym_reml classes {name}".encode()).digest())
    held_out = max(ways, round(HELD_OUT_SHARE * len(order)))
    held_out = min(held_out, (len(order) - ways) // 2)
    return {"train": order[2 * held_out :], "validation": order[:held_out], "test": order[held_out : 2 * held_out]}


def _check_classes(given: Any, names: Sequence[Any], ways: int, split: str) -> dict[str, tuple[Any, ...]]:
    """The classes of every split, in order of name; of splits that nobody named, none."""
    if not isinstance(given, Mapping) or not set(given) <= set(SPLITS):
        raise ValueError(f"classes={given!r}: must be a dict from {', '.join(map(repr, SPLITS))} to lists of labels")
    classes = {}
    for part in SPLITS:
        members = given.get(part, ())
        if isinstance(members, str) or not isinstance(members, Sequence | np.ndarray):
            raise ValueError(f"classes: {part!r} is {members!r}, must be a list of labels")
        wanted = {member.item() if isinstance(member, np.generic) else member for member in members}
        unknown = sorted(map(repr, wanted - set(names)))
        if unknown:
            raise ValueError(f"classes: {part!r} names {', '.join(unknown)}, which no example is of")
        classes[part] = tuple(sorted(wanted))
    twice = sorted(name for name, count in Counter(sum(classes.values(), ())).items() if count > 1)
    if twice:
        raise ValueError(f"classes: {', '.join(map(repr, twice))} in more than one split")
    if len(classes[split]) < ways:
        raise ValueError(f"ways={ways}: the {split!r} split has {len(classes[split])} classes")
    return classes


def _read_folder(folder: Path, size: Any) -> tuple[NDArray[np.uint8], list[str]]:
    """The pictures of a folder of classes, grey if all of them are, else in colour, and the names of their classes."""
    if not folder.is_dir():
        raise FileNotFoundError(f"examples={str(folder)!r}: no such folder")
    pillow = import_pillow("from_classes")
    wanted = (size, size) if is_integer(size) else size
    fits = isinstance(wanted, Sequence) and len(wanted) == 2
    if wanted is not None and not (fits and all(is_integer(length) and length > 0 for length in wanted)):
        raise ValueError(f"size={size!r}: must be a number of pixels, or (height, width)")
    kinds = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))
    found = [
        path
        for kind in kinds
        for path in sorted(kind.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise ValueError(f"{folder}: must hold a folder for every class, with pictures in it")
    pictures = []
    for path in found:
        try:
            with pillow.open(path) as picture:
                if picture.mode[0] in "IF":
                    raise ValueError(f"its pixels have more than 8 bits (mode {picture.mode}); give them as an array")
                picture = picture.convert("L" if picture.mode in GREY else "RGB")
                if wanted is not None:
                    picture = picture.resize(wanted[::-1], pillow.Resampling.BILINEAR)
                pictures.append(np.asarray(picture))
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: cannot be read ({error})") from error
    for path, image in zip(found, pictures, strict=True):
        if image.shape[:2] != pictures[0].shape[:2]:
            raise ValueError(
                f"{path}: has {image.shape[0]} x {image.shape[1]} pixels, {found[0]} has {pictures[0].shape[0]} x "
                f"{pictures[0].shape[1]}; size=(height, width) brings all to the same"
            )
    if any(image.ndim == 3 for image in pictures):
        pictures = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in pictures]
    return np.stack(pictures), [path.parent.name for path in found]
