"""MAML-RL, REML on policies, and those who choose the steps by other means."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import VecNormalize
from torch import Tensor

from agents.comparison import few_shot, step_rules
from agents.comparison.benchmarks import BENCHMARKS
from agents.comparison.entrants import POLICIES as ENTRANTS
from agents.comparison.jobs import Job
from agents.comparison.step_rules import HandRule, RegressionRule, rule_learner
from agents.comparison.summarise import rows_of
from agents.pools import policy_specialists
from agents.pools.outer_updates import adapted_outputs
from agents.pools.reinforcement import (
    adapt_policies,
    inner_rates,
    meta_learn_policies,
    policy_family,
    with_inner_rates,
)
from agents.problems.problem import TASKS_OF_A_PROBLEM, Problem, own_shape
from agents.problems.recipes import POLICIES, POLICY_BATCH, policy_layers, still_pool
from agents.reml.algorithms import SETTINGS, encoding_of, make_agent, settings_of
from agents.reml.designs import CAREFUL, DESIGNS
from agents.reml.training import IDS
from agents.rivals import maml, maml_rl, reptile
from gym_reml.evaluation import MetaLearner, evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.learning import replay
from gym_reml.pool import LayerPool
from gym_reml.sb3 import make_vec_env
from gym_reml.streams import many_streams
from gym_reml.tasks import make_family
from gym_reml.tasks.policies.navigation import Navigation
from tests.support.small_policies import RECIPE, family, ignore, problem

# -- learners -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_validation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.rivals.rival.POLICY_VALIDATION_TASKS", 2)
    monkeypatch.setattr("agents.pools.policy_specialists.POLICY_CLUSTERING_TASKS", POLICY_BATCH)
    monkeypatch.setattr("agents.reml.training.ROUNDS", 2)


@pytest.mark.usefixtures("small_validation")
@pytest.mark.parametrize("name", ENTRANTS)
def test_every_learner_of_policies_trains_and_is_evaluated(name: str, tmp_path: Path) -> None:
    learner = ENTRANTS[name].train(problem(), tmp_path / "training")
    assert isinstance(learner, MetaLearner)
    result = evaluate(learner, family(shots=4, queries=4), steps=(0, 2, 4), tasks=3)
    assert result.values(4, "return").shape == (3,)
    assert (result.values(4, "return") < 0.0).all()
    assert learner.pool.constant_outputs == 2
    # Log deviations depend on their bias alone, whatever was learned.
    assert learner.pool.parameters["head.matrix"].shape[1] == 2, "no weights lead to constants"
    if not name.startswith(("random", "pretrained")):
        assert [rate[:2].tolist() for rate in learner.pool.rates.values() if rate.ndim == 1] == [[0.5, 0.25]] * 3


def test_unfit_families_are_refused() -> None:
    with pytest.raises(ValueError, match="family='sinusoid': its networks are no policies"):
        policy_family(Problem(make_family("sinusoid"), RECIPE, 40, 0))


def test_the_same_seed_gives_the_same_pool_and_another_surrogate_another() -> None:
    first, second = (meta_learn_policies(problem(), 2, ignore) for _ in range(2))
    other = meta_learn_policies(problem(), 2, ignore, "first_order")
    assert all(torch.equal(first.parameters[name], second.parameters[name]) for name in first.parameters)
    assert not torch.equal(first.parameters["head.matrix"], other.parameters["head.matrix"])


def test_everyone_draws_as_many_tasks_whether_or_not_the_pool_stays_still() -> None:
    assert {POLICIES.tasks, still_pool(POLICIES).tasks} == {4_400}
    assert still_pool(POLICIES).routing_share == 1.0
    # Clusters are found on some more.
    assert policy_layers(POLICIES).tasks == 4_800


def test_the_pool_of_policies_learns_along_with_the_agent_unless_it_is_to_stay(tmp_path: Path) -> None:
    for name, moves in (("reml", True), ("reml/maml_rl_pool", False)):
        folder = tmp_path / name
        learner = ENTRANTS[name].train(problem(recipe=replace(RECIPE, total_steps=1200)), folder)
        assert isinstance(learner, MetaLearner)
        before = LayerPool.load(folder / "pool_bootstrapped.pt")
        same = [torch.equal(before.parameters[key], value) for key, value in learner.pool.parameters.items()]
        assert not any(same) if moves else all(same), name


def test_maml_rl_trains_through_as_many_updates_as_it_is_told() -> None:
    """At a learning rate of its own for the deviations if one is given."""
    recipe = replace(RECIPE, bootstrap_updates=3, bootstrap_constants_learning_rate=0.1)
    own = replace(RECIPE, bootstrap_constants_learning_rate=0.03)
    pools = {
        updates: meta_learn_policies(problem(recipe=replace(own, bootstrap_updates=updates)), 3, ignore)
        for updates in (1, 2)
    }
    for updates, expected in pools.items():
        learner = maml_rl.train(problem(recipe=recipe), updates=updates, constants_learning_rate=0.03)
        for name, tensor in expected.parameters.items():
            assert torch.equal(tensor, learner.pool.parameters[name]), (updates, name)
    assert not torch.equal(*(pool.parameters["head.matrix"] for pool in pools.values()))
    with pytest.raises(ValueError, match="--updates 0: must be at least 1"):
        maml_rl.main(maml_rl.Config(updates=0))
    with pytest.raises(ValueError, match=r"--constants-learning-rate 0\.0: must be a positive number"):
        maml_rl.main(maml_rl.Config(constants_learning_rate=0.0))


def test_reml_starts_from_the_policies_of_maml_rl(tmp_path: Path) -> None:
    """Its neutral steps on that pool are MAML-RL with as many meta-updates."""
    learner = ENTRANTS["reml"].train(problem(), tmp_path)
    assert isinstance(learner, MetaLearner)
    expected = with_inner_rates(meta_learn_policies(problem(), RECIPE.bootstrap_iterations, ignore))
    for name, tensor in expected.trainable().items():
        assert torch.equal(tensor, learner.pool.trainable()[name]), name


def test_data_that_depends_on_the_network_is_not_replayed_where_it_was_not_drawn() -> None:
    """Several steps on trajectories of the first policy are no policy gradient."""
    for train in (partial(maml.train, steps=2, shape=own_shape(RECIPE)), reptile.train):
        with pytest.raises(ValueError, match=r"episodes: 1 support sets for .* 'navigation' needs one for each"):
            train(problem())


def test_the_command_trains_on_what_it_names(capsys: pytest.CaptureFixture[str]) -> None:
    config = maml_rl.Config(family_kwargs=json.dumps({"steps": 3, "queries": 2}), shots=2, tasks=40, evaluation_tasks=2)
    maml_rl.main(config)
    shown = capsys.readouterr().out
    assert "| maml_rl " in shown
    assert all(f"{step} step" in shown for step in range(5))


# -- updates of policies --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates", [1, 2, 3])
def test_updates_are_replayed_as_they_happened(updates: int) -> None:
    """The query trajectories are those of networks so many gradient steps from the pool, each on its own trajectories.

    Steps to a lower return are refused here, and then are not replayed either.
    """
    shape = own_shape(RECIPE)
    pool = shape.fresh(problem())
    mdp = shape.process(problem(), pool, 12, horizon=1)
    object.__setattr__(mdp.family, "cap", 0.0)
    episodes = adapt_policies(mdp, inner_rates(updates))
    assert len(episodes.support) == updates
    assert [set(sizes) for sizes in episodes.step_sizes.tolist()] == [{0.0, 0.5}, {0.0, 0.25}, {0.0, 0.25}][:updates]
    (batch,) = episodes.query
    with torch.no_grad():
        lived = mdp.outputs(batch.inputs)
    torch.testing.assert_close(adapted_outputs(pool, family(), episodes), lived, rtol=1e-4, atol=1e-5)
    before = pool.parameters["head.matrix"].clone()
    replay(pool, family(), episodes)
    assert torch.equal(pool.parameters["head.matrix"], before)


def test_layers_are_chosen_by_what_is_seen_first() -> None:
    shape = replace(own_shape(RECIPE), kind="residual", depth=2)
    pool = shape.fresh(problem())
    mdp = shape.process(problem(), pool, 3, horizon=1)
    mdp.initial_layers = ()
    seen: list[Any] = []

    def choose(observations: Any) -> Any:
        seen.append(observations)
        return np.array([2, 1, 0])

    episodes = adapt_policies(mdp, (0.5, 0.25), choose)
    assert seen[0].shape == (3, mdp.observation_size)
    assert episodes.layers.tolist() == [[2, 1, 0], [0, 0, 0]]


# -- layers for kinds of tasks --------------------------------------------------------------------------------------


def test_fresh_layers_are_nearly_the_identity_and_the_others_stay() -> None:
    pool = replace(own_shape(RECIPE), kind="residual").fresh(problem())
    more = policy_specialists.with_fresh_layers(pool, 4, 0)
    assert more.layers == 4
    assert torch.equal(more.parameters["layers.matrix"][:1], pool.parameters["layers.matrix"])
    assert 0.0 < more.parameters["layers.matrix"][1:].abs().max() < 0.1 / math.sqrt(8)
    assert not torch.equal(more.parameters["layers.matrix"][1], more.parameters["layers.matrix"][2])
    assert pool.layers == 1


@pytest.mark.usefixtures("small_validation")
def test_every_cluster_trains_its_own_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(policy_layers(RECIPE), layers=4, bootstrap_iterations=3, clustered_share=0.34)
    made: list[LayerPool] = []
    fresh = policy_specialists.with_fresh_layers

    def watched(*arguments: Any) -> LayerPool:
        made.append(fresh(*arguments).clone())
        return made[0].clone()

    monkeypatch.setattr(policy_specialists, "with_fresh_layers", watched)
    pool, clusters = policy_specialists.specialise_policies(problem(recipe=recipe), ignore)
    assert len(clusters.centres) == 3
    moved = (pool.parameters["layers.matrix"] != made[0].parameters["layers.matrix"]).flatten(1).any(dim=1)
    assert moved.tolist() == [True] * 4


# -- who else could choose the steps --------------------------------------------------------------------------------


def base() -> MetaLearner:
    pool = with_inner_rates(own_shape(RECIPE).fresh(problem()))
    arguments = {"action": "box", "depth": 1, "horizon": 4, "initial_layers": [1], "min_step": 0.125, "max_step": 8.0}
    return plan_learner("base", pool, arguments, (), 0.0)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_the_hand_rule_is_its_formula(scale: float) -> None:
    """The pool's first rate, in proportion to what is missing."""
    learner = base()
    for sizes in learner.pool.rates.values():
        sizes *= scale
    rule = HandRule(learner, family())
    task = rule.setup.mdp.parts["task"].start
    observation = np.zeros((4, rule.setup.mdp.observation_size), dtype=np.float32)
    returns = np.array([-38.0, -19.0, -9.5, -1e-9])
    observation[:, task] = returns / Navigation.return_scale
    for moment, rate in ((0, 0.5), (1, 0.25), (7, 0.25)):
        factor = 8.0 ** rule.place(observation, moment)
        assert (rate * factor)[:3] == pytest.approx([0.5, 0.25, 0.125], rel=1e-5)
    actions, state = rule.predict(observation, None)
    assert state == 1
    assert actions.shape == (4, 3)
    assert actions[3, -1] == -1.0, "the smallest step there is"


