"""The oldest releases that the package runs with: those that pyproject.toml and the documentation name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.envs.test_making import EVERYTHING

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pytest brings it

ROOT = Path(__file__).resolve().parent.parent

OLDEST = {"gymnasium": "0.29.1", "numpy": "1.23.5", "torch": "2.4.0"}
"""Of the package's own dependencies."""

OLDEST_AGENTS = {"stable-baselines3": "2.2.1", "sb3-contrib": "2.2.1"}
"""Of what `gym_reml.sb3` stands on."""

LEARNING = """
from sb3_contrib import RecurrentPPO
from stable_baselines3 import PPO
from gym_reml.evaluation import MetaLearner, evaluate
from gym_reml.sb3 import HybridPolicy, RecurrentHybridPolicy
for algorithm, policy in (PPO, HybridPolicy), (RecurrentPPO, RecurrentHybridPolicy):
    model = algorithm(policy, make_vec_env("NetBuild-v0", n_envs=4, seed=0, learn="maml"), n_steps=5, batch_size=20)
    model.learn(40)
evaluate(MetaLearner.from_sb3(PPO("MlpPolicy", make_vec_env("NetBuild-v0", n_envs=4))), "sinusoid", tasks=4)
"""


def test_the_oldest_releases_are_stated() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(project["dependencies"]) == sorted(f"{name}>={version}" for name, version in OLDEST.items())
    extra = project["optional-dependencies"]["agents"]
    assert {one for one in extra if ">=" in one} == {f"{name}>={version}" for name, version in OLDEST_AGENTS.items()}
    page = (ROOT / "docs/quickstart.md").read_text(encoding="utf-8")
    stated = re.search(r"oldest releases that are tested: (.+?)\.\s", page, re.DOTALL)
    assert stated
    names = {"Gymnasium": "gymnasium", "Stable-Baselines3": "stable-baselines3"}
    found = {names.get(name, name): version for name, version in re.findall(r"([\w-]+)\s([\d.]+\d)", stated[1])}
    assert found == OLDEST | OLDEST_AGENTS


@pytest.mark.slow
@pytest.mark.parametrize("torch", ["of today", "oldest"])
def test_everything_runs_with_the_oldest_releases(torch: str, tmp_path: Path) -> None:
    """The oldest torch only where its CPU build is to be had: the other one is gigabytes."""
    if sys.version_info >= (3, 12):
        pytest.skip("the oldest numpy has no wheel for this Python")
    pins = [f"{name}=={version}" for name, version in (OLDEST | OLDEST_AGENTS).items() if name != "torch"]
    if torch == "oldest":
        pins.append(f"torch=={OLDEST['torch']}+cpu")
        download = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(tmp_path), pins[-1]]
        if subprocess.run(download, capture_output=True, check=False).returncode:
            pytest.skip(f"no CPU build of torch {OLDEST['torch']} in the package index")
    else:
        constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
        pins += [line for line in constraints.splitlines() if line.startswith("torch==")]
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    python = str(place / ("Scripts" if os.name == "nt" else "bin") / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", *pins, "--find-links", str(tmp_path)], check=True)
    command = [python, "-W", "ignore", "-c", EVERYTHING + LEARNING]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout.splitlines()[-1])) == 3
