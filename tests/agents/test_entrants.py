"""Entrants of comparisons: a row is all that it takes, through job, rows, table and plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents import compare
from agents import results as results_command
from agents.comparison.benchmarks import BENCHMARKS
from agents.comparison.entrants import BANDITS, ENTRANTS, SUPERVISED, Entrant, FewShot, OnTrials
from agents.comparison.jobs import Job
from agents.comparison.rows import read_rows
from agents.comparison.summarise import rows_of
from agents.pages import plots
from agents.pages.groups import owner_of
from agents.pages.report import COLOURS
from agents.problems.problem import CLASSIC, Problem
from agents.trials.classical.bandits import RandomArm
from gym_reml.evaluation import MetaLearner
from tests.support.result_rows import line_of


def wide_steps(problem: Problem, folder: Path) -> MetaLearner:
    """Random weights and steps of a tenth."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "note.txt").write_text(f"{problem.tasks} tasks", encoding="utf-8")
    return CLASSIC.learner("fresh", CLASSIC.fresh(problem), 5, 0.1)


MINE = Entrant(wide_steps, controlled=True, compared_with=("scratch", "mine/random_layer"), colour=3)
SMALL: dict[str, Any] = {"shots": 5, "seeds": 2, "tasks": 32, "evaluation_tasks": 4}


def test_a_row_from_outside_is_all_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(SUPERVISED, "mine", MINE)
    drawn: dict[str, int] = {}
    curve = plots._curve

    def watched(axes: Any, group: Any, name: str, place: int) -> Any:
        drawn[name] = place
        return curve(axes, group, name, place)

    monkeypatch.setattr(plots, "_curve", watched)
    compare.main(compare.Config(learners=("scratch", "mine"), run=tmp_path / "run", results=tmp_path, **SMALL))
    assert "| mine | sinusoid | " in capsys.readouterr().out
    job = Job(tmp_path / "run", "sinusoid", 5, "mine", 0, 32, 4)
    assert (job.folder / "training" / "note.txt").read_text(encoding="utf-8") == "32 tasks"
    rows = {(row["learner"], row["step"]): row for row in read_rows(tmp_path / "sinusoid.json")}
    mine = rows["mine", 5]
    assert (mine["seeds"], mine["meta_training_tasks"]) == (2, 32)
    assert set(mine["paired"]) == {"scratch", "mine/random_layer"}
    assert rows["mine/random_layer", 0]["mean"] == pytest.approx(rows["mine", 0]["mean"])
    results_command.main(results_command.Config(tmp_path))
    page = (tmp_path / "index.md").read_text(encoding="utf-8")
    assert line_of(page, "| `mine` minus `scratch`")
    first, controls = page.split("**Controls**")
    assert "\n| `mine` |" in first
    assert "\n| `mine/random_layer` |" in controls
    assert "Adaptation curves of scratch, mine: mse" in page
    assert drawn == {"scratch": 7, "mine": 3}


def test_a_player_of_trials_from_outside_is_a_row_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row: OnTrials = Entrant(
        lambda problem, folder: RandomArm(problem.setting.arms or 0, problem.seed), draws_tasks=False, informed=True
    )
    monkeypatch.setitem(BANDITS, "mine", row)
    compare.main(
        compare.Config(
            "bandits", learners=("mine", "ucb1"), run=tmp_path, results=tmp_path, seeds=2, evaluation_tasks=5
        )
    )
    rows = read_rows(tmp_path / "bandits.json")
    assert len([row for row in rows if row["learner"] == "mine"]) == len(BENCHMARKS["bandits"].variants())
    assert {row["learner"]: row["seeds"] for row in rows} == {"mine": 2, "ucb1": 1}
    results_command.main(results_command.Config(tmp_path))
    page = (tmp_path / "index.md").read_text(encoding="utf-8")
    assert "| `mine` | **" not in page, "it is given the task"
    assert "Means of ucb1, mine as points" in page


def test_an_entrant_that_draws_no_tasks_suits_what_it_is_tested_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def train(problem: Problem, folder: Path) -> MetaLearner:
        seen.append(problem.family.name)
        return wide_steps(problem, folder)

    for draws in (True, False):
        row: FewShot = Entrant(train, draws_tasks=draws)
        monkeypatch.setitem(SUPERVISED, "mine", row)
        seen.clear()
        job = Job(tmp_path / str(draws), "unrelated", 5, "mine", 0, 32, 2)
        job.run()
        assert seen[0] == "mixture"
        assert len(seen) == (1 if draws else 1 + len(BENCHMARKS["unrelated"].tests(5)))
        assert {row["meta_training_tasks"] for row in rows_of([job])} == {32 if draws else 0}


@pytest.mark.parametrize("kind", ENTRANTS)
def test_rows_of_entrants_agree_with_each_other(kind: str) -> None:
    table = ENTRANTS[kind]
    colours = [entrant.colour for entrant in table.values() if entrant.colour is not None]
    assert set(colours) <= set(range(len(COLOURS)))
    for name, entrant in table.items():
        assert (owner_of(name) is not None) == entrant.control
        for other in entrant.compared_with:
            owner = other if other in table else owner_of(other)
            assert owner is not None
            assert table[owner].controlled or other in table, f"{name} is compared with {other}, which nothing makes"


def test_seeds_that_are_all_the_same_are_run_once() -> None:
    jobs = compare.jobs_of(compare.Config("tabular", learners=("beb", "psrl"), seeds=3))
    assert [(job.learner, job.seed) for job in jobs if job.learner == "beb"] == [("beb", 0)] * 3
    assert np.unique([job.seed for job in jobs if job.learner == "psrl"]).tolist() == [0, 1, 2]
