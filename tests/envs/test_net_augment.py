"""What `NetAugment` is about; its contract is that of `test_net_tune`, by the table of variants."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch.nn import functional

from gym_reml.decisions.augmentations import NAMES, AugmentationPolicy, PolicyTable
from gym_reml.streams import row_streams
from tests.support.env_helpers import assert_same, play
from tests.support.tuning_helpers import GLYPHS, QUICK, curve, images, points

pytestmark = pytest.mark.filterwarnings("error")
DATA: dict[str, Any] = {"train": images(12), "validation": images(7, 1)}


def make(**arguments: Any) -> Any:
    return gym.make("NetAugment-v0", **(QUICK | arguments)).unwrapped


def native(count: int, env_id: str = "NetAugmentHybrid-v0", **arguments: Any) -> Any:
    return gym.make_vec(env_id, count, autoreset_mode="Disabled", **(QUICK | {"family_kwargs": GLYPHS} | arguments))


def test_by_default_an_episode_is_autoaugments_thirty_decisions() -> None:
    env: Any = gym.make("NetAugmentMultiDiscrete-v0")
    env.reset(seed=0)
    decisions, over, reward = 0, False, 0.0
    while not over:
        assert reward == 0.0
        _, reward, over, _, info = env.step(env.action_space.sample())
        decisions += len(env.action_space.nvec)
    assert decisions == 30
    assert reward == pytest.approx(info["validation_accuracy"])
    assert [len(steps) for steps in env.unwrapped.tuning.policy().sub_policies] == [2] * 5


def test_an_episode_is_the_run_of_a_plain_loop() -> None:
    env = make(**DATA, test=images(5, 2), batch_size=5, horizon=3, updates=6, optimizer="sgd", step_size=0.3)
    env.reset(seed=3)
    network, streams = env.export(), row_streams(3, "train")
    order, noise = (np.random.default_rng(one.integers(2**63)) for one in (streams.query, streams.batches))
    order.integers(2**63)  # the weights' seed
    decided = [("translate_x", 0.75, 0.5), ("invert", 0.5, 0.0), ("rotate", 1.0, 0.25)]
    for operation, probability, magnitude in decided:
        action = np.full(18, -1.0, dtype=np.float32)
        action[NAMES.index(operation)] = 0.5
        action[16:] = 2.0 * probability - 1.0, 2.0 * magnitude - 1.0
        *outcome, info = env.step(action)
        assert info["operation"] == NAMES.index(operation)
        np.testing.assert_allclose((info["probability"], info["magnitude"]), (probability, magnitude))
    assert env.tuning.policy().sub_policies == ((tuple(decided[0]), tuple(decided[1])), (tuple(decided[2]),))
    table = PolicyTable.of([env.tuning.policy()])
    inputs, labels = (torch.from_numpy(array) for array in DATA["train"])
    places = np.concatenate([order.permutation(12) for _ in range(3)])
    stepper = torch.optim.SGD(network.parameters(), lr=0.3)
    for update in range(6):
        chosen = places[5 * update :][:5]
        random = torch.from_numpy(noise.random((1, 5, table.draws), dtype=np.float32))
        stepper.zero_grad()
        functional.cross_entropy(network(table.apply(inputs[chosen][None], random)[0]), labels[chosen]).backward()
        stepper.step()
    held_out, truth = (torch.from_numpy(array) for array in DATA["validation"])
    with torch.no_grad():
        torch.testing.assert_close(env.export()(held_out), network(held_out), rtol=1e-4, atol=1e-5)
        assert outcome[1] == pytest.approx(float((network(held_out).argmax(1) == truth).float().mean()))


def test_the_area_is_the_mean_of_the_curve() -> None:
    action = {"operation": np.full(3, 3), "probability": np.ones((3, 1)), "magnitude": np.zeros((3, 1))}
    envs = native(3, horizon=1, updates=20, reward="area")
    envs.reset(seed=0)
    _, area, _, _, _ = envs.step(action)
    curves = []
    for updates in range(2, 21, 2):
        partial = native(3, horizon=1, updates=updates)
        partial.reset(seed=0)
        curves.append(partial.step(action)[4]["validation_accuracy"])
    np.testing.assert_allclose(area, np.mean(curves, axis=0), atol=1e-6)


@pytest.mark.parametrize("reward", ["final", "area"])
def test_nothing_depends_on_test_data(reward: str) -> None:
    one, other = (make(test=images(5, seed), reward=reward, **DATA) for seed in (2, 9))
    one.action_space.seed(0)
    actions = [one.action_space.sample() for _ in range(4)]
    for mine, its in zip(play(one, actions, seed=0), play(other, actions, seed=0), strict=True):
        assert_same(mine[0], its[0])
        if len(mine) > 2:
            assert mine[1] == its[1]


def test_policies_may_be_given() -> None:
    """A given policy trains as the same one that is decided, and those without steps as without augmentation."""
    envs, others = native(4), native(4)
    envs.reset(seed=0), others.reset(seed=0)
    for action in (envs.action_space.sample() for _ in range(3)):
        *_, info = envs.step(action)
    policies = [envs.tuning.policy(row) for row in range(4)]
    assert_same(others.tuning.train_with(policies)["validation_loss"], info["validation_loss"])
    with pytest.raises(ValueError, match="episodes have begun"):
        others.tuning.train_with(policies)
    with pytest.raises(ValueError, match="policies: are 3, must be 4"):
        others.tuning.train_with(policies[1:])
    others.reset(seed=0)
    plain = others.tuning.train_with([AugmentationPolicy()] * 4)
    envs.reset(seed=0)
    nothing = {"operation": np.zeros(4, dtype=int), "probability": np.ones((4, 1)), "magnitude": np.ones((4, 1))}
    for _ in range(3):
        *_, info = envs.step(nothing)
    assert_same(plain["validation_loss"], info["validation_loss"])
    with pytest.raises(ValueError, match="row=4"):
        envs.tuning.policy(4)


def test_what_is_observed_of_the_policy() -> None:
    env = make(family_kwargs=GLYPHS, action="multidiscrete")
    parts = env.tuning.parts
    observation, _ = env.reset(seed=0)
    assert observation[parts["policy"]].tolist() == [0.0] * 54
    expected = np.zeros((3, 18), dtype=np.float32)
    for place, action in enumerate(([5, 0, 10], [0, 5, 2], [15, 1, 1])):
        assert observation[parts["place"]].tolist() == np.eye(3)[place].tolist()
        before = observation[:12]
        observation, *_ = env.step(action)
        expected[place, action[0]], expected[place, 16:] = 1.0, np.array(action[1:]) / 5.0 - 1.0
        np.testing.assert_allclose(observation[parts["policy"]], expected.flatten(), atol=1e-6)
        if place < 2:
            np.testing.assert_array_equal(observation[:12], before)
    assert observation[parts["place"]].tolist() == [0.0] * 3
    again, reward, terminated, _, _ = env.step([1, 1, 1])
    assert (reward, terminated) == (0.0, True)
    np.testing.assert_array_equal(again, observation)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"reward": "gain"}, "reward='gain'.*'area'"),
    ({"step_size": 0}, "step_size=0"),
    ({"horizon": 0}, "horizon=0"),
    ({"device": "meta"}, "device='meta': not available"),
    ({"step_bins": 200, "action": "discrete"}, "action='discrete'.*too many"),
    ({"family": "clusters"}, "train: has shape"),
    ({"train": points(9), "validation": points(3)}, r"train: has shape \(9, 4\)"),
    ({"train": curve(9), "validation": curve(3)}, r"train: has shape \(9, 4\)"),
    ({"train": (DATA["train"][0] * 255, DATA["train"][1]), "validation": DATA["validation"]}, r"outside \[0, 1\]"),
    ({"family_kwargs": {"shifts": [2.0]}}, "shifts="),
    ({"family_kwargs": {"turns": []}}, "turns="),
    ({"family_kwargs": {"classes": 1}}, "classes=1"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_value_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        make(**arguments)


def test_given_policies_are_kept_and_leave_other_rows_alone() -> None:
    short = AugmentationPolicy(((("rotate", 1.0, 0.5),), (("shear_x", 0.5, 0.4),)))  # type: ignore[arg-type]
    long = AugmentationPolicy(((("translate_x", 0.9, 0.4), ("cutout", 0.9, 0.4)),))  # type: ignore[arg-type]
    losses = []
    for policies in ([short], [short, short], [short, long]):
        envs = native(len(policies), updates=6)
        envs.reset(seed=5)
        losses.append(envs.unwrapped.tuning.train_with(policies)["train_loss"][0])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-5)
    assert [envs.unwrapped.tuning.policy(row) for row in (0, 1)] == [short, long]
    envs.reset()
    assert envs.unwrapped.tuning.policy(1) == AugmentationPolicy()


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_images_of_every_part_must_be_in_range(part: str) -> None:
    inputs, labels = images(5, 2)
    with pytest.raises(ValueError, match=f"{part}: has values outside"):
        make(**(DATA | {part: (255.0 * inputs, labels)})).reset(seed=0)


@pytest.mark.parametrize("env_id", ["NetRuleBox-v0", "NetAugment-v0"])
def test_rows_that_wait_draw_nothing_for_ties(env_id: str) -> None:
    """A row's trajectory is that of a single environment, whenever other rows are reset."""
    arguments: dict[str, Any] = {"updates": 2, "horizon": 3}
    envs: Any = gym.make_vec(env_id, 2, autoreset_mode="NextStep", **arguments)
    envs.reset(seed=3)
    single: Any = gym.make(env_id, **arguments).unwrapped
    single.reset(seed=4)
    ties = np.zeros(envs.action_space.shape, dtype=np.float32)
    envs.step(ties)
    single.step(ties[1])
    envs.reset(options={"reset_mask": np.array([True, False])})
    for _ in range(9):
        observation, _, over, *_ = envs.step(ties)
        own, _, ended, *_ = single.step(ties[1])
        np.testing.assert_allclose(observation[1], own, atol=1e-5)
        if over[1]:
            assert ended
            own, _ = single.reset()
            observation, *_ = envs.step(ties)
            np.testing.assert_allclose(observation[1], own, atol=1e-5)
