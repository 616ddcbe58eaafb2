"""How initial weights of policies follow the meta-gradient, by hand and by double backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from agents.pools import outer_updates
from agents.pools.outer_updates import (
    OUTER_UPDATES,
    Ascent,
    Proximal,
    adapted_outputs,
    conjugate_gradients,
)
from agents.pools.reinforcement import adapt_policies
from agents.problems.problem import Problem, own_shape
from gym_reml.learning import LearningOptions, PoolLearner
from gym_reml.pool import LayerPool
from gym_reml.tasks.base import Batch
from tests.support.small_policies import RECIPE, family

RATE = 5e-3
"""Adam's learning rate of the weights."""


def prepared(
    outer: str, *, constants: float | None = None, rates: tuple[float, ...] = (0.5,), **changes: Any
) -> tuple[LayerPool, Any, Any]:
    """A pool, episodes under it, and what updates it by them; `changes` are of the networks' shape."""
    shape, many = replace(own_shape(RECIPE), **changes), family(shots=10, queries=10)
    problem = Problem(many, RECIPE, 40, 0)
    pool = shape.fresh(problem)
    mdp = shape.process(problem, pool, 20, horizon=1)
    return pool, adapt_policies(mdp, rates), OUTER_UPDATES[outer](pool, many, RATE, constants)


def test_a_step_of_adam_goes_against_the_policy_gradient() -> None:
    pool, episodes, update = prepared("adam")
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
        assert moved[clear].abs().max() == pytest.approx(RATE, rel=0.05)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_the_meta_gradient_goes_through_every_update(clip: float | None) -> None:
    """Against networks, updates and losses written out for each task, and differentiated through both updates."""
    rates = (0.5, 0.25)
    pool, episodes, update = prepared("adam", rates=rates, clip=clip)
    with outer_updates.requires_grad(update.leaves):
        _, _, found = update.gradient(episodes)

    def loss(weights: list[Tensor], batch: Batch, row: int) -> Tensor:
        stem, layer, head, constants = weights
        hidden = batch.inputs[row]
        for matrix in (stem, layer):
            hidden = (hidden @ matrix[:-1] + matrix[-1]).relu()
        mean = hidden @ head[:-1] + head[-1]
        deviation = constants[0]
        unit = (batch.targets[row] - mean) / deviation.exp()
        log = -(0.5 * unit.square() + deviation).sum(dim=1)
        return -((log - log.detach()).exp() * batch.extras["weighted_advantage"][row].flatten()).sum()

    names = ("stem.matrix", "layers.matrix", "head.matrix", "head.constants")
    leaves = [pool.parameters[name].detach().clone().requires_grad_() for name in names]
    total = torch.zeros(())
    for row in range(len(episodes)):
        weights = [leaf[0] if name == "layers.matrix" else leaf for name, leaf in zip(names, leaves, strict=True)]
        for step, rate in enumerate(rates):
            gradients = torch.autograd.grad(loss(weights, episodes.support[step], row), weights, create_graph=True)
            length = torch.cat([gradient.flatten() for gradient in gradients]).norm()
            shrunk = 1.0 if clip is None else clip / length.clamp_min(clip)
            weights = [old - rate * shrunk * each for old, each in zip(weights, gradients, strict=True)]
        total = total + loss(weights, episodes.query[-1], row) / len(episodes)
    for name, expected in zip(names, torch.autograd.grad(total, leaves), strict=True):
        gradient = found[list(pool.parameters).index(name)]
        torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("outer", OUTER_UPDATES)
def test_log_deviations_learn_at_their_own_rate_where_there_are_rates(outer: str) -> None:
    """Adam's first step is as long as its rate; the rest learns as before, and a trust region has no rates."""
    start, fast = RATE, 4 * RATE
    pools = {}
    for constants in (None, fast):
        pools[constants], episodes, update = prepared(outer, constants=constants)
        before = pools[constants].parameters["head.constants"].clone()
        update.epochs = 1
        update(episodes, 0.0)
        moved = (pools[constants].parameters["head.constants"] - before).abs()
        if outer != "trpo":
            torch.testing.assert_close(moved, torch.full_like(moved, constants or start), rtol=1e-3, atol=0.0)
    for name, tensor in pools[None].parameters.items():
        same = torch.equal(tensor, pools[fast].parameters[name])
        assert same == (outer == "trpo" or name != "head.constants"), name


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_deviations_may_learn_at_a_rate_of_their_own(scale: float) -> None:
    """As if all learned at it, while everything else learns as before."""
    pool, episodes, update = prepared("adam")
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
    _, episodes, _ = prepared("ppo")
    batch = episodes.query[-1]
    batch.extras["weighted_advantage"] = advantage
    (clipped,) = torch.autograd.grad(Proximal._loss(new, old, batch), new)
    (plain,) = torch.autograd.grad(Ascent._loss(new, old, batch), new)
    ratio = new.detach().exp()
    spent = ((advantage > 0) & (ratio > 1.2)) | ((advantage < 0) & (ratio < 0.8))
    assert 0 < spent.sum() < spent.numel()
    torch.testing.assert_close(clipped, torch.where(spent, 0.0, plain))


def test_ppo_takes_several_steps_on_the_same_trajectories() -> None:
    pool, episodes, update = prepared("ppo")
    once_pool, once_episodes, once = prepared("adam")
    update(episodes, 0.0)
    once(once_episodes, 0.0)
    start, _, _ = prepared("adam")

    def distance(other: LayerPool) -> float:
        return float((other.parameters["layers.matrix"] - start.parameters["layers.matrix"]).norm())

    assert distance(pool) > 2.0 * distance(once_pool)


def test_the_trust_region_is_kept_and_the_objective_falls() -> None:
    pool, episodes, update = prepared("trpo")
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
    pool, episodes, update = prepared("trpo")
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
