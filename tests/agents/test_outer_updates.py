"""How initial weights of policies follow the meta-gradient, by hand and by double backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.pools import outer_updates
from agents.pools.outer_updates import (
    OUTER_UPDATES,
    Ascent,
    Proximal,
    TrustRegion,
    adapted_outputs,
    conjugate_gradients,
)
from agents.pools.reinforcement import adapt_policies
from agents.problems.problem import Problem, own_shape
from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.pool import LayerPool
from gym_reml.tasks.policies.base import PolicyFamily
from tests.support.small_policies import RECIPE, family


def prepared(update: Callable[[LayerPool, PolicyFamily, float], Any], seed: int = 0) -> tuple[LayerPool, Any, Any]:
    shape, many = own_shape(RECIPE), family(shots=10, queries=10)
    pool = shape.fresh(many, seed)
    mdp = shape.process(Problem(many, RECIPE, 40, seed), pool, 20, horizon=1, step=0.5)
    return pool, adapt_policies(mdp, 0.5), update(pool, many, RECIPE.bootstrap_learning_rate)


def test_a_step_of_adam_goes_against_the_policy_gradient() -> None:
    pool, episodes, update = prepared(Ascent)
    before = {name: tensor.clone() for name, tensor in pool.parameters.items()}
    leaves = [tensor.requires_grad_(True) for tensor in pool.parameters.values()]
    outputs = adapted_outputs(pool, update.family, episodes)
    batch = episodes.query[-1]
    plain = -(update.family.log_probability(outputs, batch) * batch.extras["weighted_advantage"]).sum() / 20
    gradients = torch.autograd.grad(plain, leaves)
    for leaf in leaves:
        leaf.requires_grad_(False)
    update(episodes, 0.0)
    for (name, tensor), gradient in zip(pool.parameters.items(), gradients, strict=True):
        moved = tensor - before[name]
        clear = gradient.abs() > 1e-4 * gradient.abs().max()
        assert torch.equal(moved[clear].sign(), -gradient[clear].sign()), name
        # Adam's first step has the size of its rate wherever there is a gradient.
        assert moved[clear].abs().max() == pytest.approx(RECIPE.bootstrap_learning_rate, rel=0.05)


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_deviations_may_learn_at_a_rate_of_their_own(scale: float) -> None:
    """As if all learned at it, while everything else learns as before."""
    pool, episodes, update = prepared(Ascent)
    pools = {rates: pool.clone() for rates in ((1e-3, 2e-2), (1e-3, None), (2e-2, None))}
    for (rate, constants), copy in pools.items():
        options = LearningOptions(learning_rate=rate, constants_learning_rate=constants)
        learner = PoolLearner(copy, update.family, "maml", options)
        learner.scale_rates(scale)
        learner.update(episodes)
    both, slow, fast = pools.values()
    assert pool.parameters["head.constants"].tolist() == [[0.0, 0.0]]
    learned = [each.parameters["head.constants"] for each in (both, slow, fast)]
    torch.testing.assert_close(learned[0], learned[2])
    assert (learned[0].abs() > 0.9 * 2e-2 * scale).all()
    learned[0].copy_(learned[1])
    for name, tensor in slow.parameters.items():
        assert torch.equal(both.parameters[name], tensor), name


def test_ppo_goes_on_until_the_ratio_leaves_the_clip_range() -> None:
    """Points whose advantage is spent give no gradient; the others are as without the clip."""
    generator = torch.Generator().manual_seed(0)
    new = torch.randn((2, 3, 4), generator=generator, dtype=torch.float64).requires_grad_()
    old = torch.zeros_like(new)
    advantage = torch.randn((2, 3, 4), generator=generator, dtype=torch.float64)
    _, episodes, _ = prepared(Proximal)
    batch = episodes.query[-1]
    batch.extras["weighted_advantage"] = advantage
    (clipped,) = torch.autograd.grad(Proximal._loss(new, old, batch), new)
    (plain,) = torch.autograd.grad(Ascent._loss(new, old, batch), new)
    ratio = new.detach().exp()
    spent = ((advantage > 0) & (ratio > 1.2)) | ((advantage < 0) & (ratio < 0.8))
    assert 0 < spent.sum() < spent.numel()
    torch.testing.assert_close(clipped, torch.where(spent, 0.0, plain))


def test_ppo_takes_several_steps_on_the_same_trajectories() -> None:
    pool, episodes, update = prepared(Proximal)
    once_pool, once_episodes, once = prepared(Ascent)
    update(episodes, 0.0)
    once(once_episodes, 0.0)
    start, _, _ = prepared(Ascent)

    def distance(other: LayerPool) -> float:
        return float((other.parameters["layers.matrix"] - start.parameters["layers.matrix"]).norm())

    assert distance(pool) > 2.0 * distance(once_pool)


def test_the_trust_region_is_kept_and_the_objective_falls() -> None:
    pool, episodes, update = prepared(TrustRegion)
    with torch.no_grad():
        old = adapted_outputs(pool, update.family, episodes)
    before = float(update._loss(old, old, episodes.query[-1]))
    update(episodes, 0.0)
    with torch.no_grad():
        new = adapted_outputs(pool, update.family, episodes)
    moved = float(update._divergence(new, old, episodes.query[-1]))
    assert 0.1 * outer_updates.RADIUS < moved <= outer_updates.RADIUS
    assert float(update._loss(new, old, episodes.query[-1])) < before


def test_the_curvature_is_the_hessian_of_the_divergence() -> None:
    """Against differentiating the divergence twice, through the inner step and all."""
    pool, episodes, update = prepared(TrustRegion)
    leaves = list(pool.parameters.values())
    generator = torch.Generator().manual_seed(1)
    vector = torch.randn(sum(leaf.numel() for leaf in leaves), generator=generator)
    with outer_updates.requires_grad(leaves):
        batch = episodes.query[-1]
        outputs = adapted_outputs(pool, update.family, episodes)
        divergence = update._divergence(outputs, outputs.detach(), batch)
        slope = outer_updates.flatten(torch.autograd.grad(divergence, leaves, create_graph=True))
        expected = outer_updates.flatten(torch.autograd.grad(slope @ vector, leaves)) + outer_updates.DAMPING * vector
        product = update.curvature(episodes)(vector)
    torch.testing.assert_close(product, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert all(mine is leaf for mine, leaf in zip(pool.parameters.values(), leaves, strict=True))


def test_conjugate_gradients_solve() -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn((6, 6), generator=generator, dtype=torch.float64)
    matrix = root @ root.T + torch.eye(6, dtype=torch.float64)
    right = torch.randn(6, generator=generator, dtype=torch.float64)
    products: list[Tensor] = []

    def product(vector: Tensor) -> Tensor:
        products.append(vector)
        return matrix @ vector

    torch.testing.assert_close(conjugate_gradients(product, right, 6), torch.linalg.solve(matrix, right))
    assert len(products) <= 6
    assert torch.equal(conjugate_gradients(product, torch.zeros_like(right), 6), torch.zeros_like(right))


def test_outer_updates_are_those_of_the_command() -> None:
    assert set(OUTER_UPDATES) == {"adam", "ppo", "trpo"}
