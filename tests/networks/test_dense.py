"""The batched core against plain PyTorch, one network at a time; stepping against replay."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gym_reml.learning import Episodes, LearningOptions, PoolLearner, replay
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.networks.compiled import CompiledDense
from gym_reml.networks.dense import Filled, Workspace
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.networks.weights import Weights
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.pool.subnetworks import SubNetworks
from gym_reml.streams import many_streams
from gym_reml.tasks import Batch, TaskFamily
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.env_helpers import take_step
from tests.support.replays import episodes, small_pool

KINDS = pytest.mark.parametrize("kind", LAYER_KINDS)
STEMS = pytest.mark.parametrize("adapt_stem", [True, False])
OUTPUTS = pytest.mark.parametrize("outputs", [1, 3])
ROWS, SLOTS, SHOTS, INPUTS, WIDTH, LAYERS = 5, 3, 4, 2, 7, 4
# Rows grow at different times: at once, late, never, one layer twice, and more layers than there is room for.
PLAN = np.array([[1, 2, 3, 4, 1], [0, 0, 4, 0, 2], [0, 0, 0, 0, 0], [3, 0, 3, 0, 0], [2, 1, 4, 1, 3]]).T
REFUSED = (2, 1)  # of the steps with an optimizer: the step and the row, in which a layer is appended
SIZES = np.array([0.01, 0.3, 2.0, 0.05, 0.1], dtype=np.float32)
FAMILY = Sinusoid(shots=SHOTS, queries=6)


def make_pool(kind: str, adapt_stem: bool | None = None, outputs: int = 1) -> LayerPool:
    """A pool in double precision."""
    pool = LayerPool.random(
        in_features=INPUTS, out_features=outputs, width=WIDTH, layers=LAYERS, kind=kind, adapt_stem=adapt_stem
    )
    generator = torch.Generator().manual_seed(1)
    for name in pool.parameters.keys() & {"stem.norm", "layers.norm"}:
        pool.parameters[name].uniform_(-1.0, 1.0, generator=generator)
    pool.parameters = {name: tensor.double() for name, tensor in pool.parameters.items()}
    return pool


def make_points(outputs: int = 1, points: int = SHOTS, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(ROWS, points, INPUTS, generator=generator, dtype=torch.float64)
    return x, 20.0 * torch.randn(ROWS, points, outputs, generator=generator, dtype=torch.float64)


def loss_gradient(outputs: Tensor, targets: Tensor) -> Tensor:
    """Gradient of the mean squared error with respect to the outputs."""
    return 2.0 * (outputs - targets) / targets[0].numel()


class Layer(nn.Module):
    """A stem or a layer, written out."""

    def __init__(self, kind: str, matrix: Tensor, norm: Tensor | None, stem: bool, adapted: bool = True) -> None:
        super().__init__()
        self.kind, self.skip = kind, kind == "residual" and not stem
        self.linear = linear(matrix)
        self.linear.requires_grad_(adapted)
        if norm is not None:
            self.gain, self.shift = nn.Parameter(norm[0].clone()), nn.Parameter(norm[1].clone())

    def forward(self, x: Tensor) -> Tensor:
        z = self.linear(x)
        if self.kind == "tanh":
            return torch.tanh(z)
        if self.kind == "layer_norm":
            return functional.relu(functional.layer_norm(z, (WIDTH,), self.gain, self.shift))
        if self.kind == "batch_norm":
            return functional.relu(functional.batch_norm(z, None, None, self.gain, self.shift, training=True))
        return x + functional.relu(z) if self.skip else functional.relu(z)


def linear(matrix: Tensor) -> nn.Linear:
    layer = nn.Linear(len(matrix) - 1, matrix.shape[1], dtype=matrix.dtype)
    layer.weight.data, layer.bias.data = matrix[:-1].T.clone(), matrix[-1].clone()
    return layer


@KINDS
@STEMS
@OUTPUTS
@pytest.mark.parametrize("clip", [10.0, 0.5, None])
def test_steps_are_those_of_a_plain_loop(kind: str, adapt_stem: bool, outputs: int, clip: float | None) -> None:
    pool = make_pool(kind, adapt_stem, outputs)
    x, y = make_points(outputs)
    networks, workspace = SubNetworks(ROWS, pool, slots=SLOTS, clip=clip), Workspace()
    networks.restart(np.arange(ROWS), ())
    prepared = networks.prepare(x)
    found = []
    for layers in PLAN:
        networks.append(layers)
        trace = networks.forward(prepared, workspace)
        norms = networks.descend(
            trace, loss_gradient(trace.outputs, y), step_sizes=SIZES, clock=np.zeros(ROWS, dtype=np.int64)
        )
        found.append((networks.forward(prepared, workspace).outputs.clone(), norms))
    clipped = False
    for row in range(ROWS):
        norm = pool.parameters.get("stem.norm")
        stem = Layer(kind, pool.parameters["stem.matrix"], norm, stem=True, adapted=adapt_stem)
        network = nn.Sequential(stem, linear(pool.parameters["head.matrix"]))
        for step, layers in enumerate(PLAN):
            if layers[row] and len(network) < SLOTS + 2:
                layer = int(layers[row]) - 1
                norm = pool.parameters["layers.norm"][layer] if "layers.norm" in pool.parameters else None
                network.insert(len(network) - 1, Layer(kind, pool.parameters["layers.matrix"][layer], norm, stem=False))
            optimizer = torch.optim.SGD(network.parameters(), lr=float(SIZES[row]))
            optimizer.zero_grad()
            functional.mse_loss(network(x[row]), y[row]).backward()
            total = nn.utils.clip_grad_norm_(network.parameters(), np.inf if clip is None else clip)
            clipped |= bool(total > (clip or 10.0))
            optimizer.step()
            after, norms = found[step]
            torch.testing.assert_close(after[row], network(x[row]).detach(), rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(norms[:, row].norm(), total, rtol=1e-5, atol=1e-5)
    assert clipped


OPTIMIZER = {
    "sgd": torch.optim.SGD,
    "momentum": lambda groups, lr: torch.optim.SGD(groups, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["relu", "residual", "layer_norm"])
@pytest.mark.parametrize("clip", [0.5, None])
def test_steps_are_those_of_the_optimizers_of_torch(optimizer: str, kind: str, clip: float | None) -> None:
    """A layer that is appended joins as a parameter group; episodes begin without state, also in single rows."""
    pool = make_pool(kind, adapt_stem=True, outputs=1)
    x, y = make_points(1)
    networks, workspace = SubNetworks(ROWS, pool, slots=SLOTS, clip=clip, optimizer=optimizer), Workspace()
    networks.restart(np.arange(ROWS), (1,))
    prepared = networks.prepare(x)

    def step(number: int) -> Tensor:
        depth = networks.depth.copy()
        networks.append(PLAN[number])
        trace = networks.forward(prepared, workspace)
        networks.descend(
            trace, loss_gradient(trace.outputs, y), step_sizes=0.1 * SIZES, clock=np.zeros(ROWS, dtype=np.int64)
        )
        if number == REFUSED[0]:
            refused = np.array(REFUSED[1:])
            networks.take_back(refused, depth[refused])
        return networks.forward(prepared, workspace).outputs.clone()

    found = [step(number) for number in range(len(PLAN))]
    for row in range(ROWS):
        stem = Layer(kind, pool.parameters["stem.matrix"], pool.parameters.get("stem.norm"), stem=True)
        network = nn.Sequential(stem, layer_of(pool, kind, 1), linear(pool.parameters["head.matrix"]))
        reference = OPTIMIZER[optimizer](network.parameters(), lr=float(0.1 * SIZES[row]))  # type: ignore[operator]
        for number, (layers, after) in enumerate(zip(PLAN, found, strict=True)):
            if (number, row) != REFUSED:
                if layers[row] and len(network) < SLOTS + 2:
                    network.insert(len(network) - 1, layer_of(pool, kind, int(layers[row])))
                    reference.add_param_group({"params": list(network[-2].parameters())})
                reference.zero_grad()
                functional.mse_loss(network(x[row]), y[row]).backward()
                nn.utils.clip_grad_norm_(network.parameters(), np.inf if clip is None else clip)
                reference.step()
            # Without clipping, outputs grow to 1e14, and torch 2.4 rounds otherwise than today's.
            torch.testing.assert_close(after[row], network(x[row]).detach(), rtol=5e-5, atol=1e-5)
    again = np.arange(ROWS - 1)
    networks.restart(again, (1,))
    for number, after in enumerate(found):
        torch.testing.assert_close(step(number)[again], after[again], rtol=0, atol=0)


def layer_of(pool: LayerPool, kind: str, number: int) -> Layer:
    norm = pool.parameters["layers.norm"][number - 1] if "layers.norm" in pool.parameters else None
    return Layer(kind, pool.parameters["layers.matrix"][number - 1], norm, stem=False)


def random_weights(kind: str, adapt_stem: bool, outputs: int) -> tuple[LayerPool, Weights]:
    pool = make_pool(kind, adapt_stem, outputs)
    contents = torch.tensor([[1, 2, 3, 4, 1], [2, 2, 1, 0, 0], [4, 0, 0, 0, 0]])
    weights = pool.assemble(contents).weights
    return pool, weights.like([tensor.detach().clone() for tensor in weights.tensors()])


def mask(*present: int) -> Tensor:
    return torch.tensor(present, dtype=torch.bool).reshape(-1, 1, 1)


FILLED: list[Filled] = [[True] * SLOTS, [False] * SLOTS, [True, mask(1, 1, 1, 0, 0), mask(1, 0, 0, 0, 0)]]


@KINDS
@STEMS
@OUTPUTS
@pytest.mark.parametrize("filled", FILLED)
def test_backward_is_what_autograd_says_with_and_without_buffers(
    kind: str, adapt_stem: bool, outputs: int, filled: Filled
) -> None:
    pool, weights = random_weights(kind, adapt_stem, outputs)
    x, y = make_points(outputs)
    prepared = pool.architecture.prepare(x, pool.fixed)
    leaves = [tensor.requires_grad_() for tensor in weights.tensors()]
    trace = pool.architecture.forward(weights, prepared, filled=filled)
    loss = functional.mse_loss(trace.outputs, y, reduction="none").mean(dim=(1, 2)).sum()
    expected = torch.autograd.grad(loss, leaves, allow_unused=True)
    alone = pool.architecture.outputs(weights, prepared, filled=filled)
    torch.testing.assert_close(alone, trace.outputs, rtol=0, atol=0)
    loss = functional.mse_loss(alone, y, reduction="none").mean(dim=(1, 2)).sum()
    for found, right in zip(torch.autograd.grad(loss, leaves, allow_unused=True), expected, strict=True):
        if found is None or right is None:  # the former for all positions at once, the latter also for empty slots
            assert right is None
            assert found is None or not found.any()
        else:
            torch.testing.assert_close(found, right)
    curvatures = []
    for again in (
        pool.architecture.outputs(weights, prepared, filled=filled),
        pool.architecture.forward(weights, prepared, filled=filled).outputs,
    ):
        loss = functional.mse_loss(again, y, reduction="none").mean(dim=(1, 2)).sum()
        slopes = torch.autograd.grad(loss, leaves, create_graph=True, allow_unused=True)
        steepness = torch.stack([slope.square().sum() for slope in slopes if slope is not None]).sum()
        curvatures.append(torch.autograd.grad(steepness, leaves[-1])[0])
    torch.testing.assert_close(*curvatures)
    workspace = Workspace()
    with torch.no_grad():
        by_output = loss_gradient(trace.outputs, y)
        fresh = pool.architecture.gradient(weights, trace, output_gradient=by_output, filled=filled)
        for _ in range(2):  # the second time in buffers that hold something
            buffered_trace = pool.architecture.forward(weights, prepared, filled=filled, workspace=workspace)
            buffered = pool.architecture.gradient(
                weights, buffered_trace, output_gradient=by_output, filled=filled, workspace=workspace
            )
    torch.testing.assert_close(buffered_trace.outputs, trace.outputs.detach(), rtol=0, atol=0)
    for by_hand, in_buffers, right in zip(fresh.tensors(), buffered.tensors(), expected, strict=True):
        torch.testing.assert_close(by_hand, torch.zeros_like(by_hand) if right is None else right)
        torch.testing.assert_close(in_buffers, by_hand, rtol=0, atol=0)


@KINDS
@STEMS
def test_empty_slots_pass_on_exactly_and_have_no_gradient(kind: str, adapt_stem: bool) -> None:
    pool, weights = random_weights(kind, adapt_stem, 1)
    x, y = make_points()
    trace = pool.architecture.forward(weights, pool.architecture.prepare(x, pool.fixed), filled=FILLED[2])
    gradient = pool.architecture.gradient(
        weights, trace, output_gradient=loss_gradient(trace.outputs, y), filled=FILLED[2]
    )
    for slot, empty in ((2, [3, 4]), (3, [1, 2, 3, 4])):
        assert torch.equal(trace.inputs[slot + 1].tensor[empty], trace.inputs[slot].tensor[empty])
        matrix = gradient.positions[slot]["matrix"]
        assert not matrix[empty].any()
        assert matrix[0].any()
        if "norm" in gradient.positions[slot]:
            assert not gradient.positions[slot]["norm"][empty].any()


def test_a_residual_layer_of_zeros_is_an_empty_slot() -> None:
    pool, weights = random_weights("residual", True, 1)
    for position in weights.positions[1:-1]:
        position["matrix"].zero_()
    x, y = make_points()
    prepared = pool.architecture.prepare(x, {})
    traces = [pool.architecture.forward(weights, prepared, filled=[present] * SLOTS) for present in (True, False)]
    assert torch.equal(traces[0].outputs, traces[1].outputs)
    gradient = pool.architecture.gradient(
        weights, traces[0], output_gradient=loss_gradient(traces[0].outputs, y), filled=[True] * SLOTS
    )
    assert not any(position["matrix"].any() for position in gradient.positions[1:-1])


@KINDS
def test_forward_from_the_middle_is_forward_from_the_start(kind: str) -> None:
    pool = make_pool(kind)
    networks, (x, _) = SubNetworks(ROWS, pool, slots=SLOTS), make_points(points=9)
    networks.restart(np.arange(ROWS), (2,))
    prepared = networks.prepare(x)
    support = networks.prepare(x[:, :SHOTS])
    before = networks.forward(support if pool.architecture.across_points else prepared, Workspace()).first(SHOTS)
    _, start = networks.append(np.array([0, 1, 2, 3, 0]))
    assert start == 2
    again = networks.forward(prepared, Workspace(), trace=before, start=start)
    whole = networks.forward(support)
    torch.testing.assert_close(again.outputs, whole.outputs)


# -- stepping, and its replay ------------------------------------------------------------------------------------------


class Recorder(PoolLearner):
    """Keeps the episodes and does not change the pool."""

    def add(self, episodes: Episodes) -> None:
        self.recorder = episodes


def make_mdp(pool: LayerPool, largest: float = 0.3, horizon: int = len(PLAN)) -> tuple[TrainingMDP, Recorder]:
    recorder = Recorder(pool, FAMILY, "maml", LearningOptions())
    objective = Objective(horizon=horizon)
    mdp = TrainingMDP(ROWS, FAMILY, pool, objective, slots=SLOTS, step_range=(1e-3, largest), learner=recorder)
    mdp.seed(range(ROWS), many_streams(3, ROWS, "train"))
    mdp.reset()
    return mdp, recorder


def scalar_pool(kind: str, adapt_stem: bool | None = None) -> LayerPool:
    return LayerPool.random(in_features=1, out_features=1, width=WIDTH, layers=LAYERS, kind=kind, adapt_stem=adapt_stem)


@KINDS
@STEMS
def test_replay_reproduces_stepping_and_its_refused_steps(kind: str, adapt_stem: bool) -> None:
    pool = scalar_pool(kind, adapt_stem)
    mdp, recorder = make_mdp(pool, largest=1e9)
    compiled = isinstance(mdp.networks.architecture, CompiledDense)
    if compiled:  # the replay is torch's, and in single precision steps of 1e9 magnify the difference in rounding
        pool.parameters |= {name: tensor.double() for name, tensor in pool.parameters.items()}
        mdp, recorder = make_mdp(pool, largest=1e9)
    steps = np.full(PLAN.shape, -0.5, dtype=np.float32)
    steps[1, 0] = steps[3, 2] = steps[4, 3] = 1.0  # a step of 1e9
    infos = [take_step(mdp, layers, places).info for layers, places in zip(PLAN, steps, strict=True)]
    diverged = np.array([info["diverged"] for info in infos])
    assert diverged[1, 0]
    assert diverged[3, 2]
    assert not diverged[0].any()
    losses, weights, _ = replay(pool, FAMILY, recorder.recorder)
    shown = [info["query_loss"] for info in infos]
    np.testing.assert_allclose(losses.clamp_max(FAMILY.cap), shown, rtol=2e-3 if compiled else 2e-4, atol=1e-5)
    for row in range(ROWS):
        for slot in range(mdp.networks.depth[row]):
            recorded, again = (
                mdp.networks.weights(row).positions[slot + 1]["matrix"],
                weights.positions[slot + 1]["matrix"],
            )
            rtol, atol = (1e-2, 1e-3) if compiled else (1e-3, 1e-4)
            torch.testing.assert_close(recorded[0], again[row], rtol=rtol, atol=atol)


@KINDS
@pytest.mark.parametrize("layer", [0, 2])
def test_a_refused_step_leaves_the_network_as_it_was_to_the_bit(kind: str, layer: int) -> None:
    mdp, _ = make_mdp(scalar_pool(kind), largest=1e12)
    take_step(mdp, np.array([1, 0, 2, 3, 1]), np.full(ROWS, -0.6, dtype=np.float32))
    x = torch.linspace(-5.0, 5.0, 20).reshape(1, -1, 1).expand(ROWS, -1, -1)

    def state(row: int) -> list[Tensor]:
        weights, depth = mdp.networks.weights(row), int(mdp.networks.depth[row])
        losses = torch.tensor([mdp.support_loss[row], mdp.query_loss[row]])
        held = torch.from_numpy(mdp.networks.layers[:, row].copy())
        positions = [*weights.positions[: depth + 1], weights.positions[-1]]
        recorder = [tensor for position in positions for tensor in position.values()]
        return [*recorder, losses, held, mdp.outputs(x)[row]]

    before = [state(row) for row in range(ROWS)]
    info = take_step(mdp, np.full(ROWS, layer), np.array([1, -0.6, 1, 1, 1], dtype=np.float32)).info
    refused = np.flatnonzero(info["diverged"])
    assert len(refused)
    for row in range(ROWS):
        same = [torch.equal(old, new) for old, new in zip(before[row], state(row), strict=row in refused)]
        assert all(same) == (row in refused)
    assert not info["layer"][refused].any()
    assert 1 not in refused


@KINDS
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda mdp: pickle.loads(pickle.dumps(mdp))])
def test_copies_go_on_alike(kind: str, copied: Callable[[TrainingMDP], TrainingMDP]) -> None:
    mdp, _ = make_mdp(scalar_pool(kind))
    steps = np.zeros(ROWS, dtype=np.float32)
    take_step(mdp, PLAN[0], steps)
    twin = copied(mdp)
    np.testing.assert_array_equal(twin.observe(), mdp.observe())
    for layers in PLAN[1:]:
        ours, theirs = take_step(mdp, layers, steps), take_step(twin, layers, steps)
        np.testing.assert_array_equal(ours.observation, theirs.observation)
        np.testing.assert_array_equal(ours.reward, theirs.reward)


@dataclass(frozen=True)
class ByAutograd(Sinusoid):
    """A family without a closed form of its output gradient."""

    name = "by_autograd"

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        return TaskFamily.output_gradient(self, outputs, batch)


@pytest.mark.parametrize("learn", [False, True])
def test_a_family_may_leave_its_gradient_to_autograd(learn: bool) -> None:
    outcomes = []
    for family in (ByAutograd(shots=SHOTS, queries=6), FAMILY):
        pool = scalar_pool("residual")
        learner = PoolLearner(pool, family, "maml", LearningOptions(batch_size=ROWS)) if learn else None
        mdp = TrainingMDP(ROWS, family, pool, Objective(horizon=3), slots=SLOTS, learner=learner)
        mdp.seed(range(ROWS), many_streams(3, ROWS, "train"))
        mdp.reset()
        outcomes.append([take_step(mdp, layers, np.zeros(ROWS, dtype=np.float32)).observation for layers in PLAN])
        assert learner is None or learner.updates
    np.testing.assert_allclose(outcomes[0], outcomes[1], rtol=1e-4, atol=1e-5)


# -- the exact meta-gradient -------------------------------------------------------------------------------------------


def meta_gradient(pool: LayerPool, recorded: Episodes, first_order: bool = False) -> dict[str, Tensor]:
    leaves = {name: leaf.requires_grad_() for name, leaf in pool.trainable().items()}
    losses, _, _ = replay(pool, FAMILY, recorded, first_order=first_order)
    gradients = torch.autograd.grad(losses.sum(), list(leaves.values()), allow_unused=True)
    for leaf in leaves.values():
        leaf.requires_grad_(False)
    found = zip(leaves.items(), gradients, strict=True)
    return {name: torch.zeros_like(leaf) if gradient is None else gradient for (name, leaf), gradient in found}


def steep_episodes(granularity: str | None) -> Episodes:
    """Episodes in which some gradients are clipped and others are not."""
    recorded = episodes(step_size=0.02 if granularity is None else 0.1)
    recorded.support[0].targets *= torch.tensor([100.0, 1.0, 100.0, 1.0, 100.0], dtype=torch.float64).reshape(-1, 1, 1)
    return recorded


@KINDS
@pytest.mark.parametrize("granularity", [None, *RATES])
def test_meta_gradient_through_clipped_steps_by_finite_differences(kind: str, granularity: str | None) -> None:
    pool, recorded = small_pool(kind, granularity), steep_episodes(granularity)
    gradient, generator = meta_gradient(pool, recorded), torch.Generator().manual_seed(0)
    norms = first_norms(pool, recorded)
    assert (norms > 10.0).any()
    assert (norms < 10.0).any()
    for name, leaf in pool.trainable().items():
        way, recorder = torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype), leaf.clone()
        values = []
        for distance in (1e-6, -1e-6):
            leaf.copy_(recorder + distance * way)
            values.append(replay(pool, FAMILY, recorded)[0].sum())
        leaf.copy_(recorder)
        found = (values[0] - values[1]) / 2e-6
        torch.testing.assert_close((gradient[name] * way).sum(), found, rtol=1e-4, atol=1e-5, msg=name)


def first_norms(pool: LayerPool, recorded: Episodes) -> Tensor:
    """Norm of each row's first gradient, by autograd."""
    weights = pool.assemble(recorded.layers.new_zeros(recorded.slots, len(recorded))).weights
    weights = weights.like([tensor.clone().requires_grad_() for tensor in weights.tensors()])
    prepared = pool.architecture.prepare(recorded.support[0].inputs, pool.fixed)
    trace = pool.architecture.forward(weights, prepared, filled=[False] * recorded.slots)
    loss = FAMILY.loss(trace.outputs, recorded.support[0]).sum()
    gradients = torch.autograd.grad(loss, weights.tensors(), allow_unused=True)
    return torch.cat([g.flatten(1) for g in gradients if g is not None], dim=1).norm(dim=1)


