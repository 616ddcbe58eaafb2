"""One table over several seeds: `python -m agents.average RUN RUN RUN`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .comparison.averages import average
from .runs.command_line import run_command
from .runs.run import Run


@dataclass(frozen=True)
class Config:
    """Averages the final tables of runs that differ in their seed alone."""

    runs: Annotated[
        tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")
    ]
    """run directories of finished runs"""


def main(config: Config) -> None:
    """Prints a Markdown table: mean over seeds of the means over tasks, lowest and highest seed, mean median."""
    if not config.runs:
        raise ValueError("RUN: name at least one run directory")
    print(average([Run(folder) for folder in config.runs]))


if __name__ == "__main__":
    run_command(main, Config)
