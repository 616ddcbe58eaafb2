"""Pools of any module: against one network after the other in plain PyTorch, and what cannot be vectorised."""

from __future__ import annotations

import pickle
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint

from gym_reml import ENVIRONMENTS
from gym_reml.learning import Episodes, LearningOptions, PoolLearner, replay
from gym_reml.learning.options import RULES
from gym_reml.learning.replay import requires_grad
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.mdp.export import export_network
from gym_reml.networks.blocks import BLOCKS, Convolution
from gym_reml.networks.modules import Modules
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.networks.part import FEW_NETWORKS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.spaces import Decided
from gym_reml.streams import many_streams
from gym_reml.tasks import from_arrays
from gym_reml.tasks.base import Batch


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.norm = nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.norm(x + self.attention(x, x, x, need_weights=False)[0])
        return output


class Bins(nn.Module):
    """An embedding of a coarsened input."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.embedding((x.squeeze(1) > 0).long() + 2 * (x.squeeze(1) > 1).long())
        return output


class Recurrent(nn.Module):
    """A GRU cell that reads the features of a point one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(1, 6)

    def forward(self, x: Tensor) -> Tensor:
        state = torch.zeros_like(x)
        for feature in x.unbind(1):
            state = self.cell(feature[:, None], state)
        return state


class Sequence(nn.Module):
    """An LSTM over the tokens of a point, for which `torch.vmap` has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.lstm(x)[0]
        return output


class InPlace(nn.Module):
    """Adds to its input in place, as blocks that save memory do."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        x += 0.5
        output: Tensor = self.linear(x)
        return output