def test_the_regression_finds_steps_that_follow_from_what_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the best step is a linear function of the features, that function is found."""

    def best_steps(self: RegressionRule, learner: Any, family: Any, seed: int, tasks: int) -> Any:
        moments = []
        for moment in range(4):
            generator = np.random.default_rng(seed + moment)
            observations = generator.normal(size=(60, self.setup.mdp.observation_size)).astype(np.float32)
            observations[:, self.setup.mdp.parts["task"].start] = -generator.random(60) - 0.1
            moments.append((observations, 0.3 * self._features(observations, moment)[:, 1] - 0.1))
        return moments

    monkeypatch.setattr(RegressionRule, "_best_steps", best_steps)
    monkeypatch.setattr(step_rules, "RIDGE", 1e-6)
    rule = RegressionRule(base(), family(), seed=0)
    _, (observations, best), *_ = best_steps(rule, None, None, 9, 0)
    assert rule.place(observations, 1) == pytest.approx(best, abs=1e-3)


def test_the_regression_is_shown_the_best_of_the_steps_that_it_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tried anew from the same beginning, on the same random streams."""
    monkeypatch.setattr(step_rules, "GRID", (-1.0, 0.0, 0.75))
    learner, tasks = base(), 3
    found = RegressionRule(learner, family(), seed=0, tasks=tasks)._best_steps(learner, family(), 0, tasks)
    assert len(found) == 4
    for moment, (observations, best) in enumerate(found):
        returns = []
        for place in step_rules.GRID:
            mdp = step_rules.setup_of(learner, family(), tasks).mdp
            mdp.seed(range(tasks), many_streams(TASKS_OF_A_PROBLEM - tasks, tasks, "train"))
            mdp.reset()
            for _ in range(moment):
                mdp.step(mdp.decision.decide(tasks))
            assert np.array_equal(observations, mdp.observe())
            mdp.step(mdp.decision.decide(tasks, step_size=place))
            returns.append(-mdp.query_loss)
        assert best.tolist() == [step_rules.GRID[column] for column in np.argmax(returns, axis=0)]


