"""How agents are built for what there is to decide: which layers come next, or how far to step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gym_reml.sb3.hybrid_policy import ReadParts as ReadParts

HYBRID = ("PPO", "A2C", "TRPO", "RecurrentPPO")
"""Algorithms that the exact hybrid policies are for."""


@dataclass(frozen=True)
class Design:
    """How an agent is built, whatever the algorithm.

    Attributes:
        hybrid: whether algorithms that can take the exact hybrid policy, in the box encoding.
        parts: of the observation that the agent reads; () for all of it.
        settings: over the usual ones, where the algorithm has such a setting.
    """

    hybrid: bool = False
    parts: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


DESIGNS = {
    "layers": Design(),
    "steps": Design(
        hybrid=True,
        # Hundreds of features are about gradients and activations. Few episodes do not suffice to learn to ignore them.
        parts=("task", "loss", "gradient_norms", "progress", "last_action"),
        settings={"n_steps": 4, "n_epochs": 10, "ent_coef": 0.0},
    ),
}
"""The designs by the name that recipes use: for choosing layers, and for choosing steps by few episodes."""

CAREFUL = -1.0
"""Log deviation of an untrained step: less than a fifth of its range, around the neutral step."""


def places(parts: Mapping[str, slice], names: tuple[str, ...]) -> tuple[int, ...]:
    """The indices of the named parts in flat observations."""
    return tuple(place for name in names for place in range(parts[name].start, parts[name].stop))
