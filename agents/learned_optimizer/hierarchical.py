"""The hierarchical recurrent optimizer of Wichrowska et al. 2017, "Learned optimizers that scale and generalize".

A recurrent network for each parameter, one for each tensor and one for the whole problem (arXiv:1703.04813, section 3).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from .layout import Layout
from .rule import TINY, Rule, State, decayed

UNITS, UPPER = 10, 20
"""Units of the networks of parameters, and of those of tensors and of the problem."""
SCALES = 4
"""Time scales s of the averages, whose decay is that of the slowest to the power 2^s."""
INPUTS = SCALES + (SCALES - 1) + SCALES + 1
"""Scaled averages, products of successive ones, relative magnitudes, and the relative log learning rate."""
FIRST_RATE = 0.03
"""Initial learning rate before meta-training."""
SLOWEST = 0.99
"""Decay of the slowest average before meta-training."""
LARGEST_LOG = 3.0
"""Log learning rates are kept below this, so that no step of float32 is infinite."""


class BiasedGru(nn.Module):
    """A gated recurrent unit (Cho et al. 2014) whose gates the level above may bias."""

    def __init__(self, inputs: int, units: int, above: int, generator: torch.Generator) -> None:
        """With weights uniform in +-1/sqrt(units), as torch's."""
        super().__init__()
        self.inputs = linear(inputs, 3 * units, generator, units)
        self.hidden = linear(units, 3 * units, generator, units)
        self.above = linear(above, 3 * units, generator, units, bias=False) if above else None

    def bias(self, above: Tensor) -> Tensor:
        """What the state of the level above adds, (..., 3 units)."""
        assert self.above is not None
        return self.above(above)

    def forward(self, inputs: Tensor, hidden: Tensor, bias: Tensor | None = None) -> Tensor:
        """The new state, (..., units)."""
        given = self.inputs(inputs) if bias is None else self.inputs(inputs) + bias
        reset, update, new = given.chunk(3, dim=-1)
        old_reset, old_update, old_new = self.hidden(hidden).chunk(3, dim=-1)
        kept = torch.sigmoid(update + old_update)
        fresh = torch.tanh(new + torch.sigmoid(reset + old_reset) * old_new)
        return fresh + kept * (hidden - fresh)


def linear(inputs: int, outputs: int, generator: torch.Generator, fan: int, *, bias: bool = True) -> nn.Linear:
    """A layer with weights uniform in +-1/sqrt(fan), and biases of 0."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.uniform_(-1.0 / math.sqrt(fan), 1.0 / math.sqrt(fan), generator=generator)
        if bias:
            layer.bias.zero_()
    return layer


class Hierarchical(Rule):
    """Networks of parameters, of tensors and of the problem, each level biased by the one above.

    A parameter's network sees its gradient averaged over four time scales and divided by the root of the averaged
    squares, the products of successive ones, the relative log magnitudes of the scales, and its log learning rate
    relative to all others. Its state gives the direction, the change of the log learning rate, and the decays of its
    averages. The step is exp(log rate) * direction / (root mean square of the tensor's directions).

    Left out of the paper: gradients at attended locations (an optimizer of torch is given gradients at the parameters),
    and the initial learning rate is learned where the paper draws it at random.
    """

    name: ClassVar[str] = "hierarchical"
    powers: Tensor

    def __init__(self, generator: torch.Generator) -> None:
        """With random weights; before meta-training the steps are about those of RMSProp with momentum."""
        super().__init__()
        self.parameter = BiasedGru(INPUTS, UNITS, UPPER, generator)
        self.tensor = BiasedGru(UNITS, UPPER, UPPER, generator)
        self.problem = BiasedGru(UPPER, UPPER, 0, generator)
        # Direction, change of the log rate, and the decays of gradients and of squares.
        self.read = linear(UNITS, 4, generator, UNITS)
        self.shortcut = nn.Parameter(torch.full((SCALES,), 1.0 / SCALES))
        self.first_log_rate = nn.Parameter(torch.tensor(math.log(FIRST_RATE)))
        self.inertia = nn.Parameter(torch.tensor(2.0))
        with torch.no_grad():
            self.read.weight.mul_(0.1)
            self.read.bias[2:] = math.log(SLOWEST / (1.0 - SLOWEST))
        self.register_buffer("powers", 2.0 ** torch.arange(SCALES), persistent=False)

    def initial(self, layout: Layout, count: int) -> State:
        like = self.shortcut
        scales, tensors = (count, layout.count, SCALES), len(layout.shapes)
        return {
            "taken": like.new_zeros(count),
            "averages": like.new_zeros(scales),
            "squares": like.new_zeros(scales),
            "parameter": like.new_zeros(count, layout.count, UNITS),
            "tensor": like.new_zeros(count, tensors, UPPER),
            "problem": like.new_zeros(count, 1, UPPER),
            "log_rate": self.first_log_rate.expand(count, layout.count),
            "mean_log_rate": self.first_log_rate.expand(count, layout.count),
        }

    def forward(self, gradients: Tensor, parameters: Tensor, state: State, layout: Layout) -> tuple[Tensor, State]:
        taken = state["taken"]
        # sigmoid(logit)^(2^s) by logarithms, whose derivatives do not vanish near decays of 1.
        log_decays = nn.functional.logsigmoid(self.read(state["parameter"])[..., 2:])
        averages = decayed(state["averages"], gradients.unsqueeze(2), (log_decays[..., :1] * self.powers).exp(), taken)
        squares = decayed(state["squares"], averages.square(), (log_decays[..., 1:] * self.powers).exp(), taken)
        scaled = averages * (squares + TINY).rsqrt()
        magnitudes = (squares + TINY).log() / 2.0
        log_rate = state["log_rate"]
        inputs = torch.cat(
            [
                scaled,
                scaled[..., 1:] * scaled[..., :-1],
                magnitudes - magnitudes.mean(dim=2, keepdim=True),
                (log_rate - log_rate.mean(dim=1, keepdim=True)).unsqueeze(2),
            ],
            dim=2,
        )
        own = self.parameter(inputs, state["parameter"], layout.spread(self.parameter.bias(state["tensor"])))
        tensor = self.tensor(layout.means(own), state["tensor"], self.tensor.bias(state["problem"]))
        problem = self.problem(tensor.mean(dim=1, keepdim=True), state["problem"])
        read = self.read(own)
        direction = read[..., 0] + scaled @ self.shortcut
        log_rate = (state["mean_log_rate"] + read[..., 1]).clamp(max=LARGEST_LOG)
        mean_log_rate = log_rate + torch.sigmoid(self.inertia) * (state["mean_log_rate"] - log_rate)
        size = layout.spread((layout.means(direction.square()) + 1e-12).rsqrt())
        after = {
            "taken": taken + 1.0,
            "averages": averages,
            "squares": squares,
            "parameter": own,
            "tensor": tensor,
            "problem": problem,
            "log_rate": log_rate,
            "mean_log_rate": mean_log_rate,
        }
        return -log_rate.exp() * direction * size, after
