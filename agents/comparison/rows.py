"""Rows of the result tables: statistics of one learner over seeds, in JSON files that are merged by key."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from gym_reml.evaluation import Result
from gym_reml.evaluation.results import half_width
from gym_reml.files import write_text

Row = dict[str, Any]

LOWER_IS_BETTER = {"mse": True, "loss": True, "accuracy": False, "return": False}
"""The metrics of rows, and whether they are errors."""

KEY = ("learner", "family", "shots", "step", "metric", "split")
FIELDS = (
    "learner",
    "family",
    "shots",
    "step",
    "metric",
    "mean",
    "median",
    "ci95",
    "ci95_tasks",
    "diverged",
    "seeds",
    "tasks",
    "meta_training_tasks",
    "parameters",
    "seconds",
    "command",
    "seed_means",
    "commit",
    "versions",
)
"""What every row holds. Rows of some tables also have "split", and rows of REML "paired".

The last three are None where the runs did not record them: "seed_means" are the means over tasks, in the order of the
seeds, "commit" is that of the code, and "versions" those of Python and the libraries.
"""


def half_width_over_seeds(values: Sequence[float] | NDArray[np.float64]) -> float | None:
    """Half-width of the 95 % interval of the mean over seeds, by Student's t; None for a single seed."""
    count = len(values)
    if count < 2:
        return None
    return float(student.ppf(0.975, count - 1) * np.std(values, ddof=1) / math.sqrt(count))


def make_row(results: Sequence[Result], step: int, metric: str, about: Mapping[str, Any]) -> Row:
    """The row of a learner after some step.

    Args:
        results: one a seed, on the same tasks.
        step: which.
        metric: "mse" or "accuracy".
        about: the fields that are not in results: learner, family, meta_training_tasks, parameters, seconds, command,
            commit, versions, and others that are to stand beside them.

    Returns:
        Means over seeds of the mean and of the median over tasks; "ci95" is the half-width over seeds (None for one
        seed), "ci95_tasks" that over tasks of their means over seeds.
    """
    values = np.stack([result.values(step, metric) for result in results])
    summaries = [result.summary(step, metric) for result in results]
    row = {
        "shots": results[0].shots,
        "step": step,
        "metric": metric,
        "mean": float(values.mean()),
        "median": float(np.mean([summary.median for summary in summaries])),
        "ci95": half_width_over_seeds(values.mean(axis=1)),
        "ci95_tasks": half_width(values.mean(axis=0)),
        "diverged": _mean([summary.diverged for summary in summaries]),
        "seeds": len(results),
        "tasks": values.shape[1],
        "seed_means": values.mean(axis=1).tolist(),
    } | dict(about)
    return {name: row[name] for name in FIELDS} | {name: row[name] for name in row if name not in FIELDS}


def _mean(shares: Sequence[float | None]) -> float | None:
    """The mean of those that are not None; None if there are none."""
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def made_by(summaries: Sequence[Mapping[str, Any]]) -> Row:
    """The commit and the versions that finished jobs recorded; where these differ, all of them."""
    commits = [summary.get("commit") for summary in summaries]
    versions = [summary.get("versions") or {} for summary in summaries]
    names = dict.fromkeys(name for each in versions for name in each)
    return {
        "commit": _all_of(commits),
        "versions": {name: _all_of([each.get(name) for each in versions]) for name in names} or None,
    }


def _all_of(values: Sequence[str | None]) -> str | None:
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else ", ".join(value or "unknown" for value in different)


def paired(own: Sequence[Result], others: Sequence[Result], step: int, metric: str) -> dict[str, float | None]:
    """The difference to another learner, seed by seed on the same tasks.

    Returns:
        Its mean, half-widths as in a row, and "lower", the share of pairs in which the own value is the lower one: a
        mean may rest on a few tasks.

    Raises:
        ValueError: as many seeds, but not the same tasks.
    """
    for mine, theirs in zip(own, others, strict=True):
        mine.check_same_tasks(theirs)
    differences = np.stack(
        [mine.values(step, metric) - theirs.values(step, metric) for mine, theirs in zip(own, others, strict=True)]
    )
    return {
        "difference": float(differences.mean()),
        "ci95": half_width_over_seeds(differences.mean(axis=1)),
        "ci95_tasks": half_width(differences.mean(axis=0)),
        "lower": float((differences < 0).mean()),
    }


def key_of(row: Row) -> tuple[Any, ...]:
    """The key of a row."""
    return tuple(row.get(name) for name in KEY)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none if there is no such file.

    Raises:
        ValueError: a file that holds something else.
    """
    rows = read_list(path)
    if not all(isinstance(row, dict) and set(FIELDS) <= set(row) for row in rows):
        raise ValueError(f"{path}: no list of result rows (each holds {', '.join(FIELDS)})")
    return rows


def read_list(path: Path) -> list[Any]:
    """The list that a JSON file holds; an empty one if there is no such file.

    Raises:
        ValueError: a file that holds something else.
    """
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: damaged ({error})") from error
    if not isinstance(found, list):
        raise ValueError(f"{path}: must hold a list, found {type(found).__name__}")
    return found


def merge_rows(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Writes rows into a file, over those of the same key, and returns all that it holds then.

    Rows that stay lose their differences to rows that do not: those were of other runs.

    Raises:
        ValueError: a number that is not finite, which JSON cannot hold.
    """
    new = {key_of(row): row for row in rows}
    merged = {key_of(row): without_pairs(row, new) for row in read_rows(path)} | new
    everything = sorted(merged.values(), key=lambda row: tuple(map(str, (row["family"], row["shots"]))))
    try:
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in everything)
    except ValueError as error:
        raise ValueError(f"{path}: a row holds a number that is not finite ({error})") from error
    write_text(path, f"[\n{lines}\n]\n")
    return everything


def without_pairs(row: Row, others: Iterable[tuple[Any, ...]]) -> Row:
    """The row without differences to those of these keys."""
    if "paired" not in row:
        return row
    gone = {key[0] for key in others if key[1:] == key_of(row)[1:]}
    kept = {learner: difference for learner, difference in row["paired"].items() if learner not in gone}
    return {name: value for name, value in row.items() if name != "paired"} | ({"paired": kept} if kept else {})
