"""Rewards, refused steps and parts of the observation, recomputed by hand."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from tests.support.env_helpers import (
    MIXTURE,
    SMALL,
    VARIANTS,
    Secretive,
    assert_same,
    make_classes,
    play,
    sample_actions,
)

pytestmark = pytest.mark.filterwarnings("error")
HORIZON = 4
STEADY = {"action": "hybrid", "horizon": HORIZON, **SMALL}
EXPLOSIVE = STEADY | {"min_step": 1e-3, "max_step": 1e6, "layer_kind": "relu"}

every_feedback = pytest.mark.parametrize("feedback", ["query", "support"])
every_reward = pytest.mark.parametrize("reward", ["performance", "improvement"])


def hybrid(layer: int, step_size: float) -> dict[str, Any]:
    return {"layer": np.int64(layer), "step_size": np.array([step_size], dtype=np.float32)}


def episode(actions: list[Any], seed: int = 0, **arguments: Any) -> tuple[list[dict[str, Any]], list[float]]:
    """Infos, starting with that of the reset, and rewards."""
    env = gym.make("NetBuild-v0", **arguments).unwrapped
    infos, rewards = [env.reset(seed=seed)[1]], []
    for action in actions:
        _, reward, _, _, info = env.step(action)
        infos.append(info)
        rewards.append(float(reward))
    return infos, rewards


STEPS = [hybrid(1, 0.0), hybrid(0, 0.3), hybrid(3, -0.4), hybrid(0, 0.9)]

# -- rewards ---------------------------------------------------------------------------------------------------------


@every_feedback
@pytest.mark.parametrize("family", [{}, MIXTURE, {"family": make_classes()}], ids=["sinusoid", "mixture", "classes"])
def test_performance_is_minus_the_score_over_the_horizon(feedback: str, family: dict[str, Any]) -> None:
    infos, rewards = episode(STEPS, reward="performance", feedback=feedback, **STEADY, **family)
    losses = np.array([info[f"{feedback}_loss"] for info in infos])
    assert len(set(losses)) == HORIZON + 1, "every step changes the loss"
    np.testing.assert_allclose(rewards, -np.log1p(losses[1:]) / HORIZON, rtol=1e-6)


@every_feedback
def test_improvement_is_the_fall_of_the_score_and_telescopes(feedback: str) -> None:
    infos, rewards = episode(STEPS, reward="improvement", feedback=feedback, **STEADY)
    scores = np.log1p([info[f"{feedback}_loss"] for info in infos])
    np.testing.assert_allclose(rewards, -np.diff(scores), rtol=1e-6, atol=1e-9)
    assert sum(rewards) == pytest.approx(scores[0] - scores[-1], abs=1e-7)


@every_reward
@pytest.mark.parametrize("burn_in", [1, 3])
def test_the_first_steps_have_no_reward_in_the_burn_in(reward: str, burn_in: int) -> None:
    _, plain = episode(STEPS, reward=reward, **STEADY)
    infos, rewards = episode(STEPS, reward=reward, burn_in=burn_in, **STEADY)
    assert rewards[:burn_in] == [0.0] * burn_in
    assert rewards[burn_in:] == plain[burn_in:]
    assert all(set(info["reward_terms"].values()) == {0.0} for info in infos[1 : burn_in + 1])


@every_reward
def test_the_terms_add_up_to_the_reward(reward: str) -> None:
    actions = [hybrid(1, 0.0), hybrid(2, 1.0), hybrid(3, 1.0), hybrid(0, -1.0)]
    infos, rewards = episode(actions, reward=reward, **EXPLOSIVE)
    assert any(info["diverged"] for info in infos[1:])
    for info, earned in zip(infos[1:], rewards, strict=True):
        assert set(info["reward_terms"]) == {reward, "divergence"}
        assert sum(info["reward_terms"].values()) == pytest.approx(earned, abs=1e-12)


def test_metrics_are_those_of_the_query_set() -> None:
    infos, _ = episode(STEPS, **STEADY)
    assert all(info["query_mse"] == pytest.approx(info["query_loss"]) for info in infos)
    infos, _ = episode(STEPS, **STEADY, family=make_classes())
    assert all((info["query_accuracy"] * 4) % 1 == 0 for info in infos), "4 query points"


# -- the step --------------------------------------------------------------------------------------------------------


def test_infos_report_the_step() -> None:
    infos, _ = episode([hybrid(2, -1.0), hybrid(0, 0.0), hybrid(3, 1.0), hybrid(1, 0.5)], **STEADY)
    assert infos[0]["depth"] == 0
    assert [info["layer"] for info in infos[1:]] == [2, 0, 3, 0], "the fourth finds the network full"
    assert [info["depth"] for info in infos[1:]] == [1, 1, 2, 2]
    sizes = [info["step_size"] for info in infos[1:]]
    logarithms = np.log(1e-3) + (np.array([-1.0, 0.0, 1.0, 0.5]) + 1) / 2 * np.log(300.0)
    np.testing.assert_allclose(sizes, np.exp(logarithms), rtol=1e-5)


def test_initial_layers_are_present_from_the_start() -> None:
    env = gym.make("NetBuild-v0", initial_layers=(3, 1), **STEADY).unwrapped
    _, info = env.reset(seed=0)
    assert info["depth"] == 2
    assert env.mdp.networks.layers[:, 0].tolist() == [3, 1]  # type: ignore[attr-defined]
    _, _, _, _, info = env.step(hybrid(2, 0.0))
    assert (info["layer"], info["depth"]) == (0, 2)


@pytest.mark.parametrize("encoding", ["multidiscrete", "discrete"])
def test_a_full_network_masks_its_layers(encoding: str) -> None:
    env = gym.make("NetBuild-v0", action=encoding, depth=1, **SMALL).unwrapped
    env.reset(seed=0)
    open_choices, bins = env.action_masks(), 13  # type: ignore[attr-defined]
    assert open_choices.all()
    assert open_choices.shape == ((4 + bins,) if encoding == "multidiscrete" else (4 * bins,))
    env.step(np.array([2, 5]) if encoding == "multidiscrete" else 2 * bins + 5)
    closed = ~env.action_masks()  # type: ignore[attr-defined]
    layers = np.arange(4) if encoding == "multidiscrete" else np.repeat(np.arange(4), bins)
    np.testing.assert_array_equal(closed[: len(layers)], layers > 0)
    assert not closed[len(layers) :].any()


GRID = torch.linspace(-5, 5, 20).reshape(1, -1, 1)


@every_reward
@every_feedback
@pytest.mark.parametrize("kind", ["relu", "residual", "tanh", "layer_norm"])
def test_a_refused_step_changes_nothing_and_has_a_penalty(reward: str, feedback: str, kind: str) -> None:
    arguments = EXPLOSIVE | {"layer_kind": kind, "reward": reward, "feedback": feedback, "depth": 3}
    env = gym.make("NetBuild-v0", **arguments).unwrapped
    mdp = env.mdp  # type: ignore[attr-defined]
    _, before = env.reset(seed=1)
    _, _, _, _, before = env.step(hybrid(1, -1.0))
    outputs = mdp.outputs(GRID).clone()
    _, earned, _, _, info = env.step(hybrid(2, 1.0))
    assert info["diverged"]
    assert (info["layer"], info["depth"]) == (0, 1)
    assert torch.equal(mdp.outputs(GRID), outputs)
    assert {name: info[name] for name in ("support_loss", "query_loss")} == {
        name: before[name] for name in ("support_loss", "query_loss")
    }
    unchanged = -np.log1p(before[f"{feedback}_loss"]) / HORIZON if reward == "performance" else 0.0
    assert earned == pytest.approx(unchanged - 1 / HORIZON, rel=1e-6)
    # The row goes on as if that step had never been taken.
    twin = gym.make("NetBuild-v0", **arguments).unwrapped
    twin.reset(seed=1)
    twin.step(hybrid(1, -1.0))
    calm, expected = env.step(hybrid(3, -1.0)), twin.step(hybrid(3, -1.0))
    assert not calm[4]["diverged"]
    assert calm[4]["query_loss"] == pytest.approx(expected[4]["query_loss"], rel=1e-5)


def test_stepping_past_the_horizon_is_allowed() -> None:
    env = gym.make("NetBuild-v0", **(STEADY | {"max_step": 0.01})).unwrapped
    env.reset(seed=2)
    env.step(hybrid(1, 0.0))
    trail = [env.step(hybrid(0, 1.0)) for _ in range(5 * HORIZON)]
    ends = [terminated for _, _, terminated, _, _ in trail]
    assert ends == [False] * (HORIZON - 2) + [True] * (len(ends) - HORIZON + 2)
    losses = [info["support_loss"] for *_, info in trail]
    assert losses[-1] < losses[HORIZON], "the network trains on"
    late, last = trail[-1][0], trail[HORIZON - 2][0]
    progress = env.mdp.parts["progress"]  # type: ignore[attr-defined]
    np.testing.assert_array_equal(late[progress], last[progress])


# -- the observation -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_parts_by_name_are_slices_of_the_flat_observation(name: str) -> None:
    env_id, arguments = VARIANTS[name]
    flat = gym.make(env_id, **(arguments | {"observation": "flat"})).unwrapped
    by_name = gym.make(env_id, **(arguments | {"observation": "dict"})).unwrapped
    parts = flat.mdp.parts  # type: ignore[attr-defined]
    actions = sample_actions(flat.action_space, 8)
    assert isinstance(by_name.observation_space, gym.spaces.Dict)
    for one, other in zip(play(flat, actions, seed=0), play(by_name, actions, seed=0), strict=True):
        assert set(other[0]) == set(by_name.observation_space)
        assert sum(map(len, other[0].values())) == len(one[0]), "nothing is left out"
        for part, values in other[0].items():
            np.testing.assert_array_equal(values, one[0][parts[part]])


def test_documented_sizes_are_those_of_the_default() -> None:
    space = gym.make("NetBuild-v0", observation="dict", pool="random").observation_space
    assert isinstance(space, gym.spaces.Dict)
    sizes = {name: part.shape for name, part in space.items()}
    assert sizes == {
        "head_gradient": (41,),
        "activations": (80,),
        "task": (33,),
        "loss": (4,),
        "gradient_norms": (4,),
        "progress": (2,),
        "last_action": (10,),
    }


def test_clock_action_and_losses_are_shown() -> None:
    env = gym.make("NetBuild-v0", observation="dict", **STEADY).unwrapped
    observation, info = env.reset(seed=0)
    losses = [info["support_loss"]]
    np.testing.assert_array_equal(observation["progress"], [0.0, 0.0])
    np.testing.assert_array_equal(observation["last_action"], np.zeros(5))
    np.testing.assert_array_equal(observation["gradient_norms"], np.zeros(4))
    for step, (layer, size) in enumerate([(2, 0.25), (0, -1.0), (3, 1.0)], start=1):
        observation, _, _, _, info = env.step(hybrid(layer, size))
        losses.append(info["support_loss"])
        scores = np.log1p(losses)
        falls = [*-np.diff(scores)[:-3:-1], 0.0][:2]
        np.testing.assert_allclose(
            observation["loss"], [scores[-1], scores[0] - scores[-1], *falls], rtol=1e-4, atol=1e-5
        )
        np.testing.assert_allclose(observation["progress"], [info["depth"] / 2, step / HORIZON])
        np.testing.assert_allclose(observation["last_action"], [*np.eye(4)[layer], size])
        assert (observation["gradient_norms"] > 0).sum() == 2 + info["depth"]


def test_observations_do_not_depend_on_query_set_or_task() -> None:
    """With another query set, observations are the same and rewards differ."""
    actions = [hybrid(1, 0.2), hybrid(2, 0.0), hybrid(0, 0.5), hybrid(0, -0.5)]
    trails = []
    for secret in (0.0, 3.0):
        env = gym.make("NetBuild-v0", family=Secretive(secret=secret), **STEADY)
        trails.append(play(env, actions, seed=0))
    for first, second in zip(*trails, strict=True):
        assert_same(first[0], second[0])
        assert first[-1]["query_loss"] != second[-1]["query_loss"]
        assert first[-1]["support_loss"] == second[-1]["support_loss"]


def test_the_number_of_query_points_does_not_move_the_support_set() -> None:
    trails = []
    for queries in (4, 9):
        env = gym.make("NetBuild-v0", **(STEADY | {"queries": queries}))
        trails.append(play(env, STEPS, seed=0))
    for first, second in zip(*trails, strict=True):
        assert_same(first[0], second[0], tolerance=1e-4)
