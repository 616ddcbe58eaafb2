"""The native vector environment equals n single ones: compared with SyncVectorEnv in every autoreset mode."""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import zip_longest
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode
from gymnasium.wrappers import FlattenObservation, RecordEpisodeStatistics
from gymnasium.wrappers import vector as vector_wrappers

from tests.support.env_helpers import (
    MIXTURE,
    SMALL,
    VARIANTS,
    Restless,
    assert_same,
    make_classes,
    play_vector,
    sample_actions,
)
from tests.support.vectors import COUNT, TOLERANCE, as_rows, assert_outcomes_agree, singles

pytestmark = pytest.mark.filterwarnings("error")
MODES = [mode.value for mode in AutoresetMode]

every_variant = pytest.mark.parametrize(("env_id", "arguments"), VARIANTS.values(), ids=VARIANTS)
every_mode = pytest.mark.parametrize("mode", MODES)


def native(env_id: str, count: int = COUNT, mode: str = "NextStep", **arguments: Any) -> Any:
    envs = gym.make_vec(env_id, num_envs=count, autoreset_mode=mode, **arguments)
    assert type(envs).__name__ == "NetBuildVectorEnv"
    return envs


@every_mode
@every_variant
def test_a_vector_is_its_singles(env_id: str, arguments: dict[str, Any], mode: str) -> None:
    ours, theirs = (make(env_id, mode=mode, **arguments) for make in (native, singles))
    assert ours.action_space == theirs.action_space
    assert ours.observation_space == theirs.observation_space
    assert ours.metadata["autoreset_mode"] == AutoresetMode(mode)
    assert_outcomes_agree(ours.reset(seed=7), theirs.reset(seed=7))
    actions = sample_actions(ours.action_space, 26)
    for action in actions[:2]:
        assert_outcomes_agree(ours.step(action), theirs.step(action))
    # From here on the rows are out of phase: two of them are two steps behind.
    mask = np.array([True, False, True, False])
    assert_outcomes_agree(
        ours.reset(options={"reset_mask": mask.copy()}), theirs.reset(options={"reset_mask": mask.copy()})
    )
    ends = []
    for action in actions[2:]:
        outcome = ours.step(action)
        assert_outcomes_agree(outcome, theirs.step(action))
        ends.append(outcome[2])
        if mode == "Disabled" and outcome[2].any():
            options = {"reset_mask": outcome[2]}
            assert_outcomes_agree(ours.reset(options=copy.copy(options)), theirs.reset(options=copy.copy(options)))
    assert any(end.any() and not end.all() for end in ends), "rows end at different times"
    assert np.sum(ends, axis=0).min() >= 3


def test_infos_of_ended_rows_describe_their_last_step() -> None:
    arguments = SMALL | {"horizon": 2}
    envs, going_on = (native("NetBuild-v0", mode=mode, **arguments) for mode in ("SameStep", "Disabled"))
    actions = sample_actions(envs.action_space, 2)
    observation, _, terminated, _, info = play_vector(envs, actions, seed=0)[-1]
    last_observation, *_, last_info = play_vector(going_on, actions, seed=0)[-1]
    assert terminated.all()
    for row in range(COUNT):
        assert_same(info["final_obs"][row], last_observation[row])
        assert not np.array_equal(observation[row], last_observation[row]), "the next episode's first observation"
    assert_same(info["final_info"], last_info)
    assert set(info) - set(last_info) == {"final_obs", "_final_obs", "final_info", "_final_info"}
    assert not info["step_size"].any(), "no row is left that took a step and did not start over"


@pytest.mark.parametrize("name", ["box", "multidiscrete, mixture, relu", "fresh data"])
def test_seeds_may_be_a_list_with_gaps(name: str) -> None:
    env_id, arguments = VARIANTS[name]
    ours, theirs = (make(env_id, **arguments) for make in (native, singles))
    assert_outcomes_agree(ours.reset(seed=[5, 3, 9, 3]), theirs.reset(seed=[5, 3, 9, 3]))
    seeds = [None, 11, None, 2]
    assert_outcomes_agree(ours.reset(seed=seeds), theirs.reset(seed=seeds))
    assert_outcomes_agree(ours.reset(), theirs.reset())
    mask = np.array([False, True, True, False])
    assert_outcomes_agree(
        ours.reset(seed=40, options={"reset_mask": mask.copy()}),
        theirs.reset(seed=40, options={"reset_mask": mask.copy()}),
    )


