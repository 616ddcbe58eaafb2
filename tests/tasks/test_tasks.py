"""Properties of every supervised family: independent rows, pure losses, exact gradients, signals of support sets.

Those whose data depend on the network are in test_policies.py.
"""

from __future__ import annotations

import copy
import functools
import json
import math
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from gym_reml.streams import many_streams, row_streams
from gym_reml.tasks import FAMILIES, SPLITS, Batch, TaskFamily, from_arrays, make_family
from gym_reml.tasks.functions.base import GRID, INPUT_RANGE, Regression1d, smoothing
from gym_reml.tasks.functions.sinusoid import Sinusoid
from gym_reml.tasks.supervised import Classification
from tests.support.drawing import collect, draw
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments

MEMBERS = ["sinusoid", {"name": "linear"}, Sinusoid()]
CLASSES = np.random.default_rng(0).integers(3, size=(9, 80))
ARRAYS: dict[str, Callable[..., TaskFamily]] = {
    "array-regression": functools.partial(
        from_arrays, np.random.default_rng(1).normal(size=(9, 80, 2)), np.random.default_rng(2).normal(size=(9, 80, 3))
    ),
    "array-classification": functools.partial(
        from_arrays, np.random.default_rng(3).normal(size=(9, 80, 2)) + CLASSES[..., None], CLASSES
    ),
}
NAMES = [*(name for name, kind in FAMILIES.items() if kind.fixed_data), *ARRAYS]
EVERY = pytest.mark.parametrize("name", NAMES)
SCALAR = [name for name, kind in FAMILIES.items() if issubclass(kind, Regression1d)]

