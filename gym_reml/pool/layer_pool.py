"""The pool that sub-networks are built from: a stem, layers, a head, and optionally learned step sizes ("rates")."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gym_reml.checks import check_integer, is_integer
from gym_reml.files import load_safely, save_atomically
from gym_reml.networks.layer_kinds import LAYER_KINDS, LayerKind, find_kind
from gym_reml.networks.torch_state import own_state
from gym_reml.networks.weights import Weights, without_inputs
from gym_reml.pool.rates import RATES, rate_shapes
from gym_reml.pool.step_norms import statistics_shapes
from gym_reml.pool.storage import find_problem

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11

FORMAT = "gym_reml.LayerPool/1"
PLAIN_STEP_RANGE = (1e-3, 0.3)
RATED_STEP_RANGE = (0.25, 4.0)


@dataclass(eq=False)
class LayerPool:
    """Initial weights shared by all episodes.

    Attributes:
        kind: name of the layers' kind, a key of `gym_reml.networks.layer_kinds.LAYER_KINDS`.
        parameters: "stem" (in + 1, width), "layers" (L, width + 1, width), "head" (width + 1, out), the last row of
            each matrix being the bias; kinds with normalisation add "stem_norm" (2, width) and "layers_norm"
            (L, 2, width), or (T, 2, width) and (T, L, 2, width) where there are norms for each of T steps.
        rates: learned step sizes, or {}. One number in all ("scalar": {"all": ()}), or by the names of the adapted
            parameters: one per layer ("tensor": () and (L,)), one per layer and step ("step": (T,) and (T, L), MAML++'s
            LSLR, the last reused beyond T), or one per weight ("weight": like the parameter, Meta-SGD).
        granularity: which of these, or None without rates.
        adapt_stem: whether episodes adapt the stem's matrix.
        statistics: running mean and variance for each step, "stem" (T, 2, width) and "layers" (T, L, 2, width), or {}.
            They follow the replays of a learner, and normalise wherever networks are not replayed.
        constant_outputs: how many outputs, the last ones, depend on the head's bias alone (log deviations of policies).
    """

    kind: str
    parameters: dict[str, Tensor]
    rates: dict[str, Tensor] = field(default_factory=dict)
    granularity: str | None = None
    adapt_stem: bool = True
    statistics: dict[str, Tensor] = field(default_factory=dict)
    constant_outputs: int = 0

    @classmethod
    @own_state
    def random(
        cls,
        *,
        in_features: int,
        out_features: int,
        width: int = 40,
        layers: int = 8,
        kind: str = "residual",
        adapt_stem: bool | None = None,
        scale: float = 1.0,
        constant_outputs: int = 0,
        seed: int = 0,
    ) -> Self:
        """A pool of fresh layers, initialised as `nn.Linear` initialises: U(-1/sqrt(in), 1/sqrt(in)) for all.

        Args:
            in_features: inputs of the stem.
            out_features: outputs of the head.
            width: units of every hidden layer.
            layers: how many layers to choose from (L).
            kind: name of the layer kind.
            adapt_stem: None means True, but False for kinds with normalisation, where the norm's gain and shift
                suffice.
            scale: factor on the hidden layers' weights.
            constant_outputs: how many outputs, the last ones, have a bias (0 at first) and no weights.
            seed: of the weights.

        Raises:
            ValueError: an unknown kind, a size below one, or more constant outputs than outputs.
        """
        layer_kind = find_kind(kind)
        sizes = {"in_features": in_features, "out_features": out_features, "width": width, "layers": layers}
        for argument, value in sizes.items():
            check_integer(argument, value)
        if not is_integer(constant_outputs) or not 0 <= constant_outputs <= out_features:
            raise ValueError(f"constant_outputs={constant_outputs!r}: must be from 0 to out_features={out_features}")
        generator = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> Tensor:
            bound = (shape[-2] - 1) ** -0.5
            return torch.empty(shape, dtype=torch.float32).uniform_(-bound, bound, generator=generator)

        parameters = {
            "stem": uniform(in_features + 1, width),
            "layers": uniform(layers, width + 1, width) * scale,
            "head": uniform(width + 1, out_features),
        }
        if constant_outputs:
            parameters["head"][:, out_features - constant_outputs :] = 0.0
        if layer_kind.normalised:
            unit = torch.tensor([[1.0], [0.0]], dtype=torch.float32).repeat(1, width)
            parameters["stem_norm"] = unit.clone()
            parameters["layers_norm"] = unit.repeat(layers, 1, 1)
        adapt_stem = not layer_kind.normalised if adapt_stem is None else adapt_stem
        return cls(kind, parameters, adapt_stem=adapt_stem, constant_outputs=constant_outputs)

    @property
    def layer_kind(self) -> LayerKind:
        """What the layers compute."""
        return LAYER_KINDS[self.kind]

    @property
    def in_features(self) -> int:
        """Inputs of the stem."""
        return self.parameters["stem"].shape[0] - 1

    @property
    def out_features(self) -> int:
        """Outputs of the head."""
        return self.parameters["head"].shape[1]

    @property
    def width(self) -> int:
        """Units of every hidden layer."""
        return self.parameters["stem"].shape[1]

    @property
    def layers(self) -> int:
        """How many layers there are to choose from."""
        return self.parameters["layers"].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.parameters["stem"].device

    @property
    def dtype(self) -> torch.dtype:
        """Of what kind its numbers are."""
        return self.parameters["stem"].dtype

    @property
    def step_range(self) -> tuple[float, float]:
        """Default range of the step size: around 1 where the pool has rates, an absolute one where it has none."""
        return RATED_STEP_RANGE if self.rates else PLAIN_STEP_RANGE

    @property
    def frozen_stem(self) -> Tensor | None:
        """The stem's matrix if episodes do not adapt it, else None."""
        return None if self.adapt_stem else self.parameters["stem"]

    @property
    def constants(self) -> Tensor:
        """Outputs that depend on no input, (constant_outputs,): a view of the head's bias."""
        return self.parameters["head"][-1, self.out_features - self.constant_outputs :]

    @property
    def adapted(self) -> tuple[str, ...]:
        """Names of the parameters that episodes adapt."""
        kept = (*(() if self.adapt_stem else ("stem",)), *(("stem_norm", "layers_norm") if self.norm_steps else ()))
        return tuple(name for name in self.parameters if name not in kept)

    @property
    def norm_steps(self) -> int | None:
        """For how many steps there are norms, or None where there are none or episodes adapt them."""
        norm = self.parameters.get("stem_norm")
        return None if norm is None or norm.ndim == 2 else len(norm)

    @own_state
    def with_rates(self, granularity: str, initial: float, steps: int | None = None) -> LayerPool:
        """A copy with step sizes to learn, all `initial` at first.

        Args:
            granularity: "scalar", "tensor", "step" or "weight".
            initial: the step size to start from.
            steps: for "step", how many steps have their own.

        Raises:
            ValueError: an unknown granularity, a step size that is not positive, or no number of steps for "step".
        """
        if granularity not in RATES:
            raise ValueError(f"granularity={granularity!r}: must be one of {', '.join(map(repr, RATES))}")
        if granularity == "step" and (steps is None or steps < 1):
            raise ValueError(f"steps={steps!r}: rates per step need to know the number of steps, at least 1")
        if not 0 < initial < float("inf"):
            raise ValueError(f"initial={initial!r}: must be a positive number")
        copy = self.clone()
        adapted = {name: tuple(self.parameters[name].shape) for name in self.adapted}
        shapes = rate_shapes(granularity, adapted, self.layers, steps or 0)
        copy.rates = {name: self.parameters["stem"].new_full(shape, initial) for name, shape in shapes.items()}
        copy.granularity = granularity
        return copy

    @own_state
    def with_step_norms(self, steps: int, statistics: bool = False) -> LayerPool:
        """A copy whose norms, gain and shift, are kept for each step, learned but not adapted (MAML++'s BNWB).

        The pass over the support set before update t (from 0) takes those of step t, and so does the pass over the
        query set after it; the last are reused beyond. Rates that belonged to the norms are gone.

        Args:
            steps: how many steps have their own.
            statistics: whether to keep running statistics for each step, too (BNRS).

        Raises:
            ValueError: another layer kind than "batch_norm", norms for each step already, or less than one step.
        """
        if not (self.layer_kind.normalised and self.layer_kind.across_points):
            names = [name for name, kind in LAYER_KINDS.items() if kind.normalised and kind.across_points]
            raise ValueError(f"kind={self.kind!r}: norms for each step are for {', '.join(map(repr, names))}")
        if self.norm_steps:
            raise ValueError(f"steps={steps!r}: this pool has norms for each of {self.norm_steps} steps already")
        check_integer("steps", steps)
        copy = self.clone()
        for name in ("stem_norm", "layers_norm"):
            norm = copy.parameters[name]
            copy.parameters[name] = norm.expand(steps, *norm.shape).clone()
            copy.rates.pop(name, None)
        if statistics:
            for name, shape in statistics_shapes(self.width, self.layers, steps).items():
                copy.statistics[name] = self.parameters["stem"].new_zeros(shape)
                copy.statistics[name][..., 1, :] = 1.0
        return copy

    def instantiate(self, slots: Tensor) -> Weights:
        """Fast weights of n networks, differentiable in the pool.

        Args:
            slots: (depth, n) int64, pool numbers 1..L of the layers; what stands for an empty slot (0) is layer 1.
        """
        count, index = slots.shape[1], (slots - 1).clamp_min(0)
        stem = self.parameters["stem"].expand(count, -1, -1) if self.adapt_stem else None
        layers = self.parameters["layers"]
        head, constant = self.parameters["head"], self.constant_outputs
        if constant:
            # Without a derivative, what is zero stays zero.
            head = without_inputs(head, constant)
        matrices = [stem, *(layers[row] for row in index), head.expand(count, -1, -1)]
        if "stem_norm" not in self.adapted:
            return Weights(matrices, constant_outputs=constant)
        layer_norms = self.parameters["layers_norm"]
        stem_norm = self.parameters["stem_norm"].expand(count, -1, -1)
        return Weights(matrices, [stem_norm, *(layer_norms[row] for row in index)], constant)

    def gather_norms(self, slots: Tensor, clock: Tensor, running: bool) -> list[Tensor] | None:
        """What normalised layers of n networks take at some step, stem first; None unless norms go by the step.

        Args:
            slots: (depth, n) int64 as for `instantiate`.
            clock: (n,) int64, number of the step; before the first is as the first, beyond the last as the last.
            running: whether running statistics, if the pool has any, come along: each is (n, 4, width) then, mean and
                variance behind gain and shift, else (n, 2, width).
        """
        if self.norm_steps is None:
            return None
        index, step = (slots - 1).clamp_min(0), clock.clamp(0, self.norm_steps - 1)
        stem, layers = self.parameters["stem_norm"], self.parameters["layers_norm"]
        if running and self.statistics:
            stem = torch.cat([stem, self.statistics["stem"]], dim=-2)
            layers = torch.cat([layers, self.statistics["layers"]], dim=-2)
        return [stem[step], *(layers[step, row] for row in index)]

    def gather_rates(self, slots: Tensor, clock: Tensor) -> Weights | None:
        """The rates of n networks, each broadcastable to the weights it belongs to; None without rates.

        Args:
            slots: (depth, n) int64 as for `instantiate`.
            clock: (n,) int64, steps already taken.
        """
        if not self.rates:
            return None
        index = (slots - 1).clamp_min(0)
        matrices = self._gather(("stem", "layers", "head"), index, clock)
        norms = self._gather(("stem_norm", "layers_norm"), index, clock)
        return Weights(matrices, [norm for norm in norms if norm is not None])

    def _gather(self, names: tuple[str, ...], index: Tensor, clock: Tensor) -> list[Tensor | None]:
        gathered: list[Tensor | None] = []
        adapted = self.adapted
        for name in names:
            if name not in adapted:
                gathered.append(None)
                continue
            layers = list(index) if name.startswith("layers") else [None]
            if self.granularity == "scalar":
                gathered += [self.rates["all"].expand(len(clock), 1, 1) for _ in layers]
                continue
            rate = self.rates[name]
            for layer in layers:
                if self.granularity == "step":
                    step = clock.clamp_max(len(rate) - 1)
                    chosen = rate[step] if layer is None else rate[step, layer]
                else:
                    chosen = rate.expand(len(clock), *rate.shape) if layer is None else rate[layer]
                gathered.append(chosen if chosen.ndim == 3 else chosen.reshape(-1, 1, 1))
        return gathered

    def trainable(self) -> dict[str, Tensor]:
        """Everything a meta-learner may learn by gradient, by name: parameters, and rates under "rate." names."""
        return self.parameters | {f"rate.{name}": rate for name, rate in self.rates.items()}

    @own_state
    def clone(self) -> LayerPool:
        """A copy that shares nothing."""
        parameters, rates, statistics = (
            {name: tensor.detach().clone() for name, tensor in part.items()}
            for part in (self.parameters, self.rates, self.statistics)
        )
        return LayerPool(
            self.kind, parameters, rates, self.granularity, self.adapt_stem, statistics, self.constant_outputs
        )

    @own_state
    def to(self, device: torch.device | str) -> LayerPool:
        """This pool if it is on that device already, else a copy there.

        Raises:
            ValueError: the pool is on the device "meta", which holds no numbers that could be copied.
        """
        # "cuda" names the present one of several devices; a tensor there knows its number.
        if {tensor.device for tensor in self._tensors().values()} == {torch.empty(0, device=device).device}:
            return self
        self._check_numbers()
        copy = self.clone()
        for part in (copy.parameters, copy.rates, copy.statistics):
            part |= {name: tensor.to(device) for name, tensor in part.items()}
        return copy

    def assign(self, other: LayerPool) -> None:
        """Writes another pool's numbers over this one's, in place. They may come from another device.

        Raises:
            ValueError: they differ in more than that: kind, granularity of rates, what episodes adapt, constant
                outputs, shapes or dtype.
        """
        own, theirs = self._tensors(), other._tensors()
        self._check_numbers()
        other._check_numbers()
        traits = ("kind", "granularity", "adapt_stem", "constant_outputs")
        differing = [name for name in traits if getattr(self, name) != getattr(other, name)]
        kinds = [{name: (tensor.shape, tensor.dtype) for name, tensor in part.items()} for part in (own, theirs)]
        differing += [name for name in own | theirs if kinds[0].get(name) != kinds[1].get(name)]
        if differing:
            raise ValueError(
                f"other: a pool of another shape ({other.describe()}) than this one ({self.describe()}); "
                f"they differ in {', '.join(differing)}"
            )
        # Tensors that were made in inference mode may only be written to there; others may be, too.
        with torch.inference_mode():
            for name, tensor in own.items():
                tensor.copy_(theirs[name])

    def check(self) -> None:
        """Raises a ValueError if this is no sound pool, which can only be if it was put together by hand."""
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
        """Replaces tensors that autograd or an optimizer would refuse to change, by copies.

        These are tensors that were made in inference mode or computed from others, and such whose numbers overlap.
        """
        for part in (self.parameters, self.rates, self.statistics):
            for name, tensor in part.items():
                if tensor.is_inference() or not tensor.is_leaf or not tensor.is_contiguous():
                    part[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
                part[name].requires_grad_(False)

    def describe(self) -> str:
        """The pool in a line."""
        rates = f", rates per {self.granularity}" if self.granularity else ""
        constant = f" ({self.constant_outputs} constant)" if self.constant_outputs else ""
        kept = "norms and running statistics" if self.statistics else "norms"
        norms = f", {kept} for each of {self.norm_steps} steps" if self.norm_steps else ""
        return (
            f"{self.layers} {self.kind} layers of width {self.width}, "
            f"{self.in_features} inputs, {self.out_features} outputs{constant}{rates}{norms}"
        )

    def __repr__(self) -> str:
        """One line."""
        return f"LayerPool({self.describe()})"

    def state(self) -> dict[str, Any]:
        """The pool as plain data that `torch.load(weights_only=True)` accepts."""
        copy = self.to("cpu").clone()
        return {"format": FORMAT, **{part.name: getattr(copy, part.name) for part in fields(copy)}}

    @classmethod
    @own_state
    def from_state(cls, state: Any, source: str = "state") -> Self:
        """The pool that `state` describes.

        Raises:
            ValueError: not such a state, one of another version, or numbers that do not fit together or are not
                finite; the message names `source`.
        """
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        if found != FORMAT:
            raise ValueError(f"{source}: not a layer pool this version reads (found {found!r}, expected {FORMAT!r})")
        older: dict[str, Any] = {"statistics": {}, "constant_outputs": 0}  # files from before these have none
        parts = older | {name: part for name, part in state.items() if name != "format"}
        if set(parts) != {part.name for part in fields(cls)}:
            raise ValueError(f"{source}: damaged layer pool, holds {', '.join(map(repr, state))}")
        problem = find_problem(**parts)
        if problem:
            raise ValueError(f"{source}: damaged layer pool, {problem}")
        return cls(**parts)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pool to a file; whoever reads it finds the old file or the new one, never a part."""
        save_atomically(self.state(), path)

    @classmethod
    @own_state
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a pool from a file, executing nothing that the file holds.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file of another kind, of another version, or damaged.
        """
        return cls.from_state(load_safely(path), str(path))