def test_gaps_in_the_first_seeds_are_filled_at_random() -> None:
    losses = []
    for _ in range(2):
        _, info = native("NetBuild-v0", **SMALL).reset(seed=[5, None, 9, None])
        losses.append(info["support_loss"])
    _, alone = gym.make("NetBuild-v0", **SMALL).reset(seed=9)
    assert losses[0][2] == losses[1][2] == pytest.approx(alone["support_loss"], rel=TOLERANCE)
    assert losses[0][1] != losses[1][1]
    assert losses[0][1] != losses[0][3]


def test_one_row_is_a_vector_too() -> None:
    ours, theirs = (make("NetBuildDiscrete-v0", count=1, **SMALL) for make in (native, singles))
    actions = sample_actions(ours.action_space, 8)
    for one, other in zip(
        play_vector(ours, actions, seed=3), [theirs.reset(seed=3), *map(theirs.step, actions)], strict=True
    ):
        for mine, his in zip(one[:-1], other[:-1], strict=True):
            assert_same(mine, his, TOLERANCE)


def change_first_row(actions: Any, other: Any) -> Any:
    if isinstance(actions, dict):
        return {name: change_first_row(values, other[name]) for name, values in actions.items()}
    changed = np.array(actions)
    changed[0] = other[0]
    return changed


def row_of(observation: Any, row: int) -> Any:
    if isinstance(observation, dict):
        return {name: values[row] for name, values in observation.items()}
    return observation[row]


@every_mode
@every_variant
def test_rows_do_not_touch_each_other(env_id: str, arguments: dict[str, Any], mode: str) -> None:
    one, other = (native(env_id, count=3, mode=mode, **arguments) for _ in range(2))
    actions = sample_actions(one.action_space, 9)
    others = sample_actions(one.action_space, 9, seed=77)
    one.reset(seed=[1, 2, 3])
    other.reset(seed=[8, 2, 3])
    for action, different in zip(actions, others, strict=True):
        first, second = one.step(action), other.step(change_first_row(action, different))
        assert_same(first[2], second[2])
        for row in (1, 2):
            assert_same(row_of(first[0], row), row_of(second[0], row), TOLERANCE)
            assert_same(first[1][row], second[1][row], TOLERANCE)
            assert_same(as_rows(first[-1], 3)[row], as_rows(second[-1], 3)[row], TOLERANCE)


def test_diverging_rows_do_not_change_others() -> None:
    """A row whose steps diverge and are refused does not change other rows."""
    arguments = SMALL | {"min_step": 1e-3, "max_step": 1e6, "action": "hybrid", "layer_kind": "relu", "horizon": 6}
    wild, calm = (native("NetBuild-v0", count=2, **arguments) for _ in range(2))
    wild.reset(seed=0)
    calm.reset(seed=0)
    for layer in (1, 2, 0, 3, 0):
        action = {"layer": np.array([layer, layer]), "step_size": np.array([[1.0], [-1.0]], dtype=np.float32)}
        quiet = action | {"step_size": np.full((2, 1), -1.0, dtype=np.float32)}
        first, second = wild.step(action), calm.step(quiet)
        assert first[-1]["diverged"].tolist() == [True, False]
        assert_same(first[0][1], second[0][1], TOLERANCE)
        assert_same(as_rows(first[-1], 2)[1], as_rows(second[-1], 2)[1], TOLERANCE)


def test_without_autoreset_rows_may_go_on_past_the_horizon() -> None:
    envs = native("NetBuild-v0", mode="Disabled", horizon=2, **SMALL)
    trail = play_vector(envs, sample_actions(envs.action_space, 5), seed=0)
    assert [outcome[2].tolist() for outcome in trail[1:]] == [[False] * COUNT] + [[True] * COUNT] * 4
    assert_same(trail[-1][-1]["task"], trail[0][-1]["task"])


def test_returned_observations_are_not_written_to_again() -> None:
    envs = native("NetBuild-v0", **SMALL)
    kept = play_vector(envs, sample_actions(envs.action_space, 3), seed=0)
    before = copy.deepcopy(kept)
    play_vector(envs, sample_actions(envs.action_space, 9), reset=False)
    assert_same(before, kept)


# -- with what others wrote ------------------------------------------------------------------------------------------


