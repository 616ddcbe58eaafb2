"""The pages of docs/results, from the JSON files beside them: `python -m agents.results`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.command import run_command
from agents.result_groups import SECOND_SHAPE, Group, read_groups
from agents.result_plots import MAIN, alt_text, plot_groups
from agents.rows import KEY, Row, read_list
from gym_reml.results import write_text

MADE = "<!-- Made by `python -m agents.results` from the JSON files beside it: edits are lost. -->"
ATTEMPTS = "attempts.json"
ATTEMPT_FIELDS = ("title", "question", "tried", "found", "figures")
"""What every attempt holds; "command" is its to give."""


@dataclass(frozen=True)
class Section:
    """What the page says of one result file.

    Attributes:
        file: its name.
        title, introduction: of the section.
        groups: the fields in which the rows of one table agree; family, shots and metric must be among them.
        summary_step: the step of a table over all families in front of theirs; None for no such table.
        curves: who is drawn.
    """

    file: str
    title: str
    introduction: str
    groups: tuple[str, ...] = tuple(name for name in KEY if name not in ("learner", "step"))
    summary_step: int | None = None
    curves: tuple[str, ...] = MAIN

    @property
    def plot(self) -> str:
        """Its plot's name."""
        return f"{Path(self.file).stem}.png"


SECTIONS = (
    Section(
        "sinusoid.json",
        "Sinusoids",
        "MAML's sinusoids: amplitude, phase and 5 or 10 points are drawn anew for each task. Trained and tested on the "
        "same family.",
    ),
    Section(
        "unrelated.json",
        "Unrelated families",
        "Trained on a mixture of seven families at once, tested on families that none of the learners has met, and on "
        "each of the seven. `scratch` has an advantage here: its step size is tuned on validation tasks of the very "
        "family it is tested on.",
        summary_step=5,
    ),
    Section(
        "omniglot.json",
        "Omniglot",
        "Real images, 5-way. `omniglot`: characters never seen; `omniglot-alphabets`: alphabets never seen; "
        "`omniglot-domains`: characters as they are, inverted, or with permuted pixels.",
    ),
)
"""The sections of the page, in order. A new result file is a row here."""

INTRODUCTION = """\
Every figure is on tasks held out from training, the same for every learner and seed. [Rivals](../rivals.md) tells who
is who and how they were trained, [Protocol](../protocol.md) what the controls rule out. Two pages stand beside this:
[what did not work](what-did-not-work.md), and [figures of the environment](environment.md), its speed and what its
default training reaches.

- Cells hold the mean over tasks and seeds, ± the half-width of its 95 % interval over seeds (Student's t), and in
  brackets the mean of the medians over tasks. Without ± there was one seed.
- The best mean of each step is **bold**. Whether it is better beyond chance is another question: the tables of paired
  differences answer it.
- *Diverged* is the share of tasks in which a gradient step was refused up to the last column's step. They stay in all
  means.
- *Seconds* are those of one training, on one core of a slow machine that did other work too: they vary by half."""


@dataclass(frozen=True)
class Config:
    """Writes the tables and plots of docs/results anew."""

    folder: Path = Path("docs/results")
    """folder of the JSON files, and of what is made from them"""


def main(config: Config) -> None:
    """Writes pages and plots, and prints their paths."""
    for name, text in pages(config.folder).items():
        write_text(config.folder / name, text)
        print(config.folder / name)
    for section in SECTIONS:
        groups = read_groups(config.folder / section.file, section.groups)
        if groups:
            plot_groups(groups, config.folder / section.plot, section.curves)
            print(config.folder / section.plot)


