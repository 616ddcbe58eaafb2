"""An episode of each environment as an animation, for the gallery: `python -m agents.pages.moving_pictures`.

That of `NetBuild-v0` is `agents.animate`'s, with a trained learner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from gym_reml.decisions.augmentations import NAMES
from gym_reml.decisions.update_rules import RULES

from ..runs.command_line import run_command
from ..trials.classical.bandits import Gittins
from ..trials.classical.tabular import BEB, bonus_for
from .animation import write_gif
from .trial_pictures import Player, Searcher

WIDTH = 420  # pixels
MILLISECONDS, LAST_MILLISECONDS = 500, 2500
FRAMES = 24
"""So many frames of an episode are shown at most, evenly spaced."""


class Script:
    """A policy that takes given actions, one after the other and then the last one, whatever it observes."""

    def __init__(self, actions: Sequence[Any]) -> None:
        self._actions = [np.asarray(action) for action in actions]

    def predict(
        self, observation: NDArray[np.float32], state: int | None, episode_start: NDArray[np.bool_]
    ) -> tuple[NDArray[Any], int]:
        """The next action, (1, ...)."""
        step = state or 0
        return self._actions[min(step, len(self._actions) - 1)][None], step + 1


@dataclass(frozen=True)
class Episode:
    """What is shown of an environment: who acts, on which held-out task, with which arguments."""

    player: Player
    seed: int = 0
    arguments: dict[str, Any] = field(default_factory=dict)


AUGMENTATIONS = (
    *(("translate_x", 7, 3), ("translate_y", 7, 3), ("rotate", 8, 6), ("cutout", 5, 7), ("shear_x", 6, 7)),
    *(("brightness", 4, 6), ("rotate", 8, 8), ("translate_x", 8, 4), ("shear_y", 6, 7), ("translate_y", 8, 4)),
)
"""Operations with their probabilities and magnitudes, in tenths."""


def episodes() -> dict[str, Episode]:
    """An episode of each environment but `NetBuild-v0` under a policy written by hand, by id."""
    pulls, inner = 72, 6
    return {
        "NetTune-v0": Episode(Script([[0.4 - 0.025 * step] for step in range(40)])),
        "NetLoss-v0": Episode(Script([[1.0, 0.0, 0.0, 0.5]] * 4 + [[0.0] * 4])),
        "NetRule-v0": Episode(Script(list(RULES["addsign"].choices(3)))),
        "NetAugmentMultiDiscrete-v0": Episode(
            Script([[NAMES.index(name), probability, magnitude] for name, probability, magnitude in AUGMENTATIONS])
        ),
        "BanditTrial-v0": Episode(Gittins(5, pulls), 3, {"arms": 5, "episodes": pulls}),
        "TabularTrial-v0": Episode(BEB(bonus_for("beb", inner)), 0, {"episodes": inner}),
        "NavigationTrial-v0": Episode(Searcher(), 2, {"episodes": 4, "steps": 15}),
    }


@dataclass(frozen=True)
class Config:
    """Draws an episode of each environment but NetBuild-v0 on a held-out task, under policies written by hand."""

    out: Path = Path("docs/_static/environments")
    """folder for a GIF file of each environment"""
    environments: tuple[str, ...] = tuple(episodes())
    """ids of the environments to draw"""


def frames_of(env_id: str, episode: Episode) -> list[NDArray[np.uint8]]:
    """The frames of an episode from its reset to its end, (height, width, 3) each."""
    arguments = {**episode.arguments, "render_mode": "rgb_array"}
    if env_id.endswith("Trial-v0"):
        arguments["split"] = "test"
    else:
        arguments["family_kwargs"] = {"split": "test"}
    envs = gym.make_vec(f"gym_reml:{env_id}", num_envs=1, **arguments)
    observation, _ = envs.reset(seed=episode.seed)
    state, start, ended, frames = None, np.array([True]), False, []
    while True:
        rendered = envs.render()
        assert rendered is not None
        frames.append(np.array(rendered[0], dtype=np.uint8))
        if ended:
            envs.close()
            return frames
        actions, state = episode.player.predict(observation, state, start)
        observation, _, terminated, _, _ = envs.step(actions)
        start, ended = np.array([False]), bool(terminated[0])


def main(config: Config) -> None:
    """Plays the episodes and writes the animations."""
    for env_id in config.environments:
        frames = frames_of(env_id, episodes()[env_id])
        shown = np.unique(np.linspace(0, len(frames) - 1, FRAMES).round().astype(int))
        path = config.out / f"{env_id}.gif"
        milliseconds = [MILLISECONDS] * (len(shown) - 1) + [LAST_MILLISECONDS]
        write_gif(path, [frames[place] for place in shown], milliseconds, width=WIDTH)
        print(f"wrote {len(shown)} frames to {path}")


if __name__ == "__main__":
    run_command(main, Config)
