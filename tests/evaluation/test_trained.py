"""Trained learners of the package: each is what its row says, and loads without what it does not need."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import gym_reml
from agents.comparison.packaged import PACKAGED, row_of
from agents.problems.problem import count_parameters
from gym_reml.evaluation import MetaLearner, trained

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 600_000  # bytes of a file, which everybody downloads who installs the package


def test_every_row_of_the_table_is_there() -> None:
    assert trained.names() == sorted(PACKAGED)


@pytest.mark.parametrize("name", PACKAGED)
def test_a_trained_learner_is_what_its_row_says(name: str) -> None:
    learner, about = gym_reml.load(name), trained.about(name)
    assert isinstance(learner, MetaLearner)
    assert learner.name == name.rpartition("/")[2]
    assert about["command"].endswith(f" --names {name}")
    assert (about["family"], about["shots"]) == PACKAGED[name][:2]
    assert about["parameters"] == count_parameters(learner)
    expected = about["row"]
    found = row_of(learner, about["family"], about["shots"], expected["tasks"])
    assert (found["metric"], found["steps"].keys()) == (expected["metric"], expected["steps"].keys())
    for step, summary in expected["steps"].items():
        # Other processors round in another way.
        assert found["steps"][step] == pytest.approx(summary, rel=1e-3), step


@pytest.mark.parametrize("name", PACKAGED)
def test_files_hold_tensors_and_json_and_are_small(name: str) -> None:
    folder = trained.FOLDER / name
    assert sorted(path.name for path in folder.iterdir()) == ["about.json", "learner.pt"]
    assert (folder / "learner.pt").stat().st_size < LARGEST
    with zipfile.ZipFile(folder / "learner.pt") as archive:
        (pickled,) = [part for part in archive.namelist() if part.endswith("data.pkl")]
        assert b"gym_reml.Learner/2" in archive.read(pickled)
    json.loads((folder / "about.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PACKAGED)
def test_the_page_has_its_row(name: str) -> None:
    page = (ROOT / "docs" / "trained.md").read_text(encoding="utf-8")
    about = trained.about(name)
    (line,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
    assert f"`{about['command']}` | {about['parameters']:,} |" in line
    means = [f"{summary['mean']:.3f} ± {summary['ci95']:.3f}" for summary in about["row"]["steps"].values()]
    assert line.endswith(f" kB | {' | '.join(means)} |")


@pytest.mark.parametrize("name", ["sinusoid/nobody", "", "../learners/sinusoid/reml", "sinusoid"])
def test_a_wrong_name_lists_the_choices(name: str) -> None:
    for function in (gym_reml.load, trained.about):
        with pytest.raises(ValueError, match=r"must be one of 'sinusoid/maml', .*'sinusoid/reml'"):
            function(name)


def test_what_needs_a_library_says_so() -> None:
    code = """
import sys
sys.modules["stable_baselines3"] = None
import gym_reml
print(gym_reml.load("sinusoid/maml").name)
try:
    gym_reml.load("sinusoid/reml")
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines() == ["maml", "PPO needs stable_baselines3: pip install stable-baselines3"]