Make = Callable[..., TaskFamily]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A family of any name in NAMES, with small sets."""

    @functools.cache
    def small(name: str) -> dict[str, Any]:
        return image_arguments(name, tmp_path_factory.mktemp(name))

    def build(name: str, **arguments: Any) -> TaskFamily:
        if name == "mixture":
            arguments = {"members": MEMBERS} | arguments
        if name == "omniglot":
            # The synthetic archives have but one validation character: its rotations are the classes.
            arguments = {"rotations": True, "domains": ("identity", "inverted")} | arguments
        if name in IMAGE_FAMILIES:
            arguments = small(name) | {"ways": 3, "queries": 9} | arguments
        arguments = {"shots": 4, "queries": 20} | arguments
        return ARRAYS[name](**arguments) if name in ARRAYS else make_family(name, **arguments)

    return build


def outputs_for(family: TaskFamily, batch: Batch, dtype: torch.dtype = torch.float64, scale: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (*batch.inputs.shape[:2], family.out_features)
    return torch.randn(shape, generator=generator, dtype=dtype) * scale


def doubled(batch: Batch) -> Batch:
    """The batch in double precision, class numbers as they are."""
    return batch.map(lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)


def pieces(batch: Batch) -> dict[str, Tensor]:
    return {"inputs": batch.inputs, "targets": batch.targets} | batch.extras


# -- data ----------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("split", SPLITS)
def test_shapes_and_types(name: str, split: str, make: Make) -> None:
    family = make(name, split=split)
    tasks, support, query = draw(family)
    classes = isinstance(family, Classification)
    per_class = family.out_features if name in IMAGE_FAMILIES else 1
    for batch, points in ((support, 4 * per_class), (query, family.queries)):
        assert batch.inputs.shape == (6, points, family.in_features)
        assert batch.inputs.dtype == torch.float32
        assert batch.targets.shape == ((6, points) if classes else (6, points, family.out_features))
        assert batch.targets.dtype == (torch.int64 if classes else torch.float32)
        assert all(len(tensor) == 6 and tensor.isfinite().all() for tensor in pieces(batch).values())
        assert all(tensor.device.type == "cpu" for tensor in pieces(batch).values())
    assert all(len(values) == 6 for values in tasks.values())
    assert math.prod(family.input_shape) == family.in_features
    assert family.split == split


@EVERY
def test_a_row_of_a_batch_is_the_row_alone(name: str, make: Make) -> None:
    family = make(name)
    tasks, support, query = draw(family, count=6, seed=11)
    outputs = outputs_for(family, support, torch.float32)
    for row in range(6):
        alone, *batches = collect(family, [row_streams(11 + row, "train")])
        assert alone.keys() == tasks.keys()
        for key, values in alone.items():
            np.testing.assert_array_equal(values[0], tasks[key][row])
        for whole, single in zip((support, query), batches, strict=True):
            assert torch.equal(single.inputs[0], whole.inputs[row])
            assert torch.equal(single.targets[0], whole.targets[row])
            for key, tensor in single.extras.items():
                torch.testing.assert_close(tensor[0], whole.extras[key][row])
        signal = family.support_signal(outputs[[row]], batches[0])
        torch.testing.assert_close(signal[0], family.support_signal(outputs, support)[row])
        assert family.describe(alone, 0) == family.describe(tasks, row)


@EVERY
def test_tasks_differ_and_follow_from_the_seed(name: str, make: Make) -> None:
    family = make(name)
    first, again, other = (draw(family, seed=seed)[1:] for seed in (0, 0, 100))
    for part in range(2):
        assert torch.equal(first[part].inputs, again[part].inputs)
        assert torch.equal(first[part].targets, again[part].targets)
        assert not torch.equal(first[part].inputs, other[part].inputs)
        assert not torch.equal(first[part].inputs[0], first[part].inputs[1])


@EVERY
def test_splits_never_meet(name: str, make: Make) -> None:
    """With 200 seeds, no data of one split occurs in another."""
    seen = []
    for split in SPLITS:
        family = make(name, split=split)
        _, support, query = collect(family, many_streams(0, 200, split))
        seen.append({tuple(point) for batch in (support, query) for point in batch.inputs.flatten(0, 1).tolist()})
    # Blank images can look alike whatever character they show; no such thing happens in these archives.
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]


@EVERY
def test_a_support_point_is_never_a_query_point(name: str, make: Make) -> None:
    _, support, query = draw(make(name), count=20)
    for train, test in zip(support.inputs.tolist(), query.inputs.tolist(), strict=True):
        assert not {tuple(point) for point in train} & {tuple(point) for point in test}


@EVERY
def test_the_size_of_one_set_never_moves_the_other(name: str, make: Make) -> None:
    small, many = make(name), make(name, shots=8, queries=30)
    _, support, query = draw(small)
    _, more_support, more_query = draw(many)
    with_more_shots = draw(make(name, shots=8))[2]
    with_more_queries = draw(make(name, queries=30))[1]
    for one, other in ((query, with_more_shots), (support, with_more_queries)):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)
    for row in range(6):
        for few, all_points in ((support, more_support), (query, more_query)):
            known = {tuple(point) for point in all_points.inputs[row].tolist()}
            assert {tuple(point) for point in few.inputs[row].tolist()} <= known


# -- losses --------------------------------------------------------------------------------------------------------


@EVERY
def test_loss_is_pytorchs_own(name: str, make: Make) -> None:
    family = make(name)
    _, support, query = draw(family)
    for batch in (support, query):
        batch = doubled(batch)
        outputs = outputs_for(family, batch)
        before = (outputs.clone(), batch.map(torch.clone))
        loss = family.loss(outputs, batch)
        for row in range(6):
            if family.exchangeable_outputs:
                expected = functional.cross_entropy(outputs[row], batch.targets[row])
            else:
                expected = functional.mse_loss(outputs[row], batch.targets[row])
            torch.testing.assert_close(loss[row], expected)
            alone = family.loss(outputs[[row]], batch.rows(torch.tensor([row])))
            torch.testing.assert_close(alone[0], expected)
        assert torch.equal(loss, family.loss(outputs, batch)), "pure"
        assert torch.equal(outputs, before[0])
        assert all(torch.equal(tensor, pieces(before[1])[key]) for key, tensor in pieces(batch).items())


@dataclass(frozen=True)
class Quartic(Sinusoid):
    """Keeps the base class's `output_gradient`, by autograd."""

    name: ClassVar[str] = "quartic"

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (outputs - batch.targets).pow(4).mean(dim=(1, 2))

    output_gradient = TaskFamily.output_gradient


