"""The settings of tuned methods, and the command that compares them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from agents import tune
from agents.comparison.entrants import SUPERVISED
from agents.comparison.grids import GRIDS, JUDGED, score
from agents.pages.attempts import merge_attempts, read_attempts
from agents.problems.recipes import FUNCTIONS

ROOT = Path(__file__).resolve().parents[2]
ATTEMPTS = {attempt["title"]: attempt for attempt in read_attempts(ROOT / "docs/results/attempts.json")}


def quick(folder: Path, **changes: object) -> tune.Config:
    return replace(tune.Config(("maml",), tasks=64, validation_tasks=3, run=folder), **changes)  # type: ignore[arg-type]


def test_settings_are_compared_by_the_geometric_mean() -> None:
    assert score([0.4, 0.02, 0.01]) == pytest.approx((0.4 * 0.02 * 0.01) ** (1 / 3))
    assert score([0.5, 0.5]) == pytest.approx(0.5)


def test_all_methods_have_as_many_settings() -> None:
    assert {len(grid.settings) for grid in GRIDS.values()} == {8}
    assert all(grid.chosen in grid.settings for grid in GRIDS.values())


@pytest.mark.parametrize("method", GRIDS)
def test_the_best_setting_on_validation_tasks_was_chosen(method: str) -> None:
    """By the numbers that are committed, of which the first three are the errors.

    REML's recipe is older than its grid, and the second best there: an advantage of the rivals.
    """
    figures = ATTEMPTS[f"Settings of `{method}`"]["figures"]
    assert {figure["what"] for figure in figures} == set(GRIDS[method].settings)
    scores = {figure["what"]: score(_errors(figure["value"])) for figure in figures}
    best = sorted(scores, key=scores.__getitem__)
    assert GRIDS[method].chosen == best[1 if method == "reml" else 0]


def _errors(value: str) -> list[float]:
    errors = [float(number) for number in value.partition("(")[0].split("/")]
    assert len(errors) == len(JUDGED)
    return errors


def test_the_recipe_is_the_chosen_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `agents.train` does by default is what was chosen by the same procedure as the baselines' settings."""
    trained = []
    monkeypatch.setattr("agents.comparison.grids.Reml.train", lambda self: trained.append(self.problem.recipe))
    problem = tune.Problem(tune.make_family("sinusoid"), FUNCTIONS, FUNCTIONS.tasks, 0)
    GRIDS["reml"].best(problem, tmp_path / "run")
    assert trained == [FUNCTIONS]


def test_tuned_entrants_have_the_chosen_settings() -> None:
    for method in GRIDS.keys() - {"reml"}:
        assert SUPERVISED[f"{method}_tuned"].train is GRIDS[method].best


def test_a_run_compares_all_settings_and_is_continued(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = dict(list(GRIDS["maml"].settings.items())[:2])
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tune.GRIDS, "maml", replace(GRIDS["maml"], settings=few))
        tune.main(quick(tmp_path / "run", results=tmp_path))
        shown = capsys.readouterr().out
        assert "2 of 2 runs left" in shown
        (section,) = read_attempts(tmp_path / "attempts.json")
        assert [figure["what"] for figure in section["figures"]] == sorted(
            few, key=lambda name: score(_found(tmp_path / "run", name))
        )
        assert section["found"] == f"Best: {section['figures'][0]['what']}."
        tune.main(quick(tmp_path / "run"))
        assert "0 of 2 runs left" in capsys.readouterr().out


def _found(run: Path, setting: str) -> list[float]:
    (path,) = (path for path in run.rglob("found-3.json") if path.parent.name == setting)
    means: list[float] = json.loads(path.read_text(encoding="utf-8"))["means"]
    return means


def test_sections_are_merged_by_title(tmp_path: Path) -> None:
    path = tmp_path / "attempts.json"
    about = {"question": "?", "tried": "x", "found": "y", "figures": []}
    merge_attempts(path, [{"title": "a", **about}, {"title": "b", **about}])
    merge_attempts(path, [{"title": "c", **about}, {"title": "a", **about, "found": "z"}])
    assert [(one["title"], one["found"]) for one in read_attempts(path)] == [("a", "z"), ("b", "y"), ("c", "y")]
