"""`TabularTrial-v0`: learn to act in a small random Markov decision process."""

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


class TabularProcesses(InnerProcess):
    """n finite Markov decision processes; inner episodes start in state 0."""

    name = "tabular"

    def __init__(self, count: int, states: int, *, actions: int, steps: int, episodes: int) -> None:
        """Creates n processes, for trials of so many inner episodes of so many steps."""
        sizes = {"num_envs": count, "states": states, "actions": actions, "steps": steps, "episodes": episodes}
        for argument, value in sizes.items():
            check_integer(argument, value)
        self.count, self.actions, self.steps = count, actions, steps
        self.observation_limits = np.repeat([[0.0], [1.0]], states, axis=1)
        self._transitions = np.zeros((count, states, actions, states))
        # The next state is the first whose cumulative probability exceeds the step's uniform number in [0, 1).
        self._cumulative = np.zeros((count, states, actions, states))
        self._uniforms = np.zeros((count, steps * episodes))
        self._rewards = np.zeros((count, states, actions))
        self._noise = np.zeros((count, steps * episodes))
        self._state, self._clock, self._taken = np.zeros((3, count), dtype=np.int64)
        self._every = np.arange(count)

    @property
    def tasks(self) -> dict[str, NDArray[Any]]:
        return {"transitions": self._transitions.copy(), "rewards": self._rewards.copy()}

    def draw(self, rows: Rows, streams: Sequence[RowStreams]) -> None:
        for row, stream in zip(rows.tolist(), streams, strict=True):
            # Exponential variables divided by their sum are Dirichlet(1, ..., 1).
            stream.task.standard_exponential(out=self._transitions[row])
            stream.task.standard_normal(out=self._rewards[row])
            stream.support.random(out=self._uniforms[row])
            stream.support.standard_normal(out=self._noise[row])
        drawn = self._transitions[rows]
        self.assign(
            rows,
            {"transitions": drawn / drawn.sum(axis=-1, keepdims=True), "rewards": self._rewards[rows] + 1.0},
        )
        self._taken[rows] = 0

    def assign(self, rows: Rows, tasks: dict[str, NDArray[Any]]) -> None:
        self._transitions[rows], self._rewards[rows] = tasks["transitions"], tasks["rewards"]
        self._cumulative[rows] = tasks["transitions"].cumsum(axis=-1)

    def check_tasks(self, tasks: dict[str, NDArray[Any]]) -> None:
        transitions = tasks["transitions"]
        if (transitions < 0.0).any() or not np.allclose(transitions.sum(axis=-1), 1.0, rtol=0.0, atol=1e-6):
            raise ValueError("options: task: transitions: must be probabilities that sum to 1 over the next state")

    def begin(self, rows: Rows) -> None:
        self._state[rows], self._clock[rows] = 0, 0

    def observe(self) -> NDArray[Any]:
        one_hot = np.zeros((self.count, self.observation_limits.shape[1]))
        one_hot[self._every, self._state] = 1.0
        return one_hot

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        every, state = self._every, self._state
        step = np.minimum(self._taken, self._uniforms.shape[1] - 1)
        reward = self._rewards[every, state, actions] + self._noise[every, step]
        # The last cumulative probability is left out: rounding may put it below 1.
        passed = self._cumulative[every, state, actions, :-1] <= self._uniforms[every, step][:, None]
        self._state = passed.sum(axis=1)
        self._taken += 1
        self._clock += 1
        return reward, self._clock >= self.steps


class TabularTrialEnv(TrialEnv):
    """Learn to act in a small random Markov decision process.

    ## Description

    A trial draws a finite Markov decision process: for every state and action, the next state's probabilities from
    Dirichlet(1, ..., 1) and a mean reward from Normal(1, 1). Inner episodes start in state 0 and last `steps` steps.
    The agent observes states and rewards, and has `episodes` inner episodes to explore the process and to exploit it.
    These are the random tabular processes of Osband, Russo and Van Roy (2013), ["(More) Efficient
    Reinforcement Learning via Posterior Sampling"](https://arxiv.org/abs/1306.0940), as Duan et al. (2016),
    ["RL²"](https://arxiv.org/abs/1611.02779), section 3.2, use them.

    ## Action space

    `Discrete(actions)`.

    ## Observation space

    A `Box` of `states` + `actions` + 2 float32:

    | Part | Size | Meaning |
    |---|---|---|
    | state | `states` | one-hot |
    | previous action | `actions` | one-hot; action 0 at the start of a trial |
    | previous reward | 1 | clipped to [-20, 20], also during the burn-in; 0 at the start of a trial |
    | previous done | 1 | 1 where an inner episode begins; action and reward are the last of the previous one |

    ## Rewards

    The mean reward of state and action plus noise from Normal(0, 1). In the first `burn_in` inner episodes rewards are
    0; the true ones are observed.

    ## Starting state

    A newly drawn process, in state 0.

    ## Episode end

    `terminated` after `episodes` inner episodes, `steps` * `episodes` steps; never truncated.

    ## Information

    | Name | Value |
    |---|---|
    | `task` | a dict: `transitions` (`states`, `actions`, `states`) and mean `rewards` (`states`, `actions`) |
    | `inner_episode` | number of the inner episode that the step was in, from 0; 0 after a reset |
    | `inner_reward` | the step's reward, also during the burn-in; 0 after a reset |

    `task` is for evaluation; `reset(options={"task": ...})` takes such a dict.

    ## Arguments

    | Argument | Default | Meaning |
    |---|---|---|
    | `states` | `10` | states of a process |
    | `actions` | `5` | actions in each state |
    | `steps` | `10` | steps of an inner episode |
    | `episodes` | `10` | inner episodes of a trial |
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
        states: int = 10,
        actions: int = 5,
        steps: int = 10,
        episodes: int = 10,
        burn_in: int = 0,
        split: str = "train",
    ) -> None:
        """Takes the arguments of the table above.

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(
            TabularProcesses(1, states, actions=actions, steps=steps, episodes=episodes),
            TrialBudget(episodes, burn_in),
            split=split,
            render_mode=render_mode,
        )


class TabularTrialVectorEnv(TrialVectorEnv):
    """The native vector environment of `gym.make_vec("TabularTrial-v0", num_envs=n)`; see `TabularTrialEnv`."""

    @list_choices
    def __init__(
        self,
        num_envs: int = 1,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        *,
        states: int = 10,
        actions: int = 5,
        steps: int = 10,
        episodes: int = 10,
        burn_in: int = 0,
        split: str = "train",
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        output: str = "numpy",
    ) -> None:
        """Takes the arguments of `TabularTrialEnv`, and those of every vector environment (see `TrialVectorEnv`).

        Raises:
            ValueError: an invalid value; the message names the argument and the choices.
            TypeError: an unknown argument; the message lists the choices.
        """
        super().__init__(
            TabularProcesses(num_envs, states, actions=actions, steps=steps, episodes=episodes),
            TrialBudget(episodes, burn_in),
            split=split,
            autoreset_mode=autoreset_mode,
            render_mode=render_mode,
            max_episode_steps=max_episode_steps,
            output=output,
        )
