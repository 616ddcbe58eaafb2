"""Invented rows of result files, and the pages made from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from agents.comparison.rows import make_row, merge_rows, name_of, paired, read_per_task
from agents.pages.groups import Group, read_groups
from agents.pages.sections import SECTIONS
from agents.results import Config, main
from gym_reml.evaluation import Result


def row(learner: str, step: int, mean: float, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "learner": learner,
        "family": "sinusoid",
        "shots": 5,
        "step": step,
        "metric": "mse",
        "mean": mean,
        "median": mean / 2,
        "ci95": 0.05,
        "ci95_seeds": 0.04,
        "ci95_tasks": 0.02,
        "diverged": 0.0,
        "seeds": 3,
        "tasks": 1000,
        "meta_training_tasks": 184_000,
        "inner_gradients": None,
        "environment_steps": None,
        "parameters": 1_761,
        "seconds": 240.4,
        "command": "python -m agents.compare --family sinusoid --shots 5",
        "per_seed": None,
        "commit": None,
        "versions": None,
    }
    return usual | changes


def versus(difference: float, ci95: Any, lower: float, **changes: Any) -> dict[str, Any]:
    """A paired difference."""
    usual = {
        "difference": difference,
        "median": None,
        "ci95": ci95,
        "ci95_seeds": ci95,
        "ci95_tasks": 0.01,
        "per_seed": None,
        "lower": lower,
    }
    return usual | changes


def write(folder: Path, rows: Any, name: str = "sinusoid.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def group_of(folder: Path, rows: list[dict[str, Any]]) -> Group:
    (group,) = read_groups(write(folder, rows), SECTIONS[0])
    return group


def line_of(page: str, start: str) -> str:
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return line


def two_way(errors: Any, counts: Any) -> float:
    """Half-width of an interval over seeds and tasks, from the standard errors over both and their numbers."""
    squares = [error**2 for error in errors]
    if sum(squares) == 0:
        return 0.0
    freedom = sum(squares) ** 2 / sum(square**2 / (count - 1) for square, count in zip(squares, counts, strict=True))
    both = stats.t.ppf(0.975, freedom) * sum(squares) ** 0.5
    alone = [stats.t.ppf(0.975, count - 1) * error for error, count in zip(errors, counts, strict=True)]
    return float(max(both, *alone))


def check_numbers(folder: Path) -> int:
    """Recomputes means, intervals and words of differences from the values of seeds and tasks that a folder holds.

    Returns:
        How many differences had both.
    """
    page, checked = (folder / "index.md").read_text(encoding="utf-8"), 0
    for section in SECTIONS:
        path = folder / section.file
        arrays = read_per_task(path)
        for group in read_groups(path, section):
            text = page.split(f"## {section.title}\n")[1].split("\n## ")[0]
            text = text.split(f"### {group.title}\n")[1].split("\n### ")[0]
            for name, by_step in group.rows.items():
                for step, one in by_step.items():
                    if one["per_seed"] is not None and name_of(one) in arrays:
                        _check_row(one, arrays[name_of(one)])
                    for other, found in one.get("paired", {}).items():
                        theirs = group.rows[other][step]
                        known = found["per_seed"] is not None and {name_of(one), name_of(theirs)} <= set(arrays)
                        # Else the means of tasks are over more seeds than the difference is.
                        if known and len(found["per_seed"]) == one["seeds"] == theirs["seeds"] > 1:
                            tasks = arrays[name_of(one)].astype(float) - arrays[name_of(theirs)]
                            line = line_of(text, f"| `{name}` minus `{other}` |")
                            cell = line.split(" | ")[1 + group.steps.index(step)]
                            _check_difference(found, tasks, cell, group.lower_is_better)
                            checked += 1
    return checked


def _check_row(one: dict[str, Any], tasks: Any) -> None:
    assert (len(one["per_seed"]), tasks.shape) == (one["seeds"], (one["tasks"],))
    for values in (one["per_seed"], tasks.astype(float)):
        assert np.mean(values) == pytest.approx(one["mean"], rel=1e-5, abs=1e-7)
    if one["seeds"] > 1:
        errors = stats.sem(one["per_seed"]), stats.sem(tasks.astype(float))
        # Where all seeds agree, what is left is the rounding of float32 arrays.
        assert one["ci95"] == pytest.approx(two_way(errors, (one["seeds"], one["tasks"])), rel=1e-3, abs=1e-6)


def _check_difference(found: dict[str, Any], tasks: Any, cell: str, lower_is_better: bool) -> None:
    mean = np.mean(found["per_seed"])
    assert np.mean(tasks) == pytest.approx(mean, rel=1e-3, abs=1e-6)
    width = two_way((stats.sem(found["per_seed"]), stats.sem(tasks)), (len(found["per_seed"]), len(tasks)))
    assert found["ci95"] == pytest.approx(width, rel=1e-3)
    favourable = mean < 0 if lower_is_better else mean > 0
    assert f", {'n.s.' if abs(mean) <= width else 'better' if favourable else 'worse'} (" in cell


def write_comparison(folder: Path) -> None:
    """Rows, arrays and pages of three invented learners on 40 tasks of sinusoids, three seeds each."""
    generator = np.random.default_rng(0)
    difficulty = generator.exponential(size=40)
    means = {"scratch": (4.0, 4.0), "maml_5": (3.0, 0.5), "reml": (3.02, 0.1)}
    steps, refused = (0, 5), np.zeros((2, 40), dtype=np.bool_)
    found = {
        name: [
            Result(
                name,
                "sinusoid",
                5,
                0,
                steps,
                {"mse": np.outer(level, difficulty) + 0.1 * generator.random((2, 40)) + 0.05 * generator.random()},
                refused,
            )
            for _ in range(3)
        ]
        for name, level in means.items()
    }
    counted = {"scratch": (0, 0), "maml_5": (920_000, 0), "reml": (1_500_000, 800_000)}
    rows = []
    for name, (gradients, environment) in counted.items():
        about: dict[str, Any] = {"learner": name, "family": "sinusoid", "command": "python -m agents.compare"}
        about |= {"inner_gradients": gradients, "environment_steps": environment, "commit": None, "versions": None}
        about |= {"meta_training_tasks": 9, "parameters": 110, "seconds": 1.5}
        for step in steps:
            others = [other for other in ("scratch", "maml_5") if name == "reml"]
            versus_all = {other: paired(found[name], found[other], step, "mse") for other in others}
            rows.append(make_row(found[name], step, "mse", about) | ({"paired": versus_all} if others else {}))
    merge_rows(folder / "sinusoid.json", rows)
    main(Config(folder))
