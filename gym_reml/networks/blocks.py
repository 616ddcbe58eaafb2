"""Ready-made modules by name: convolutions for images of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.modules import Modules

MOST_STAGES = 4
GROUPS = 8


class Convolution(nn.Conv2d):
    """Convolution 3 x 3 with padding 1, on an accelerator as a product of matrices.

    Networks side by side are a grouped convolution, which the libraries of accelerators compute slowly: 128 networks of
    MAML's size, of which 5 steps are differentiated, take 1.7 times as long on an H200.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        """`inputs` and `outputs` are numbers of channels."""
        super().__init__(inputs, outputs, 3, stride, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(points, outputs, height / stride, width / stride) of (points, inputs, height, width)."""
        return super().forward(x) if x.device.type == "cpu" else self.by_product(x)

    def by_product(self, x: Tensor) -> Tensor:
        """The same as a product of the weights and the inputs' neighbourhoods."""
        points, _, *size = x.shape
        stride = self.stride[0]
        height, width = ((length - 1) // stride + 1 for length in size)
        padded = nn.functional.pad(x, (1, 1, 1, 1))
        rows, columns = (slice(None, stride * (length - 1) + 1, stride) for length in (height, width))
        neighbours = [padded[:, :, top:, left:][:, :, rows, columns] for top in range(3) for left in range(3)]
        matrix = torch.stack(neighbours, dim=2).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
        outputs = (self.weight.flatten(1) @ matrix).unflatten(1, (points, height, width)).transpose(0, 1)
        assert self.bias is not None
        return outputs + self.bias.view(-1, 1, 1)


class BatchStatistics(nn.Module):
    """Normalisation of each channel by mean and variance over the points of the pass and all places, as MAML has it.

    Equal to `nn.BatchNorm2d(channels, track_running_stats=False)`, and 9 % faster in a replay.
    """

    def __init__(self, channels: int) -> None:
        """Gain 1 and shift 0 for each channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Normalised (points, channels, height, width)."""
        centred = x - x.mean((0, 2, 3), keepdim=True)
        scale = (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).rsqrt()
        return centred * (scale * self.weight.view(-1, 1, 1)) + self.bias.view(-1, 1, 1)


class SpatialMean(nn.Module):
    """Mean over height and width: (points, channels, height, width) to (points, channels)."""

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        return x.mean((-2, -1))


class Residual(nn.Module):
    """x + block(x)."""

    def __init__(self, block: nn.Module) -> None:
        """Adds a block to its input."""
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """The sum."""
        output: Tensor = x + self.block(x)
        return output


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)


def _convolution(norm: Callable[[int], nn.Module], inputs: int, width: int, stride: int = 1) -> nn.Sequential:
    """Convolution 3 x 3, normalisation, ReLU."""
    return nn.Sequential(Convolution(inputs, width, stride), norm(width), nn.ReLU())


def _residual(norm: Callable[[int], nn.Module], inputs: int, width: int) -> nn.Module:
    return Residual(_convolution(norm, inputs, width))


BLOCKS: dict[str, tuple[Callable[[int], nn.Module], Callable[..., nn.Module]]] = {
    "conv": (BatchStatistics, _convolution),
    "conv_group_norm": (_group_norm, _convolution),
    "conv_residual": (_group_norm, _residual),
}
"""Kinds of convolutional layers by name: their normalisation, and how a layer is made with it."""


def stages(input_shape: Sequence[int]) -> int:
    """Number of convolutions of stride 2 in the stem: until height or width is 2, at most four (28 x 28 to 2 x 2)."""
    return max(1, min(MOST_STAGES, math.ceil(math.log2(min(input_shape[1:]) / 2))))


def block_modules(
    kind: str, *, input_shape: Sequence[int], out_features: int, width: int, constant_outputs: int = 0
) -> Modules:
    """Networks of convolutions.

    The stem is the network of MAML and MAML++ without its last layer: up to four convolutions 3 x 3 of stride 2, each
    with normalisation and ReLU (Finn et al. 2017, arXiv:1703.03400, Appendix; Antoniou et al. 2019, arXiv:1810.09502).
    Layers are convolutions 3 x 3 that keep their shape; the head is linear, on the mean over places.

    Args:
        kind: a name of BLOCKS.
        input_shape: (channels, height, width).
        out_features: number of outputs, constant ones included.
        width: number of channels.
        constant_outputs: number of outputs, the last ones, that do not depend on the input.

    Raises:
        ValueError: inputs that are no images.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"layer_kind={kind!r}: needs images, input_shape (channels, height, width), not {tuple(input_shape)}; "
            f"dense kinds are {', '.join(map(repr, LAYER_KINDS))}"
        )
    norm, make = BLOCKS[kind]
    sizes = [input_shape[0], *[width] * stages(input_shape)]

    def stem() -> nn.Module:
        return nn.Sequential(*(_convolution(norm, *pair, stride=2) for pair in pairwise(sizes)))

    def head() -> nn.Module:
        return nn.Sequential(SpatialMean(), nn.Linear(width, out_features - constant_outputs))

    settings: dict[str, Any] = {
        "input_shape": list(map(int, input_shape)),
        "out_features": out_features,
        "width": width,
        "constant_outputs": constant_outputs,
    }
    return Modules(
        stem=stem,
        layer=partial(make, norm, width, width),
        head=head,
        input_shape=input_shape,
        constant_outputs=constant_outputs,
        settings=settings,
    )


def check_kind(name: Any) -> None:
    """Raises a ValueError, which lists the choices, unless `name` is a kind of layers, of LAYER_KINDS or BLOCKS."""
    if not isinstance(name, str) or name not in (*LAYER_KINDS, *BLOCKS):
        raise ValueError(f"layer_kind={name!r}: must be one of {', '.join(map(repr, (*LAYER_KINDS, *BLOCKS)))}")
