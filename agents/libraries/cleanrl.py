"""CleanRL: its own scripts, unedited, by the command lines that its users type."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .reached import Reached, held_out_return, run, seconds_of_children

REQUIREMENTS = (
    "gymnasium==0.29.1",
    "numpy==1.26.4",
    "tensorboard==2.21.0",
    "tyro==1.0.17",
    "moviepy==2.2.1",  # for --capture-video
    "pillow==11.3.0",
)
"""The scripts read the infos of this Gymnasium's vector environments."""

REPOSITORY = "https://github.com/vwxyzjn/cleanrl"
"""Where the scripts are cloned from, unless the environment variable CLEANRL_REPOSITORY names another place."""

COMMIT = "fe8d8a03c41a7ef5b523e2e354bd01c363e786bb"

EPISODES = 200
"""Training episodes that a return is the mean of."""

RETURN = re.compile(r"episodic_return=\[?(-?[\d.]+(?:e-?\d+)?)")


class Script(NamedTuple):
    """A script, the id that it trains on, the steps of its run, and what else its command line says."""

    name: str
    env_id: str
    steps: int
    options: str


ON_POLICY = "--learning-rate 1e-3 --num-envs 8 --num-steps 64"
OFF_POLICY = "--learning-rate 1e-3 --learning-starts 500"
Q_LEARNING = f"{OFF_POLICY} --train-frequency 2 --target-network-frequency 200"

SCRIPTS = (
    Script("ppo", "NetBuildDiscrete-v0", 6_144, ON_POLICY),
    Script("pqn", "NetBuildDiscrete-v0", 6_144, "--learning-rate 1e-3 --num-envs 8 --num-steps 16"),
    Script("dqn", "NetBuildDiscrete-v0", 3_000, Q_LEARNING),
    Script("c51", "NetBuildDiscrete-v0", 3_000, f"{Q_LEARNING} --v-min -10 --v-max 0"),
    Script("ppo_continuous_action", "NetBuild-v0", 6_144, f"{ON_POLICY} --num-minibatches 4"),
    Script("rpo_continuous_action", "NetBuild-v0", 6_144, f"{ON_POLICY} --num-minibatches 4"),
    Script("sac_continuous_action", "NetBuild-v0", 2_500, "--learning-starts 500"),
    Script("td3_continuous_action", "NetBuild-v0", 2_500, OFF_POLICY),
    Script("ddpg_continuous_action", "NetBuild-v0", 2_500, OFF_POLICY),
)


def clone(folder: Path) -> Path:
    """Clones CleanRL at `COMMIT` into the folder `cleanrl` of this one, and returns that."""
    place = folder / "cleanrl"
    subprocess.run(["git", "clone", "-q", os.environ.get("CLEANRL_REPOSITORY", REPOSITORY), place], check=True)
    subprocess.run(["git", "-C", place, "-c", "advice.detachedHead=false", "checkout", "-q", COMMIT], check=True)
    return place


def train(script: Script, place: Path, steps: int, seed: int, *options: str) -> list[float]:
    """Runs a script in a clone, and returns the returns of the episodes that it printed.

    Raises:
        RuntimeError: it failed; the message is what it wrote last.
    """
    line = f"cleanrl/{script.name}.py --env-id gym_reml:{script.env_id} --total-timesteps {steps} {script.options}"
    done = subprocess.run(
        [sys.executable, *line.split(), "--seed", str(seed), *options],
        cwd=place,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([".", *filter(None, [os.environ.get("PYTHONPATH")])])},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{line}: {done.stderr[-2000:]}")
    return [float(found) for found in RETURN.findall(done.stdout)]


def main(seed: int = 0, budget: float = 1.0) -> list[Reached]:
    """Trains by CleanRL's own scripts, in a clone of its repository."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        place = clone(Path(name))
        for script in SCRIPTS:
            steps = int(script.steps * budget)
            start = seconds_of_children()
            returns = train(script, place, steps, seed)
            rows.append(
                Reached(
                    library="cleanrl",
                    version=COMMIT[:8],
                    algorithm=script.name,
                    id=script.env_id,
                    face="single",
                    steps=steps,
                    seconds=seconds_of_children() - start,
                    random_return=held_out_return(script.env_id),
                    trained_return=float(np.mean(returns[-EPISODES:])),
                    first_return=float(np.mean(returns[:EPISODES])),
                    note=f"returns of the first and the last {EPISODES} training episodes, with exploration",
                )
            )
    return rows


if __name__ == "__main__":
    run(main)
