"""The step that is one node for autograd, against the one that autograd differentiates operation by operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gym_reml.networks.differentiable_step import step_through
from gym_reml.networks.weights import Weights, descend, gradient_norms

ROWS = 3
SHAPES = ((3, 4), (5, 4), (5, 1))
BY_POSITION = pytest.mark.parametrize("by_position", [False, True])
CLIPS = pytest.mark.parametrize("clip", [None, 1e-3, 3.0, 1e6])
RATES = pytest.mark.parametrize("rates", ["none", "shared", "rows", "numbers"])


def made(rates: str, by_position: bool) -> tuple[list[Tensor], list[Tensor], list[Tensor], Tensor]:
    """Weights, gradients (of rows with norms from 0 to 10), rates, and step sizes, in float64."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()

    scale = torch.tensor([0.1, 0.6, 2.0], dtype=torch.float64)[:, None, None]
    weights = [normal(ROWS, *shape) for shape in SHAPES]
    gradients = [(normal(ROWS, *shape) * scale).detach().requires_grad_() for shape in SHAPES]
    shapes = {"none": [], "shared": [(1, *shape) for shape in SHAPES], "rows": [(ROWS, *shape) for shape in SHAPES]}
    shapes["numbers"] = [(ROWS, 1, 1), (1, 1, 1), (ROWS, 1, 1)]
    sizes = normal(len(SHAPES), ROWS) if by_position else normal(ROWS)
    return weights, gradients, [normal(*shape) for shape in shapes[rates]], sizes.detach()


def stepped(take: Callable[..., Weights], sizes: Tensor, clip: float | None, *tensors: Tensor) -> tuple[Tensor, ...]:
    parts = [tensors[start : start + len(SHAPES)] for start in range(0, len(tensors), len(SHAPES))]
    weights, gradient, *rest = (Weights([{"matrix": tensor} for tensor in part]) for part in parts)
    norms, rates = gradient_norms(gradient), rest[0] if rest else None
    new = take(weights, gradient, norms=norms, step_sizes=sizes, clip=clip, rates=rates)
    return tuple(new.tensors())


@RATES
@CLIPS
@BY_POSITION
def test_it_is_the_step_and_its_derivative(rates: str, clip: float | None, by_position: bool) -> None:
    weights, gradients, own, sizes = made(rates, by_position)
    inputs = [*weights, *gradients, *own]
    expected, found = (stepped(take, sizes, clip, *inputs) for take in (descend, step_through))
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one, other)
    above = [torch.randn(tensor.shape, dtype=torch.float64) for tensor in found]
    both = [torch.autograd.grad(new, inputs, above, allow_unused=True) for new in (expected, found)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rates", ["none", "shared", "rows"])
@pytest.mark.parametrize("clip", [None, 3.0])
def test_it_can_be_differentiated_twice(rates: str, clip: float | None) -> None:
    weights, gradients, own, sizes = made(rates, by_position=False)
    inputs = (*weights, *gradients, *own)
    assert torch.autograd.gradgradcheck(lambda *tensors: stepped(step_through, sizes, clip, *tensors), inputs)


def test_only_what_is_needed_is_computed() -> None:
    """First-order meta-gradients take the inner gradients as constants."""
    weights, gradients, own, sizes = made("shared", by_position=False)
    constants = [gradient.detach() for gradient in gradients]
    new = stepped(step_through, sizes, 3.0, *weights, *constants, *own)
    found = torch.autograd.grad(torch.stack([tensor.sum() for tensor in new]).sum(), [*weights, *own])
    assert all(torch.isfinite(tensor).all() for tensor in found)
