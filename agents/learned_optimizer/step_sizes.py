"""An agent that sets the step size of Adam on the same problems: learning to optimise as a Markov decision process.

The counterpart of `NetTune` for problems without labels: a decision sets the step size for some minibatches, and the
reward is what they gained in log10 of the loss, so the return is the measure that learned optimizers are compared by.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor

from gym_reml.evaluation import Policy

from ..tuning.training import FILE, TuningAgent, TuningRecipe, learn, load
from .descent import DIVERGED, FLOOR, Descent, Fixed, described, losses_and_gradients
from .problems import PROBLEMS, ProblemFamily, Problems

UPDATES, HORIZON = 10, 20
"""Minibatches of a decision, and decisions of an episode, which together are as long as runs in meta-training."""
OPTIMIZER, RANGE = "adam", (1e-4, 10.0)
"""What the agent sets the step size of, and the range that its actions stand for, on a logarithmic scale."""
FEATURES = 7
LARGEST = 10.0
"""Observations are clipped to this."""


class Runs:
    """n problems of a kind under Adam, whose step sizes are set from outside.

    Attributes:
        problems: the problems.
        decisions: how many step sizes were set.
    """

    def __init__(self, problems: Problems) -> None:
        """At the start, no step taken."""
        self.problems, self.decisions = problems, 0
        self._parameters = problems.start
        self._state = Fixed(OPTIMIZER, torch.ones(1)).initial(problems.kind.layout, len(problems))
        self._first = problems.loss(problems.start, problems.everything)
        self._gradient = torch.zeros_like(problems.start)
        self._features = torch.zeros(len(problems), FEATURES)
        loss, gradient = losses_and_gradients(problems, problems.start)
        self._first_norm = gradient.norm(dim=1)
        self._notice(loss, gradient, torch.zeros(len(problems)), torch.zeros(len(problems)))

    @property
    def observation(self) -> NDArray[np.float32]:
        """(n, FEATURES): see `_notice`."""
        return self._features.nan_to_num(0.0).clamp(-LARGEST, LARGEST).numpy()

    def _notice(self, loss: Tensor, gradient: Tensor, alignment: Tensor, place: Tensor) -> None:
        """The mean loss and gradient norm relative to the first, change, alignment, last action, size and time."""
        relative = torch.log10(loss / self._first + FLOOR)
        norms = torch.log10(gradient.norm(dim=1) / (self._first_norm + 1e-12) + FLOOR)
        size = torch.full_like(loss, math.log10(self.problems.kind.layout.count) / 2.0)
        time = torch.full_like(loss, min(1.0, self.decisions / HORIZON))
        change = relative - self._features[:, 0]
        self._features = torch.stack([relative, change, norms, alignment, place, size, time], dim=1)

    def ratio(self) -> Tensor:
        """The losses on all points relative to the first, (n,)."""
        return self.problems.loss(self._parameters, self.problems.everything) / self._first

    @torch.no_grad()
    def advance(self, places: Tensor) -> None:
        """Trains by UPDATES minibatches with the step sizes at these places (n,) in [-1, 1]."""
        low, high = map(math.log, RANGE)
        method = Fixed(OPTIMIZER, torch.exp(low + (places + 1.0) / 2.0 * (high - low)))
        losses, alignment = torch.zeros_like(places), torch.zeros_like(places)
        for _ in range(UPDATES):
            loss, gradient = losses_and_gradients(self.problems, self._parameters)
            change, self._state = method(gradient, self._parameters, self._state, self.problems.kind.layout)
            self._parameters = self._parameters + change
            losses += loss / UPDATES
            alignment += torch.cosine_similarity(gradient, self._gradient, dim=1) / UPDATES
            self._gradient = gradient
        self.decisions += 1
        self._notice(losses, self._gradient, alignment, places)


class StepSizeEnvs(VecEnv):
    """The problems of several families as environments of Stable-Baselines3, as many rows of each family.

    Action: `Box(-1, 1, (1,))`, the step size on a logarithmic scale. Observation: `Box(-10, 10, (7,))`, see `Runs`.
    Reward: the fall of log10(loss / first loss), which counts as 1 where a run has diverged. Episodes end after HORIZON
    decisions.
    """

    def __init__(self, families: Sequence[ProblemFamily], rows: int) -> None:
        """With `rows` problems of each family at a time."""
        self.render_mode = None
        box = spaces.Box(-LARGEST, LARGEST, (FEATURES,))
        super().__init__(len(families) * rows, box, spaces.Box(-1.0, 1.0, (1,)))
        self._families, self._rows, self._next = families, rows, 0
        self._runs: list[Runs] = []
        self._before = np.zeros(self.num_envs)
        self._places = torch.zeros(self.num_envs)

    def seed(self, seed: int | None = None) -> list[int | None]:
        """The next reset draws the problems of this seed and those after it."""
        self._next = seed or 0
        return [seed] * self.num_envs

    def reset(self) -> NDArray[np.float32]:
        """New problems in all rows."""
        self._runs = [Runs(kind.drawn(self._next, self._rows, "train")) for kind in self._families]
        self._next += self._rows
        self._before = self._log_ratio()
        return self._observation()

    def _observation(self) -> NDArray[np.float32]:
        return np.concatenate([runs.observation for runs in self._runs])

    def _log_ratio(self) -> NDArray[np.float64]:
        ratio = torch.cat([runs.ratio() for runs in self._runs]).nan_to_num(DIVERGED).clamp(max=DIVERGED)
        return torch.log10(ratio + FLOOR).double().numpy()

    def step_async(self, actions: NDArray[np.float32]) -> None:
        """Takes the actions (rows, 1)."""
        self._places = torch.from_numpy(np.clip(actions[:, 0], -1.0, 1.0).astype(np.float32))

    def step_wait(self) -> Any:
        """Trains on, and resets all rows when the episodes end."""
        for runs, places in zip(self._runs, self._places.split(self._rows), strict=True):
            runs.advance(places)
        now = self._log_ratio()
        rewards, self._before = (self._before - now).astype(np.float32), now
        observation = self._observation()
        ended = self._runs[0].decisions == HORIZON
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        if ended:
            for info, last in zip(infos, observation, strict=True):
                info["terminal_observation"] = last
            observation = self.reset()
        return observation, rewards, np.full(self.num_envs, ended), infos

    def close(self) -> None:
        """Nothing is open."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The same for all rows."""
        return [getattr(self, attr_name) for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Sets it for all rows."""
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not available: rows are no objects."""
        raise NotImplementedError(f"env_method: no row has a method {method_name!r}")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No row is."""
        return [False for _ in self._get_indices(indices)]


def train_agent(
    recipe: TuningRecipe, *, seed: int, folder: Path, families: Mapping[str, ProblemFamily] = PROBLEMS
) -> TuningAgent:
    """Trains PPO on the families that are not held out, or loads the agent in the folder."""
    setting = {"families": [name for name, kind in families.items() if not kind.held_out]}
    if not (folder / FILE).is_file():
        trained = [kind for kind in families.values() if not kind.held_out]
        envs = StepSizeEnvs(trained, max(1, recipe.n_envs // len(trained)))
        learn(envs, HORIZON, recipe, seed=seed, folder=folder, setting=setting)
    return load(folder, setting)


@torch.no_grad()
def descend_by(policy: Policy, problems: Problems, steps: Iterable[int]) -> Descent:
    """Runs a policy at the step size on every problem, as `descent.descend` runs optimizers.

    Raises:
        ValueError: numbers of steps that are not whole decisions.
    """
    wanted, runs, ratios = list(steps), Runs(problems), []
    if any(step % UPDATES for step in wanted):
        raise ValueError(f"steps={wanted}: must be multiples of the {UPDATES} minibatches of a decision")
    for decision in range(1, wanted[-1] // UPDATES + 1):
        action, _ = policy.predict(runs.observation, deterministic=True)
        runs.advance(torch.from_numpy(np.clip(action[:, 0], -1.0, 1.0).astype(np.float32)))
        if decision * UPDATES in wanted:
            ratios.append(runs.ratio())
    return described(ratios)
