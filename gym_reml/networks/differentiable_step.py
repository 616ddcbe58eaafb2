"""A clipped gradient step of n networks as one node for autograd, with a hand-written derivative."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.linalg import vector_norm

from gym_reml.networks.weights import CLIP, Weights, by_row, descend, gradient_norms, scales_of


def step_through(
    weights: Weights,
    gradient: Weights,
    *,
    norms: Tensor,
    step_sizes: Tensor,
    clip: float | None = CLIP,
    rates: Weights | None = None,
) -> Weights:
    """`descend`, the same to the bit, with fewer passes over the weights in its derivative.

    An exact meta-gradient of 64 episodes takes 8 % less time. It is differentiable with respect to weights, gradient
    and rates, not to step sizes, and fastest where rates that all rows share have a single row, (1, ...).

    Args:
        weights, gradient, norms, step_sizes, clip, rates: see `descend`.
    """
    tensors = (*weights.tensors(), *gradient.tensors(), *([] if rates is None else rates.tensors()))
    return weights.like(_Step.apply(weights, norms.detach(), step_sizes, clip, *tensors))


class _Step(torch.autograd.Function):
    """w - c s r g, with rates r, s = step size / max(|g|, c) and the clipping norm c."""

    @staticmethod
    def forward(
        ctx: Any, weights: Weights, norms: Tensor, step_sizes: Tensor, clip: float | None, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        count = len(weights.tensors())
        old, gradients, rates = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        ctx.save_for_backward(norms, step_sizes, *gradients, *rates)
        ctx.weights, ctx.clip = weights, clip
        new = descend(
            weights.like(old),
            weights.like(gradients),
            norms=norms,
            step_sizes=step_sizes,
            clip=clip,
            rates=weights.like(rates) if rates else None,
        )
        return tuple(new.tensors())

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        norms, step_sizes, *tensors = ctx.saved_tensors
        count, weights, clip = len(upstream), ctx.weights, ctx.clip
        gradients, rates = tensors[:count], tensors[count:]
        if torch.is_grad_enabled():  # to be differentiated once more
            norms = gradient_norms(weights.like(gradients))
        factor, longest = (1.0, None) if clip is None else (clip, vector_norm(norms, dim=0).clamp_min(clip))
        scales = scales_of(weights, step_sizes if longest is None else step_sizes / longest)
        factors, slopes, of_rates = list(scales), [], []
        for index, (above, gradient, scale) in enumerate(zip(upstream, gradients, scales, strict=True)):
            product = above * gradient
            flat = product.flatten(1)
            if not rates:
                slope = flat.sum(dim=1)
            else:
                rate = rates[index]
                factors[index] = scale * rate
                if rate.shape == (1, *product.shape[1:]):  # products with vectors, which write no large tensor
                    slope = flat @ rate.flatten()
                    of_rate = (scale.reshape(1, -1) @ flat).reshape(rate.shape)
                else:
                    slope = (product * rate).flatten(1).sum(dim=1)
                    of_rate = (product * scale).sum_to_size(rate.shape)
                of_rates.append(of_rate * -factor)
            slopes.append(slope * scale.flatten())
        of_gradients: list[Tensor | None] = [None] * count
        if any(ctx.needs_input_grad[4 + count : 4 + 2 * count]):
            if longest is None:
                of_gradients = [above * each * -factor for above, each in zip(upstream, factors, strict=True)]
            else:
                # Of clipped rows a longer gradient makes all steps shorter: d s / d g = -s g / |g|^2.
                pull = torch.stack(slopes).sum(dim=0) * factor / longest / longest
                pull = torch.where(longest > clip, pull, torch.zeros_like(pull))
                of_gradients = [
                    torch.addcmul(gradient * by_row(pull, gradient), above, each, value=-factor)
                    for above, gradient, each in zip(upstream, gradients, factors, strict=True)
                ]
        return (None, None, None, None, *upstream, *of_gradients, *of_rates)
