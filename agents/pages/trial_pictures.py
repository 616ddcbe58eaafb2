"""Pictures of trials under good policies: `python -m agents.pages.trial_pictures`."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gym_reml.files import write_file

from ..runs.command_line import run_command
from ..trials.classical.bandits import Gittins
from ..trials.classical.tabular import BEB, bonus_for

ARMS = 5


@dataclass(frozen=True)
class Config:
    """Runs one trial of each kind with hand-written policies, and writes its last frame."""

    out: Path = Path("docs/_static")
    """folder for bandit_trial.png, navigation_trial.png and tabular_trial.png"""
    seeds: tuple[int, int, int] = (3, 2, 0)
    """of the tasks, in this order, which are held-out ones"""
    pulls: int = 100
    """of the bandit"""
    episodes: int = 10
    """inner episodes in the random process"""
    searches: int = 4
    """inner episodes of the search for the goal"""
    search_steps: int = 15
    """steps of such an inner episode, at most"""


class Player(Protocol):
    """A policy with SB3's signature."""

    def predict(
        self, observation: NDArray[np.float32], state: Any, episode_start: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], Any]:
        """Actions (n, ...) and the state for the next call."""
        ...


@dataclass
class Search:
    """The state of a search during a trial.

    Attributes:
        best: (2,) float64, the place of the highest reward so far.
        highest: the reward there.
        heading: the angle of its way, in radians.
        stride: the length of its steps, in units of the largest one.
        searching: whether it has come to the best place of the inner episodes before.
        last: the reward of its last step, if that was part of the search.
        expected: (2,) float64, where its last step led.
    """

    best: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    highest: float = -np.inf
    heading: float = 0.0
    stride: float = 1.0
    searching: bool = True
    last: float = -np.inf
    expected: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))


class Searcher:
    """Searches for the goal of a navigation trial from the best place so far, turning when the reward decreases."""

    turn = 2.0
    shrink = 0.8

    def predict(
        self, observation: NDArray[np.float32], state: Search | None, episode_start: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float64], Search]:
        """The velocity (1, 2)."""
        place, (reward, done) = observation[0, :2].astype(np.float64), observation[0, -2:].tolist()
        if state is None or episode_start[0]:
            state = Search()
        else:
            self._learn(state, reward, done > 0.5)
        towards = (state.best - place) / 0.1
        state.searching |= bool(np.abs(towards).max() < 0.05)
        if state.searching:
            towards = state.stride * np.array([np.cos(state.heading), np.sin(state.heading)])
        velocity = np.clip(towards, -1.0, 1.0)
        state.expected = place + 0.1 * velocity
        return velocity[None], state

    def _learn(self, state: Search, reward: float, done: bool) -> None:
        """Records the last step; at the end of an inner episode, the place that is observed is the next one's."""
        if reward > state.highest:
            state.best, state.highest = state.expected, reward
        if state.searching and reward < state.last:
            state.heading += self.turn
            state.stride = max(0.05, self.shrink * state.stride)
        state.last = reward
        if done:
            state.searching, state.last = False, -np.inf


def picture(env_id: str, player: Player, seed: int, **arguments: Any) -> Image.Image:
    """The end of a trial."""
    envs = gym.make_vec(f"gym_reml:{env_id}", num_envs=1, split="test", render_mode="rgb_array", **arguments)
    observation, _ = envs.reset(seed=seed)
    state, start, ended = None, np.array([True]), False
    while not ended:
        action, state = player.predict(observation, state, start)
        observation, _, terminated, _, _ = envs.step(action)
        start, ended = np.array([False]), bool(terminated[0])
    frames = envs.render()
    envs.close()
    assert frames is not None
    return Image.fromarray(np.asarray(frames[0]))


def main(config: Config) -> None:
    """Runs the trials and writes the pictures."""
    bandit, navigation, tabular = config.seeds
    gittins, beb = Gittins(ARMS, config.pulls), BEB(bonus_for("beb", config.episodes))
    search = {"episodes": config.searches, "steps": config.search_steps}
    pictures = {
        "bandit_trial": picture("BanditTrial-v0", gittins, bandit, arms=ARMS, episodes=config.pulls),
        "navigation_trial": picture("NavigationTrial-v0", Searcher(), navigation, **search),
        "tabular_trial": picture("TabularTrial-v0", beb, tabular, episodes=config.episodes),
    }
    for name, image in pictures.items():
        path = config.out / f"{name}.png"
        write_file(path, partial(image.save, format="png", optimize=True))
        print(f"wrote {path}")


if __name__ == "__main__":
    run_command(main, Config)
