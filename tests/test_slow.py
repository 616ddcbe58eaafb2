"""Published and documented results at full budget. Run by `pytest -m slow`, and by .ci/run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.headroom import AGENTS, HORIZON, STEPS, returns
from agents.problems.problem import CLASSIC, Problem
from agents.problems.recipes import recipe_for
from agents.reml.configuration import Config, problem_of
from agents.reml.training import Reml
from agents.rivals import maml, meta_sgd
from agents.runs.run import Run
from gym_reml.envs.net_build import NetBuildEnv
from gym_reml.evaluation import MetaLearner, controls, evaluate
from gym_reml.evaluation.controls import STEP_GRID, random_layer
from gym_reml.evaluation.plans import plan_learner
from gym_reml.tasks import make_family
from tests.support.omniglot_archive import REAL_DATA

pytestmark = pytest.mark.slow


def meta_train(config: Config, folder: Path) -> MetaLearner:
    return Reml(Run.create(folder, config, "x"), problem_of(config), config.algorithm).train()


def test_the_default_training_reaches_the_sinusoid_figures(tmp_path: Path) -> None:
    """One seed, so the bounds leave room for the spread between seeds."""
    learner = meta_train(Config(), tmp_path / "run")
    protocol: dict[str, Any] = {"steps": (1, 5, 10), "tasks": 1000}
    result = evaluate(learner, "sinusoid", **protocol)
    assert result.summary(1).mean < 0.32
    assert result.summary(5).mean < 0.03
    assert result.summary(10).mean < 0.03
    for control in (controls.random_layer, controls.shuffled_observation, controls.zeroed_observation):
        assert control(learner, "sinusoid", **protocol).summary(1).mean > 2 * result.summary(1).mean


def test_omniglot_characters_never_seen(tmp_path: Path) -> None:
    arguments = {"root": str(REAL_DATA)}
    if not list(REAL_DATA.glob("images_background*.zip")):
        pytest.skip("needs Omniglot archives in GYM_REML_DATA or ../shared/data/omniglot")
    config = Config(family="omniglot", family_kwargs=json.dumps(arguments))
    learner = meta_train(config, tmp_path / "run")
    result = evaluate(learner, make_family("omniglot", **arguments), shots=1, steps=(1, 5), tasks=600)
    accuracy = result.summary(5, "accuracy")
    assert accuracy.mean - accuracy.ci95 > 0.80


def after_one_step(learner: MetaLearner) -> dict[int, float]:
    """Mean squared error by shots, as MAML's and Meta-SGD's tables show it."""
    return {shots: evaluate(learner, "sinusoid", shots=shots, steps=(1,)).summary(1).mean for shots in (5, 10, 20)}


def test_maml_reproduces_the_published_row() -> None:
    """Trained at 5 shots for one step; published 1.13, .85, .71, recomputed 1.07, .78, .68."""
    family = make_family("sinusoid", shots=5)
    learner = maml.train(Problem(family, recipe_for(family), 600_000, 0), 1, CLASSIC)
    found = after_one_step(learner)
    for shots, published in {5: 1.07, 10: 0.78, 20: 0.68}.items():
        assert 0.6 * published < found[shots] < 1.3 * published


def test_meta_sgd_is_at_least_as_good_as_published() -> None:
    """Trained at 5 shots for one step."""
    family = make_family("sinusoid", shots=5)
    learner = meta_sgd.train(Problem(family, recipe_for(family), 184_000, 0), 1, CLASSIC)
    found = after_one_step(learner)
    for shots, published in {5: 0.90, 10: 0.63, 20: 0.50}.items():
        assert 0.1 * published < found[shots] < 1.1 * published


@pytest.mark.parametrize("name", ["ppo-box", "dqn-discrete"])
def test_plain_agents_close_two_thirds_of_the_gap(name: str) -> None:
    env = NetBuildEnv()
    protocol: dict[str, Any] = {"steps": STEPS, "tasks": 300}
    arguments = {"horizon": HORIZON}
    blind = max(
        returns(random_layer(plan_learner("x", env.pool, arguments, (1, 1), step), "sinusoid", **protocol)).mean()
        for step in STEP_GRID
    )
    best = returns(controls.oracle(plan_learner("x", env.pool, arguments, (), 0.0), "sinusoid", **protocol)).mean()
    env_id, train, steps = AGENTS[name]
    learner = MetaLearner(name, train(env_id, 0, steps), env.pool, {"action": name.split("-")[1]})
    reached = returns(evaluate(learner, "sinusoid", **protocol)).mean()
    assert np.isfinite([blind, best, reached]).all()
    assert reached - blind > 2 / 3 * (best - blind)
