"""MAML's locomotion tasks (Finn et al. 2017, section 5.3) on Gymnasium's robots: which way to run, or how fast."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np

from gym_reml.tasks.policies.gymnasium import GymnasiumFamily, Task

LARGEST_VELOCITY = 2.0
"""Of the goals, in metres per second; the smallest is 0."""


class Runner(gym.Wrapper, ABC):
    """A robot that is paid by its task for its velocity; Gymnasium's costs and bonuses stay.

    Attributes:
        goal: the task.
    """

    goal = 1.0

    @abstractmethod
    def pay(self, velocity: float) -> float:
        """For a forward velocity, in metres per second."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The robot's step with the other reward."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        reward = float(reward) - info["reward_forward"] + self.pay(info["x_velocity"])
        return observation, reward, terminated, truncated, info


class DirectionRunner(Runner):
    """`goal` is 1 for forwards or -1 for backwards."""

    def pay(self, velocity: float) -> float:
        """The velocity in the goal's direction."""
        return self.goal * velocity


class VelocityRunner(Runner):
    """`goal` is a velocity."""

    def pay(self, velocity: float) -> float:
        """Minus the distance to the goal."""
        return -abs(velocity - self.goal)


def make_half_cheetah_direction() -> DirectionRunner:
    """One half-cheetah that is told which way to run."""
    return DirectionRunner(_half_cheetah())


def make_half_cheetah_velocity() -> VelocityRunner:
    """One half-cheetah that is told how fast to run."""
    return VelocityRunner(_half_cheetah())


def make_ant_direction() -> DirectionRunner:
    """One ant that is told which way to run."""
    # The authors' 0.5e-2; Gymnasium's 0.5 would make standing still pay more than running, while policies explore.
    # Contact forces are what `use_contact_forces=False` stood for in older versions: neither seen nor paid for.
    return DirectionRunner(
        _robot("Ant-v5", ctrl_cost_weight=0.005, contact_cost_weight=0.0, include_cfrc_ext_in_observation=False)
    )


def draw_direction(generator: np.random.Generator) -> Task:
    """Forwards or backwards, equally likely."""
    return {"direction": float(generator.choice((-1.0, 1.0)))}


def set_direction(env: Any, task: Task) -> None:
    """Writes a task of `draw_direction` into a `DirectionRunner`."""
    env.goal = task["direction"]


def draw_velocity(generator: np.random.Generator) -> Task:
    """Uniform from 0 to LARGEST_VELOCITY."""
    return {"velocity": float(generator.uniform(0.0, LARGEST_VELOCITY))}


def set_velocity(env: Any, task: Task) -> None:
    """Writes a task of `draw_velocity` into a `VelocityRunner`."""
    env.goal = task["velocity"]


@dataclass(frozen=True)
class HalfCheetahDirection(GymnasiumFamily):
    """A half-cheetah is paid ``direction * velocity - 0.05 |action|^2`` (the authors' `HalfCheetahEnvRandDirec`).

    There are two tasks, so train, validation and test differ in their trajectories only.
    """

    name: ClassVar[str] = "half_cheetah_direction"

    steps: int = 200
    return_scale: float = 300.0
    make: Callable[[], gym.Env] = make_half_cheetah_direction
    draw_task: Callable[[np.random.Generator], Task] = draw_direction
    set_task: Callable[[Any, Task], None] = set_direction


@dataclass(frozen=True)
class HalfCheetahVelocity(GymnasiumFamily):
    """A half-cheetah is paid ``-|velocity - goal| - 0.05 |action|^2``, goals from 0 to 2 m/s (`HalfCheetahEnvRand`)."""

    name: ClassVar[str] = "half_cheetah_velocity"

    steps: int = 200
    return_scale: float = 200.0
    make: Callable[[], gym.Env] = make_half_cheetah_velocity
    draw_task: Callable[[np.random.Generator], Task] = draw_velocity
    set_task: Callable[[Any, Task], None] = set_velocity


@dataclass(frozen=True)
class AntDirection(GymnasiumFamily):
    """An ant is paid ``direction * velocity + 1 - 0.005 |action|^2`` until it falls or jumps (`AntEnvRandDirec`).

    The 1 a step for being upright is Gymnasium's; the authors' bonus is 0.05. There are two tasks, as for
    `HalfCheetahDirection`.
    """

    name: ClassVar[str] = "ant_direction"

    steps: int = 200
    return_scale: float = 200.0
    make: Callable[[], gym.Env] = make_ant_direction
    draw_task: Callable[[np.random.Generator], Task] = draw_direction
    set_task: Callable[[Any, Task], None] = set_direction


def _half_cheetah() -> gym.Env:
    # The authors' 1e-1 * 0.5, half of Gymnasium's.
    return _robot("HalfCheetah-v5", ctrl_cost_weight=0.05)


def _robot(name: str, **arguments: Any) -> gym.Env:
    """One of Gymnasium's robots; the family's `steps` are its time limit.

    Raises:
        ImportError: MuJoCo is not there.
    """
    try:
        import mujoco
    except ImportError as error:
        raise ImportError(f'{name} needs MuJoCo: pip install "gym-reml[mujoco]"') from error
    # MuJoCo 4 calls Gymnasium's model of the half-cheetah outdated, at every load: on the terminal, and in a file that
    # it leaves in the working directory.
    messages: list[str] = []
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(messages.append)
    try:
        env = gym.make(name, disable_env_checker=True, max_episode_steps=-1, **arguments)
    finally:
        mujoco.set_mju_user_warning(before)
    for message in messages:
        if "settotalmass" not in message:
            warnings.warn(f"MuJoCo, loading {name}: {message}", stacklevel=2)
    return env
