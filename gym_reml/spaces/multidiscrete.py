"""Two independent choices: the layer, and a bin of the step."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import ActionEncoding, Allowed, Generators, Layers, Steps, only_allowed, read_integers


class MultiDiscreteEncoding(ActionEncoding):
    """MultiDiscrete([L + 1, step_bins])."""

    name = "multidiscrete"

    def _make_space(self) -> spaces.MultiDiscrete:
        return spaces.MultiDiscrete([self.layers + 1, self.step_bins])

    def decode(self, actions: Any, allowed: Allowed, generators: Generators) -> tuple[Layers, Steps]:
        choices = read_integers(actions, (len(generators), 2), [self.layers + 1, self.step_bins])
        return only_allowed(choices[:, 0], allowed), self.bins()[choices[:, 1]]

    def encode(self, layers: Layers, steps: Steps) -> NDArray[np.int64]:
        return np.stack([np.asarray(layers, dtype=np.int64), self.nearest_bin(steps)], axis=1)

    def mask(self, allowed: Allowed) -> NDArray[np.bool_]:
        return np.concatenate([allowed, np.ones((len(allowed), self.step_bins), dtype=np.bool_)], axis=1)

    def info_mask(self, allowed: Allowed) -> dict[str, NDArray[np.int8]]:
        bins = np.ones((len(allowed), self.step_bins), dtype=np.int8)
        return {"layer": allowed.astype(np.int8), "step_size": bins}

    def sample_mask(self, mask: dict[str, NDArray[np.int8]]) -> tuple[NDArray[np.int8], ...]:
        return tuple(mask.values())
