"""The "hybrid" encoding: a Dict of discrete choices and continuous numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import (
    ActionEncoding,
    ActionError,
    Generators,
    only_allowed,
    read_integers,
    read_numbers,
)
from gym_reml.spaces.decision import Decided, Masks


class HybridEncoding(ActionEncoding):
    """Dict with a Discrete for each choice and a Box(-1, 1, (1,)) for each number, by name."""

    name = "hybrid"

    def _make_space(self) -> spaces.Dict:
        decision = self.decision
        parts: dict[str, spaces.Space[Any]] = {
            name: spaces.Discrete(options)
            for name, options in zip(decision.choice_names, decision.choices, strict=True)
        }
        parts |= {name: spaces.Box(-1.0, 1.0, (1,), np.float32) for name in decision.number_names}
        return spaces.Dict(parts)

    def decode(self, actions: Any, allowed: Masks, *, generators: Generators) -> Decided:
        decision, count = self.decision, len(generators)
        if not isinstance(actions, Mapping) or set(actions) != set(decision.names):
            *others, last = map(repr, decision.names)
            listed = f"{', '.join(others)} and {last}" if others else last
            raise ActionError(actions, f"must be a dict of {listed}")
        decided = Decided(
            np.empty((count, len(decision.choices)), dtype=np.int64),
            np.empty((count, decision.numbers), dtype=np.float32),
        )
        for name, options in zip(decision.choice_names, decision.choices, strict=True):
            decision.column(decided, name)[:] = read_integers(actions[name], (count,), options, part=f"{name!r} ")
        for name in decision.number_names:
            decision.column(decided, name)[:] = read_numbers(actions[name], (count, 1), part=f"{name!r} ")[:, 0]
        return Decided(only_allowed(decided.choices, allowed), decided.numbers)

    def encode(self, decided: Decided) -> dict[str, NDArray[Any]]:
        decision = self.decision
        actions = {name: decision.column(decided, name).copy() for name in decision.choice_names}
        for name in decision.number_names:
            actions[name] = np.clip(decision.column(decided, name), -1.0, 1.0)[:, None]
        return actions

    def mask(self, allowed: Masks, count: int) -> NDArray[np.bool_]:
        """The masks of all choices, concatenated; numbers have none."""
        return np.concatenate([np.empty((count, 0), dtype=np.bool_), *allowed], axis=1)

    def info_mask(self, allowed: Masks, count: int) -> dict[str, NDArray[np.int8]]:
        return {name: mask.astype(np.int8) for name, mask in zip(self.decision.choice_names, allowed, strict=True)}

    def sample_mask(self, mask: dict[str, NDArray[np.int8]]) -> dict[str, NDArray[np.int8] | None]:
        # `Dict.sample` needs an entry for every part; None leaves a Box unmasked.
        return {name: mask.get(name) for name in self.decision.names}
