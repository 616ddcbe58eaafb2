"""Results as a line, as a table for notebooks, and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gym_reml.evaluation import Result
from gym_reml.evaluation.results import markdown_table, table
from gym_reml.evaluation.trials import TrialReturns


def result_of(tasks: int = 600, shots: Any = 5, **metrics: Any) -> Result:
    steps = (0, 1, 5, 10)
    values = metrics or {"loss": np.ones((len(steps), tasks))}
    return Result("reml", "sinusoid", shots, 0, steps, values, np.zeros((len(steps), tasks), dtype=np.bool_))


def result_of_trials(values: Any = ((3.0, 5.0),), episodes: tuple[int, ...] = (10,), **changes: Any) -> Result:
    usual: dict[str, Any] = {"metrics": {"return": np.array(values)}, "diverged": None, "axis": "episode"}
    return Result("rl2", "bandit-5", None, 0, episodes, **(usual | changes))


def test_a_result_is_one_line() -> None:
    assert repr(result_of()) == "Result('reml', sinusoid, 5 shots, 600 tasks, steps 0 1 5 10)"
    assert "sinusoid, 3 to 10 shots, 600 tasks" in repr(result_of(shots=(3, 10)))
    assert repr([result_of(shots=1)]) == "[Result('reml', sinusoid, 1 shot, 600 tasks, steps 0 1 5 10)]"


def test_returns_of_trials_are_one_line() -> None:
    episodes = np.arange(2000.0).reshape(200, 10)
    told = repr(TrialReturns(episodes.sum(axis=1), episodes))
    assert told == "TrialReturns(200 trials of 10 episodes, mean return 9995.000)"


@pytest.mark.parametrize("metric", ["mse", "accuracy", "return", None])
def test_notebooks_show_the_table_of_the_familys_metric(metric: str | None) -> None:
    values: dict[str, Any] = {"loss": np.full((4, 3), 0.5)} | ({metric: np.full((4, 3), 0.25)} if metric else {})
    result = result_of(3, **values)
    first, empty, *lines = result._repr_markdown_().splitlines()
    shown = metric or "loss"
    assert first == f"sinusoid, 5 shots, 3 tasks: {shown} on the query set, mean ± 95 % interval over tasks (median)"
    assert (empty, "\n".join(lines)) == ("", table([result], shown))


def test_a_result_of_trials_is_along_episodes() -> None:
    result = result_of_trials()
    assert repr(result) == "Result('rl2', bandit-5, 2 trials, episodes 10)"
    assert (result.summary(10, "return").diverged, result.tasks) == (None, 2)
    first, _, *lines = result._repr_markdown_().splitlines()
    assert first == "bandit-5, 2 trials: return of a whole trial, mean ± 95 % interval over tasks (median)"
    assert [cell.strip() for cell in lines[0].split("|")] == ["", "learner", "10 episodes", ""]
    assert lines[2].startswith("| rl2     | 4.000 ± ")
    assert "| 1 episode " in table([result_of_trials(episodes=(1,))], "return")


def test_results_along_different_axes_do_not_mix() -> None:
    trials, other = result_of_trials(), result_of(2, **{"return": np.ones((4, 2))})
    with pytest.raises(ValueError, match="results: their axes are 'episode', 'step'; a table has one"):
        table([trials, other], "return")
    with pytest.raises(ValueError, match="other: its axis is 'step', not 'episode'"):
        trials.minus(replace(other, family="bandit-5"), 10, metric="return")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": "year"}, "axis='year': must be one of 'step', 'episode'"),
        ({"axis": "step"}, "shots: must be None along episodes, and only there"),
        ({"diverged": np.zeros((1, 2), dtype=np.bool_)}, "diverged: must be None along episodes, and only there"),
    ],
)
def test_a_result_has_what_its_axis_has(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        result_of_trials(**changes)


OLD_STEPS = """{"learner": "reml", "family": "sinusoid", "shots": [3, 5], "seed": 0, "steps": [0, 5], "metrics":
{"loss": [[1.0, "nan"], [0.5, 0.25]], "mse": [[1.0, "inf"], [0.5, 0.25]]}, "diverged": [[false, false], [false, true]],
"arguments": {"split": "test", "queries": 50}, "notes": {}, "fingerprint": "abc"}"""

OLD_TRIALS = """{"learner": "gittins", "family": "bandit-5", "shots": 0, "seed": 0, "steps": [10], "metrics": {"return":
[[6.0, 7.0, 2.0]]}, "diverged": [[false, false, false]], "arguments": {"env": "bandit", "episodes": 10, "arms": 5},
"notes": {}, "fingerprint": ""}"""


@pytest.mark.parametrize(
    ("text", "axis", "shots", "steps", "diverged"),
    [
        (OLD_STEPS, "step", (3, 5), (0, 5), [[False, False], [False, True]]),
        (OLD_TRIALS, "episode", None, (10,), None),
    ],
)
def test_files_from_before_there_was_an_axis_are_read(
    text: str, axis: str, shots: Any, steps: Any, diverged: Any, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text(text, encoding="utf-8")
    result = Result.load(path)
    assert (result.axis, result.shots, result.steps) == (axis, shots, steps)
    assert (None if result.diverged is None else result.diverged.tolist()) == diverged
    result.save(path)
    again = Result.load(path)
    assert (again.axis, again.shots, again.steps, again.arguments) == (axis, shots, steps, result.arguments)
    for name, values in result.metrics.items():
        np.testing.assert_array_equal(again.metrics[name], values)


def test_markdown_tables_hold_any_cell() -> None:
    rows = [["x", "1 | 2"], ["longer", "a\nb"]]
    plain = "| a | b |\n|---|---|\n| x | 1 \\| 2 |\n| longer | a b |"
    assert markdown_table(["a", "b"], rows) == plain
    wide = ["| a      | b      |", "|--------|--------|", "| x      | 1 \\| 2 |", "| longer | a b    |"]
    assert markdown_table(["a", "b"], rows, aligned=True).splitlines() == wide


def test_values_that_are_not_finite_survive_json_that_every_reader_reads(tmp_path: Path) -> None:
    values = np.array([[1.0, np.nan], [np.inf, -np.inf], [0.1, 1e308], [2.0, 3.0]])
    result_of(2, loss=values).save(tmp_path / "a.json")

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)
    np.testing.assert_array_equal(Result.load(tmp_path / "a.json").metrics["loss"], values)


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    result_of(2).save(tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text(encoding="utf-8").replace("[[1.0, 1.0]", "[[NaN, -Infinity]", 1)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    np.testing.assert_array_equal(Result.load(tmp_path / "a.json").metrics["loss"][0], [np.nan, -np.inf])


def test_numbers_of_numpy_are_saved_like_others(tmp_path: Path) -> None:
    result = replace(result_of(2, shots=np.int64(5)), seed=np.int64(3), notes={"scale": np.ones(2, np.float32)})
    result.save(tmp_path / "a.json")
    loaded = Result.load(tmp_path / "a.json")
    assert (loaded.shots, loaded.seed, loaded.notes) == (5, 3, {"scale": [1.0, 1.0]})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: [],
        lambda content: None,
        lambda content: {},
        lambda content: content | {"more": 1},
        lambda content: content | {"steps": 5},
        lambda content: content | {"steps": [0, 1]},
        lambda content: content | {"metrics": {"loss": [[1.0]] * 4}},
        lambda content: content | {"metrics": {"loss": "x"}},
        lambda content: content | {"diverged": [[False]]},
        lambda content: content | {"metrics": [1]},
    ],
)
def test_invalid_results_are_refused(change: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    result_of(2).save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json: damaged result, or none"):
        Result.load(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.json: damaged result, or none"):
        Result.load(path)