def test_worker_processes_are_the_same_singles() -> None:
    def make() -> gym.Env:
        return gym.make("NetBuild-v0", **SMALL, **MIXTURE)

    theirs = singles("NetBuild-v0", count=2, **SMALL, **MIXTURE)
    ours = AsyncVectorEnv([make, make])
    try:
        assert_outcomes_in_rows(ours.reset(seed=0), theirs.reset(seed=0))
        for action in sample_actions(ours.action_space, 7):
            assert_outcomes_in_rows(ours.step(action), theirs.step(action))
    finally:
        ours.close()


def assert_outcomes_in_rows(ours: tuple[Any, ...], theirs: tuple[Any, ...]) -> None:
    for one, other in zip(ours[:-1], theirs[:-1], strict=True):
        assert_same(one, other, TOLERANCE)
    assert_same(as_rows(ours[-1], 2), as_rows(theirs[-1], 2), TOLERANCE)


def test_statistics_of_a_single_environment() -> None:
    env = RecordEpisodeStatistics(gym.make("NetBuild-v0", **SMALL))
    env.reset(seed=0)
    rewards: list[float] = []
    info: dict[str, Any] = {}
    for action in sample_actions(env.action_space, 5):
        _, reward, _, _, info = env.step(action)
        rewards.append(float(reward))
    assert info["episode"]["r"] == pytest.approx(sum(rewards))
    assert info["episode"]["l"] == 5


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_statistics_of_a_vector(mode: str) -> None:
    envs = vector_wrappers.RecordEpisodeStatistics(native("NetBuild-v0", mode=mode, **SMALL))
    trail = play_vector(envs, sample_actions(envs.action_space, 5), seed=0)
    info = trail[-1][-1]
    np.testing.assert_allclose(info["episode"]["r"], np.sum([outcome[1] for outcome in trail[1:]], axis=0), rtol=1e-6)
    assert info["_episode"].all()


def test_a_flattened_dict_holds_the_same_numbers() -> None:
    flat = gym.make("NetBuild-v0", **SMALL)
    env = FlattenObservation(gym.make("NetBuild-v0", observation="dict", **SMALL))
    assert env.observation_space.shape == flat.observation_space.shape
    np.testing.assert_array_equal(np.sort(env.reset(seed=0)[0]), np.sort(flat.reset(seed=0)[0]))


def test_observations_can_be_normalised() -> None:
    envs = vector_wrappers.NormalizeObservation(native("NetBuild-v0", **SMALL))
    trail = play_vector(envs, sample_actions(envs.action_space, 40), seed=0)
    observations = np.concatenate([outcome[0] for outcome in trail[8:]])
    assert np.isfinite(observations).all()
    assert np.abs(observations.mean()) < 0.5


# -- drawing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["rgb_array", "ansi"])
def test_every_row_has_its_frame(mode: str) -> None:
    envs = native("NetBuild-v0", count=3, mode="NextStep", render_mode=mode, horizon=2, **SMALL)
    env = gym.make("NetBuild-v0", render_mode=mode, horizon=2, **SMALL)
    envs.reset(seed=4)
    env.reset(seed=6)
    for number, action in enumerate(sample_actions(envs.action_space, 4)):
        frames = envs.render()
        assert isinstance(frames, tuple)
        assert len(frames) == 3
        assert difference(frames[0], frames[2]) > 1e-3
        if number < 2:
            # Row 2 of seed 4 is the single environment of seed 6, but for rounding.
            assert difference(frames[2], env.render()) < (1e-3 if mode == "rgb_array" else 0.1)
            env.step(action[2])
        envs.step(action)


def difference(one: Any, other: Any) -> float:
    """Fraction of the pixels, or of the lines, that differ."""
    if isinstance(one, str):
        return float(np.mean([mine != his for mine, his in zip_longest(one.split("\n"), other.split("\n"))]))
    return float(np.mean(one != other))


FAMILIES: dict[str, Callable[[], dict[str, Any]]] = {
    "mixture": lambda: MIXTURE,
    "classes": lambda: {"family": make_classes()},
    "fresh data": lambda: {"family": Restless()},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_kind_of_family_can_be_drawn(name: str) -> None:
    env = gym.make("NetBuild-v0", render_mode="rgb_array", **SMALL, **FAMILIES[name]())
    text = gym.make("NetBuild-v0", render_mode="ansi", **SMALL, **FAMILIES[name]())
    for one in (env, text):
        one.reset(seed=0)
    before = env.render(), text.render()
    for action in sample_actions(env.action_space, 2):
        env.step(action)
        text.step(action)
    frame = env.render()
    assert isinstance(frame, np.ndarray)
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert difference(before[0], frame) > 1e-3
    assert before[1] != text.render()
