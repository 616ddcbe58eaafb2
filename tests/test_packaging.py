"""Installation: a wheel with the commands, and an editable install that type checkers can read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

import gym_reml
from gym_reml.evaluation.trained import names

ROOT = Path(__file__).resolve().parent.parent
RELEASE = ROOT / ".github" / "workflows" / "release.yml"

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


def test_a_release_needs_tests_and_documentation() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML, which the documentation brings, is not installed")
    jobs = yaml.safe_load(RELEASE.read_text(encoding="utf-8"))["jobs"]
    needed = {
        name: {*([job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", []))}
        for name, job in jobs.items()
    }
    assert set().union(*needed.values()) <= set(jobs)
    assert needed["pypi"] == {"tests", "docs"}
    assert needed["tests"] == {"build"}
    assert jobs["tests"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert {name for name, job in jobs.items() if job.get("permissions", {}).get("id-token")} == {"pages", "pypi"}
    assert jobs["pypi"]["if"] == "startsWith(github.ref, 'refs/tags/v')"
    # No secret is kept: PyPI trusts the workflow.
    assert "secrets." not in RELEASE.read_text(encoding="utf-8")


def test_papers_to_cite_are_those_of_the_references() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    entries = dict(
        re.findall(r"^@\w+\{(.+?),\n(.+?)^\}$", (ROOT / "docs/references.bib").read_text(encoding="utf-8"), re.M | re.S)
    )
    cited = citation.partition("\nreferences:\n")[2].split("  # ")[1:]
    assert {"finn2017maml", "li2017metasgd", "antoniou2019maml++", "duan2016rl2"} <= {
        paper.split()[0] for paper in cited
    }
    for paper in cited:
        entry = entries[paper.split()[0]]
        (title,) = re.findall(r'^    title: "(.+)"', paper, re.M)
        assert title.replace("²", "$^2$") == re.sub(r"[{}]", "", re.findall(r"title = \{(.+)\}", entry)[0])
        assert re.findall(r"arXiv:(.+)", paper) == re.findall(r"eprint = \{(.+)\}", entry)
        assert re.findall(r"year: (.+)", paper) == re.findall(r"year = \{(.+)\}", entry)
        authors = re.findall(r"author = \{(.+)\}", entry)[0].split(" and ")
        assert len(re.findall(r"      - (?:family-names|name): ", paper)) == len(authors)


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
    assert len(list((site / "gym_reml" / "data" / "learners").glob("*/*/learner.pt"))) == len(names())

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


@pytest.mark.slow
def test_a_wheel_alone_brings_what_the_core_needs(tmp_path: Path) -> None:
    """As `pip install gym-reml` does: with its dependencies, without extras, in an environment of its own."""
    done = run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("gym_reml-*.whl")
    place = tmp_path / "venv"
    venv.create(place, with_pip=True)
    scripts = place / ("Scripts" if os.name == "nt" else "bin")
    done = run(scripts / "python", "-m", "pip", "install", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    if "No matching distribution" in done.stderr or "ConnectionError" in done.stderr:
        pytest.skip("the dependencies cannot be downloaded here")
    assert done.returncode == 0, done.stdout + done.stderr

    def said(*command: str) -> str:
        done = run(scripts / command[0], *command[1:], cwd=tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    installed = {package["name"] for package in json.loads(said("python", "-m", "pip", "list", "--format", "json"))}
    assert {"gym-reml", "gymnasium", "torch", "numpy"} <= installed
    assert installed.isdisjoint({"stable-baselines3", "tyro", "rich", "pillow", "matplotlib"})
    assert said("gym-reml", "list").count("-v0") == len(gym_reml.REGISTRATIONS)
    assert "pip install 'gym-reml[agents]' shows them" in said("gym-reml", "info", "NetTune-v0")
    code = "import gymnasium; env = gymnasium.make('gym_reml:NetBuild-v0'); env.reset(seed=0); "
    code += "env.step(env.action_space.sample()); import gym_reml; from gym_reml.evaluation import evaluate; "
    code += "print(evaluate(gym_reml.load('sinusoid/meta_sgd'), 'sinusoid', tasks=20).tasks)"
    assert said("python", "-c", code) == "20\n"
    done = run(scripts / "gym-reml", "train", cwd=tmp_path)
    assert done.stderr.startswith("error: train needs ")
    assert done.stderr.endswith(": pip install 'gym-reml[agents]'\n")
