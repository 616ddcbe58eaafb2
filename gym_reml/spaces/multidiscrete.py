"""The "multidiscrete" encoding: the choices, and a bin for each number."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import ActionEncoding, Generators, only_allowed, read_integers
from gym_reml.spaces.decision import Decided, Masks


class MultiDiscreteEncoding(ActionEncoding):
    """MultiDiscrete([*options of each choice, *step_bins of each number])."""

    name = "multidiscrete"

    def _make_space(self) -> spaces.MultiDiscrete:
        self._limits = [*self.decision.choices, *[self.step_bins] * self.decision.numbers]
        return spaces.MultiDiscrete(self._limits)

    def decode(self, actions: Any, allowed: Masks, *, generators: Generators) -> Decided:
        read = read_integers(actions, (len(generators), len(self._limits)), self._limits)
        count = len(self.decision.choices)
        return Decided(only_allowed(read[:, :count], allowed), self.bins()[read[:, count:]])

    def encode(self, decided: Decided) -> NDArray[np.int64]:
        return np.concatenate([decided.choices, self.nearest_bin(decided.numbers)], axis=1)

    def mask(self, allowed: Masks, count: int) -> NDArray[np.bool_]:
        bins = np.ones((count, self.decision.numbers * self.step_bins), dtype=np.bool_)
        return np.concatenate([*allowed, bins], axis=1)

    def info_mask(self, allowed: Masks, count: int) -> dict[str, NDArray[np.int8]]:
        masks = [mask.astype(np.int8) for mask in allowed]
        masks += [np.ones((count, self.step_bins), dtype=np.int8) for _ in self.decision.number_names]
        return dict(zip(self.decision.names, masks, strict=True))

    def sample_mask(self, mask: dict[str, NDArray[np.int8]]) -> tuple[NDArray[np.int8], ...]:
        return tuple(mask[name] for name in self.decision.names)
