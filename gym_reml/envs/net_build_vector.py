"""`NetBuild-v0`, many episodes at once."""

from __future__ import annotations

from typing import Any

from gym_reml.envs.setup import check_arguments, make_setup
from gym_reml.envs.vector import TrainingVectorEnv
from gym_reml.envs.versions import AutoresetMode


class NetBuildVectorEnv(TrainingVectorEnv):
    """The native vector environment behind `gym.make_vec("NetBuild-v0", num_envs=n)`; see `NetBuildEnv`."""

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        """Takes the arguments of `NetBuildEnv`, and some of its own.

        Args:
            num_envs: n, how many episodes run side by side.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array", "ansi", "rgb_array_list" or "ansi_list".
            max_episode_steps: after how many steps episodes are truncated, as `gym.make` has it; None for never.
            **arguments: those of `NetBuildEnv`.
        """
        check_arguments(arguments)
        super().__init__(make_setup(num_envs, **arguments), num_envs, autoreset_mode, render_mode, max_episode_steps)
