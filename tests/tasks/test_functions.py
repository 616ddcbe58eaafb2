"""The families of scalar functions: formulas, ranges, magnitudes, and distances from each other."""

from __future__ import annotations

import dataclasses
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gym_reml.evaluation.protocol import _plain_arguments
from gym_reml.streams import many_streams
from gym_reml.tasks import FAMILIES, TaskFamily, make_family
from gym_reml.tasks.functions.base import Regression1d
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.drawing import draw

Array = NDArray[np.float64]
Ranges = dict[str, tuple[float, float]]


def ramp(x: float, level: float, rise: float, middle: float, length: float) -> float:
    start, end = middle - length / 2, middle + length / 2
    before, after = level - rise / 2, level + rise / 2
    if x <= start:
        return before
    return after if x >= end else before + (after - before) * (x - start) / (end - start)


def cubic(x: float, level: float, tilt: float, bend: float, twist: float) -> float:
    """Chebyshev polynomials by definition: that of degree k is cos(k arccos z)."""
    angle = math.acos(x / 5)
    return sum(factor * math.cos(k * angle) for k, factor in enumerate((level, tilt, bend, twist)))


def network(x: float, heights: list[float], slopes: list[float], centres: list[float]) -> float:
    units = zip(heights, slopes, centres, strict=True)
    return sum(height * math.tanh(slope * (x - centre)) for height, slope, centre in units)


# The ranges (of those in SIGNED, the ranges of their sizes), and the function of one number.
FUNCTIONS: dict[str, tuple[Ranges, Callable[..., float]]] = {
    # Finn et al. 2017, section 5.1
    "sinusoid": (
        {"amplitude": (0.1, 5.0), "phase": (0.0, np.pi)},
        lambda x, amplitude, phase: amplitude * np.sin(x - phase),
    ),
    "linear": (
        {"slope": (-1.0, 1.0), "intercept": (-2.0, 2.0)},
        lambda x, slope, intercept: slope * x + intercept,
    ),
    "quadratic": (
        {"curvature": (-0.2, 0.2), "vertex": (-2.0, 2.0), "offset": (-2.0, 2.0)},
        lambda x, curvature, vertex, offset: offset + curvature * (x - vertex) * (x - vertex),
    ),
    "step": (
        {"before": (-3.0, 3.0), "after": (-3.0, 3.0), "edge": (-3.0, 3.0)},
        lambda x, before, after, edge: before if x < edge else after,
    ),
    "sawtooth": (
        {"amplitude": (0.5, 3.0), "period": (3.0, 8.0), "shift": (0.0, 5.0)},
        lambda x, amplitude, period, shift: amplitude * (2 * ((x - shift) % period) / period - 1),
    ),
    "absolute": (
        {"slope": (0.4, 1.0), "corner": (-3.0, 3.0), "level": (-2.0, 2.0)},
        lambda x, slope, corner, level: level + (slope * (x - corner) if x > corner else slope * (corner - x)),
    ),
    "bump": (
        {"height": (2.0, 6.0), "centre": (-3.0, 3.0), "width": (0.75, 2.5), "level": (-1.5, 1.5)},
        lambda x, height, centre, width, level: level + height / math.exp((x - centre) ** 2 / width**2),
    ),
    "cubic": ({"level": (-1.5, 1.5), "tilt": (-3.0, 3.0), "bend": (-2.0, 2.0), "twist": (0.5, 2.5)}, cubic),
    "network": ({"heights": (0.3, 1.2), "slopes": (0.25, 1.5), "centres": (-5.0, 5.0)}, network),
    "ramp": ({"level": (-1.5, 1.5), "rise": (2.0, 6.0), "middle": (-2.0, 2.0), "length": (1.0, 4.0)}, ramp),
    "two_sinusoids": (
        {"slow_amplitude": (0.5, 3.0), "slow_frequency": (0.5, 1.0), "slow_phase": (0.0, 2 * np.pi)}
        | {"fast_amplitude": (0.5, 3.0), "fast_frequency": (1.25, 2.0), "fast_phase": (0.0, 2 * np.pi)},
        lambda x, slow_amplitude, slow_frequency, slow_phase, fast_amplitude, fast_frequency, fast_phase: (
            slow_amplitude * math.sin(slow_frequency * x - slow_phase)
            + fast_amplitude * math.sin(fast_frequency * x - fast_phase)
        ),
    ),
}
SIGNED = {("absolute", "slope"), ("bump", "height"), ("cubic", "twist"), ("network", "heights"), ("ramp", "rise")}
HELD_OUT = ("linear", "quadratic", "step", "sawtooth")
"""What is tested on when the others are trained on."""
TRAINED_ON = [name for name in FUNCTIONS if name not in HELD_OUT]
UNITS = 8


