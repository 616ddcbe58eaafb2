"""The "discrete" encoding: one index for all combinations of options and bins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import ActionEncoding, Generators, only_allowed, read_integers
from gym_reml.spaces.decision import Decided, Masks

MOST = 2**17
"""Largest number of actions, as many as the mask of every row has entries."""


class DiscreteEncoding(ActionEncoding):
    """Discrete: the index, in row-major order, of the options of the choices and the bins of the numbers."""

    name = "discrete"

    def _make_space(self) -> spaces.Discrete:
        self._bases = (*self.decision.choices, *[self.step_bins] * self.decision.numbers)
        count = math.prod(self._bases)
        if count > MOST:
            raise ValueError(
                f"action='discrete': {count} combinations are too many, a mask has at most {MOST} entries; use another "
                f"encoding, or fewer than step_bins={self.step_bins}"
            )
        # Not by numpy's unravel_index, which knows no more digits than arrays have dimensions.
        self._radix = np.array(self._bases, dtype=np.int64)
        self._values = np.array([math.prod(self._bases[place:]) for place in range(1, len(self._bases) + 1)])
        return spaces.Discrete(count)

    def decode(self, actions: Any, allowed: Masks, *, generators: Generators) -> Decided:
        numbers = read_integers(actions, (len(generators),), math.prod(self._bases))
        digits = numbers[:, None] // self._values % self._radix
        count = len(self.decision.choices)
        return Decided(only_allowed(digits[:, :count], allowed), self.bins()[digits[:, count:]])

    def encode(self, decided: Decided) -> NDArray[np.int64]:
        digits = np.concatenate([decided.choices, self.nearest_bin(decided.numbers)], axis=1)
        return np.asarray(digits @ self._values, dtype=np.int64)

    def mask(self, allowed: Masks, count: int) -> NDArray[np.bool_]:
        mask = np.ones((count, 1), dtype=np.bool_)
        for options in allowed:
            mask = (mask[:, :, None] & options[:, None, :]).reshape(count, -1)
        return np.repeat(mask, self.step_bins**self.decision.numbers, axis=1)

    def info_mask(self, allowed: Masks, count: int) -> NDArray[np.int8]:
        return self.mask(allowed, count).view(np.int8)