class Scaled(nn.Module):
    """A single number as a weight, a buffer and a frozen parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.shift: Tensor
        self.register_buffer("shift", torch.linspace(-1, 1, 6))
        self.frozen = nn.Parameter(torch.linspace(1, 2, 6), requires_grad=False)
        self.linear = nn.Linear(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = torch.tanh(self.linear(x * self.frozen + self.shift) * self.scale)
        return output


def dense(layer: Callable[[], nn.Module]) -> dict[str, Any]:
    return {"stem": lambda: nn.Sequential(nn.Linear(2, 6), nn.Tanh()), "layer": layer, "head": lambda: nn.Linear(6, 3)}


def sequences(layer: Callable[[], nn.Module]) -> dict[str, Any]:
    return {
        "stem": lambda: nn.Linear(4, 4),
        "layer": layer,
        "head": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
    }


ZOO: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "linear": ((2,), dense(lambda: nn.Sequential(nn.Linear(6, 6), nn.Tanh()))),
    "layer_norm": ((2,), dense(lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.SiLU()))),
    "scaled": ((2,), dense(Scaled)),
    "gru": ((2,), dense(Recurrent)),
    "tied": ((2,), dense(lambda: Tied())),
    "weight_norm": ((2,), dense(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)))),
    "embedding": ((1,), dense(lambda: nn.Linear(6, 6)) | {"stem": Bins}),
    "batch_norm": ((2,), dense(lambda: nn.Sequential(nn.BatchNorm1d(6, track_running_stats=False), nn.Tanh()))),
    "convolution": (
        (1, 4, 4),
        {
            "stem": lambda: nn.Conv2d(1, 4, 3, 2, 1),
            "layer": lambda: nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.SiLU()),
            "head": lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)),
        },
    ),
    "attention": ((3, 4), sequences(Attention)),
    "lstm": ((3, 4), sequences(Sequence)),
    "encoder": ((3, 4), sequences(lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval())),
    "in_place": ((2,), dense(InPlace)),
    "mixed": (
        (3, 4),
        {
            "stem": lambda: nn.Linear(4, 4),
            "layer": [Attention, nn.Identity, lambda: nn.Sequential(nn.Linear(4, 4), nn.Tanh())],
            "head": lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 3)),
        },
    ),
}
ZOO |= {kind: ((2, 5, 4), {"kind": kind}) for kind in BLOCKS}


def pool_of(name: str, layers: int = 5) -> LayerPool:
    shape, makers = ZOO[name]
    if "kind" in makers:
        return LayerPool.random(
            in_features=int(np.prod(shape)), input_shape=shape, out_features=3, width=4, layers=layers, **makers
        )
    return LayerPool.from_modules(**makers, input_shape=shape, layers=layers)


class ThreeOutputs:
    """A loss of three outputs, with whose gradient the tests are done; other methods are not used."""

    fixed_data = True
    name = "three_outputs"

    @staticmethod
    def loss(outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs - batch.targets).square().mean((1, 2))

    @staticmethod
    def output_gradient(outputs: Tensor, batch: Batch) -> Tensor:
        return 2 * (outputs - batch.targets) / outputs[0].numel()


def episodes_of(pool: LayerPool, rows: int, clip: float | None = 10.0) -> Episodes:
    generator = torch.Generator().manual_seed(3)
    kinds = torch.tensor([[1, 2, 3, 0, 5, 4], [2, 0, 4, 0, 1, 3], [0, 3, 0, 2, 0, 0]])

    def batch(points: int) -> Batch:
        inputs = torch.randn(rows, points, pool.in_features, generator=generator, dtype=pool.dtype)
        return Batch(inputs, torch.randn(rows, points, 3, generator=generator, dtype=pool.dtype))

    return Episodes(
        layers=kinds[:, :rows],
        step_sizes=torch.rand(3, rows, generator=generator, dtype=pool.dtype) * 0.2,
        support=[batch(5)],
        query=[batch(4)],
        slots=2,
        initial_layers=(),
        clip=clip,
    )


def in_double(pool: LayerPool) -> LayerPool:
    copy = pool.clone()
    for part in (copy.parameters, copy.rates):
        part |= {name: tensor.double() for name, tensor in part.items()}
    return copy


def plainly(pool: LayerPool, episodes: Episodes) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Query losses after each step, row by row, each by its own modules, and the pool's meta-gradients."""
    assert pool.modules is not None
    modules, family = pool.modules, ThreeOutputs()
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in pool.parameters.items()}
    losses = []
    for row in range(len(episodes)):
        slots: list[tuple[int, dict[str, Tensor]]] = []
        stem = {name.split(".", 1)[1]: value for name, value in leaves.items() if name.startswith("stem.")}
        head = {name.split(".", 1)[1]: value for name, value in leaves.items() if name.startswith("head.")}

        def network(batch: Batch, parts: list[Any], row: int = row) -> Tensor:
            x = batch.inputs[row].reshape(-1, *modules.input_shape)
            for module, weights in parts:
                named = {
                    name: value.squeeze(0) if not dict(module.named_parameters())[name].ndim else value
                    for name, value in weights.items()
                }
                x = torch.func.functional_call(module, named, (x.clone(),))
            return x

        for step in range(len(episodes.layers)):
            number = int(episodes.layers[step, row])
            if number and len(slots) < episodes.slots:
                kind = (number - 1) % len(modules.kinds)
                prefix = f"layers.{kind}." if len(modules.kinds) > 1 else "layers."
                own = {
                    name.removeprefix(prefix): value[number - 1]
                    for name, value in leaves.items()
                    if name.startswith(prefix)
                }
                slots.append((kind, own))
            parts = [
                (modules.stem.module.to(pool.dtype), stem),
                *[(modules.kinds[kind].module.to(pool.dtype), own) for kind, own in slots],
                (modules.head.module.to(pool.dtype), head),
            ]
            single = Batch(episodes.support[0].inputs, episodes.support[0].targets[row : row + 1])
            loss = family.loss(network(single, parts)[None], single).sum()
            tensors = [value for _, weights in parts for value in weights.values()]
            gradients = torch.autograd.grad(loss, tensors, create_graph=True, materialize_grads=True)
            norm = torch.stack([g.square().sum() for g in gradients]).sum().sqrt()
            scale = 1.0 if episodes.clip is None else episodes.clip / norm.clamp_min(episodes.clip)
            size = episodes.step_sizes[step, row] * scale
            new = iter([t - size * g for t, g in zip(tensors, gradients, strict=True)])
            updated = [(module, {name: next(new) for name in weights}) for module, weights in parts]
            stem, head = updated[0][1], updated[-1][1]
            slots = [(kind, weights) for (kind, _), (_, weights) in zip(slots, updated[1:-1], strict=True)]
            target = Batch(episodes.query[0].inputs, episodes.query[0].targets[row : row + 1])
            query = family.loss(network(target, [updated[0], *updated[1:-1], updated[-1]])[None], target).sum()
        losses.append(query)
    found = torch.autograd.grad(torch.stack(losses).sum(), list(leaves.values()), allow_unused=True)
    return [loss.detach() for loss in losses], {
        name: torch.zeros_like(value) if gradient is None else gradient
        for (name, value), gradient in zip(leaves.items(), found, strict=True)
    }


