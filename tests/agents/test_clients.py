"""Libraries that are used by their own command lines and data sets: RL Baselines3 Zoo, CleanRL, Minari."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import gym_reml
from agents.libraries import cleanrl, rl_zoo3
from agents.libraries.environments import environment, programs

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs/libraries"

SCRIPT = """\
import sys
import helper
print("global_step=4, episodic_return=[-1.5]")
print("global_step=9, episodic_return=[-2.5e-05], and more", helper.NAME, *sys.argv[1:])
sys.exit("stopped" if "--fail" in sys.argv else 0)
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a repository that is laid out as CleanRL's, at a commit that is not its last."""

    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", str(origin), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    origin = tmp_path / "origin"
    (origin / "cleanrl").mkdir(parents=True)
    git("init", "-q")
    (origin / "cleanrl" / "ppo.py").write_text(SCRIPT, encoding="utf-8")
    (origin / "helper.py").write_text("NAME = 1\n", encoding="utf-8")
    git("add", "-A")
    git("commit", "-qm", "first")
    monkeypatch.setattr(cleanrl, "COMMIT", git("rev-parse", "HEAD"))
    (origin / "helper.py").unlink()
    git("commit", "-qam", "second")
    monkeypatch.setenv("CLEANRL_REPOSITORY", str(origin))
    return cleanrl.clone(tmp_path)


def test_scripts_run_at_the_named_commit_and_their_returns_are_read(place: Path) -> None:
    script = cleanrl.Script("ppo", "NetBuild-v0", 100, "--num-envs 8")
    assert cleanrl.train(script, place, 50, 3) == [-1.5, -2.5e-05]
    with pytest.raises(RuntimeError, match="--total-timesteps 50 --num-envs 8: stopped"):
        cleanrl.train(script, place, 50, 3, "--fail")


def test_hyperparameters_are_of_the_ids_that_are_trained() -> None:
    yaml = pytest.importorskip("yaml")
    given: dict[str, dict[str, Any]] = yaml.safe_load(rl_zoo3.HYPERPARAMETERS.read_text(encoding="utf-8"))
    assert list(given) == list(rl_zoo3.ALGORITHMS)
    algorithms = re.findall(r"^([\w-]+): # (\w+)$", rl_zoo3.HYPERPARAMETERS.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(algorithms) == rl_zoo3.ALGORITHMS
    for env_id in [*given, *(script.env_id for script in cleanrl.SCRIPTS)]:
        assert env_id in gym_reml.REGISTRATIONS


def test_pages_have_the_command_lines_that_are_run() -> None:
    """Each on one line, once the line breaks of the page are undone."""
    page = (PAGES / "cleanrl.md").read_text(encoding="utf-8").replace("\\\n", " ")
    shown = [" ".join(line.split()) for line in re.findall(r"^python (cleanrl/.+)$", page, re.MULTILINE)]
    run = [
        f"cleanrl/{one.name}.py --env-id gym_reml:{one.env_id} --total-timesteps {one.steps} {one.options}"
        for one in cleanrl.SCRIPTS
    ]
    assert len(shown) == 2
    assert set(shown) <= set(run)
    assert f"git checkout {cleanrl.COMMIT[:8]}" in page
    assert f"pip install {' '.join(one for one in cleanrl.REQUIREMENTS[:2])} " in page
    page = (PAGES / "rl_zoo3.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"python -m rl_zoo3\.(\w+) --algo (\w+) --env ([\w-]+) ", page)
    assert {name for name, *_ in commands} == {"train", "enjoy", "record_video"}
    for _, algorithm, env_id in commands:
        assert rl_zoo3.ALGORITHMS[env_id] == algorithm


ZOO = """\
import sys
from pathlib import Path
from agents.libraries.rl_zoo3 import HYPERPARAMETERS, command
folder, hyperparameters = Path(sys.argv[1]), ("--conf-file", HYPERPARAMETERS)
command("train", "NetBuild-v0", folder, *hyperparameters, "-n", 512)
print(command("enjoy", "NetBuild-v0", folder, "--no-render", "-n", 50))
command("record_video", "NetBuild-v0", folder, "-n", 10)
command("train", "NetBuildDiscrete-v0", folder, *hyperparameters, "-n", 600, "--optimize", "--n-trials", 1)
"""


@pytest.mark.slow
def test_zoo_commands_and_data_sets_in_environments_of_their_own(tmp_path: Path) -> None:
    """Training, playing, filming and searching by rl_zoo3's commands; d3rlpy on what Minari recorded."""
    reachable = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(tmp_path), "rl_zoo3"]
    if subprocess.run(reachable, capture_output=True, check=False).returncode:
        pytest.skip("the Python package index is not reachable")

    def run(name: str, *arguments: str) -> str:
        python = environment(programs()[name], tmp_path / name, tmp_path / f"{name}.log")
        return subprocess.run(
            [str(python), *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        ).stdout

    folder = tmp_path / "zoo"
    folder.mkdir()
    assert "Mean reward" in run("rl_zoo3", "-c", ZOO, str(folder))
    assert list(folder.rglob("*.zip"))
    assert list(folder.rglob("*.mp4"))
    assert list(folder.rglob("report_NetBuildDiscrete-v0*"))
    assert '"library": "d3rlpy"' in run("minari", "-m", "agents.libraries.minari", "--budget", "0.05")
