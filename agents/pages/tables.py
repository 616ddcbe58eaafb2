"""The tables of the results page, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from textwrap import wrap
from typing import Any

from gym_reml.evaluation.results import markdown_table

from ..comparison.rows import Row
from .groups import WORK, Group
from .published import REFERENCES

WIDTH = 88
"""Columns of the pages' code."""


def results_table(group: Group, learners: Sequence[str], *, bold: bool) -> str:
    """A row a learner, a column a step; with `bold`, the best mean of each step stands out."""
    best = {step: group.best(step, learners) if bold else None for step in group.steps}
    fields = {field: said for field, said in ABOUT.items() if field not in WORK or group.recorded(field)}
    rows = []
    for name in learners:
        cells = []
        for step in group.steps:
            row = group.rows[name].get(step)
            outstanding = row is not None and row["mean"] == best[step] and not group.section.is_informed(name)
            cells.append("–" if row is None else _cell(group, row, bold=outstanding))
        if not group.section.trials:
            cells.append(f"{_last(group, name)['diverged']:.1%}")
        about = (_by_column(group, name, field, said) for field, said in fields.items())
        rows.append([f"`{name}`", *cells, *about])
    last = [field.replace("_", " ") for field in fields]
    if not group.section.trials:
        last.insert(0, "diverged")
    return markdown_table(["learner", *map(group.section.column, group.steps), *last], rows)


ABOUT: dict[str, Callable[[Any], str]] = {
    "seeds": str,
    "parameters": lambda count: f"{count:,}",
    **dict.fromkeys(WORK, lambda count: "–" if count is None else millions(count)),
    "seconds": lambda seconds: f"{seconds:,.0f}" if seconds >= 10 else f"{seconds:.1f}",
}
"""The fields that end every row of a table, and how they are written; work only where some row has it."""


def _by_column(group: Group, name: str, field: str, said: Callable[[Any], str]) -> str:
    """What rows of a learner say in a field: once if all say the same, else column by column."""
    by_step = {step: said(row[field]) for step, row in group.rows[name].items()}
    different = set(by_step.values())
    return different.pop() if len(different) == 1 else " / ".join(by_step.get(step, "–") for step in group.steps)


def _cell(group: Group, row: Row, *, bold: bool) -> str:
    mean, median = (number(row[name], metric=group.metric) for name in ("mean", "median"))
    width = _plus_minus(group.half_width(row), group)
    return f"{f'**{mean}**' if bold else mean}{width} ({median})"


def controls_table(group: Group) -> str:
    """A row a control, behind that of the learner it belongs to."""
    shown = (name for owner, controls in group.controls.items() for name in (owner, *controls))
    return results_table(group, [name for name in shown if name in group.rows], bold=False)


def about(group: Group) -> str:
    """What is to be known of a table beside its figures, and how it is made."""
    tested = _shared(group, "tasks", lambda count: f"{count:,}")
    trained = _shared(group, "meta_training_tasks", lambda count: f"{count:,}" if count else "none")
    commands: dict[str, list[str]] = {}
    for name, by_step in group.rows.items():
        for command in dict.fromkeys(row["command"] for row in by_step.values()):
            commands.setdefault(command, []).append(name)
    lines: list[str] = []
    for command, names in commands.items():
        if len(commands) > 1:
            lines += wrap(", ".join(names), WIDTH, initial_indent="# ", subsequent_indent="# ")
        lines += shell_lines(command)
    shown = "\n".join(lines)
    commits = {row["commit"] for by_step in group.rows.values() for row in by_step.values()} - {None}
    code = f" Commit: {_shared(group, 'commit', _short)}." if commits else ""
    return (
        f"{group.metric} {group.section.measured}. Held-out tasks: {tested}. Meta-training tasks: {trained}.{code}\n\n"
        f"```bash\n{shown}\n```"
    )


def _short(commits: str | None) -> str:
    """The first digits of hashes, as git prints them."""
    return "not recorded" if commits is None else re.sub(r"\b([0-9a-f]{9})[0-9a-f]{31}\b", r"\1", commits)


