"""Action encodings: a decision written so that different agents can take it. A new one is a file and a row."""

from __future__ import annotations

from gym_reml.spaces.base import ActionEncoding
from gym_reml.spaces.box import BoxEncoding, DecisionBox
from gym_reml.spaces.decision import Decided, Decision, layer_and_step
from gym_reml.spaces.discrete import DiscreteEncoding
from gym_reml.spaces.hybrid import HybridEncoding
from gym_reml.spaces.multidiscrete import MultiDiscreteEncoding

ENCODINGS: dict[str, type[ActionEncoding]] = {
    encoding.name: encoding for encoding in (BoxEncoding, MultiDiscreteEncoding, DiscreteEncoding, HybridEncoding)
}

__all__ = [
    "ENCODINGS",
    "ActionEncoding",
    "Decided",
    "Decision",
    "DecisionBox",
    "layer_and_step",
    "make_encoding",
]


def make_encoding(name: str, decision: Decision, *, step_bins: int = 13) -> ActionEncoding:
    """The encoding of that name, or a ValueError that lists the choices."""
    if not isinstance(name, str) or name not in ENCODINGS:
        raise ValueError(f"action={name!r}: must be one of {', '.join(map(repr, ENCODINGS))}")
    return ENCODINGS[name](decision, step_bins=step_bins)
