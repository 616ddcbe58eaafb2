"""`NavigationTrial-v0`: find a hidden goal on the plane, then go there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.checks import check_integer
from gym_reml.envs.common.arguments import list_choices
from gym_reml.envs.common.versions import AutoresetMode
from gym_reml.envs.trials.envs import TrialEnv, TrialVectorEnv
from gym_reml.mdp.objective import TrialBudget
from gym_reml.mdp.trial import InnerProcess, Rows
from gym_reml.streams import RowStreams
from gym_reml.tasks.policies.navigation import Navigation
from gym_reml.tasks.policies.point import EPISODE_STEPS, GOAL_RANGE, LARGEST_MOVE, advance


class Points(InnerProcess):
    """n points on the plane, each with a goal; inner episodes start at (0, 0)."""

    name = "navigation"
    action_size = 2

    def __init__(self, count: int, steps: int) -> None:
        """Creates n points, for inner episodes of at most `steps` steps."""
        for argument, value in (("num_envs", count), ("steps", steps)):
            check_integer(argument, value)
        self.count, self.steps = count, steps
        reach = steps * LARGEST_MOVE
        farthest = 2.0**0.5 * (reach + max(map(abs, GOAL_RANGE)))
        self.observation_limits = np.repeat([[-reach], [reach]], 2, axis=1)
        self.reward_limits = (-farthest, 0.0)
        self._goal, self._position = np.zeros((2, count, 2))
        self._clock = np.zeros(count, dtype=np.int64)

    @property
    def tasks(self) -> dict[str, NDArray[Any]]:
        return {"goal": self._goal.copy()}

    def assign(self, rows: Rows, tasks: dict[str, NDArray[Any]]) -> None:
        self._goal[rows] = tasks["goal"]

    def draw(self, rows: Rows, streams: Sequence[RowStreams]) -> None:
        self._goal[rows] = Navigation().draw([stream.task for stream in streams])["goal"]

    def begin(self, rows: Rows) -> None:
        self._position = self._position.copy()
        self._position[rows], self._clock[rows] = 0.0, 0

    def observe(self) -> NDArray[Any]:
        return self._position

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        self._position, reward, reached = advance(self._position, LARGEST_MOVE * actions, self._goal)
        self._clock += 1
        return reward, reached | (self._clock >= self.steps)


class NavigationTrialEnv(TrialEnv):
    """Find a hidden goal on the plane from rewards alone, then go straight to it.

    ## Description

    A trial draws a goal, uniform in [-0.5, 0.5] x [-0.5, 0.5], which is not observed. A point starts every inner
    episode at (0, 0); the reward of a step is minus the distance to the goal. The agent has `episodes` inner episodes:
    in the first it has to find the goal, in the others it may go straight there. The tasks are those of 2D navigation
    in Finn et al. (2017), ["Model-Agnostic Meta-Learning"](https://arxiv.org/abs/1703.03400), section 5.3, and of the
    family `navigation` (with the same seed and split, the same goals), as trials of Duan et al. (2016),
    ["RL²"](https://arxiv.org/abs/1611.02779).

    ## Action space

    `Box(-1, 1, (2,))`: the velocity, in units of 0.1; values outside are clipped.

    ## Observation space

    A `Box` of 6 float32:

    | Part | Size | Meaning |
    |---|---|---|
    | position | 2 | of the point |
    | previous action | 2 | after clipping; 0 at the start of a trial |
    | previous reward | 1 | also during the burn-in; 0 at the start of a trial |
    | previous done | 1 | 1 where an inner episode begins; action and reward are the last of the previous one |

    ## Rewards

    Minus the distance to the goal after the step. In the first `burn_in` inner episodes rewards are 0; the
    true ones are observed.

    ## Starting state

    A newly drawn goal; the point at (0, 0).

    ## Episode end

    An inner episode ends when both coordinates are within 0.01 of the goal's, or after `steps` steps. The trial is
    `terminated` after `episodes` of them; never truncated.

    ## Information

    | Name | Value |
    |---|---|
    | `task` | a dict: `goal` (2,), for evaluation; `reset(options={"task": ...})` takes such a dict |
    | `inner_episode` | number of the inner episode that the step was in, from 0; 0 after a reset |
    | `inner_reward` | the step's reward, also during the burn-in; 0 after a reset |

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `steps` | `100` | steps of an inner episode, at most |
    | `episodes` | `2` | inner episodes of a trial |
    | `burn_in` | `0` | number of first inner episodes without reward |
    | `split` | `"train"` | or `"validation"`, `"test"`, whose tasks are drawn from other random streams |
    | `render_mode` | `None` | `"rgb_array"` or `"ansi"` |

    ## Version history

    * v0: first release.
    """

    @list_choices
    def __init__(
        self,
        render_mode: str | None = None,
        *,
        steps: int = EPISODE_STEPS,
        episodes: int = 2,
        burn_in: int = 0,
        split: str = "train",
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(Points(1, steps), TrialBudget(episodes, burn_in), split=split, render_mode=render_mode)


class NavigationTrialVectorEnv(TrialVectorEnv):
    """The native vector environment of `gym.make_vec("NavigationTrial-v0", num_envs=n)`; see `NavigationTrialEnv`."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        steps: int = EPISODE_STEPS,
        episodes: int = 2,
        burn_in: int = 0,
        split: str = "train",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `NavigationTrialEnv`, and those of every vector environment (see `TrialVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(
            Points(num_envs, steps),
            TrialBudget(episodes, burn_in),
            split=split,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            output=output,
        )
