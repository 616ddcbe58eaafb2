"""Networks of any `torch.nn.Module`: n of them side by side, each with its own weights, by `torch.vmap`."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from threading import RLock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gym_reml.checks import is_integer
from gym_reml.networks.architecture import Architecture, Filled
from gym_reml.networks.buffers import BiasedInputs, Workspace
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import Weights

MakeModule = Callable[[], nn.Module]
"""Makes a module with its initial weights."""

FEW_NETWORKS = 4
"""Up to this many networks are computed one after the other: dense ones 2.0, 1.6, 1.3 and 1.2 times as fast, at 1, 2, 3
and 4, as side by side by `torch.vmap`, at 6 .8 times."""

ONE_AT_A_TIME = RLock()
"""Held while modules hold a network's weights, and torch other settings: threads may share a pool."""

CONSTANTS = "constants"
"""Name of the head's outputs that do not depend on the input."""


class Part:
    """A module as a function of its weights.

    Parameters that require no gradient, and buffers, are constants, which all networks share.

    Attributes:
        module: the module, in the mode (training or evaluation) in which it was made.
        shapes: of the parameters that require a gradient, by name; (1,) for single numbers.
        attends: uses `scaled_dot_product_attention`, whose fast kernels have no second derivative.
        fast: has modules of torch with fast kernels that have no second derivative (recurrent ones) or no derivative at
            all (attention in evaluation mode).
        loops: uses functions that `torch.vmap` cannot compute, so that networks are computed one after the other.
        changes_input: changes its input in place, so that it is given a copy.
        replaced: name of a buffer that it replaces in a pass, or None.
        inert: its output has no derivative with respect to any of its weights.
    """

    def __init__(self, module: Any, argument: str) -> None:
        """Takes a module apart; `argument` is its name in errors.

        Raises:
            ValueError: no module, one with randomness or running statistics (the message says which submodule), or
                complex weights.
        """
        if not isinstance(module, nn.Module):
            raise ValueError(f"{argument}: must make a torch.nn.Module, but made a {type(module).__name__}")
        check_vectorizable(module, argument)
        self.module, self.argument = module, argument
        self.replaced: str | None = None
        self.attends = self.loops = self.changes_input = self.inert = False
        kinds = (nn.RNNBase, nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)
        self.fast = any(isinstance(part, kinds) for part in module.modules())
        parameters = dict(module.named_parameters())
        adapted = {name: value for name, value in parameters.items() if value.requires_grad}
        for name, value in adapted.items():
            if not value.is_floating_point():
                raise ValueError(
                    f"{argument}: parameter {name!r} is {value.dtype}; weights must be floating-point numbers, complex "
                    "ones can be made of two (torch.view_as_complex)"
                )
        self.shapes = {name: tuple(value.shape) or (1,) for name, value in adapted.items()}
        self._numbers = {name for name, value in adapted.items() if not value.ndim}
        frozen = {name: value.detach() for name, value in parameters.items() if name not in adapted}
        self.constants = frozen | dict(module.named_buffers())
        self._places = _places(module, [*self.shapes, *self.constants])
        # Attributes that change in a pass: submodule, name, and the value before it, () if there is none.
        self._kept: list[tuple[nn.Module, str, tuple[Any, ...]]] = []

    def initial(self) -> dict[str, Tensor]:
        """Copies of the module's own weights by name, float32."""
        weights = dict(self.module.named_parameters())
        return {name: weights[name].detach().float().reshape(shape).clone() for name, shape in self.shapes.items()}

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """The output of one network: weights in the order of `shapes`, inputs (points, ...)."""
        named = dict(zip(self.shapes, weights, strict=True))
        for name in self._numbers:
            named[name] = named[name].squeeze(0)
        named |= self._constants_like(x)
        before = [(tensors, leaf, tensors[leaf]) for _, tensors, leaf in self._places]
        try:
            for name, tensors, leaf in self._places:
                tensors[leaf] = named[name]
            output: Tensor = self.module(x.clone() if self.changes_input else x)
        finally:
            for (name, _, _), (tensors, leaf, value) in zip(self._places, before, strict=True):
                if tensors[leaf] is not named[name]:
                    self.replaced = name
                tensors[leaf] = value
            if self._kept:
                self._restore_attributes()
        return output

    def _restore_attributes(self) -> None:
        """Forgets what submodules keep of a pass: such tensors could neither be copied nor pickled."""
        for submodule, name, value in self._kept:
            if value:
                vars(submodule)[name] = value[0]
            else:
                vars(submodule).pop(name, None)

    def side_by_side(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """The outputs of n networks: weights (n, *shape) in the order of `shapes`, inputs (n, points, ...)."""
        with ONE_AT_A_TIME, self._settings(x):
            if self.loops or len(x) <= FEW_NETWORKS:
                return torch.stack([self([weight[row] for weight in weights], x[row]) for row in range(len(x))])
            return torch.vmap(self)(list(weights), x)

    def _settings(self, x: Tensor) -> AbstractContextManager[Any]:
        """Torch's settings for passes of this part: differentiable kernels, and the dtype of `x` for new tensors."""
        dtype = x.dtype if x.is_floating_point() else torch.get_default_dtype()
        if dtype == torch.get_default_dtype() and not (self.attends or self.fast):
            return nullcontext()
        settings = ExitStack()
        settings.enter_context(default_dtype(dtype))
        if self.attends:
            settings.enter_context(sdpa_kernel(SDPBackend.MATH))
        if self.fast:
            settings.enter_context(without_fast_kernels())
        return settings

    def with_weights(self, weights: Sequence[Tensor], like: Tensor) -> nn.Module:
        """A copy of the module that holds these weights of one network, in the order of `shapes`.

        Constants get device and dtype of `like`.
        """
        copy = deepcopy(self.module).to(like.device, like.dtype)
        if self.changes_input:
            copy.register_forward_pre_hook(_with_copies)
        parameters = dict(copy.named_parameters())
        for name, weight in zip(self.shapes, weights, strict=True):
            parameters[name].data = weight.detach().reshape(parameters[name].shape).clone()
        return copy

    def try_out(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Outputs as by `side_by_side`, after second derivatives, which meta-gradients need.

        Raises:
            RuntimeError: an operation that torch cannot vectorise or differentiate.
        """
        try:
            with torch.enable_grad():
                self._differentiate_twice([weight[:1] for weight in weights], x[:1])
                self._differentiate_twice(weights, x)
            return self.side_by_side(weights, x)
        except RuntimeError as error:
            if not self.attends and "scaled_dot_product" in str(error):
                self.attends = True
            elif not self.loops and "Batching rule not implemented" in str(error):
                self.loops = True
            else:
                raise
            return self.try_out(weights, x)

    def _differentiate_twice(self, weights: Sequence[Tensor], x: Tensor) -> None:
        own = [weight.clone().requires_grad_() for weight in weights]
        total = self.side_by_side(own, x).square().sum()
        if not own:
            return
        slopes = torch.autograd.grad(total, own, create_graph=True, allow_unused=True) if total.requires_grad else ()
        found = [slope for slope in slopes if slope is not None]
        self.inert = not found
        total = torch.stack([slope.square().sum() for slope in found]).sum() if found else total
        if found and total.requires_grad:
            torch.autograd.grad(total, own, allow_unused=True)

    def try_once(self, weights: Sequence[Tensor], x: Tensor) -> Any:
        """What the module returns for one network; finds out what it changes: its input, attributes or buffers.

        Raises:
            ValueError: an error of the module, whose submodule is named, or a buffer that changes.
        """
        given, constants = x.clone(), {name: value.clone() for name, value in self.constants.items()}
        before = [(submodule, dict(vars(submodule))) for submodule in self.module.modules()]
        version = given._version
        with naming_submodule(self), ONE_AT_A_TIME, self._settings(given):
            output = self(weights, given)
        self.changes_input = self.changes_input or given._version != version
        for submodule, attributes in before:
            for name, value in vars(submodule).items():
                if name not in attributes or value is not attributes[name]:
                    self._kept.append((submodule, name, (attributes[name],) if name in attributes else ()))
        self._restore_attributes()
        changed = [name for name, value in self.constants.items() if not torch.equal(value, constants[name])]
        changed += [self.replaced] if self.replaced else []
        if changed:
            raise ValueError(
                f"{self.argument}: changes its buffer {changed[0]!r}, which networks side by side cannot do; keep it "
                "constant, or pass it on as an activation"
            )
        return output

    def _constants_like(self, x: Tensor) -> dict[str, Tensor]:
        floating = x.dtype if x.is_floating_point() else None
        return {
            name: value.to(x.device, floating if value.is_floating_point() else None)
            for name, value in self.constants.items()
        }


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
        if part.inert:
            raise ValueError(
                f"{part.argument}: its output has no derivative with respect to any of its weights; compute it outside "
                "of torch.no_grad(), or freeze them (requires_grad_(False))"
            )
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


def _places(module: nn.Module, names: Sequence[str]) -> list[tuple[str, dict[str, Any], str]]:
    """Where the module holds parameters and buffers of these names: dicts of submodules, and the keys in them.

    Tied parameters have several places, and the name of the first.
    """
    first: dict[int, str] = {}
    places = []
    for prefix, submodule in module.named_modules(remove_duplicate=False):
        for tensors in (submodule._parameters, submodule._buffers):
            for leaf, value in tensors.items():
                if value is not None:
                    name = first.setdefault(id(value), f"{prefix}.{leaf}" if prefix else leaf)
                    places.append((name, tensors, leaf))
    assert {name for name, _, _ in places} == set(names)
    return places


def check_vectorizable(module: nn.Module, argument: str) -> None:
    """Refuses modules that several networks cannot be computed with side by side.

    Args:
        module: the module, in the mode in which it will be used.
        argument: its name in errors.

    Raises:
        ValueError: running statistics, dropout, compiled modules or parameters without a shape; the message names the
            submodule and the remedy.
    """
    for name, part in module.named_modules():
        kind, remedy = type(part).__name__, None
        if isinstance(part, torch.jit.ScriptModule) or hasattr(part, "_orig_mod"):
            remedy = "is compiled; give the module that it was compiled from"
        elif any(nn.parameter.is_lazy(value) for value in part.parameters(recurse=False)):
            remedy = "has parameters without a shape; give it its sizes"
        elif not part.training:
            continue
        elif isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            remedy = (
                "keeps running statistics, which networks side by side cannot share; use "
                f"{kind}(..., track_running_stats=False), GroupNorm or LayerNorm, or its eval() mode"
            )
        elif isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
            remedy = "draws random numbers in every pass; leave it out, or use its eval() mode"
        elif isinstance(part, nn.RNNBase | nn.MultiheadAttention) and part.dropout > 0:
            remedy = "draws random numbers in every pass; use dropout=0, or its eval() mode"
        if remedy:
            raise ValueError(f"{argument}: {kind}{f' at {name!r}' if name else ''} {remedy}")


def _differentiable(tensor: Tensor) -> Tensor:
    """The tensor outside of any graph; a copy if it was made in inference mode, where autograd takes none."""
    return tensor.clone() if tensor.is_inference() else tensor.detach()


def _with_copies(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Hook before a module's pass, which is given copies."""
    return tuple([tensor.clone() for tensor in inputs])


def _in_order(position: dict[str, Tensor], part: Part, prefix: str = "") -> list[Tensor]:
    """A position's weights, in the order in which the part takes them."""
    return [position[prefix + name] for name in part.shapes]


@contextmanager
def naming_submodule(part: Part) -> Iterator[None]:
    """Turns an error of the module into one that names the submodule in which it happened."""
    entered: list[str] = []
    handles = []
    for name, submodule in part.module.named_modules():

        def enter(module: nn.Module, _: Any, name: str = name) -> None:
            entered.append(f"{type(module).__name__}{f' at {name!r}' if name else ''}")

        def leave(*_: Any) -> None:
            entered.pop()

        handles += [submodule.register_forward_pre_hook(enter), submodule.register_forward_hook(leave)]
    try:
        yield
    except Exception as error:
        where = entered[-1] if entered else type(part.module).__name__
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{part.argument}: {where} cannot be computed for several networks at once: {reason}. It must be a "
            "function of its weights and inputs alone that torch.vmap accepts: no branches that depend on data, no "
            "random numbers, no changes in place"
        ) from error
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The CPU's global random number generator seeded, and restored afterwards, since modules draw weights from it."""
    with torch.random.fork_rng(devices=[]), default_dtype(torch.float32):
        # Not torch.manual_seed, which seeds other devices, too.
        torch.default_generator.manual_seed(seed)
        yield


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Another dtype of new tensors, and then the user's again."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def without_fast_kernels() -> Iterator[None]:
    """Attention and recurrent modules computed by functions that have derivatives of all orders."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


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
