"""Installation: a wheel with the commands, and an editable install that type checkers can read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

USER = """\
from gym_reml.evaluation import Result

mean: float = Result.load("own.json").summary(5).mean
name: int = Result.load("own.json").learner
"""
"""A user's code, whose last line has a wrong type."""


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "MYPYPATH")}
    return subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=inherited | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


def test_an_editable_install_is_a_path() -> None:
    """An import hook would hide the package from type checkers."""
    try:
        found = metadata.distribution("gym-reml")
    except metadata.PackageNotFoundError:
        pytest.skip("gym-reml is not installed")
    origins = [file.read_text(encoding="utf-8") for file in found.files or () if file.name == "direct_url.json"]
    if not any(json.loads(origin).get("dir_info", {}).get("editable") for origin in origins):
        pytest.skip("gym-reml is not installed in editable mode")
    hooks = [str(file) for file in found.files or () if "finder" in file.name]
    assert hooks == [], "installed by an older build backend: pip install -e . --no-deps"
    paths = [file.read_text(encoding="utf-8").strip() for file in found.files or () if file.suffix == ".pth"]
    assert paths
    assert all((Path(path) / "gym_reml" / "py.typed").is_file() for path in paths)


@pytest.mark.slow
def test_mypy_resolves_an_editable_install(tmp_path: Path) -> None:
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    python = place / ("Scripts" if os.name == "nt" else "bin") / "python"
    done = run(python, "-m", "pip", "install", "--no-deps", "-e", ROOT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "user.py").write_text(USER, encoding="utf-8")
    # numpy and torch are not installed there, and not what is asked about.
    options = ("--strict", "--ignore-missing-imports", "--python-executable", python)
    done = run(sys.executable, "-m", "mypy", *options, "user.py", cwd=tmp_path)
    errors = [line for line in done.stdout.splitlines() if "user.py" in line]
    assert len(errors) == 1, done.stdout
    assert 'user.py:4: error: Incompatible types in assignment (expression has type "str"' in errors[0]


@pytest.mark.slow
def test_a_wheel_gives_every_command_outside_a_checkout(tmp_path: Path) -> None:
    site, here = tmp_path / "site", tmp_path / "empty"
    here.mkdir()
    done = run(sys.executable, "-m", "pip", "install", "--no-deps", "--target", site, ROOT, cwd=here)
    assert done.returncode == 0, done.stdout + done.stderr
    folders = {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")}
    assert folders - {"bin", "__pycache__"} == {"gym_reml", "gym_reml_agents"}
    assert (site / "gym_reml" / "py.typed").is_file()
    assert list((site / "gym_reml" / "data").glob("*.pt"))

    def command(*arguments: str) -> str:
        done = run(sys.executable, "-m", "gym_reml", *arguments, cwd=here, PYTHONPATH=str(site))
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    budget = ("--bootstrap-iterations", "2", "--total-steps", "320", "--n-envs", "16", "--evaluation-tasks", "4")
    assert "python -m gym_reml train --resume run)" in command("train", *budget, "--run", "run")
    assert (here / "run" / "results" / "table.md").is_file()
    assert json.loads((here / "run" / "config.json").read_text(encoding="utf-8"))["commit"] is None
    assert "evaluations" in command("evaluate", "run", "--family", "linear", "--tasks", "4")
    assert "episode.gif" in command("animate", "run/learner", "--episodes", "1")
    # Jobs travel to processes of their own.
    assert "| maml_1 |" in command("compare", "--quick", "--workers", "2", "--shots", "5", "--learners", "maml_1")
    load = "import sys; from gym_reml.evaluation import MetaLearner; print(MetaLearner.load('run/learner').name); "
    load += "print([name for name in sys.modules if name.startswith('agents')])"
    done = run(sys.executable, "-c", load, cwd=here, PYTHONPATH=str(site))
    assert done.stdout.split() == ["reml", "[]"], done.stderr
