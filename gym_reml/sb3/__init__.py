"""Stable-Baselines3: a `VecEnv` over the native vector environments, policies with hybrid actions, and a callback.

`HybridPolicy` is for PPO, A2C and TRPO, `RecurrentHybridPolicy` for RecurrentPPO. The latter needs sb3-contrib, which
is imported when the attribute is accessed.
"""

from typing import TYPE_CHECKING, Any

from gym_reml.sb3.callbacks import ChoicesCallback
from gym_reml.sb3.hybrid_policy import HybridPolicy
from gym_reml.sb3.vec_env import NativeVecEnv, make_vec_env

if TYPE_CHECKING:
    from gym_reml.sb3.recurrent_policy import RecurrentHybridPolicy

__all__ = ["ChoicesCallback", "HybridPolicy", "NativeVecEnv", "RecurrentHybridPolicy", "make_vec_env"]


if not TYPE_CHECKING:  # type checkers would accept any attribute of a module with this function

    def __getattr__(name: str) -> Any:
        if name != "RecurrentHybridPolicy":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            from gym_reml.sb3.recurrent_policy import RecurrentHybridPolicy
        except ImportError as error:
            raise ImportError("RecurrentHybridPolicy needs sb3-contrib: pip install sb3-contrib") from error
        return RecurrentHybridPolicy
