"""The pool that sub-networks are built from: a stem, layers, a head and, optionally, learned step sizes ("rates")."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.checks import check_integer, is_integer
from gym_reml.files import load_safely, save_atomically
from gym_reml.networks.architecture import Architecture
from gym_reml.networks.blocks import BLOCKS, block_modules, check_kind
from gym_reml.networks.dense import dense
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.modules import MakeModule, Modules, check_shape
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import Weights
from gym_reml.pool.rates import PER_STEP, RATES, gather_rates, places, rate_shapes
from gym_reml.pool.step_norms import gather_norms, statistics_shapes
from gym_reml.pool.storage import FORMAT, MODULES, MODULES_FORMAT, OLD_FORMAT, find_problem, from_format_1

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11

NORMS = ("stem.norm", "layers.norm")
LARGEST_INPUT = 1 << 24
"""Largest number of inputs of modules that are read from a file."""

PLAIN_STEP_RANGE = (1e-3, 0.3)
RATED_STEP_RANGE = (0.25, 4.0)


@dataclass(eq=False)
class LayerPool:
    """Initial weights of the stem, of L layers and of the head, shared by all episodes.

    Attributes:
        kind: name of the layer kind, a key of `gym_reml.networks.layer_kinds.LAYER_KINDS` or
            `gym_reml.networks.blocks.BLOCKS`; "modules" for a user's own modules.
        parameters: of modules, their own by name: "stem.*", "layers.*" (L, ...) and "head.*". Of dense kinds,
            "stem.matrix" (in + 1, width), "layers.matrix" (L, width + 1, width) and "head.matrix" (width + 1, out), the
            last row of each being the bias; kinds with normalisation add "stem.norm" (2, width) and "layers.norm" (L,
            2, width), or (T, 2, width) and (T, L, 2, width) if each of T steps has its own norms; Gaussian policies add
            "head.constants" (1, constant_outputs), their log standard deviations.
        rates: learned step sizes, {} for none. With granularity "scalar" a single number {"all": ()}; otherwise by the
            names of the adapted parameters: "tensor", one number per tensor, (), or (L,) for layers; "step", one per
            tensor and step, (T,), or (T, L) for layers, the last reused beyond T (LSLR of MAML++, Antoniou et al. 2019,
            arXiv:1810.09502); "weight", one per weight, shaped like the parameter (Meta-SGD, Li et al. 2017,
            arXiv:1707.09835); "weight_step", one per weight and step, (T, ...), for layers by the
            slot they stand in, (T, S, ...), the last step and slot reused beyond T and S.
        granularity: of the rates, one of `gym_reml.pool.rates.RATES`; None without rates.
        adapt_stem: whether episodes adapt the stem's matrix.
        modules: what kinds of BLOCKS and a user's own modules compute; None for dense kinds.
        statistics: running mean and variance for each step, "stem" (T, 2, width) and "layers" (T, L, 2, width), {} for
            none. A pool learner updates them in its replays; outside of replays they are used for normalisation.
    """

    kind: str
    parameters: dict[str, Tensor]
    rates: dict[str, Tensor] = field(default_factory=dict)
    granularity: str | None = None
    adapt_stem: bool = True
    statistics: dict[str, Tensor] = field(default_factory=dict)
    modules: Modules | None = None

    @classmethod
    @own_state
    def random(
        cls,
        *,
        in_features: int,
        out_features: int,
        input_shape: Sequence[int] | None = None,
        width: int = 40,
        layers: int = 8,
        kind: str = "residual",
        adapt_stem: bool | None = None,
        scale: float = 1.0,
        constant_outputs: int = 0,
        seed: int = 0,
    ) -> Self:
        """A randomly initialised pool: weights and biases ~ U(-1/sqrt(in), 1/sqrt(in)), as in `nn.Linear`.

        Args:
            in_features: number of inputs.
            out_features: number of outputs.
            input_shape: (channels, height, width) of images, whose product is `in_features`; for kinds of BLOCKS.
            width: number of units of every hidden layer, or channels.
            layers: number of layers to choose from (L).
            kind: name of the layer kind.
            adapt_stem: whether episodes adapt the stem's matrix; None means True, or False for dense kinds with
                normalisation, where adapting gain and shift suffices. Kinds of BLOCKS always adapt it.
            scale: factor on the layers' initial weights and biases; 1 for kinds of BLOCKS.
            constant_outputs: number of outputs, the last ones, that consist of a bias alone, initially 0.
            seed: seed of the weights.

        Raises:
            ValueError: an unknown kind, a size below one, more constant outputs than outputs, or a kind of BLOCKS for
                inputs that are no images.
        """
        check_kind(kind)
        sizes = {"in_features": in_features, "out_features": out_features, "width": width, "layers": layers}
        for argument, value in sizes.items():
            check_integer(argument, value)
        if not is_integer(constant_outputs) or not 0 <= constant_outputs <= out_features:
            raise ValueError(f"constant_outputs={constant_outputs!r}: must be from 0 to out_features={out_features}")
        if kind in BLOCKS:
            if adapt_stem is False or scale != 1.0:
                raise ValueError(f"adapt_stem={adapt_stem!r}, scale={scale!r}: are for dense kinds, not for {kind!r}")
            shape = (in_features,) if input_shape is None else input_shape
            check_shape(shape)
            if math.prod(shape) != in_features:
                raise ValueError(f"input_shape={tuple(shape)}: must have in_features={in_features} numbers")
            modules = block_modules(
                kind, input_shape=shape, out_features=out_features, width=width, constant_outputs=constant_outputs
            )
            return cls(kind, modules.initial(layers, seed), modules=modules)
        parameters = dense(kind).initial(
            in_features,
            out_features,
            width=width,
            layers=layers,
            constant_outputs=constant_outputs,
            scale=scale,
            generator=torch.Generator().manual_seed(seed),
        )
        return cls(kind, parameters, adapt_stem=not dense(kind).normalised if adapt_stem is None else adapt_stem)

    @classmethod
    @own_state
    def from_modules(
        cls,
        *,
        stem: MakeModule,
        layer: MakeModule | Sequence[MakeModule],
        head: MakeModule,
        input_shape: Sequence[int],
        layers: int = 8,
        constant_outputs: int = 0,
        seed: int = 0,
    ) -> Self:
        """A pool of any `torch.nn.Module`, with the initial weights that the modules are made with.

        Args:
            stem, layer, head, input_shape, constant_outputs: see `gym_reml.networks.modules.Modules`.
            layers: number of layers to choose from (L); several callables `layer` make them in turn.
            seed: of torch's random number generator while modules are made; it is restored afterwards.

        Raises:
            ValueError: a module that networks side by side cannot be computed with (the message names the submodule and
                the remedy), or one that does not fit between the others.
        """
        check_integer("layers", layers)
        modules = Modules(stem=stem, layer=layer, head=head, input_shape=input_shape, constant_outputs=constant_outputs)
        return cls(MODULES, modules.initial(layers, seed), modules=modules)

    @own_state
    def renewed(self, *, layers: int, seed: int) -> LayerPool:
        """A pool of the same shape without rates, with so many layers and new random weights, all of them adapted."""
        if self.modules is not None:
            return LayerPool(self.kind, self.modules.initial(layers, seed), modules=self.modules)
        return LayerPool.random(
            in_features=self.in_features,
            out_features=self.out_features,
            width=self.width,
            layers=layers,
            kind=self.kind,
            adapt_stem=True,
            constant_outputs=self.constant_outputs,
            seed=seed,
        )

    @property
    def architecture(self) -> Architecture[Any]:
        """The architecture of the networks built from this pool."""
        return dense(self.kind) if self.modules is None else self.modules

    @property
    def in_features(self) -> int:
        """Number of inputs of the stem, the product of the input's shape."""
        if self.modules is not None:
            return math.prod(self.modules.input_shape)
        return self.parameters["stem.matrix"].shape[0] - 1

    @property
    def out_features(self) -> int:
        """Number of outputs of the head, constant ones included."""
        if self.modules is not None:
            return self.modules.out_features
        return self.parameters["head.matrix"].shape[1] + self.constant_outputs

    @property
    def constant_outputs(self) -> int:
        """Number of outputs, the last ones, that do not depend on the input: log standard deviations of policies."""
        if self.modules is not None:
            return self.modules.constant_outputs
        constants = self.parameters.get("head.constants")
        return 0 if constants is None else constants.shape[1]

    @property
    def width(self) -> int:
        """Number of units of every hidden layer, or of features that agents observe of modules."""
        return self.parameters["stem.matrix"].shape[1] if self.modules is None else self.modules.features

    @property
    def layers(self) -> int:
        """Number of layers to choose from (L)."""
        return next(len(tensor) for name, tensor in self.parameters.items() if name.startswith("layers."))

    @property
    def device(self) -> torch.device:
        """Device of the parameters."""
        return self._any.device

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the parameters."""
        return self._any.dtype

    @property
    def _any(self) -> Tensor:
        """One of the parameters, which all have the same device and dtype."""
        return next(iter(self.parameters.values()))

    @property
    def step_range(self) -> tuple[float, float]:
        """Default range of step sizes (low, high): factors around 1 for a pool with rates, else absolute step sizes."""
        return RATED_STEP_RANGE if self.rates else PLAIN_STEP_RANGE

    @property
    def fixed(self) -> dict[str, Tensor]:
        """Tensors of the stem that episodes do not adapt, by their name within the stem."""
        return {} if self.adapt_stem else {"matrix": self.parameters["stem.matrix"]}

    @property
    def adapted(self) -> tuple[str, ...]:
        """Names of the parameters that episodes adapt."""
        kept = (*(() if self.adapt_stem else ("stem.matrix",)), *(NORMS if self.norm_steps else ()))
        return tuple(name for name in self.parameters if name not in kept)

    @property
    def norm_steps(self) -> int | None:
        """Number of steps that have their own norms; None without norms, or if episodes adapt them."""
        if self.modules is not None:  # whose parameters may be called norm, too
            return None
        norm = self.parameters.get("stem.norm")
        return None if norm is None or norm.ndim == 2 else len(norm)

    @own_state
    def with_rates(
        self, granularity: str, initial: float, *, steps: int | None = None, slots: int | None = None
    ) -> LayerPool:
        """A copy with learnable step sizes.

        Args:
            granularity: "scalar", "tensor", "step", "weight" or "weight_step"; see `LayerPool`.
            initial: initial value of all step sizes.
            steps: number of steps with their own step sizes; for granularities "step" and "weight_step" only.
            slots: number of slots with their own step sizes; for granularity "weight_step" only.

        Raises:
            ValueError: an unknown granularity, a step size that is not positive, or no number of steps or slots where
                it needs one.
        """
        if granularity not in RATES:
            raise ValueError(f"granularity={granularity!r}: must be one of {', '.join(map(repr, RATES))}")
        if granularity in PER_STEP and (steps is None or not is_integer(steps) or steps < 1):
            raise ValueError(f"steps={steps!r}: rates per step need the number of steps, at least 1")
        if granularity == "weight_step" and (slots is None or not is_integer(slots) or slots < 1):
            raise ValueError(f"slots={slots!r}: rates per weight and step need the number of slots, at least 1")
        if not 0 < initial < float("inf"):
            raise ValueError(f"initial={initial!r}: must be a positive number")
        copy = self.clone()
        adapted = {name: tuple(self.parameters[name].shape) for name in self.adapted}
        shapes = rate_shapes(granularity, adapted, layers=self.layers, steps=steps or 0, slots=slots or 0)
        copy.rates = {name: self._any.new_full(shape, initial) for name, shape in shapes.items()}
        copy.granularity = granularity
        return copy

    @own_state
    def with_step_norms(self, steps: int, statistics: bool = False) -> LayerPool:
        """A copy with separate norms (gain and shift) for each step, meta-learned but not adapted.

        This is BNWB of MAML++ (Antoniou et al. 2019, arXiv:1810.09502). The pass over the support set before update t
        (counted from 0) uses the norms of step t, and so does the pass over the query set after it; later steps reuse
        the last ones. Rates of the norms are dropped.

        Args:
            steps: number of steps with their own norms.
            statistics: also keep running statistics for each step (BNRS of MAML++).

        Raises:
            ValueError: a layer kind other than "batch_norm", a pool that already has norms for each step, or less than
                one step.
        """
        if not (self.architecture.normalised and self.architecture.across_points):
            names = [name for name, kind in LAYER_KINDS.items() if kind.normalised and kind.across_points]
            raise ValueError(f"kind={self.kind!r}: norms for each step are for {', '.join(map(repr, names))}")
        if self.norm_steps:
            raise ValueError(f"steps={steps!r}: this pool has norms for each of {self.norm_steps} steps already")
        check_integer("steps", steps)
        copy = self.clone()
        for name in NORMS:
            norm = copy.parameters[name]
            copy.parameters[name] = norm.expand(steps, *norm.shape).clone()
            copy.rates.pop(name, None)
        if statistics:
            for name, shape in statistics_shapes(width=self.width, layers=self.layers, steps=steps).items():
                copy.statistics[name] = self.parameters["stem.matrix"].new_zeros(shape)
                copy.statistics[name][..., 1, :] = 1.0
        return copy

    def assemble(self, slots: Tensor) -> Assembly:
        """Weights, rates and norms of n networks built from this pool, differentiable with respect to its tensors.

        Args:
            slots: (slots, n) int64, numbers 1..L of the pool layers; an empty slot (0) is represented by layer 1.
        """
        return Assembly(self, (slots - 1).clamp_min(0))

    def trainable(self) -> dict[str, Tensor]:
        """All tensors that meta-gradients update, by name: parameters, and rates with the prefix "rate."."""
        return self.parameters | {f"rate.{name}": rate for name, rate in self.rates.items()}

    @own_state
    def clone(self) -> LayerPool:
        """A copy that shares no memory with this pool."""
        parameters, rates, statistics = (
            {name: tensor.detach().clone() for name, tensor in part.items()}
            for part in (self.parameters, self.rates, self.statistics)
        )
        return LayerPool(self.kind, parameters, rates, self.granularity, self.adapt_stem, statistics, self.modules)

    @own_state
    def to(self, device: torch.device | str) -> LayerPool:
        """This pool if it is already on `device`, otherwise a copy there.

        Raises:
            ValueError: the pool is on the device "meta", which holds no data to copy.
        """
        # "cuda" means the current one of several devices; a tensor there has its index.
        if {tensor.device for tensor in self._tensors().values()} == {torch.empty(0, device=device).device}:
            return self
        self._check_numbers()
        copy = self.clone()
        for part in (copy.parameters, copy.rates, copy.statistics):
            part |= {name: tensor.to(device) for name, tensor in part.items()}
        return copy

    def assign(self, other: LayerPool) -> None:
        """Copies another pool's tensors into this one's, in place; the devices may differ.

        Raises:
            ValueError: the pools differ in layer kind, modules, granularity of rates, adapted parameters, shapes or
                dtype.
        """
        own, theirs = self._tensors(), other._tensors()
        self._check_numbers()
        other._check_numbers()
        traits = ("kind", "granularity", "adapt_stem")
        differing = [name for name in traits if getattr(self, name) != getattr(other, name)]
        kinds = [{name: (tensor.shape, tensor.dtype) for name, tensor in part.items()} for part in (own, theirs)]
        if self.modules is not None and other.modules is not None:
            differing += ["modules"] * (self.modules.describe() != other.modules.describe())
        differing += [name for name in own | theirs if kinds[0].get(name) != kinds[1].get(name)]
        if differing:
            raise ValueError(
                f"other: a pool of another shape ({other.describe()}) than this one ({self.describe()}); "
                f"they differ in {', '.join(differing)}"
            )
        # Tensors created in inference mode can only be written to in inference mode; others can be, too.
        with torch.inference_mode():
            for name, tensor in own.items():
                tensor.copy_(theirs[name])

    def check(self) -> None:
        """Raises a ValueError if the pool is inconsistent, which is possible only if it was constructed by hand."""
        problem = find_problem(**{part.name: getattr(self, part.name) for part in fields(self)})
        if problem:
            raise ValueError(f"pool: {problem}")

    def _check_numbers(self) -> None:
        if any(tensor.is_meta for tensor in self._tensors().values()):
            raise ValueError("pool: is on the device 'meta', which holds no numbers")

    def _tensors(self) -> dict[str, Tensor]:
        """All tensors by name."""
        return self.trainable() | {f"statistics.{name}": tensor for name, tensor in self.statistics.items()}

    @own_state
    def become_leaves(self) -> None:
        """Replaces tensors that autograd or an optimizer would refuse to update by copies.

        These are tensors created in inference mode, non-leaf tensors, and tensors that are not contiguous.
        """
        for part in (self.parameters, self.rates, self.statistics):
            for name, tensor in part.items():
                if tensor.is_inference() or not tensor.is_leaf or not tensor.is_contiguous():
                    part[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
                part[name].requires_grad_(False)

    def describe(self) -> str:
        """One line of text: layers, kind, width, inputs, outputs, rates and norms."""
        rates = f", rates per {self.granularity}" if self.granularity else ""
        constant = f" ({self.constant_outputs} constant)" if self.constant_outputs else ""
        kind = self.kind
        if self.modules is not None and kind == MODULES:
            kind = " and ".join(dict.fromkeys(type(part.module).__name__ for part in self.modules.kinds))
        kept = "norms and running statistics" if self.statistics else "norms"
        norms = f", {kept} for each of {self.norm_steps} steps" if self.norm_steps else ""
        return (
            f"{self.layers} {kind} layers of width {self.width}, "
            f"{self.in_features} inputs, {self.out_features} outputs{constant}{rates}{norms}"
        )

    def __repr__(self) -> str:
        """The class and `describe()`."""
        return f"LayerPool({self.describe()})"

    def state(self) -> dict[str, Any]:
        """The pool as a dict of plain data that `torch.load(weights_only=True)` accepts; tensors are on the CPU.

        A user's own modules are no plain data: their description is kept, and `from_state` takes them.
        """
        copy = self.to("cpu").clone()
        state: dict[str, Any] = {"format": FORMAT, **{part.name: getattr(copy, part.name) for part in fields(copy)}}
        modules: Modules | None = state.pop("modules")
        if modules is not None:
            state |= {"format": MODULES_FORMAT, "modules": modules.settings or modules.describe()}
        return state

    @classmethod
    @own_state
    def from_state(cls, state: Any, source: str = "state", modules: Modules | None = None) -> Self:
        """The pool described by `state`.

        Args:
            state: returned by `state()`.
            source: origin of the state, named in errors.
            modules: the user's own modules that the pool was made of, if it was made of such.

        Raises:
            ValueError: not a pool's state, an unknown version, tensors that are inconsistent or not finite, modules
                that are missing, or whose weights have other names or shapes.

        Warns:
            UserWarning: the modules are others than those described in the state, although their weights fit.
        """
        file_format = state.get("format") if isinstance(state, dict) else type(state).__name__
        if file_format not in (FORMAT, MODULES_FORMAT, OLD_FORMAT):
            raise ValueError(
                f"{source}: not a layer pool this version reads (found {file_format!r}, expected {FORMAT!r})"
            )
        parts: dict[str, Any] = {name: part for name, part in state.items() if name != "format"}
        if file_format == OLD_FORMAT:
            parts = from_format_1(parts)
        described = parts.pop("modules", None)
        if file_format == MODULES_FORMAT:
            if isinstance(described, dict):
                modules = _block_modules(parts, described, source)
            elif modules is not None and not isinstance(modules, Modules):
                raise ValueError(f"modules={modules!r}: must be a gym_reml.networks.modules.Modules or None")
            elif modules is None:
                raise ValueError(
                    f"{source}: holds weights of modules that are not in the file. Make them again, by pool = "
                    "LayerPool.load(path, modules=Modules(stem=..., layer=..., head=..., input_shape=...)), with "
                    "Modules of gym_reml.networks.modules, and give environments that, pool=pool. They were\n"
                    f"{described}"
                )
        else:
            modules = None
        parts["modules"] = modules
        if set(parts) != {part.name for part in fields(cls)}:
            raise ValueError(f"{source}: damaged layer pool, holds {', '.join(map(repr, state))}")
        problem = find_problem(**parts)
        if problem:
            raise ValueError(f"{source}: damaged layer pool, {problem}")
        if isinstance(described, str) and modules is not None and described != modules.describe():
            warnings.warn(
                f"{source}: the given modules may compute something else than those that the weights are of. These "
                f"were\n{described}\nand given are\n{modules.describe()}",
                stacklevel=2,
            )
        return cls(**parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pool to a file, atomically: readers see the old file or the new one, never part of one."""
        save_atomically(self.state(), path)

    @classmethod
    @own_state
    def load(cls, path: str | os.PathLike[str], modules: Modules | None = None) -> Self:
        """Reads a pool from a file, without executing code from it; `modules` as for `from_state`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a pool's file, an unknown version, a damaged file, or modules missing or not fitting.
        """
        return cls.from_state(load_safely(path), str(path), modules)


