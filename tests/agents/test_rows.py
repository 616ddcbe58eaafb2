"""Rows of the result tables: their numbers, and the files that hold them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from agents.comparison.rows import (
    FIELDS,
    KEY,
    PER_TASK,
    Row,
    key_of,
    make_row,
    merge_rows,
    paired,
    read_per_task,
    read_rows,
)
from agents.comparison.statistics import two_way_half_width
from gym_reml.evaluation import Result

ABOUT: dict[str, Any] = {
    "learner": "maml_5",
    "family": "sinusoid",
    "meta_training_tasks": 640,
    "inner_gradients": 3200,
    "environment_steps": 0,
    "parameters": 1762,
    "seconds": 1.5,
    "command": "python -m agents.compare",
    "commit": "abc",
    "versions": {"python": "3.11"},
}


def result(values: list[float], diverged: int = 0, **other: list[float]) -> Result:
    """What one seed found after step 5; after step 0 everything is -1."""
    refused = np.zeros((2, len(values)), dtype=np.bool_)
    refused[1, :diverged] = True
    metrics = {"mse": values, **other}
    both = {name: np.array([[-1.0] * len(numbers), numbers]) for name, numbers in metrics.items()}
    return Result("x", "sinusoid", 10, 0, (0, 5), both, refused)


SEEDS = [result([1.0, 2.0, 6.0, 3.0], 1), result([2.0, 4.0, 6.0, 8.0]), result([0.0, 0.0, 3.0, 1.0], 2)]
"""Means 3, 5 and 1; medians 2.5, 5 and 0.5; means over seeds of each task 1, 2, 5 and 4."""


def whole(learner: str = "maml_5", step: int = 5) -> Row:
    return make_row(SEEDS, step, "mse", ABOUT | {"learner": learner})


def row(learner: str = "maml_5", step: int = 5, **changes: Any) -> Row:
    """As it stands in the JSON."""
    return {name: value for name, value in whole(learner, step).items() if name != PER_TASK} | changes


# -- numbers --------------------------------------------------------------------------------------------------------


def test_a_row_holds_what_was_computed_by_hand() -> None:
    found = row()
    assert (found["mean"], found["seeds"], found["tasks"]) == (3.0, 3, 4)
    assert found["per_seed"] == [3.0, 5.0, 1.0]
    assert found["median"] == pytest.approx(8 / 3)
    # The means differ by 2: their standard deviation is 2, and t(0.975; 2) is 4.3027.
    assert found["ci95_seeds"] == pytest.approx(4.302653 * 2 / 3**0.5, rel=1e-6)
    # Squared standard errors: 4 / 3 over seeds, 10 / 3 / 4 over tasks; their sum has 3.83 degrees of freedom, at which
    # the interval is narrower than at 2 for the seeds alone.
    assert stats.t.ppf(0.975, 3.8235) * (13 / 6) ** 0.5 < found["ci95_seeds"]
    assert found["ci95"] == found["ci95_seeds"]
    assert found["ci95_tasks"] == pytest.approx(1.96 * np.std([1, 2, 5, 4], ddof=1) / 2)
    assert found["diverged"] == pytest.approx((1 / 4 + 0 + 2 / 4) / 3)
    assert (found["shots"], found["step"], found["metric"]) == (10, 5, "mse")
    assert found.items() >= ABOUT.items()
    assert row(step=0)["mean"] == -1.0


def test_one_seed_has_no_interval_over_seeds() -> None:
    found = make_row(SEEDS[:1], 5, "mse", ABOUT)
    assert (found["ci95"], found["ci95_seeds"]) == (None, None)
    assert found["ci95_tasks"] == pytest.approx(1.96 * np.std([1, 2, 6, 3], ddof=1) / 2)


def test_rows_are_of_the_metric_that_was_asked_for() -> None:
    seeds = [result([9.0, 9.0], accuracy=[0.5, 1.0]), result([9.0, 9.0], accuracy=[0.75, 0.25])]
    found = make_row(seeds, 5, "accuracy", ABOUT)
    assert (found["mean"], found["metric"]) == (0.625, "accuracy")
    with pytest.raises(ValueError, match="metric='loss'"):
        make_row(seeds, 5, "loss", ABOUT)


def test_every_row_has_all_fields_in_their_order_and_further_ones_behind() -> None:
    found = make_row(SEEDS, 5, "mse", {"split": "heldout", **ABOUT})
    assert tuple(found) == (*FIELDS, "split", PER_TASK)
    with pytest.raises(KeyError):
        make_row(SEEDS, 5, "mse", {"learner": "x"})


def test_paired_differences_are_taken_task_by_task() -> None:
    others = [result([0.0, 2.0, 5.0, 1.0]), result([2.0, 4.0, 6.0, 8.0]), result([4.0, 4.0, 3.0, 5.0])]
    # Differences: (1, 0, 1, 2), (0, 0, 0, 0), (-4, -4, 0, -4); of seeds 1, 0, -3; of tasks -1, -4/3, 1/3, -2/3.
    found = paired(SEEDS, others, 5, "mse")
    assert found["difference"] == pytest.approx(-2 / 3)
    assert found["median"] == pytest.approx((1 + 0 - 4) / 3)
    assert found["per_seed"] == [1.0, 0.0, -3.0]
    assert found["ci95_seeds"] == pytest.approx(4.302653 * np.std([1, 0, -3], ddof=1) / 3**0.5, rel=1e-6)
    assert found["ci95"] == two_way_half_width([1.0, 0.0, -3.0], [-1.0, -4 / 3, 1 / 3, -2 / 3])
    assert found["ci95_tasks"] == pytest.approx(1.96 * np.std([-1, -4 / 3, 1 / 3, -2 / 3], ddof=1) / 2)
    assert found["lower"] == pytest.approx(3 / 12)
    assert paired(SEEDS[:1], others[:1], 5, "mse")["ci95"] is None
    widths = dict.fromkeys(("ci95", "ci95_seeds", "ci95_tasks"), 0.0)
    none = {"difference": 0.0, "median": 0.0, **widths, "per_seed": [0.0] * 3, "lower": 0.0}
    assert paired(SEEDS, SEEDS, 5, "mse") == none
    with pytest.raises(ValueError, match="zip"):
        paired(SEEDS, others[:2], 5, "mse")


# -- files ----------------------------------------------------------------------------------------------------------


def test_rows_replace_those_of_their_key_and_keep_the_others(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "rows.json"
    assert read_rows(path) == []
    first = [row("a"), row("b"), row("b", step=0)]
    assert merge_rows(path, first) == read_rows(path) == first
    newer = [row("b", mean=7.0, seconds=9.0), row("c")]
    expected = [first[0], newer[0], first[2], newer[1]]
    assert merge_rows(path, newer) == read_rows(path) == expected
    assert merge_rows(path, []) == expected
    assert len({key_of(each) for each in expected}) == len(expected)


def test_a_row_that_stays_loses_its_differences_to_rows_that_do_not(tmp_path: Path) -> None:
    """They were of other trainings, maybe of other seeds."""
    path = tmp_path / "rows.json"
    found: Row = {"difference": 1.0}
    first = [row("a", paired={"b": found, "c": found}), row("a", step=0, paired={"b": found}), row("b"), row("c")]
    merge_rows(path, first)
    assert merge_rows(path, [row("a", mean=2.0, paired={"b": found}), row("c")])[0]["paired"] == {"b": found}
    merge_rows(path, first)
    (kept, other, *_) = merge_rows(path, [row("b")])
    assert (kept["paired"], other) == ({"c": found}, first[1])
    assert "paired" not in merge_rows(path, [row("c")])[0]


@pytest.mark.parametrize("name", KEY)
def test_every_part_of_the_key_tells_rows_apart(name: str, tmp_path: Path) -> None:
    other = row() | {name: "heldout" if name == "split" else 77}
    assert len(merge_rows(tmp_path / "rows.json", [row(), other])) == 2
    assert key_of(row()) != key_of(other)


@pytest.mark.parametrize("name", sorted(set(FIELDS) - set(KEY)))
def test_nothing_else_tells_rows_apart(name: str, tmp_path: Path) -> None:
    other = row() | {name: 77}
    assert merge_rows(tmp_path / "rows.json", [row(), other]) == [other]


def test_rows_stand_by_family_and_shots_and_else_as_they_came(tmp_path: Path) -> None:
    def names(rows: list[Row]) -> list[tuple[str, str]]:
        return [(each["learner"], each["family"]) for each in rows]

    path = tmp_path / "rows.json"
    merge_rows(path, [row("z", family="b"), row("y", family="a"), row("x", family="b"), row("w", family="a")])
    found = merge_rows(path, [row("v", family="a"), row("z", family="b", mean=0.0)])
    assert names(found) == [("y", "a"), ("w", "a"), ("v", "a"), ("z", "b"), ("x", "b")]
    before = path.read_text(encoding="utf-8")
    merge_rows(path, read_rows(path)[::-1][:2])
    assert path.read_text(encoding="utf-8") == before, "the same rows change nothing"


def test_a_row_is_a_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    merge_rows(path, [row("a"), row("b")])
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [lines[0], lines[-1]] == ["[", "]"]
    assert [json.loads(line.rstrip(","))["learner"] for line in lines[1:-1]] == ["a", "b"]
    merge_rows(tmp_path / "none.json", [])
    assert read_rows(tmp_path / "none.json") == []


def test_an_interrupted_merge_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.json"
    merge_rows(path, [row("a")])

    def crash(*paths: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # The new content is complete on disk by now, under another name.
        patch.setattr(os, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            merge_rows(path, [row("b")])
    assert [each["learner"] for each in read_rows(path)] == ["a"]
    with pytest.raises(TypeError):
        merge_rows(path, [row("b", mean=object())])
    assert [each["learner"] for each in read_rows(path)] == ["a"]
    merge_rows(path, [row("b")])
    assert [each["learner"] for each in read_rows(path)] == ["a", "b"]
    assert list(tmp_path.iterdir()) == [path]


def test_values_of_tasks_stand_beside_the_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    np.testing.assert_array_equal(whole()[PER_TASK], np.array([1.0, 2.0, 5.0, 4.0], dtype=np.float32))
    assert read_per_task(path) == {}
    assert merge_rows(path, [whole("a"), whole("b"), whole("b", step=0)]) == [row("a"), row("b"), row("b", step=0)]
    name = "learner={} family=sinusoid shots=10 step={} metric=mse"
    found = read_per_task(path)
    assert list(found) == [name.format("a", 5), name.format("b", 5), name.format("b", 0)]
    assert {values.dtype for values in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(found[name.format("b", 0)], [-1.0] * 4)
    before = path.with_suffix(".npz").read_bytes()
    merge_rows(path, [whole("b"), row("a") | {PER_TASK: whole("a")[PER_TASK]}])
    assert path.with_suffix(".npz").read_bytes() == before, "the same rows change nothing"
    # A row without values takes those of its predecessor away, a new one replaces them, all others stay.
    merge_rows(path, [row("a"), whole("b") | {PER_TASK: np.zeros(3, dtype=np.float32)}])
    found = read_per_task(path)
    assert {each: len(values) for each, values in found.items()} == {name.format("b", 5): 3, name.format("b", 0): 4}
    merge_rows(path, [row("b"), row("b", step=0)])
    assert list(tmp_path.iterdir()) == [path], "no rows with values, no file"


def test_values_of_tasks_are_small_and_hold_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    values = np.random.default_rng(0).exponential(size=1000).astype(np.float32)
    merge_rows(path, [row(f"learner_{number}") | {PER_TASK: values} for number in range(10)])
    assert path.with_suffix(".npz").stat().st_size < 10 * 4200, "four bytes a number, and its name"
    np.savez(path.with_suffix(".npz"), learner=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"rows\.npz: damaged"):
        read_per_task(path)
    path.with_suffix(".npz").write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"rows\.npz: damaged"):
        merge_rows(path, [row()])


DAMAGE = {
    "half a file": ('[{"learner": "a"', "damaged"),
    "no list": ('{"rows": []}', "must hold a list, found dict"),
    "numbers": ("[1, 2]", "no list of result rows"),
    "a field is missing": (json.dumps([dict.fromkeys(FIELDS[1:], 0)]), "no list of result rows .*learner"),
}


@pytest.mark.parametrize(("text", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_named_and_left_alone(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(text, encoding="utf-8")
    for act in (lambda: read_rows(path), lambda: merge_rows(path, [row()])):
        with pytest.raises(ValueError, match=rf"rows\.json: {message}"):
            act()
    assert path.read_text(encoding="utf-8") == text
