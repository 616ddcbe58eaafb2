"""One choice among all pairs of layer and step bin."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import ActionEncoding, Allowed, Generators, Layers, Steps, only_allowed, read_integers


class DiscreteEncoding(ActionEncoding):
    """Discrete((L + 1) step_bins); the number is layer * step_bins + bin."""

    name = "discrete"

    def _make_space(self) -> spaces.Discrete:
        return spaces.Discrete((self.layers + 1) * self.step_bins)

    def decode(self, actions: Any, allowed: Allowed, generators: Generators) -> tuple[Layers, Steps]:
        numbers = read_integers(actions, (len(generators),), (self.layers + 1) * self.step_bins)
        layers, bins = np.divmod(numbers, self.step_bins)
        return only_allowed(layers, allowed), self.bins()[bins]

    def encode(self, layers: Layers, steps: Steps) -> NDArray[np.int64]:
        return np.asarray(layers, dtype=np.int64) * self.step_bins + self.nearest_bin(steps)

    def mask(self, allowed: Allowed) -> NDArray[np.bool_]:
        return np.repeat(allowed, self.step_bins, axis=1)

    def info_mask(self, allowed: Allowed) -> NDArray[np.int8]:
        return self.mask(allowed).view(np.int8)
