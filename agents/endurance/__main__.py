"""What this package endures: `python -m agents.endurance configurations`, `steps`, `kills` or `faults`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro

from ..runs.command_line import check_options, default_is, program, run_command
from . import journal

Name = Literal["configurations", "steps", "kills", "faults"]


@dataclass(frozen=True)
class Config:
    """Makes numbered trials of one kind, and fails with those that failed.

    configurations: random configurations under random actions, twice each: finite, inside the spaces, and the same
    both times. steps: long runs, with memory and file handles. kills: commands that are killed at random moments and
    continued, beside the same ones undisturbed. faults: full disks, damaged and hostile files, and the like.

    Interrupted, the same command goes on where it was.
    """

    what: tyro.conf.Positional[Name]
    """what is tried"""
    count: Annotated[int | None, default_is("a few seconds of each")] = None
    """number of trials"""
    first: int = 0
    """number of the first trial, which is all that it depends on"""
    journal: Annotated[Path | None, default_is("runs/endurance/WHAT.jsonl")] = None
    """file that a line is appended to for each trial; those that it has are not made again"""


def main(config: Config) -> None:
    """Makes the trials that the journal lacks, and summarises all that it has.

    Raises:
        ValueError: trials failed; the message repeats them.
    """
    check_options(config, count=1, first=0)
    torch.set_num_threads(1)
    kind = importlib.import_module(f".{config.what}", __package__)
    path = config.journal or Path("runs") / "endurance" / f"{config.what}.jsonl"
    count = kind.FEW if config.count is None else config.count
    numbers = range(config.first, config.first + count)
    made = {row["number"] for row in journal.read(path)}
    for number in numbers:
        if number not in made:
            row = journal.record(path, kind.attempt, number)
            if "error" in row:
                print(f"failed: {row['error']}; again: {command(config.what, number)}", flush=True)
    rows = [row for row in journal.read(path) if row["number"] in numbers]
    failed = [row["number"] for row in rows if "error" in row]
    seconds = sum(row["seconds"] for row in rows)
    print(f"{config.what}: {len(rows):,} trials in {seconds:,.0f} s, {len(failed)} failed")
    print(kind.summary([row for row in rows if "error" not in row]))
    if failed:
        raise ValueError(f"{len(failed)} trials failed: {', '.join(command(config.what, one) for one in failed)}")


def command(what: str, number: int) -> str:
    """What makes one trial again."""
    return f"{program('endurance.__main__')} {what} --first {number} --count 1 --journal again.jsonl"


if __name__ == "__main__":
    run_command(main, Config)