def test_every_scalar_family_is_tested_here() -> None:
    assert {name for name, kind in FAMILIES.items() if issubclass(kind, Regression1d)} == set(FUNCTIONS)


# -- parameters ----------------------------------------------------------------------------------------------------


def check_ranges(name: str, family: TaskFamily, ranges: Ranges, count: int) -> None:
    """Uniform: bounds kept and nearly reached, mean in the middle, variance a twelfth of the square; independent."""
    tasks = draw(family, count)[0]
    assert tasks.keys() == ranges.keys()
    columns = []
    for parameter, (low, high) in ranges.items():
        values = tasks[parameter].reshape(count, -1)
        assert values.shape[1] == (UNITS if name == "network" else 1)
        sizes = values
        if (name, parameter) in SIGNED:
            np.testing.assert_allclose(np.sign(values).mean(), 0, atol=0.05)
            sizes = np.abs(values)
            columns.extend(np.sign(values).T)
        share = (sizes - low) / (high - low)
        assert share.min() >= 0
        assert share.max() <= 1
        assert share.min() < 0.01 < 0.99 < share.max()
        np.testing.assert_allclose([share.mean(), share.var()], [1 / 2, 1 / 12], atol=0.02)
        columns.extend(share.T)
    np.testing.assert_allclose(np.corrcoef(columns), np.eye(len(columns)), atol=0.08)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_ranges(name: str) -> None:
    check_ranges(name, make_family(name, queries=1), FUNCTIONS[name][0], 4000)


# -- data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_inputs_are_uniform_from_minus_five_to_five(name: str) -> None:
    _, support, query = draw(make_family(name, shots=20), 200)
    for batch in (support, query):
        assert batch.inputs.abs().max() <= 5
        np.testing.assert_allclose([batch.inputs.mean(), batch.inputs.var()], [0, 100 / 12], atol=0.3)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_targets_are_the_function_of_the_inputs(name: str) -> None:
    tasks, support, query = draw(make_family(name), 20)
    for row in range(20):
        parameters = {parameter: values[row].tolist() for parameter, values in tasks.items()}
        for batch in (support, query):
            x, y = batch.inputs[row, :, 0].tolist(), batch.targets[row, :, 0].tolist()
            np.testing.assert_allclose(y, [FUNCTIONS[name][1](value, **parameters) for value in x], atol=2e-5)


