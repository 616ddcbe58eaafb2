"""Rows of the result files, checked, and gathered into what makes one table of the results page."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..comparison.entrants import ENTRANTS
from ..comparison.rows import KEY, LOWER_IS_BETTER, Row, key_of, read_rows
from .sections import Section

SPLITS: dict[str | None, str] = {None: "", "heldout": "never trained on", "train": "trained on"}
"""What tables call the splits, in their order."""

TEXTS = ("learner", "family", "metric", "command")
COUNTS = ("shots", "step", "seeds", "tasks", "meta_training_tasks", "parameters")
WORK = ("inner_gradients", "environment_steps")
"""Counts that are None where the runs did not record them."""

NUMBERS = ("mean", "median", "seconds")
HALF_WIDTHS = ("ci95", "ci95_seeds", "ci95_tasks")
OPTIONAL = (*HALF_WIDTHS, "diverged")
"""Numbers that are None where there are none: half-widths of a single seed or task, and what no gradient step does."""

PAIRED = ("difference", "median", *HALF_WIDTHS, "lower", "per_seed")
"""What every paired difference holds; all but difference and lower may be None."""


@dataclass(frozen=True)
class Group:
    """The rows of one table.

    Attributes:
        title: what they have in common.
        family: what they were tested on.
        metric: of their numbers.
        rows: by learner, in the order of tables, and step.
        section: where the table stands.
    """

    title: str
    family: str
    metric: str
    rows: dict[str, dict[int, Row]]
    section: Section

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is an error."""
        return LOWER_IS_BETTER[self.metric]

    @property
    def on_log_axis(self) -> bool:
        """Whether plots have a logarithmic axis: of errors, which are positive, unless they are logarithms already."""
        return self.lower_is_better and self.metric != "log_ratio"

    @property
    def steps(self) -> list[int]:
        """Every step that some learner has a row of."""
        return sorted({step for by_step in self.rows.values() for step in by_step})

    @property
    def learners(self) -> list[str]:
        """Who is compared: all but controls."""
        return [name for name in self.rows if owner_of(name) is None]

    @property
    def controls(self) -> dict[str, list[str]]:
        """The controls by the learner they belong to."""
        found: dict[str, list[str]] = {}
        for name in self.rows:
            owner = owner_of(name)
            if owner is not None:
                found.setdefault(owner, []).append(name)
        return found

    @property
    def shots(self) -> int | None:
        """Number of shots, where the rows of the table agree in it."""
        return next(iter(next(iter(self.rows.values())).values()))["shots"]

    @property
    def split(self) -> str | None:
        """Whether its tasks are of families that were trained on, where that is told: "heldout", "train" or None."""
        return next(iter(next(iter(self.rows.values())).values())).get("split")

    def mean(self, learner: str, step: int) -> float | None:
        """The learner's mean after that step, if there is a row of it."""
        row = self.rows.get(learner, {}).get(step)
        return None if row is None else float(row["mean"])

    def best(self, step: int, learners: Iterable[str]) -> float | None:
        """The best mean of these learners after that step, of those who are not given the task."""
        fair = (name for name in learners if not self.section.is_informed(name))
        means = [mean for name in fair if (mean := self.mean(name, step)) is not None]
        if not means:
            return None
        return min(means) if self.lower_is_better else max(means)

    def half_width(self, row: Row) -> float | None:
        """That of the mean's 95 % interval over seeds and tasks; in trials of one seed, of that over trials alone."""
        name = "ci95_tasks" if self.section.trials and row["ci95"] is None else "ci95"
        return None if row[name] is None else float(row[name])

    def recorded(self, field: str) -> bool:
        """Whether any row has this field's number."""
        return any(row[field] is not None for by_step in self.rows.values() for row in by_step.values())


def owner_of(name: str) -> str | None:
    """The learner that a control belongs to; None for learners.

    Entrants may have a slash in their names. All other names with one are those of controls, named after their owners.
    """
    entrants = [table[name] for table in ENTRANTS.values() if name in table]
    if "/" not in name or any(not entrant.control for entrant in entrants):
        return None
    above = name.rpartition("/")[0]
    return above if owner_of(above) is None else owner_of(above)


def read_groups(path: Path, section: Section) -> list[Group]:
    """The rows of a file, those that agree in the section's `groups` together.

    Raises:
        ValueError: a row that is not as it should be, or two of the same key; the message names file and row.
    """
    rows = read_rows(path)
    seen: dict[tuple[Any, ...], int] = {}
    gathered: dict[tuple[Any, ...], list[Row]] = {}
    for number, row in enumerate(rows, start=1):
        _check(row, f"{path}: row {number}")
        key = key_of(row)
        if key in seen:
            named = ", ".join(f"{name}={value!r}" for name, value in zip(KEY, key, strict=True))
            raise ValueError(f"{path}: rows {seen[key]} and {number} are both of {named}")
        seen[key] = number
        gathered.setdefault(tuple(row.get(field) for field in section.groups), []).append(row)
    families = sorted(dict.fromkeys(row["family"] for row in rows), key=_number_in)

    def place(common: Row) -> tuple[int, int, int, str]:
        split, family = list(SPLITS).index(common.get("split")), families.index(common["family"])
        return split, family, common["shots"] or 0, common.get("network", "")

    return [_group(path, section, group) for group in sorted(gathered.values(), key=lambda group: place(group[0]))]


