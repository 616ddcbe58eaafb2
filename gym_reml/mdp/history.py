"""Record of the steps of running episodes, for the pool learner."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.mdp.network_training import NetworkTraining
from gym_reml.tasks.base import Batch

Rows = NDArray[np.int64]


class _Step(NamedTuple):
    """One step of one row: support and query sets of all rows, and this row's layer and step size or sizes."""

    data: tuple[Batch, Batch]
    layer: int
    step_size: NDArray[np.float32]


class History:
    """The steps taken in the current episodes of n rows, as a pool learner needs them."""

    def __init__(self, training: NetworkTraining, learner: PoolLearner, *, horizon: int) -> None:
        """Starts with no steps; finished episodes of `horizon` steps go to `learner`."""
        self._training, self._learner, self._horizon = training, learner, horizon
        self._steps: list[list[_Step]] = [[] for _ in training.clock]
        # Number of updates of the pool when each row's episode began.
        self._updates_at_start = np.zeros(len(training.clock), dtype=np.int64)

    def restart(self, rows: Rows) -> None:
        """Discards the steps of these rows, in which new episodes begin."""
        for row in rows:
            self._steps[row] = []
        self._updates_at_start[rows] = self._learner.updates

    def forget(self) -> None:
        """Discards the steps of all running episodes, which then do not reach the learner."""
        self._steps = [[] for _ in self._steps]

    def record(self, support: Batch, *, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]) -> None:
        """Records a step of all rows, with the current query sets.

        Args:
            support: what the gradients were taken on, support sets or minibatches of them.
            layers: (n,) appended layers, 0 for none.
            step_sizes: (n,) or (slots + 2, n), 0 for a refused step.
        """
        data = (support, self._training.data.query)
        for row, clock in enumerate(self._training.clock.tolist()):
            if clock <= self._horizon:
                self._steps[row].append(_Step(data, int(layers[row]), step_sizes[..., row]))

    def hand_over(self, rows: Rows) -> None:
        """Passes the episodes that end in these rows to the learner, if all their steps were recorded."""
        training, family = self._training, self._training.family
        rows = np.array([row for row in rows if len(self._steps[row]) == self._horizon], dtype=np.int64)
        if not family.fixed_data:
            # Their data were collected by networks of the pool at that time.
            current = self._updates_at_start[rows] == self._learner.updates
            self._learner.leave_out(int(np.count_nonzero(~current)))
            rows = rows[current]
        if not len(rows):
            return
        device = training.pool.device
        index = torch.from_numpy(rows).to(device)
        finished = [self._steps[row] for row in rows]

        def of_each_step(part: int) -> list[Batch]:
            return [
                Batch.concatenate([steps[t].data[part].rows(index[[i]]) for i, steps in enumerate(finished)])
                for t in range(self._horizon)
            ]

        fixed, data = family.fixed_data, training.data
        whole = fixed and training.minibatches is None
        support = [data.support.rows(index)] if whole else of_each_step(0)
        query = [data.query.rows(index)] if fixed else of_each_step(1)
        layers = torch.tensor([[step.layer for step in steps] for steps in finished], dtype=torch.int64).T
        sizes = np.stack([np.stack([step.step_size for step in steps]) for steps in finished], axis=-1)
        networks, initial_layers = training.networks, tuple(training.initial_layers)
        episodes = Episodes(
            support,
            query,
            layers.to(device),
            torch.from_numpy(sizes).to(device),
            initial_layers=initial_layers,
            slots=networks.slots,
            clip=networks.clip,
            optimizer=networks.optimizer.name,
        )
        self._learner.add(episodes)
