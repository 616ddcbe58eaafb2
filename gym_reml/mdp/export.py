"""A built sub-network as a `torch.nn.Module` of its own, for whoever wants to keep, save or train it elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gym_reml.mdp.training import TrainingMDP
from gym_reml.networks.dense import with_ones
from gym_reml.networks.layer_kinds import LAYER_KINDS


class Layer(nn.Linear):
    """A linear layer whose sums are taken in the environment's order, so that not a bit differs.

    `weight` (out, in) and `bias` (out,) are those of `nn.Linear`, and fit into one.
    """

    def __init__(self, matrix: Tensor, shared: bool = False) -> None:
        """Takes weights and bias.

        Args:
            matrix: (in + 1, out), the last row the bias; copied.
            shared: whether the environment multiplies all rows with this one matrix.
        """
        # Not nn.Linear's own, which draws weights.
        nn.Module.__init__(self)
        self.in_features, self.out_features = matrix.shape[0] - 1, matrix.shape[1]
        self.weight = nn.Parameter(matrix[:-1].T.clone())
        self.bias = nn.Parameter(matrix[-1].clone())
        self.shared = shared

    def _matrix(self) -> Tensor:
        return torch.cat([self.weight.T, self.bias[None]])

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, points, out) for inputs (n, points, in)."""
        matrix = self._matrix()
        return with_ones(x) @ matrix if self.shared else torch.bmm(with_ones(x), matrix.expand(len(x), -1, -1))


class Head(Layer):
    """The last layer, whose product the environment takes transposed.

    `constants` (1, constant_outputs), outputs that depend on no input, come behind the others; None without any.
    """

    def __init__(self, matrix: Tensor, constants: Tensor | None = None) -> None:
        """Takes weights and bias.

        Args:
            matrix: as for `Layer`.
            constants: see above; copied.
        """
        super().__init__(matrix)
        self.constants = None if constants is None else nn.Parameter(constants.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, points, out) for inputs (n, points, in)."""
        turned = self._matrix().expand(len(x), -1, -1).transpose(1, 2)
        outputs = torch.bmm(turned, with_ones(x).transpose(1, 2)).transpose(1, 2)
        if self.constants is None:
            return outputs
        return torch.cat([outputs, self.constants.expand(*outputs.shape[:2], -1)], dim=2)


class HiddenLayer(Layer):
    """A layer with what its kind does behind it: activation, normalisation, and a way around.

    `norm` (2, width) holds gain and shift of the kinds that normalise, `statistics` (2, width) running mean and
    variance where a pool has them; else they are None.
    """

    statistics: Tensor | None

    def __init__(self, matrix: Tensor, kind: str, *, norm: Tensor | None, skip: bool, shared: bool = False) -> None:
        """Takes weights and bias.

        Args:
            matrix, shared: as for `Layer`.
            kind: name of the layer kind.
            norm: gain and shift, and perhaps mean and variance, (2 or 4, width), or None; copied.
            skip: whether the layer's input is added to its output.
        """
        super().__init__(matrix, shared)
        self.kind, self.skip = kind, skip
        self.norm = None if norm is None else nn.Parameter(norm[:2].clone())
        self.register_buffer("statistics", None if norm is None or len(norm) == 2 else norm[2:].clone())

    def forward(self, x: Tensor) -> Tensor:
        """Activations (n, points, width) for inputs (n, points, in)."""
        norm = self.norm if self.statistics is None or self.norm is None else torch.cat([self.norm, self.statistics])
        norm = None if norm is None else norm[None]
        hidden, _ = LAYER_KINDS[self.kind].forward(super().forward(x), norm, None)
        return hidden + x if self.skip else hidden

    def extra_repr(self) -> str:
        """What `nn.Linear` says, and the kind."""
        return f"{super().extra_repr()}, kind={self.kind!r}"


class ExportedNetwork(nn.Module):
    """One sub-network: `stem`, `layers` as far as there are any, and `head`. It shares nothing with the environment.

    Kinds that look across points take these for all the points of a pass, unless there are running statistics.
    """

    def __init__(self, stem: HiddenLayer, layers: list[HiddenLayer], head: Head, batched: bool = False) -> None:
        """Takes the parts.

        Args:
            stem, layers, head: in this order.
            batched: whether the environment computes several networks at once. A product of one matrix may then round
                otherwise than that of several, so one pass is made two.
        """
        super().__init__()
        self.stem, self.layers, self.head, self.batched = stem, nn.Sequential(*layers), head, batched

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., points, out_features) for inputs (..., points, in_features), or those of one point, (in,)."""
        if x.ndim == 1:
            output: Tensor = self(x[None])[0]
            return output
        passes = x.reshape(-1, *x.shape[-2:])
        count = len(passes)
        if self.batched and count == 1:
            passes = passes.expand(2, -1, -1)
        outputs: Tensor = self.head(self.layers(self.stem(passes)))[:count]
        return outputs.reshape(*x.shape[:-1], outputs.shape[-1])


@torch.inference_mode(False)
@torch.no_grad()
def export_network(mdp: TrainingMDP, row: int) -> ExportedNetwork:
    """The network of one row, as it is now: a copy, on the pool's device.

    It gives the same outputs as `mdp.outputs`, to the last bit where one network and many are multiplied alike.
    """
    networks, pool = mdp.networks, mdp.pool
    weights, depth = networks.weights(row), int(networks.depth[row])
    # As `mdp.outputs`: the norms of the step that is over.
    by_step = networks.norms(mdp.clock - 1)
    stem, *slots, head = ({name: tensor[0] for name, tensor in position.items()} for position in weights.positions)

    def hidden(index: int, position: dict[str, Tensor]) -> HiddenLayer:
        norm = position.get("norm") if by_step is None else by_step[index][row]
        shared = "matrix" not in position
        matrix = pool.fixed["matrix"] if shared else position["matrix"]
        return HiddenLayer(matrix, pool.kind, norm=norm, skip=pool.architecture.skip and index > 0, shared=shared)

    layers = [hidden(index, position) for index, position in enumerate([stem, *slots[:depth]])]
    return ExportedNetwork(layers[0], layers[1:], Head(**head), batched=mdp.count > 1)
