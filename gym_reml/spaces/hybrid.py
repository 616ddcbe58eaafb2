"""The native form: a discrete layer and a continuous step side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import (
    ActionEncoding,
    Allowed,
    Generators,
    Layers,
    Steps,
    only_allowed,
    read_integers,
    read_numbers,
)


class HybridEncoding(ActionEncoding):
    """Dict(layer=Discrete(L + 1), step_size=Box(-1, 1, (1,)))."""

    name = "hybrid"

    def _make_space(self) -> spaces.Dict:
        step = spaces.Box(-1.0, 1.0, (1,), np.float32)
        return spaces.Dict({"layer": spaces.Discrete(self.layers + 1), "step_size": step})

    def decode(self, actions: Any, allowed: Allowed, generators: Generators) -> tuple[Layers, Steps]:
        if not isinstance(actions, Mapping) or set(actions) != {"layer", "step_size"}:
            raise ValueError(f"action={actions!r}: must be a dict of 'layer' and 'step_size'")
        layers = read_integers(actions["layer"], (len(generators),), self.layers + 1)
        steps = read_numbers(actions["step_size"], (len(generators), 1))
        return only_allowed(layers, allowed), steps[:, 0]

    def encode(self, layers: Layers, steps: Steps) -> dict[str, NDArray[Any]]:
        column = np.clip(steps, -1.0, 1.0).astype(np.float32)[:, None]
        return {"layer": np.asarray(layers, dtype=np.int64), "step_size": column}
