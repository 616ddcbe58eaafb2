"""The pool: initial weights by seed, fast weights and rates of networks, copies. Files are in test_files."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gym_reml.networks.blocks import check_kind
from gym_reml.networks.dense import dense
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.weights import Weights, descend, gradient_norms
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import PER_STEP, RATES

KINDS = pytest.mark.parametrize("kind", LAYER_KINDS)
GRANULARITIES = pytest.mark.parametrize("granularity", RATES)
STEPS = 3
RATED_SLOTS = 2
SLOTS = torch.tensor([[2, 4, 1], [3, 0, 2]])


def make(kind: str = "residual", **changes: Any) -> LayerPool:
    arguments: dict[str, Any] = {"in_features": 2, "out_features": 3, "width": 5, "layers": 4, "kind": kind}
    return LayerPool.random(**(arguments | changes))


def with_rates(pool: LayerPool, granularity: str, seed: int = 0) -> LayerPool:
    """A copy of the pool whose rates all differ."""
    rated = pool.with_rates(granularity, 0.1, steps=STEPS, slots=RATED_SLOTS)
    generator = torch.Generator().manual_seed(seed)
    for rate in rated.rates.values():
        rate.uniform_(0.01, 0.2, generator=generator)
    return rated


def equal(left: LayerPool, right: LayerPool) -> bool:
    first, second = left.trainable(), right.trainable()
    same = (left.kind, left.granularity, left.adapt_stem) == (right.kind, right.granularity, right.adapt_stem)
    return same and first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# -- fresh pools ---------------------------------------------------------------------------------------------------


@KINDS
def test_random_is_a_function_of_the_seed(kind: str) -> None:
    torch.rand(3)
    first = make(kind, seed=1)
    torch.rand(3)
    assert equal(first, make(kind, seed=1))
    other = make(kind, seed=2)
    for name, tensor in first.parameters.items():
        assert torch.equal(tensor, other.parameters[name]) == name.endswith("norm"), name


@KINDS
def test_shapes(kind: str) -> None:
    pool = make(kind)
    expected = {"stem.matrix": (3, 5), "layers.matrix": (4, 6, 5), "head.matrix": (6, 3)}
    if pool.architecture.normalised:
        expected |= {"stem.norm": (2, 5), "layers.norm": (4, 2, 5)}
        assert all((norm[..., 0, :] == 1).all() and (norm[..., 1, :] == 0).all() for norm in norms(pool))
    assert {name: tuple(tensor.shape) for name, tensor in pool.parameters.items()} == expected
    assert (pool.in_features, pool.out_features, pool.width, pool.layers) == (2, 3, 5, 4)
    assert pool.architecture is dense(kind)
    assert dense(kind).kind is LAYER_KINDS[kind]


def norms(pool: LayerPool) -> list[Tensor]:
    return [tensor for name, tensor in pool.parameters.items() if name.endswith("norm")]


def test_initialisation_is_that_of_nn_linear() -> None:
    """U(-1/sqrt(in), 1/sqrt(in)): bounds kept and nearly reached, variance a third of their square, also the biases."""
    pool = LayerPool.random(in_features=4, out_features=300, width=100, layers=6)
    for name, inputs in (("stem.matrix", 4), ("layers.matrix", 100), ("head.matrix", 100)):
        tensor, bound = pool.parameters[name], inputs**-0.5
        assert tensor.abs().max() <= bound
        assert tensor.abs().max() > 0.98 * bound
        np.testing.assert_allclose(float(tensor.square().mean()), bound**2 / 3, rtol=0.1)
        np.testing.assert_allclose(float(tensor[..., -1, :].square().mean()), bound**2 / 3, rtol=0.35)


def test_scale_is_of_the_hidden_layers_alone() -> None:
    whole, half = make(), make(scale=0.5)
    assert torch.equal(half.parameters["layers.matrix"], whole.parameters["layers.matrix"] * 0.5)
    assert all(torch.equal(half.parameters[name], whole.parameters[name]) for name in ("stem.matrix", "head.matrix"))


@KINDS
def test_the_stem_adapts_unless_a_norm_does(kind: str) -> None:
    pool = make(kind)
    assert pool.adapt_stem == (not pool.architecture.normalised)
    assert (not pool.fixed) == pool.adapt_stem
    for adapt in (True, False):
        pool = make(kind, adapt_stem=adapt)
        assert set(pool.adapted) == set(pool.parameters) - (set() if adapt else {"stem.matrix"})


@pytest.mark.parametrize("argument", ["in_features", "out_features", "width", "layers"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, "8"])
def test_sizes_below_one(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}={value!r}: must be a positive integer"):
        make(**{argument: value})


@pytest.mark.parametrize("kind", ["convolution", None, ["relu"]])
def test_unknown_kind(kind: Any) -> None:
    for function in (make, check_kind):
        with pytest.raises(ValueError, match=r"layer_kind=.*: must be one of 'relu', 'tanh', 'residual', 'layer_norm'"):
            function(kind)


# -- fast weights and rates ----------------------------------------------------------------------------------------


@KINDS
def test_fast_weights_to_begin_with(kind: str) -> None:
    pool = make(kind)
    weights = pool.assemble(SLOTS).weights
    for row in range(3):
        for position, (name, index) in enumerate(layout(pool, row)):
            held = weights.positions[position]
            assert set(held) == {key for part, key in (whole.split(".") for whole in pool.adapted) if part == name}
            for key, tensor in held.items():
                expected = pool.parameters[f"{name}.{key}"]
                assert torch.equal(tensor[row], expected if index is None else expected[index])


def layout(pool: LayerPool, row: int) -> list[tuple[str, int | None]]:
    """Parameters of network `row` of SLOTS; an empty slot is represented by the first layer."""
    return [("stem", None), *(("layers", max(int(slot) - 1, 0)) for slot in SLOTS[:, row]), ("head", None)]


@KINDS
@GRANULARITIES
@pytest.mark.parametrize("adapt_stem", [True, False])
def test_shapes_of_rates(kind: str, granularity: str, adapt_stem: bool) -> None:
    pool = make(kind, adapt_stem=adapt_stem)
    rated = pool.with_rates(granularity, 0.25, steps=STEPS, slots=RATED_SLOTS)
    for name, rate in rated.rates.items():
        assert (rate == 0.25).all(), name
    if granularity == "scalar":
        expected: dict[str, tuple[int, ...]] = {"all": ()}
    elif granularity == "weight":
        expected = {name: tuple(pool.parameters[name].shape) for name in pool.adapted}
    elif granularity == "weight_step":
        own = {name: tuple(pool.parameters[name].shape) for name in pool.adapted}
        own |= {name: (RATED_SLOTS, *shape[1:]) for name, shape in own.items() if name.startswith("layers")}
        expected = {name: (STEPS, *shape) for name, shape in own.items()}
    else:
        steps = (STEPS,) if granularity == "step" else ()
        expected = {name: (*steps, 4) if name.startswith("layers") else steps for name in pool.adapted}
    assert {name: tuple(rate.shape) for name, rate in rated.rates.items()} == expected
    assert (rated.granularity, pool.granularity, pool.rates) == (granularity, None, {}), "a copy"
    assert equal(rated.clone(), rated)
    assert rated.step_range == (0.25, 4.0)
    assert pool.step_range == (1e-3, 0.3)


@KINDS
@GRANULARITIES
@pytest.mark.parametrize("adapt_stem", [True, False])
@pytest.mark.parametrize("times", [(0, 2, 7), (1, 1, 1), (7, 7, 7)])  # 7 is beyond the last step that has its own
def test_gathered_rates_belong_to_the_weights(
    kind: str, granularity: str, adapt_stem: bool, times: tuple[int, ...]
) -> None:
    pool = with_rates(make(kind, adapt_stem=adapt_stem), granularity)
    clock = np.array(times)
    rates = pool.assemble(SLOTS).rates(clock)
    assert rates is not None
    weights = pool.assemble(SLOTS).weights
    assert [set(position) for position in rates.positions] == [set(position) for position in weights.positions]

    def expected(name: str, index: int | None, position: int, step: int) -> Tensor:
        if granularity == "scalar":
            return pool.rates["all"]
        rate = pool.rates[name]
        if granularity in PER_STEP:
            rate = rate[min(step, STEPS - 1)]
        if granularity == "weight_step" and index is not None:
            index = position - 1
        return rate if index is None else rate[index]

    for row in range(3):
        for position, (name, index) in enumerate(layout(pool, row)):
            for key, tensor in weights.positions[position].items():
                rate = rates.positions[position][key]
                wanted = expected(f"{name}.{key}", index, position, int(clock[row])).expand(tensor.shape[1:])
                assert torch.equal(rate.expand_as(tensor)[row], wanted), (row, position, key)


def test_no_rates_to_gather() -> None:
    assert make().assemble(SLOTS).rates(np.zeros(3, dtype=np.int64)) is None


@KINDS
@GRANULARITIES
def test_the_neutral_action_is_a_plain_step_of_size_rate(kind: str, granularity: str) -> None:
    """Step size 1 over a rated pool: w - rate * gradient, the gradient by autograd, for every weight (MAML's step)."""
    pool = with_rates(make(kind, adapt_stem=True), granularity)
    slots, clock = SLOTS[:, :1], np.array([1])
    weights = pool.assemble(slots).weights
    generator = torch.Generator().manual_seed(1)
    inputs = pool.architecture.prepare(torch.randn(1, 6, 2, generator=generator), {})
    targets = torch.randn(1, 6, 3, generator=generator)
    filled = [True, True]
    leaves = [tensor.clone().requires_grad_() for tensor in weights.tensors()]
    outputs = pool.architecture.forward(weights.like(leaves), inputs, filled=filled).outputs
    slopes = torch.autograd.grad((outputs - targets).square().sum() / 20, leaves)
    trace = pool.architecture.forward(weights, inputs, filled=filled)
    gradient = pool.architecture.gradient(weights, trace, output_gradient=(trace.outputs - targets) / 10, filled=filled)
    rates = pool.assemble(slots).rates(clock)
    assert rates is not None
    new = descend(weights, gradient, norms=gradient_norms(gradient), step_sizes=torch.ones(1), rates=rates)
    rows = zip(new.tensors(), weights.tensors(), slopes, rates.tensors(), strict=True)
    for after, before, slope, rate in rows:
        torch.testing.assert_close(after, before - rate * slope, rtol=1e-5, atol=1e-6)
        assert not torch.equal(after, before)


@pytest.mark.parametrize("initial", [0.0, -1.0, float("nan"), float("inf")])
def test_rates_are_positive_at_first(initial: float) -> None:
    with pytest.raises(ValueError, match=r"initial=.*positive"):
        make().with_rates("tensor", initial)


def test_unknown_granularity_and_missing_steps() -> None:
    with pytest.raises(
        ValueError, match=r"granularity='layer': must be one of 'scalar', 'tensor', 'step', 'weight', 'weight_step'"
    ):
        make().with_rates("layer", 0.1)
    for number in (None, 0):
        for granularity in PER_STEP:
            with pytest.raises(ValueError, match=f"steps={number}.*at least 1"):
                make().with_rates(granularity, 0.1, steps=number, slots=2)
        with pytest.raises(ValueError, match=f"slots={number}.*at least 1"):
            make().with_rates("weight_step", 0.1, steps=2, slots=number)


def test_weights_are_one_tensor_a_position() -> None:
    weights = make().assemble(SLOTS).weights
    assert isinstance(weights, Weights)
    assert [tuple(tensor.shape) for tensor in weights.tensors()] == [(3, 3, 5), (3, 6, 5), (3, 6, 5), (3, 6, 3)]


# -- copies --------------------------------------------------------------------------------------------------------


def shares(left: LayerPool, right: LayerPool) -> bool:
    addresses = [{tensor.data_ptr() for tensor in pool.trainable().values()} for pool in (left, right)]
    return bool(addresses[0] & addresses[1])


@KINDS
@GRANULARITIES
def test_clone_and_assign(kind: str, granularity: str) -> None:
    pool, other = with_rates(make(kind), granularity), with_rates(make(kind, seed=9), granularity, seed=9)
    copy = pool.clone()
    assert equal(copy, pool)
    assert not shares(copy, pool)
    tensors = list(copy.trainable().values())
    copy.assign(other)
    assert equal(copy, other)
    assert not equal(copy, pool)
    assert not shares(copy, other)
    assert all(old is new for old, new in zip(tensors, copy.trainable().values(), strict=True)), "in place"


@pytest.mark.parametrize("other", [make(width=6), make(layers=3), make("relu"), make().with_rates("tensor", 0.1)])
def test_assign_refuses_another_kind_or_shape(other: LayerPool) -> None:
    pool = make()
    before = pool.clone()
    with pytest.raises(ValueError, match=r"^other: a pool of another shape"):
        pool.assign(other)
    assert equal(pool, before)


def step_norms(statistics: bool) -> LayerPool:
    return make("batch_norm").with_step_norms(2, statistics)


def doubled(pool: LayerPool) -> LayerPool:
    pool.parameters = {name: tensor.double() for name, tensor in pool.parameters.items()}
    return pool


@pytest.mark.parametrize(
    ("pool", "other", "message"),
    [
        (make(adapt_stem=True), make(adapt_stem=False), "adapt_stem"),
        (make("layer_norm", adapt_stem=True), make("layer_norm", adapt_stem=False), "adapt_stem"),
        (make(), make(constant_outputs=1), "head.matrix, head.constants"),
        (make("relu"), make("tanh"), "kind"),
        (make().with_rates("scalar", 0.1), make().with_rates("tensor", 0.1), "granularity"),
        (make().with_rates("step", 0.1, steps=2), make().with_rates("step", 0.1, steps=3), "rate.layers.matrix"),
        (step_norms(False), step_norms(True), "statistics.stem"),
        (step_norms(True), step_norms(False), "statistics.stem"),
        (make("batch_norm"), step_norms(False), "stem.norm"),
        (make(), doubled(make()), "stem.matrix, layers.matrix, head.matrix"),
    ],
)
def test_assign_refuses_whatever_else_differs(pool: LayerPool, other: LayerPool, message: str) -> None:
    before = pool.clone()
    with pytest.raises(ValueError, match=rf"^other: .*they differ in .*{message}"):
        pool.assign(other)
    assert equal(pool, before)


def test_numbers_that_are_not_there_are_neither_copied_nor_overwritten() -> None:
    pool, nowhere = make(), make().to("meta")
    before = pool.clone()
    for work in (lambda: pool.assign(nowhere), lambda: nowhere.assign(pool), lambda: nowhere.to("cpu")):
        with pytest.raises(ValueError, match="'meta', which holds no numbers"):
            work()
    assert equal(pool, before)


def test_to_is_the_pool_itself_where_it_is_already() -> None:
    pool = make().with_rates("scalar", 0.1)
    assert pool.to("cpu") is pool
    assert pool.to(torch.device("cpu")) is pool
    there = pool.to("meta")  # a device that is on every machine
    assert there is not pool
    assert {tensor.device.type for tensor in there.trainable().values()} == {"meta"}
    assert {tensor.device.type for tensor in there.with_rates("scalar", 0.1).rates.values()} == {"meta"}
    assert pool.device.type == "cpu"


def test_describe() -> None:
    assert make().describe() == "4 residual layers of width 5, 2 inputs, 3 outputs"
    assert make().with_rates("weight", 0.1).describe().endswith("rates per weight")
