"""Optimizers, minibatches and step sizes of each position in every encoding, in single and vector environments."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import gym_reml
from gym_reml.evaluation import controls, evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.tasks import make_family
from tests.support.env_helpers import SMALL, assert_same, play_vector, sample_actions, tiny_pool
from tests.support.vectors import COUNT, assert_outcomes_agree, singles

TINY = SMALL | {"horizon": 3}
OTHERS: dict[str, list[Any]] = {
    "optimizer": [name for name in OPTIMIZERS if name != "sgd"],
    "batch_size": [2],
    "step_sizes": ["layer"],
}
ARGUMENTS = [{name: value} for name, values in OTHERS.items() for value in values]
every_argument = pytest.mark.parametrize("arguments", ARGUMENTS, ids=lambda given: ",".join(map(str, given.values())))
every_id = pytest.mark.parametrize("env_id", gym_reml.ENVIRONMENTS)


@every_argument
@every_id
def test_rows_are_single_environments(env_id: str, arguments: dict[str, Any]) -> None:
    """Through two episodes, and rows that are reset on their own."""
    arguments = TINY | {"step_bins": 5} | arguments
    envs: Any = gym.make_vec(env_id, num_envs=COUNT, **arguments)
    others = singles(env_id, **arguments)
    actions = sample_actions(envs.action_space, 9)
    for ours, theirs in zip(play_vector(envs, actions, seed=3), play_vector(others, actions, seed=3), strict=True):
        assert_outcomes_agree(ours, theirs)


@every_argument
def test_it_matters(arguments: dict[str, Any]) -> None:
    """From the second step on, at the latest."""
    outcomes = []
    for given in (arguments, {}):
        envs: Any = gym.make_vec("NetBuildHybrid-v0", num_envs=COUNT, **TINY, **given)
        decision = envs.unwrapped.decision
        frozen = {"step_size_stem": -1.0} if "step_size_stem" in decision.names else {}
        actions = envs.unwrapped.action_encoding.encode(decision.decide(COUNT, layer=1, **frozen))
        outcomes.append(play_vector(envs, [actions] * 2, seed=0)[-1][-1]["support_loss"])
    assert (outcomes[0] != outcomes[1]).all()


@every_argument
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_copies_go_on_alike(arguments: dict[str, Any], copied: Any) -> None:
    """In the middle of an episode."""
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=COUNT, **TINY, **arguments)
    actions = sample_actions(envs.action_space, 7)
    play_vector(envs, actions[:2], seed=0)
    twin = copied(envs)
    assert_same(play_vector(envs, actions[2:], reset=False), play_vector(twin, actions[2:], reset=False))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_refused_steps_leave_no_trace(optimizer: str) -> None:
    """Later steps are as if there had been no such step, for the optimizer too."""
    trails = []
    for sizes in ((0.01, 1e30, 0.01, 0.01), (0.01, 0.01, 0.01)):
        envs: Any = gym.make_vec("NetBuild-v0", num_envs=COUNT, **TINY, optimizer=optimizer)
        envs.reset(seed=1)
        mdp, losses = envs.unwrapped.mdp, []
        for size in sizes:
            trained = mdp.train(np.full(COUNT, 2), np.full(COUNT, size, dtype=np.float32))
            assert (trained.diverged == (size > 1.0)).all()
            losses += [] if size > 1.0 else [mdp.support_loss.copy()]
        trails.append(losses)
    np.testing.assert_array_equal(trails[0], trails[1])


# -- step sizes of each position ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_frozen_position_stays_and_others_move(optimizer: str) -> None:
    arguments = TINY | {"step_sizes": "layer", "min_step": 1e-9, "max_step": 0.1, "depth": 2, "initial_layers": [1, 2]}
    envs: Any = gym.make_vec("NetBuildHybrid-v0", num_envs=COUNT, optimizer=optimizer, **arguments)
    mdp, encoding = envs.unwrapped.mdp, envs.unwrapped.action_encoding
    for position, name in enumerate(mdp.decision.number_names):
        envs.reset(seed=0)
        before = [mdp.networks.weights(row) for row in range(COUNT)]
        decided = mdp.decision.decide(COUNT, **{"step_size": 1.0, name: -1.0})
        info = envs.step(encoding.encode(decided))[-1]
        expected = np.full((COUNT, 4), 0.1)
        expected[:, position] = 1e-9
        np.testing.assert_allclose(info["step_size"], expected, rtol=1e-5)
        for row in range(COUNT):
            pairs = zip(before[row].positions, mdp.networks.weights(row).positions, strict=True)
            moved = [max(float((old[key] - new[key]).abs().max()) for key in old) for old, new in pairs]
            assert [size > 1e-6 for size in moved] == [other != position for other in range(4)]


@every_id
def test_equal_step_sizes_are_one(env_id: str) -> None:
    outcomes = []
    for step_sizes in ("layer", "single"):
        envs: Any = gym.make_vec(env_id, num_envs=COUNT, **TINY | {"step_bins": 5}, step_sizes=step_sizes)
        decision, encoding = envs.unwrapped.decision, envs.unwrapped.action_encoding
        actions = [encoding.encode(decision.decide(COUNT, layer=layer, step_size=0.5)) for layer in (1, 0, 2)]
        trail = play_vector(envs, actions, seed=0)
        outcomes.append([[step[1] for step in trail[1:]], [step[-1]["support_loss"] for step in trail]])
    assert_same(outcomes[0], outcomes[1], 1e-6)


@pytest.mark.parametrize("render_mode", ["rgb_array", "ansi"])
@pytest.mark.parametrize("depth", [1, 2, 6])
def test_step_sizes_of_each_position_are_drawn(render_mode: str, depth: int) -> None:
    env: Any = gym.make("NetBuild-v0", render_mode=render_mode, step_sizes="layer", depth=depth, **TINY)
    pictures = []
    for place in (-1.0, 1.0):
        env.reset(seed=0)
        decided = env.unwrapped.decision.decide(1, layer=1, step_size_stem=place)
        env.step(env.unwrapped.action_encoding.encode(decided)[0])
        pictures.append(env.render())
    if render_mode == "ansi":
        lines = [line.split() for line in pictures[1].split("\n")]
        assert [line[0] for line in lines if line and line[0] in ("stem", "head")] == ["stem", "head"]
        assert "step size stem 0.3," in " ".join(pictures[1].split())
    else:
        assert (pictures[0] != pictures[1]).any()


@pytest.mark.parametrize("learn", ["maml", "in_place"])
def test_pools_learn_from_such_episodes(learn: str) -> None:
    """With an optimizer and minibatches."""
    arguments = TINY | {"step_sizes": "layer", "optimizer": "adam", "batch_size": 2, "learn": learn}
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=COUNT, learn_kwargs={"batch_size": COUNT}, **arguments)
    start = envs.unwrapped.pool.clone()
    play_vector(envs, sample_actions(envs.action_space, 8), seed=0)
    assert envs.unwrapped.mdp.learner.updates
    assert not torch.equal(envs.unwrapped.pool.parameters["stem.matrix"], start.parameters["stem.matrix"])


CONTROLS = [controls.random_layer, controls.shuffled_observation, controls.zeroed_observation]


def test_learners_and_controls() -> None:
    """Also a constant step, which is the same at each position."""
    arguments = {"step_sizes": "layer", "optimizer": "momentum", "batch_size": 2, "horizon": 3}
    learner = plan_learner("plan", tiny_pool(), arguments, (1, 2), 0.5)
    protocol: dict[str, Any] = {"tasks": 6, "steps": (1, 3)}
    family = make_family("sinusoid", shots=4, queries=5)
    single = plan_learner("plan", learner.pool, arguments | {"step_sizes": "single"}, (1, 2), 0.5)
    results = [evaluate(each, family, **protocol) for each in (learner, single)]
    np.testing.assert_allclose(results[0].values(3), results[1].values(3), rtol=1e-5)
    for control in CONTROLS:
        assert np.isfinite(control(learner, family, **protocol).values(3)).all()
    constant = controls.constant_step(learner, family, tuning_tasks=4, **protocol)
    assert constant.notes["step"] in controls.STEP_GRID
