"""Synthetic images: glyphs of a few random strokes, drawn at random places and angles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.checks import check_integer, check_several
from gym_reml.streams import check_split
from gym_reml.tasks.data_sets.base import DataSet, DataSets, Examples, Task

THICKNESS = 0.07
"""Of strokes, as a share of the side."""
SPREAD = 0.3
"""Standard deviation of the ends of strokes, as a share of the side."""
SHAKE = 0.03
"""Standard deviation of the same ends between drawings of a glyph."""


@dataclass(frozen=True)
class Glyphs(DataSets):
    """Grey images (1, side, side), ink 1 on 0, of random glyphs: broken lines through a few random points.

    Each class is a glyph. Every drawing shakes its points, turns it, and puts it somewhere else, in all parts alike: a
    network that saw a glyph at a few places must recognise it at others.

    Attributes:
        split: of the tasks: "train", "validation" or "test".
        classes: number of glyphs.
        shots: drawings of each in the training part.
        held_out: size of the validation part, and of the test part.
        strokes: of a glyph.
        side: height and width of images, in pixels.
        shifts: each task draws one: the largest shift along either axis, as a share of the side.
        turns: each task draws one: the largest rotation, in degrees.
        batch_size: of minibatches.

    Raises:
        ValueError: an attribute is out of range.
    """

    name = "glyphs"

    split: str = "train"
    classes: int = 5
    shots: int = 5
    held_out: int = 50
    strokes: int = 3
    side: int = 16
    shifts: tuple[float, ...] = (0.2,)
    turns: tuple[float, ...] = (15.0,)
    batch_size: int = 25

    def __post_init__(self) -> None:
        check_split(self.split)
        check_integer("classes", self.classes, 2)
        for argument in ("shots", "held_out", "strokes", "side", "batch_size"):
            check_integer(argument, getattr(self, argument))
        check_several("shifts", self.shifts, "numbers from 0 to 1", lambda shift: 0.0 <= shift <= 1.0)
        check_several("turns", self.turns, "numbers from 0 to 180", lambda turn: 0.0 <= turn <= 180.0)

    def draw(self, generator: np.random.Generator) -> Task:
        return {"shift": float(generator.choice(self.shifts)), "turn": float(generator.choice(self.turns))}

    def check(self, task: Mapping[str, NDArray[Any]]) -> None:
        for name, most in (("shift", 1.0), ("turn", 180.0)):
            if ((task[name] < 0.0) | (task[name] > most)).any():
                raise ValueError(f"options: task: {name}={task[name].tolist()}: must be from 0 to {most:g}")

    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        glyphs = SPREAD * generator.standard_normal((self.classes, self.strokes + 1, 2))
        glyphs -= glyphs.mean(axis=1, keepdims=True)
        seen = np.repeat(np.arange(self.classes), self.shots)
        held_out = (np.arange(self.held_out) % self.classes for _ in range(2))
        train, validation, test = (
            Examples(torch.from_numpy(self._drawn(glyphs[labels], task, generator)), torch.from_numpy(labels))
            for labels in (seen, *held_out)
        )
        return DataSet(train, validation, test, self.batch_size, self.classes)

    def _drawn(self, points: NDArray[np.float64], task: Task, generator: np.random.Generator) -> NDArray[np.float32]:
        """Drawings (n, 1, side, side) of glyphs with these points (n, strokes + 1, 2) around the middle."""
        count = len(points)
        points = points + SHAKE * generator.standard_normal(points.shape)
        angles = np.deg2rad(task["turn"]) * generator.uniform(-1.0, 1.0, count)
        cosine, sine = np.cos(angles), np.sin(angles)
        turned = np.einsum("nij,nkj->nki", np.array([[cosine, -sine], [sine, cosine]]).transpose(2, 0, 1), points)
        turned += 0.5 + task["shift"] * generator.uniform(-1.0, 1.0, (count, 1, 2))
        places = (np.arange(self.side, dtype=np.float32) + 0.5) / self.side
        starts, ways = turned[:, :-1].astype(np.float32), np.diff(turned, axis=1).astype(np.float32)
        # Of each pixel from each stroke, (n, strokes, height, width): first along it, then across.
        way_x, way_y = (ways[:, :, place, None, None] for place in range(2))
        x = places - starts[:, :, 0, None, None]
        y = places[:, None] - starts[:, :, 1, None, None]
        length = np.maximum((ways**2).sum(axis=2), 1e-9)[:, :, None, None]
        along = np.clip((x * way_x + y * way_y) / length, 0.0, 1.0)
        distance = np.sqrt(((x - along * way_x) ** 2 + (y - along * way_y) ** 2).min(axis=1))
        ink = np.clip(0.5 + (THICKNESS / 2.0 - distance) * self.side, 0.0, 1.0)
        return ink[:, None].astype(np.float32)
