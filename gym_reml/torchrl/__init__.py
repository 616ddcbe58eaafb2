"""TorchRL: `GymWrapper` over the native vector environments."""

try:
    from gym_reml.torchrl.native_env import NativeEnv, make_vec_env
except ModuleNotFoundError as error:
    if error.name != "torchrl":
        raise
    raise ModuleNotFoundError("gym_reml.torchrl needs TorchRL: pip install torchrl", name=error.name) from error

__all__ = ["NativeEnv", "make_vec_env"]
