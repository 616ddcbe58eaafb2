"""What a pool is made of: the shapes that its tensors must have, and what is wrong with one from outside."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool.rates import RATES, Shapes, rate_shapes
from gym_reml.pool.step_norms import statistics_shapes

LARGEST = 1e30
"""No number of a pool is larger: so far below the end of float32 that what grows from it in steps stays below."""


def find_problem(
    *,
    kind: Any,
    parameters: Any,
    rates: Any,
    granularity: Any,
    adapt_stem: Any,
    statistics: Any,
    constant_outputs: Any,
) -> str | None:
    """What is wrong with a pool from outside: types, names, shapes, devices, numbers; None if nothing is."""
    if not isinstance(kind, str) or kind not in LAYER_KINDS:
        return f"layer kind {kind!r} is none of {', '.join(map(repr, LAYER_KINDS))}"
    if not isinstance(adapt_stem, bool):
        return f"adapt_stem is {adapt_stem!r}"
    for part in (parameters, rates, statistics):
        if not isinstance(part, dict) or not all(isinstance(tensor, Tensor) for tensor in part.values()):
            return "parameters, rates and statistics must be tensors by name"
    layer_kind = LAYER_KINDS[kind]
    expected = {"stem", "layers", "head"} | ({"stem_norm", "layers_norm"} if layer_kind.normalised else set())
    if set(parameters) != expected:
        return f"parameters are {', '.join(sorted(map(str, parameters)))} instead of {', '.join(sorted(expected))}"
    tensors = {
        **parameters,
        **{f"rate.{name}": tensor for name, tensor in rates.items()},
        **{f"statistics.{name}": tensor for name, tensor in statistics.items()},
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    misfit = f"shapes {shapes} do not fit together"
    if [len(shapes[name]) for name in ("stem", "layers", "head")] != [2, 3, 2]:
        return misfit
    (inputs, width), layers, outputs = shapes["stem"], shapes["layers"][0], shapes["head"][1]
    fitting: Shapes = {"stem": (inputs, width), "layers": (layers, width + 1, width), "head": (width + 1, outputs)}
    adapted = [name for name in fitting if name != "stem" or adapt_stem]
    norm_steps = 1
    if layer_kind.normalised:
        by_step = layer_kind.across_points and len(shapes["stem_norm"]) == 3
        norm_steps = shapes["stem_norm"][0] if by_step else 1
        prefix = (norm_steps,) if by_step else ()
        fitting |= {"stem_norm": (*prefix, 2, width), "layers_norm": (*prefix, layers, 2, width)}
        if not by_step:
            adapted += ["stem_norm", "layers_norm"]
        elif statistics:
            found = statistics_shapes(width, layers, norm_steps)
            fitting |= {f"statistics.{name}": shape for name, shape in found.items()}
    if granularity is not None or rates:
        if granularity not in RATES:
            return f"granularity of rates is {granularity!r}"
        steps = max((shape[0] for name, shape in shapes.items() if name.startswith("rate.") and shape), default=1)
        found = rate_shapes(granularity, {name: fitting[name] for name in adapted}, layers, steps)
        fitting |= {f"rate.{name}": shape for name, shape in found.items()}
    if shapes != fitting or not min(inputs - 1, outputs, width, layers, norm_steps) > 0:
        return misfit
    if isinstance(constant_outputs, bool) or not isinstance(constant_outputs, int):
        return f"constant_outputs is {constant_outputs!r}"
    if not 0 <= constant_outputs <= outputs:
        return f"constant_outputs is {constant_outputs!r} of {outputs} outputs"
    if {tensor.dtype for tensor in tensors.values()} not in ({torch.float32}, {torch.float64}):
        return "numbers are not of one floating type"
    devices = sorted({str(tensor.device) for tensor in tensors.values()})
    if len(devices) > 1 or "meta" in devices:
        return f"numbers are on {', '.join(devices)}: must be on one device, which holds them"
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        return f"{', '.join(broken)}: not finite"
    large = [name for name, tensor in tensors.items() if tensor.abs().max() > LARGEST]
    if large:
        return f"{', '.join(large)}: numbers above {LARGEST:g}"
    negative = [name for name, tensor in statistics.items() if (tensor[..., 1, :] < 0).any()]
    return f"statistics of {', '.join(negative)}: a variance below 0" if negative else None
