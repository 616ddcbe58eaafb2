"""MAML's locomotion tasks on Gymnasium's MuJoCo robots: directions or velocities of running.

See Finn et al. 2017, arXiv:1703.03400, section 5.3, and the authors' code (github.com/cbfinn/maml_rl).
"""

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
"""Upper bound of goal velocities, in metres per second; the lower bound is 0."""


class Runner(gym.Wrapper, ABC):
    """A robot whose reward for its velocity depends on the task; Gymnasium's costs and bonuses are kept.

    Attributes:
        goal: parameter of the task.
    """

    goal = 1.0

    @abstractmethod
    def velocity_reward(self, velocity: float) -> float:
        """Reward for a forward velocity in metres per second."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The robot's step, with the reward for its velocity replaced."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        reward = float(reward) - info["reward_forward"] + self.velocity_reward(info["x_velocity"])
        return observation, reward, terminated, truncated, info


class DirectionRunner(Runner):
    """Rewards running in a direction: `goal` is 1 for forward, -1 for backward."""

    def velocity_reward(self, velocity: float) -> float:
        """Velocity in the goal's direction."""
        return self.goal * velocity


class VelocityRunner(Runner):
    """Rewards running at the velocity `goal`."""

    def velocity_reward(self, velocity: float) -> float:
        """Minus the absolute difference to the goal."""
        return -abs(velocity - self.goal)


def make_half_cheetah_direction() -> DirectionRunner:
    """Creates a half-cheetah rewarded for running in a direction."""
    return DirectionRunner(_half_cheetah())


def make_half_cheetah_velocity() -> VelocityRunner:
    """Creates a half-cheetah rewarded for running at a velocity."""
    return VelocityRunner(_half_cheetah())


def make_ant_direction() -> DirectionRunner:
    """Creates an ant rewarded for running in a direction."""
    # Control costs are the authors' 0.5e-2; with Gymnasium's 0.5, standing still has a higher return than running while
    # policies explore. Contact forces are neither observed nor penalised, as with `use_contact_forces=False` in v4.
    return DirectionRunner(
        _robot("Ant-v5", ctrl_cost_weight=0.005, contact_cost_weight=0.0, include_cfrc_ext_in_observation=False)
    )


def draw_direction(generator: np.random.Generator) -> Task:
    """Draws a direction: forward or backward, equally likely."""
    return {"direction": float(generator.choice((-1.0, 1.0)))}


def set_direction(env: Any, task: Task) -> None:
    """Writes a task of `draw_direction` into a `DirectionRunner`."""
    env.goal = task["direction"]


def draw_velocity(generator: np.random.Generator) -> Task:
    """Draws a velocity, uniform from 0 to LARGEST_VELOCITY."""
    return {"velocity": float(generator.uniform(0.0, LARGEST_VELOCITY))}


def set_velocity(env: Any, task: Task) -> None:
    """Writes a task of `draw_velocity` into a `VelocityRunner`."""
    env.goal = task["velocity"]


@dataclass(frozen=True)
class HalfCheetahDirection(GymnasiumFamily):
    """Half-cheetah with reward ``direction * velocity - 0.05 |action|^2`` (the authors' `HalfCheetahEnvRandDirec`).

    There are only two tasks, so train, validation and test differ in their trajectories alone.
    """

    name: ClassVar[str] = "half_cheetah_direction"

    steps: int = 200
    return_scale: float = 300.0
    make: Callable[[], gym.Env] = make_half_cheetah_direction
    draw_task: Callable[[np.random.Generator], Task] = draw_direction
    set_task: Callable[[Any, Task], None] = set_direction


@dataclass(frozen=True)
class HalfCheetahVelocity(GymnasiumFamily):
    """Half-cheetah with reward ``-|velocity - goal| - 0.05 |action|^2``, goals U[0, 2] m/s (`HalfCheetahEnvRand`)."""

    name: ClassVar[str] = "half_cheetah_velocity"

    steps: int = 200
    return_scale: float = 200.0
    make: Callable[[], gym.Env] = make_half_cheetah_velocity
    draw_task: Callable[[np.random.Generator], Task] = draw_velocity
    set_task: Callable[[Any, Task], None] = set_velocity


@dataclass(frozen=True)
class AntDirection(GymnasiumFamily):
    """Ant with reward ``direction * velocity + 1 - 0.005 |action|^2`` until it falls or jumps (`AntEnvRandDirec`).

    The bonus of 1 per step for being upright is Gymnasium's; the authors' is 0.05. There are only two tasks, as in
    `HalfCheetahDirection`.
    """

    name: ClassVar[str] = "ant_direction"

    steps: int = 200
    return_scale: float = 200.0
    make: Callable[[], gym.Env] = make_ant_direction
    draw_task: Callable[[np.random.Generator], Task] = draw_direction
    set_task: Callable[[Any, Task], None] = set_direction


def _half_cheetah() -> gym.Env:
    # The authors' 0.5 * 1e-1, half of Gymnasium's.
    return _robot("HalfCheetah-v5", ctrl_cost_weight=0.05)


def _robot(name: str, **arguments: Any) -> gym.Env:
    """Creates one of Gymnasium's robots without time limit, which is the family's `steps`.

    Raises:
        ImportError: MuJoCo is not installed.
    """
    try:
        import mujoco
    except ImportError as error:
        raise ImportError(f'{name} needs MuJoCo: pip install "gym-reml[mujoco]"') from error
    # MuJoCo 4 warns at every load that Gymnasium's model of the half-cheetah is outdated, on the terminal and in a log
    # file in the working directory.
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
