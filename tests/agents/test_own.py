"""Learners and benchmarks of the user's own in the comparison: the page's example, other kinds, and what is wrong."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from agents import compare
from agents.comparison.benchmarks import benchmark_of
from agents.comparison.jobs import Job
from agents.comparison.rows import Row, read_rows
from tests.support.command_line import stop_of

PAGE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"

MORE = """
from dataclasses import replace

from agents.comparison.benchmarks import BENCHMARKS
from agents.comparison.entrants import Entrant
from agents.trials.rl2.recipes import Setting
from gym_reml.tasks import make_family

bandit = replace(BENCHMARKS["bandits"], file="mine.json", trained=(Setting("bandit", 10, 5),))
spread = from_function(ripple, {"height": (0.5, 2), "frequency": (0.5, 2)}, shots=(2, 4))
number = 3
calls = []

class First:
    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.zeros(len(observation), dtype=np.int64), state

def first_arm(problem, folder):
    return First()

fixed = Entrant(first_arm, draws_tasks=False, seeded=False)

def nothing(problem, folder):
    return None
"""

SMALL = ("--quick", "--seeds", "2", "--tasks", "64", "--evaluation-tasks", "4")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the page's module, and more; it is no part of Python's path."""
    page = PAGE.read_text(encoding="utf-8").partition("## A row of your own in the tables")[2]
    (code,) = re.findall(r"^```python\n(# my_module\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_module.py").write_text(code + MORE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    return tmp_path


def rows_after(monkeypatch: pytest.MonkeyPatch, file: str, *arguments: str) -> dict[tuple[str, int], Row]:
    """The rows that the command leaves in a file of its run directory."""
    monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
    compare.run_command(compare.main, compare.Config)
    return {(row["learner"], row["step"]): row for row in read_rows(Path("runs/compare") / file)}


def test_the_pages_commands_make_rows(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = "my_module:wide_maml"
    rows = rows_after(monkeypatch, "sinusoid.json", *SMALL, "--shots", "5", "--learners", mine, "maml_1")
    row = rows[mine, 5]
    assert (row["seeds"], row["tasks"], row["meta_training_tasks"]) == (2, 4, 64)
    assert row["parameters"] == 80 * 2 + 81 * 80 + 81 + 3
    assert set(row["paired"]) == {"maml_1"}
    assert row["paired"]["maml_1"]["difference"] == pytest.approx(row["mean"] - rows["maml_1", 5]["mean"])
    assert f"--learners {mine} " in row["command"]
    ours = rows_after(
        monkeypatch, "my_module-ripples.json", *SMALL, "--family", "my_module:ripples", "--learners", mine, "scratch"
    )
    row = ours[mine, 10]
    assert (row["family"], row["shots"], row["metric"], row["tasks"]) == ("formula", 10, "mse", 4)
    assert {learner for learner, _ in ours} == {mine, "scratch"}
    assert "--family my_module:ripples --shots 10 " in row["command"]


def test_entrants_and_benchmarks_keep_what_they_say(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_after(
        monkeypatch,
        "mine.json",
        *(*SMALL, "--family", "my_module:bandit"),
        *("--learners", "my_module:first_arm", "my_module:fixed", "random"),
    )
    # The arm is the same whatever the seed, and the trials too.
    assert {learner: row["seeds"] for (learner, _), row in rows.items()} == {
        "random": 2,
        "my_module:first_arm": 2,
        "my_module:fixed": 1,
    }
    assert rows["my_module:first_arm", 10]["mean"] == rows["my_module:fixed", 10]["mean"]
    assert "random" in rows["my_module:first_arm", 10]["paired"]
    assert "paired" not in rows["my_module:fixed", 10]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learners", "nowhere:x"], "--learners nowhere:x: no module 'nowhere'"),
        (["--learners", "my_module:x"], "--learners my_module:x: my_module has no 'x'; entrants there: fixed"),
        (["--learners", "my_module:number"], "3 is no Entrant, and no function that trains a learner"),
        (["--learners", "my_module:First"], "is no Entrant, and no function that trains a learner"),
        (["--learners", "my_module:"], "must be MODULE:NAME"),
        (["--learners", "nobody"], "--learners nobody: not for 'sinusoid'; choices: scratch, .*, or MODULE:LEARNER"),
        (["--family", "my_module:x"], "my_module has no 'x'; benchmarks there: bandit"),
        (["--family", "my_module:number"], "3 is no TaskFamily"),
        (["--family", "my_module:spread"], r"has shots=\(2, 4\); a benchmark needs one number"),
        (["--family", "sinusoids"], "'sinusoids': must be one of all, sinusoid, .*, or MODULE:FAMILY"),
        (
            ["--family", "my_module:ripples", "--learners", "ucb1"],
            "not for 'my_module:ripples'; choices: scratch, .*, or MODULE",
        ),
    ],
)
def test_what_is_wrong_is_named_before_anything_runs(
    own: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, shown = stop_of("compare", [*SMALL, *arguments], monkeypatch, capsys)
    said = " ".join(f"{code} {shown}".replace("│", " ").split())
    assert re.search(message, said), said
    assert not (own / "runs").exists()


def test_what_is_no_learner_is_said_in_the_log(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(Path("runs"), "sinusoid", 5, "my_module:nothing", 0, 64, 4)
    with pytest.raises(ValueError, match="must return a MetaLearner or an Ensemble, found None"):
        job.run()
    assert job.folder.parent.name == "my_module-nothing"


def test_files_of_a_run_directory_name_no_code(own: Path) -> None:
    """A finished job may say that it has found results of any name."""
    asked = compare.Config("my_module:bandit", learners=("random",), run=own / "runs", seeds=1, evaluation_tasks=4)
    (job,) = compare.jobs_of(asked)
    job.run()
    (own / "sent.py").write_text(f"open({str(own / 'was_here')!r}, 'w')\n", encoding="utf-8")
    for test in benchmark_of(job.benchmark).tests(job.variant):
        job._result_path("sent:make", test).write_bytes(job._result_path("random", test).read_bytes())
    summary = job.summary | {"names": ["random", "sent:make"]}
    job.summary_path.write_text(json.dumps(summary), encoding="utf-8")
    rows = compare.rows_of(job.finished_like_it())
    assert {row["learner"] for row in rows} == {"random", "sent:make"}
    assert np.isfinite([row["mean"] for row in rows]).all()
    assert not (own / "was_here").exists()
