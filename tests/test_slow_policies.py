"""Documented results for networks that are policies. Run as `test_slow.py` is."""

from pathlib import Path

import pytest

from agents.problems.problem import Problem
from agents.problems.recipes import POLICY_BATCH, recipe_for
from agents.reml.configuration import Config, problem_of
from agents.reml.training import Reml
from agents.rivals import maml_rl
from agents.runs.run import Run
from gym_reml.evaluation import evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.tasks import make_family

pytestmark = pytest.mark.slow


def test_one_policy_gradient_step_from_maml_rls_weights_suffices() -> None:
    """From about -40 to the -12 of the literature, after a fifth of the recipe's meta-updates."""
    family = make_family("navigation", shots=20, queries=20)
    recipe = recipe_for(family)
    learner = maml_rl.train(Problem(family, recipe, 50 * POLICY_BATCH, seed=0))
    result = evaluate(learner, family.replace(shots=40, queries=40), steps=(0, 1), tasks=60)
    assert result.values(0, "return").mean() < -30.0
    assert result.values(1, "return").mean() > -14.0


def test_an_agent_that_chooses_the_steps_of_policies_beats_fixed_ones(tmp_path: Path) -> None:
    """With the recipe's budget, which takes about ten minutes, on the same pool and tasks."""
    config = Config(family="navigation")
    learner = Reml(Run.create(tmp_path / "run", config, "x"), problem_of(config)).train()
    still = plan_learner("x", learner.pool, learner.arguments, (), 0.0)
    family = make_family("navigation", shots=40, queries=40)
    agent, fixed = (evaluate(each, family, steps=(0, 1, 2), tasks=100) for each in (learner, still))
    assert (agent.values(0, "return") == fixed.values(0, "return")).all()
    assert agent.values(1, "return").mean() > fixed.values(1, "return").mean() + 3.0
    assert agent.values(2, "return").mean() > -7.0
