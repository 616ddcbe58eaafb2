"""Results of evaluations: metrics of each task after gradient steps, or of trials, and tables of them."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.files import as_path, write_text
from gym_reml.rendering.plain_text import printable

NORMAL_95 = 1.96

AXES = ("step", "episode")
"""The axes along which a result has metrics: gradient steps, or inner episodes of a trial."""


@dataclass(frozen=True)
class Summary:
    """Statistics of a metric over tasks, at one position on a result's axis.

    Attributes:
        mean, median: over all tasks, including diverged ones.
        ci95: half-width of the 95 % confidence interval of the mean.
        diverged: share of tasks that had diverged by then; None for trials.
        tasks: number of tasks.
    """

    mean: float
    median: float
    ci95: float
    diverged: float | None
    tasks: int


@dataclass(frozen=True)
class Result:
    """The metrics of one learner on few-shot tasks after gradient steps, or in trials of given lengths.

    Attributes:
        learner: its name.
        family, shots, seed, arguments: of the tasks; results can be compared pairwise if these are equal. The arguments
            are the family's others, such as split and queries. Trials have no shots (None).
        fingerprint: hash of everything else that the family's tasks depend on, such as formulas, arrays and archives;
            "" for trials, and in results of earlier versions.
        axis: "step" where networks are evaluated after gradient steps, "episode" for whole trials.
        steps: (S,) positions on the axis, ascending: numbers of gradient steps, or of inner episodes.
        metrics: (S, tasks) float64 by name: the query loss as "loss" and the metrics of the family; of trials "return".
        diverged: (S, tasks) bool, whether the task had diverged by then: a step was refused, or the query loss
            exceeded its cap; None along episodes.
        notes: further plain data, such as tuned step sizes.

    Raises:
        ValueError: an unknown axis, or shots or diverged that do not match the axis.
    """

    learner: str
    family: str
    shots: int | tuple[int, int] | None
    seed: int
    steps: tuple[int, ...]
    metrics: dict[str, NDArray[np.float64]]
    diverged: NDArray[np.bool_] | None
    arguments: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)
    fingerprint: str = ""
    axis: str = "step"

    def __post_init__(self) -> None:
        if self.axis not in AXES:
            raise ValueError(f"axis={self.axis!r}: must be one of {', '.join(map(repr, AXES))}")
        for name in ("shots", "diverged"):
            if (getattr(self, name) is None) != (self.axis == "episode"):
                raise ValueError(f"{name}: must be None along episodes, and only there; the axis is {self.axis!r}")

    @property
    def tasks(self) -> int:
        """The number of tasks."""
        return next(iter(self.metrics.values())).shape[1]

    def values(self, step: int, metric: str = "loss") -> NDArray[np.float64]:
        """A metric of every task at a position on the axis, (tasks,) float64.

        Raises:
            ValueError: a step or metric that was not evaluated; the message lists the choices.
        """
        if step not in self.steps:
            raise ValueError(f"step={step!r}: must be one of {', '.join(map(str, self.steps))}")
        if metric not in self.metrics:
            raise ValueError(f"metric={metric!r}: must be one of {', '.join(map(repr, self.metrics))}")
        return self.metrics[metric][self.steps.index(step)]

    def summary(self, step: int, metric: str = "loss") -> Summary:
        """Statistics of a metric over all tasks at a position on the axis; raises what `values` raises."""
        values = self.values(step, metric)
        share = None if self.diverged is None else float(self.diverged[self.steps.index(step)].mean())
        return Summary(float(values.mean()), float(np.median(values)), half_width(values), share, len(values))

    def minus(self, other: Result, step: int, *, metric: str = "loss") -> tuple[float, float]:
        """The mean paired difference to another learner, and the half-width of its 95 % confidence interval.

        Raises:
            ValueError: the results are on different tasks, or the step or metric was not evaluated.
        """
        self.check_same_tasks(other)
        own, theirs = self.values(step, metric), other.values(step, metric)
        return float((own - theirs).mean()), half_width(own - theirs)

    def check_same_tasks(self, other: Result) -> None:
        """Raises a ValueError unless the other result is on the same tasks, so that paired differences are valid.

        Fingerprints of families are compared. If one result has none, it warns, and compares the family's name and the
        plain arguments that both have; if neither has one, name and all plain arguments.
        """
        own, theirs = dict(self.arguments), dict(other.arguments)
        if bool(self.fingerprint) != bool(other.fingerprint):
            own, theirs = (
                {name: held[name] for name in held if name in own and name in theirs} for held in (own, theirs)
            )
        traits = ("axis", "family", "shots", "seed")
        pairs = {trait: (getattr(self, trait), getattr(other, trait)) for trait in traits}
        if not self.fingerprint or self.fingerprint != other.fingerprint:
            pairs["arguments"] = own, theirs
        for trait, (mine, its) in pairs.items():
            if mine != its:
                raise ValueError(
                    f"other: its {trait} is {its!r}, not {mine!r}; only results on the same tasks compare pairwise"
                )
        if bool(self.fingerprint) != bool(other.fingerprint):
            unknown = other if self.fingerprint else self
            warnings.warn(
                f"{unknown.learner!r} on {self.family!r} was saved without its family's fingerprint: whether its data "
                "and formulas are the same is unknown. Evaluate it again to be sure.",
                stacklevel=3,
            )
        elif self.fingerprint != other.fingerprint:
            raise ValueError(
                f"other: its {self.family!r} tasks differ although name and plain arguments are the same: they "
                f"differ in formulas, ranges, data, environments or classes (fingerprint {other.fingerprint}, not "
                f"{self.fingerprint}); only results on the same tasks compare pairwise"
            )
        if other.tasks != self.tasks:
            raise ValueError(f"other: has {other.tasks} tasks, not {self.tasks}")

    def __repr__(self) -> str:
        steps = " ".join(map(str, self.steps))
        return f"Result({self.learner!r}, {self._tasks}, {self.axis}s {steps})"

    def _repr_markdown_(self) -> str:
        """The table of the family's metric, as notebooks display it."""
        metric = next((name for name in self.metrics if name != "loss"), "loss")
        where = "of a whole trial" if self.axis == "episode" else "on the query set"
        title = printable(f"{self._tasks}: {metric} {where}, mean ± 95 % interval over tasks (median)")
        return f"{title}\n\n{table([self], metric)}"

    @property
    def _tasks(self) -> str:
        """Family, shots and number of tasks, as text."""
        if self.shots is None:
            return f"{self.family}, {self.tasks} trials"
        shots = f"{self.shots}" if isinstance(self.shots, int) else " to ".join(map(str, self.shots))
        return f"{self.family}, {shots} shot{'s' * (shots != '1')}, {self.tasks} tasks"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the result atomically as JSON; missing folders are created.

        JSON has no NaN and no infinities: they are written as strings.
        """
        content = self.__dict__ | {
            "metrics": {name: _listed(values) for name, values in self.metrics.items()},
            "diverged": None if self.diverged is None else self.diverged.tolist(),
        }
        write_text(path, json.dumps(content, default=_plain))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Reads a result that `save` wrote, also in earlier versions.

        Raises:
            FileNotFoundError: no such file.
            ValueError: not a result, or damaged.
        """
        try:
            content = json.loads(as_path(path).read_text(encoding="utf-8"))
            steps, shots = tuple(content["steps"]), content["shots"]
            content |= {"steps": steps, "shots": tuple(shots) if isinstance(shots, list) else shots}
            if shots == 0 and "axis" not in content:
                # Earlier versions saved results of trials with 0 shots and an array of diverged.
                content |= {"axis": "episode", "shots": None, "diverged": None}
            content["metrics"] = {name: np.array(part, dtype=np.float64) for name, part in content["metrics"].items()}
            if content["diverged"] is not None:
                content["diverged"] = np.array(content["diverged"], dtype=np.bool_)
            shapes = {part.shape for part in (*content["metrics"].values(), content["diverged"]) if part is not None}
            if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or shape[0] != len(steps):
                raise ValueError("not as many numbers as steps and tasks")
            return cls(**content)
        except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path}: damaged result, or none ({type(error).__name__}: {error})") from error


