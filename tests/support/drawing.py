"""Tasks of families whose data does not depend on a network."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gym_reml.streams import RowStreams, many_streams
from gym_reml.tasks import Batch, TaskFamily


def no_network(inputs: Tensor) -> Tensor:
    raise AssertionError("these families' data does not depend on the network")


def draw(family: TaskFamily, count: int = 6, seed: int = 0) -> tuple[dict[str, Any], Batch, Batch]:
    """Tasks, support and query sets of the rows with these seeds."""
    return collect(family, many_streams(seed, count, family.split))


def collect(family: TaskFamily, streams: list[RowStreams]) -> tuple[dict[str, Any], Batch, Batch]:
    """Tasks, support and query sets of rows with these streams."""
    tasks = family.draw([row.task for row in streams])
    support = family.support(tasks, no_network, [row.support for row in streams])
    return tasks, support, family.query(tasks, no_network, [row.query for row in streams])
