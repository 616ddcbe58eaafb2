"""Families of policies in Gymnasium environments whose task can be set by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.tasks.base import Forward, Generators, Tasks
from gym_reml.tasks.policies.base import PolicyFamily, Trajectories
from gym_reml.tasks.policies.distributions import Distribution
from gym_reml.tasks.policies.environments import Environments, action_distribution, executable, observation_size

Task = dict[str, Any]
"""Parameters of one task by name: numbers or arrays."""


@dataclass(frozen=True)
class GymnasiumFamily(PolicyFamily):
    """Policies in a Gymnasium environment whose task can be set. Created by `from_gymnasium`.

    The network's inputs are the flattened observations. For bounded boxes of actions the policy is Gaussian, with
    [-1, 1] mapped to the bounds; the environment gets the clipped action, while log probabilities are of the unclipped
    one, as in the experiments of MAML (Finn et al. 2017, arXiv:1703.03400). For discrete actions it is categorical.

    All trajectories of all rows run in parallel. Action noise and the seeds of the environments come from the rows'
    generators, so rows are independent, except for rounding differences in the networks' outputs that depend on the
    batch size and that chaotic dynamics may amplify.

    Attributes:
        make: creates an environment.
        draw_task: draws one task's parameters.
        set_task: writes them into an environment created by `make`; called before each reset.

    Raises:
        ValueError: an argument that is not callable, or an environment with other spaces.
    """

    name: ClassVar[str] = "gymnasium"

    make: Callable[[], gym.Env] = field(kw_only=True)
    draw_task: Callable[[np.random.Generator], Task] = field(kw_only=True)
    set_task: Callable[[Any, Task], None] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for argument, takes in (("make", ""), ("draw_task", "generator"), ("set_task", "env, task")):
            if not callable(getattr(self, argument)):
                raise ValueError(f"{argument}={getattr(self, argument)!r}: must be callable as {argument}({takes})")
        # Not fields: derived from `make`, and not shared with other families.
        environments = Environments(self.make)
        object.__setattr__(self, "_environments", environments)
        object.__setattr__(self, "_in_features", observation_size(environments.first.observation_space))
        object.__setattr__(self, "_distribution", action_distribution(environments.first.action_space))

    def identity(self) -> dict[str, Any]:
        """What tasks depend on: the environment, not the copies created so far."""
        attributes = {name: value for name, value in super().identity().items() if name != "_environments"}
        env, layers = self.environments.first, []
        while isinstance(env, gym.Wrapper):
            layers.append(type(env))
            env = env.env
        return attributes | {"layers": [*layers, type(env)], "spec": env.spec and (env.spec.id, env.spec.kwargs)}

    @property
    def environments(self) -> Environments:
        """The environments used for rollouts."""
        environments: Environments = self.__dict__["_environments"]
        return environments

    @property
    def in_features(self) -> int:
        size: int = self.__dict__["_in_features"]
        return size

    @property
    def distribution(self) -> Distribution:
        distribution: Distribution = self.__dict__["_distribution"]
        return distribution

    def draw(self, generators: Generators) -> Tasks:
        """Draws one task per generator.

        Raises:
            ValueError: `draw_task` did not return finite numbers by name, or names or shapes differ between tasks.
        """
        drawn = [_read_task(self.draw_task(generator)) for generator in generators]
        shapes = [{name: values.shape for name, values in task.items()} for task in drawn]
        if any(other != shapes[0] for other in shapes):
            raise ValueError(
                f"draw_task: returned names and shapes {shapes[0]}, then {shapes}: must always be the same"
            )
        return {name: np.stack([task[name] for task in drawn]) for name in drawn[0]}

    def rollout(self, tasks: Tasks, forward: Forward, generators: Generators, count: int) -> Trajectories:
        noise = self.noise(generators, count)
        seeds: list[int | None] = [
            int(seed) for generator in generators for seed in generator.integers(2**31, size=count)
        ]
        vector, wrapped = self.environments.side_by_side(len(seeds))
        for number, env in enumerate(wrapped):
            self.set_task(env.env, _task_of_row(tasks, number // count))
        shape = (len(generators), count)
        observation, _ = _finite(vector.reset(seed=seeds)[0], shape)
        running = torch.ones(shape, dtype=torch.bool, device="cpu")
        observations, actions, rewards, active = [], [], [], []
        for step in range(self.steps):
            outputs = forward(observation).cpu()
            action = self.distribution.sample(outputs, noise[:, :, step])
            observations.append(observation)
            actions.append(action)
            active.append(running)
            reward = torch.zeros(shape, dtype=torch.float32, device="cpu")
            if running.any():
                next_observation, step_rewards, _, _, _ = vector.step(
                    executable(wrapped[0].action_space, action.flatten(0, 1))
                )
                observation, finite = _finite(next_observation, shape)
                # A NaN return causes the training step to be refused, whether network or environment produced it.
                finite &= outputs.isfinite().all(dim=2) | ~running
                reward = torch.from_numpy(step_rewards.astype(np.float32)).reshape(shape)
                reward = torch.where(finite, reward, torch.nan)
                running = torch.tensor([not env.over for env in wrapped], device="cpu").reshape(shape)
            rewards.append(reward)
        return Trajectories(
            torch.stack(observations, 2), torch.stack(actions, 2), torch.stack(rewards, 2), torch.stack(active, 2)
        )


def from_gymnasium(
    make: Callable[[], gym.Env],
    draw_task: Callable[[np.random.Generator], Task],
    set_task: Callable[[Any, Task], None],
    **arguments: Any,
) -> GymnasiumFamily:
    """A family of tasks of a Gymnasium environment.

    To pickle environments that use the family, pass module-level functions rather than lambdas.

    Args:
        make: creates a new environment at every call; observations must be a Box, actions a Discrete or a bounded Box.
        draw_task: draws one task's parameters, numbers or arrays by name, from a generator as its only randomness.
        set_task: writes them into an environment created by `make`, as `set_task(env, task)`; a reset follows.
        **arguments: `shots` and `queries` (numbers of trajectories), `split`, `steps` (largest number of steps of a
            trajectory), `discount`, `surrogate`, `return_scale` (typical magnitude of a return).

    Raises:
        ValueError: an argument that is not callable, an environment with other spaces, or invalid arguments.
    """
    return GymnasiumFamily(make=make, draw_task=draw_task, set_task=set_task, **arguments)


def _read_task(task: Any) -> dict[str, NDArray[Any]]:
    message = f"draw_task: returned {task!r}, must return a dict of finite numbers or arrays by name"
    if not isinstance(task, Mapping) or not task:
        raise ValueError(message)
    # Copies, as the next call may overwrite these arrays.
    arrays = {name: np.array(values) for name, values in task.items()}
    for values in arrays.values():
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise ValueError(message)
    return arrays


def _task_of_row(tasks: Tasks, row: int) -> Task:
    """One row's task, as returned by `draw_task`."""
    return {name: values[row].copy() if values.ndim > 1 else values[row].item() for name, values in tasks.items()}


def _finite(observations: NDArray[Any], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Observations (rows, trajectories, size) float32, non-finite values set to 0, and a mask of finite ones."""
    with np.errstate(over="ignore"):
        flat = torch.from_numpy(observations.astype(np.float32).reshape(*shape, -1))
    return flat.nan_to_num(0.0, 0.0, 0.0), flat.isfinite().all(dim=2)
