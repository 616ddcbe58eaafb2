"""The compiled core computes what the core of torch does: every kind of layer, step and refusal."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.mdp.export import export_network
from gym_reml.networks import compiled
from gym_reml.networks.compiled import CORES, CompiledDense, find_core
from gym_reml.networks.dense import Dense, dense
from gym_reml.networks.layer_kinds import LAYER_KINDS, Relu
from gym_reml.pool import LayerPool
from gym_reml.spaces.decision import Decided
from gym_reml.streams import many_streams
from gym_reml.tasks import FAMILIES as NAMED
from gym_reml.tasks import Batch, TaskFamily, from_classes, make_family
from gym_reml.tasks.base import Tasks
from gym_reml.tasks.functions.sinusoid import Sinusoid
from gym_reml.tasks.mixture import Mixture
from gym_reml.tasks.supervised import Regression
from tests.support.env_helpers import sample_actions
from tests.tasks.test_tasks import Quartic

pytest.importorskip("numba")

ROWS, SLOTS, LAYERS = 5, 3, 4
EXAMPLES = np.random.default_rng(0).integers(0, 256, (60, 3, 3), dtype=np.uint8)
FAMILIES = {
    "regression": make_family("sinusoid", queries=7),
    "varying shots": make_family("sinusoid", shots=(2, 5), queries=7),
    "classes": from_classes(EXAMPLES, np.arange(60) % 15, ways=3, shots=2, queries=6),
}
STEPS: dict[str, dict[str, Any]] = {
    "clipped": {"clip": 0.3},
    "not clipped": {"clip": None},
    "by layer": {"step_sizes": "layer"},
    "adam": {"optimizer": "adam"},
    "minibatches": {"batch_size": 2},
}


def pool_for(family: TaskFamily, kind: str, *, double: bool = True, **changes: Any) -> LayerPool:
    pool = LayerPool.random(
        in_features=family.in_features,
        out_features=family.out_features,
        constant_outputs=family.constant_outputs,
        width=12,
        layers=LAYERS,
        kind=kind,
        **changes,
    )
    if double:
        for part in (pool.parameters, pool.rates, pool.statistics):
            part |= {name: tensor.double() for name, tensor in part.items()}
    return pool


def on_both_cores(family: TaskFamily, pool: LayerPool, **arguments: Any) -> list[TrainingMDP]:
    processes = [
        TrainingMDP(ROWS, family, pool, Objective(6), slots=SLOTS, core=core, **arguments)
        for core in ("torch", "numba")
    ]
    for process in processes:
        process.seed(range(ROWS), many_streams(0, ROWS, family.split))
        process.reset()
    return processes


def play(processes: list[TrainingMDP], *, tolerance: float, steps: int = 6, numbers: int = 1) -> int:
    """The same random decisions on all; returns how many steps were refused."""
    generator, refused = np.random.default_rng(1), 0
    for _ in range(steps):
        layers = generator.integers(0, LAYERS + 1, (ROWS, 1))
        decided = Decided(layers, generator.uniform(-1.0, 1.0, (ROWS, numbers)).astype(np.float32))
        expected, found = (process.step(decided) for process in processes)
        for name in ("observation", "reward"):
            pair = getattr(found, name), getattr(expected, name)
            np.testing.assert_allclose(*pair, rtol=tolerance, atol=tolerance, err_msg=name)
        np.testing.assert_array_equal(found.info["diverged"], expected.info["diverged"])
        np.testing.assert_array_equal(processes[1].networks.layers, processes[0].networks.layers)
        np.testing.assert_array_equal(processes[1].networks.depth, processes[0].networks.depth)
        refused += int(expected.info["diverged"].sum())
        processes[1].reset(np.array([1]))
        processes[0].reset(np.array([1]))
    return refused


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_the_same_as_torch_in_double_precision(kind: str, family: str, steps: str) -> None:
    arguments, task_family = STEPS[steps], FAMILIES[family]
    if LAYER_KINDS[kind].across_points and not isinstance(task_family.shots, int):
        pytest.skip("batch statistics need equal numbers of points")
    processes = on_both_cores(task_family, pool_for(task_family, kind), **arguments)
    assert isinstance(processes[1].networks.architecture, CompiledDense)
    numbers = SLOTS + 2 if arguments.get("step_sizes") == "layer" else 1
    play(processes, tolerance=1e-6, numbers=numbers)


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_policies(kind: str) -> None:
    """Whose outputs decide what they are trained on, in single precision."""
    family = make_family("navigation", steps=4, shots=3, queries=3)
    play(on_both_cores(family, pool_for(family, kind, double=False)), tolerance=5e-3, steps=2)


@pytest.mark.parametrize("statistics", [False, True])
def test_norms_for_each_step(statistics: bool) -> None:
    family = FAMILIES["regression"]
    pool = pool_for(family, "batch_norm").with_step_norms(2, statistics=statistics)
    play(on_both_cores(family, pool), tolerance=1e-6)


@pytest.mark.parametrize("changes", [{"adapt_stem": False}, {"rates": "weight"}], ids=["fixed stem", "learned rates"])
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_pools_with_more(kind: str, changes: dict[str, Any]) -> None:
    family = FAMILIES["classes"]
    if "rates" in changes:
        pool = pool_for(family, kind).with_rates("weight", 0.1)
        assert pool.rates
    else:
        pool = pool_for(family, kind, **changes)
    play(on_both_cores(family, pool), tolerance=1e-6)


@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_refused_steps(kind: str) -> None:
    """Of sizes that overflow: NaN and infinities show in both."""
    family = FAMILIES["regression"]
    pool = pool_for(family, kind, double=False)
    processes = on_both_cores(family, pool, step_range=(1e-2, 1e30), clip=None)
    with np.errstate(all="ignore"):
        refused = play(processes, tolerance=2e-3)
    assert refused or kind == "tanh"


class InParts(Sinusoid):
    """Sinusoids whose steps are taken in several calls, as those of other losses."""

    def squared_targets(self, batch: Batch) -> None:
        return None


@pytest.mark.parametrize("adapt_stem", [True, False])
@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if not LAYER_KINDS[kind].across_points])
def test_a_step_as_one_is_that_of_its_parts(kind: str, adapt_stem: bool) -> None:
    """Of networks of all depths, with and without a new layer, some of whose steps are refused."""
    processes = []
    for family in (Sinusoid(queries=7), InParts(queries=7)):
        pool = pool_for(family, kind, adapt_stem=adapt_stem)
        processes += on_both_cores(family, pool, step_range=(1e-2, 1e9), clip=None)[1:]
    assert processes[0].networks.plain
    with np.errstate(all="ignore"):
        refused = play(processes, tolerance=1e-9)
    assert refused or kind == "tanh"
    for row in range(ROWS):
        one, other = (export_network(process, row).state_dict() for process in processes)
        for name in one:
            torch.testing.assert_close(other[name], one[name], rtol=1e-9, atol=1e-9)


class Broadcast(Sinusoid):
    """Sinusoids with one target for all points of a support set."""

    def support(self, tasks: Tasks, forward: Any, generators: Any) -> Batch:
        batch = super().support(tasks, forward, generators)
        batch.targets = batch.targets[:, :1]
        return batch


class WithoutSignal(Sinusoid):
    """Sinusoids of which agents observe the network alone."""

    @property
    def signal_size(self) -> int:
        return 0


class OtherSignal(Sinusoid):
    """Sinusoids of which agents observe one number."""

    @property
    def signal_size(self) -> int:
        return 1

    def support_signal(self, outputs: Tensor, batch: Batch) -> Tensor:
        return batch.targets.mean(dim=1)


OWN: dict[str, TaskFamily] = {
    "quartic": Quartic(queries=7),
    "varying shots": FAMILIES["varying shots"],
    "broadcast targets": Broadcast(queries=7),
    "without a signal": WithoutSignal(queries=7),
    "another signal": OtherSignal(queries=7),
}


@pytest.mark.parametrize("name", [name for name, kind in NAMED.items() if issubclass(kind, Regression | Mixture)])
def test_losses_and_the_gradient_are_the_family_s(name: str) -> None:
    members = {"members": ["sinusoid", "quadratic"]} if name == "mixture" else {}
    family = make_family(name, queries=7, **members)
    process = on_both_cores(family, pool_for(family, "relu"))[1]
    assert process.training._squares is not None
    outputs, gradient = process.outputs(process.support.inputs), process.training.support_pass()[1]
    torch.testing.assert_close(gradient, family.output_gradient(outputs, process.support))
    for found, batch in ((process.support_loss, process.support), (process.query_loss, process.query)):
        np.testing.assert_allclose(found, family.loss(process.outputs(batch.inputs), batch), rtol=1e-9)


@pytest.mark.parametrize("name", OWN)
def test_what_compiled_loops_do_not_know_is_left_to_the_family(name: str) -> None:
    family = OWN[name]
    processes = on_both_cores(family, pool_for(family, "relu"))
    known = processes[1].training._squares is not None
    assert known == ("signal" in name)
    decided = Decided(np.ones((ROWS, 1), dtype=np.int64), np.zeros((ROWS, 1), dtype=np.float32))
    for _ in range(2):
        np.testing.assert_allclose(processes[1].observe(), processes[0].observe(), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(processes[1].support_loss, processes[0].support_loss, rtol=1e-9)
        for process in processes:
            process.step(decided)


def test_a_layer_that_the_pool_does_not_have_changes_nothing() -> None:
    """Of a row behind others, which are not stepped either."""
    family = Sinusoid(queries=7)
    process = on_both_cores(family, pool_for(family, "relu"))[1]
    before = process.observe()
    with pytest.raises(IndexError, match="layers"):
        process.train(np.array([1, 1, LAYERS + 1, 1, 1]), np.full(ROWS, 0.1, np.float32))
    np.testing.assert_array_equal(process.observe(), before)
    assert not process.networks.depth.any()


def test_empty_slots_hold_zeros() -> None:
    """In what torch would compute with, though compiled loops do not look at them."""
    family = Sinusoid(queries=7)
    process = on_both_cores(family, pool_for(family, "residual"))[1]
    process.train(np.ones(ROWS, np.int64), np.full(ROWS, 0.01, np.float32))
    process.reset(np.array([1]))
    slots = [process.networks.weights(row).positions[1]["matrix"].abs().sum() for row in (0, 1)]
    assert slots[0] > 0.0
    assert slots[1] == 0.0


@pytest.mark.parametrize("kind", [kind for kind in LAYER_KINDS if not LAYER_KINDS[kind].across_points])
def test_long_gradients_are_clipped_in_their_direction(kind: str) -> None:
    """Whose squares overflow, though they do not."""
    family = FAMILIES["regression"]
    pool = pool_for(family, kind, double=False)
    pool.parameters["head.matrix"] *= 1e12
    processes = on_both_cores(family, pool)
    before = export_network(processes[0], 0).state_dict()
    expected, found = (
        process.train(np.zeros(ROWS, np.int64), np.full(ROWS, 1e-3, np.float32)) for process in processes
    )
    assert expected.gradient_norms.square().max() == np.inf
    np.testing.assert_array_equal(found.diverged, expected.diverged)
    row = int(np.flatnonzero(~expected.diverged)[0])
    after, other = (export_network(process, row).state_dict() for process in processes)
    for name in before:
        torch.testing.assert_close(other[name], after[name])
        moved = after[name] - before[name]
        torch.testing.assert_close(
            other[name] - before[name], moved, rtol=1e-3, atol=1e-6 * float(before[name].abs().max())
        )
    assert any((after[name] != before[name]).any() for name in before)


@pytest.mark.parametrize("env_id", ["NetBuild-v0", "NetBuildHybrid-v0"])
def test_environments_in_single_precision(env_id: str) -> None:
    """Whole episodes of the default environment, as a user sees them."""
    envs: Any = [gym.make_vec(env_id, 3, autoreset_mode="SameStep", core=core) for core in ("torch", "numba")]
    first, second = (env.reset(seed=0)[0] for env in envs)
    np.testing.assert_allclose(first, second, rtol=2e-4, atol=2e-4)
    for actions in sample_actions(envs[0].action_space, 12):
        (expected, reward, *_), (found, other, *_) = (env.step(actions) for env in envs)
        np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
        np.testing.assert_allclose(other, reward, rtol=2e-4, atol=2e-4)


def test_pickles_hold_no_weight_twice() -> None:
    sizes = []
    for core in ("torch", "numba"):
        env: Any = gym.make_vec("NetBuild-v0", 8, depth=6, core=core)
        env.reset(seed=0)
        sizes.append(len(pickle.dumps(env)))
    assert sizes[1] < 1.1 * sizes[0]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["copy", "pickle"])
def test_copies_go_on(copied: Any) -> None:
    env: Any = gym.make("NetBuild-v0", core="numba").unwrapped
    env.reset(seed=0)
    actions = list(sample_actions(env.action_space, 4))
    env.step(actions[0])
    other = copied(env)
    for action in actions[1:]:
        np.testing.assert_array_equal(env.step(action)[0], other.step(action)[0])


def test_what_cannot_be_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="core='jit': must be one of 'torch', 'numba', 'auto'"):
        gym.make("NetBuild-v0", core="jit")
    family = FAMILIES["classes"]
    images: Any = {"in_features": 9, "input_shape": (1, 3, 3), "out_features": 3, "width": 4, "layers": 2}
    convolutions = LayerPool.random(**images, kind="conv").architecture
    for architecture, device in ((convolutions, "cpu"), (dense("relu"), "meta")):
        with pytest.raises(ValueError, match="core='numba': computes dense layers"):
            find_core("numba", architecture, torch.device(device))
        assert find_core("auto", architecture, torch.device(device)) is architecture
    own = type("Relu", (Relu,), {"__doc__": "A user's own, of a name that is taken."})
    assert isinstance(find_core("auto", Dense(own()), torch.device("cpu")), Dense)
    monkeypatch.setattr(compiled, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'gym-reml\[fast\]'"):
        gym.make("NetBuild-v0", core="numba")
    assert isinstance(family, TaskFamily)
    for core in CORES[::2]:
        assert find_core(core, dense("relu"), torch.device("cpu")) is dense("relu")
