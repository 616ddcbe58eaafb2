"""Omniglot: few-shot classification of handwritten characters (Lake et al. 2015)."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from gym_reml.checks import check_places, is_integer
from gym_reml.tasks.base import Generators, Tasks
from gym_reml.tasks.images.archives import (
    DRAWINGS,
    SIDE,
    SPLITS_BY,
    WHOLE_SPLITS,
    Characters,
    find_archives,
    read_characters,
)
from gym_reml.tasks.images.classes import ClassFamily
from gym_reml.tasks.images.downloads import StampedFile

Images = NDArray[np.uint8]

PERMUTATION = np.random.default_rng(20151211).permutation(SIDE * SIDE)
"""Source of each pixel of a "permuted" image, the same in all tasks."""

DOMAINS: dict[str, Callable[[Images], Images]] = {
    "identity": lambda images: images,
    "inverted": lambda images: 255 - images,
    "permuted": lambda images: images.reshape(-1, SIDE * SIDE)[:, PERMUTATION].reshape(images.shape),
    "transposed": lambda images: images.swapaxes(-1, -2),
    "contrast": lambda images: 96 + images // 4,
}
"""Transformations of a task's images, (..., SIDE, SIDE) uint8 with ink 255 on 0, by name."""


@dataclass(frozen=True)
class Omniglot(ClassFamily):
    """`ways`-way classification of characters; inputs are flattened 28 x 28 images, ink 1 on 0.

    Characters, and drawings within a task, are drawn without replacement: support and query sets have no drawing in
    common. With the same generators, tasks that differ only in `shots` or `queries` have the same characters, and the
    smaller sets are subsets of the larger ones. Splits depend on the archives in the folder: results are comparable
    only with the same archives.

    Attributes:
        shots: number of support drawings of each character.
        queries: total number of query drawings of a task, a multiple of `ways`.
        ways: number of characters of a task.
        root: folder of the archives, or one that holds it as "omniglot" ("omniglot_full" for the whole data set); None
            for the environment variable GYM_REML_DATA or, without it, `~/.cache/gym_reml`.
        download: download the archives if they are missing: the two small ones (242 characters), or those of the whole
            data set, `images_background.zip` and `images_evaluation.zip` (1,623).
        whole: read those of the whole data set; else all archives in the folder, `images_background*.zip` and
            `images_evaluation.zip`.
        split_by: "character" holds out characters, "alphabet" whole alphabets. Published splits, always of the whole
            data set: "vinyals" is the fixed one of Vinyals et al. 2016 (1,028 / 172 / 423 characters), "lake" has Lake
            et al.'s background set for training and validation, the latter by whole alphabets, and their evaluation set
            for testing.
        rotations: rotations by 90, 180 and 270 degrees are further classes, in the same split (Santoro et al. 2016,
            arXiv:1605.06065).
        shifts: largest random shift of each drawing along either axis, in pixels.
        domains: transformations of images, names in DOMAINS, one of which is drawn for each task.

    Raises:
        FileNotFoundError: there are no archives.
        ValueError: an argument is out of range.
    """

    name: ClassVar[str] = "omniglot"

    root: str | None = None
    download: bool = False
    whole: bool = False
    split_by: str = "character"
    rotations: bool = False
    shifts: int = 0
    domains: tuple[str, ...] = ("identity",)

    def __post_init__(self) -> None:
        domains = (self.domains,) if isinstance(self.domains, str) else tuple(self.domains)
        object.__setattr__(self, "domains", domains)
        object.__setattr__(self, "root", None if self.root is None else os.fspath(self.root))
        super().__post_init__()
        if not is_integer(self.shifts) or not 0 <= self.shifts <= SIDE // 2:
            raise ValueError(f"shifts={self.shifts!r}: must be an integer from 0 to {SIDE // 2}")
        for argument in ("download", "whole", "rotations"):
            if not isinstance(getattr(self, argument), bool | np.bool_):
                raise ValueError(f"{argument}={getattr(self, argument)!r}: must be true or false")
        if self.split_by not in SPLITS_BY:
            raise ValueError(f"split_by={self.split_by!r}: must be one of {', '.join(map(repr, SPLITS_BY))}")
        unknown = [domain for domain in domains if domain not in DOMAINS]
        if unknown or not domains:
            raise ValueError(f"domains={domains!r}: must be one or more of {', '.join(map(repr, DOMAINS))}")
        if self.most_shots + self.queries // self.ways > DRAWINGS:
            raise ValueError(
                f"shots={self.shots} and queries={self.queries} need {self.most_shots} + {self.queries // self.ways} "
                f"different drawings of each character (ways={self.ways}): there are {DRAWINGS}"
            )
        whole = bool(self.whole) or self.split_by in WHOLE_SPLITS
        archives = find_archives(self.root, whole=whole, download=bool(self.download))
        # Not a field: derived from the fields, and no part of a specification.
        object.__setattr__(self, "_archives", archives)

    @property
    def characters(self) -> Characters:
        """All characters of the archives, of all splits; decoded on first use."""
        archives: tuple[StampedFile, ...] = self.__dict__["_archives"]
        return read_characters(archives)

    def identity(self) -> dict[str, Any]:
        """What tasks depend on: the characters, not the location of the archives."""
        characters = {"names": self.characters.names, "images": self.characters.images}
        changes = [DOMAINS[domain] for domain in self.domains]
        excluded = ("root", "download", "whole", "_archives")
        attributes = {name: value for name, value in super().identity().items() if name not in excluded}
        return attributes | characters | {"changes": changes}

    @property
    def example_shape(self) -> tuple[int, int]:
        return SIDE, SIDE

    @property
    def class_sizes(self) -> NDArray[np.int64]:
        return np.full(len(self._members) * self._orientations, DRAWINGS)

    @property
    def _members(self) -> NDArray[np.int64]:
        """The split's characters, indices into `characters`."""
        return self.characters.of_split(self.split_by, self.split)

    @property
    def _orientations(self) -> int:
        return 4 if self.rotations else 1

    def draw(self, generators: Generators) -> Tasks:
        """Draws one task per generator.

        Returns:
            `character` (n, ways) int64, indices into `characters`; `turns` (n, ways), rotations in units of 90 degrees;
            `support` (n, ways, shots) and `query` (n, ways, queries / ways), numbers of drawings; `domain` (n,),
            indices into `domains`.

        Raises:
            ValueError: the split has fewer classes than `ways`.
        """
        members, turns = self._members, self._orientations
        if self.ways > len(members) * turns:
            raise ValueError(
                f"ways={self.ways}: the {self.split!r} split by {self.split_by} has {len(members) * turns} classes "
                f"({len(members)} of {len(self.characters.names)} characters, {turns} orientations)"
            )
        # Drawn first, so that characters do not depend on the number of domains.
        domain = np.array([generator.integers(len(self.domains)) for generator in generators], dtype=np.int64)
        tasks = super().draw(generators)
        chosen = tasks.pop("class")
        return {"character": members[chosen // turns], "turns": chosen % turns} | tasks | {"domain": domain}

    def describe(self, tasks: Tasks, row: int) -> dict[str, Any]:
        names = self.characters.names
        characters = [
            {"alphabet": names[index][0], "character": names[index][1], "rotation": 90 * int(turns)}
            for index, turns in zip(tasks["character"][row], tasks["turns"][row], strict=True)
        ]
        return {"family": self.name, "characters": characters, "domain": self.domains[tasks["domain"][row]]}

    def task_parameters(self, tasks: Tasks) -> Tasks:
        return {name: tasks[name] for name in ("character", "turns", "domain")}

    def check_parameters(self, parameters: Tasks) -> None:
        check_places("character", parameters["character"], len(self.characters.names))
        check_places("turns", parameters["turns"], self._orientations)
        check_places("domain", parameters["domain"], len(self.domains))
        classes = np.sort(4 * parameters["character"] + parameters["turns"], axis=1)
        if (classes[:, 1:] == classes[:, :-1]).any():
            raise ValueError("options: task: a character is there twice, in the same orientation")

    def draw_given(self, parameters: Tasks, generators: Generators) -> Tasks:
        # All characters have the same number of drawings, so numbers drawn for other characters are valid.
        return self.draw(generators) | parameters

    def pick(self, tasks: Tasks, numbers: NDArray[np.int64], generators: Generators) -> Images:
        """The transformed drawings with these numbers (n, ways, k): (n, ways * k, SIDE, SIDE) uint8."""
        rows, ways, count = numbers.shape
        drawings = self.characters.images.reshape(-1, SIDE * SIDE)
        index = tasks["character"][..., None] * DRAWINGS + numbers
        images = drawings.take(index.ravel(), axis=0).reshape(rows, ways, count, SIDE, SIDE)
        for turns in (1, 2, 3) if self.rotations else ():
            turned = tasks["turns"] == turns
            images[turned] = np.rot90(images[turned], turns, axes=(-2, -1))
        images = images.reshape(rows, ways * count, SIDE, SIDE)
        if self.shifts:
            span = 2 * self.shifts + 1
            offsets = np.stack([generator.integers(span, size=(ways * count, 2)) for generator in generators])
            images = shifted(images, offsets, self.shifts)
        for position, domain in enumerate(self.domains):
            chosen = tasks["domain"] == position
            if domain != "identity" and chosen.any():
                images[chosen] = DOMAINS[domain](images[chosen])
        return images


def shifted(images: Images, offsets: NDArray[np.int64], most: int) -> Images:
    """Shifted copies of images, with empty pixels at the border.

    Args:
        images: (n, points, SIDE, SIDE).
        offsets: (n, points, 2), from 0 to 2 * `most`: images move by `most` - offset, down and right.
        most: largest shift, in pixels.
    """
    rows, points = images.shape[:2]
    padded = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(2, 3))
    return windows[np.arange(rows)[:, None], np.arange(points), offsets[..., 0], offsets[..., 1]]
