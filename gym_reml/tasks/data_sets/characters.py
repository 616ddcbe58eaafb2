"""Few-shot tasks of handwritten characters (Omniglot) as data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from gym_reml.checks import check_integer
from gym_reml.streams import check_split
from gym_reml.tasks.data_sets.base import DataSet, DataSets, Examples, Task
from gym_reml.tasks.images.archives import SIDE
from gym_reml.tasks.images.omniglot import Omniglot


@dataclass(frozen=True)
class FewCharacters(DataSets):
    """A few drawings of each of several random characters of Omniglot; see `gym_reml.tasks.images.omniglot`.

    Tasks of different splits share no character, and the parts of a data set no drawing.

    Attributes:
        split: of the tasks: "train", "validation" or "test".
        ways: number of characters.
        shots: drawings of each in the training part.
        held_out: drawings of each in the validation part, and in the test part.
        side: images are shrunk to this height and width by averaging.
        batch_size: of minibatches; the default is all drawings of the default task.
        root, download, whole, split_by, rotations: see `Omniglot`.

    Raises:
        FileNotFoundError: there are no archives.
        ValueError: an argument is out of range.
    """

    name = "omniglot"

    split: str = "train"
    ways: int = 5
    shots: int = 5
    held_out: int = 7
    side: int = 14
    batch_size: int = 25
    root: str | None = None
    download: bool = False
    whole: bool = False
    split_by: str = "character"
    rotations: bool = False

    def __post_init__(self) -> None:
        check_split(self.split)
        for argument in ("held_out", "side", "batch_size"):
            check_integer(argument, getattr(self, argument))
        _ = self.family  # checks the rest

    @cached_property
    def family(self) -> Omniglot:
        """The few-shot family; queries are the validation and the test part."""
        return Omniglot(
            shots=self.shots,
            queries=2 * self.held_out * self.ways,
            ways=self.ways,
            split=self.split,
            root=self.root,
            download=self.download,
            whole=self.whole,
            split_by=self.split_by,
            rotations=self.rotations,
        )

    def draw(self, generator: np.random.Generator) -> Task:
        parameters = self.family.task_parameters(self.family.draw([generator]))
        return {name: values[0] for name, values in parameters.items()}

    def check(self, task: Mapping[str, NDArray[Any]]) -> None:
        self.family.check_parameters(dict(task))

    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        drawn = self.family.draw_given({name: np.asarray(values)[None] for name, values in task.items()}, [generator])
        train = self._examples(drawn, drawn["support"], generator)
        validation = self._examples(drawn, drawn["query"][:, :, : self.held_out], generator)
        test = self._examples(drawn, drawn["query"][:, :, self.held_out :], generator)
        return DataSet(train, validation, test, self.batch_size, self.ways)

    def _examples(
        self, drawn: dict[str, NDArray[Any]], numbers: NDArray[np.int64], generator: np.random.Generator
    ) -> Examples:
        images = torch.from_numpy(self.family.pick(drawn, numbers, [generator])[0]).float()[:, None] / 255.0
        if self.side < SIDE:
            images = functional.adaptive_avg_pool2d(images, self.side)
        return Examples(images, torch.arange(self.ways, device="cpu").repeat_interleave(numbers.shape[2]))