@pytest.mark.parametrize("name", [*NAMES, "quartic"])
def test_output_gradient_is_the_gradient(name: str, make: Make) -> None:
    family = Quartic(shots=4) if name == "quartic" else make(name)
    batch = doubled(draw(family)[1])
    outputs = outputs_for(family, batch).requires_grad_()
    (expected,) = torch.autograd.grad(family.loss(outputs, batch).sum(), outputs)
    for grown in (outputs, outputs.detach()):
        torch.testing.assert_close(family.output_gradient(grown, batch), expected)
    with torch.no_grad():
        gradient = family.output_gradient(outputs.detach(), batch)
    torch.testing.assert_close(gradient, expected)
    assert not gradient.requires_grad
    # The replay differentiates through it.
    assert torch.autograd.gradcheck(lambda value: family.output_gradient(value, batch), (outputs,))


@EVERY
def test_losses_at_zero_residual_and_far_away(name: str, make: Make) -> None:
    family = make(name)
    batch = draw(family)[1]
    if family.exchangeable_outputs:
        perfect = functional.one_hot(batch.targets, family.out_features) * 200.0
    else:
        perfect = batch.targets.clone()
    outputs = perfect.requires_grad_()
    loss = family.loss(outputs, batch)
    torch.testing.assert_close(loss, torch.zeros(6))
    assert torch.autograd.grad(loss.sum(), outputs)[0].abs().max() < 1e-6, "no NaN at zero"
    assert family.loss(outputs.detach() * 0 + 1e6, batch).isfinite().all()
    assert 1.0 < family.cap < math.inf


@EVERY
def test_score_and_metrics(name: str, make: Make) -> None:
    family = make(name)
    batch = doubled(draw(family)[2])
    outputs = outputs_for(family, batch)
    loss = family.loss(outputs, batch)
    torch.testing.assert_close(family.score(loss), (1 + loss).log())
    metrics = family.metrics(outputs, batch, loss)
    if family.exchangeable_outputs:
        guesses, truths = outputs.numpy().argmax(axis=2), batch.targets.numpy()
        expected = {"accuracy": torch.from_numpy((guesses == truths).mean(axis=1))}
    else:
        expected = {"mse": loss}
    assert metrics.keys() == expected.keys()
    for key, values in expected.items():
        torch.testing.assert_close(metrics[key], values)


# -- what agents see -----------------------------------------------------------------------------------------------


@EVERY
def test_signal_has_its_size_and_is_bounded(name: str, make: Make) -> None:
    family = make(name)
    support = draw(family)[1]
    signal = family.support_signal(outputs_for(family, support, torch.float32), support)
    assert signal.shape == (6, family.signal_size)
    assert signal.dtype == torch.float32
    assert signal.isfinite().all()


def signal_of(outputs: Tensor, support: Batch) -> Tensor:
    """The signal of a sinusoid with these support points, whatever its number of shots."""
    extras = smoothing(support.inputs, support.targets)
    return Sinusoid().support_signal(outputs, Batch(support.inputs, support.targets, extras))


