"""Random streams: each row has its own, one for every purpose, all following from one seed and the split."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

SPLITS = ("train", "validation", "test")


class RowStreams(NamedTuple):
    """The generators of one row. Support and query draw apart, so the size of one never moves the other."""

    task: np.random.Generator
    support: np.random.Generator
    query: np.random.Generator
    ties: np.random.Generator


class NumberedGenerator(np.random.Generator):
    """A row's generator of tasks that also says which one is meant, for families that hold but so many.

    Attributes:
        number: of the task, from 0; families take it modulo how many there are.
    """

    def __init__(self, bit_generator: np.random.BitGenerator, number: int) -> None:
        """Draws what a Generator of this bit generator draws."""
        super().__init__(bit_generator)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return NumberedGenerator, (self.bit_generator, self.number)


def check_split(split: str) -> str:
    """The split, or a ValueError that lists the choices if there is no such split."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(map(repr, SPLITS))}")
    return split


def row_streams(seed: int, split: str) -> RowStreams:
    """The streams of the row with this seed.

    The split enters the seed sequence's spawn key: no seed can make training, validation and test tasks meet.
    """
    root = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(check_split(split)),))
    return RowStreams(*(np.random.default_rng(child) for child in root.spawn(len(RowStreams._fields))))


def numbered_streams(seed: int, split: str) -> RowStreams:
    """The streams of the row with this seed; of a finite family, successive seeds draw each task once."""
    streams = row_streams(seed, split)
    return streams._replace(task=NumberedGenerator(streams.task.bit_generator, seed))


def many_streams(seed: int, count: int, split: str) -> list[RowStreams]:
    """Streams of `count` rows with the seeds seed, seed + 1, ..."""
    return [row_streams(seed + row, split) for row in range(count)]
