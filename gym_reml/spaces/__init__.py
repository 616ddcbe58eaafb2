"""Action encodings: Gymnasium spaces for the same decision. A new one is a file here and an entry of `ENCODINGS`."""

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
    """An encoding of a decision.

    Args:
        name: "box", "multidiscrete", "discrete" or "hybrid"; any key of `ENCODINGS`.
        decision: what is decided.
        step_bins: number of values that finite encodings offer for each number, evenly spaced in [-1, 1].

    Raises:
        ValueError: an unknown name; the message lists the choices.
    """
    if not isinstance(name, str) or name not in ENCODINGS:
        raise ValueError(f"action={name!r}: must be one of {', '.join(map(repr, ENCODINGS))}")
    return ENCODINGS[name](decision, step_bins=step_bins)