@pytest.mark.parametrize("name", [*SCALAR, "mixture"])
def test_signal_is_a_kernel_smoother(name: str, make: Make) -> None:
    """By loops: sums of kernel x value over sums of kernel + 0.02 K, at each grid point."""
    family = make(name)
    support = draw(family)[1]
    outputs = outputs_for(family, support, torch.float32)
    signal = family.support_signal(outputs, support)
    assert GRID.tolist() == [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5]
    for row in range(6):
        for place in range(11):
            kernel = [math.exp(-0.5 * ((place - 5 - float(x)) / 0.7) ** 2) for x in support.inputs[row, :, 0]]
            values = list(zip(kernel, support.targets[row, :, 0].tolist(), outputs[row, :, 0].tolist(), strict=True))
            total = sum(kernel) + 0.02 * len(kernel)
            residual = sum(weight * (y - out) for weight, y, out in values) / total
            target = sum(weight * y for weight, y, _ in values) / total
            found = [float(signal[row, part * 11 + place]) for part in range(3)]
            np.testing.assert_allclose(found, [residual, target, sum(kernel) / len(kernel)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCALAR)
def test_signal_knows_neither_order_nor_number(name: str, make: Make) -> None:
    support = draw(make(name))[1]
    outputs = outputs_for(make(name), support, torch.float32)
    signal = signal_of(outputs, support)
    torch.testing.assert_close(signal, make(name).support_signal(outputs, support))
    for index in ([2, 0, 3, 1], [0, 1, 2, 3] * 5):
        changed = Batch(support.inputs[:, index], support.targets[:, index])
        torch.testing.assert_close(signal_of(outputs[:, index], changed), signal, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SCALAR)
def test_signal_of_many_points_approaches_a_limit(name: str, make: Make) -> None:
    """Signals of more shots of the same tasks agree up to noise."""
    signals = {}
    for shots in (50, 500, 5000):
        family = make(name, shots=shots)
        support = draw(family, count=20)[1]
        signals[shots] = family.support_signal(torch.zeros_like(support.targets), support)
    errors = [float((signals[shots] - signals[5000]).square().mean()) for shots in (50, 500)]
    assert errors[1] < errors[0] / 3
    assert errors[1] < 0.03


def test_signal_shows_the_fall_of_the_residual() -> None:
    support = draw(Sinusoid())[1]
    assert not signal_of(support.targets, support)[:, :11].any()
    nothing = signal_of(torch.zeros_like(support.targets), support)
    torch.testing.assert_close(nothing[:, :11], nothing[:, 11:22])


# -- the family as an object ---------------------------------------------------------------------------------------


@EVERY
def test_replace_and_copies(name: str, make: Make) -> None:
    family = make(name)
    other = family.replace(split="test", shots=2)
    assert (other.split, other.shots, other.queries, type(other)) == ("test", 2, family.queries, type(family))
    assert (family.split, family.shots) == ("train", 4)
    for same in (pickle.loads(pickle.dumps(family)), copy.deepcopy(family), make_family(family), family.replace()):
        assert torch.equal(draw(same)[1].inputs, draw(family)[1].inputs)
        assert (same.signal_size, same.cap, same.name) == (family.signal_size, family.cap, family.name)
    assert make_family(family, shots=3).shots == 3
    with pytest.raises(AttributeError):
        setattr(family, "shots", 7)  # noqa: B010 (mypy knows that it is frozen)


@EVERY
def test_describe_is_plain_data(name: str, make: Make) -> None:
    family = make(name)
    tasks = draw(family)[0]
    descriptions = [family.describe(tasks, row) for row in range(6)]
    assert all(isinstance(description["family"], str) for description in descriptions)
    assert json.loads(json.dumps(descriptions)) == descriptions
    assert len({json.dumps(description) for description in descriptions}) > 1


@EVERY
def test_pictures(name: str, make: Make) -> None:
    family = make(name)
    tasks, _, query = draw(family)
    shape = family.image_shape
    assert shape is None or shape[0] * shape[1] == family.in_features
    for row in range(6):
        curve = family.curve(tasks, row)
        assert (curve is not None) == (name in [*SCALAR, "mixture"])
        if curve is not None:
            x, y = curve
            assert x.shape == y.shape
            assert (x[0], x[-1]) == INPUT_RANGE
            # Points of the task lie on its curve, but for jumps between grid points.
            near = np.interp(query.inputs[row, :, 0].numpy(), x, y)
            assert np.median(np.abs(near - query.targets[row, :, 0].numpy())) < 0.01


@EVERY
@pytest.mark.parametrize("argument", ["shots", "queries"])
@pytest.mark.parametrize("value", [0, -1, 2.5, True, None, "5"])
def test_bad_sizes(name: str, argument: str, value: Any, make: Make) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}={value!r}: must be a positive integer"):
        make(name, **{argument: value})


@EVERY
def test_bad_split_and_unknown_argument(name: str, make: Make) -> None:
    with pytest.raises(ValueError, match=r"^split='x': must be one of 'train', 'validation', 'test'"):
        make(name, split="x")
    with pytest.raises(ValueError, match=r"^family_kwargs: .* takes no 'colour'; choices: shots, queries, split"):
        make_family(make(name), colour=1)
