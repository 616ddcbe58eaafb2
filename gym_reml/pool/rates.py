"""Learned step sizes ("rates"): their granularities, the shapes of their tensors, and which of them a network takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from torch import Tensor

from gym_reml.networks.weights import Weights

RATES = ("scalar", "tensor", "step", "weight")
"""Granularities: one number in all; one for each tensor; one for each tensor and step (LSLR, Antoniou et al. 2019); one
for each weight (Meta-SGD, Li et al. 2017)."""

Shapes = dict[str, tuple[int, ...]]


def rate_shapes(granularity: str, adapted: Mapping[str, tuple[int, ...]], *, layers: int, steps: int) -> Shapes:
    """Shapes of the rates of a granularity, by the names of the adapted parameters, from the shapes of these."""
    if granularity == "scalar":
        return {"all": ()}
    if granularity == "weight":
        return dict(adapted)
    prefix = (steps,) if granularity == "step" else ()
    return {name: (*prefix, layers) if name.startswith("layers.") else prefix for name in adapted}


def places(name: str, index: Tensor) -> Iterator[tuple[int, str, Tensor | None]]:
    """Where n networks hold a parameter of the pool.

    Args:
        name: of the parameter, such as "layers.matrix".
        index: (slots, n) int64, which layer each slot holds, from 0.

    Yields:
        Position, name there, and which layers the rows hold at it (n,), or None where all share the tensor.
    """
    part, _, key = name.partition(".")
    if part == "layers":
        for slot, rows in enumerate(index):
            yield slot + 1, key, rows
    else:
        yield (0 if part == "stem" else len(index) + 1), key, None


def gather_rates(
    rates: Mapping[str, Tensor], granularity: str | None, *, adapted: Sequence[str], index: Tensor, clock: Tensor
) -> Weights:
    """The rates of n networks, each broadcastable to the weights that it belongs to.

    Args:
        rates: of the pool.
        granularity: one of RATES.
        adapted: names of the adapted parameters.
        index: (slots, n) int64, which layer each slot holds, from 0.
        clock: (n,) int64, steps already taken; beyond the last step that has rates of its own, these are used.
    """
    count = len(clock)
    found = Weights([{} for _ in range(len(index) + 2)])
    for name in adapted:
        for position, key, rows in places(name, index):
            if granularity == "scalar":
                chosen = rates["all"].expand(count)
            elif granularity == "step":
                rate = rates[name]
                step = clock.clamp_max(len(rate) - 1)
                chosen = rate[step] if rows is None else rate[step, rows]
            else:
                rate = rates[name]
                chosen = rate.expand(count, *rate.shape) if rows is None else rate[rows]
            # Numbers that belong to whole tensors are spread over these.
            found.positions[position][key] = chosen if chosen.ndim > 1 else chosen.reshape(-1, 1, 1)
    return found
