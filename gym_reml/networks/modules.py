"""Networks of any `torch.nn.Module`: n of them side by side, each with its own weights, by `torch.vmap`."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gym_reml.checks import is_integer
from gym_reml.networks.architecture import Architecture, Filled
from gym_reml.networks.buffers import BiasedInputs, Workspace
from gym_reml.networks.part import FEW_NETWORKS, Part, naming_submodule, seeded
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import Weights

MakeModule = Callable[[], nn.Module]
"""Makes a module with its initial weights."""

CONSTANTS = "constants"
"""Name of the head's outputs that do not depend on the input."""


@dataclass
class ModulesTrace:
    """Results of a forward pass.

    Attributes:
        activations: inputs of the stem, of each slot and of the head, (n, points, ...).
        outputs: (n, points, out_features).
    """

    activations: list[Tensor]
    outputs: Tensor

    def first(self, points: int, workspace: Workspace | None = None) -> ModulesTrace:
        """The part of this pass for the first `points` points of each row."""
        return ModulesTrace([values[:, :points] for values in self.activations], self.outputs[:, :points])

    @property
    def features(self) -> Tensor:
        """Activations of the last hidden layer, (n, points, features), averaged as `Modules` says."""
        return averaged(self.activations[-1])


def averaged(activations: Tensor) -> Tensor:
    """Activations (n, points, ...) as (n, points, features), see `Modules.features`."""
    if activations.ndim <= 3:
        return activations
    if activations.ndim == 4:
        return activations.mean(2)
    return activations.flatten(3).mean(3)


