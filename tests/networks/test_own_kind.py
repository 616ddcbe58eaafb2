"""A layer kind from outside: a class and an entry of LAYER_KINDS."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.networks.dense import Dense
from gym_reml.networks.layer_kinds import LAYER_KINDS, Derivatives, LayerKind, Saved
from gym_reml.pool import LayerPool
from tests.support.env_helpers import SMALL, play, play_vector

FILLED = [True, True]


class ScaledSilu(LayerKind):
    """gain z sigmoid(z) + shift, with gain and shift learned."""

    name = "scaled_silu"
    normalised = True

    def forward(self, z: Tensor, norm: Tensor | None, out: Tensor | None) -> tuple[Tensor, Saved]:
        assert norm is not None
        gate = torch.sigmoid(z)
        return torch.addcmul(norm[:, 1:2], z * gate, norm[:, :1], out=out), (z, gate)

    def backward(self, upstream: Tensor, saved: Saved, norm: Tensor | None, out: Tensor | None) -> Derivatives:
        assert norm is not None
        z, gate = saved
        norm_gradient = torch.stack([(upstream * z * gate).sum(dim=1), upstream.sum(dim=1)], dim=1)
        return upstream * norm[:, :1] * gate * (1.0 + z * (1.0 - gate)), norm_gradient


@pytest.fixture(autouse=True)
def _in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYER_KINDS, ScaledSilu.name, ScaledSilu())


def test_its_gradient_is_that_of_autograd() -> None:
    generator = torch.Generator().manual_seed(0)
    pool = LayerPool.random(in_features=3, out_features=2, width=7, layers=4, kind="scaled_silu", adapt_stem=True)
    weights = pool.assemble(torch.tensor([[1, 2, 3], [4, 4, 1]])).weights
    doubles = [
        torch.randn(tensor.shape, generator=generator, dtype=torch.float64).requires_grad_()
        for tensor in weights.tensors()
    ]
    weights = weights.like(doubles)
    inputs = torch.randn(3, 5, 3, generator=generator, dtype=torch.float64)
    targets = torch.randn(3, 5, 2, generator=generator, dtype=torch.float64)
    architecture = Dense(LAYER_KINDS["scaled_silu"])
    trace = architecture.forward(weights, architecture.prepare(inputs, {}), filled=FILLED)
    by_hand = architecture.gradient(weights, trace, output_gradient=trace.outputs - targets, filled=FILLED)
    by_autograd = torch.autograd.grad(0.5 * (trace.outputs - targets).square().sum(), weights.tensors())
    for one, other in zip(by_hand.tensors(), by_autograd, strict=True):
        torch.testing.assert_close(one, other)


def test_episodes_run_with_it_and_descend() -> None:
    arguments: dict[str, Any] = SMALL | {"layer_kind": "scaled_silu", "initial_layers": (1, 2), "min_step": 1e-6}
    env: Any = gym.make("NetBuild-v0", **arguments).unwrapped
    assert env.pool.kind == "scaled_silu"
    action = env.action_encoding.encode(env.decision.decide(1, step_size=-1.0))[0]
    trail = play(env, [action] * 5, seed=0)
    assert trail[5][2]
    # A tiny step along the gradient reduces the support loss; the environment's network is the exported one.
    losses = [info["support_loss"] for *_, info in trail[:6]]
    assert (np.diff(losses) < 0.0).all()
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=2, **arguments)
    first = play_vector(envs, [np.stack([action] * 2)], seed=0)[1]
    assert first[1][0] == pytest.approx(trail[1][1], rel=1e-4)


def test_without_its_row_it_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(LAYER_KINDS, "scaled_silu")
    with pytest.raises(ValueError, match=r"layer_kind='scaled_silu': must be one of 'relu', 'tanh'"):
        gym.make("NetBuild-v0", **SMALL, layer_kind="scaled_silu")


def test_another_kind_in_its_row_takes_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a notebook's cell with the class is run again."""
    pool = LayerPool.random(in_features=3, out_features=2, width=7, layers=4, kind="scaled_silu")
    first, again = pool.architecture, ScaledSilu()
    assert pool.architecture is first
    monkeypatch.setitem(LAYER_KINDS, ScaledSilu.name, again)
    assert isinstance(pool.architecture, Dense)
    assert pool.architecture.kind is again