def test_the_regression_learns_from_training_tasks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[str] = []
    streams = step_rules.row_streams

    def watched(seed: int, split: str) -> Any:
        splits.append(split)
        return streams(seed, split)

    monkeypatch.setattr(step_rules, "row_streams", watched)
    rule = RegressionRule(base(), family(), seed=0, tasks=3)
    assert set(splits) == {"train"}
    result = evaluate(rule_learner("base/regression", base(), rule), family(), steps=(0, 4), tasks=2)
    assert result.learner == "base/regression"
    assert np.isfinite(result.values(4, "return")).all()


@pytest.mark.usefixtures("small_validation")
@pytest.mark.parametrize(
    ("learner", "controls"),
    [
        ("reml", {"neutral_steps", "hand_rule", "regression"}),
        # Its own steps are the neutral ones.
        ("maml_rl/two_updates", {"hand_rule", "regression"}),
        ("pretrained", {"hand_rule", "regression"}),
    ],
)
def test_a_job_evaluates_others_who_choose_steps_on_the_same_pool(
    learner: str, controls: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    benchmark = BENCHMARKS["navigation"]
    assert isinstance(benchmark, few_shot.FewShotBenchmark)
    small = replace(
        benchmark,
        train=lambda shots: family(),
        tested=lambda shots: {"navigation": few_shot.Test(family(shots=4, queries=4))},
    )
    monkeypatch.setitem(BENCHMARKS, "navigation", small)
    monkeypatch.setattr(few_shot, "recipe_for", lambda family: RECIPE)
    monkeypatch.setattr(step_rules, "REGRESSION_TASKS", 3)
    job = Job(tmp_path, "navigation", 4, learner, 0, 3 * POLICY_BATCH, 3)
    job.run()
    assert set(job.summary["names"]) == {learner} | {f"{learner}/{control}" for control in controls}
    rows = rows_of([job])
    assert {row["step"] for row in rows} == {0, 1, 2, 3, 4}
    assert {row["metric"] for row in rows} == {"return"}
    before = {row["learner"]: row["mean"] for row in rows if row["step"] == 0}
    assert len(set(before.values())) == 1, "the same policies on the same trajectories, before any step"
    after = {row["learner"]: row["mean"] for row in rows if row["step"] == 4}
    assert len(set(after.values())) == len(after), "not on the same ones after steps of other sizes"


# -- the agent that chooses steps -----------------------------------------------------------------------------------


def steps_agent(algorithm: str = "PPO") -> tuple[Any, VecNormalize]:
    env_id = IDS[encoding_of(algorithm, DESIGNS["steps"])]
    arguments = {key: value for key, value in RECIPE.arguments("").items() if key != "action"}
    pool = with_inner_rates(own_shape(RECIPE).fresh(problem()))
    env = VecNormalize(make_vec_env(env_id, n_envs=4, family=family(), pool=pool, **arguments), norm_reward=False)
    agent = make_agent(algorithm, env, seed=0, learning_rate=1e-3, log_folder=None, design=DESIGNS["steps"])
    return agent, env


@pytest.mark.parametrize("algorithm", ["PPO", "A2C", "TRPO", "RecurrentPPO"])
def test_an_agent_for_steps_reads_what_its_design_names_and_nothing_else(algorithm: str) -> None:
    agent, env = steps_agent(algorithm)
    assert env.action_space.shape == (3,), "two layers and a step"
    parts = env.get_attr("mdp")[0].parts
    generator = torch.Generator().manual_seed(0)
    observation = torch.randn((1, env.observation_space.shape[0]), generator=generator)  # type: ignore[index]

    def step(values: Tensor) -> float:
        return float(agent.predict(values.numpy(), deterministic=True)[0][0, -1])

    for name, place in parts.items():
        changed = observation.clone()
        changed[:, place] += 3.0
        assert (step(changed) != step(observation)) == (name in DESIGNS["steps"].parts), name


def test_an_agent_for_steps_begins_close_around_the_neutral_step() -> None:
    agent, env = steps_agent()
    env.seed(0)
    actions = np.concatenate([agent.predict(env.reset())[0][:, -1] for _ in range(50)])
    assert abs(actions.mean()) < 0.1
    assert actions.std() == pytest.approx(math.exp(CAREFUL), rel=0.2)


def test_algorithms_without_the_hybrid_policy_keep_their_own_settings() -> None:
    assert encoding_of("SAC", DESIGNS["steps"]) == "box"
    assert encoding_of("DQN", DESIGNS["steps"]) == "discrete"
    assert encoding_of("PPO", DESIGNS["layers"]) == "multidiscrete"
    assert settings_of("SAC", DESIGNS["steps"]) == SETTINGS["SAC"]
    assert settings_of("A2C", DESIGNS["steps"]) == SETTINGS["A2C"] | {"n_steps": 4, "ent_coef": 0.0}
    assert settings_of("PPO", DESIGNS["steps"]) == SETTINGS["PPO"] | dict(DESIGNS["steps"].settings)
    agent, _ = steps_agent("SAC")
    agent.learn(8)