def pages(folder: Path) -> dict[str, str]:
    """The pages by file name.

    Raises:
        ValueError: a file that is not as it should be, or that no section shows.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    known = [*(section.file for section in SECTIONS), ATTEMPTS]
    for path in sorted(folder.glob("*.json")):
        if path.name not in known:
            raise ValueError(f"{path}: no page shows it; known files are {', '.join(known)}")
    sections = [_section(section, read_groups(folder / section.file, section.groups)) for section in SECTIONS]
    attempts = [_attempt(attempt) for attempt in read_attempts(folder / ATTEMPTS)]
    return {
        "index.md": "\n\n".join([MADE, "# Results", INTRODUCTION, *sections]) + "\n",
        "what-did-not-work.md": "\n\n".join(
            [MADE, "# What did not work", *(attempts or ["No attempts are recorded yet."])]
        )
        + "\n",
    }


def _section(section: Section, groups: list[Group]) -> str:
    parts = [f"## {section.title}", section.introduction]
    if not groups:
        return "\n\n".join([*parts, "This comparison was not run yet."])
    parts.append(f"![{alt_text(groups, section.curves)}]({section.plot})")
    if section.summary_step is not None:
        parts += _summary(groups, section.summary_step)
    for group in groups:
        parts += [f"### {group.title}", results_table(group, group.learners, bold=True), _about(group)]
        if group.controls:
            shown = (name for control in group.controls for name in (control.partition("/")[0], control))
            table = results_table(group, [name for name in dict.fromkeys(shown) if name in group.rows], bold=False)
            parts += ["**Controls**, each under the learner it belongs to:", table]
        parts += _paired(group)
    return "\n\n".join(parts)


def results_table(group: Group, learners: Sequence[str], *, bold: bool) -> str:
    """A row a learner, a column a step; with `bold`, the best mean of each step stands out."""
    best = {step: group.best(step, learners) if bold else None for step in group.steps}
    rows = []
    for name in learners:
        cells = []
        for step in group.steps:
            row = group.rows[name].get(step)
            cells.append("–" if row is None else _cell(row, bold=row["mean"] == best[step]))
        last = _last(group, name)
        seconds = f"{last['seconds']:,.0f}" if last["seconds"] >= 10 else f"{last['seconds']:.1f}"
        rows.append(
            [f"`{name}`", *cells, f"{last['diverged']:.1%}", str(last["seeds"]), f"{last['parameters']:,}", seconds]
        )
    return _table(["learner", *map(_steps, group.steps), "diverged", "seeds", "parameters", "seconds"], rows)


def _cell(row: Row, *, bold: bool) -> str:
    mean = f"**{number(row['mean'])}**" if bold else number(row["mean"])
    return f"{mean}{_plus_minus(row['ci95'])} ({number(row['median'])})"


def _about(group: Group) -> str:
    """What is to be known of a table beside its figures, and how it is made."""
    tested = _shared(group, "tasks", lambda count: f"{count:,}")
    trained = _shared(group, "meta_training_tasks", lambda count: f"{count:,}" if count else "none")
    commands: dict[str, list[str]] = {}
    for name in group.rows:
        commands.setdefault(_last(group, name)["command"], []).append(name)
    lines = []
    for command, names in commands.items():
        if len(commands) > 1:
            lines.append(f"# {', '.join(names)}")
        lines.append(command)
    told = "\n".join(lines)
    return (
        f"{group.metric} on the query set. Held-out tasks: {tested}. Meta-training tasks: {trained}.\n\n"
        f"```bash\n{told}\n```"
    )


def _shared(group: Group, field: str, said: Callable[[int], str]) -> str:
    """A number that most learners share, and behind it those who have another."""
    having: dict[int, list[str]] = {}
    for name in group.rows:
        having.setdefault(_last(group, name)[field], []).append(name)
    usual, *others = sorted(having, key=lambda value: -len(having[value]))
    exceptions = [f"{said(value)} for {', '.join(f'`{name}`' for name in having[value])}" for value in others]
    return said(usual) + (f" ({'; '.join(exceptions)})" if exceptions else "")


def _paired(group: Group) -> list[str]:
    rows = []
    for name in group.rows:
        by_step = {step: row.get("paired", {}) for step, row in group.rows[name].items()}
        for other in dict.fromkeys(other for versus in by_step.values() for other in versus):
            differences = [by_step.get(step, {}).get(other) for step in group.steps]
            rows.append([f"`{name}` minus `{other}`", *(_difference(found, group) for found in differences)])
    if not rows:
        return []
    told = (
        f"**Paired differences** of {group.metric} on the same tasks and seeds, ± 95 % over seeds. *Better* and "
        "*worse* mean that the interval excludes zero. The share is that of pairs in which the first is lower: where a "
        "mean falls and that share is small, a few tasks make the difference."
    )
    return [told, _table(["difference", *map(_steps, group.steps)], rows)]


def _difference(found: dict[str, Any] | None, group: Group) -> str:
    if found is None:
        return "–"
    return (
        f"{number(found['difference'], '+')}{_plus_minus(found['ci95'])}, "
        f"{verdict(found['difference'], found['ci95'], lower_is_better=group.lower_is_better)} ({found['lower']:.0%})"
    )


def verdict(difference: float, ci95: float | None, *, lower_is_better: bool) -> str:
    """Whether a difference excludes zero, and on which side; one seed decides nothing."""
    if ci95 is None or abs(difference) <= ci95:
        return "undecided"
    return "better" if (difference < 0) == lower_is_better else "worse"


def _summary(groups: list[Group], step: int) -> list[str]:
    """A row a family: the means of all learners, and how REML compares with the better of the two simplest rivals."""
    everyone = dict.fromkeys(name for group in groups for name in group.learners if not name.endswith(SECOND_SHAPE))
    compared = [name for name in ("reml", "reml_multipliers") if name in everyone]
    rows = []
    for group in groups:
        best = group.best(step, everyone)
        cells = []
        for name in everyone:
            mean = group.mean(name, step)
            cells.append("–" if mean is None else f"**{number(mean)}**" if mean == best else number(mean))
        rivals = [group.mean(name, step) for name in ("scratch", "maml_5")]
        better = None if None in rivals else group.best(step, ("scratch", "maml_5"))
        for own in (group.mean(name, step) for name in compared):
            cells.append(number(own / better) if own is not None and better else "–")
        rows.append([group.title, *cells])
    told = (
        f"Means after {_steps(step)}. Ratios are to the better of `scratch` and `maml_5`: for errors, below 1 is in "
        "REML's favour."
    )
    head = [*(f"`{name}`" for name in everyone), *(f"ratio of `{name}`" for name in compared)]
    return [told, _table(["tested on", *head], rows)]


def read_attempts(path: Path) -> list[dict[str, Any]]:
    """What was tried and did not work; nothing if there is no such file.

    Raises:
        ValueError: an entry that is not as it should be.
    """
    attempts = read_list(path)
    titles: set[str] = set()
    for place, attempt in enumerate(attempts, start=1):
        where = f"{path}: attempt {place}"
        _check_attempt(attempt, where)
        if attempt["title"] in titles:
            raise ValueError(f"{where}: title={attempt['title']!r}: another attempt has it too")
        titles.add(attempt["title"])
    return attempts


def _check_attempt(attempt: Any, where: str) -> None:
    if not isinstance(attempt, dict):
        raise ValueError(f"{where}: must be an object with {', '.join(ATTEMPT_FIELDS)}")
    missing = [name for name in ATTEMPT_FIELDS if name not in attempt]
    unknown = [name for name in attempt if name not in (*ATTEMPT_FIELDS, "command")]
    if missing or unknown:
        raise ValueError(f"{where}: {'lacks' if missing else 'has unknown'} {', '.join(missing or unknown)}")
    for name in attempt.keys() - {"figures"}:
        if not isinstance(attempt[name], str) or not attempt[name].strip():
            raise ValueError(f"{where}: {name}={attempt[name]!r}: must be a text")
    figures = attempt["figures"]
    if not isinstance(figures, list) or not all(_is_figure(figure) for figure in figures):
        raise ValueError(f"{where}: figures={figures!r}: must be a list of objects with what (a text) and value")


def _is_figure(figure: Any) -> bool:
    return (
        isinstance(figure, dict)
        and set(figure) == {"what", "value"}
        and isinstance(figure["what"], str)
        and isinstance(figure["value"], str | int | float)
        and not isinstance(figure["value"], bool)
    )


def _attempt(attempt: dict[str, Any]) -> str:
    parts = [f"## {attempt['title']}"]
    parts += [f"**{name.capitalize()}.** {attempt[name]}" for name in ("question", "tried", "found")]
    if attempt["figures"]:
        rows = [
            [figure["what"], number(figure["value"]) if isinstance(figure["value"], float) else str(figure["value"])]
            for figure in attempt["figures"]
        ]
        parts.append(_table(["figure", "value"], rows))
    if "command" in attempt:
        parts.append(f"```bash\n{attempt['command']}\n```")
    return "\n\n".join(parts)


def number(value: float, sign: str = "") -> str:
    """Three digits where they matter, as in the tables of `gym_reml.results`."""
    return f"{value:{sign}.3g}" if abs(value) >= 1000 or 0 < abs(value) < 0.1 else f"{value:{sign}.3f}"


def _plus_minus(half_width: float | None) -> str:
    return "" if half_width is None else f" ± {number(half_width)}"


def _last(group: Group, name: str) -> Row:
    return group.rows[name][max(group.rows[name])]


def _steps(step: int) -> str:
    return f"{step} step{'s' if step != 1 else ''}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [list(head), *rows]
    told = ["| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines]
    return "\n".join([told[0], "|" + "---|" * len(head), *told[1:]])


if __name__ == "__main__":
    run_command(main, Config)
