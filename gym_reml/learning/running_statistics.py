"""Running batch statistics for each step (BNRS of MAML++, Antoniou et al. 2019, arXiv:1810.09502)."""

from __future__ import annotations

import torch
from torch import Tensor

from gym_reml.networks.architecture import Trace
from gym_reml.networks.dense import DenseTrace, dense
from gym_reml.networks.weights import Weights
from gym_reml.pool.layer_pool import LayerPool

MOMENTUM = 0.1
"""Weight of the new statistics in each update."""


class ReplayStatistics:
    """Means and variances of the pre-activations in the support passes of one replay, by step and layer."""

    def __init__(self, pool: LayerPool) -> None:
        self._architecture, self._running = dense(pool.kind), pool.statistics
        self._sums = {name: torch.zeros_like(running) for name, running in pool.statistics.items()}
        # (T,) and (T, L): numbers of episodes, and of uses of the layer in any slot.
        self._counts = {name: running.new_zeros(running.shape[:-2]) for name, running in pool.statistics.items()}

    @torch.no_grad()
    def __call__(self, step: int, weights: Weights, trace: Trace, layers: Tensor) -> None:
        """Adds the pass over the support sets at `step`; the argument `watch` of `learning.replay`."""
        step = min(step, len(self._sums["stem"]) - 1)
        for position in range(len(weights.positions) - 1):
            used = layers[position - 1] > 0 if position else torch.ones_like(layers[0], dtype=torch.bool)
            if not used.any():
                continue
            assert isinstance(trace, DenseTrace)  # only dense kinds have statistics
            z = self._architecture.pre_activations(weights, trace, position=position, rows=used)
            variance, mean = torch.var_mean(z, dim=1, correction=0)
            moments = torch.stack([mean, variance], dim=1)
            if position:
                index = layers[position - 1][used] - 1
                self._sums["layers"][step].index_add_(0, index, moments)
                self._counts["layers"][step].index_add_(0, index, torch.ones_like(moments[:, 0, 0]))
            else:
                self._sums["stem"][step] += moments.sum(dim=0)
                self._counts["stem"][step] += len(moments)

    @torch.no_grad()
    def update_pool(self) -> None:
        """Updates the pool's running statistics with momentum MOMENTUM; those of unused layers do not change."""
        for name, running in self._running.items():
            count = self._counts[name][..., None, None]
            mean = self._sums[name] / count.clamp_min(1.0)
            running.copy_(torch.where(count > 0, running.lerp(mean, MOMENTUM), running))