@KINDS
def test_fomaml_takes_inner_gradients_as_constants(kind: str) -> None:
    pool, recorded = small_pool(kind), steep_episodes(None)
    exact, first_order = meta_gradient(pool, recorded), meta_gradient(pool, recorded, first_order=True)
    expected = {name: torch.zeros_like(leaf) for name, leaf in pool.trainable().items()}
    # d loss_t / d pool = d loss_t / d weights_t, gathered where the weights came from: steps are translations.
    for step in range(1, len(recorded.layers) + 1):
        part = Episodes(
            recorded.support,
            recorded.query,
            recorded.layers[:step],
            recorded.step_sizes[:step],
            recorded.initial_layers,
            recorded.slots,
        )
        _, weights, contents = replay(pool, FAMILY, part)
        depth = torch.from_numpy(part.slot_contents().depth[-1])
        filled = [(depth > slot).reshape(-1, 1, 1) for slot in range(recorded.slots)]
        ends = weights.like([tensor.detach().requires_grad_() for tensor in weights.tensors()])
        outputs = pool.architecture.forward(
            ends, pool.architecture.prepare(recorded.query[0].inputs, pool.fixed), filled=filled
        ).outputs
        loss = FAMILY.loss(outputs, recorded.query[0]).sum()
        gradients = torch.autograd.grad(loss, ends.tensors(), allow_unused=True)
        gradient = ends.like([g if g is not None else torch.zeros(1) for g in gradients])
        head = gradient.positions[-1]["matrix"]
        expected["head.matrix"] += head.sum(dim=0)
        for slot in range(recorded.slots):
            matrix = gradient.positions[slot + 1]["matrix"]
            chosen = (contents[slot] - 1).clamp_min(0)  # an empty slot's gradient is zero
            expected["layers.matrix"].index_add_(0, chosen, matrix)
    for name in ("head.matrix", "layers.matrix"):
        torch.testing.assert_close(first_order[name], expected[name])
        assert not torch.allclose(first_order[name], exact[name], rtol=1e-3)
