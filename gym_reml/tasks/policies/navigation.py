"""MAML's 2D navigation: reaching a hidden goal (Finn et al. 2017, arXiv:1703.03400, section 5.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from gym_reml.tasks.base import Batch, Forward, Generators, Tasks, uniforms
from gym_reml.tasks.policies.base import PolicyFamily, Trajectories
from gym_reml.tasks.policies.distributions import Gaussian
from gym_reml.tasks.policies.point import EPISODE_STEPS, GOAL_RANGE, LARGEST_MOVE, advance


@dataclass(frozen=True)
class Navigation(PolicyFamily):
    """A point in the plane, with minus its distance to the task's goal as reward; see `gym_reml.tasks.policies.point`.

    The network is a Gaussian policy from the position (2) to mean (2) and log standard deviation (2) of the velocity,
    in units of the largest move, as in the authors' normalised environment.
    """

    name: ClassVar[str] = "navigation"

    steps: int = EPISODE_STEPS
    return_scale: float = 40.0

    @property
    def in_features(self) -> int:
        return 2

    @property
    def distribution(self) -> Gaussian:
        return Gaussian(2)

    def draw(self, generators: Generators) -> Tasks:
        low, high = GOAL_RANGE
        return {"goal": low + (high - low) * uniforms(generators, 2)}

    def rollout(self, tasks: Tasks, forward: Forward, generators: Generators, count: int) -> Trajectories:
        goal = torch.from_numpy(tasks["goal"].astype(np.float32)).unsqueeze(1)
        noise = self.noise(generators, count)
        position = noise.new_zeros(len(goal), count, 2)
        running = torch.ones(len(goal), count, dtype=torch.bool, device="cpu")
        positions, actions, rewards, active = [], [], [], []
        for step in range(self.steps):
            action = self.distribution.sample(forward(position).cpu(), noise[:, :, step])
            positions.append(position)
            actions.append(action)
            active.append(running)
            moved, reward, reached = advance(position, LARGEST_MOVE * action, goal)
            rewards.append(reward * running)
            position = torch.where(running.unsqueeze(2), moved, position)
            running = running & ~reached
        return Trajectories(
            torch.stack(positions, dim=2),
            torch.stack(actions, dim=2),
            torch.stack(rewards, dim=2),
            torch.stack(active, 2),
        )

    def paths(self, tasks: Tasks, batch: Batch, row: int) -> tuple[NDArray[Any], NDArray[Any]]:
        weight, goal = batch.extras["weight"][row], tasks["goal"][row]
        places, actions = (tensor[row].reshape(*weight.shape, 2) for tensor in (batch.inputs, batch.targets))
        arrived, _, _ = advance(places, LARGEST_MOVE * actions, torch.from_numpy(goal))
        arrived = torch.where((weight > 0).unsqueeze(2), arrived, torch.nan)
        return torch.cat([places[:, :1], arrived], dim=1).cpu().numpy(), goal
