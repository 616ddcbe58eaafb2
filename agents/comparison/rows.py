"""Rows of the result tables: statistics of one learner over seeds and tasks, in files that are merged by key."""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.evaluation import Result
from gym_reml.evaluation.results import half_width
from gym_reml.files import write_file, write_text

from .statistics import one_way_half_width, two_way_half_width

Row = dict[str, Any]

LOWER_IS_BETTER = {
    "mse": True,
    "loss": True,
    "log_ratio": True,
    "accuracy": False,
    "balanced_accuracy": False,
    "recall_at_1": False,
    "return": False,
}
"""The metrics of rows, and whether they are errors."""

KEY = ("learner", "family", "shots", "step", "metric", "split", "network")
FIELDS = (
    "learner",
    "family",
    "shots",
    "step",
    "metric",
    "mean",
    "median",
    "ci95",
    "ci95_seeds",
    "ci95_tasks",
    "diverged",
    "seeds",
    "tasks",
    "meta_training_tasks",
    "inner_gradients",
    "environment_steps",
    "parameters",
    "seconds",
    "command",
    "per_seed",
    "commit",
    "versions",
)
"""What every row holds. Rows of some tables also have "split" or "network", and rows of REML "paired".

Some are None where the runs did not record them: "inner_gradients" and "environment_steps" are the work of a training
run (`gym_reml.networks.work.Work`), the mean over the seeds that counted it; "per_seed" are the means over tasks, in
the order of the seeds; "commit" is that of the code, and "versions" those of Python and the libraries.
"""

PER_TASK = "per_task"
"""What new rows hold besides, (tasks,) float32: the mean over seeds of each task. Files have it beside their JSON."""


def make_row(results: Sequence[Result], step: int, metric: str, about: Mapping[str, Any]) -> Row:
    """The row of a learner after some step.

    Args:
        results: one a seed, on the same tasks.
        step: which.
        metric: "mse" or "accuracy".
        about: the fields that are not in results: learner, family, meta_training_tasks, inner_gradients,
            environment_steps, parameters, seconds, command, commit, versions, and others that are to stand beside them.

    Returns:
        Means over seeds of the mean and of the median over tasks, half-widths of the mean's 95 % interval, and
        `PER_TASK`. "ci95" is for seeds and tasks together, "ci95_seeds" for seeds alone (both None for one seed), and
        "ci95_tasks" for tasks alone.
    """
    values = np.stack([result.values(step, metric) for result in results])
    row = {
        "shots": results[0].shots,
        "step": step,
        "metric": metric,
        "mean": float(values.mean()),
        **_spread(values),
        "diverged": mean_of_known([result.summary(step, metric).diverged for result in results]),
        "seeds": len(results),
        "tasks": values.shape[1],
    } | dict(about)
    ordered = {name: row[name] for name in FIELDS} | {name: row[name] for name in row if name not in FIELDS}
    return ordered | {PER_TASK: values.mean(axis=0).astype(np.float32)}


def _spread(values: NDArray[np.float64]) -> Row:
    """What rows and paired differences say of values (seeds, tasks) besides their mean."""
    by_seed, by_task = values.mean(axis=1), values.mean(axis=0)
    return {
        "median": float(np.median(values, axis=1).mean()),
        "ci95": two_way_half_width(by_seed, by_task),
        "ci95_seeds": one_way_half_width(by_seed),
        "ci95_tasks": half_width(by_task),
        "per_seed": by_seed.tolist(),
    }


def mean_of_known(values: Sequence[float | None]) -> float | None:
    """The mean of those that are not None; None if there are none."""
    known = [value for value in values if value is not None]
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


def paired(own: Sequence[Result], others: Sequence[Result], step: int, metric: str) -> Row:
    """The difference to another learner, seed by seed on the same tasks.

    Returns:
        "difference", the mean; "median", the mean over seeds of the median over tasks of the differences; half-widths
        and "per_seed" as in a row; and "lower", the share of pairs in which the own value is the lower one: a mean may
        rest on a few tasks.

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
        **_spread(differences),
        "lower": float((differences < 0).mean()),
    }


def key_of(row: Row) -> tuple[Any, ...]:
    """The key of a row."""
    return tuple(row.get(name) for name in KEY)


def name_of(row: Row) -> str:
    """The key of a row as a text, by which files hold its array."""
    return " ".join(f"{name}={row[name]}" for name in KEY if row.get(name) is not None)


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


def read_per_task(path: Path) -> dict[str, NDArray[np.float32]]:
    """The means over seeds of each task, (tasks,) by `name_of` the row, that stand beside a file of rows.

    Args:
        path: of the rows, which need not have any.

    Raises:
        ValueError: a damaged file.
    """
    path = path.with_suffix(".npz")
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: damaged ({error})") from error


def merge_rows(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Writes rows into a file, over those of the same key, and returns all that it holds then.

    Their means of each task go into a compressed file of arrays beside it. Rows that stay lose their differences to
    rows that do not: those were of other runs.

    Raises:
        ValueError: a number that is not finite, which JSON cannot hold.
    """
    arrays = read_per_task(path)
    new = {}
    for row in rows:
        new[key_of(row)] = {name: value for name, value in row.items() if name != PER_TASK}
        arrays.pop(name_of(row), None)
        if PER_TASK in row:
            arrays[name_of(row)] = row[PER_TASK]
    merged = {key_of(row): without_pairs(row, new) for row in read_rows(path)} | new
    everything = sorted(merged.values(), key=lambda row: tuple(map(str, (row["family"], row["shots"]))))
    try:
        lines = ",\n".join(json.dumps(row, allow_nan=False) for row in everything)
    except ValueError as error:
        raise ValueError(f"{path}: a row holds a number that is not finite ({error})") from error
    beside = path.with_suffix(".npz")
    if arrays:
        ordered = {name: arrays[name] for row in everything if (name := name_of(row)) in arrays}
        write_file(beside, lambda file: np.savez_compressed(file, **ordered))  # type: ignore[arg-type]
    else:
        beside.unlink(missing_ok=True)
    write_text(path, f"[\n{lines}\n]\n")
    return everything


def without_pairs(row: Row, others: Iterable[tuple[Any, ...]]) -> Row:
    """The row without differences to those of these keys."""
    if "paired" not in row:
        return row
    gone = {key[0] for key in others if key[1:] == key_of(row)[1:]}
    kept = {learner: difference for learner, difference in row["paired"].items() if learner not in gone}
    return {name: value for name, value in row.items() if name != "paired"} | ({"paired": kept} if kept else {})
