"""What older versions of Gymnasium lack: vector environments of their own since 1.0, autoreset modes since 1.1."""

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
            """What becomes of rows that end, in the words of Gymnasium 1.1."""

            NEXT_STEP = "NextStep"
            SAME_STEP = "SameStep"
            DISABLED = "Disabled"

    try:
        from gymnasium.experimental.vector import VectorEnv as VectorEnv  # 0.29, where the other one is older still
    except ImportError:
        from gymnasium.vector import VectorEnv as VectorEnv