@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("name", ZOO)
def test_replay_equals_plain_pytorch(name: str, rows: int) -> None:
    pool = in_double(pool_of(name))
    episodes = episodes_of(pool, rows, clip=0.5)
    with sdpa_kernel(SDPBackend.MATH):  # the only one with a second derivative
        expected, expected_gradients = plainly(pool.clone(), episodes)
    leaves = list(pool.parameters.values())
    with requires_grad(leaves):
        losses, _, _ = replay(pool, ThreeOutputs(), episodes)  # type: ignore[arg-type]
        gradients = torch.autograd.grad(losses[-1].sum(), leaves, allow_unused=True)
    torch.testing.assert_close(losses[-1].detach(), torch.stack(expected), rtol=1e-9, atol=1e-9)
    for parameter, gradient in zip(pool.parameters, gradients, strict=True):
        found = torch.zeros_like(pool.parameters[parameter]) if gradient is None else gradient
        torch.testing.assert_close(found, expected_gradients[parameter], rtol=1e-8, atol=1e-8, msg=parameter)


@pytest.mark.parametrize("name", ["mixed", "conv"])
def test_meta_gradients_of_some_parameters(name: str) -> None:
    """Where the others require no gradient, those of the rest are the same."""
    pool = in_double(pool_of(name))
    episodes = episodes_of(pool, 6)
    found: list[dict[str, Tensor]] = []
    for part in ("", "layers."):
        leaves = {key: value for key, value in pool.parameters.items() if key.startswith(part)}
        with requires_grad(list(leaves.values())):
            losses, _, _ = replay(pool, ThreeOutputs(), episodes)  # type: ignore[arg-type]
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
        found.append(dict(zip(leaves, gradients, strict=True)))
    for key, gradient in found[1].items():
        torch.testing.assert_close(gradient, found[0][key], rtol=1e-10, atol=1e-12)


class Tied(nn.Module):
    """Two linear layers with the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = torch.tanh(self.second(torch.tanh(self.first(x))))
        return output


def family_of(pool: LayerPool) -> Any:
    """Classification into three classes of random points, with as many inputs as the pool has."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(30, 12, pool.in_features)).astype(np.float32)
    return from_arrays(x, np.arange(12)[None] % 3 + np.zeros((30, 1), dtype=np.int64), shots=6, queries=6)


LAYERS = np.array([[1, 0, 3, 2, 5], [4, 2, 0, 0, 1], [2, 3, 1, 0, 0]])


def process(name: str, pool: LayerPool | None = None, learn: str | None = None, **arguments: Any) -> TrainingMDP:
    pool = pool or pool_of(name)
    family = family_of(pool)
    learner = None if learn is None else PoolLearner(pool, family, learn, LearningOptions(batch_size=5, passes=1))
    mdp = TrainingMDP(5, family, pool, Objective(3), slots=2, learner=learner, **arguments)
    mdp.seed(range(5), many_streams(0, 5, family.split))
    mdp.reset()
    return mdp


@pytest.mark.parametrize("name", ZOO)
def test_steps_equal_their_replay(name: str) -> None:
    mdp = process(name)
    sizes = np.full((3, 5), 0.05, dtype=np.float32)
    for layers, step_sizes in zip(LAYERS, sizes, strict=True):
        mdp.train(layers, step_sizes)
    losses, _, _ = replay(mdp.pool, mdp.family, mdp.episodes(torch.from_numpy(LAYERS), torch.from_numpy(sizes)))
    np.testing.assert_allclose(mdp.query_loss, losses[-1].detach().numpy(), rtol=2e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", ["conv", "mixed", "scaled"])
def test_inner_steps_of_modules_equal_their_replay(name: str, optimizer: str) -> None:
    """On minibatches, with a step size for each position."""
    mdp = process(name, optimizer=optimizer, step_sizes="layer", batch_size=3)
    sizes = np.random.default_rng(0).uniform(0.001, 0.02, (3, 4, 5)).astype(np.float32)
    support = [mdp.train(*step).support for step in zip(LAYERS, sizes, strict=True)]
    whole = replace(mdp.episodes(torch.from_numpy(LAYERS), torch.from_numpy(sizes)), support=support)
    losses, _, _ = replay(mdp.pool, mdp.family, whole)
    np.testing.assert_allclose(mdp.query_loss, losses[-1].detach().numpy(), rtol=1e-4)


@pytest.mark.parametrize("name", ZOO)
def test_rows_do_not_depend_on_each_other(name: str) -> None:
    """One network after the other, and side by side."""
    mdp = process(name)
    alone = TrainingMDP(1, mdp.family, mdp.pool, Objective(3), slots=2)
    alone.seed([0], many_streams(0, 5, mdp.family.split)[3:4])
    alone.reset()
    for layers in LAYERS:
        mdp.train(layers, np.full(5, 0.05, dtype=np.float32))
        alone.train(layers[3:4], np.full(1, 0.05, dtype=np.float32))
    assert FEW_NETWORKS < 5
    np.testing.assert_allclose(alone.query_loss, mdp.query_loss[3:4], rtol=1e-5)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["conv", "mixed", "scaled"])
