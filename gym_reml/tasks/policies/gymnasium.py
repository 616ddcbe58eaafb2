"""Families of policies on Gymnasium's environments: whatever has a function that sets the task is one."""

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
"""One task's parameters by name: numbers or arrays."""


@dataclass(frozen=True)
class GymnasiumFamily(PolicyFamily):
    """Policies in a Gymnasium environment whose task can be set. Made by `from_gymnasium`.

    Observations, flat, are the network's inputs. Bounded boxes of actions get a Gaussian policy, in units in which
    [-1, 1] spans the box; the environment gets the action clipped, the log-probability is the unclipped one's (as in
    MAML's experiments). Discrete actions get a categorical policy.

    All trajectories of all rows live side by side. Action noise and the seeds of the environments' resets come from
    the rows' generators, so a row does not depend on its neighbours: exactly so but for the last bits in which
    networks' outputs depend on the size of a batch, which chaotic physics may amplify.

    Attributes:
        make: makes one environment.
        draw_task: draws one task's parameters.
        set_task: writes them into an environment that `make` made; called before each reset.

    Raises:
        ValueError: something that cannot be called, or an environment with other spaces.
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
        # No fields: they follow from `make`, and no other family shares them.
        environments = Environments(self.make)
        object.__setattr__(self, "_environments", environments)
        object.__setattr__(self, "_in_features", observation_size(environments.first.observation_space))
        object.__setattr__(self, "_distribution", action_distribution(environments.first.action_space))

    def identity(self) -> dict[str, Any]:
        """What the tasks depend on: not the environments made so far, but which they are."""
        held = {name: value for name, value in super().identity().items() if name != "_environments"}
        env, layers = self.environments.first, []
        while isinstance(env, gym.Wrapper):
            layers.append(type(env))
            env = env.env
        return held | {"layers": [*layers, type(env)], "spec": env.spec and (env.spec.id, env.spec.kwargs)}

    @property
    def environments(self) -> Environments:
        """Those that rollouts take place in."""
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
            ValueError: `draw_task` gave something else than finite numbers by name, or not the same ones each time.
        """
        drawn = [_read_task(self.draw_task(generator)) for generator in generators]
        shapes = [{name: values.shape for name, values in task.items()} for task in drawn]
        if any(other != shapes[0] for other in shapes):
            raise ValueError(f"draw_task: gave names and shapes {shapes[0]}, then {shapes}: must always be the same")
        return {name: np.stack([task[name] for task in drawn]) for name in drawn[0]}

    def rollout(self, tasks: Tasks, forward: Forward, generators: Generators, count: int) -> Trajectories:
        noise = self.noise(generators, count)
        seeds: list[int | None] = [
            int(seed) for generator in generators for seed in generator.integers(2**31, size=count)
        ]
        vector, made = self.environments.side_by_side(len(seeds))
        for number, env in enumerate(made):
            self.set_task(env.env, _one(tasks, number // count))
        shape = (len(generators), count)
        observation, _ = _sound(vector.reset(seed=seeds)[0], shape)
        alive = torch.ones(shape, dtype=torch.bool, device="cpu")
        observations, actions, rewards, lived = [], [], [], []
        for step in range(self.steps):
            outputs = forward(observation).cpu()
            action = self.distribution.sample(outputs, noise[:, :, step])
            observations.append(observation)
            actions.append(action)
            lived.append(alive)
            reward = torch.zeros(shape, dtype=torch.float32, device="cpu")
            if alive.any():
                seen, paid, _, _, _ = vector.step(executable(made[0].action_space, action.flatten(0, 1)))
                observation, sound = _sound(seen, shape)
                # A return that is not a number has the training step refused, whatever lost its senses.
                sound &= outputs.isfinite().all(dim=2) | ~alive
                reward = torch.from_numpy(paid.astype(np.float32)).reshape(shape)
                reward = torch.where(sound, reward, torch.nan)
                alive = torch.tensor([not env.over for env in made], device="cpu").reshape(shape)
            rewards.append(reward)
        return Trajectories(
            torch.stack(observations, 2), torch.stack(actions, 2), torch.stack(rewards, 2), torch.stack(lived, 2)
        )


def from_gymnasium(
    make: Callable[[], gym.Env],
    draw_task: Callable[[np.random.Generator], Task],
    set_task: Callable[[Any, Task], None],
    **arguments: Any,
) -> GymnasiumFamily:
    """A family of the tasks of a Gymnasium environment.

    Use functions of a module rather than lambdas if the environment around the family shall be pickled.

    Args:
        make: makes one environment, a new one at every call; observations must be a Box, actions a Discrete or a
            bounded Box.
        draw_task: draws one task's parameters, numbers or arrays by name, from a generator and nothing else.
        set_task: writes them into an environment that `make` made, as `set_task(env, task)`; a reset follows.
        **arguments: `shots` and `queries` (trajectories), `split`, `steps` (of the longest trajectory), `discount`,
            `surrogate`, `return_scale` (about the size of a return).

    Raises:
        ValueError: something that cannot be called, an environment with other spaces, or bad arguments.
    """
    return GymnasiumFamily(make=make, draw_task=draw_task, set_task=set_task, **arguments)


def _read_task(task: Any) -> dict[str, NDArray[Any]]:
    wrong = f"draw_task: gave {task!r}, must give a dict of finite numbers or arrays by name"
    if not isinstance(task, Mapping) or not task:
        raise ValueError(wrong)
    # Copies: the next task may be written over this one.
    arrays = {name: np.array(values) for name, values in task.items()}
    for values in arrays.values():
        if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
            raise ValueError(wrong)
    return arrays


def _one(tasks: Tasks, row: int) -> Task:
    """One row's task as `draw_task` gave it."""
    return {name: values[row].copy() if values.ndim > 1 else values[row].item() for name, values in tasks.items()}


def _sound(observations: NDArray[Any], shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Observations (rows, trajectories, size) float32, 0 for what is not finite, and where all of them were."""
    with np.errstate(over="ignore"):
        flat = torch.from_numpy(observations.astype(np.float32).reshape(*shape, -1))
    return flat.nan_to_num(0.0, 0.0, 0.0), flat.isfinite().all(dim=2)
