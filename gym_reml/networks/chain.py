"""Chains of linear and elementwise modules: n of them by batched products, in a third of the time of `torch.vmap`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

ELEMENTWISE = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Tanh, nn.Sigmoid, nn.Identity)
"""Modules without weights, which compute each number by itself."""


def chain_of(module: nn.Module) -> list[nn.Module] | None:
    """The modules that compute one after the other, or None unless all are linear or elementwise.

    Subclasses, hooks, changes in place, and linear modules that share weights or whose weights are frozen make None,
    too.
    """
    if type(module) is nn.Sequential:
        parts = [chain_of(part) for part in module]
        chain = [part for found in parts if found is not None for part in found]
        whole = not _has_hooks(module) and None not in parts
    else:
        chain = [module]
        flattens = type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1)
        whole = flattens or type(module) in (nn.Linear, *ELEMENTWISE)
        whole = whole and not _has_hooks(module) and not getattr(module, "inplace", False)
    weights = [weight for part in chain for weight in part.parameters()]
    own = all(weight.requires_grad for weight in weights) and len({id(weight) for weight in weights}) == len(weights)
    return chain if whole and own else None


def _has_hooks(module: nn.Module) -> bool:
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return "forward" in vars(module) or any(getattr(module, name) for name in hooks)


def chained(chain: Sequence[nn.Module], weights: Sequence[Tensor], x: Tensor) -> Tensor:
    """The outputs of n chains: weights (n, *shape) in their order, inputs (n, points, ...)."""
    own = iter(weights)
    for part in chain:
        if isinstance(part, nn.Linear):
            shape = x.shape
            x = x if x.ndim == 3 else x.flatten(1, -2)
            weight = next(own).mT
            x = torch.bmm(x, weight) if part.bias is None else torch.baddbmm(next(own).unsqueeze(1), x, weight)
            x = x if len(shape) == 3 else x.unflatten(1, shape[1:-1])
        else:
            x = x.flatten(2) if isinstance(part, nn.Flatten) else part(x)
    return x
