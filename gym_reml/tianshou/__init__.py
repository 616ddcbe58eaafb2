"""Tianshou: its vector environment over the native ones."""

try:
    from gym_reml.tianshou.vector_env import NativeVectorEnv, make_vec_env
except ModuleNotFoundError as error:
    if error.name != "tianshou":
        raise
    raise ModuleNotFoundError("gym_reml.tianshou needs Tianshou: pip install tianshou", name=error.name) from error

__all__ = ["NativeVectorEnv", "make_vec_env"]
