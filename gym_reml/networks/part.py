"""One `torch.nn.Module` as a function of its weights, computed for n networks side by side by `torch.vmap`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from copy import deepcopy
from threading import RLock
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from gym_reml.networks.chain import chain_of, chained

FEW_NETWORKS = 4
"""Up to this many networks are computed one after the other: dense ones 2.0, 1.6, 1.3 and 1.2 times as fast, at 1, 2, 3
and 4, as side by side by `torch.vmap`, at 6 .8 times."""

ONE_AT_A_TIME = RLock()
"""Held while modules hold a network's weights, and torch other settings: threads may share a pool."""


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
        self._chain = chain_of(module)
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
        # Attributes that change in a pass: submodule and name. Their values are put back after it, since submodules may
        # keep tensors of a pass, which could neither be copied nor pickled.
        self._changing: list[tuple[nn.Module, str]] = []

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
        kept = [_attribute(vars(submodule), name) for submodule, name in self._changing]
        try:
            for name, tensors, leaf in self._places:
                tensors[leaf] = named[name]
            output: Tensor = self.module(x.clone() if self.changes_input else x)
        finally:
            for (name, _, _), (tensors, leaf, value) in zip(self._places, before, strict=True):
                if tensors[leaf] is not named[name]:
                    self.replaced = name
                tensors[leaf] = value
            _put_back(kept)
        return output

    def side_by_side(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """The outputs of n networks: weights (n, *shape) in the order of `shapes`, inputs (n, points, ...)."""
        if self._chain is not None:
            return chained(self._chain, weights, x)
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

    def try_out(self, weights: Sequence[Tensor], x: Tensor, *, twice: bool = True) -> Tensor:
        """Outputs as by `side_by_side`, after derivatives; finds out whether networks are computed one by one.

        Args:
            weights, x: of n networks, see `side_by_side`.
            twice: whether to take second derivatives, which meta-gradients need.

        Raises:
            RuntimeError: an operation that torch cannot vectorise or differentiate.
        """
        try:
            with torch.enable_grad():
                self._differentiate([weight[:1] for weight in weights], x[:1], twice)
                self._differentiate(weights, x, twice)
            return self.side_by_side(weights, x)
        except RuntimeError as error:
            if not self.attends and "scaled_dot_product" in str(error):
                self.attends = True
            elif not self.loops and "Batching rule not implemented" in str(error):
                self.loops = True
            else:
                raise
            return self.try_out(weights, x, twice=twice)

    def _differentiate(self, weights: Sequence[Tensor], x: Tensor, twice: bool) -> None:
        own = [weight.clone().requires_grad_() for weight in weights]
        total = self.side_by_side(own, x).square().sum()
        if not own:
            return
        slopes = torch.autograd.grad(total, own, create_graph=twice, allow_unused=True) if total.requires_grad else ()
        found = [slope for slope in slopes if slope is not None]
        self.inert = not found
        total = torch.stack([slope.square().sum() for slope in found]).sum() if found else total
        if twice and found and total.requires_grad:
            torch.autograd.grad(total, own, allow_unused=True)

    def check_derivative(self) -> None:
        """Raises a ValueError if, after `try_out`, the output has no derivative with respect to any weight."""
        if self.inert:
            raise ValueError(
                f"{self.argument}: its output has no derivative with respect to any of its weights; compute it outside "
                "of torch.no_grad(), or freeze them (requires_grad_(False))"
            )

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
            now = vars(submodule)
            changed = [name for name, value in now.items() if name not in attributes or value is not attributes[name]]
            self._changing += [(submodule, name) for name in changed]
            _put_back([(now, name, _attribute(attributes, name)[2]) for name in changed])
        buffers = [name for name, value in self.constants.items() if not torch.equal(value, constants[name])]
        buffers += [self.replaced] if self.replaced else []
        if buffers:
            raise ValueError(
                f"{self.argument}: changes its buffer {buffers[0]!r}, which networks side by side cannot do; keep it "
                "constant, or pass it on as an activation"
            )
        return output

    def _constants_like(self, x: Tensor) -> dict[str, Tensor]:
        floating = x.dtype if x.is_floating_point() else None
        return {
            name: value.to(x.device, floating if value.is_floating_point() else None)
            for name, value in self.constants.items()
        }


Attribute = tuple[dict[str, Any], str, tuple[Any, ...]]
"""The attributes of a module, the name of one of them, and its value, () if there is none."""


def _attribute(attributes: dict[str, Any], name: str) -> Attribute:
    return attributes, name, (attributes[name],) if name in attributes else ()


def _put_back(values: Sequence[Attribute]) -> None:
    for attributes, name, value in values:
        if value:
            attributes[name] = value[0]
        else:
            attributes.pop(name, None)


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


def _with_copies(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Hook before a module's pass, which is given copies."""
    return tuple([tensor.clone() for tensor in inputs])


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
        # Not torch.manual_seed, which also seeds those of accelerators, and takes a hundred times as long.
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
