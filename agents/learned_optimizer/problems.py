"""The problems that optimizers are trained and compared on: task families, with what is optimised on each task."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gym_reml.streams import RowStreams, many_streams
from gym_reml.tasks import TaskFamily, make_family
from gym_reml.tasks.base import Batch
from gym_reml.tasks.blobs import Blobs
from gym_reml.tasks.landscapes import Landscape

from .layout import Layout

ORDERED = 64
"""Minibatches that are drawn at once."""


UNSEEN = 10_000
"""Seed of the first test problem: some of those before were looked at while recipes were made."""


@dataclass(frozen=True)
class ProblemFamily:
    """Problems of one kind: on each task of a family, the loss on its support set is minimised.

    Attributes:
        family: of the tasks; its support sets must not depend on the network.
        hidden: widths of a ReLU network's hidden layers; None where the parameters are a point, the network's output.
        batch: support points of a minibatch; None for all.
        held_out: whether optimizers are tested on it without having been trained on it.
    """

    family: TaskFamily
    hidden: tuple[int, ...] | None = None
    batch: int | None = None
    held_out: bool = False

    @property
    def layout(self) -> Layout:
        """The parameters: a point, or weights (inputs, outputs) and biases (1, outputs) of each layer."""
        if self.hidden is None:
            return Layout(((self.family.out_features,),))
        widths = (self.family.in_features, *self.hidden, self.family.out_features)
        pairs = pairwise(widths)
        return Layout(tuple(shape for low, high in pairs for shape in ((low, high), (1, high))))

    def drawn(self, first: int, count: int, split: str) -> Problems:
        """Problems of successive seeds, the same for the same numbers."""
        family = self.family.replace(split=split)
        streams = many_streams(first, count, split)
        tasks = family.draw([stream.task for stream in streams])
        batch = family.support(tasks, torch.clone, [stream.support for stream in streams])
        start = torch.from_numpy(np.stack([self._start(stream) for stream in streams]))
        return Problems(replace(self, family=family), batch, start, [stream.batches for stream in streams])

    def tested(self, count: int) -> Problems:
        """The first problems of the test split that played no part while recipes were made."""
        return self.drawn(UNSEEN, count, "test")

    def _start(self, stream: RowStreams) -> Any:
        """A point of the box [-1, 1], or weights with standard deviations of sqrt(2 / inputs), and biases of 0."""
        if self.hidden is None:
            return stream.ties.uniform(-1.0, 1.0, self.layout.count).astype(np.float32)
        parts = []
        for number, (inputs, outputs) in enumerate(self.layout.shapes):
            deviation = 0.0 if number % 2 else math.sqrt(2.0 / inputs)
            parts.append(deviation * stream.ties.standard_normal(inputs * outputs))
        return np.concatenate(parts).astype(np.float32)


@dataclass
class Problems:
    """n problems of a kind, side by side.

    Attributes:
        kind: what they are.
        everything: their support sets.
        start: (n, P), the initial parameters.
        generators: of minibatches, one for each problem.
        copies: how often each problem stands in the batch, one copy after the other, all with the same minibatches.
    """

    kind: ProblemFamily
    everything: Batch
    start: Tensor
    generators: list[np.random.Generator]
    copies: int = 1
    _ordered: list[Tensor] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.start)

    def copied(self, copies: int) -> Problems:
        """The same problems, not begun, so many times each."""
        return Problems(
            self.kind,
            self.everything.map(lambda tensor: tensor.repeat_interleave(copies, dim=0)),
            self.start.repeat_interleave(copies, dim=0),
            self.generators,
            copies,
        )

    def minibatch(self) -> Batch:
        """The next minibatches; everything, if the kind has none."""
        size = self.kind.batch
        if size is None:
            return self.everything
        if not self._ordered:
            points = self.everything.inputs.shape[1]
            drawn = np.stack([generator.integers(points, size=(ORDERED, size)) for generator in self.generators])
            self._ordered = list(torch.from_numpy(drawn.repeat(self.copies, axis=0)).unbind(dim=1))
        return self.everything.points(self._ordered.pop(0))

    def loss(self, parameters: Tensor, batch: Batch) -> Tensor:
        """The losses (n,) at parameters (n, P)."""
        parts = self.kind.layout.cut(parameters)
        if self.kind.hidden is None:
            return self.kind.family.loss(parts[0].unsqueeze(1), batch)
        outputs = batch.inputs
        for number in range(0, len(parts), 2):
            outputs = torch.baddbmm(parts[number + 1], outputs, parts[number])
            if number + 2 < len(parts):
                outputs = outputs.relu()
        return self.kind.family.loss(outputs, batch)


def _landscape(function: str, dimension: int = 2, *, held_out: bool = False) -> ProblemFamily:
    return ProblemFamily(Landscape(function=function, dimension=dimension), held_out=held_out)


PROBLEMS: dict[str, ProblemFamily] = {
    "bowl": _landscape("bowl", 10),
    "quadratic": _landscape("quadratic", 10),
    "rosenbrock": _landscape("rosenbrock"),
    "beale": _landscape("beale"),
    "booth": _landscape("booth"),
    "matyas": _landscape("matyas"),
    "ackley": _landscape("ackley"),
    "softmax": ProblemFamily(Blobs(shots=20), hidden=(), batch=16),
    "mlp": ProblemFamily(Blobs(shots=20), hidden=(16,), batch=16),
    "branin": _landscape("branin", held_out=True),
    "michalewicz": _landscape("michalewicz", held_out=True),
    "styblinski_tang": _landscape("styblinski_tang", held_out=True),
    "wide_quadratic": _landscape("quadratic", 50, held_out=True),
    "deep_mlp": ProblemFamily(Blobs(shots=20, ways=8), hidden=(32, 32), batch=16, held_out=True),
    "regression": ProblemFamily(make_family("sinusoid", shots=50), hidden=(20, 20), batch=16, held_out=True),
}
"""The problems by name, those trained on first (most of those of Wichrowska et al. 2017, arXiv:1703.04813)."""