def shell_lines(command: str) -> list[str]:
    """A command in lines of a page's width, each but the last continued by a backslash."""
    lines = wrap(command, WIDTH - 2, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    return [*(f"{line} \\" for line in lines[:-1]), *lines[-1:]]


def _shared(group: Group, field: str, said: Callable[[Any], str]) -> str:
    """A number that most learners share, and behind it those who have another."""
    having: dict[str, list[str]] = {}
    for name in group.rows:
        having.setdefault(_by_column(group, name, field, said), []).append(name)
    usual, *others = sorted(having, key=lambda value: -len(having[value]))
    exceptions = [f"{value} for {', '.join(f'`{name}`' for name in having[value])}" for value in others]
    return usual + (f" ({'; '.join(exceptions)})" if exceptions else "")


def references(group: Group) -> list[str]:
    """Figures from elsewhere of the same tasks, with their origin; nothing where none are known."""
    known = REFERENCES.get(group.family) or REFERENCES.get((group.family, group.shots))
    if known is None:
        return []
    steps = sorted({step for figures in known.figures for step in figures.means}, key=lambda step: step or 0)
    rows = [
        [
            figures.who,
            figures.origin,
            *("–" if step not in figures.means else str(figures.means[step]) for step in steps),
        ]
        for figures in known.figures
    ]
    text = (
        f"**For comparison**: {group.metric} {group.section.measured}, not made by the commands above. *Recomputed* "
        f"means computed for this project, before this comparison. {known.note}"
    )
    return [text, markdown_table(["method", "source", *map(group.section.column, steps)], rows)]


def differences(group: Group) -> list[str]:
    """Paired differences, if any rows hold some."""
    rows = []
    for name in group.rows:
        by_step = {step: row.get("paired", {}) for step, row in group.rows[name].items()}
        for other in dict.fromkeys(other for versus in by_step.values() for other in versus):
            found = [by_step.get(step, {}).get(other) for step in group.steps]
            rows.append([f"`{name}` minus `{other}`", *(_difference(difference, group) for difference in found)])
    if not rows:
        return []
    where = (
        "where a mean falls and that share is small"
        if group.lower_is_better
        else "where a mean rises and that share is large"
    )
    text = (
        f"**Paired differences** of {group.metric} on the same tasks and seeds, ± half of the 95 % interval over seeds "
        "and tasks together. *Better* and *worse* mean that the interval excludes 0, *n.s.* (not significantly "
        "different) that it includes 0. In brackets the median of the differences over tasks, where it was recorded, "
        f"and the share of pairs in which the first is lower"
        f"{'' if group.lower_is_better else ', which is worse here'}: {where}, a few tasks make the difference."
    )
    return [text, markdown_table(["difference", *map(group.section.column, group.steps)], rows)]


def _difference(found: dict[str, Any] | None, group: Group) -> str:
    if found is None:
        return "–"
    mean, median = (
        "" if found[name] is None else number(found[name], "+", metric=group.metric)
        for name in ("difference", "median")
    )
    return (
        f"{mean}{_plus_minus(found['ci95'], group)}, "
        f"{verdict(found['difference'], found['ci95'], lower_is_better=group.lower_is_better)} "
        f"({f'median {median}, ' if median else ''}{found['lower']:.0%})"
    )


def verdict(difference: float, ci95: float | None, *, lower_is_better: bool) -> str:
    """Whether a difference is significant (its 95 % interval over seeds and tasks excludes 0), and in whose favour.

    One seed has no interval, so that its differences are neither.
    """
    if ci95 is None:
        return "one seed"
    if abs(difference) <= ci95:
        return "n.s."
    return "better" if (difference < 0) == lower_is_better else "worse"


def summary(groups: list[Group], step: int) -> list[str]:
    """A row a family: the means of all learners, and how REML compares with the best of the simplest baselines."""
    learners = dict.fromkeys(name for group in groups for name in group.learners)
    compared = [name for name in ("reml_plain", "reml") if name in learners]
    rows = []
    for group in groups:
        best = group.best(step, learners)
        cells = []
        for name in learners:
            mean = group.mean(name, step)
            cells.append("–" if mean is None else f"**{number(mean)}**" if mean == best else number(mean))
        known = [group.mean(name, step) is not None for name in ("scratch", "maml_5")]
        better = group.best(step, ("scratch", "maml_5", "maml_5_own_shape")) if all(known) else None
        for own in (group.mean(name, step) for name in compared):
            cells.append(number(own / better) if own is not None and better else "–")
        rows.append([group.title, *cells])
    text = (
        f"Means after {groups[0].section.column(step)}. Ratios are to the best of `scratch`, `maml_5` and "
        "`maml_5_own_shape`: for errors, below 1 means that REML is better."
    )
    head = [*(f"`{name}`" for name in learners), *(f"ratio of `{name}`" for name in compared)]
    return [text, markdown_table(["tested on", *head], rows)]


def number(value: float, sign: str = "", *, metric: str = "mse") -> str:
    """Three decimals, or four digits from a hundred on; returns, being large, less finely."""
    size = abs(value)
    if metric == "return" and size < 100_000:
        return (
            f"{value:{sign}.1g}" if 0 < size < 0.005 else f"{value:{sign}.2f}" if size < 100 else f"{value:{sign}.1f}"
        )
    if size >= 100:
        return f"{value:{sign}.4g}"
    return f"{value:{sign}.3g}" if 0 < size < 0.1 else f"{value:{sign}.3f}"


def millions(count: int) -> str:
    """A count of work, in millions from a thousand on."""
    return f"{count / 1e6:.3g} M" if count >= 1000 else str(count)


def _plus_minus(half_width: float | None, group: Group) -> str:
    return "" if half_width is None else f" ± {number(half_width, metric=group.metric)}"


def _last(group: Group, name: str) -> Row:
    return group.rows[name][max(group.rows[name])]