class Modules(Architecture[ModulesTrace]):
    """Networks of modules: a stem, layers that keep the shape of what they are given, and a head.

    Every network is computed by its own weights, and sees its own points as a batch (points, *input_shape). Where a
    module's output at a point depends on the other points (batch statistics, attention over points), this is found out
    when it is made.

    Attributes:
        input_shape: shape of an input. Tasks provide inputs flattened.
        out_features: number of outputs, constant ones included.
        constant_outputs: number of outputs, the last ones, that do not depend on the input.
        features: number of features that agents observe of the last hidden layer. Its activations are averaged over
            places: over height and width of images (channels, height, width), over tokens of sequences (tokens,
            features).
        settings: how to make the same modules by their kind's name, see `gym_reml.networks.blocks`; None for a user's
            own modules.
    """

    skip, normalised = False, False

    @own_state
    def __init__(
        self,
        *,
        stem: MakeModule,
        layer: MakeModule | Sequence[MakeModule],
        head: MakeModule,
        input_shape: Sequence[int],
        constant_outputs: int = 0,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """Makes one module of each callable, and tries them on random inputs.

        Args:
            stem: makes the first module, which takes (points, *input_shape).
            layer: makes a module that keeps the shape of its input; or several callables, for layers of several kinds,
                that the layers of a pool are made by in turn.
            head: makes the last module, whose outputs are (points, outputs).
            input_shape: shape of an input.
            constant_outputs: number of further outputs, the last ones, that consist of a bias alone.
            settings: see `Modules`.

        Raises:
            ValueError: a module that cannot be vectorised (the message names the submodule and the remedy), that does
                not fit between the others, or whose frozen parameters or buffers are drawn at random.
        """
        check_shape(input_shape)
        kinds = tuple(layer) if isinstance(layer, Sequence) else (layer,)
        for argument, make in (("stem", stem), *(("layer", make) for make in kinds or (None,)), ("head", head)):
            if not callable(make) or isinstance(make, nn.Module):
                raise ValueError(f"{argument}={make!r}: must be callable, and make a torch.nn.Module")
        if not is_integer(constant_outputs) or constant_outputs < 0:
            raise ValueError(f"constant_outputs={constant_outputs!r}: must be an integer from 0")
        self.input_shape = tuple(int(size) for size in input_shape)
        self.constant_outputs, self.settings = constant_outputs, settings
        self._makers = (stem, kinds, head)
        with seeded(0):
            self.stem, self.head = Part(stem(), "stem"), Part(head(), "head")
            names = ["layer"] if len(kinds) == 1 else [f"layer[{index}]" for index in range(len(kinds))]
            self.kinds = [Part(make(), name) for make, name in zip(kinds, names, strict=True)]
        if CONSTANTS in self.head.shapes:
            raise ValueError(f"head: has a parameter {CONSTANTS!r}, a name that constant outputs have; rename it")
        self.across_points = False
        with torch.no_grad():
            self._try()
        for part, maker in zip((self.stem, self.head, *self.kinds), (stem, head, *kinds), strict=True):
            if part.constants:
                with seeded(1):
                    _check_constants(part, Part(maker(), part.argument))

    def __reduce__(self) -> tuple[Callable[[bytes], Modules], tuple[bytes]]:
        # By value: callables may be lambdas, which pickle refuses. Modules are made again, as some refuse pickle, too.
        import cloudpickle  # comes with Gymnasium

        stem, kinds, head = self._makers
        arguments = {"stem": stem, "layer": kinds, "head": head, "input_shape": self.input_shape}
        arguments |= {"constant_outputs": self.constant_outputs, "settings": self.settings}
        return _made_again, (cloudpickle.dumps(arguments),)

    def __deepcopy__(self, memo: dict[int, Any]) -> Modules:
        """A copy, without callables being pickled."""
        copy = memo[id(self)] = object.__new__(type(self))
        copy.__dict__.update(deepcopy(self.__dict__, memo))
        return copy

    def _try(self) -> None:
        """Tries the modules on random inputs; see `__init__`."""
        points, count = 3, FEW_NETWORKS + 1
        generator = torch.Generator().manual_seed(0)
        x = torch.rand(count, points, *self.input_shape, generator=generator, dtype=torch.float32)
        hidden = self._tried(self.stem, x)
        for part in self.kinds:
            after = self._tried(part, hidden)
            if after.shape != hidden.shape:
                raise ValueError(
                    f"{part.argument}: must keep the shape of its input, but makes {tuple(after.shape[2:])} of "
                    f"{tuple(hidden.shape[2:])}"
                )
        outputs = self._tried(self.head, hidden)
        if outputs.ndim != 3:
            raise ValueError(f"head: must return (points, outputs), but returns (points, *{tuple(outputs.shape[2:])})")
        if not any(part.shapes for part in self.kinds):
            raise ValueError("layer: has no weights to learn, so there is nothing to choose from")
        self.out_features = outputs.shape[2] + self.constant_outputs
        self.features = averaged(hidden).shape[2]
        moved = self._moved(self.stem, x[:1], generator)
        for part in (*self.kinds, self.head):
            self._moved(part, moved, generator)

    def _tried(self, part: Part, x: Tensor) -> Tensor:
        weights = [value.expand(len(x), *value.shape) for value in part.initial().values()]
        first = part.try_once([weight[0] for weight in weights], x[0])
        if not isinstance(first, Tensor) or first.dtype != x.dtype:
            found = f"a {type(first).__name__}" if not isinstance(first, Tensor) else f"{first.dtype}"
            raise ValueError(f"{part.argument}: must return one tensor of {x.dtype}, as its input, but returns {found}")
        with naming_submodule(part):
            outputs = part.try_out(weights, x)
            fewer = part.side_by_side([weight[:1] for weight in weights], x[:1, :-1])
        part.check_derivative()
        if outputs.ndim < 3 or outputs.shape[1] != x.shape[1]:
            raise ValueError(
                f"{part.argument}: must return one output for each of {x.shape[1]} points, but returns "
                f"{tuple(outputs.shape[1:])}"
            )
        if not _close(first, outputs[0]):
            raise ValueError(
                f"{part.argument}: returns other outputs when it is called again; it must be a function of its weights "
                "and inputs alone, without random numbers or state"
            )
        self.across_points |= not _close(fewer, outputs[:1, :-1])
        return outputs

    def _moved(self, part: Part, x: Tensor, generator: torch.Generator) -> Tensor:
        """Outputs for weights away from the initial ones, which can hide that points depend on each other.

        So do norms whose gain is 0 at first, as in residual networks. Sets `across_points`.
        """
        weights = []
        for value in part.initial().values():
            inputs = value[0].numel() if value.ndim > 1 else 1
            noise = torch.randn(value.shape, generator=generator, dtype=torch.float32)
            weights.append((value + noise * (0.5 / max(inputs, 1) ** 0.5))[None])
        with naming_submodule(part):
            outputs, fewer = part.side_by_side(weights, x), part.side_by_side(weights, x[:, :-1])
        self.across_points |= not _close(fewer, outputs[:, :-1])
        return outputs

    def initial(self, layers: int, seed: int) -> dict[str, Tensor]:
        """Parameters of a pool of so many layers, made by the callables: "stem.*", "layers.*" (layers, ...), "head.*".

        The global random number generator, which modules draw their weights from, is seeded and then restored. With
        layers of several kinds, names have the number of the kind, "layers.0.*"; other kinds' rows hold zeros.

        Args:
            layers: number of layers.
            seed: seed of the weights.

        Raises:
            ValueError: constants that differ from layer to layer.
        """
        stem, kinds, head = self._makers
        with seeded(seed):
            parameters = {f"stem.{name}": value for name, value in Part(stem(), "stem").initial().items()}
            made = [Part(kinds[index % len(kinds)](), "layer") for index in range(layers)]
            last = Part(head(), "head")
        for index, part in enumerate(self.kinds):
            own = made[index :: len(kinds)]
            for other in own:
                _check_constants(part, other)
            own_weights = [other.initial() for other in own]
            for name, shape in part.shapes.items():
                stacked = torch.zeros(layers, *shape, dtype=torch.float32)
                for row, weights in zip(range(index, layers, len(kinds)), own_weights, strict=True):
                    stacked[row] = weights[name]
                parameters[f"layers.{self._prefix(index)}{name}"] = stacked
        parameters |= {f"head.{name}": value for name, value in last.initial().items()}
        if self.constant_outputs:
            parameters[f"head.{CONSTANTS}"] = torch.zeros(1, self.constant_outputs, dtype=torch.float32)
        return parameters

    def shapes(self, layers: int) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters of a pool of so many layers, by name."""
        shapes = {f"stem.{name}": shape for name, shape in self.stem.shapes.items()}
        for index, part in enumerate(self.kinds):
            shapes |= {f"layers.{self._prefix(index)}{name}": (layers, *size) for name, size in part.shapes.items()}
        shapes |= {f"head.{name}": shape for name, shape in self.head.shapes.items()}
        return shapes | ({f"head.{CONSTANTS}": (1, self.constant_outputs)} if self.constant_outputs else {})

    def describe(self) -> str:
        """The shape of an input and the modules, as text."""
        parts = (self.stem, *self.kinds, self.head)
        lines = [f"input_shape: {self.input_shape}", *(f"{part.argument}: {part.module!r}" for part in parts)]
        return re.sub(" at 0x[0-9a-f]+", "", "\n".join(lines))

    def filled(self, layers: NDArray[np.int64], depth: NDArray[np.int64], device: torch.device) -> Filled:
        """For each slot the kind of its layer, counted from 1, 0 for none: a number, or (n,) int64 if rows differ."""
        kinds = np.where(layers > 0, (layers - 1) % len(self.kinds) + 1, 0)
        kinds *= np.arange(len(kinds))[:, None] < depth
        return [
            int(slot[0]) if (slot == slot[0]).all() else torch.from_numpy(slot).to(device) for slot in kinds.astype(int)
        ]

    def prepare(self, inputs: Tensor, fixed: Any) -> Tensor:
        """Inputs in their own shape, (n, points, *input_shape)."""
        return inputs.reshape(*inputs.shape[:2], *self.input_shape)

    def forward(
        self,
        weights: Weights,
        inputs: Tensor | BiasedInputs,
        *,
        filled: Filled,
        norms: Sequence[Tensor] | None = None,
        workspace: Workspace | None = None,
        trace: ModulesTrace | None = None,
        start: int = 0,
        kept: int | None = None,
    ) -> ModulesTrace:
        """Computes the networks' outputs; see `Architecture.forward`."""
        positions = weights.positions
        if start == 0:
            activations = [inputs.tensor if isinstance(inputs, BiasedInputs) else inputs]
        else:
            assert trace is not None
            activations = trace.activations[: start + 1]
        for index in range(start, len(positions) - 1):
            previous = activations[index]
            if index == 0:
                activations.append(self.stem.side_by_side(_in_order(positions[0], self.stem), previous))
            else:
                activations.append(self._layer(positions[index], previous, filled[index - 1]))
        outputs = self.head.side_by_side(_in_order(positions[-1], self.head), activations[-1])
        if self.constant_outputs:
            outputs = torch.cat([outputs, positions[-1][CONSTANTS].expand(-1, outputs.shape[1], -1)], dim=2)
        return ModulesTrace(activations, outputs)

    def _layer(self, position: dict[str, Tensor], x: Tensor, kind: Tensor | int) -> Tensor:
        """The activations after a slot, whose layers are of this kind or of these kinds; see `filled`."""
        if not isinstance(kind, Tensor):
            return x if kind == 0 else self.kinds[kind - 1].side_by_side(self._own(position, kind - 1), x)
        result = x
        for index, part in enumerate(self.kinds):
            rows = (kind == index + 1).nonzero().squeeze(1)
            if len(rows):
                weights = [weight[rows] for weight in self._own(position, index)]
                result = result.index_copy(0, rows, part.side_by_side(weights, x[rows]))
        return result

    def _own(self, position: dict[str, Tensor], index: int) -> list[Tensor]:
        """The weights of the kind number `index` at a position, in the order of its shapes."""
        return _in_order(position, self.kinds[index], self._prefix(index))

    def gradient(
        self,
        weights: Weights,
        trace: ModulesTrace,
        *,
        output_gradient: Tensor,
        filled: Filled,
        workspace: Workspace | None = None,
    ) -> Weights:
        """Gradients by automatic differentiation; see `Architecture.gradient`."""
        tensors, inputs = weights.tensors(), trace.activations[0]
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
            # A replay, which goes on through this gradient.
            leaves, outputs = tensors, trace.outputs
            if not all(tensor.requires_grad for tensor in tensors):
                leaves = [tensor if tensor.requires_grad else tensor.detach().requires_grad_() for tensor in tensors]
                outputs = self.forward(weights.like(leaves), inputs, filled=filled).outputs
            return weights.like(
                torch.autograd.grad(outputs, leaves, output_gradient, create_graph=True, materialize_grads=True)
            )
        # Another pass, without the query set.
        with torch.inference_mode(False), torch.enable_grad():
            leaves = [_differentiable(tensor).requires_grad_() for tensor in tensors]
            outputs = self.forward(weights.like(leaves), _differentiable(inputs), filled=filled).outputs
            if not outputs.requires_grad:  # no layers yet, and neither stem nor head have weights
                return weights.like([torch.zeros_like(leaf) for leaf in leaves])
            slopes = _differentiable(output_gradient)
            return weights.like(torch.autograd.grad(outputs, leaves, slopes, materialize_grads=True))

    def head_gradient(self, trace: ModulesTrace, output_gradient: Tensor) -> Tensor:
        """Gradients with respect to a linear head on `features`, (n, features + 1, out_features)."""
        features = trace.features
        by_weights = torch.bmm(features.transpose(1, 2), output_gradient)
        return torch.cat([by_weights, output_gradient.sum(dim=1, keepdim=True)], dim=1)

    def export(self, weights: Weights, layers: Sequence[int]) -> ModulesNetwork:
        """One network as a module: its weights, with n = 1, and the numbers of its layers."""
        positions = [{name: value[0] for name, value in position.items()} for position in weights.positions]
        stem, *slots, head = positions
        kinds, like = [(number - 1) % len(self.kinds) for number in layers], weights.tensors()[0]
        return ModulesNetwork(
            self.input_shape,
            self.stem.with_weights(_in_order(stem, self.stem), like),
            [
                self.kinds[kind].with_weights(self._own(slot, kind), like)
                for kind, slot in zip(kinds, slots, strict=False)
            ],
            self.head.with_weights(_in_order(head, self.head), like),
            head[CONSTANTS] if self.constant_outputs else None,
        )

    def _prefix(self, index: int) -> str:
        return f"{index}." if len(self.kinds) > 1 else ""


def _made_again(arguments: bytes) -> Modules:
    """Modules of pickled arguments."""
    return Modules(**pickle.loads(arguments))


class ModulesNetwork(nn.Module):
    """One network of modules, `stem`, `layers` and `head`, which shares no memory with the environment."""

    def __init__(
        self,
        input_shape: tuple[int, ...],
        stem: nn.Module,
        layers: Sequence[nn.Module],
        head: nn.Module,
        constants: Tensor | None,
    ) -> None:
        """Composes the modules; `constants` (1, constant_outputs) are further outputs, or None."""
        super().__init__()
        self.input_shape = input_shape
        self.stem, self.layers, self.head = stem, nn.Sequential(*layers), head
        self.constants = None if constants is None else nn.Parameter(constants.clone())

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (points, out_features) for inputs (points, *input_shape), which may be flattened."""
        outputs: Tensor = self.head(self.layers(self.stem(x.reshape(len(x), *self.input_shape))))
        if self.constants is None:
            return outputs
        return torch.cat([outputs, self.constants.expand(len(outputs), -1)], dim=1)


def _differentiable(tensor: Tensor) -> Tensor:
    """The tensor outside of any graph; a copy if it was made in inference mode, where autograd takes none."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _in_order(position: dict[str, Tensor], part: Part, prefix: str = "") -> list[Tensor]:
    """A position's weights, in the order in which the part takes them."""
    return [position[prefix + name] for name in part.shapes]


def _check_constants(part: Part, other: Part) -> None:
    """Raises a ValueError if another module by the same callable has other frozen parameters or buffers."""
    for name, value in part.constants.items():
        if name not in other.constants or not torch.equal(other.constants[name], value):
            raise ValueError(
                f"{part.argument}: {name!r} differs from module to module, but requires no gradient, so that all "
                "networks share it; make it a parameter that does, or draw it from a random number generator of its own"
            )


def _close(first: Tensor, second: Tensor) -> bool:
    return torch.allclose(first, second, rtol=1e-3, atol=1e-5, equal_nan=True)


def check_shape(input_shape: Any) -> None:
    """Raises a ValueError unless this is the shape of an input."""
    if not isinstance(input_shape, Sequence) or not input_shape or not all(map(_positive, input_shape)):
        raise ValueError(f"input_shape={input_shape!r}: must be one or more positive integers")


def _positive(size: Any) -> bool:
    return is_integer(size) and bool(size > 0)