def _plain(value: Any) -> Any:
    """numpy scalars and arrays as data for JSON."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{value!r}: a {type(value).__name__} cannot be saved in a result")


def _listed(values: NDArray[np.float64]) -> list[Any]:
    """The array as lists for JSON; values that are not finite as "nan", "inf" and "-inf"."""
    finite = np.isfinite(values)
    return (values if finite.all() else np.where(finite, values.astype(object), values.astype(str))).tolist()


def half_width(values: NDArray[np.float64]) -> float:
    """Half-width of the 95 % confidence interval of the mean, normal approximation; NaN for fewer than two values."""
    return float(NORMAL_95 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def table(results: Sequence[Result], metric: str = "loss", *, steps: Sequence[int] | None = None) -> str:
    """A Markdown table with one row per learner and one column per step: mean ± 95 % interval (median).

    Along gradient steps, the last column is the share of tasks that had diverged by the last one.

    Args:
        results: one or more, along the same axis.
        metric: in the table.
        steps: positions on the axis; None for those of the first result.

    Raises:
        ValueError: no results, results along different axes, or a metric or step that was not evaluated.
    """
    if isinstance(results, Result) or not results:
        raise ValueError(f"results={results!r}: must be a sequence of one or more results")
    axes = list(dict.fromkeys(result.axis for result in results))
    if len(axes) > 1:
        raise ValueError(f"results: their axes are {', '.join(map(repr, axes))}; a table has one")
    steps = results[0].steps if steps is None else steps
    rows = []
    for result in results:
        summaries = [result.summary(step, metric) for step in steps]
        cells = [
            printable(f"{_number(summary.mean)} ± {_number(summary.ci95)} ({_number(summary.median)})")
            for summary in summaries
        ]
        diverged = summaries[-1].diverged
        rows.append([result.learner, *cells, *([] if diverged is None else [f"{diverged:.1%}"])])
    columns = [f"{step} {axes[0]}{'s' if step != 1 else ''}" for step in steps]
    head = ["learner", *columns, *(["diverged"] if axes == ["step"] else [])]
    return markdown_table(head, rows, aligned=True)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, aligned: bool = False) -> str:
    """A Markdown table.

    Args:
        head: names of the columns.
        rows: one cell per column. Bars are escaped, and line breaks become spaces.
        aligned: whether cells are padded, so that columns are aligned in a terminal.
    """
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (head, *rows)]
    widths = [max(map(len, column)) if aligned else 0 for column in zip(*lines, strict=True)]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2 if aligned else 3) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def _number(value: float) -> str:
    """Three decimals, or three significant digits for large and small values."""
    return f"{value:.3g}" if abs(value) >= 1000 or 0 < abs(value) < 0.1 else f"{value:.3f}"
