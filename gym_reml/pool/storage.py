"""Pools as plain data: validation, and conversion of files of format 1."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gym_reml.networks.blocks import BLOCKS
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.modules import Modules
from gym_reml.pool.rates import RATES, Shapes, rate_shapes
from gym_reml.pool.step_norms import statistics_shapes

FORMAT, OLD_FORMAT, MODULES_FORMAT = (f"gym_reml.LayerPool/{version}" for version in (2, 1, 3))

MODULES = "modules"
"""The kind of pools that are made of a user's own modules."""

LARGEST = 1e30
"""Largest magnitude of a pool's numbers: far enough below the maximum of float32 that fast weights stay finite."""


def from_format_1(parts: dict[str, Any]) -> dict[str, Any]:
    """Converts the content of a format 1 file to format 2; `find_problem` still has to validate it.

    Format 1 had one tensor for each of stem, layers and head, and stored constant outputs as columns of the head whose
    weights were unused. Their rates were part of the head's.
    """
    parts = {"statistics": {}, "constant_outputs": 0} | parts  # the oldest files have neither
    constant = parts.pop("constant_outputs")
    for part in ("parameters", "rates"):
        tensors = parts.get(part)
        if isinstance(tensors, dict):
            renamed = {_format_1_names.get(name, name): tensor for name, tensor in tensors.items()}
            head = renamed.get("head.matrix")
            if isinstance(head, Tensor) and type(constant) is int and constant:
                wide = head.ndim == 2 and 0 < constant <= head.shape[1]
                renamed["head.matrix"] = head[:, :-constant].clone() if wide else head.clone()
                renamed["head.constants"] = head[-1:, -constant:].clone() if wide else head.clone()
            parts[part] = renamed
    return parts


_format_1_names = {
    **{name: f"{name}.matrix" for name in ("stem", "layers", "head")},
    **{f"{name}_norm": f"{name}.norm" for name in ("stem", "layers")},
}


def find_problem(
    *,
    kind: Any,
    parameters: Any,
    rates: Any,
    granularity: Any,
    adapt_stem: Any,
    statistics: Any,
    modules: Modules | None,
) -> str | None:
    """The first problem with a pool's content (types, names, shapes, devices or values), as text; None if valid."""
    choices = LAYER_KINDS if modules is None else (*BLOCKS, MODULES)
    if not isinstance(kind, str) or kind not in choices:
        return f"layer kind {kind!r} with{'out' * (modules is None)} modules is none of {', '.join(map(repr, choices))}"
    if not isinstance(adapt_stem, bool):
        return f"adapt_stem is {adapt_stem!r}"
    for part in (parameters, rates, statistics):
        if not isinstance(part, dict) or not all(isinstance(tensor, Tensor) for tensor in part.values()):
            return "parameters, rates and statistics must be tensors by name"
    expected = _dense_names(kind, parameters) if modules is None else set(modules.shapes(1))
    if set(parameters) != expected:
        return f"parameters are {', '.join(sorted(map(str, parameters)))} instead of {', '.join(sorted(expected))}"
    tensors = {
        **parameters,
        **{f"rate.{name}": tensor for name, tensor in rates.items()},
        **{f"statistics.{name}": tensor for name, tensor in statistics.items()},
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    misfit = f"shapes {shapes} do not fit together"
    if modules is not None:
        stacked = [shapes[name] for name in parameters if name.startswith("layers.")]
        layers = stacked[0][0] if stacked and stacked[0] else 0
        fitting, adapted = modules.shapes(layers), list(parameters)
        if statistics or not adapt_stem or not layers:
            return "pools of modules have layers, adapt their stems and have no statistics"
    else:
        dense = _dense_shapes(kind, shapes, adapt_stem=adapt_stem, statistics=bool(statistics))
        if dense is None:
            return misfit
        fitting, adapted, layers = dense
    if granularity is not None or rates:
        if granularity not in RATES:
            return f"granularity of rates is {granularity!r}"
        steps = max((shape[0] for name, shape in shapes.items() if name.startswith("rate.") and shape), default=1)
        slots = next((shape[1:2] for name, shape in shapes.items() if name.startswith("rate.layers.")), ())
        expected_rates = rate_shapes(
            granularity,
            {name: fitting[name] for name in adapted},
            layers=layers,
            steps=steps,
            slots=slots[0] if slots else 0,
        )
        fitting |= {f"rate.{name}": shape for name, shape in expected_rates.items()}
    if shapes != fitting:
        return misfit
    if {tensor.dtype for tensor in tensors.values()} not in ({torch.float32}, {torch.float64}):
        return "numbers are not of one floating type"
    devices = sorted({str(tensor.device) for tensor in tensors.values()})
    if len(devices) > 1 or "meta" in devices:
        return f"numbers are on {', '.join(devices)}: must be on one device, which holds them"
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        return f"{', '.join(broken)}: not finite"
    large = [name for name, tensor in tensors.items() if tensor.numel() and tensor.abs().max() > LARGEST]
    if large:
        return f"{', '.join(large)}: numbers above {LARGEST:g}"
    negative = [name for name, tensor in statistics.items() if (tensor[..., 1, :] < 0).any()]
    return f"statistics of {', '.join(negative)}: a variance below 0" if negative else None


def _dense_names(kind: str, parameters: Any) -> set[str]:
    """Names of the parameters of a dense pool; constants are there or not."""
    norms = {"stem.norm", "layers.norm"} if LAYER_KINDS[kind].normalised else set()
    return {"stem.matrix", "layers.matrix", "head.matrix"} | norms | ({"head.constants"} & set(parameters))


def _dense_shapes(
    kind: str, shapes: Shapes, *, adapt_stem: bool, statistics: bool
) -> tuple[Shapes, list[str], int] | None:
    """The shapes that parameters and statistics of a dense pool must have, which are adapted, and how many layers.

    Args:
        kind: of the layers.
        shapes: those of the pool.
        adapt_stem: whether episodes adapt the stem's matrix.
        statistics: whether there are any.

    Returns:
        None where no shapes would fit.
    """
    layer_kind = LAYER_KINDS[kind]
    if [len(shapes[name]) for name in ("stem.matrix", "layers.matrix", "head.matrix")] != [2, 3, 2]:
        return None
    (inputs, width), layers, outputs = shapes["stem.matrix"], shapes["layers.matrix"][0], shapes["head.matrix"][1]
    constants = shapes.get("head.constants", (1, 0))[-1:]
    outputs += constants[0] if constants else 0
    fitting: Shapes = {
        "stem.matrix": (inputs, width),
        "layers.matrix": (layers, width + 1, width),
        "head.matrix": (width + 1, shapes["head.matrix"][1]),
    }
    if "head.constants" in shapes:
        fitting["head.constants"] = (1, *constants)
    adapted = [name for name in fitting if name != "stem.matrix" or adapt_stem]
    norm_steps = 1
    if layer_kind.normalised:
        by_step = layer_kind.across_points and len(shapes["stem.norm"]) == 3
        norm_steps = shapes["stem.norm"][0] if by_step else 1
        prefix = (norm_steps,) if by_step else ()
        fitting |= {"stem.norm": (*prefix, 2, width), "layers.norm": (*prefix, layers, 2, width)}
        if not by_step:
            adapted += ["stem.norm", "layers.norm"]
        elif statistics:
            expected_statistics = statistics_shapes(width=width, layers=layers, steps=norm_steps)
            fitting |= {f"statistics.{name}": shape for name, shape in expected_statistics.items()}
    if not min(inputs - 1, outputs, width, layers, norm_steps) > 0:
        return None
    return fitting, adapted, layers
