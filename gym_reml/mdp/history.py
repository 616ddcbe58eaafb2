"""The steps of running episodes, kept until these are finished and change the pool."""

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
    """One step of one row, for the replay: support and query sets of all rows, and what was done in this one."""

    data: tuple[Batch, Batch]
    layer: int
    step_size: float


class History:
    """What a pool learner needs of the present episodes of n rows."""

    def __init__(self, training: NetworkTraining, learner: PoolLearner, *, horizon: int) -> None:
        """Nothing has happened yet."""
        self._training, self._learner, self._horizon = training, learner, horizon
        self._steps: list[list[_Step]] = [[] for _ in training.clock]
        # How often the pool had been changed when the rows' episodes began.
        self._began = np.zeros(len(training.clock), dtype=np.int64)

    def restart(self, rows: Rows) -> None:
        """Forgets the episodes of these rows, where new ones begin."""
        for row in rows:
            self._steps[row] = []
        self._began[rows] = self._learner.updates

    def forget(self) -> None:
        """Forgets what all running episodes did: no learner will take them."""
        self._steps = [[] for _ in self._steps]

    def record(self, support: Batch, *, layers: NDArray[np.int64], step_sizes: NDArray[np.float32]) -> None:
        """Notes a step.

        Args:
            support: the sets that were descended on; the query sets are the present ones.
            layers: (n,), what was appended.
            step_sizes: (n,), 0 where the step was refused.
        """
        data = (support, self._training.data.query)
        for row, clock in enumerate(self._training.clock.tolist()):
            if clock <= self._horizon:
                self._steps[row].append(_Step(data, int(layers[row]), float(step_sizes[row])))

    def hand_over(self, rows: Rows) -> None:
        """Hands the episodes that end in these rows to the learner, those that were recorded whole."""
        training, family = self._training, self._training.family
        rows = np.array([row for row in rows if len(self._steps[row]) == self._horizon], dtype=np.int64)
        if not family.fixed_data:
            # Their data were collected by networks of the pool as it was then.
            present = self._began[rows] == self._learner.updates
            self._learner.leave_out(int(np.count_nonzero(~present)))
            rows = rows[present]
        if not len(rows):
            return
        device = training.pool.device
        index = torch.from_numpy(rows).to(device)
        finished = [self._steps[row] for row in rows]
        if family.fixed_data:
            support, query = [training.data.support.rows(index)], [training.data.query.rows(index)]
        else:
            support, query = (
                [
                    Batch.concatenate([steps[t].data[part].rows(index[[i]]) for i, steps in enumerate(finished)])
                    for t in range(self._horizon)
                ]
                for part in (0, 1)
            )
        layers = torch.tensor([[step.layer for step in steps] for steps in finished], dtype=torch.int64).T
        step_sizes = torch.tensor([[step.step_size for step in steps] for steps in finished], dtype=torch.float32).T
        slots, initial_layers = training.networks.slots, tuple(training.initial_layers)
        self._learner.add(Episodes(support, query, layers.to(device), step_sizes.to(device), initial_layers, slots))