def _number_in(family: str) -> int:
    """The number that a family's name ends with, 0 where there is none: 5 arms come before 10."""
    found = re.search(r"-(\d+)$", family)
    return int(found[1]) if found else 0


def _group(path: Path, section: Section, rows: list[Row]) -> Group:
    first, fields = rows[0], section.groups
    by_learner: dict[str, dict[int, Row]] = {}
    for row in rows:
        by_step = by_learner.setdefault(row["learner"], {})
        if row["step"] in by_step or row["metric"] != first["metric"]:
            raise ValueError(f"{path}: rows that agree in {', '.join(fields)} do not fit into one table")
        by_step[row["step"]] = row
    shots = "" if first["shots"] is None else f"{first['shots']} shot{'s' if first['shots'] != 1 else ''}"
    network = f"{first['network']} networks" if "network" in first else ""
    named = {
        "family": first["family"],
        "shots": shots,
        "network": network,
        "metric": first["metric"],
        "split": SPLITS[first.get("split")],
    }
    title = ", ".join(name for field, name in named.items() if field in fields and name)
    ordered = {name: by_learner[name] for name in sorted(by_learner, key=lambda name: _place(name, section.order))}
    return Group(title, first["family"], first["metric"], ordered, section)


def _place(name: str, order: tuple[str, ...]) -> tuple[bool, int, str]:
    """Baselines in that order, then those that it does not hold, then REML; controls behind whom they belong to."""
    learner = owner_of(name) or name
    return learner.startswith("reml"), order.index(learner) if learner in order else len(order), name


def _check(row: Row, where: str) -> None:
    """Raises on a field that holds something else than it should."""
    for name in (*TEXTS, *(["network"] if "network" in row else [])):
        if not isinstance(row[name], str) or not row[name]:
            raise ValueError(f"{where}: {name}={row[name]!r}: must be a text")
    for name in (*COUNTS, *WORK):
        if name in ("shots", *WORK) and row[name] is None:
            continue  # a trial has no shots
        if not isinstance(row[name], int) or isinstance(row[name], bool) or row[name] < 0:
            raise ValueError(f"{where}: {name}={row[name]!r}: must be a whole number")
    for name in NUMBERS:
        _check_number(row[name], name, where)
    for name in OPTIONAL:
        if row[name] is not None:
            _check_number(row[name], name, where)
    for name, value, allowed in (
        ("metric", row["metric"], tuple(LOWER_IS_BETTER)),
        ("split", row.get("split"), tuple(SPLITS)),
    ):
        if value not in allowed:
            raise ValueError(f"{where}: {name}={value!r}: must be one of {', '.join(map(repr, allowed))}")
    _check_origin(row, where)
    versus = row.get("paired", {})
    if not isinstance(versus, dict):
        raise ValueError(f"{where}: paired={versus!r}: must be an object, a learner to a difference")
    for other, found in versus.items():
        about = f"{where}: paired: {other}: "
        if not isinstance(found, dict) or not set(PAIRED) <= set(found):
            raise ValueError(f"{about}{found!r}: must hold {', '.join(PAIRED)}")
        for name in ("difference", "median", *HALF_WIDTHS, "lower"):
            if found[name] is not None or name in ("difference", "lower"):
                _check_number(found[name], f"paired: {other}: {name}", where)
        _check_per_seed(found["per_seed"], found["difference"], about)


def _check_origin(row: Row, where: str) -> None:
    """Raises on what rows of single seeds and of the code should not be; None is always right."""
    means, commit, versions = (row[name] for name in ("per_seed", "commit", "versions"))
    _check_per_seed(means, row["mean"], f"{where}: ")
    if means is not None and len(means) != row["seeds"]:
        raise ValueError(f"{where}: per_seed={means!r}: must be as many as the seeds, {row['seeds']}")
    if commit is not None and (not isinstance(commit, str) or not commit):
        raise ValueError(f"{where}: commit={commit!r}: must be a text, or null")
    if versions is not None and not isinstance(versions, dict):
        raise ValueError(f"{where}: versions={versions!r}: must be an object, or null")


def _check_per_seed(means: Any, mean: float, where: str) -> None:
    """Raises on what are not the numbers of seeds with that mean; None is always right."""
    if means is None:
        return
    if not isinstance(means, list) or not means:
        raise ValueError(f"{where}per_seed={means!r}: must be a list of numbers, or null")
    for number in means:
        _check_number(number, "per_seed", where.removesuffix(": "))
    if not math.isclose(sum(means) / len(means), mean, rel_tol=1e-6, abs_tol=1e-9):
        raise ValueError(f"{where}per_seed={means!r}: their mean is not {mean!r}")


def _check_number(value: Any, name: str, where: str) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise ValueError(f"{where}: {name}={value!r}: must be a finite number")
