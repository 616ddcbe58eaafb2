"""Structure search in the manner of BounceGrad and MoMA (Alet et al. 2018): `python -m agents.rivals.bouncegrad`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from gym_reml.evaluation import MetaLearner
from gym_reml.learning import Episodes, LearningOptions, PoolLearner, replay
from gym_reml.mdp import TrainingMDP
from gym_reml.meta_training.outer_loop import cosine_schedule
from gym_reml.networks.torch_state import own_state
from gym_reml.pool import LayerPool
from gym_reml.spaces import layer_and_step, make_encoding
from gym_reml.tasks.base import Batch, TaskFamily

from ..pools.bootstraps import fresh_pool, recipe_process
from ..problems.problem import Problem
from ..problems.recipes import META_BATCH
from ..runs.command_line import run_command
from .rival import RivalConfig

TRAINING_PROPOSALS, TEST_PROPOSALS = 4, 40
FIRST_TEMPERATURE = 0.5


@dataclass(frozen=True)
class Config(RivalConfig):
    """A pool of layers; which of them make a task's network is found by simulated annealing on the support loss."""


class Annealing:
    """A policy that searches a structure for each task when its episode begins, and builds it step by step.

    A structure is judged by the support loss of the network, relative to that of the present one, after as many
    gradient steps as it has layers to append.
    """

    def __init__(self, layers: int, candidates: NDArray[np.int64], free: int, seed: int) -> None:
        """Structures of `free` layers, each one of the `candidates` of a pool of so many layers."""
        self.encoding = make_encoding("box", layer_and_step(layers))
        self.candidates, self.free, self.seed = candidates, free, seed
        self.structures = np.zeros((free, 0), dtype=np.int64)

    def prepare(self, mdp: TrainingMDP) -> None:
        """Finds a structure for every row, by the support sets alone."""
        size = float(mdp.step_sizes(np.zeros(1, dtype=np.float32))[0])
        generator = np.random.default_rng(self.seed)
        self.structures = self.search(
            mdp.pool,
            mdp.family,
            support=mdp.support,
            initial_layers=mdp.initial_layers,
            step_size=size,
            clip=mdp.clip,
            optimizer=mdp.optimizer,
            proposals=TEST_PROPOSALS,
            generator=generator,
        )

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        """The next layer of every row's structure, with the neutral step."""
        moment = 0 if state is None else state
        count = len(observation)
        layers = self.structures[moment] if moment < self.free else np.zeros(count, dtype=np.int64)
        return self.encoding.encode(self.encoding.decision.decide(count, layer=layers)), moment + 1

    def search(
        self,
        pool: LayerPool,
        family: TaskFamily,
        *,
        support: Batch,
        initial_layers: tuple[int, ...],
        step_size: float,
        clip: float | None,
        optimizer: str,
        proposals: int,
        generator: np.random.Generator,
        temperature: float = FIRST_TEMPERATURE,
    ) -> NDArray[np.int64]:
        """The best structures that simulated annealing visits, (free, n) pool layers.

        Args:
            pool, family: of the networks.
            support: the support sets of n tasks.
            initial_layers: pool numbers of the layers present at step 0.
            step_size: of all gradient steps.
            clip: norm at which gradients are clipped, None for none.
            optimizer: takes the gradient steps.
            proposals: number of changes that are tried.
            generator: the only source of randomness.
            temperature: at the start, where structures are random; it decreases linearly to zero.
        """
        count = len(support.inputs)
        sizes = torch.full((self.free, count), step_size, dtype=torch.float32, device=pool.device)
        judged = [False] * (self.free - 1) + [True]

        def losses(structures: NDArray[np.int64]) -> NDArray[np.float64]:
            layers, slots = torch.from_numpy(structures).to(pool.device), self.free + len(initial_layers)
            trial = Episodes([support], [support], layers, sizes, initial_layers, slots, clip, optimizer)
            found: Tensor = replay(pool, family, trial, judged=judged)[0][-1]
            return np.nan_to_num(found.cpu().numpy().astype(np.float64), nan=np.inf)

        with torch.no_grad():
            present = generator.choice(self.candidates, (self.free, count))
            loss = losses(present)
            best, least = present, loss
            for proposal in range(proposals):
                changed = present.copy()
                changed[generator.integers(self.free, size=count), np.arange(count)] = generator.choice(
                    self.candidates, count
                )
                found = losses(changed)
                heat = temperature * (1.0 - (proposal + 1) / proposals)
                worse = (found - loss) / np.maximum(loss, 1e-6)
                accepted = worse <= -heat * np.log(np.maximum(generator.random(count), 1e-12))
                present, loss = np.where(accepted, changed, present), np.where(accepted, found, loss)
                best, least = np.where(loss < least, present, best), np.minimum(loss, least)
        return best


@own_state
def train(problem: Problem) -> MetaLearner:
    """The pool learns by the meta-gradient through structures found with few proposals, from hot to cold."""
    problem = problem.plain
    recipe, family = problem.recipe, problem.training_family
    steps, initial = recipe.horizon, recipe.initial_layers
    pool = fresh_pool(problem).with_rates("scalar", 0.01 if problem.functions else 0.4)
    candidates = np.arange(len(initial) + 1, recipe.layers + 1)
    policy = Annealing(recipe.layers, candidates, recipe.depth - len(initial), problem.seed)
    mdp = recipe_process(problem, pool)
    weights = recipe.step_weights
    learner = PoolLearner(pool, family, "maml", LearningOptions(learning_rate=3e-3, step_weights=weights))
    generator = np.random.default_rng(problem.seed)
    iterations = max(1, problem.tasks // META_BATCH)
    sizes = torch.ones((steps, META_BATCH), dtype=torch.float32)
    for iteration in tqdm(range(iterations), desc="bouncegrad", unit="update", disable=None):
        share = cosine_schedule(iteration / iterations)
        learner.scale_rates(share)
        mdp.reset()
        layers = torch.zeros((steps, META_BATCH), dtype=torch.int64)
        found = policy.search(
            pool,
            family,
            support=mdp.support,
            initial_layers=initial,
            step_size=1.0,
            clip=mdp.clip,
            optimizer=mdp.optimizer,
            proposals=TRAINING_PROPOSALS,
            generator=generator,
            temperature=FIRST_TEMPERATURE * share,
        )
        layers[: policy.free] = torch.from_numpy(found)
        learner.update(mdp.episodes(layers, sizes))
    return MetaLearner("bouncegrad", policy, pool, recipe.arguments("box"))


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(train)


if __name__ == "__main__":
    run_command(main, Config)
