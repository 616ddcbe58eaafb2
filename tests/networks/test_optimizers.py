"""Optimizers of the inner loop against `torch.optim`, row by row, and their derivatives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gym_reml.networks.optimizers import OPTIMIZERS, find_optimizer

ROWS, STEPS = 3, 6
SHAPES = [(4, 2), (3,), (2, 1, 3, 3)]

REFERENCE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr, beta=0.9: torch.optim.SGD(parameters, lr=lr, momentum=beta),
    "adam": lambda parameters, lr, beta=0.9: torch.optim.Adam(parameters, lr=lr, betas=(beta, 0.999)),
    "rmsprop": torch.optim.RMSprop,
}

ALL = pytest.mark.parametrize("name", OPTIMIZERS)


def draw(seed: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Tensors of all shapes, of very different magnitudes, some elements 0."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn((ROWS, *shape), generator=generator, dtype=torch.float64) for shape in SHAPES]
    scales = torch.tensor([1e-4, 1.0, 30.0], dtype=torch.float64)
    return [
        (tensor * scales.reshape(-1, *[1] * (tensor.ndim - 1)) * (tensor.abs() > 0.1)).to(dtype) for tensor in drawn
    ]


@ALL
@pytest.mark.parametrize("own", [False, True])
def test_steps_are_those_of_torch(name: str, own: bool) -> None:
    """Also with a momentum for each row, as far as the optimizer has any."""
    optimizer = OPTIMIZERS[name]
    if own and not optimizer.has_momentum:
        with pytest.raises(ValueError, match=f"^momentum: .*{name}"):
            optimizer.direction(draw(0), optimizer.initial(draw(0)), count=torch.zeros(ROWS), momentum=torch.ones(ROWS))
        return
    momentum = torch.tensor([0.0, 0.5, 0.99]) if own else None
    weights, rates = draw(99), torch.tensor([0.1, 0.01, 0.5])
    start = [weight.clone() for weight in weights]
    state = optimizer.initial(weights)
    assert all(tensor.shape == weight.shape for weight, own in zip(weights, state, strict=True) for tensor in own)
    for step in range(STEPS):
        count = torch.full((ROWS,), step)
        directions, state = optimizer.direction(draw(step), state, count=count, momentum=momentum)
        weights = [
            weight - rates.reshape(-1, *[1] * (weight.ndim - 1)) * direction
            for weight, direction in zip(weights, directions, strict=True)
        ]
    for row in range(ROWS):
        parameters = [torch.nn.Parameter(weight[row].clone()) for weight in start]
        chosen: dict[str, Any] = {} if momentum is None else {"beta": float(momentum[row])}
        reference = REFERENCE[name](parameters, lr=float(rates[row]), **chosen)
        for step in range(STEPS):
            for parameter, gradient in zip(parameters, draw(step), strict=True):
                parameter.grad = gradient[row]
            reference.step()
        for weight, parameter in zip(weights, parameters, strict=True):
            torch.testing.assert_close(weight[row], parameter.detach(), rtol=1e-6, atol=1e-6)


@ALL
def test_a_weight_added_later_has_its_own_bias_correction(name: str) -> None:
    """As parameters that are added to an optimizer of torch by `add_param_group`."""
    optimizer = OPTIMIZERS[name]
    gradients = draw(1)
    state = optimizer.initial(gradients)
    _, state = optimizer.direction(draw(0), state, count=torch.zeros(ROWS, dtype=torch.int64))
    state[0] = optimizer.initial(gradients[:1])[0]
    count = torch.ones((len(gradients), ROWS), dtype=torch.int64)
    count[0] = 0
    directions, _ = optimizer.direction(gradients, state, count=count)
    alone, _ = optimizer.direction(gradients[:1], state[:1], count=count[0])
    others, _ = optimizer.direction(gradients[1:], state[1:], count=count[1])
    torch.testing.assert_close(directions, alone + others, rtol=0, atol=0)


@ALL
def test_derivatives(name: str) -> None:
    """First and second ones, through two steps; where gradients are not 0, against finite differences."""
    optimizer = OPTIMIZERS[name]

    def last(first: Tensor, second: Tensor) -> Tensor:
        state = optimizer.initial([first])
        _, state = optimizer.direction([first], state, count=torch.zeros(len(first), dtype=torch.int64))
        directions, _ = optimizer.direction([second], state, count=torch.ones(len(first), dtype=torch.int64))
        return directions[0]

    generator = torch.Generator().manual_seed(0)
    pair = [torch.randn((2, 3), generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(last, pair)
    assert torch.autograd.gradgradcheck(last, pair)


@ALL
@pytest.mark.parametrize("size", [0.0, 1e-30, 1e-20, 1e-12, 1e-10])
def test_derivatives_are_finite_at_zero(name: str, size: float) -> None:
    """Also where squares underflow."""
    optimizer = OPTIMIZERS[name]
    gradient = torch.full((2, 3), size, requires_grad=True)
    state = optimizer.initial([gradient])
    total = torch.zeros(())
    for step in range(3):
        directions, state = optimizer.direction([gradient], state, count=torch.full((2,), step))
        total = total + directions[0].sum()
    (first,) = torch.autograd.grad(total, gradient, create_graph=True)
    assert first.isfinite().all()
    if first.requires_grad:
        (second,) = torch.autograd.grad(first.sum(), gradient, allow_unused=True)
        assert second is None or second.isfinite().all()


def test_unknown_optimizers() -> None:
    for unknown in ("adamw", None, ["sgd"]):
        with pytest.raises(ValueError, match=r"^optimizer=.*'sgd', 'momentum', 'adam', 'rmsprop'"):
            find_optimizer(unknown)  # type: ignore[arg-type]
