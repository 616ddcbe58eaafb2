"""Omniglot: telling handwritten characters apart, from a few drawings of each."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import check_places
from gym_reml.tasks.base import Batch, Forward, Generators, Tasks
from gym_reml.tasks.omniglot_data import (
    DRAWINGS,
    SIDE,
    SPLITS_BY,
    Archive,
    Characters,
    data_root,
    download,
    find_archives,
    read_characters,
)
from gym_reml.tasks.supervised import Classification

Images = NDArray[np.uint8]

PERMUTATION = np.random.default_rng(20151211).permutation(SIDE * SIDE)
"""Where each pixel of a "permuted" image comes from, the same in every task."""

DOMAINS: dict[str, Callable[[Images], Images]] = {
    "identity": lambda images: images,
    "inverted": lambda images: 255 - images,
    "permuted": lambda images: images.reshape(-1, SIDE * SIDE)[:, PERMUTATION].reshape(images.shape),
    "transposed": lambda images: images.swapaxes(-1, -2),
    "contrast": lambda images: 96 + images // 4,
}
"""What a task's images, (..., SIDE, SIDE) uint8 with ink 255 on 0, are turned into: the same shape and type."""

POOL = 4
"""Pixels a side of the patches whose mean ink the signal shows."""


@dataclass(frozen=True)
class Omniglot(Classification):
    """Each task tells `ways` characters apart; inputs are 28x28 images, flat, ink 1 on 0.

    Characters, and drawings within a task, are drawn without replacement: a query drawing is never a support drawing.
    With the same generators, tasks that differ in `shots` or `queries` alone share their characters, and the drawings
    of the smaller are among those of the larger. The split depends on the archives found: results are comparable
    where the same archives are there.

    Attributes:
        shots: support drawings per character.
        queries: query drawings of a task, all together: a multiple of `ways`, the same number for each character.
        ways: characters of a task.
        root: folder of `images_background*.zip` and `images_evaluation.zip`, all read; default the environment
            variable GYM_REML_DATA, else `~/.cache/gym_reml/omniglot`.
        download: fetch the two small archives into that folder where they are missing.
        split_by: "character": new characters of known alphabets are held out; "alphabet": whole alphabets.
        rotations: characters turned by 90, 180 and 270 degrees are characters of their own, in the same split.
        shifts: largest random shift of each drawing, in pixels, in both directions.
        domains: what may be done to a task's images, one drawn per task: names in DOMAINS.

    Raises:
        FileNotFoundError: there are no archives.
        ValueError: an argument is out of range.
    """

    name: ClassVar[str] = "omniglot"

    ways: int = 5
    root: str | None = None
    download: bool = False
    split_by: str = "character"
    rotations: bool = False
    shifts: int = 0
    domains: tuple[str, ...] = ("identity",)

    def __post_init__(self) -> None:
        domains = (self.domains,) if isinstance(self.domains, str) else tuple(self.domains)
        object.__setattr__(self, "domains", domains)
        object.__setattr__(self, "root", None if self.root is None else os.fspath(self.root))
        super().__post_init__()
        for argument, least, most in (("ways", 2, float("inf")), ("shifts", 0, SIDE // 2)):
            value = getattr(self, argument)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or not least <= value <= most:
                raise ValueError(f"{argument}={value!r}: must be an integer from {least} to {most}")
        for argument in ("download", "rotations"):
            if not isinstance(getattr(self, argument), bool | np.bool_):
                raise ValueError(f"{argument}={getattr(self, argument)!r}: must be true or false")
        if self.split_by not in SPLITS_BY:
            raise ValueError(f"split_by={self.split_by!r}: must be one of {', '.join(map(repr, SPLITS_BY))}")
        unknown = [domain for domain in domains if domain not in DOMAINS]
        if unknown or not domains:
            raise ValueError(f"domains={domains!r}: must be one or more of {', '.join(map(repr, DOMAINS))}")
        if self.queries % self.ways:
            raise ValueError(f"queries={self.queries}: must be a multiple of ways={self.ways}")
        if self.shots + self.queries // self.ways > DRAWINGS:
            raise ValueError(
                f"shots={self.shots} and queries={self.queries} need {self.shots} + {self.queries // self.ways} "
                f"different drawings of each character (ways={self.ways}): there are {DRAWINGS}"
            )
        folder = data_root(self.root)
        if self.download:
            download(folder)
        # Not a field: it follows from the others, and a specification must not carry it.
        object.__setattr__(self, "_archives", find_archives(folder))

    @property
    def characters(self) -> Characters:
        """Every character of the archives, of all splits; decoded at the first use in the process."""
        archives: tuple[Archive, ...] = self.__dict__["_archives"]
        return read_characters(archives)

    @property
    def in_features(self) -> int:
        return SIDE * SIDE

    @property
    def image_shape(self) -> tuple[int, int]:
        return SIDE, SIDE

    @property
    def out_features(self) -> int:
        return self.ways

    def draw(self, generators: Generators) -> Tasks:
        """Draws one task per generator.

        Returns:
            `character` (n, ways) int64, positions in `characters`; `turns` (n, ways), quarters to turn them by;
            `support` (n, ways, shots) and `query` (n, ways, queries / ways), numbers of drawings; `domain` (n,),
            positions in `domains`.

        Raises:
            ValueError: the split has fewer classes than `ways`.
        """
        members = self.characters.members[self.split_by][self.split]
        turns = 4 if self.rotations else 1
        classes = len(members) * turns
        if self.ways > classes:
            raise ValueError(
                f"ways={self.ways}: the {self.split!r} split by {self.split_by} has {classes} classes "
                f"({len(members)} of {len(self.characters.names)} characters, {turns} orientations)"
            )
        rows = len(generators)
        domain = np.empty(rows, dtype=np.int64)
        chosen = np.empty((rows, self.ways), dtype=np.int64)
        drawings = np.tile(np.arange(DRAWINGS), (rows, self.ways, 1))
        for row, generator in enumerate(generators):
            domain[row] = generator.integers(len(self.domains))
            chosen[row] = generator.choice(classes, self.ways, replace=False)
            generator.permuted(drawings[row], axis=1, out=drawings[row])
        return {
            "character": members[chosen // turns],
            "turns": chosen % turns,
            # From both ends, so that neither changes with the size of the other.
            "support": drawings[..., : self.shots].copy(),
            "query": drawings[..., ::-1][..., : self.queries // self.ways].copy(),
            "domain": domain,
        }

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """The support drawings.

        Returns:
            Inputs (n, ways * shots, 784) float32, targets (n, ways * shots) int64; `extras["signal"]`
            (n, signal_size) float32, what `support_signal` shows.
        """
        images = self._images(tasks, tasks["support"], generators)
        return self._batch(images, {"signal": torch.from_numpy(summary(images))})

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        """The query drawings: inputs (n, queries, 784) float32, targets (n, queries) int64."""
        return self._batch(self._images(tasks, tasks["query"], generators), {})

    @property
    def signal_size(self) -> int:
        return (SIDE // POOL) ** 2 + 1

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The support set's `summary`, (n, 50): it knows neither labels nor the order or number of drawings."""
        return batch.extras["signal"]

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
        check_places("turns", parameters["turns"], 4 if self.rotations else 1)
        check_places("domain", parameters["domain"], len(self.domains))
        classes = np.sort(4 * parameters["character"] + parameters["turns"], axis=1)
        if (classes[:, 1:] == classes[:, :-1]).any():
            raise ValueError("options: task: a character is there twice, in the same orientation")

    def _images(self, tasks: Tasks, drawings: NDArray[np.int64], generators: Generators) -> Images:
        """The drawings numbered `drawings` (n, ways, k) as the tasks show them, (n, ways * k, SIDE, SIDE)."""
        rows, ways, count = drawings.shape
        store = self.characters.images.reshape(-1, SIDE * SIDE)
        index = tasks["character"][..., None] * DRAWINGS + drawings
        images = store.take(index.ravel(), axis=0).reshape(rows, ways, count, SIDE, SIDE)
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

    def _batch(self, images: Images, extras: dict[str, Tensor]) -> Batch:
        rows, points = images.shape[:2]
        inputs = np.divide(images.reshape(rows, points, SIDE * SIDE), np.float32(255), dtype=np.float32)
        targets = torch.arange(self.ways).repeat_interleave(points // self.ways).repeat(rows, 1)
        return Batch(torch.from_numpy(inputs), targets, extras)


def shifted(images: Images, offsets: NDArray[np.int64], most: int) -> Images:
    """A copy of the images (n, points, SIDE, SIDE), each moved by `most` - its offset, empty pixels coming in.

    The offsets (n, points, 2), down and right, go from 0 to 2 * `most`.
    """
    rows, points = images.shape[:2]
    framed = np.pad(images, ((0, 0), (0, 0), (most, most), (most, most)))
    windows = np.lib.stride_tricks.sliding_window_view(framed, (SIDE, SIDE), axis=(2, 3))
    return windows[np.arange(rows)[:, None], np.arange(points), offsets[..., 0], offsets[..., 1]]


def summary(images: Images) -> NDArray[np.float32]:
    """The mean image in patches, and how much neighbouring pixels differ, which tells permuted images.

    Args:
        images: (n, points, SIDE, SIDE) uint8.

    Returns:
        (n, 50) float32 in [0, 1]. Sums are of integers, so the order of the points changes no bit.
    """
    rows, points = images.shape[:2]
    side = SIDE // POOL
    total = images.sum(axis=1, dtype=np.int64)
    patches = total.reshape(rows, side, POOL, side, POOL).sum(axis=(2, 4)).reshape(rows, side * side)
    signed = images.astype(np.int16)
    rough = sum(np.abs(np.diff(signed, axis=axis)).sum(axis=(1, 2, 3), dtype=np.int64)[:, None] for axis in (2, 3))
    differences = 2 * SIDE * (SIDE - 1) * points
    scaled = np.concatenate([patches / (points * POOL**2), rough / differences], axis=1)
    return (scaled / 255).astype(np.float32)
