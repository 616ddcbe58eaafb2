"""Synthetic classification problems of varying difficulty: clusters in space."""

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
from gym_reml.tasks.data_sets.variation import Variation, flip_labels, random_shares


@dataclass(frozen=True)
class Clusters(Variation, DataSets):
    """Points around random centres; each class has several of them.

    Attributes:
        classes: number of classes.
        features: length of an input.
        centres: number of clusters of a class.
        input_scales: inputs are multiplied by one of these.
    """

    name = "clusters"

    classes: int = 10
    features: int = 20
    centres: int = 3
    input_scales: tuple[float, ...] = (0.1, 1.0, 10.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument, value, least in (("classes", self.classes, 2), ("features", self.features, 1)):
            check_integer(argument, value, least)
        check_integer("centres", self.centres)
        self.check_unseen(self.classes)
        check_split(self.split)
        check_several("input_scales", self.input_scales, "positive numbers", lambda scale: 0 < scale < np.inf)

    def draw(self, generator: np.random.Generator) -> Task:
        return self.vary(generator) | {"input_scale": float(generator.choice(self.input_scales))}

    def check(self, task: Mapping[str, NDArray[Any]]) -> None:
        super().check(task)
        if not (task["input_scale"] > 0).all():
            raise ValueError(f"options: task: input_scale={task['input_scale'].tolist()}: must be positive")

    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        centres = generator.standard_normal((self.classes, self.centres, self.features))
        seen, tested = self.part_classes(self.classes, generator)
        shares = random_shares(task["imbalance"], len(seen), generator)
        wanted = ((task["examples"], seen, shares), *[(self.held_out, tested, None)] * 2)
        parts = [self._points(centres, count, classes, share, generator) for count, classes, share in wanted]
        scale = np.float32(task["input_scale"])
        train, validation, test = (Examples(torch.from_numpy(x * scale), torch.from_numpy(y)) for x, y in parts)
        noisy = flip_labels(train.targets, task["label_noise"], seen, generator)
        return DataSet(Examples(train.inputs, noisy), validation, test, int(task["batch_size"]), self.classes)

    def _points(
        self,
        centres: NDArray[np.float64],
        count: int,
        classes: NDArray[np.int64],
        shares: NDArray[np.float64] | None,
        generator: np.random.Generator,
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if shares is None:
            labels = classes[generator.integers(len(classes), size=count)]
        else:
            labels = classes[generator.choice(len(classes), size=count, p=shares)]
        middles = centres[labels, generator.integers(self.centres, size=count)]
        return (middles + generator.standard_normal(middles.shape)).astype(np.float32), labels