def curves(name: str, count: int = 500) -> Array:
    """The functions of many tasks on a grid of 2001 points, (count, 2001)."""
    family = make_family(name)
    assert isinstance(family, Regression1d)
    tasks = family.draw([row.task for row in many_streams(0, count, "train")])
    return family.evaluate(tasks, np.tile(np.linspace(-5, 5, 2001), (count, 1)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_curve_is_the_function(name: str) -> None:
    family = make_family(name)
    tasks = draw(family, 3)[0]
    for row, whole in enumerate(curves(name, 3)):
        curve = family.curve(tasks, row)
        assert curve is not None
        # Jumps lie a rounding error away from where the other grid has them.
        assert np.isclose(curve[1], whole[::10], atol=1e-9).mean() > 0.98


@pytest.mark.parametrize("name", TRAINED_ON)
def test_targets_are_as_large_as_the_sinusoids(name: str) -> None:
    values = draw(make_family(name), 2000)[2].targets
    assert 1.5 < values.std() < 3.0
    assert values.mean().abs() < 0.5
    assert values.abs().max() < 12.0
    assert (values.abs() < 5.0).float().mean() > 0.9


@pytest.mark.parametrize("name", TRAINED_ON)
def test_what_is_trained_on_is_never_what_is_held_out(name: str) -> None:
    """No jumps, so no step and no sawtooth; no parabola or line comes near."""
    values = curves(name)
    assert np.abs(np.diff(values)).max() < 0.05, "no more than a slope of 10"
    basis = np.linalg.qr(np.vander(np.linspace(-5, 5, 2001), 3))[0]
    residual = values - values @ basis @ basis.T
    distance = np.sqrt(np.square(residual).mean(axis=1))
    # The smallest amplitude of MAML's sinusoids is 0.1.
    assert distance.min() > {"sinusoid": 0.05, "network": 0.02}.get(name, 0.12)
    assert np.median(distance) > 0.25


@pytest.mark.parametrize("name", ["ramp", "absolute"])
def test_the_corners_lie_well_inside(name: str) -> None:
    slopes = np.diff(curves(name)) / 0.005
    if name == "ramp":
        assert not slopes[:, :200].any()
        assert not slopes[:, -200:].any()
        assert np.abs(slopes).max() <= 6.0 + 1e-6
        assert np.count_nonzero(slopes, axis=1).min() >= 200
    else:
        np.testing.assert_allclose(slopes[:, :400], -slopes[:, -400:][:, ::-1], atol=1e-9)
        assert np.abs(slopes[:, 0]).min() >= 0.4 - 1e-9


# -- sinusoids of other ranges -------------------------------------------------------------------------------------

BEYOND: dict[str, Any] = {"amplitude": (5.0, 8.0), "phase": (np.pi, 2 * np.pi)}


def test_sinusoids_beyond_the_usual_ranges() -> None:
    family = make_family("sinusoid", **BEYOND)
    check_ranges("sinusoid", family, BEYOND, 4000)
    tasks, _, query = draw(family, 5)
    for row in range(5):
        expected = tasks["amplitude"][row] * np.sin(query.inputs[row].numpy() - tasks["phase"][row])
        np.testing.assert_allclose(query.targets[row].numpy(), expected, atol=2e-5)


def test_the_usual_sinusoids_are_the_default() -> None:
    plain, spelled = Sinusoid(), Sinusoid(amplitude=(0.1, 5.0), phase=(0.0, np.pi))
    assert plain == spelled
    numbers = np.stack([row.task.random(2) for row in many_streams(0, 20, "train")])
    tasks = draw(plain, 20)[0]
    np.testing.assert_array_equal(tasks["amplitude"], 0.1 + (5.0 - 0.1) * numbers[:, 0])
    np.testing.assert_array_equal(tasks["phase"], np.pi * numbers[:, 1])


def test_ranges_survive_lists_copies_and_json() -> None:
    family = make_family("sinusoid", amplitude=[5, 8])
    assert isinstance(family, Sinusoid)
    assert family.amplitude == (5.0, 8.0)
    assert isinstance(family.amplitude, tuple)
    assert family == make_family("sinusoid", amplitude=(5.0, 8.0))
    assert len({family, make_family("sinusoid", amplitude=[5, 8])}) == 1, "hashable"
    plain = json.loads(json.dumps(_plain_arguments(family)))
    assert plain == _plain_arguments(family)
    assert plain["amplitude"] == [5.0, 8.0]
    amplitudes = draw(family, 20)[0]["amplitude"]
    for same in (
        pickle.loads(pickle.dumps(family)),
        make_family("sinusoid", **plain),
        family.replace(phase=[0, np.pi]),
        dataclasses.replace(family, shots=7),
        make_family(make_family("sinusoid"), amplitude=(5, 8)),
    ):
        np.testing.assert_array_equal(draw(same, 20)[0]["amplitude"], amplitudes)
    fixed = draw(family.replace(amplitude=(2, 2)), 20)[0]
    assert (fixed["amplitude"] == 2).all()
    mixture = make_family("mixture", members=[{"name": "sinusoid", "amplitude": [5, 8]}])
    assert _plain_arguments(mixture)["members"][0]["amplitude"] == [5.0, 8.0]
    assert draw(mixture, 20)[0]["0.amplitude"].min() >= 5


@pytest.mark.parametrize("argument", ["amplitude", "phase"])
@pytest.mark.parametrize(
    "value", [3, None, "12", ["1", "2"], [False, True], [1], [1, 2, 3], [2, 1], [0, np.inf], [np.nan, 1], [0, 10**400]]
)
def test_bad_ranges(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{argument}=.*: must be finite numbers \(low, high\) with low <= high"):
        make_family("sinusoid", **{argument: value})


# -- mixtures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("members", [["sinusoid", "linear", "step"], TRAINED_ON, list(FUNCTIONS)])
def test_a_mixture_draws_each_member_and_the_members_draw_the_rest(members: list[str]) -> None:
    family = make_family("mixture", members=members, shots=3, queries=7, split="validation")
    tasks, support, query = draw(family, 600)
    np.testing.assert_allclose(np.bincount(tasks["member"]) / 600, 1 / len(members), atol=0.06)
    assert (support.inputs.shape[1], query.inputs.shape[1]) == (3, 7)
    for row in range(60):
        description = family.describe(tasks, row)
        name = members[int(tasks["member"][row])]
        assert description.pop("family") == name
        expected = [FUNCTIONS[name][1](x, **description) for x in query.inputs[row, :, 0].tolist()]
        np.testing.assert_allclose(query.targets[row, :, 0].tolist(), expected, atol=2e-5)
        curve = family.curve(tasks, row)
        assert curve is not None
        assert np.isfinite(curve[1]).all()
