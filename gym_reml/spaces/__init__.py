"""Action encodings: the hybrid action written so that different agents can use it. A new one is a file and a row."""

from __future__ import annotations

from gym_reml.spaces.base import ActionEncoding
from gym_reml.spaces.box import BoxEncoding
from gym_reml.spaces.discrete import DiscreteEncoding
from gym_reml.spaces.hybrid import HybridEncoding
from gym_reml.spaces.multidiscrete import MultiDiscreteEncoding

ENCODINGS: dict[str, type[ActionEncoding]] = {
    encoding.name: encoding for encoding in (BoxEncoding, MultiDiscreteEncoding, DiscreteEncoding, HybridEncoding)
}

__all__ = ["ENCODINGS", "ActionEncoding", "make_encoding"]


def make_encoding(name: str, layers: int, step_bins: int) -> ActionEncoding:
    """The encoding of that name, or a ValueError that lists the choices."""
    if not isinstance(name, str) or name not in ENCODINGS:
        raise ValueError(f"action={name!r}: must be one of {', '.join(map(repr, ENCODINGS))}")
    return ENCODINGS[name](layers, step_bins)
