"""Meta-gradients through policy-gradient steps: an exact bandit against finite differences, and the surrogates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.learning import Episodes, replay
from gym_reml.pool import LayerPool
from gym_reml.tasks.base import Batch, Forward, Generators, Tasks
from gym_reml.tasks.policies.base import PolicyFamily, Trajectories
from gym_reml.tasks.policies.distributions import Categorical, Distribution
from gym_reml.tasks.policies.surrogates import SURROGATES

every_surrogate = pytest.mark.parametrize("surrogate", SURROGATES)


# -- an exact bandit --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExactBandit(PolicyFamily):
    """A softmax policy over three arms; data are all arms, weighted by probability, so expectations are exact."""

    name: ClassVar[str] = "exact bandit"

    rewards: tuple[float, ...] = (1.0, -0.5, 2.0)
    baseline: bool = True
    steps: int = 1

    @property
    def in_features(self) -> int:
        return 1

    @property
    def distribution(self) -> Distribution:
        return Categorical(3)

    def draw(self, generators: Generators) -> Tasks:
        return {"none": np.zeros(len(generators))}

    def rollout(self, tasks: Tasks, forward: Forward, generators: Generators, count: int) -> Trajectories:
        raise NotImplementedError

    def data(self, logits: Tensor) -> Batch:
        """Data under the policy with these logits (3,), treated as constants."""
        probabilities = logits.detach().softmax(dim=0)
        rewards = torch.tensor(self.rewards, dtype=logits.dtype)
        advantage = rewards - (probabilities @ rewards if self.baseline else 0.0)
        extras = {
            "weighted_advantage": (probabilities * advantage).reshape(1, 3, 1),
            "weight": probabilities.reshape(1, 3, 1),
            "returns": rewards.reshape(1, 3),
        }
        inputs = torch.ones((1, 3, 1), dtype=logits.dtype)
        return Batch(inputs, torch.eye(3, dtype=logits.dtype).reshape(1, 3, 3), extras)


def bandit_pool() -> LayerPool:
    pool = LayerPool.random(in_features=1, out_features=3, width=4, layers=1, kind="tanh", seed=3)
    pool.parameters = {name: tensor.double() for name, tensor in pool.parameters.items()}
    return pool


def logits_of(pool: LayerPool, weights: dict[str, Tensor]) -> Tensor:
    """The policy of these weights, by plain torch."""
    one = torch.ones(1, dtype=torch.float64)
    hidden = torch.tanh(torch.cat([one, one]) @ weights["stem.matrix"])
    hidden = torch.tanh(torch.cat([hidden, one]) @ weights["layers.matrix"][0])
    logits = torch.cat([hidden, one]) @ weights["head.matrix"]
    return torch.cat([logits, weights["head.constants"][0]]) if "head.constants" in weights else logits


def expected_reward(weights: dict[str, Tensor], rewards: Sequence[float], pool: LayerPool) -> Tensor:
    return logits_of(pool, weights).softmax(dim=0) @ torch.tensor(rewards, dtype=torch.float64)


def ascended(weights: dict[str, Tensor], value: Tensor, rate: float) -> dict[str, Tensor]:
    slopes = torch.autograd.grad(value, list(weights.values()))
    return {name: (old + rate * slope).detach() for (name, old), slope in zip(weights.items(), slopes, strict=True)}


def adapted_value(pool: LayerPool, weights: dict[str, Tensor], family: ExactBandit, steps: int, rate: float) -> Tensor:
    """The true objective: expected reward after exact policy-gradient steps."""
    for _ in range(steps):
        weights = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
        value = expected_reward(weights, family.rewards, pool)
        weights = ascended(weights, value, rate)
    return expected_reward(weights, family.rewards, pool)


def finite_differences(pool: LayerPool, family: ExactBandit, steps: int, rate: float, size: float = 1e-5) -> Tensor:
    slopes = []
    for name, tensor in pool.parameters.items():
        for index in range(tensor.numel()):
            values = []
            for sign in (1.0, -1.0):
                moved = {key: value.clone() for key, value in pool.parameters.items()}
                moved[name].view(-1)[index] += sign * size
                values.append(float(adapted_value(pool, moved, family, steps, rate)))
            slopes.append((values[0] - values[1]) / (2.0 * size))
    return torch.tensor(slopes, dtype=torch.float64)


def meta_gradient(pool: LayerPool, family: ExactBandit, steps: int, rate: float, first_order: bool = False) -> Tensor:
    """The meta-gradient by replay of episodes whose trajectories contain every arm once."""
    leaves = [tensor.requires_grad_(True) for tensor in pool.parameters.values()]
    support: list[Batch] = []
    weights = {name: tensor.detach() for name, tensor in pool.parameters.items()}
    for _ in range(steps):
        support.append(family.data(logits_of(pool, weights)))
        weights = {name: tensor.requires_grad_() for name, tensor in weights.items()}
        weights = ascended(weights, expected_reward(weights, family.rewards, pool), rate)
    query = [family.data(logits_of(pool, weights))] * steps
    nothing = torch.zeros((steps, 1), dtype=torch.int64)
    sizes = torch.full((steps, 1), rate, dtype=torch.float64)
    episodes = Episodes(support, query, nothing, sizes, (1,), 1)
    losses, _, _ = replay(pool, family, episodes, first_order=first_order)
    gradients = torch.autograd.grad(-losses[-1].sum(), leaves)
    for leaf in leaves:
        leaf.requires_grad_(False)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


@pytest.mark.parametrize("surrogate", ["lvc", "dice"])
@pytest.mark.parametrize("baseline", [True, False])
@pytest.mark.parametrize("steps", [1, 3])
def test_the_meta_gradient_is_that_of_finite_differences(surrogate: str, baseline: bool, steps: int) -> None:
    pool, family = bandit_pool(), ExactBandit(surrogate=surrogate, baseline=baseline)
    expected = finite_differences(pool, family, steps, rate=0.7)
    torch.testing.assert_close(meta_gradient(pool, family, steps, 0.7), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("steps", [1, 3])
def test_plain_log_probabilities_miss_the_meta_gradient(steps: int) -> None:
    pool = bandit_pool()
    naive = meta_gradient(pool, ExactBandit(surrogate="first_order"), steps, 0.7)
    true = finite_differences(pool, ExactBandit(), steps, 0.7)
    assert (naive - true).norm() > 0.02 * true.norm()


@pytest.mark.parametrize("steps", [1, 3])
def test_plain_log_probabilities_are_first_order_maml_where_there_is_a_mean_baseline(steps: int) -> None:
    """Exactly so where the parameters are the logits: then dd log pi is the same for every arm."""
    pool = bandit_pool()
    head = pool.parameters["head.matrix"]
    pool.parameters |= {"head.matrix": head[:, :0], "head.constants": head[-1:]}
    naive = meta_gradient(pool, ExactBandit(surrogate="first_order"), steps, 0.7)
    first = meta_gradient(pool, ExactBandit(surrogate="lvc"), steps, 0.7, first_order=True)
    torch.testing.assert_close(naive, first, rtol=1e-9, atol=1e-12)
    without_baseline = ExactBandit(surrogate="first_order", baseline=False)
    assert (meta_gradient(pool, without_baseline, steps, 0.7) - first).norm() > 0.02 * first.norm()


@every_surrogate
def test_first_derivatives_agree(surrogate: str) -> None:
    generator = torch.Generator().manual_seed(0)
    log_probability = torch.randn((2, 3, 4), generator=generator, dtype=torch.float64).requires_grad_()
    advantage = torch.randn((2, 3, 4), generator=generator, dtype=torch.float64)
    loss = SURROGATES[surrogate](log_probability, advantage)
    assert loss.shape == (2,)
    (gradient,) = torch.autograd.grad(loss.sum(), log_probability)
    torch.testing.assert_close(gradient, -advantage)


def test_dice_keeps_products_with_earlier_steps_and_lvc_does_not() -> None:
    advantage = torch.tensor([[[0.0, 2.0]]], dtype=torch.float64)

    def mixed(surrogate: str) -> float:
        log_probability = torch.zeros((1, 1, 2), dtype=torch.float64, requires_grad=True)
        loss = SURROGATES[surrogate](log_probability, advantage).sum()
        (gradient,) = torch.autograd.grad(loss, log_probability, create_graph=True)
        if not gradient.requires_grad:
            return 0.0
        (second,) = torch.autograd.grad(gradient[0, 0, 1], log_probability)
        return float(second[0, 0, 0])

    assert [mixed(surrogate) for surrogate in ("dice", "lvc", "first_order")] == [-2.0, 0.0, 0.0]
