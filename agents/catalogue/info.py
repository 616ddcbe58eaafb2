"""All about one environment: `gym-reml info NetBuild-v0`, or `python -m agents.catalogue.info NetBuild-v0`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..runs.command_line import EXTRA, program, run_plainly
from .description import competitors, describe

INDENT = "  "


@dataclass(frozen=True)
class Config:
    """Shows an environment's spaces and arguments, how it is made, and its competitors."""

    id: str = field(metadata={"help": "of the environment, such as NetBuild-v0; `list` shows all"})


def main(config: Config) -> None:
    """Prints it, at most 100 columns wide where words allow."""
    found = describe(config.id)
    print(f"{found.env_id}: {found.summary}\n\ndecides: {found.decision}")
    _section("spaces", found.spaces)
    _section("made by", found.made_by)
    _section(
        "arguments",
        {f"{one.name}={one.default}": one.meaning for one in found.arguments},
    )
    try:
        compared = {name: ", ".join(entrants) for name, entrants in competitors(found.env_id).items()}
        _section(f"competitors, by the benchmark that {program('compare')} --family takes", compared)
    except ModuleNotFoundError:
        print(f"\ncompetitors: pip install '{EXTRA}' shows them")
    print(f"\nother encodings: {', '.join(found.siblings) or 'none'}\npage: {found.page}")


def _section(title: str, rows: Mapping[str, str]) -> None:
    """A title, and below it a name and a text for each row; nothing without rows."""
    if rows:
        print(f"\n{title}:")
    for name, text in rows.items():
        lines = textwrap.wrap(f"{name}: {text}", 98, subsequent_indent=2 * INDENT, break_long_words=False)
        print(textwrap.indent("\n".join(lines), INDENT))


if __name__ == "__main__":
    run_plainly(main, Config)
