"""Chains of linear and elementwise modules: the same networks as one at a time, derivatives included."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from gym_reml.networks.chain import ELEMENTWISE, chain_of
from gym_reml.networks.part import Part

NETWORKS = 6

CHAINS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(4, 3),
    "without biases": lambda: nn.Sequential(nn.Linear(4, 5, bias=False), nn.Tanh(), nn.Linear(5, 2, bias=False)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 5), nn.GELU()), nn.Linear(5, 2)),
    "flattened": lambda: nn.Sequential(nn.Flatten(), nn.Linear(8, 2)),
    **{kind.__name__: partial(nn.Sequential, nn.Linear(4, 5), kind(), nn.Linear(5, 1)) for kind in ELEMENTWISE},
}


class Twice(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return 2.0 * super().forward(input)


def tied() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.ReLU(), layer)


def frozen() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    module[0].requires_grad_(False)
    return module


def hooked() -> nn.Module:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    module[1].register_forward_hook(lambda module, inputs, output: output + 1.0)
    return module


OTHERS: dict[str, Callable[[], nn.Module]] = {
    "subclass": lambda: nn.Sequential(Twice(4, 4), nn.Linear(4, 2)),
    "tied": tied,
    "frozen": frozen,
    "hooked": hooked,
    "in place": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True)),
    "normalised": lambda: nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)),
    "weight norm": lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))),
    "flattened in part": lambda: nn.Sequential(nn.Flatten(0), nn.Linear(12, 2)),
}


@pytest.mark.parametrize("inputs", [(3, 4), (3, 2, 4)], ids=str)
@pytest.mark.parametrize("name", CHAINS)
def test_chains_equal_one_network_at_a_time(name: str, inputs: tuple[int, ...]) -> None:
    part = Part(CHAINS[name](), "module")
    assert part._chain is not None
    inputs = (3, 2, 4) if name == "flattened" else inputs
    generator = torch.Generator().manual_seed(0)
    weights = [
        torch.randn(NETWORKS, *shape, generator=generator, dtype=torch.float64) for shape in part.shapes.values()
    ]
    weights = [weight.requires_grad_() for weight in weights]
    x = torch.randn(NETWORKS, *inputs, generator=generator, dtype=torch.float64, requires_grad=True)
    together = part.side_by_side(weights, x)
    alone = torch.stack([part([weight[row] for weight in weights], x[row]) for row in range(NETWORKS)])
    torch.testing.assert_close(together, alone)
    found, expected = (derivatives(outputs, [*weights, x]) for outputs in (together, alone))
    torch.testing.assert_close(found, expected)


def derivatives(outputs: Tensor, of: list[Tensor]) -> list[Tensor]:
    """First derivatives, and those of their squared length."""
    first = torch.autograd.grad(outputs.square().sum(), of, create_graph=True)
    second = torch.autograd.grad(torch.stack([slope.square().sum() for slope in first]).sum(), of)
    return [*first, *second]


@pytest.mark.parametrize("name", OTHERS)
def test_other_modules_are_no_chains(name: str) -> None:
    assert chain_of(OTHERS[name]()) is None
