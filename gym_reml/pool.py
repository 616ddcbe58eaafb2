"""The pool that sub-networks are built from: a stem, layers, a head, and optionally learned step sizes ("rates")."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from gym_reml.network import LAYER_KINDS, LayerKind, Weights

FORMAT = "gym_reml.LayerPool/1"
RATES = ("scalar", "tensor", "step", "weight")
PLAIN_STEP_RANGE = (1e-3, 0.3)
RATED_STEP_RANGE = (0.25, 4.0)


@dataclass(eq=False)
class LayerPool:
    """Initial weights shared by all episodes.

    Attributes:
        kind: name of the layers' kind, a key of `gym_reml.network.LAYER_KINDS`.
        parameters: "stem" (in + 1, width), "layers" (L, width + 1, width), "head" (width + 1, out), the last row of
            each matrix being the bias; kinds with normalisation add "stem_norm" (2, width) and "layers_norm"
            (L, 2, width).
        rates: learned step sizes, or {}. One number in all ("scalar": {"all": ()}), or by the names of the adapted
            parameters: one per layer ("tensor": () and (L,)), one per layer and step ("step": (T,) and (T, L), MAML++'s
            LSLR, the last reused beyond T), or one per weight ("weight": like the parameter, Meta-SGD).
        granularity: which of these, or None without rates.
        adapt_stem: whether episodes adapt the stem's matrix; its norm always adapts.
    """

    kind: str
    parameters: dict[str, Tensor]
    rates: dict[str, Tensor] = field(default_factory=dict)
    granularity: str | None = None
    adapt_stem: bool = True

    @classmethod
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
            seed: of the weights.

        Raises:
            ValueError: an unknown kind, or a size below one.
        """
        layer_kind = find_kind(kind)
        sizes = {"in_features": in_features, "out_features": out_features, "width": width, "layers": layers}
        for argument, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{argument}={value!r}: must be a positive integer")
        generator = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> Tensor:
            bound = (shape[-2] - 1) ** -0.5
            return torch.empty(shape).uniform_(-bound, bound, generator=generator)

        parameters = {
            "stem": uniform(in_features + 1, width),
            "layers": uniform(layers, width + 1, width) * scale,
            "head": uniform(width + 1, out_features),
        }
        if layer_kind.normalised:
            unit = torch.stack([torch.ones(width), torch.zeros(width)])
            parameters["stem_norm"] = unit.clone()
            parameters["layers_norm"] = unit.repeat(layers, 1, 1)
        return cls(kind, parameters, adapt_stem=not layer_kind.normalised if adapt_stem is None else adapt_stem)

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
    def step_range(self) -> tuple[float, float]:
        """Default range of the step size: around 1 where the pool has rates, an absolute one where it has none."""
        return RATED_STEP_RANGE if self.rates else PLAIN_STEP_RANGE

    @property
    def frozen_stem(self) -> Tensor | None:
        """The stem's matrix if episodes do not adapt it, else None."""
        return None if self.adapt_stem else self.parameters["stem"]

    @property
    def adapted(self) -> tuple[str, ...]:
        """Names of the parameters that episodes adapt."""
        return tuple(name for name in self.parameters if name != "stem" or self.adapt_stem)

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
        shapes = self._rate_shapes(granularity, steps or 0)
        copy.rates = {name: self.parameters["stem"].new_full(shape, initial) for name, shape in shapes.items()}
        copy.granularity = granularity
        return copy

    def _rate_shapes(self, granularity: str, steps: int) -> dict[str, tuple[int, ...]]:
        if granularity == "scalar":
            return {"all": ()}
        if granularity == "weight":
            return {name: tuple(self.parameters[name].shape) for name in self.adapted}
        prefix = (steps,) if granularity == "step" else ()
        return {name: (*prefix, self.layers) if name.startswith("layers") else prefix for name in self.adapted}

    def instantiate(self, slots: Tensor) -> Weights:
        """Fast weights of n networks, differentiable in the pool.

        Args:
            slots: (depth, n) int64, pool numbers 1..L of the layers; what stands for an empty slot (0) is layer 1.
        """
        count, index = slots.shape[1], (slots - 1).clamp_min(0)
        stem = self.parameters["stem"].expand(count, -1, -1) if self.adapt_stem else None
        layers = self.parameters["layers"]
        matrices = [stem, *(layers[row] for row in index), self.parameters["head"].expand(count, -1, -1)]
        if not self.layer_kind.normalised:
            return Weights(matrices)
        layer_norms = self.parameters["layers_norm"]
        stem_norm = self.parameters["stem_norm"].expand(count, -1, -1)
        return Weights(matrices, [stem_norm, *(layer_norms[row] for row in index)])

    def gather_rates(self, slots: Tensor, clock: Tensor) -> Weights | None:
        """The rates of n networks, each broadcastable to the weights it belongs to; None without rates.

        Args:
            slots: (depth, n) int64 as for `instantiate`.
            clock: (n,) int64, steps already taken.
        """
        if not self.rates:
            return None
        index = (slots - 1).clamp_min(0)
        groups = {"": ("stem", "layers", "head"), "_norm": ("stem_norm", "layers_norm")}
        matrices = self._gather(groups[""], index, clock)
        norms = self._gather(groups["_norm"], index, clock) if self.layer_kind.normalised else []
        return Weights(matrices, [norm for norm in norms if norm is not None])

    def _gather(self, names: tuple[str, ...], index: Tensor, clock: Tensor) -> list[Tensor | None]:
        gathered: list[Tensor | None] = []
        for name in names:
            layers = list(index) if name.startswith("layers") else [None]
            if self.granularity == "scalar":
                skip = name == "stem" and not self.adapt_stem
                gathered += [None if skip else self.rates["all"].expand(len(clock), 1, 1) for _ in layers]
                continue
            rate = self.rates.get(name)
            if rate is None:
                gathered.append(None)
                continue
            for layer in layers:
                if self.granularity == "step":
                    step = clock.clamp_max(len(rate) - 1)
                    chosen = rate[step] if layer is None else rate[step, layer]
                else:
                    chosen = rate.expand(len(clock), *rate.shape) if layer is None else rate[layer]
                gathered.append(chosen if chosen.ndim == 3 else chosen.reshape(-1, 1, 1))
        return gathered

    def trainable(self) -> dict[str, Tensor]:
        """Everything a meta-learner may learn, by name: parameters, and rates under "rate." names."""
        return self.parameters | {f"rate.{name}": rate for name, rate in self.rates.items()}

    def clone(self) -> LayerPool:
        """A copy that shares nothing."""
        parameters = {name: tensor.detach().clone() for name, tensor in self.parameters.items()}
        rates = {name: tensor.detach().clone() for name, tensor in self.rates.items()}
        return LayerPool(self.kind, parameters, rates, self.granularity, self.adapt_stem)

    def to(self, device: torch.device | str) -> LayerPool:
        """This pool if it is on that device already, else a copy there."""
        # "cuda" names the present one of several devices; a tensor there knows its number.
        if self.device == torch.empty(0, device=device).device:
            return self
        copy = self.clone()
        copy.parameters = {name: tensor.to(device) for name, tensor in copy.parameters.items()}
        copy.rates = {name: tensor.to(device) for name, tensor in copy.rates.items()}
        return copy

    def assign(self, other: LayerPool) -> None:
        """Writes another pool's numbers over this one's, in place.

        Raises:
            ValueError: if their kinds or shapes differ.
        """
        own, theirs = self.trainable(), other.trainable()
        same_kind = (self.kind, self.granularity) == (other.kind, other.granularity)
        if not same_kind or {n: t.shape for n, t in own.items()} != {n: t.shape for n, t in theirs.items()}:
            raise ValueError(f"other: a pool of another shape ({other.describe()}) than this one ({self.describe()})")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(theirs[name])

    def describe(self) -> str:
        """The pool in a line."""
        rates = f", rates per {self.granularity}" if self.granularity else ""
        return (
            f"{self.layers} {self.kind} layers of width {self.width}, "
            f"{self.in_features} inputs, {self.out_features} outputs{rates}"
        )

    def state(self) -> dict[str, Any]:
        """The pool as plain data that `torch.load(weights_only=True)` accepts."""
        copy = self.to("cpu").clone()
        return {
            "format": FORMAT,
            "kind": copy.kind,
            "parameters": copy.parameters,
            "rates": copy.rates,
            "granularity": copy.granularity,
            "adapt_stem": copy.adapt_stem,
        }

    @classmethod
    def from_state(cls, state: Any, source: str = "state") -> Self:
        """The pool that `state` describes.

        Raises:
            ValueError: not such a state, one of another version, or numbers that do not fit together or are not
                finite; the message names `source`.
        """
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        if found != FORMAT:
            raise ValueError(f"{source}: not a layer pool this version reads (found {found!r}, expected {FORMAT!r})")
        if set(state) != {"format", *(part.name for part in fields(cls))}:
            raise ValueError(f"{source}: damaged layer pool, holds {', '.join(map(repr, state))}")
        pool = cls(**{part.name: state[part.name] for part in fields(cls)})
        problem = _find_problem(pool)
        if problem:
            raise ValueError(f"{source}: damaged layer pool, {problem}")
        return pool

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the pool to a file; whoever reads it finds the old file or the new one, never a part."""
        save_atomically(self.state(), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Reads a pool from a file, executing nothing that the file holds.

        Raises:
            FileNotFoundError: no such file.
            ValueError: a file of another kind, of another version, or damaged.
        """
        return cls.from_state(load_safely(path), str(path))


