"""A supervised router, in the manner of mixtures of experts: `python -m agents.rivals.router`.

What REML's agent learns from rewards, a network learns here by gradient descent: which layers to build a task's network
from. It sees what the agent sees, but its labels are the scores of all compositions. The comparison shows whether
reinforcement learning is needed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from gym_reml.evaluation import MetaLearner
from gym_reml.learning import PoolLearner, replay
from gym_reml.mdp import TrainingMDP
from gym_reml.meta_training.outer_loop import cosine_schedule
from gym_reml.networks.torch_state import own_state
from gym_reml.spaces import layer_and_step, make_encoding

from ..pools.bootstraps import bootstrap, learning_options, recipe_process
from ..problems.problem import TASKS_OF_A_PROBLEM, Problem
from ..problems.recipes import META_BATCH
from ..runs.command_line import run_command
from .rival import RivalConfig

LABELLED_SHARE = 0.04
LABEL_BATCH = 16
EPOCHS = 60


@dataclass(frozen=True)
class Config(RivalConfig):
    """A pool of specialists like REML's, and a network trained by gradient descent to choose among them."""


class Router(nn.Module):
    """From first observations to a preference for every composition; a policy too, which builds the preferred one."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int, compositions: NDArray[np.int64], layers: int) -> None:
        """Chooses among compositions (C, free) of pool layers."""
        super().__init__()
        self.compositions, self.encoding = compositions, make_encoding("box", layer_and_step(layers))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))
        widths = (size, 128, 128, len(compositions))
        first, second, third = (nn.Linear(*pair) for pair in pairwise(widths))
        self.body = nn.Sequential(first, nn.Tanh(), second, nn.Tanh(), third)

    def forward(self, observations: Tensor) -> Tensor:
        """Logits of the compositions, (n, C)."""
        result: Tensor = self.body(((observations - self.mean) / self.deviation).clamp(-10.0, 10.0))
        return result

    def choose(self, observations: NDArray[np.float32]) -> NDArray[np.int64]:
        """The preferred composition for each observation, (free, n)."""
        with torch.no_grad():
            best = self(torch.from_numpy(observations)).argmax(dim=1).numpy()
        return self.compositions[best].T

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The next layer of the compositions chosen at first, with the neutral step."""
        chosen, moment = (self.choose(observation), 0) if state is None else state
        count = len(observation)
        layers = chosen[moment] if moment < len(chosen) else np.zeros(count, dtype=np.int64)
        return self.encoding.encode(self.encoding.decision.decide(count, layer=layers)), (chosen, moment + 1)


@own_state
def train(problem: Problem) -> MetaLearner:
    """Bootstrap, routing on the frozen pool, the pool on what the router picks, routing once more on the result."""
    recipe, family = problem.recipe, problem.training_family
    pool, _ = bootstrap(problem)
    if not pool.rates:
        pool = pool.with_rates("scalar", 0.01)
    initial, steps = recipe.initial_layers, recipe.horizon
    free = recipe.depth - len(initial)
    compositions = np.array(list(product(range(len(initial) + 1, pool.layers + 1), repeat=free)))
    labelled = max(2 * LABEL_BATCH, round(LABELLED_SHARE * problem.tasks))
    remaining = problem.tasks - recipe.bootstrap_tasks - 2 * labelled
    mdp = recipe_process(problem, pool, skipped=TASKS_OF_A_PROBLEM // 2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(problem.seed)
        router = Router(mdp.observation_size, compositions, pool.layers).float()
    fit_router(router, mdp, labelled, problem.seed)
    options = learning_options(recipe, recipe.pool_learning_rate, problem.seed)
    learner = PoolLearner(pool, family, "maml", options)
    iterations = max(1, remaining // META_BATCH)
    sizes = torch.ones((steps, META_BATCH), dtype=torch.float32)
    for iteration in tqdm(range(iterations), desc="router: pool", unit="update", disable=None):
        learner.scale_rates(cosine_schedule(iteration / iterations))
        mdp.reset()
        layers = torch.zeros((steps, META_BATCH), dtype=torch.int64)
        layers[:free] = torch.from_numpy(router.choose(mdp.observe()))
        learner.update(mdp.episodes(layers, sizes))
    fit_router(router, mdp, labelled, problem.seed)
    return MetaLearner("router", router, pool, recipe.arguments("box"))


@torch.enable_grad()
def fit_router(router: Router, mdp: TrainingMDP, tasks: int, seed: int) -> None:
    """Fits the router to how every composition does on so many tasks: least expected score over the horizon.

    The expectation over compositions is exact, so this is what policy gradients estimate from one sample a task.
    """
    observations, scores = label(router.compositions, mdp, tasks)
    centred = scores - scores.mean(dim=1, keepdim=True)
    router.mean.copy_(observations.mean(dim=0))
    router.deviation.copy_(observations.std(dim=0) + 1e-3)
    optimizer = torch.optim.Adam(router.parameters(), lr=1e-3, weight_decay=1e-5)
    generator = torch.Generator().manual_seed(seed)
    for epoch in tqdm(range(EPOCHS), desc="router: routing", unit="epoch", disable=None):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * cosine_schedule(epoch / EPOCHS)
        for index in torch.randperm(len(scores), generator=generator).split(128):
            choice = torch.softmax(router(observations[index]), dim=1)
            loss = (choice * centred[index]).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


@torch.no_grad()
def label(compositions: NDArray[np.int64], mdp: TrainingMDP, tasks: int) -> tuple[Tensor, Tensor]:
    """First observations (n, size) and every composition's mean score over the horizon (n, C) of `tasks` tasks."""
    count, steps = len(compositions), mdp.objective.horizon
    free = compositions.shape[1]
    observations, scores = [], []
    for _ in tqdm(range(-(-tasks // mdp.count)), desc="router: labels", unit="batch", disable=None):
        mdp.reset()
        observations.append(torch.from_numpy(mdp.observe()))
        for index in torch.arange(mdp.count).split(LABEL_BATCH):
            layers = torch.zeros((steps, len(index) * count), dtype=torch.int64)
            layers[:free] = torch.from_numpy(compositions).T.repeat(1, len(index))
            support, query = (
                batch.map(lambda tensor, index=index: tensor[index].repeat_interleave(count, dim=0))  # type: ignore[misc]
                for batch in (mdp.support, mdp.query)
            )
            sizes = torch.ones(layers.shape, dtype=torch.float32)
            trial = replace(mdp.episodes(layers, sizes), support=[support], query=[query])
            losses = replay(mdp.pool, mdp.family, trial)[0].nan_to_num(nan=mdp.family.cap).clamp_max(mdp.family.cap)
            scores.append(mdp.family.score(losses).mean(dim=0).reshape(len(index), count).cpu())
    return torch.cat(observations), torch.cat(scores)


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)
