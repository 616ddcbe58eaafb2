"""Random streams: each row has its own generator for each purpose, all derived from one seed and the split."""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "validation", "test")


class RowStreams(NamedTuple):
    """The generators of one row.

    Attributes:
        task: draws tasks.
        support, query: draw the points or trajectories of each set; separate, so that neither depends on the size of
            the other.
        ties: breaks ties between equal logits, and draws what controls intervene with.
        batches: draws minibatches of the support set.
    """

    task: np.random.Generator
    support: np.random.Generator
    query: np.random.Generator
    ties: np.random.Generator
    batches: np.random.Generator


class Column(tuple[np.random.Generator, ...]):
    """The generators of one purpose of many rows, in their order; remembers where their states are."""

    @cached_property
    def states(self) -> NDArray[np.int64] | None:
        """Addresses of their states (n,), if all are of numpy's default kind."""
        bits = [generator.bit_generator for generator in self]
        # Others' bit generators may have a function for each object.
        if {type(bit) for bit in bits} != {np.random.PCG64}:
            return None
        return np.array([bit.ctypes.state_address for bit in bits], dtype=np.int64)

    def part(self, rows: slice | NDArray[np.int64]) -> Column:
        """Those of some rows."""
        part = Column(self[rows] if isinstance(rows, slice) else (self[row] for row in rows.tolist()))
        part.states = None if self.states is None else self.states[rows]
        return part

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy's generators have their states elsewhere.
        return Column, (tuple(self),)


class NumberedGenerator(np.random.Generator):
    """A row's generator of tasks that also numbers the task, for families with finitely many.

    Attributes:
        number: of the task, from 0; families take it modulo their number of tasks.
    """

    def __init__(self, bit_generator: np.random.BitGenerator, number: int) -> None:
        """Draws the same values as a `Generator` over this bit generator."""
        super().__init__(bit_generator)
        self.number = number

    def __reduce__(self) -> tuple[Any, ...]:
        return NumberedGenerator, (self.bit_generator, self.number)


def check_split(split: str) -> str:
    """The split itself, or a ValueError that lists the choices."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(map(repr, SPLITS))}")
    return split


def row_streams(seed: int, split: str) -> RowStreams:
    """The streams of the row with this seed.

    The split enters the spawn key of numpy's `SeedSequence`, so splits share no stream, whatever their seeds.

    Raises:
        ValueError: an unknown split.
    """
    root = np.random.SeedSequence(seed, spawn_key=(SPLITS.index(check_split(split)),))
    return RowStreams(*(np.random.default_rng(child) for child in root.spawn(len(RowStreams._fields))))


def numbered_streams(seed: int, split: str) -> RowStreams:
    """The streams of the row with this seed; successive seeds draw each task of a finite family once."""
    streams = row_streams(seed, split)
    return streams._replace(task=NumberedGenerator(streams.task.bit_generator, seed))


def many_streams(seed: int, count: int, split: str) -> list[RowStreams]:
    """The streams of `count` rows with seeds `seed`, `seed` + 1, ..."""
    return [row_streams(seed + row, split) for row in range(count)]