def test_pools_of_modules_learn(name: str, rule: str) -> None:
    mdp = process(name, learn=rule)
    before = {key: value.clone() for key, value in mdp.pool.parameters.items()}
    for step, layers in enumerate(LAYERS):
        outcome = mdp.step(Decided(layers[:, None], np.zeros((5, 1), dtype=np.float32)))
        assert outcome.terminated.all() == (step == 2)
    assert mdp.learner is not None
    assert mdp.learner.updates == 1
    changed = [key for key, value in mdp.pool.parameters.items() if not torch.equal(before[key], value)]
    assert any(key.startswith("layers.") for key in changed)
    if rule != "in_place":
        assert any(key.startswith("stem.") for key in changed)
        assert any(key.startswith("head.") for key in changed)
    mdp.pool.check()


@pytest.mark.parametrize("granularity", RATES)
@pytest.mark.parametrize("name", ["conv", "mixed", "scaled"])
def test_rates_of_modules(name: str, granularity: str) -> None:
    """Rates of one half do what half the step size does, and are reached by meta-gradients."""
    pool = pool_of(name).with_rates(granularity, 0.5, steps=3, slots=2)
    pool.check()
    plain, rated = process(name), process(name, pool)
    for layers in LAYERS:
        plain.train(layers, np.full(5, 0.05, dtype=np.float32))
        rated.train(layers, np.full(5, 0.1, dtype=np.float32))
    np.testing.assert_allclose(rated.query_loss, plain.query_loss, rtol=1e-5)
    leaves = list(pool.rates.values())
    with requires_grad(leaves):
        episodes = rated.episodes(torch.from_numpy(LAYERS), torch.full((3, 5), 0.1))
        losses, _, _ = replay(pool, rated.family, episodes)
        gradients = torch.autograd.grad(losses.sum(), leaves)
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("encoding", ENVIRONMENTS)
def test_both_faces_of_every_encoding(encoding: str) -> None:
    pool = pool_of("mixed")
    arguments: dict[str, Any] = {"family": family_of(pool), "pool": pool}
    envs = gym.make_vec(encoding, num_envs=3, vectorization_mode="vector_entry_point", **arguments)
    observations, _ = envs.reset(seed=5)
    single = gym.make(encoding, render_mode="ansi", **arguments)
    observation, _ = single.reset(seed=6)
    np.testing.assert_allclose(observation, observations[1], rtol=1e-4, atol=1e-5)
    envs.action_space.seed(0)
    for _ in range(5):
        actions = envs.action_space.sample()
        observations, rewards, *_ = envs.step(actions)
        action = {k: v[1] for k, v in actions.items()} if isinstance(actions, dict) else actions[1]
        observation, reward, *_ = single.step(action)
        np.testing.assert_allclose(observation, observations[1], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(float(reward), rewards[1], rtol=1e-4, atol=1e-5)
    assert "layers of width" in str(single.render())


@pytest.mark.parametrize("name", ZOO)
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    pool = pool_of(name).with_rates("tensor", 0.1)
    pool.save(tmp_path / "pool.pt")
    shape, makers = ZOO[name]
    if "kind" in makers:
        loaded = LayerPool.load(tmp_path / "pool.pt")
    else:
        with pytest.raises(ValueError, match=r"modules=Modules\("):
            LayerPool.load(tmp_path / "pool.pt")
        loaded = LayerPool.load(tmp_path / "pool.pt", Modules(**makers, input_shape=shape))
    for key, value in pool.trainable().items():
        assert torch.equal(loaded.trainable()[key], value)
    assert loaded.describe() == pool.describe()
    other = Modules(**ZOO["linear"][1], input_shape=(2,))
    if name == "convolution":
        with pytest.raises(ValueError, match=r"instead of|do not fit"):
            LayerPool.load(tmp_path / "pool.pt", other)


@pytest.mark.parametrize("copy", [lambda pool: pickle.loads(pickle.dumps(pool)), deepcopy])
@pytest.mark.parametrize("name", ["conv", "mixed", "weight_norm"])
def test_copied_and_pickled(name: str, copy: Callable[[LayerPool], LayerPool]) -> None:
    """As parallel environments send pools to other processes."""
    pool = pool_of(name)
    ours, theirs = process(name, pool), process(name, copy(pool))
    for mdp in (ours, theirs):
        for layers in LAYERS:
            mdp.train(layers, np.full(5, 0.05, dtype=np.float32))
    np.testing.assert_array_equal(ours.query_loss, theirs.query_loss)
    assert ours.pool.describe() == theirs.pool.describe()


def test_threads_may_share_a_pool() -> None:
    class Slow(nn.Module):
        """Lets other threads run in the middle of a pass."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            time.sleep(0.001)
            output: Tensor = self.second(x)
            return output

    pool = LayerPool.from_modules(**dense(Slow), input_shape=(2,), layers=5)

    def losses(size: float) -> np.ndarray[Any, Any]:
        mdp = process("", pool)
        for layers in LAYERS:
            mdp.train(layers, np.full(5, size, dtype=np.float32))
        return mdp.query_loss

    sizes = [0.01, 0.05, 0.1, 0.3]
    with ThreadPoolExecutor(4) as executor:
        together = list(executor.map(losses, sizes))
    np.testing.assert_array_equal(together, [losses(size) for size in sizes])


class Remembering(nn.Module):
    """Keeps what it computed, as modules do to be looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.last, self.hidden = x, self.linear(x)
        return self.hidden


@pytest.mark.parametrize("name", ["remembering", "lstm"])
def test_tensors_that_modules_keep_are_forgotten(name: str) -> None:
    """They could not be copied."""
    pool = pool_of("lstm") if name == "lstm" else LayerPool.from_modules(**dense(Remembering), input_shape=(2,))
    mdp = process("", pool, learn="maml")
    for layers in LAYERS:
        mdp.step(Decided(layers[:, None], np.zeros((5, 1), dtype=np.float32)))
    copy = deepcopy(mdp)
    np.testing.assert_array_equal(copy.query_loss, mdp.query_loss)
    export_network(mdp, 0)
    assert pool.modules is not None
    assert not hasattr(pool.modules.kinds[0].module, "hidden")
    if name == "remembering":
        assert pool.modules.kinds[0].module.last is None


@pytest.mark.parametrize("name", ZOO)
def test_exported_networks_compute_the_same(name: str) -> None:
    mdp = process(name)
    for layers in LAYERS:
        mdp.train(layers, np.full(5, 0.05, dtype=np.float32))
    inputs = torch.randn(5, 7, mdp.pool.in_features, generator=torch.Generator().manual_seed(1))
    outputs = mdp.outputs(inputs)
    for row in range(5):
        network = export_network(mdp, row)
        torch.testing.assert_close(network(inputs[row]), outputs[row], rtol=1e-4, atol=1e-5)
        assert len(list(network.layers)) == mdp.networks.depth[row]
        network(inputs[row]).sum().backward()


def test_points_that_depend_on_each_other_are_found() -> None:
    across = {name for name in ZOO if pool_of(name).architecture.across_points}
    assert across == {"batch_norm", "conv"}


class ZeroGain(nn.Module):
    """A residual block whose last gain is 0 at first."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False)
        nn.init.zeros_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.norm(self.linear(x))
        return output


def test_dependence_that_initial_weights_hide_is_found() -> None:
    def zero_stem() -> nn.Module:
        linear = nn.Linear(2, 6)
        nn.init.zeros_(linear.weight)
        return linear

    assert LayerPool.from_modules(**dense(ZeroGain), input_shape=(2,)).architecture.across_points
    batch_norm = dense(lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6, track_running_stats=False)))
    assert LayerPool.from_modules(**batch_norm | {"stem": zero_stem}, input_shape=(2,)).architecture.across_points


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_recurrent_sequences_are_computed(kind: type[nn.GRU] | type[nn.RNN]) -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.reader = kind(4, 4, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.reader(x)[0]
            return output

    mdp = process("", LayerPool.from_modules(**sequences(Read), input_shape=(3, 4)), learn="maml")
    for layers in LAYERS:
        mdp.step(Decided(layers[:, None], np.zeros((5, 1), dtype=np.float32)))
    assert mdp.learner is not None
    assert mdp.learner.updates == 1


def test_weights_in_layers_alone() -> None:
    """Steps before the first layer change nothing."""
    pool = LayerPool.from_modules(
        stem=nn.Identity, layer=lambda: nn.Linear(3, 3), head=nn.Identity, input_shape=(3,), layers=5
    )
    mdp = process("", pool)
    before = mdp.query_loss.copy()
    mdp.train(np.zeros(5, dtype=np.int64), np.full(5, 0.1, dtype=np.float32))
    np.testing.assert_array_equal(mdp.query_loss, before)
    mdp.train(LAYERS[0], np.full(5, 0.1, dtype=np.float32))
    assert ((mdp.query_loss != before) == (LAYERS[0] > 0)).all()


class NewTensors(nn.Module):
    """Makes tensors without saying of which dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(6, 6)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.cell(x, torch.zeros(len(x), 6))
        return output


@pytest.mark.parametrize("given", [torch.float32, torch.float64])
def test_default_dtypes_do_not_matter(given: torch.dtype) -> None:
    losses = []
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            pool = LayerPool.from_modules(**dense(NewTensors), input_shape=(2,), layers=5)
            mdp = process("", pool if given == torch.float32 else in_double(pool))
            for layers in LAYERS:
                mdp.train(layers, np.full(5, 0.05, dtype=np.float32))
            assert torch.get_default_dtype() == default
        finally:
            torch.set_default_dtype(torch.float32)
        losses.append(mdp.query_loss.copy())
    np.testing.assert_array_equal(*losses)


@pytest.mark.parametrize(
    "context", [torch.inference_mode(), torch.autocast("cpu"), torch.device("meta"), torch.no_grad()]
)
def test_modules_are_made_in_any_context(context: Any) -> None:
    with context:
        modules = Modules(**dense(lambda: nn.Linear(6, 6)), input_shape=(2,))
    expected = LayerPool.from_modules(**dense(lambda: nn.Linear(6, 6)), input_shape=(2,))
    for key, value in modules.initial(8, 0).items():
        assert torch.equal(value, expected.parameters[key])


def test_fast_kernels_are_the_users_again() -> None:
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled
    process("encoder")
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.cudnn.enabled) == before


