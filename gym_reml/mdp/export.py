"""Export of a sub-network as a stand-alone `torch.nn.Module`, to save it or to train it elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gym_reml.mdp.training import TrainingMDP
from gym_reml.networks.dense import with_ones
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.modules import ModulesNetwork


class Layer(nn.Linear):
    """A linear layer that adds up in the same order as the environment, so outputs are bitwise equal.

    `weight` (out, in) and `bias` (out,) have the names and shapes of those of `nn.Linear`.
    """

    def __init__(self, matrix: Tensor, shared: bool = False) -> None:
        """Copies weights and bias.

        Args:
            matrix: (in + 1, out), the last row being the bias.
            shared: whether the environment uses the same matrix for all rows.
        """
        # Not nn.Linear.__init__, which draws random weights.
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
    """The last layer, which the environment computes as a transposed product.

    `constants` (1, constant_outputs), or None, are outputs that do not depend on the input; they follow the others.
    """

    def __init__(self, matrix: Tensor, constants: Tensor | None = None) -> None:
        """Copies weights, bias and constants.

        Args:
            matrix: see `Layer`.
            constants: (1, constant_outputs) or None.
        """
        super().__init__(matrix)
        self.constants = None if constants is None else nn.Parameter(constants.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (n, points, out) for inputs (n, points, in)."""
        transposed = self._matrix().expand(len(x), -1, -1).transpose(1, 2)
        outputs = torch.bmm(transposed, with_ones(x).transpose(1, 2)).transpose(1, 2)
        if self.constants is None:
            return outputs
        return torch.cat([outputs, self.constants.expand(*outputs.shape[:2], -1)], dim=2)


class HiddenLayer(Layer):
    """A linear layer followed by normalisation, activation and skip connection, as its kind has them.

    `norm` (2, width) holds gain and shift of kinds with normalisation, `statistics` (2, width) the running mean and
    variance if the pool has them; otherwise they are None.
    """

    statistics: Tensor | None

    def __init__(self, matrix: Tensor, kind: str, *, norm: Tensor | None, skip: bool, shared: bool = False) -> None:
        """Copies weights, bias and norm.

        Args:
            matrix, shared: see `Layer`.
            kind: name of the layer kind.
            norm: (2, width), gain and shift, or (4, width), gain, shift, mean and variance; None without normalisation.
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
        """That of `nn.Linear`, and the layer kind."""
        return f"{super().extra_repr()}, kind={self.kind!r}"


class ExportedNetwork(nn.Module):
    """One sub-network, `stem`, `layers` and `head`, which shares no memory with the environment.

    Kinds with batch statistics compute them over all points of a pass, unless the pool has running statistics.
    """

    def __init__(self, stem: HiddenLayer, layers: list[HiddenLayer], head: Head, *, batched: bool = False) -> None:
        """Composes the layers.

        Args:
            stem, layers, head: the parts, in this order.
            batched: whether the environment computes several networks at once. Batched and single products may round
                differently, so a single pass is then computed as a batch of two.
        """
        super().__init__()
        self.stem, self.layers, self.head, self.batched = stem, nn.Sequential(*layers), head, batched

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (..., points, out_features) for inputs (..., points, in_features); a point may be (in_features,)."""
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
def export_network(mdp: TrainingMDP, row: int) -> ExportedNetwork | ModulesNetwork:
    """A copy of the current network of one row, on the pool's device.

    Its outputs equal those of `mdp.outputs`, bitwise if single and batched matrix products round alike.
    """
    networks, pool = mdp.networks, mdp.pool
    weights, depth = networks.weights(row), int(networks.depth[row])
    if pool.modules is not None:
        return pool.modules.export(weights, networks.layers[:depth, row].tolist())
    # As in `mdp.outputs`, the norms of the last step.
    norms = networks.norms(mdp.clock - 1)
    stem, *slots, head = ({name: tensor[0] for name, tensor in position.items()} for position in weights.positions)

    def hidden(index: int, position: dict[str, Tensor]) -> HiddenLayer:
        norm = position.get("norm") if norms is None else norms[index][row]
        shared = "matrix" not in position
        matrix = pool.fixed["matrix"] if shared else position["matrix"]
        return HiddenLayer(matrix, pool.kind, norm=norm, skip=pool.architecture.skip and index > 0, shared=shared)

    layers = [hidden(index, position) for index, position in enumerate([stem, *slots[:depth]])]
    return ExportedNetwork(layers[0], layers[1:], Head(**head), batched=mdp.count > 1)
