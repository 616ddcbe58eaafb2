"""Exported sub-networks equal the environment's bitwise, for every layer kind and history."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from gym_reml.networks.compiled import CompiledDense
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from tests.support.env_helpers import sample_actions

pytestmark = pytest.mark.filterwarnings("error")
NAVIGATION: dict[str, Any] = {"family": "navigation", "family_kwargs": {"steps": 4}, "shots": 3, "queries": 3}


def make(kind: str, rows: int, policy: bool = False, step_norms: bool | None = None, **changes: Any) -> Any:
    """The vector environment; `step_norms`: norms for each step, without (False) or with running statistics."""
    sizes: dict[str, Any] = {"in_features": 1, "out_features": 1}
    if policy:
        sizes = {"in_features": 2, "out_features": 4, "constant_outputs": 2}
    pool = LayerPool.random(**sizes, width=40, layers=3, kind=kind, **changes)
    if step_norms is not None:
        pool = pool.with_step_norms(3, statistics=step_norms)
        for tensor in (*pool.statistics.values(), pool.parameters["layers.norm"], pool.parameters["stem.norm"]):
            tensor += torch.rand(tensor.shape, generator=torch.Generator().manual_seed(1))
    arguments = NAVIGATION if policy else {}
    return gym.make_vec("NetBuild-v0", num_envs=rows, pool=pool, max_step=3.0, depth=3, **arguments).unwrapped


def assert_exact(envs: Any) -> None:
    inputs = envs.mdp.query.inputs
    outputs = envs.mdp.outputs(inputs)
    for row in {0, envs.num_envs // 2, envs.num_envs - 1}:
        network = envs.export(row)
        for found, expected in ((network(inputs[row]), outputs[row]), (network(inputs[row][None]), outputs[row][None])):
            if isinstance(envs.mdp.networks.architecture, CompiledDense):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            else:
                assert torch.equal(found, expected)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("policy", [False, True])
@pytest.mark.parametrize("adapt_stem", [False, True])
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_outputs_are_the_environments(kind: str, adapt_stem: bool, policy: bool, rows: int) -> None:
    envs = make(kind, rows, policy, adapt_stem=adapt_stem)
    envs.reset(seed=0)
    assert_exact(envs)
    depths, refused = set(), False
    for action in sample_actions(envs.action_space, 5):
        info = envs.step(action)[-1]
        depths |= set(info["depth"].tolist())
        refused |= bool(info["diverged"].any())
        assert_exact(envs)
    assert len(depths) > 1


@pytest.mark.parametrize("statistics", [False, True])
@pytest.mark.parametrize("rows", [1, 3])
def test_norms_of_each_step(rows: int, statistics: bool) -> None:
    envs = make("batch_norm", rows, step_norms=statistics)
    envs.reset(seed=0)
    for action in sample_actions(envs.action_space, 5):
        assert_exact(envs)
        envs.step(action)


@pytest.mark.parametrize("policy", [False, True])
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_one_point_is_a_pass_of_its_own(kind: str, policy: bool) -> None:
    """Inputs without batch dimensions, as in `nn.Linear`: a policy gets one observation at a time."""
    envs = make(kind, 2, policy)
    envs.reset(seed=0)
    envs.step(next(iter(sample_actions(envs.action_space, 1))))
    network, inputs = envs.export(1), envs.mdp.query.inputs[1].reshape(-1, 2 if policy else 1)
    assert network(inputs[0]).shape == (4 if policy else 1,)
    assert torch.equal(network(inputs[0]), network(inputs[:1])[0])


def test_after_a_refused_step() -> None:
    envs = gym.make_vec("NetBuild-v0", num_envs=3, action="hybrid", layer_kind="relu", pool="random", max_step=1e6)
    envs = envs.unwrapped
    envs.reset(seed=0)
    steps = np.array([[1.0], [-1.0], [1.0]], dtype=np.float32)
    diverged = [envs.step({"layer": np.array([1, 2, 3]), "step_size": steps})[-1]["diverged"] for _ in range(3)]
    assert np.any(diverged)
    assert_exact(envs)


def test_it_is_a_module_of_its_own() -> None:
    env: Any = gym.make("NetBuild-v0", pool="random", initial_layers=[2]).unwrapped
    with pytest.raises(gym.error.ResetNeeded, match=r"reset\(\) before export\(\)"):
        env.export()
    env.reset(seed=0)
    before = torch.random.get_rng_state()
    network = env.export()
    assert torch.equal(torch.random.get_rng_state(), before)
    inputs = env.mdp.query.inputs[0]
    outputs = network(inputs)
    assert set(network.state_dict()) == {
        f"{layer}.{part}" for layer in ("stem", "layers.0", "head") for part in ("weight", "bias")
    }
    # Every layer's parameters fit torch's own.
    plain = torch.nn.Sequential(*(torch.nn.Linear(*shape) for shape in ((1, 40), (40, 40), (40, 1))))
    for layer, own in zip(plain, (network.stem, network.layers[0], network.head), strict=True):
        layer.load_state_dict(own.state_dict())
    stem = torch.relu(plain[0](inputs))
    torch.testing.assert_close(plain[2](stem + torch.relu(plain[1](stem))), outputs)
    # It can be trained, saved and loaded without affecting the environment.
    outputs.square().mean().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert not network(inputs).any()
    assert torch.equal(env.export()(inputs), outputs)
    network.load_state_dict(torch.load(file, weights_only=True))
    for one in (network, copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(one(inputs), outputs)
    env.step(env.action_space.sample())
    assert torch.equal(network(inputs), outputs)


@pytest.mark.parametrize("row", [-1, 2, 1.0, True, None])
def test_rows_that_there_are_not(row: Any) -> None:
    envs: Any = gym.make_vec("NetBuild-v0", num_envs=2).unwrapped
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"row=.*from 0 to 1"):
        envs.export(row)