def test_frozen_modules_of_double_precision_are_exported() -> None:
    def frozen() -> nn.Module:
        linear = nn.Linear(2, 6).requires_grad_(False)
        nn.init.ones_(linear.weight)
        nn.init.zeros_(linear.bias)
        return linear

    pool = LayerPool.from_modules(**dense(lambda: nn.Linear(6, 6)) | {"stem": frozen}, input_shape=(2,), layers=5)
    mdp = process("", in_double(pool))
    inputs = torch.rand(5, 4, 2, dtype=torch.float64)
    torch.testing.assert_close(export_network(mdp, 0)(inputs[0]), mdp.outputs(inputs)[0])


@pytest.mark.parametrize("name", ["conv", "mixed"])
def test_making_a_pool_leaves_the_global_generator_alone(name: str) -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, second = pool_of(name), pool_of(name)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(first.parameters[key], second.parameters[key]) for key in first.parameters)
    assert not torch.equal(
        first.renewed(layers=5, seed=1).parameters["stem.weight" if name == "mixed" else "stem.0.0.weight"],
        first.parameters["stem.weight" if name == "mixed" else "stem.0.0.weight"],
    )


def test_maml_network_is_one_line() -> None:
    """Four convolutions 3 x 3 of stride 2 with batch statistics, and a linear head on the mean over places."""
    pool = LayerPool.random(in_features=784, input_shape=(1, 28, 28), out_features=5, width=64, kind="conv")
    assert pool.modules is not None
    plain = nn.Sequential(
        *[
            part
            for inputs in (1, 64, 64, 64)
            for part in (nn.Conv2d(inputs, 64, 3, 2, 1), nn.BatchNorm2d(64, track_running_stats=False), nn.ReLU())
        ]
    )
    values = [value for key, value in pool.parameters.items() if key.startswith("stem.")]
    for own, value in zip(plain.parameters(), values, strict=True):
        own.data = value.clone()
    x = torch.rand(6, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    expected = plain(x).mean((2, 3)) @ pool.parameters["head.1.weight"].T + pool.parameters["head.1.bias"]
    weights = pool.assemble(torch.zeros(1, 4, dtype=torch.int64)).weights
    trace = pool.modules.forward(weights, x.expand(4, *x.shape), filled=[0])
    assert trace.activations[-1].shape[2:] == (64, 2, 2)
    for row in range(4):
        torch.testing.assert_close(trace.outputs[row], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 6), (2, 2), (1, 5)])
