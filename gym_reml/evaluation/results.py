"""What an evaluation found: metrics of every task, after every gradient step or of whole trials, and tables of them."""

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
"""Along what a result holds its metrics: gradient steps, or episodes of a trial."""


@dataclass(frozen=True)
class Summary:
    """A metric over tasks at a place of a result's axis.

    Attributes:
        mean, median: over all tasks, diverged ones included.
        ci95: half-width of the 95 % confidence interval of the mean.
        diverged: share of tasks in which a gradient step was refused up to then; None where there are no such steps.
        tasks: how many.
    """

    mean: float
    median: float
    ci95: float
    diverged: float | None
    tasks: int


@dataclass(frozen=True)
class Result:
    """How a learner did on few-shot tasks, gradient step by gradient step, or in trials of some numbers of episodes.

    Attributes:
        learner: its name.
        family, shots, seed, arguments: of the tasks; results with equal ones compare pairwise. The arguments are the
            family's further ones, split and queries among them. Trials have no shots: theirs are None.
        fingerprint: of the family: of all else that its tasks depend on, such as formulas, arrays and archives; "" in
            results saved before there was one, and of trials.
        axis: "step" where networks are judged after gradient steps, "episode" where whole trials are judged.
        steps: (S,) the places on the axis that were evaluated, in order: numbers of gradient steps, or of episodes.
        metrics: by name, (S, tasks): the query loss as "loss", and what the family reports; the "return" of trials.
        diverged: (S, tasks) bool, whether a gradient step was refused up to then; None along episodes.

    Raises:
        ValueError: an axis that is none, or shots or diverged that are not there, or are there, against the axis.
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
        """How many tasks were evaluated."""
        return next(iter(self.metrics.values())).shape[1]

    def values(self, step: int, metric: str = "loss") -> NDArray[np.float64]:
        """The metric of every task at that place of the axis, (tasks,).

        Raises:
            ValueError: a step or metric that was not evaluated; the message lists the choices.
        """
        if step not in self.steps:
            raise ValueError(f"step={step!r}: must be one of {', '.join(map(str, self.steps))}")
        if metric not in self.metrics:
            raise ValueError(f"metric={metric!r}: must be one of {', '.join(map(repr, self.metrics))}")
        return self.metrics[metric][self.steps.index(step)]

    def summary(self, step: int, metric: str = "loss") -> Summary:
        """The metric over all tasks at that place of the axis."""
        values = self.values(step, metric)
        share = None if self.diverged is None else float(self.diverged[self.steps.index(step)].mean())
        return Summary(float(values.mean()), float(np.median(values)), half_width(values), share, len(values))

    def minus(self, other: Result, step: int, metric: str = "loss") -> tuple[float, float]:
        """Mean difference to another learner on the same tasks, and the half-width of its 95 % interval.

        Raises:
            ValueError: if the tasks are not the same.
        """
        self.check_same_tasks(other)
        own, theirs = self.values(step, metric), other.values(step, metric)
        return float((own - theirs).mean()), half_width(own - theirs)

    def check_same_tasks(self, other: Result) -> None:
        """Raises a ValueError unless the other result is on the same tasks, so that differences can be taken.

        Fingerprints decide. A warning says so where one of the two has none: then only the family's name and the plain
        arguments that both know are compared. Where both have none, that is all that there is.
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
                "and formulas are the same is not known. Evaluate it anew to be sure.",
                stacklevel=3,
            )
        elif self.fingerprint != other.fingerprint:
            raise ValueError(
                f"other: its {self.family!r} tasks are others, although name and plain arguments are the same: they "
                f"differ in formulas, ranges, data, environments or classes (fingerprint {other.fingerprint}, not "
                f"{self.fingerprint}); only results on the same tasks compare pairwise"
            )
        if other.tasks != self.tasks:
            raise ValueError(f"other: has {other.tasks} tasks, not {self.tasks}")

    def __repr__(self) -> str:
        places = " ".join(map(str, self.steps))
        return f"Result({self.learner!r}, {self._tasks}, {self.axis}s {places})"

    def _repr_markdown_(self) -> str:
        """What notebooks show: the table of its family's metric."""
        metric = next((name for name in self.metrics if name != "loss"), "loss")
        where = "of a whole trial" if self.axis == "episode" else "on the query set"
        title = printable(f"{self._tasks}: {metric} {where}, mean ± 95 % interval over tasks (median)")
        return f"{title}\n\n{table([self], metric)}"

    @property
    def _tasks(self) -> str:
        """Of what it is, in words."""
        if self.shots is None:
            return f"{self.family}, {self.tasks} trials"
        shots = f"{self.shots}" if isinstance(self.shots, int) else " to ".join(map(str, self.shots))
        return f"{self.family}, {shots} shot{'s' * (shots != '1')}, {self.tasks} tasks"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the result as JSON, in one piece, into a folder that is made if it is not there.

        Losses that are not finite, as JSON has no such number, become text.
        """
        content = self.__dict__ | {
            "metrics": {name: _listed(values) for name, values in self.metrics.items()},
            "diverged": None if self.diverged is None else self.diverged.tolist(),
        }
        write_text(path, json.dumps(content, default=_plain))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Result:
        """Reads what `save` wrote, in earlier versions too.

        Raises:
            FileNotFoundError: no such file.
            ValueError: something else, or damaged.
        """
        try:
            content = json.loads(as_path(path).read_text(encoding="utf-8"))
            steps, shots = tuple(content["steps"]), content["shots"]
            content |= {"steps": steps, "shots": tuple(shots) if isinstance(shots, list) else shots}
            if shots == 0 and "axis" not in content:
                # Results of trials were saved so, as if they had shots and could diverge.
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
    """Numbers and arrays of numpy's as JSON has them."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"{value!r}: a {type(value).__name__} cannot be saved in a result")


def _listed(values: NDArray[np.float64]) -> list[Any]:
    """The array as lists for JSON: finite numbers, and "nan", "inf" and "-inf"."""
    finite = np.isfinite(values)
    return (values if finite.all() else np.where(finite, values.astype(object), values.astype(str))).tolist()


def half_width(values: NDArray[np.float64]) -> float:
    """Half-width of the normal 95 % confidence interval of the mean."""
    return float(NORMAL_95 * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def table(results: Sequence[Result], metric: str = "loss", steps: Sequence[int] | None = None) -> str:
    """A Markdown table: a row a learner, a column a place on the axis; mean ± 95 % interval (median).

    Along gradient steps, a last column holds the share of tasks in which one was refused.

    Raises:
        ValueError: no results, or results along different axes.
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
    places = [f"{step} {axes[0]}{'s' if step != 1 else ''}" for step in steps]
    head = ["learner", *places, *(["diverged"] if axes == ["step"] else [])]
    return markdown_table(head, rows, aligned=True)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, aligned: bool = False) -> str:
    """A Markdown table.

    Args:
        head: names of the columns.
        rows: as many cells each. Bars in cells are escaped, and line breaks become spaces.
        aligned: whether cells are padded, so that columns stand under each other in a terminal too.
    """
    lines = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in (head, *rows)]
    widths = [max(map(len, column)) if aligned else 0 for column in zip(*lines, strict=True)]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2 if aligned else 3) for width in widths) + "|"
    return "\n".join([texts[0], rule, *texts[1:]])


def _number(value: float) -> str:
    """Three digits where they matter."""
    return f"{value:.3g}" if abs(value) >= 1000 or 0 < abs(value) < 0.1 else f"{value:.3f}"
