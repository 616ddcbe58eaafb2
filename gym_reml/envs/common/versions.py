"""Compatibility with older versions of Gymnasium: `VectorEnv` before 1.0, and `AutoresetMode` before 1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gymnasium.vector import AutoresetMode as AutoresetMode
    from gymnasium.vector import VectorEnv as VectorEnv
else:
    try:
        from gymnasium.vector import AutoresetMode as AutoresetMode
    except ImportError:
        from enum import Enum

        class AutoresetMode(Enum):
            """How rows that end are reset; equal to Gymnasium 1.1's."""

            NEXT_STEP = "NextStep"
            SAME_STEP = "SameStep"
            DISABLED = "Disabled"

    try:
        from gymnasium.experimental.vector import (
            VectorEnv as VectorEnv,
        )  # of 0.29, whose gymnasium.vector.VectorEnv has the older interface
    except ImportError:
        from gymnasium.vector import VectorEnv as VectorEnv
