"""TorchRL's environment over the native vector environment."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.envs.registration import EnvSpec
from torchrl.data import Composite, OneHot, TensorSpec
from torchrl.envs import GymWrapper

from gym_reml.checks import check_integer
from gym_reml.envs.common.rows import make_rows
from gym_reml.envs.common.versions import AutoresetMode


class NativeEnv(GymWrapper):
    """TorchRL's `GymWrapper`, which takes actions of several parts from a batch of environments too.

    Observations, rewards, ends and actions are tensors on the environment's device all the way, without numpy.
    """

    @property
    def action_spec(self) -> TensorSpec:
        """The specification of actions; of several parts, a `Composite` of the environment's batch size."""
        return GymWrapper.action_spec.fget(self)

    @action_spec.setter
    def action_spec(self, spec: TensorSpec) -> None:
        if isinstance(spec, Composite):
            # GymWrapper makes it of a Dict space without a batch size, which TorchRL's environments refuse.
            spec.shape = self.batch_size
        GymWrapper.action_spec.fset(self, spec)

    def read_action(self, action: Any) -> Any:
        """Actions as the environment takes them: the same tensors, or indices of one-hot ones."""
        return _indices(self.action_spec, action)

    def read_reward(self, reward: torch.Tensor) -> torch.Tensor:
        """Rewards (num_envs, 1)."""
        return reward.unsqueeze(-1)

    def _replace_reset(self, reset: torch.Tensor, kwargs: dict[str, Any]) -> dict[str, Any]:
        # GymWrapper's own takes numpy's view of the mask, which tensors on an accelerator have not.
        if reset is not None:
            kwargs.setdefault("options", {})["reset_mask"] = reset.view(self.batch_size).cpu().numpy()
        return kwargs


def _indices(spec: TensorSpec, action: Any) -> Any:
    if isinstance(spec, Composite):
        return {name: _indices(spec[name], action[name]) for name in spec.keys()}  # noqa: SIM118  (no dict)
    return spec.to_categorical(action) if isinstance(spec, OneHot) else action


def make_vec_env(
    env_id: str | EnvSpec = "NetBuild-v0",
    num_envs: int = 1,
    *,
    categorical_action_encoding: bool = False,
    **arguments: Any,
) -> NativeEnv:
    """A native vector environment as an environment of TorchRL, with batch size (num_envs,).

    `env.set_seed(s)` seeds row i with s + i. Infos are read by `env.set_info_dict_reader`, as from a `GymWrapper`.

    Args:
        env_id: a registered id, or an `EnvSpec`, whose vector entry point is a `ProcessVectorEnv`.
        num_envs: number of parallel environments.
        categorical_action_encoding: whether discrete actions, or parts of actions, are indices instead of one-hot.
        **arguments: of the environment. Tensors are on its `device`.

    Raises:
        ValueError: an id without such a vector entry point, or an invalid argument.
        TypeError: a function instead of an id, or an unknown argument.
    """
    check_integer("num_envs", num_envs)
    instead = "For any other id, use torchrl.envs.GymEnv"
    env = make_rows(env_id, num_envs, instead=instead, arguments=arguments, mode=AutoresetMode.DISABLED, output="torch")
    # TorchRL copies what is on a device that it knows to that device; on the CPU this is nothing but time.
    device = None if env.device.type == "cpu" else env.device
    return NativeEnv(env, categorical_action_encoding=categorical_action_encoding, device=device)
