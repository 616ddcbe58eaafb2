"""The vector face of trials: a Gymnasium `VectorEnv` over n of them that are computed together."""

from __future__ import annotations

from typing import Any

from gym_reml.envs.bandit_trial import bandit_trials
from gym_reml.envs.navigation_trial import navigation_trials
from gym_reml.envs.rows import RowsVectorEnv
from gym_reml.envs.tabular_trial import tabular_trials
from gym_reml.envs.trial_envs import TrialFace
from gym_reml.envs.versions import AutoresetMode


class TrialVectorEnv(TrialFace, RowsVectorEnv):
    """n trials side by side; reset with seed s it equals n single environments reset with s, s + 1, ..."""

    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        **arguments: Any,
    ) -> None:
        """Takes the arguments of the single environment, and some of its own.

        Args:
            num_envs: n, how many trials run side by side.
            autoreset_mode: "NextStep", "SameStep" or "Disabled", as `gymnasium.vector.SyncVectorEnv`.
            render_mode: None, "rgb_array", "ansi", "rgb_array_list" or "ansi_list".
            max_episode_steps: after how many steps episodes are truncated, as `gym.make` has it; None for never.
            **arguments: those of the single environment.

        Raises:
            ValueError: a value that makes no sense; the message names the argument and the choices.
            TypeError: an argument that does not exist.
        """
        self._open(num_envs, render_mode, arguments)
        self._configure(
            self.trials.action_space, self.trials.observation_space, autoreset_mode, render_mode, max_episode_steps
        )


class BanditTrialVectorEnv(TrialVectorEnv):
    """The native vector environment of `gym.make_vec("BanditTrial-v0", num_envs=n)`; see `BanditTrialEnv`."""

    make = staticmethod(bandit_trials)


class TabularTrialVectorEnv(TrialVectorEnv):
    """The native vector environment of `gym.make_vec("TabularTrial-v0", num_envs=n)`; see `TabularTrialEnv`."""

    make = staticmethod(tabular_trials)


class NavigationTrialVectorEnv(TrialVectorEnv):
    """The native vector environment of `gym.make_vec("NavigationTrial-v0", num_envs=n)`; see `NavigationTrialEnv`."""

    make = staticmethod(navigation_trials)
