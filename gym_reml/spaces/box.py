"""A plain Box: a logit for each layer, and the step."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import ActionEncoding, Allowed, Generators, Layers, Steps, read_numbers


class BoxEncoding(ActionEncoding):
    """Box(-1, 1, (L + 2,)): L + 1 logits, of which the largest allowed one is picked, then the step.

    Values outside [-1, 1] are clipped. Ties, which clipping makes common, are broken by the row's generator.
    """

    name = "box"

    def _make_space(self) -> spaces.Box:
        return spaces.Box(-1.0, 1.0, (self.layers + 2,), np.float32)

    def decode(self, actions: Any, allowed: Allowed, generators: Generators) -> tuple[Layers, Steps]:
        values = read_numbers(actions, (len(generators), self.layers + 2))
        logits = np.where(allowed, values[:, :-1], -np.inf)
        best = logits == np.maximum.reduce(logits, axis=1, keepdims=True)
        layers = best.argmax(axis=1)
        if np.count_nonzero(best) > len(best):
            for row in np.flatnonzero(best.sum(axis=1) > 1):
                layers[row] = generators[int(row)].choice(np.flatnonzero(best[row]))
        return layers, values[:, -1]

    def encode(self, layers: Layers, steps: Steps) -> NDArray[np.float32]:
        actions = np.full((len(layers), self.layers + 2), -1.0, dtype=np.float32)
        actions[np.arange(len(layers)), layers] = 1.0
        actions[:, -1] = np.clip(steps, -1.0, 1.0)
        return actions