def test_convolutions_as_products_are_convolutions(size: tuple[int, int], stride: int) -> None:
    """Which accelerators compute: the same outputs, gradients and gradients of gradients."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        convolution = Convolution(3, 4, stride).double()
        x = torch.rand(5, 3, *size, dtype=torch.float64)
    results: list[list[Tensor]] = []
    for compute in (convolution, convolution.by_product):
        weights = list(convolution.parameters())
        outputs = compute(x)
        first = torch.autograd.grad(outputs.tanh().square().sum(), weights, create_graph=True)
        second = torch.autograd.grad(torch.stack([gradient.square().sum() for gradient in first]).sum(), weights)
        results.append([outputs, *first, *second])
    torch.testing.assert_close(results[1], results[0])


class ParameterCalledNorm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(2, 6), nn.Parameter(torch.ones(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.linear(x) * self.norm.squeeze(1)
        return output


def test_names_of_dense_pools_are_free() -> None:
    """Norms of dense pools are called "stem.norm", too, and may differ from step to step."""
    pool = LayerPool.from_modules(**dense(Scaled) | {"stem": ParameterCalledNorm}, input_shape=(2,), layers=5)
    assert pool.norm_steps is None
    assert "stem.norm" in pool.adapted
    mdp = process("", pool, learn="maml")
    for layers in LAYERS:
        mdp.step(Decided(layers[:, None], np.zeros((5, 1), dtype=np.float32)))
    assert not torch.equal(pool.parameters["stem.norm"], torch.ones(6, 1))


def test_an_environment_says_how_to_read_a_file_of_own_modules(tmp_path: Path) -> None:
    shape, makers = ZOO["linear"]
    pool, path = pool_of("linear"), tmp_path / "pool.pt"
    pool.save(path)
    family = from_arrays(np.zeros((3, 9, 2)), np.arange(27).reshape(3, 9) % 3, shots=2, queries=2)
    for place in (path, str(path)):
        with pytest.raises(ValueError, match=r"(?s)pool = LayerPool.load\(path, modules=.*pool=pool.*layer: .*Linear"):
            gym.make("NetBuild-v0", family=family, pool=place)
    loaded = LayerPool.load(path, Modules(**makers, input_shape=shape))
    envs: list[Any] = [gym.make("NetBuild-v0", family=family, pool=one) for one in (pool, loaded)]
    action = np.ones(envs[0].action_space.shape, np.float32)
    one, other = ([env.reset(seed=0)[0], env.step(action)[0]] for env in envs)
    np.testing.assert_array_equal(one, other)


def test_other_modules_with_the_same_weights_are_noticed() -> None:
    pool = pool_of("linear")
    same = Modules(**ZOO["linear"][1], input_shape=(2,))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LayerPool.from_state(pool.state(), modules=same)
    other = Modules(**dense(lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU())), input_shape=(2,))
    with pytest.warns(UserWarning, match=r"(?s)something else.*Tanh.*given are.*ReLU"):
        LayerPool.from_state(pool.state(), modules=other)
    with pytest.raises(ValueError, match="they differ in modules"):
        pool.assign(LayerPool("modules", other.initial(5, 0), modules=other))
    pool.assign(LayerPool("modules", same.initial(5, 1), modules=same))
    with pytest.raises(ValueError, match=r"modules='conv': must be"):
        LayerPool.from_state(pool.state(), modules="conv")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {"width": 60_000},
        {"constant_outputs": 9},
        {"out_features": 2},
        {"input_shape": [2, 60_000, 60_000]},
        {"input_shape": [2, 5, "4"]},
        {"input_shape": 2},
        {"width": None},
    ],
)
def test_sizes_of_damaged_files_are_noticed(settings: dict[str, Any]) -> None:
    """Before modules of these sizes are made."""
    state = pool_of("conv").state()
    state["modules"] |= settings
    with pytest.raises(ValueError, match="state: damaged layer pool"):
        LayerPool.from_state(state)


@pytest.mark.parametrize("input_shape", [50, (-2, -5, 5), (2, 5.0, 5)])
def test_shapes_of_images_are_checked(input_shape: Any) -> None:
    with pytest.raises(ValueError, match=r"input_shape=.*: must be one or more positive integers"):
        LayerPool.random(in_features=50, input_shape=input_shape, out_features=3, kind="conv")


@pytest.mark.parametrize("steps", [2.5, True, "2"])
def test_numbers_of_steps_of_rates_are_checked(steps: Any) -> None:
    with pytest.raises(ValueError, match=r"steps=.*: rates per step need"):
        pool_of("linear").with_rates("step", 0.1, steps=steps)
    with pytest.raises(ValueError, match=r"slots=.*: rates per weight"):
        pool_of("linear").with_rates("weight_step", 0.1, steps=2, slots=steps)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.passes: Tensor
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        return x


class Averaging(nn.Module):
    """Follows a mean of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
        output: Tensor = self.linear(x)
        return output


