"""The native form: a discrete layer and a continuous step side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from gym_reml.spaces.base import (
    ActionEncoding,
    ActionError,
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
            raise ActionError(actions, "must be a dict of 'layer' and 'step_size'")
        layers = read_integers(actions["layer"], (len(generators),), self.layers + 1, "'layer' ")
        steps = read_numbers(actions["step_size"], (len(generators), 1), "'step_size' ")
        return only_allowed(layers, allowed), steps[:, 0]

    def encode(self, layers: Layers, steps: Steps) -> dict[str, NDArray[Any]]:
        column = np.clip(steps, -1.0, 1.0).astype(np.float32)[:, None]
        return {"layer": np.asarray(layers, dtype=np.int64), "step_size": column}

    def mask(self, allowed: Allowed) -> NDArray[np.bool_]:
        """Which layers are open, (n, L + 1); steps always are."""
        return allowed

    def info_mask(self, allowed: Allowed) -> dict[str, NDArray[np.int8]]:
        return {"layer": allowed.astype(np.int8)}

    def sample_mask(self, mask: dict[str, NDArray[np.int8]]) -> dict[str, NDArray[np.int8] | None]:
        # A Box is not masked, and must be told so.
        return {"layer": mask["layer"], "step_size": None}