def _block_modules(parts: dict[str, Any], settings: dict[str, Any], source: str) -> Modules:
    """The modules of a file, whose content and settings these are."""
    try:
        kind, parameters = parts["kind"], parts["parameters"]
        if kind not in BLOCKS:
            raise ValueError(f"layer kind {kind!r} is none of {', '.join(map(repr, BLOCKS))}")
        sizes = {name: settings[name] for name in ("out_features", "width", "constant_outputs")}
        shape = settings["input_shape"]
        # Modules are only made of the sizes that the file's tensors have: damaged ones could fill the memory.
        fitting = [
            [sizes["width"], shape[0], 3, 3],
            [sizes["out_features"] - sizes["constant_outputs"], sizes["width"]],
        ]
        if [list(parameters[name].shape) for name in ("stem.0.0.weight", "head.1.weight")] != fitting or not all(
            is_integer(size) and 0 <= size <= LARGEST_INPUT for size in (*sizes.values(), *shape, math.prod(shape))
        ):
            raise ValueError(f"sizes {settings}")
        return block_modules(kind, input_shape=shape, **sizes)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{source}: damaged layer pool, {error}") from error


@dataclass(frozen=True)
class Assembly:
    """Weights, rates and norms of n networks built from a pool, each gathered on first use.

    Attributes:
        pool: the pool.
        index: (slots, n) int64, the layer in each slot, counted from 0.
    """

    pool: LayerPool
    index: Tensor

    @cached_property
    def weights(self) -> Weights:
        """The networks' initial fast weights."""
        count, weights = self.index.shape[1], Weights([{} for _ in range(len(self.index) + 2)])
        for name in self.pool.adapted:
            tensor = self.pool.parameters[name]
            for position, key, rows in places(name, self.index):
                weights.positions[position][key] = tensor.expand(count, *tensor.shape) if rows is None else tensor[rows]
        return weights

    def rates(self, clock: NDArray[np.int64]) -> Weights | None:
        """The rates at this step, each broadcastable to its weights; None if the pool has no rates.

        Args:
            clock: (n,) int64, number of steps taken.
        """
        pool = self.pool
        if not pool.rates:
            return None
        adapted = {name: pool.parameters[name].ndim - name.startswith("layers.") for name in pool.adapted}
        return gather_rates(pool.rates, pool.granularity, adapted=adapted, index=self.index, clock=clock)

    def norms(self, clock: Tensor, *, running: bool) -> list[Tensor] | None:
        """The norms of stem and slots at this step; None unless the pool has norms for each step.

        Args:
            clock: (n,) int64, number of the step, counted from 0.
            running: append the pool's running statistics, if it has any.

        Returns:
            For the stem and each slot (n, 2, width): gain and shift; with statistics (n, 4, width): gain, shift, mean
            and variance.
        """
        pool = self.pool
        if pool.norm_steps is None:
            return None
        return gather_norms(pool.parameters, pool.statistics if running else {}, index=self.index, clock=clock)