class Double(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.double()


class Wandering(nn.Module):
    """Random numbers that torch does not know of."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.generator = nn.Linear(6, 6), np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.linear(x) * float(self.generator.normal())
        return output


class WithoutGradient(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return super().forward(x)


class Checkpointed(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = checkpoint(super().forward, x, use_reentrant=False)
        return output


class RandomFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.matrix: Tensor
        self.register_buffer("matrix", torch.randn(2, 6))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.constants = nn.Parameter(torch.ones(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.constants


def compiled() -> nn.Module:
    module: nn.Module = torch.compile(nn.Linear(6, 6), backend="eager")  # type: ignore[assignment]
    return module


HOPELESS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "running statistics": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6)),
        r"BatchNorm1d at '1'.*track_running",
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)), r"Dropout at '1'.*eval\(\)"),
    "attention dropout": (
        lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True),
        r"layer: \w+ at '.*'.*eval\(\)",
    ),
    "branches": (lambda: nn.Sequential(nn.Linear(6, 6), Branching()), r"Branching at '1' cannot.*no branches"),
    "buffers": (lambda: nn.Sequential(nn.Linear(6, 6), Counting()), r"passes|Counting at '1'"),
    "shape": (lambda: nn.Linear(6, 5), r"keep the shape.*\(5,\) of \(6,\)"),
    "weights": (nn.Identity, "no weights"),
    "no gradient": (lambda: WithoutGradient(6, 6), "layer: its output has no derivative.*no_grad"),
    "checkpoint": (lambda: Checkpointed(6, 6), "layer: Checkpointed cannot be computed"),
    "scripted": (lambda: torch.jit.script(nn.Linear(6, 6)), "is compiled; give the module"),
    "compiled": (compiled, "OptimizedModule is compiled"),
    "replaced buffers": (Averaging, "layer: changes its buffer 'mean', which networks side by side"),
    "random numbers": (Wandering, "layer: returns other outputs when it is called again"),
    "spectral norm": (
        lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)),
        r"changes its buffer 'parametrizations\.weight\.0\._u'",
    ),
    "several outputs": (lambda: nn.GRU(6, 6), "layer: must return one tensor of torch.float32.* returns a tuple"),
    "double": (lambda: nn.Sequential(nn.Linear(6, 6), Double()), "must return one tensor.* returns torch.float64"),
    "complex": (lambda: nn.Linear(6, 6, dtype=torch.complex64), r"parameter 'weight' is torch\.complex64"),
    "lazy": (lambda: nn.LazyLinear(6), "parameters without a shape"),
    "no module": (lambda: torch.tanh, r"must make a torch\.nn\.Module"),  # type: ignore[dict-item, return-value]
}


@pytest.mark.parametrize("name", HOPELESS)
def test_what_cannot_be_vectorised_is_named(name: str) -> None:
    layer, message = HOPELESS[name]
    with pytest.raises(ValueError, match=message):
        LayerPool.from_modules(**dense(layer), input_shape=(2,))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_shape": ()}, r"input_shape=\(\)"),
        ({"input_shape": (0,)}, r"input_shape=\(0,\)"),
        ({"layer": nn.Linear(6, 6)}, "layer=Linear.*must be callable"),
        ({"layer": []}, "layer=.*must be callable"),
        ({"layers": 0}, "layers=0"),
        ({"head": lambda: nn.Flatten(0)}, "head: must return"),
        ({"stem": lambda: nn.Linear(3, 6)}, "stem: Linear cannot be computed"),
        ({"stem": RandomFeatures}, "stem: 'matrix' differs from module to module.*generator of its own"),
        ({"head": Named}, "head: has a parameter 'constants'"),
        ({"constant_outputs": -1}, "constant_outputs=-1: must be an integer from 0"),
        ({"constant_outputs": 1.0}, "constant_outputs=1.0: must be"),
    ],
)
def test_bad_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerPool.from_modules(**({"input_shape": (2,)} | dense(lambda: nn.Linear(6, 6)) | arguments))


def test_convolutions_need_images() -> None:
    with pytest.raises(ValueError, match=r"layer_kind='conv': needs images.*\(1,\)"):
        gym.make("NetBuild-v0", layer_kind="conv", pool="random")
    with pytest.raises(ValueError, match=r"layer_kind='convolution'.*'conv'"):
        gym.make("NetBuild-v0", layer_kind="convolution")
