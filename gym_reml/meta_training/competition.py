"""Specialisation of the pool's layers before an agent is trained, which otherwise tends to use a single layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gym_reml.learning.episodes import Episodes
from gym_reml.learning.options import LearningOptions
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import CLIP
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
    clip: float | None = CLIP,
    optimizer: str = "sgd",
    learning_rate: float = 2e-3,
    seed: int = 0,
    learner: PoolLearner | None = None,
    start: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> None:
    """Trains the pool's layers, in place, in competition for tasks, so that each specialises in some of them.

    For each position in turn, every layer is tried on every task; the layers are updated by the exact meta-gradient,
    weighted by a softmax of their negative losses, and the best layer of each task is kept for the next position.

    Args:
        pool: pool to train, in place; initialise its layers at scale `HIDDEN_SCALE`.
        family: distribution of tasks.
        depth: number of positions.
        iterations: number of batches of tasks.
        tasks: number of tasks per batch.
        steps: number of gradient steps of each episode; the layer of position p is appended before step p.
        step_size: size of these steps, or a factor on the pool's rates if it has any.
        clip: norm at which the networks' gradients are clipped, None for none.
        optimizer: takes the networks' steps, a name of `gym_reml.networks.optimizers.OPTIMIZERS`.
        learning_rate: Adam's learning rate, for a learner made here.
        seed: seed of the tasks.
        learner: updates the pool by the meta-gradient; None for a new one.
        start: number of the batches that were trained on before, by a learner whose state this one has.
        progress: called as progress(iteration, mean query loss of the best layers).

    Raises:
        ValueError: `depth` below 1 or above `steps`, an unknown optimizer, or a learner of another pool.
    """
    if not 1 <= depth <= steps:
        raise ValueError(f"depth={depth}: must be from 1 to steps={steps}, as each step appends at most one layer")
    if learner is not None and learner.pool is not pool:
        raise ValueError("learner: must be of this pool")
    learner = learner or PoolLearner(pool, family, "maml", LearningOptions(learning_rate=learning_rate))
    streams = many_streams(seed, tasks, family.split)
    layers, device = pool.layers, pool.device
    candidates = torch.arange(1, layers + 1, device=device).repeat(tasks)
    step_sizes = torch.full((steps, tasks * layers), step_size, dtype=torch.float32, device=device)
    weights = torch.full((steps,), 1.0 / steps, dtype=torch.float32, device=device)
    for iteration in range(iterations):
        drawn = family.draw([stream.task for stream in streams])
        support = family.support(drawn, _no_network, [stream.support for stream in streams])
        query = family.query(drawn, _no_network, [stream.query for stream in streams])
        if iteration < start:
            continue
        support, query = _repeat(support, layers, device), _repeat(query, layers, device)
        plan = torch.zeros((steps, tasks * layers), dtype=torch.int64, device=device)
        loss = float("nan")
        for position in range(depth):
            plan[position] = candidates
            competition = _Competition(tasks, layers)
            episodes = Episodes([support], [query], plan.clone(), step_sizes, (), depth, clip, optimizer)
            learner.minimise(episodes, weights, row_weights=competition)
            winners = competition.losses.argmin(dim=1)
            plan[position] = (winners + 1).repeat_interleave(layers)
            loss = float(competition.losses.amin(dim=1).mean())
        if progress is not None:
            progress(iteration, loss)


class _Competition:
    """Weights of a task's candidate layers, softmax(-loss / (TEMPERATURE * mean loss)); `losses` keeps the losses."""

    def __init__(self, tasks: int, layers: int) -> None:
        self.shape = (tasks, layers)
        self.losses = torch.full(self.shape, torch.inf, dtype=torch.float32)

    def __call__(self, losses: Tensor) -> Tensor:
        self.losses = losses.nan_to_num(nan=torch.inf, posinf=torch.inf).reshape(self.shape)
        finite = torch.isfinite(self.losses)
        total = self.losses.where(finite, 0.0).sum(dim=1, keepdim=True)
        mean_loss = total / finite.sum(dim=1, keepdim=True).clamp_min(1)
        weights = torch.softmax(-self.losses / (TEMPERATURE * mean_loss).clamp_min(1e-12), dim=1)
        return (weights / self.shape[0]).flatten()


def _repeat(batch: Batch, times: int, device: torch.device) -> Batch:
    """The batch with every row repeated `times` times, copies of a row being adjacent."""
    return batch.to(device, torch.float32).map(lambda tensor: tensor.repeat_interleave(times, dim=0))


def _no_network(inputs: Tensor) -> Tensor:
    raise ValueError("family: greedy_competition needs a family whose data do not depend on the network")
