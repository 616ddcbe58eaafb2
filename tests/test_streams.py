"""Random streams: equal seeds give equal numbers, different ones do not."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from gym_reml.streams import SPLITS, RowStreams, many_streams, row_streams


def numbers(streams: RowStreams) -> list[tuple[int, ...]]:
    """The first 128 bits of each stream, which identify it."""
    return [tuple(stream.integers(2**63, size=2).tolist()) for stream in streams]


@pytest.mark.parametrize("split", SPLITS)
def test_same_seed_same_numbers(split: str) -> None:
    assert numbers(row_streams(3, split)) == numbers(row_streams(3, split))


def test_rows_splits_and_purposes_never_meet() -> None:
    seeds = [*range(50), 2**32, 2**32 + 1, 2**64, 2**128]
    drawn = [number for seed in seeds for split in SPLITS for number in numbers(row_streams(seed, split))]
    assert len(set(drawn)) == len(drawn) == len(seeds) * len(SPLITS) * len(RowStreams._fields)


def test_many_rows_are_rows_with_the_following_seeds() -> None:
    together = many_streams(7, 3, "validation")
    assert [numbers(row) for row in together] == [numbers(row_streams(seed, "validation")) for seed in (7, 8, 9)]


def test_drawing_from_one_stream_moves_no_other() -> None:
    untouched = row_streams(5, "train")
    expected = dict(zip(RowStreams._fields, numbers(untouched), strict=True))
    for used, other in itertools.permutations(RowStreams._fields, 2):
        streams = row_streams(5, "train")
        getattr(streams, used).random(1000)
        assert tuple(getattr(streams, other).integers(2**63, size=2).tolist()) == expected[other]


def test_streams_are_numpy_generators() -> None:
    assert all(isinstance(stream, np.random.Generator) for stream in row_streams(0, "test"))


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match=r"split='dev': must be one of 'train', 'validation', 'test'"):
        row_streams(0, "dev")
