"""The page of the libraries, from the rows of their programs; `python -m agents.libraries.table` makes it anew."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gym_reml.evaluation.results import markdown_table
from gym_reml.files import write_text

from .reached import EPISODES, Reached


@dataclass(frozen=True)
class Row:
    """What a program reached, and how it was run.

    Attributes:
        program: name of its module in `agents.libraries`.
        seed: of the run.
        budget: factor of the number of steps.
        reached: the program's own row.
    """

    program: str
    seed: int
    budget: float
    reached: Reached


def read_rows(path: Path) -> list[Row]:
    """The rows of a JSON file; none where there is no file.

    Raises:
        ValueError: a file that is not as `write_rows` writes it.
    """
    if not path.is_file():
        return []
    try:
        return [_row(entry) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(f"{path}: no list of rows of `python -m agents.libraries` ({error!r})") from error


def _row(entry: dict[str, Any]) -> Row:
    own = {field.name: entry.pop(field.name) for field in fields(Reached)}
    return Row(reached=Reached(**own), **entry)


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Writes rows as JSON, sorted by program."""
    entries = []
    for row in sorted(rows, key=lambda row: row.program):
        entry = asdict(row)
        entries.append(entry | entry.pop("reached"))
    write_text(path, json.dumps(entries, indent=1, ensure_ascii=False) + "\n")


HEAD = ("library", "algorithm", "id", "random", "untrained", "trained", "steps", "seconds", "face", "note")


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table; libraries link to their pages."""
    cells = []
    for row in rows:
        own = row.reached
        cells.append(
            [
                f"[{own.library} {own.version}]({row.program}.md)",
                own.algorithm,
                f"`{own.id}`",
                f"{own.random_return:.2f}",
                "–" if own.first_return is None else f"{own.first_return:.2f}",
                f"**{own.trained_return:.2f}**",
                f"{own.steps:,}",
                f"{own.seconds:.0f}",
                own.face,
                own.note,
            ]
        )
    return markdown_table(HEAD, cells)


MADE = "<!-- Made by `python -m agents.libraries` from docs/results/libraries.json: edits are lost. -->"

INTRODUCTION = f"""\
The environments plug into any library that takes a Gymnasium id or a Gymnasium vector environment. For each library
there is a short program in `agents/libraries/`, a page that explains it, and a row of the table. One command runs them
all, each in a virtual environment of its own with the versions of the table, and writes the table anew:

```bash
python -m agents.libraries                 # all: gigabytes to install
python -m agents.libraries torchrl skrl    # some
python -m agents.libraries --budget 0.1    # a tenth of the steps
```

In an environment that has the library, `python -m agents.libraries.torchrl` runs one.

- *face*: "single" where the library steps environments one by one, "native vector" where it steps all in one batch.
- *random*, *untrained*, *trained*: mean return over {EPISODES} held-out episodes, or fewer where the note says so: of
  random actions, of the agent before training, and of the agent after training without exploration. Rows of one id
  were measured on the same tasks. Two libraries are exceptions: CleanRL's scripts report training episodes alone, with
  exploration, and *untrained* of d3rlpy is the return of the data set that it learns from.
- Budgets, networks and settings differ from row to row. The table shows that a library works and learns, not which is
  the best."""

LAST = """\
```{toctree}
:hidden:
:glob:

*
```"""


def page(rows: list[Row]) -> str:
    """The page as Markdown."""
    runs = sorted({(row.seed, row.budget) for row in rows})
    said = "; ".join(f"seed {seed}, budget {budget:g}" for seed, budget in runs)
    how = (
        f"One run each ({said}). Seconds are processor time of training, on one core of a slow machine with other load."
    )
    return "\n\n".join([MADE, "# Libraries", INTRODUCTION, table(rows), how, LAST]) + "\n"


if __name__ == "__main__":
    write_text(Path("docs/libraries/index.md"), page(read_rows(Path("docs/results/libraries.json"))))
