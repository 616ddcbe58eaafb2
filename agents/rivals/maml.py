"""MAML with the exact meta-gradient (Finn et al. 2017): `python -m agents.rivals.maml`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy

from gym_reml.evaluation import MetaLearner
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.spaces import make_encoding

from ..pools.bootstraps import fresh_pool
from ..problems.problem import NetworkShape, Problem, own_shape, usual_shape
from ..problems.recipes import Rates
from ..reml.algorithms import WIDE
from ..runs.command_line import default_is, run_command
from .meta_gradient import MetaGradientConfig, Settings, learner_of

STEP_BINS = 13


@dataclass(frozen=True)
class Config(MetaGradientConfig):
    """MAML: initial weights from which a few gradient steps reach far.

    Trained for one step the inner rate is fixed at .01, as published; for more, one learned number.
    """

    rates: Annotated[Rates | None, default_is("as the family needs")] = None
    """granularity of the learned step sizes"""
    shape: Literal["usual", "own"] = "usual"
    """the literature's network (1-40-40-1 for functions), or one as large as REML's without learned rates"""

    def learner(self, problem: Problem) -> MetaLearner:
        """What this command trains."""
        settings = self.changed(settings_for(problem, self.steps))
        if self.rates is not None:
            settings = replace(settings, rates=None if self.rates == "none" else self.rates)
        shape = usual_shape(problem) if self.shape == "usual" else own_shape(problem.plain.recipe)
        return learner_of(problem, shape, settings, f"maml_{self.steps}")


def train(problem: Problem, steps: int, shape: NetworkShape) -> MetaLearner:
    """Initial weights by equation 1 of the paper, the loss after the last step alone counting."""
    return learner_of(problem, shape, settings_for(problem, steps), f"maml_{steps}")


def settings_for(problem: Problem, steps: int) -> Settings:
    """A fixed or one learned rate for functions; for images, under layer norm, one a layer and step."""
    if steps < 1:
        raise ValueError(f"--steps {steps}: must be at least 1")
    if problem.functions:
        return Settings(steps, rates=None if steps == 1 else "scalar")
    return Settings(steps, rates="step", rate=0.4, learning_rate=problem.recipe.bootstrap_learning_rate)


def matched_shape(problem: Problem) -> NetworkShape:
    """Networks as deep as REML's and so wide that they have as many parameters as its pool and policy together.

    REML's without learned rates, where there is such a one.
    """
    problem = problem.plain
    recipe, family = problem.recipe, problem.family
    pool = fresh_pool(problem)
    if recipe.rates is not None:
        pool = pool.with_rates(recipe.rates, recipe.initial_rate, steps=recipe.horizon, slots=recipe.depth)
    process = TrainingMDP(1, family, pool, Objective(recipe.horizon), slots=recipe.depth)
    # SB3 draws initial weights from the global generator.
    with torch.random.fork_rng(devices=[]):
        policy = ActorCriticPolicy(
            spaces.Box(-1.0, 1.0, (process.observation_size,)),
            make_encoding("multidiscrete", process.decision, step_bins=STEP_BINS).space,
            lambda _: 0.0,
            **WIDE["policy_kwargs"],
        )
    wanted = sum(tensor.numel() for tensor in (*pool.trainable().values(), *policy.parameters()))
    shape = own_shape(recipe)
    while sum(tensor.numel() for tensor in shape.fresh(problem).parameters.values()) < wanted:
        shape = replace(shape, width=shape.width + 1)
    return shape


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(config.learner)


if __name__ == "__main__":
    run_command(main, Config)
