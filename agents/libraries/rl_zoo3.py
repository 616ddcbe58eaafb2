"""RL Baselines3 Zoo: its own commands, with the hyperparameters of `rl_zoo3.yml`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym

from .reached import Reached, held_out_return, run, seconds_of_children, version_of

REQUIREMENTS = (
    "rl_zoo3==2.9.2",
    "stable-baselines3==2.9.2",
    "sb3-contrib==2.9.2",
    "gymnasium==1.4.0",
    "python-dateutil<4",
    "requests==2.34.2",  # for its command `enjoy`
    "pandas<3",  # for what it writes after a search by Optuna
    "moviepy==2.2.1",  # for videos
    "pillow==11.3.0",
)
"""What its commands import and do not all ask for."""

HYPERPARAMETERS = Path(__file__).with_suffix(".yml")

ALGORITHMS = {
    "NetBuild-v0": "ppo",
    "NetBuildMultiDiscrete-v0": "a2c",
    "NetBuildDiscrete-v0": "dqn",
    "BanditTrial-v0": "ppo_lstm",
}
"""The algorithm that the hyperparameters of each id are for."""


def command(name: str, env_id: str, folder: Path, *options: Any) -> str:
    """Runs `python -m rl_zoo3.<name>` as a user types it, and returns what it printed.

    Args:
        name: "train", "enjoy" or "record_video".
        env_id: one of `ALGORITHMS`.
        folder: where it runs and keeps its files.
        *options: that follow.

    Raises:
        RuntimeError: it failed; the message is what it wrote last.
    """
    line = f"-m rl_zoo3.{name} --algo {ALGORITHMS[env_id]} --env {env_id} -f logs".split()
    if name == "record_video":
        # It has no --gym-packages. All commands import a module of this name, if there is one.
        (folder / "custom_envs.py").write_text("import gym_reml\n", encoding="utf-8")
    else:
        line += ["--gym-packages", "gym_reml"]
    done = subprocess.run(
        [sys.executable, *line, *map(str, options)], cwd=folder, capture_output=True, encoding="utf-8", check=False
    )
    if done.returncode:
        raise RuntimeError(f"rl_zoo3.{name}: {done.stderr[-2000:]}")
    return done.stdout


def policy_of(model: Any) -> Callable[[Any], Any]:
    """The policy of a model for episodes that all begin and end together, without exploration."""
    state: Any = None

    def act(observation: Any) -> Any:
        nonlocal state
        actions, state = model.predict(observation, state, deterministic=True)
        return actions

    return act


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains by rl_zoo3's own commands."""
    import yaml
    from rl_zoo3 import ALGOS

    given = yaml.safe_load(HYPERPARAMETERS.read_text(encoding="utf-8"))
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for env_id, algorithm in ALGORITHMS.items():
            steps, start = int(given[env_id]["n_timesteps"] * budget), seconds_of_children()
            command("train", env_id, folder, "--conf-file", HYPERPARAMETERS, "-n", steps, "--seed", seed)
            seconds = seconds_of_children() - start
            untrained = ALGOS[algorithm](given[env_id]["policy"], gym.make(env_id), seed=seed, device="cpu")
            model = ALGOS[algorithm].load(folder / "logs" / algorithm / f"{env_id}_1" / f"{env_id}.zip", device="cpu")
            rows.append(
                Reached(
                    library="rl_zoo3",
                    version=version_of("rl_zoo3"),
                    algorithm=algorithm,
                    id=env_id,
                    face="single",
                    steps=steps,
                    seconds=seconds,
                    random_return=held_out_return(env_id),
                    trained_return=held_out_return(env_id, policy_of(model)),
                    first_return=held_out_return(env_id, policy_of(untrained)),
                )
            )
    return rows


if __name__ == "__main__":
    run(main)
