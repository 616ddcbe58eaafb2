"""A small network that is applied to each parameter on its own, after Metz et al. 2022 (arXiv:2203.11860)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .hierarchical import linear
from .layout import Layout
from .rule import TINY, Rule, State, decayed

MOMENTA, SQUARES = (0.5, 0.9, 0.99), (0.9, 0.999)
"""Decays of the averages of gradients, and of their squares."""
CLOCKS = (3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""Time scales of the clock, in steps."""
WIDTH = 32
STEP, SPREAD = 0.03, 1.0
"""A step is STEP * direction * exp(SPREAD * magnitude)."""
LARGEST_LOG = 5.0


class PerParameter(Rule):
    """A network of two hidden layers that sees one parameter's averaged gradients and the time.

    Its inputs are the gradient and its averages over the root of the averaged squares, the log ratio of fast to slow
    squares, the cosine of fast and slow averages over the tensor, and a clock. Unlike the networks of Metz et al. it
    sees neither the parameter's value nor factored second moments.
    """

    name: ClassVar[str] = "per_parameter"
    momenta: Tensor
    decays: Tensor
    clocks: Tensor

    def __init__(self, generator: torch.Generator) -> None:
        """With random weights; before meta-training the steps are about those of Adam."""
        super().__init__()
        inputs = 1 + len(MOMENTA) + 1 + 1 + len(CLOCKS)
        self.first = linear(inputs, WIDTH, generator, inputs)
        self.second = linear(WIDTH, WIDTH, generator, WIDTH)
        self.read = linear(WIDTH, 2, generator, WIDTH)
        with torch.no_grad():
            self.read.weight.mul_(0.1)
        self.shortcut = nn.Parameter(torch.tensor([0.0, 0.0, 1.0, 0.0]))
        self.register_buffer("momenta", torch.tensor(MOMENTA), persistent=False)
        self.register_buffer("decays", torch.tensor(SQUARES), persistent=False)
        self.register_buffer("clocks", torch.tensor(CLOCKS), persistent=False)

    def initial(self, layout: Layout, count: int) -> State:
        like = self.shortcut
        return {
            "taken": like.new_zeros(count),
            "averages": like.new_zeros(count, layout.count, len(MOMENTA)),
            "squares": like.new_zeros(count, layout.count, len(SQUARES)),
        }

    def forward(self, gradients: Tensor, parameters: Tensor, state: State, layout: Layout) -> tuple[Tensor, State]:
        taken, own = state["taken"], gradients.unsqueeze(2)
        averages = decayed(state["averages"], own, self.momenta.expand_as(state["averages"]), taken)
        squares = decayed(state["squares"], own.square(), self.decays.expand_as(state["squares"]), taken)
        scaled = torch.cat([own, averages], dim=2) * (squares[..., 1:] + TINY).rsqrt()
        ratio = ((squares[..., :1] + TINY) / (squares[..., 1:] + TINY)).log() / 4.0
        fast, slow = averages[..., 0], averages[..., 2]
        products = layout.means(torch.stack([fast * slow, fast.square(), slow.square()], dim=2))
        cosine = products[..., :1] * (products[..., 1:2] * products[..., 2:] + TINY).rsqrt()
        clock = torch.tanh(taken[:, None] / self.clocks)[:, None].expand(-1, layout.count, -1)
        inputs = torch.cat([scaled.clamp(-5.0, 5.0), ratio.clamp(-5.0, 5.0), layout.spread(cosine), clock], dim=2)
        read = self.read(torch.relu(self.second(torch.relu(self.first(inputs)))))
        direction = read[..., 0] + scaled @ self.shortcut
        step = -STEP * direction * (SPREAD * read[..., 1]).clamp(max=LARGEST_LOG).exp()
        return step, {"taken": taken + 1.0, "averages": averages, "squares": squares}
