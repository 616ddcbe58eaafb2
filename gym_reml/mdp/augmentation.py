"""The process of augmentation: an agent builds a policy of image operations, by which a network is then trained."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import is_integer, is_number
from gym_reml.decisions.augmentations import NAMES, AugmentationPolicy, PolicyTable, Step, check_images
from gym_reml.mdp.child_training import Criterion, Progress, criterion_for
from gym_reml.mdp.runs import Axis, MakeNetwork, RunProcess
from gym_reml.spaces.decision import Decided, Decision
from gym_reml.tasks.data_sets.base import DataSet, DataSets

REWARDS = ("final", "area")
STEPS = 2
"""Operations of a sub-policy."""
CURVE = 10
"""Points of the learning curve whose mean is the area under it."""


class AugmentProcess(RunProcess):
    """n policies in the making, side by side, and n networks that are trained by them.

    Each decision is one more operation of the policy; two in a row are a sub-policy. The last one is followed by the
    whole training of the row's network, and all reward (Cubuk et al. 2019, arXiv:1805.09501).

    Attributes:
        step_size: of all updates.
    """

    title = "Augmentation"
    words: ClassVar[dict[str, tuple[str, ...]]] = {"operation": NAMES}

    def __init__(
        self,
        count: int,
        data_sets: DataSets,
        *,
        reward: str,
        module: MakeNetwork | None,
        optimizer: str,
        step_size: float,
        horizon: int,
        updates: int,
        device: torch.device,
    ) -> None:
        """Creates the runs; see `RunProcess`.

        Raises:
            ValueError: an invalid value; the message names the argument of the environment.
        """
        if reward not in REWARDS:
            raise ValueError(f"reward={reward!r}: must be one of {', '.join(map(repr, REWARDS))}")
        if not is_number(step_size) or not 0 < step_size < math.inf:
            raise ValueError(f"step_size={step_size!r}: must be a positive number")
        self.step_size, self._pieces = float(step_size), CURVE if reward == "area" else 1

        def criterion(data: DataSet) -> Criterion:
            _check_parts(data)
            return criterion_for(data)

        super().__init__(
            count,
            data_sets,
            module=module,
            optimizer=optimizer,
            criterion=criterion,
            horizon=horizon,
            updates=updates,
            device=device,
        )
        decision = Decision((len(NAMES),), 2, names=("operation", "probability", "magnitude"))
        axes = {"operation": Axis(0.0, len(NAMES) - 1.0), "probability": Axis(0.0, 1.0), "magnitude": Axis(0.0, 1.0)}
        self._lay_out(decision, axes, {"policy": horizon * decision.size, "place": horizon})
        self._written = np.zeros((count, horizon, decision.size), dtype=np.float32)
        self._areas = np.zeros(count)
        self._noise: list[np.random.Generator] = [np.random.default_rng(0)] * count
        # Of rows that were trained by policies that were given, these.
        self._given: dict[int, AugmentationPolicy] = {}

    def policy(self, row: int = 0) -> AugmentationPolicy:
        """What was decided in this row so far, or the policy that `train_with` was given for it.

        Raises:
            ValueError: `row` is out of range.
        """
        if not is_integer(row) or not 0 <= row < self.count:
            raise ValueError(f"row={row!r}: must be an integer from 0 to {self.count - 1}")
        if int(row) in self._given:
            return self._given[int(row)]
        return self._decided(int(row), int(self.clock[row]))

    def _decided(self, row: int, steps: int) -> AugmentationPolicy:
        """The policy of the first decisions of an episode."""
        written = self._written[row, :steps]
        operations = written[:, : len(NAMES)].argmax(axis=1)
        numbers = (written[:, len(NAMES) :].astype(np.float64) + 1.0) / 2.0
        taken = [Step(NAMES[one], *map(float, shares)) for one, shares in zip(operations, numbers, strict=True)]
        return AugmentationPolicy(tuple(tuple(taken[first : first + STEPS]) for first in range(0, len(taken), STEPS)))

    def train_with(self, policies: Sequence[AugmentationPolicy]) -> dict[str, Any]:
        """Trains every row's new network by a given policy, of any length, in place of the decisions of an episode.

        Args:
            policies: n of them, one for each row; call `reset` before.

        Returns:
            The info after the end of the episodes.

        Raises:
            ValueError: not as many policies as rows, or rows in which an episode has begun.
        """
        if len(policies) != self.count:
            raise ValueError(f"policies: are {len(policies)}, must be {self.count}, one for each row")
        if not self.tasks or self.clock.any():
            raise ValueError("policies: episodes have begun; reset all rows first")
        self._record(self._train_by(policies, np.arange(self.count)), np.arange(self.count))
        self.clock[:] = self.horizon
        self._given = dict(enumerate(policies))
        return self._info()

    def _begin(self, row: int, data: DataSet) -> None:
        _check_parts(data)
        # A generator of its own, so that what the row draws next does not depend on how long this run is.
        self._noise[row] = np.random.default_rng(self.streams[row].batches.integers(2**63))

    def _start(self, rows: NDArray[np.int64]) -> None:
        self._written[rows] = 0.0
        for row in rows.tolist():
            self._given.pop(row, None)
        for values in self.values.values():
            values[rows] = 0.0

    def _ready(self) -> NDArray[np.int64]:
        return np.flatnonzero(self.clock == self.horizon - 1)

    def _train(self, decided: Decided) -> Progress:
        writing = np.flatnonzero(self.clock < self.horizon)
        flat = np.zeros((self.count, self.decision.size), dtype=np.float32)
        self.decision.flatten(decided, flat)
        self._written[writing, self.clock[writing]] = flat[writing]
        columns = decided.choices[:, 0], *((decided.numbers.T + 1.0) / 2.0)
        for name, column in zip(self.decision.names, columns, strict=True):
            self.values[name][writing] = column[writing]
        rows = self._ready()
        return self._train_by([self._decided(row, self.horizon) for row in rows.tolist()], rows)

    def _train_by(self, policies: Sequence[AugmentationPolicy], rows: NDArray[np.int64]) -> Progress:
        """Trains the networks of these rows by these policies."""
        places = {row: place for place, row in enumerate(rows.tolist())}
        table = PolicyTable.of(policies)
        # As many random numbers as a row's own policy takes, whatever those of others are.
        draws = [policy.draws for policy in policies]

        def augmentation(images: Tensor, of: list[int]) -> Tensor:
            noise = np.zeros((len(of), images.shape[1], table.draws), dtype=np.float32)
            for turn, row in enumerate(of):
                own = draws[places[row]]
                noise[turn, :, :own] = self._noise[row].random((images.shape[1], own), dtype=np.float32)
            return table.rows([places[row] for row in of]).apply(images, torch.from_numpy(noise).to(images.device))

        pieces = self._pieces if len(rows) else 1
        ends = np.unique(np.linspace(0, self.updates, pieces + 1).round().astype(int))
        step_sizes = np.full(self.count, self.step_size)
        losses, metrics, areas = np.zeros((3, self.count))
        for updates in np.diff(ends).tolist():
            progress = self.children.update(
                updates,
                step_sizes,
                augmentation=augmentation,
                rows=rows.tolist() if len(rows) < self.count else None,
                by_groups=False,
            )
            losses += progress.loss * updates / self.updates
            metrics += progress.metric * updates / self.updates
            if pieces > 1:
                areas += self.children.measure("validation")[1] / (len(ends) - 1)
        self._areas[rows] = areas[rows]
        progress.loss, progress.metric = losses, metrics
        return progress

    def _remember(self, progress: Progress, rows: NDArray[np.int64] | slice) -> None:
        pass

    def _observe_own(self, flat: NDArray[np.float64]) -> None:
        flat[:, self.parts["policy"]] = self._written.reshape(self.count, -1)
        flat[:, self.parts["place"]] = np.arange(self.horizon) == self.clock[:, None]

    def _reward(self, gain: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._areas if self._pieces > 1 else self._metrics[1, :, 0]


def _check_parts(data: DataSet) -> None:
    """Raises a ValueError unless the inputs of all parts are images in [0, 1]."""
    for name, part in data.parts.items():
        check_images(name, part.inputs)
