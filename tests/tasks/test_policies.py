"""Families of policies: distributions, baselines and advantages by hand, navigation, steps that are refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.learning import Episodes, replay
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import FAMILIES, SPLITS, make_family
from gym_reml.tasks.base import Batch, Forward, Tasks
from gym_reml.tasks.policies.advantages import linear_baseline, normalised, returns_to_go
from gym_reml.tasks.policies.base import PolicyFamily
from gym_reml.tasks.policies.distributions import Categorical, Distribution, Gaussian
from gym_reml.tasks.policies.navigation import Navigation
from gym_reml.tasks.policies.point import advance
from gym_reml.tasks.policies.surrogates import SURROGATES

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)


# -- distributions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("distribution", [Gaussian(2), Categorical(3)], ids=["gaussian", "categorical"])
def test_distributions_are_those_of_torch(distribution: Distribution) -> None:
    generator = torch.Generator().manual_seed(0)
    old, new = torch.randn((2, 500, distribution.outputs), generator=generator)
    actions = distribution.sample(old, torch.randn((500, distribution.size), generator=generator))

    def theirs(outputs: Tensor) -> Any:
        if isinstance(distribution, Categorical):
            return torch.distributions.OneHotCategorical(logits=outputs)
        mean, log_deviation = outputs.chunk(2, dim=-1)
        return torch.distributions.Independent(torch.distributions.Normal(mean, log_deviation.exp()), 1)

    torch.testing.assert_close(distribution.log_probability(old, actions), theirs(old).log_prob(actions))
    divergence = torch.distributions.kl_divergence(theirs(old), theirs(new))
    torch.testing.assert_close(distribution.divergence(old, new), divergence, rtol=1e-4, atol=1e-4)


def test_categorical_frequencies() -> None:
    logits = torch.tensor([1.0, 0.0, -1.0])
    noise = torch.randn((40_000, 3), generator=torch.Generator().manual_seed(0))
    frequency = Categorical(3).sample(logits.expand(40_000, 3), noise).mean(dim=0)
    torch.testing.assert_close(frequency, logits.softmax(dim=0), rtol=0, atol=0.01)


# -- advantages -------------------------------------------------------------------------------------------------------


def test_returns_to_go_by_hand() -> None:
    torch.testing.assert_close(returns_to_go(torch.tensor([1.0, 2.0, 4.0]), 0.5), torch.tensor([3.0, 4.0, 4.0]))


def test_the_baseline_is_each_rows_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn((2, 5, 30, 2), generator=generator)
    time = torch.arange(30) / 100.0
    truth = states @ torch.tensor([1.0, -2.0]) + 3.0 * states[..., 0] ** 2 + 5.0 * time**3 - 1.0
    targets = torch.stack([truth[0], -2.0 * truth[1]])
    active = torch.rand((2, 5, 30), generator=generator) < 0.8
    fitted = linear_baseline(states, torch.where(active, targets, 1e3), active)
    torch.testing.assert_close(fitted[active], targets[active], rtol=0, atol=0.05)


def test_normalised_counts_active_steps() -> None:
    values, active = torch.tensor([[[1.0, 3.0, 99.0]]]), torch.tensor([[[True, True, False]]])
    torch.testing.assert_close(normalised(values, active), torch.tensor([[[-1.0, 1.0, 0.0]]]))


# -- outputs that depend on a bias alone ------------------------------------------------------------------------------


def test_constant_outputs_stay_constant_through_adaptation_and_learning() -> None:
    family = make_family("navigation", shots=4, queries=4, steps=10)
    pool = LayerPool.random(in_features=2, out_features=4, width=8, layers=1, kind="relu", constant_outputs=2, seed=0)
    mdp = TrainingMDP(3, family, pool, Objective(2), slots=1, initial_layers=(1,), step_range=(0.5, 0.5))
    mdp.seed(range(3), many_streams(0, 3, "train"))
    mdp.reset()
    mdp.train(np.zeros(3, dtype=np.int64), np.full(3, 0.5, dtype=np.float32))
    outputs = mdp.outputs(torch.randn((3, 6, 2), generator=torch.Generator().manual_seed(0)))
    deviations = outputs[..., 2:]
    assert (deviations == deviations[:, :1]).all()
    assert (deviations[:, 0] != 0.0).all(), "the bias has adapted"
    assert (outputs[..., :2] != outputs[:, :1, :2])[:, 1:].all()
    leaves = [tensor.requires_grad_(True) for tensor in pool.parameters.values()]
    layers, sizes = torch.zeros((1, 3), dtype=torch.int64), torch.full((1, 3), 0.5)
    losses, _, _ = replay(pool, family, Episodes([mdp.support], [mdp.query], layers, sizes, (1,), 1))
    gradients = dict(zip(pool.parameters, torch.autograd.grad(losses.sum(), leaves), strict=True))
    assert gradients["head.matrix"].shape == (9, 2), "constants have no weights"
    assert (gradients["head.constants"] != 0.0).all()


@pytest.mark.parametrize("value", [-1, 5, True, 1.5, "1"])
def test_bad_constant_outputs(value: Any) -> None:
    with pytest.raises(ValueError, match=r"constant_outputs=.*out_features=4"):
        LayerPool.random(in_features=2, out_features=4, constant_outputs=value)


# -- what holds for every family of policies --------------------------------------------------------------------------

TINY = {"shots": 2, "queries": 3, "steps": 6}
SMALL: dict[str, dict[str, Any]] = {
    "navigation": {"shots": 3, "queries": 4, "steps": 9},
    "half_cheetah_direction": TINY,
    "half_cheetah_velocity": TINY,
    "ant_direction": TINY,
}
EVERY = pytest.mark.parametrize("name", [name for name, kind in FAMILIES.items() if not kind.fixed_data])


def make(name: str, **arguments: Any) -> PolicyFamily:
    family = make_family(name, **(SMALL[name] | arguments))
    assert isinstance(family, PolicyFamily)
    return family


def policy(family: PolicyFamily) -> Forward:
    """One that depends on where it is, and on nothing else: not even on the size of a batch, as products would."""
    seen = torch.arange(family.out_features - family.constant_outputs) % family.in_features

    def forward(inputs: Tensor) -> Tensor:
        constant = inputs.new_full((*inputs.shape[:-1], family.constant_outputs), -2.0)
        return torch.cat([inputs[..., seen] * -0.3, constant], dim=-1)

    return forward


def collect(family: PolicyFamily, seed: int, count: int) -> tuple[Tasks, Batch, Batch]:
    streams = many_streams(seed, count, family.split)
    tasks = family.draw([row.task for row in streams])
    support = family.support(tasks, policy(family), [row.support for row in streams])
    return tasks, support, family.query(tasks, policy(family), [row.query for row in streams])


@EVERY
def test_shapes_and_types(name: str) -> None:
    family = make(name)
    _, support, query = collect(family, 0, 5)
    for batch, trajectories in ((support, family.shots), (query, family.queries)):
        assert batch.inputs.shape == (5, trajectories * family.steps, family.in_features)
        assert batch.targets.shape == (5, trajectories * family.steps, family.distribution.size)
        assert batch.extras["returns"].shape == (5, trajectories)
        torch.testing.assert_close(batch.extras["weight"].sum(dim=(1, 2)), torch.ones(5))
        for tensor in (batch.inputs, batch.targets, *batch.extras.values()):
            assert tensor.dtype == torch.float32
            assert tensor.isfinite().all()


@EVERY
def test_a_row_of_a_batch_is_the_row_alone(name: str) -> None:
    family = make(name)
    tasks, *batches = collect(family, 11, 4)
    for row in range(4):
        alone, *singles = collect(family, 11 + row, 1)
        assert family.describe(alone, 0) == family.describe(tasks, row)
        for whole, single in zip(batches, singles, strict=True):
            torch.testing.assert_close(single.inputs[0], whole.inputs[row])
            torch.testing.assert_close(single.targets[0], whole.targets[row])
            for key, tensor in single.extras.items():
                torch.testing.assert_close(tensor[0], whole.extras[key][row], rtol=1e-3, atol=1e-5)


@EVERY
def test_splits_never_meet_and_support_is_not_query(name: str) -> None:
    seen: list[set[tuple[float, ...]]] = []
    for split in SPLITS:
        for batch in collect(make(name, split=split), 0, 50)[1:]:
            seen.append({tuple(action) for action in batch.targets.flatten(0, 1).tolist()})
    for number, one in enumerate(seen):
        assert all(not one & other for other in seen[number + 1 :])


@EVERY
def test_the_size_of_one_set_never_moves_the_other(name: str) -> None:
    small = make(name)
    _, support, query = collect(small, 0, 3)
    assert torch.equal(collect(make(name, queries=7), 0, 3)[1].targets, support.targets)
    assert torch.equal(collect(make(name, shots=7), 0, 3)[2].targets, query.targets)


@EVERY
@every_surrogate
def test_the_output_gradient_is_the_gradient_and_has_one(name: str, surrogate: str) -> None:
    family = make(name, surrogate=surrogate)
    batch = collect(family, 0, 2)[1].map(lambda tensor: tensor.double())
    outputs = policy(family)(batch.inputs).requires_grad_()
    (expected,) = torch.autograd.grad(family.loss(outputs, batch).sum(), outputs)
    torch.testing.assert_close(family.output_gradient(outputs.detach(), batch), expected)
    assert family.output_gradient(outputs, batch).requires_grad


@EVERY
def test_the_signal_does_not_depend_on_the_number_of_trajectories(name: str) -> None:
    family = make(name)
    _, batch, _ = collect(family, 0, 3)
    twice = batch.map(lambda tensor: torch.cat([tensor, tensor], dim=1))
    for name in ("weighted_advantage", "weight"):
        twice.extras[name] *= 0.5
    signals = [family.support_signal(policy(family)(data.inputs), data) for data in (batch, twice)]
    assert signals[0].shape == (3, family.signal_size)
    torch.testing.assert_close(signals[0], signals[1])


# -- navigation -------------------------------------------------------------------------------------------------------


def test_a_step_by_hand() -> None:
    position, action, goal = np.array([0.0, 0.1]), np.array([0.5, -0.05]), np.array([0.4, 0.05])
    moved, reward, reached = advance(position, action, goal)
    np.testing.assert_allclose(moved, [0.1, 0.05])
    assert reward == pytest.approx(-0.3)
    assert not reached
    assert advance(np.array([0.4, 0.05]), np.array([0.005, 0.0]), goal)[2]


def constant_policy(mean: Sequence[float]) -> Forward:
    outputs = torch.tensor([*mean, math.log(1e-3), math.log(1e-3)])
    return lambda inputs: outputs.expand(*inputs.shape[:-1], 4)


def test_a_straight_walk_is_paid_minus_its_distances_and_ends_at_the_goal() -> None:
    family = Navigation(steps=20)
    generators = [np.random.default_rng(0)]
    # Twice the largest move of .1, which is what actions are counted in: it is cut, to .4, .3, .2, .1 and 0 away.
    trajectories = family.rollout({"goal": np.array([[0.5, 0.0]])}, constant_policy((2.0, 0.0)), generators, 3)
    torch.testing.assert_close(trajectories.rewards.sum(dim=2), torch.full((1, 3), -1.0), rtol=0, atol=2e-3)
    assert (trajectories.active.sum(dim=2) == 5).all()
    assert (trajectories.rewards[~trajectories.active] == 0.0).all()


def test_the_loss_is_minus_the_mean_return_and_its_derivative_the_policy_gradient() -> None:
    family = Navigation(shots=4, steps=7)
    tasks = family.draw([np.random.default_rng(seed) for seed in range(2)])
    forward = constant_policy((0.02, -0.03))
    batch = family.support(tasks, forward, [np.random.default_rng(seed) for seed in range(2)])
    outputs = forward(batch.inputs).clone().requires_grad_()
    loss = family.loss(outputs, batch)
    returns = batch.extras["returns"]
    torch.testing.assert_close(loss, -returns.mean(dim=1))
    torch.testing.assert_close(family.metrics(outputs, batch, loss)["return"], returns.mean(dim=1))
    mean = outputs.detach()[..., :2]
    advantage = batch.extras["weighted_advantage"].flatten(1).unsqueeze(2)
    expected = -advantage * (batch.targets - mean) / 1e-6
    found = family.output_gradient(outputs.detach(), batch)[..., :2]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 0}, "steps=0: must be a positive integer"),
        ({"discount": 1.5}, "discount=1.5: must be a number from 0 to 1"),
        ({"discount": "0.9"}, "discount='0.9': must be a number from 0 to 1"),
        ({"surrogate": ["lvc"]}, "surrogate=\\['lvc'\\]: must be one of"),
        ({"return_scale": "9"}, "return_scale='9': must be a positive number"),
        ({"return_scale": 0.0}, "return_scale=0.0: must be a positive number"),
        ({"return_scale": math.inf}, "return_scale=inf: must be a positive number"),
        ({"surrogate": "plain"}, "surrogate='plain': must be one of 'lvc', 'dice', 'first_order'"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Navigation(**arguments)


def test_the_environment_of_navigation_pays_minus_the_return_over_its_scale() -> None:
    small: dict[str, Any] = {"shots": 3, "queries": 3, "family_kwargs": {"steps": 8}, "width": 6, "layers": 2}
    env = gym.make("NetBuild-v0", family="navigation", observation="dict", **small)
    observation, info = env.reset(seed=0)
    assert set(info["task"]) == {"goal"}
    assert observation["task"].shape == (4,)
    assert observation["task"][0] == pytest.approx(-info["support_loss"] / Navigation.return_scale, rel=1e-5)
    _, reward, _, _, info = env.step(env.action_space.sample())
    assert info["query_return"] == pytest.approx(-info["query_loss"])
    assert reward == pytest.approx(info["query_return"] / Navigation.return_scale / 5)


# -- steps that are refused -------------------------------------------------------------------------------------------

REFUSED: dict[str, Any] = {
    "family": "navigation",
    "family_kwargs": {"steps": 15},
    "pool": "random",
    **{"shots": 4, "queries": 4, "layers": 1, "width": 8, "layer_kind": "relu", "depth": 1, "initial_layers": [1]},
    **{"horizon": 4, "min_step": 0.05, "max_step": 1e38, "action": "hybrid"},
}


def step_of(size: float) -> dict[str, Any]:
    return {"layer": 0, "step_size": np.array([size], dtype=np.float32)}


@pytest.mark.parametrize("vector", [False, True])
def test_a_refused_step_leaves_policies_and_their_trajectories_as_they_were(vector: bool) -> None:
    def run(size: float) -> list[Any]:
        env: Any
        if vector:
            env = gym.make_vec("NetBuild-v0", num_envs=3, **REFUSED)
            sizes = np.array([[size], [-1.0], [size]], dtype=np.float32)
            actions = [
                {"layer": np.zeros(3, dtype=np.int64), "step_size": np.where(sizes > 0, at, -1.0)}
                for at in (size, -1.0)
            ]
        else:
            env = gym.make("NetBuild-v0", **REFUSED)
            actions = [step_of(size), step_of(-1.0)]
        return [env.reset(seed=0), *map(env.step, actions)]

    (_, before), (_, reward, _, _, info), (_, _, _, _, later) = run(1.0)
    refused = np.array([True, False, True]) if vector else np.array(True)
    np.testing.assert_array_equal(info["diverged"], refused)
    for name in ("support_loss", "query_loss", "query_return"):
        np.testing.assert_array_equal(np.asarray(info[name])[refused], np.asarray(before[name])[refused], err_msg=name)
        assert np.isfinite(info[name]).all()
    # What the unchanged network earns, less 1 / H.
    earned = -np.asarray(before["query_loss"]) / Navigation.return_scale / 4 - 1 / 4
    assert np.asarray(reward)[refused] == pytest.approx(earned[refused], rel=1e-5)
    assert not np.any(later["diverged"]), "the next, small step is taken from there"


def test_what_is_not_finite_from_the_start_is_at_the_cap() -> None:
    family = make_family("navigation", **SMALL["navigation"])
    pool = LayerPool.random(in_features=2, out_features=4, width=4, layers=1, kind="relu", constant_outputs=2)
    pool.parameters["head.matrix"][-1, 2:] = 200.0
    mdp = TrainingMDP(2, family, pool, Objective(2), slots=1, initial_layers=(1,), step_range=(0.1, 0.1))
    mdp.seed(range(2), many_streams(0, 2, "train"))
    info = mdp.reset()
    assert np.isfinite(info["query_loss"]).all()
    np.testing.assert_array_equal(info["query_return"], -info["query_loss"])
    assert np.isfinite(mdp.observe()).all()
