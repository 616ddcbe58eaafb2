"""Small environments whose tasks can be set, families on them, and reference rollouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.streams import many_streams
from gym_reml.tasks import from_gymnasium, make_family
from gym_reml.tasks.base import Forward
from gym_reml.tasks.policies.base import Trajectories
from gym_reml.tasks.policies.gymnasium import GymnasiumFamily, Task

Step = tuple[NDArray[Any], float, bool, bool, dict[str, Any]]


class Cart(gym.Env):
    """A cart that moves by 0 to 4 metres a step, with reward `wage` per metre; ends at 10 metres."""

    wage = 0.0
    shares = np.ones(2)

    def __init__(self, spread: float = 0.0, sign: float = 1.0) -> None:
        self.spread, self.sign = spread, sign
        self.observation_space = spaces.Box(-np.inf, np.inf, (2, 1), np.float64)
        self.action_space = spaces.Box(0.0, 4.0, (1,), np.float32)
        self.place, self.steps, self.over = 0.0, 0, True

    def _look(self) -> NDArray[Any]:
        return np.array([[self.place], [self.steps * self.shares[1]]])

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[NDArray[Any], Any]:
        super().reset(seed=seed)
        self.place, self.steps, self.over = self.spread * self.np_random.random(), 0, False
        return self._look(), {}

    def step(self, action: NDArray[Any]) -> Step:
        assert not self.over, "stepped after its end"
        assert self.action_space.contains(action)
        self.place += float(action[0])
        self.steps += 1
        self.over = self.place >= 10.0
        return self._look(), self.sign * self.wage * float(action[0]), self.over, False, {"ignored": self.place}


def make_cart() -> Cart:
    return Cart()


def make_spread_cart() -> Cart:
    return Cart(spread=3.0)


def draw_wage(generator: np.random.Generator) -> Task:
    return {"wage": generator.uniform(1.0, 2.0), "shares": generator.dirichlet(np.ones(2))}


def set_wage(env: Cart, task: Task) -> None:
    env.wage, env.shares = task["wage"], task["shares"]


def carts(make: Callable[[], gym.Env] = make_cart, **arguments: Any) -> GymnasiumFamily:
    small: dict[str, Any] = {"shots": 2, "queries": 3, "steps": 7}
    return from_gymnasium(make, draw_wage, set_wage, **(small | arguments))


def make_pole() -> gym.Env:
    return gym.make("CartPole-v1", max_episode_steps=12)


def draw_pole(generator: np.random.Generator) -> Task:
    return {"gravity": generator.uniform(5.0, 15.0), "length": generator.uniform(0.1, 1.0)}


def set_pole(env: gym.Env, task: Task) -> None:
    pole: Any = env.unwrapped
    pole.gravity, pole.length = task["gravity"], task["length"]
    pole.polemass_length = pole.masspole * pole.length


def poles(**arguments: Any) -> GymnasiumFamily:
    return from_gymnasium(make_pole, draw_pole, set_pole, **({"shots": 3, "queries": 3, "steps": 20} | arguments))


def constant(*outputs: float) -> Forward:
    return lambda inputs: torch.tensor(outputs).expand(*inputs.shape[:-1], len(outputs))


def linear(family: GymnasiumFamily) -> Forward:
    """A policy that uses all features, and computes row by row."""
    weights = torch.linspace(-1.0, 1.0, family.in_features * family.out_features)
    weights = weights.reshape(family.in_features, family.out_features)
    return lambda inputs: (inputs.unsqueeze(-1) * weights).sum(dim=-2)


def roll_out(family: GymnasiumFamily, forward: Forward, rows: int = 1, seed: int = 0, count: int = 2) -> Trajectories:
    streams = many_streams(seed, rows, "train")
    tasks = family.draw([row.task for row in streams])
    return family.rollout(tasks, forward, [row.support for row in streams], count)


def same(one: Trajectories, other: Trajectories, rows: slice = slice(None)) -> bool:
    names = ("observations", "actions", "rewards", "active")
    return all(torch.equal(getattr(one, name)[rows], getattr(other, name)) for name in names)


def plain_loop(family: GymnasiumFamily, forward: Forward, seed: int, count: int) -> Trajectories:
    """Trajectories one after the other, by Gymnasium's interface only."""
    (streams,) = many_streams(seed, 1, "train")
    task = family.draw_task(streams.task)
    noise = torch.from_numpy(
        streams.support.standard_normal((count, family.steps, family.distribution.size), dtype=np.float32)
    )
    seeds = streams.support.integers(2**31, size=count)
    parts: list[list[Tensor]] = [[], [], [], []]
    for number in range(count):
        env = family.make()
        family.set_task(env, task)
        observation, _ = env.reset(seed=int(seeds[number]))
        over, space = False, env.action_space
        for step in range(family.steps):
            inputs = torch.from_numpy(np.asarray(observation, np.float32).reshape(1, 1, -1))
            action = family.distribution.sample(forward(inputs), noise[number, step])[0, 0]
            alive, reward = not over, 0.0
            if alive:
                if isinstance(space, spaces.Discrete):
                    decided: Any = int(action.argmax())
                else:
                    assert isinstance(space, spaces.Box)
                    decided = space.low + (np.clip(action.numpy(), -1.0, 1.0) + 1.0) / 2.0 * (space.high - space.low)
                observation, reward, terminated, truncated, _ = env.step(decided)  # type: ignore[assignment]
                over = terminated or truncated
            found = (inputs[0, 0], action, torch.tensor(reward, dtype=torch.float32), torch.tensor(alive))
            for part, values in zip(parts, found, strict=True):
                part.append(values)
    shape = (1, count, family.steps)
    return Trajectories(*(torch.stack(part).reshape(*shape, *part[0].shape) for part in parts))


ROBOTS = ("half_cheetah_direction", "half_cheetah_velocity", "ant_direction")


def robots(name: str) -> GymnasiumFamily:
    family = make_family(name, steps=8)
    assert isinstance(family, GymnasiumFamily)
    return family
