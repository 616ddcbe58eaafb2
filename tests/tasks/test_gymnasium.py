"""Families of policies on Gymnasium's environments: rollouts by hand and by a plain loop, spaces, bad input."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO

from gym_reml.sb3 import make_vec_env
from gym_reml.streams import many_streams
from gym_reml.tasks import from_gymnasium, make_family
from gym_reml.tasks.policies.distributions import Categorical, Gaussian
from gym_reml.tasks.policies.gymnasium import GymnasiumFamily, Task
from tests.support.gymnasium_helpers import (
    ROBOTS,
    Cart,
    Step,
    carts,
    constant,
    draw_wage,
    linear,
    make_cart,
    make_spread_cart,
    plain_loop,
    poles,
    robots,
    roll_out,
    same,
    set_wage,
)

# -- rollouts by hand -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mean", "push", "steps"), [(5.0, 4.0, 3), (0.5, 3.0, 4), (-0.75, 0.5, 7), (-5.0, 0.0, 7)])
def test_returns_in_closed_form(mean: float, push: float, steps: int) -> None:
    seen = roll_out(carts(), constant(mean, math.log(1e-3)), rows=3)
    wage = carts().draw([row.task for row in many_streams(0, 3, "train")])["wage"]
    expected = torch.from_numpy(wage * push * steps).float().unsqueeze(1).expand(3, 2)
    torch.testing.assert_close(seen.rewards.sum(dim=2), expected, rtol=0, atol=0.08)
    assert (seen.active.sum(dim=2) == steps).all()
    torch.testing.assert_close(seen.observations[:, :, 1, 0], torch.full((3, 2), push), rtol=0, atol=0.02)
    torch.testing.assert_close(seen.actions, torch.full_like(seen.actions, mean), rtol=0, atol=0.02)


def test_the_end_is_the_end() -> None:
    seen = roll_out(carts(), constant(5.0, -3.0), rows=2)
    assert seen.active[0, 0].tolist() == [True] * 3 + [False] * 4
    assert (seen.rewards[~seen.active] == 0.0).all()
    assert (seen.rewards[seen.active] > 0.0).all()
    assert seen.observations[1, 1, :, 0].tolist() == [0.0, 4.0, 8.0, 12.0, 12.0, 12.0, 12.0], "where it ended"


# -- against a plain loop ---------------------------------------------------------------------------------------------


EVERY = pytest.mark.parametrize(
    "build",
    [carts, partial(carts, make_spread_cart), poles, *(partial(robots, name) for name in ROBOTS)],
    ids=["cart", "spread cart", "pole", *ROBOTS],
)


@EVERY
def test_a_rollout_is_that_of_a_plain_loop(build: Callable[[], GymnasiumFamily]) -> None:
    family = build()
    seen, expected = (run(family, linear(family), seed=3, count=4) for run in (roll_out, plain_loop))
    assert torch.equal(seen.active, expected.active)
    for name in ("observations", "actions", "rewards"):
        torch.testing.assert_close(getattr(seen, name), getattr(expected, name), rtol=1e-4, atol=1e-4)


@EVERY
def test_rows_alone_and_rollouts_that_leave_no_trace(build: Callable[[], GymnasiumFamily]) -> None:
    family = build()
    forward = linear(family)
    whole = roll_out(family, forward, rows=3, seed=5)
    for row in (2, 0):
        assert same(whole, roll_out(family, forward, seed=5 + row), slice(row, row + 1))
    assert not same(whole, roll_out(family, forward, rows=3, seed=6))
    assert same(whole, roll_out(family, forward, rows=3, seed=5)), "in environments that were used before"


def test_poles_fall_earlier_where_gravity_is_strong() -> None:
    tasks = {"gravity": np.array([1.0, 30.0]), "length": np.array([1.0, 0.1])}
    family = poles(steps=12)
    seen = family.rollout(tasks, constant(0.0, 0.0), [np.random.default_rng(seed) for seed in range(2)], 5)
    light, heavy = seen.active.sum(dim=(1, 2)).tolist()
    assert light > heavy + 5
    assert seen.active.sum(dim=2).max() <= 12, "the environment's own time limit"
    assert (seen.rewards == seen.active).all(), "1 a step"
    assert set(seen.actions.flatten(0, 2).sum(dim=0).gt(0).tolist()) == {True}, "both actions"
    assert (seen.actions.sum(dim=3) == 1.0).all()


# -- spaces -----------------------------------------------------------------------------------------------------------


def test_networks_fit_the_spaces() -> None:
    cart, pole = carts(), poles()
    assert (cart.in_features, cart.distribution, cart.out_features, cart.constant_outputs) == (2, Gaussian(1), 2, 1)
    assert (pole.in_features, pole.distribution, pole.out_features, pole.constant_outputs) == (4, Categorical(2), 2, 0)


def spaced(**changed: spaces.Space) -> Callable[[], Cart]:
    """Creates carts with other spaces."""

    def make() -> Cart:
        cart = Cart()
        vars(cart).update(changed)
        return cart

    return make


class Remembering(Cart):
    """Records its last action."""

    def step(self, action: Any) -> Step:
        self.action = action
        return self._look(), 0.0, False, False, {}


@pytest.mark.parametrize(
    ("space", "outputs", "expected"),
    [
        (spaces.Discrete(3, start=-1), (0.0, 0.0, 40.0), 1),
        (spaces.Discrete(3, start=-1), (40.0, 0.0, 0.0), -1),
        (spaces.Box(-3.0, -1.0, (2, 1), np.float32), (9.0, -9.0, -9.0, -9.0), [[-1.0], [-3.0]]),
        (spaces.Box(np.array([0.0, -4.0]), np.array([1.0, 4.0]), dtype=np.float64), (0.0, 0.5, -9.0, -9.0), [0.5, 2.0]),
    ],
)
def test_actions_reach_the_environment_in_its_own_units(space: Any, outputs: tuple[float, ...], expected: Any) -> None:
    made: list[Remembering] = []

    def make() -> Remembering:
        made.append(Remembering())
        made[-1].action_space = space
        return made[-1]

    family = carts(make, steps=1)
    roll_out(family, constant(*outputs), count=1)
    action = np.asarray(made[0].action)
    assert action.shape == space.shape
    assert action.dtype == space.dtype
    assert space.contains(made[0].action)
    np.testing.assert_allclose(action, expected, atol=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            spaced(observation_space=spaces.Dict({"a": spaces.Discrete(2)})),
            r"^make: observations are Dict.*must be a Box",
        ),
        (spaced(observation_space=spaces.Discrete(2)), r"^make: observations are Discrete\(2\), must be a Box"),
        (
            spaced(action_space=spaces.MultiDiscrete([2, 2])),
            r"^make: actions are MultiDiscrete.*be a Discrete",
        ),
        (spaced(action_space=spaces.Box(-np.inf, 1.0, (1,))), r"^make: actions are Box\(-inf.*bounded Box"),
        (spaced(action_space=spaces.Box(0, 9, (1,), np.int64)), r"^make: actions are Box\(0, 9.*Box of floats"),
        (lambda: None, r"^make: returned None, must return a gymnasium\.Env"),
        (3, r"^make=3: must be callable as make\(\)"),
    ],
)
def test_environments_that_do_not_fit(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        carts(make)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"draw_task": 1}, r"^draw_task=1: must be callable as draw_task\(generator\)"),
        ({"set_task": None}, r"^set_task=None: must be callable as set_task\(env, task\)"),
        ({"steps": 0}, "^steps=0: must be a positive integer"),
        ({"shots": 1.5}, "^shots=1.5: must be a positive integer"),
        ({"return_scale": -1.0}, "^return_scale=-1.0: must be a positive number"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_gymnasium(**({"make": make_cart, "draw_task": draw_wage, "set_task": set_wage} | arguments))


@pytest.mark.parametrize("task", [None, {}, {"wage": "high"}, {"wage": math.nan}, {"wage": [1.0, math.inf]}])
def test_tasks_that_are_no_numbers(task: Any) -> None:
    family = from_gymnasium(make_cart, lambda generator: task, set_wage)
    with pytest.raises(
        ValueError, match=r"^draw_task: returned .*, must return a dict of finite numbers or arrays by name"
    ):
        roll_out(family, constant(0.0, 0.0))


@pytest.mark.parametrize("other", [{"wage": 1.0}, {"wage": np.ones(3), "shares": np.ones(2)}])
def test_tasks_that_do_not_go_together(other: Task) -> None:
    drawn = iter([{"wage": 1.0, "shares": np.ones(2)}, other])
    family = from_gymnasium(make_cart, lambda generator: next(drawn), set_wage)
    with pytest.raises(ValueError, match=r"^draw_task: returned names and shapes .*must always be the same"):
        roll_out(family, constant(0.0, 0.0), rows=2)


def test_one_environment_for_all_is_noticed() -> None:
    only = Cart()
    with pytest.raises(ValueError, match=r"^make: returned .* twice, must return a new environment at every call"):
        roll_out(carts(lambda: only), constant(0.0, 0.0))


# -- what is not a number ---------------------------------------------------------------------------------------------


class Broken(Cart):
    """Loses its senses at the third step."""

    def step(self, action: NDArray[Any]) -> Step:
        observation, reward, over, late, info = super().step(action)
        return observation + (math.nan if self.steps == 3 else 0.0), reward, over, late, info


@pytest.mark.parametrize(
    ("family", "outputs"),
    [
        (carts(), (math.nan, 0.0)),
        (carts(), (0.0, math.inf)),
        (poles(), (math.nan, 0.0)),
        (carts(Broken), (-1.0, -9.0)),
        (carts(lambda: Cart(sign=math.inf)), (0.0, 0.0)),
    ],
    ids=["mean", "deviation", "logit", "observation", "reward"],
)
def test_nonsense_makes_the_loss_no_number_and_nothing_else(
    family: GymnasiumFamily, outputs: tuple[float, ...]
) -> None:
    tasks = family.draw([np.random.default_rng(0)])
    batch = family.support(tasks, constant(*outputs), [np.random.default_rng(1)])
    assert not family.loss(torch.zeros(1, batch.inputs.shape[1], family.out_features), batch).isfinite().any()
    assert batch.inputs.isfinite().all()


# -- environments are kept, and never shared --------------------------------------------------------------------------


class Counting:
    """Makes carts and counts them."""

    made = 0

    def __call__(self) -> Cart:
        self.made += 1
        return Cart()


def test_environments_are_made_once() -> None:
    make = Counting()
    family = carts(make)
    for rows, count in ((3, 2), (3, 2), (1, 4), (2, 3)):
        roll_out(family, constant(0.0, 0.0), rows=rows, count=count)
    assert make.made == 6
    changed = family.replace(steps=3)
    roll_out(changed, constant(0.0, 0.0), rows=2)
    assert make.made == 6 + 4
    assert changed.environments is not family.environments


@pytest.mark.parametrize("copied", [lambda family: pickle.loads(pickle.dumps(family)), copy.deepcopy])
@pytest.mark.parametrize(
    "build", [carts, lambda: make_family("half_cheetah_direction", steps=5)], ids=["cart", "cheetah"]
)
def test_copies_have_environments_of_their_own(build: Callable[[], GymnasiumFamily], copied: Any) -> None:
    family = build()
    whole = roll_out(family, linear(family))
    another = copied(family)
    assert another == family
    assert another.environments.first is not family.environments.first
    assert same(whole, roll_out(another, linear(family)))


def test_ppo_trains_on_a_family_of_ones_own() -> None:
    family = carts(make_spread_cart, return_scale=10.0)
    envs = make_vec_env("NetBuild-v0", n_envs=4, family=family, width=6, layers=2, horizon=3)
    agent = PPO("MlpPolicy", envs, n_steps=6, batch_size=12, n_epochs=1, seed=0)
    before = [tensor.clone() for tensor in agent.policy.parameters()]
    agent.learn(24)
    changes = [not torch.equal(old, new) for old, new in zip(before, agent.policy.parameters(), strict=True)]
    assert all(tensor.isfinite().all() for tensor in agent.policy.parameters())
    assert any(changes)


# -- rewards, and tasks that are written over ----------------------------------------------------------------------


class Paying(gym.Env):
    """An environment with a given reward."""

    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Box(-1.0, 1.0, (1,))
    pay: Any = 1.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(2, np.float32), self.pay, False, False, {}


def pay_family(pay: Any) -> GymnasiumFamily:
    return from_gymnasium(
        type("Told", (Paying,), {"pay": pay}),
        lambda generator: {"goal": generator.random()},
        lambda env, task: None,
        shots=2,
        queries=2,
        steps=3,
    )


@pytest.mark.parametrize("pay", [2, 2.0, True + 1, np.float32(2), np.array(2.0), np.array([2.0]), torch.tensor([2.0])])
def test_rewards_are_one_number_in_whatever_form(pay: Any) -> None:
    assert (roll_out(pay_family(pay), constant(0.0, 0.0), rows=2).rewards == 2).all()


@pytest.mark.parametrize("pay", [np.ones(2), np.ones((0,)), "2", None, {"pay": 2}])
def test_other_rewards_are_named(pay: Any) -> None:
    with pytest.raises(ValueError, match="reward"):
        roll_out(pay_family(pay), constant(0.0, 0.0), rows=2)


def test_tasks_that_are_written_over_stay_what_they_were() -> None:
    """`draw_task` may fill and return the same array and dict every time."""
    goal, task = np.zeros(2), {}

    def fill(generator: np.random.Generator) -> dict[str, Any]:
        goal[:] = generator.random(2)
        task["goal"] = goal
        return task

    family = from_gymnasium(Paying, fill, lambda env, task: None)
    tasks = family.draw([np.random.default_rng(seed) for seed in range(4)])
    np.testing.assert_array_equal(tasks["goal"], [np.random.default_rng(seed).random(2) for seed in range(4)])