def find_kind(name: str) -> LayerKind:
    """The layer kind of that name, or a ValueError that lists the choices."""
    if not isinstance(name, str) or name not in LAYER_KINDS:
        raise ValueError(f"layer_kind={name!r}: must be one of {', '.join(map(repr, LAYER_KINDS))}")
    return LAYER_KINDS[name]


def _find_problem(pool: LayerPool) -> str | None:
    """What is wrong with a pool read from outside: types, names, shapes, numbers; None if nothing is."""
    if not isinstance(pool.kind, str) or pool.kind not in LAYER_KINDS:
        return f"layer kind {pool.kind!r} is none of {', '.join(map(repr, LAYER_KINDS))}"
    if not isinstance(pool.adapt_stem, bool):
        return f"adapt_stem is {pool.adapt_stem!r}"
    for part in (pool.parameters, pool.rates):
        if not isinstance(part, dict) or not all(isinstance(tensor, Tensor) for tensor in part.values()):
            return "parameters and rates must be tensors by name"
    expected = {"stem", "layers", "head"} | ({"stem_norm", "layers_norm"} if pool.layer_kind.normalised else set())
    if set(pool.parameters) != expected:
        return f"parameters are {', '.join(sorted(map(str, pool.parameters)))} instead of {', '.join(sorted(expected))}"
    tensors = pool.trainable()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if [len(shapes[name]) for name in ("stem", "layers", "head")] != [2, 3, 2]:
        return f"shapes {shapes} do not fit together"
    width, layers = pool.width, pool.layers
    fitting: dict[str, tuple[int, ...]] = {
        "stem": (pool.in_features + 1, width),
        "layers": (layers, width + 1, width),
        "head": (width + 1, pool.out_features),
    }
    if pool.layer_kind.normalised:
        fitting |= {"stem_norm": (2, width), "layers_norm": (layers, 2, width)}
    if pool.granularity is not None or pool.rates:
        if pool.granularity not in RATES:
            return f"granularity of rates is {pool.granularity!r}"
        steps = max((shape[0] for name, shape in shapes.items() if name.startswith("rate.") and shape), default=1)
        fitting |= {f"rate.{name}": shape for name, shape in pool._rate_shapes(pool.granularity, steps).items()}
    if shapes != fitting or not min(pool.in_features, pool.out_features, width, layers) > 0:
        return f"shapes {shapes} do not fit together"
    if {tensor.dtype for tensor in tensors.values()} not in ({torch.float32}, {torch.float64}):
        return "numbers are not of one floating type"
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    return f"{', '.join(broken)}: not finite" if broken else None


def save_atomically(state: Any, path: str | os.PathLike[str]) -> None:
    """`torch.save` to a temporary file beside `path`, then a rename over it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are for one user alone, and the file would stay so.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_safely(path: str | os.PathLike[str]) -> Any:
    """`torch.load(weights_only=True)` onto the CPU; ValueError for what is damaged or not a torch file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise  # the file is absent, a folder, forbidden: the message says it
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path}: not a readable file of this kind, or damaged ({type(error).__name__})") from error
