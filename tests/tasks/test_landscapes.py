"""Test functions and clusters as tasks: known minima and values, and what runs on them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from torch import Tensor

from gym_reml.streams import many_streams
from gym_reml.tasks.base import Batch, TaskFamily, Tasks
from gym_reml.tasks.blobs import NOISE, Blobs
from gym_reml.tasks.landscapes import FUNCTIONS, SHIFT, Landscape

MINIMA: dict[str, list[tuple[float, float]]] = {
    "bowl": [(0.0, 0.0)],
    "quadratic": [(0.0, 0.0)],
    "rosenbrock": [(1.0, 1.0)],
    "beale": [(3.0, 0.5)],
    "booth": [(1.0, 3.0)],
    "branin": [(-np.pi, 12.275), (np.pi, 2.275), (9.42478, 2.475)],
    "ackley": [(0.0, 0.0)],
    "matyas": [(0.0, 0.0)],
    "michalewicz": [(2.202906, 1.570796)],
    "styblinski_tang": [(-2.903534, -2.903534)],
}
"""As the literature has them."""

ELSEWHERE: dict[str, tuple[tuple[float, float], float]] = {
    "rosenbrock": ((-1.0, 2.0), 104.0),
    "beale": ((0.0, 0.0), 1.5**2 + 2.25**2 + 2.625**2),
    "booth": ((0.0, 0.0), 74.0),
    "branin": ((0.0, 0.0), 36.0 + 10.0 * (1.0 - 1.0 / (8.0 * np.pi)) + 10.0),
    "matyas": ((1.0, 2.0), 0.26 * 5.0 - 0.48 * 2.0),
    "styblinski_tang": ((1.0, 0.0), -5.0),
}

CASES: dict[str, TaskFamily] = {name: Landscape(function=name) for name in FUNCTIONS} | {
    "quadratic of ten": Landscape(function="quadratic", dimension=10),
    "blobs": Blobs(shots=3, queries=7),
}
EVERY = pytest.mark.parametrize("family", CASES.values(), ids=CASES)


def draw(family: TaskFamily, count: int = 3, seed: int = 0) -> tuple[Tasks, Batch, Batch]:
    streams = many_streams(seed, count, family.split)
    tasks = family.draw([stream.task for stream in streams])
    support = family.support(tasks, torch.clone, [stream.support for stream in streams])
    return tasks, support, family.query(tasks, torch.clone, [stream.query for stream in streams])


def test_every_function_has_its_known_minima_and_values() -> None:
    assert set(MINIMA) == set(FUNCTIONS)
    for name, places in MINIMA.items():
        points = torch.tensor(places, dtype=torch.float64)
        least = torch.full((len(places),), FUNCTIONS[name].minimum(2), dtype=torch.float64)
        torch.testing.assert_close(FUNCTIONS[name].value(points), least, atol=2e-5, rtol=0.0)
    for name, (place, value) in ELSEWHERE.items():
        found = FUNCTIONS[name].value(torch.tensor([place], dtype=torch.float64))
        torch.testing.assert_close(found, torch.tensor([value], dtype=torch.float64))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_losses_are_values_above_the_minimum_of_a_moved_and_scaled_function(name: str) -> None:
    family, about = Landscape(function=name), FUNCTIONS[name]
    tasks, batch, _ = draw(family)
    low, high = np.array(about.box).T
    place = (np.array(MINIMA[name][0]) - (low + high) / 2.0) / ((high - low) / 2.0)
    if name == "quadratic":
        place = 0.0 * place
    at_minimum = torch.from_numpy(place + tasks["shift"]).float()[:, None]
    assert (np.abs(tasks["shift"]) <= SHIFT).all()
    assert family.loss(at_minimum, batch).max() < 1e-4
    twice = Batch(batch.inputs, batch.targets, batch.extras | {"scale": 2.0 * batch.extras["scale"]})
    outputs = torch.zeros(3, 1, 2)
    torch.testing.assert_close(family.loss(outputs, twice), 2.0 * family.loss(outputs, batch))
    if name != "quadratic":
        x = (low + high) / 2.0 - (high - low) / 2.0 * tasks["shift"]
        value = about.value(torch.from_numpy(x)).numpy()
        expected = tasks["scale"] / about.size * (value - about.minimum(2))
        np.testing.assert_allclose(family.loss(outputs, batch), expected, rtol=1e-4, atol=1e-6)


def test_a_quadratic_is_that_of_its_matrix() -> None:
    family = Landscape(function="quadratic", dimension=4)
    tasks, batch, _ = draw(family)
    point = np.array([0.1, -0.2, 0.3, 0.4])
    for row, loss in enumerate(family.loss(torch.from_numpy(point).float().expand(3, 1, 4), batch)):
        moved = tasks["matrix"][row] @ (point - tasks["shift"][row])
        assert float(loss) == pytest.approx(tasks["scale"][row] * (moved**2).mean() / 0.67, rel=1e-4)


@EVERY
def test_rows_follow_from_their_seeds(family: TaskFamily) -> None:
    tasks, support, query = draw(family)
    own_tasks, own, own_query = draw(family, count=1, seed=1)
    for name, values in tasks.items():
        np.testing.assert_array_equal(values[1:2], own_tasks[name])
    torch.testing.assert_close(support.inputs[1:2], own.inputs, rtol=0, atol=0)
    torch.testing.assert_close(query.targets[1:2], own_query.targets, rtol=0, atol=0)
    other, _, _ = draw(family.replace(split="test"))
    assert any((other[name] != tasks[name]).all() for name in tasks)


@EVERY
def test_gradients_are_those_of_differences(family: TaskFamily) -> None:
    _, batch, _ = draw(family)
    batch = batch.to(torch.device("cpu"), torch.float64)
    generator = torch.Generator().manual_seed(0)
    shape = (3, batch.inputs.shape[1], family.out_features)
    outputs = torch.rand(shape, generator=generator, dtype=torch.float64)
    torch.autograd.gradcheck(lambda values: family.loss(values, batch), outputs.requires_grad_())
    (gradient,) = torch.autograd.grad(family.loss(outputs, batch).sum(), outputs)
    torch.testing.assert_close(family.output_gradient(outputs.detach(), batch), gradient)


@EVERY
def test_environments_take_them(family: TaskFamily) -> None:
    env: Any = gym.make("NetBuild-v0", family=family)
    check_env(env.unwrapped, skip_render_check=True)


def test_blobs_lie_around_their_centres() -> None:
    family = Blobs(ways=3, features=2, shots=500)
    tasks, support, _ = draw(family, count=1)
    assert support.targets[0].bincount().tolist() == [500] * 3
    centres = torch.from_numpy(tasks["centres"][0]).float()
    own: Tensor = centres[support.targets[0]]
    distances = (support.inputs[0][:, None] - own).norm(dim=2).amin(dim=1)
    assert float(distances.square().mean()) == pytest.approx(2.0 * NOISE**2, rel=0.2)
    _, fewer, _ = draw(family.replace(shots=10), count=1)
    torch.testing.assert_close(fewer.inputs[0], support.inputs[0, :30], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        (Landscape, {"function": "peak"}, "function='peak': must be one of 'bowl'"),
        (Landscape, {"function": "booth", "dimension": 3}, "dimension=3: must be 2 for function='booth'"),
        (Landscape, {"dimension": 0}, "dimension=0"),
        (Landscape, {"function": "rosenbrock", "dimension": 1}, "dimension=1"),
        (Blobs, {"ways": 1}, "ways=1"),
        (Blobs, {"features": 0}, "features=0"),
    ],
)
def test_what_is_wrong_is_named(kind: type[TaskFamily], arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**arguments)


@pytest.mark.parametrize("argument", ["shots", "queries"])
def test_a_landscape_has_one_point(argument: str) -> None:
    with pytest.raises(ValueError, match=f"{argument}=5: must be 1"):
        Landscape(**{argument: 5})  # type: ignore[arg-type]
