"""Making the pool's layers specialists before an agent starts; without it, training collapses onto one layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.options import LearningOptions
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.networks.torch_state import own_state
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks.base import Batch, TaskFamily

TEMPERATURE = 0.1
HIDDEN_SCALE = 0.5


@own_state
def greedy_competition(
    pool: LayerPool,
    family: TaskFamily,
    *,
    depth: int = 2,
    iterations: int = 2250,
    tasks: int = 12,
    steps: int = 3,
    step_size: float = 0.007,
    learning_rate: float = 2e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Lets the pool's layers compete for tasks, in place, so that each becomes good at some of them.

    Position by position, every layer is tried on each task; the exact meta-gradient reaches the layers in proportion to
    a softmax of how well they did, and the best one stays for the next position.

    Args:
        pool: changed in place. Hidden weights best start at half scale (`HIDDEN_SCALE`).
        family: where tasks come from.
        depth: positions.
        iterations: rounds of tasks.
        tasks: tasks a round.
        steps: gradient steps of a trial; the layer of position p is appended before step p.
        step_size: of these steps (a factor on the rates, where the pool has them).
        learning_rate: Adam's.
        seed: of the tasks.
        progress: called as progress(iteration, mean query loss of the winners).

    Raises:
        ValueError: no positions, or more than steps.
    """
    if not 1 <= depth <= steps:
        raise ValueError(f"depth={depth}: a trial of steps={steps} appends at least one and at most that many layers")
    learner = PoolLearner(pool, family, "maml", LearningOptions(learning_rate=learning_rate))
    streams = many_streams(seed, tasks, family.split)
    layers, device = pool.layers, pool.device
    candidates = torch.arange(1, layers + 1, device=device).repeat(tasks)
    sizes = torch.full((steps, tasks * layers), step_size, dtype=torch.float32, device=device)
    weights = torch.full((steps,), 1.0 / steps, dtype=torch.float32, device=device)
    for iteration in range(iterations):
        drawn = family.draw([stream.task for stream in streams])
        support = _repeat(family.support(drawn, _no_network, [stream.support for stream in streams]), layers, device)
        query = _repeat(family.query(drawn, _no_network, [stream.query for stream in streams]), layers, device)
        plan = torch.zeros((steps, tasks * layers), dtype=torch.int64, device=device)
        loss = float("nan")
        for position in range(depth):
            plan[position] = candidates
            competition = _Competition(tasks, layers)
            learner.minimise(Episodes([support], [query], plan.clone(), sizes, (), depth), weights, competition)
            winners = competition.losses.argmin(dim=1)
            plan[position] = (winners + 1).repeat_interleave(layers)
            loss = float(competition.losses.amin(dim=1).mean())
        if progress is not None:
            progress(iteration, loss)


class _Competition:
    """Weighs the trials of each task by softmax(-loss / (temperature x mean loss)), and keeps the losses."""

    def __init__(self, tasks: int, layers: int) -> None:
        self.shape = (tasks, layers)
        self.losses = torch.full(self.shape, torch.inf, dtype=torch.float32)

    def __call__(self, losses: Tensor) -> Tensor:
        self.losses = losses.nan_to_num(nan=torch.inf, posinf=torch.inf).reshape(self.shape)
        finite = torch.isfinite(self.losses)
        typical = self.losses.where(finite, 0.0).sum(dim=1, keepdim=True) / finite.sum(dim=1, keepdim=True).clamp_min(1)
        weights = torch.softmax(-self.losses / (TEMPERATURE * typical).clamp_min(1e-12), dim=1)
        return (weights / self.shape[0]).flatten()


def _repeat(batch: Batch, times: int, device: torch.device) -> Batch:
    """Every row `times` times in a row."""
    return batch.to(device, torch.float32).map(lambda tensor: tensor.repeat_interleave(times, dim=0))


def _no_network(inputs: Tensor) -> Tensor:
    raise ValueError("family: bootstraps need a family whose data does not depend on the network")
