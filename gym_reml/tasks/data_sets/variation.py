"""What varies between tasks of a distribution: number of examples, width, minibatches, label noise, imbalance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import check_integer, check_several, is_integer
from gym_reml.tasks.data_sets.base import Task


@dataclass(frozen=True)
class Variation:
    """Each task draws one of the values of each attribute, independently.

    Attributes:
        split: of the tasks: "train", "validation" or "test".
        examples: sizes of the training part.
        widths: of the network.
        batch_sizes: of minibatches.
        label_noises: shares of the training labels that are replaced by random ones; validation and test labels are
            not.
        imbalances: how many times as frequent the most frequent class is as the rarest among training examples, before
            label noise; the others are in between, in equal ratios, in random order. In validation and test all classes
            are as frequent.
        held_out: size of the validation part, and of the test part.
        unseen: number of classes, drawn anew for each task, that are kept out of the training part, its label noise
            included; validation and test are of these classes alone, as in metric learning (Song et al. 2016,
            arXiv:1511.06452). 0 for none: all parts are of all classes. Labels, and outputs, are those of all classes.

    Raises:
        ValueError: no values, or values out of range.
    """

    split: str = "train"
    examples: tuple[int, ...] = (200, 1000)
    widths: tuple[int, ...] = (8, 32)
    batch_sizes: tuple[int, ...] = (8, 64)
    label_noises: tuple[float, ...] = (0.0, 0.4)
    imbalances: tuple[float, ...] = (1.0,)
    held_out: int = 300
    unseen: int = 0

    def __post_init__(self) -> None:
        check_integer("held_out", self.held_out)
        for argument in ("examples", "widths", "batch_sizes"):
            values = getattr(self, argument)
            check_several(argument, values, "positive integers", lambda value: is_integer(value) and value > 0)
        check_several("label_noises", self.label_noises, "shares from 0 to 1", lambda noise: 0 <= noise <= 1)
        check_several("imbalances", self.imbalances, "numbers from 1", lambda ratio: 1 <= ratio < np.inf)

    def check_unseen(self, classes: int) -> None:
        """Raises a ValueError unless so many classes can be split into `unseen` and others, two at least of each."""
        most = classes - 2
        if not is_integer(self.unseen) or (self.unseen != 0 and not 2 <= self.unseen <= most):
            allowed = f"0, or an integer from 2 to {most}" if most >= 2 else "0"
            raise ValueError(f"unseen={self.unseen!r}: must be {allowed}, because there are {classes} classes")

    def part_classes(self, classes: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The classes of the training part, and those of validation and test."""
        if not self.unseen:
            return np.arange(classes), np.arange(classes)
        unseen, seen = np.split(generator.permutation(classes), [self.unseen])
        return seen, unseen

    def vary(self, generator: np.random.Generator) -> Task:
        """The numbers of a new task."""
        return {
            "examples": int(generator.choice(self.examples)),
            "width": int(generator.choice(self.widths)),
            "batch_size": int(generator.choice(self.batch_sizes)),
            "label_noise": float(generator.choice(self.label_noises)),
            "imbalance": float(generator.choice(self.imbalances)),
        }

    def check(self, task: Mapping[str, NDArray[Any]]) -> None:
        """Raises a ValueError for numbers that make no task."""
        for name in ("examples", "width", "batch_size"):
            if (task[name] < 1).any():
                raise ValueError(f"options: task: {name}={task[name].tolist()}: must be positive")
        noise = task["label_noise"]
        if ((noise < 0) | (noise > 1)).any():
            raise ValueError(f"options: task: label_noise={noise.tolist()}: must be shares from 0 to 1")
        if (task["imbalance"] < 1).any():
            raise ValueError(f"options: task: imbalance={task['imbalance'].tolist()}: must be numbers from 1")


def random_shares(imbalance: float, classes: int, generator: np.random.Generator) -> NDArray[np.float64] | None:
    """Random shares of the classes with this ratio of the largest to the smallest; None where all are equal."""
    if imbalance == 1.0:
        return None
    ranks = generator.permutation(classes) / max(classes - 1, 1)
    shares = imbalance**-ranks
    return np.asarray(shares / shares.sum())


def flip_labels(labels: Tensor, share: float, classes: NDArray[np.int64], generator: np.random.Generator) -> Tensor:
    """A copy of the labels (N,), each replaced with this probability by one of these classes, drawn uniformly."""
    flipped = generator.random(len(labels)) < share
    random = classes[generator.integers(len(classes), size=len(labels))]
    return torch.where(torch.from_numpy(flipped), torch.from_numpy(random), labels)
