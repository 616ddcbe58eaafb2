"""Runs the programs of the libraries: `python -m agents.libraries`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from gym_reml.files import write_text

from ..runs.command_line import run_command
from .environments import Program, call, environment, programs
from .reached import Reached
from .table import Row, page, read_rows, write_rows

PACKAGE = __package__ or ""


@dataclass(frozen=True)
class Config:
    """Runs the program of each library in an environment of its own, and writes the table of what they reached."""

    names: Annotated[
        tyro.conf.Positional[tuple[str, ...]],
        tyro.conf.arg(metavar="[NAME ...]", help_behavior_hint="(default: all)"),
    ] = ()
    """programs to run, by the names of their modules"""
    environments: Path = Path("runs/libraries")
    """folder of the virtual environments, which later runs use again"""
    seed: int = 0
    """seed of the runs"""
    budget: float = 1.0
    """factor of the number of steps"""
    output: Path = Path("docs/results/libraries.json")
    """file of the rows; those of other programs stay"""
    page: Path = Path("docs/libraries/index.md")
    """page with the table"""


def main(config: Config) -> None:
    """Runs the programs one after the other.

    Raises:
        ValueError: an unknown name, a budget that is not positive, or programs that failed, after all were run.
    """
    known = programs()
    unknown = [name for name in config.names if name not in known]
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no such program; choices: {', '.join(known)}")
    if not config.budget > 0:
        raise ValueError(f"--budget {config.budget}: must be positive")
    failed = []
    for name in config.names or known:
        began = time.perf_counter()
        try:
            rows = run_program(known[name], config)
        except ValueError as error:
            failed.append(name)
            print(f"{name}: {error}", flush=True)
            continue
        kept = [row for row in read_rows(config.output) if row.program != name]
        write_rows(config.output, [*kept, *rows])
        write_text(config.page, page(read_rows(config.output)))
        for row in rows:
            own = row.reached
            said = f"{own.algorithm} on {own.id}: {own.random_return:.3f} (random) -> {own.trained_return:.3f}"
            print(f"{name}: {said} in {own.seconds:.0f} s, {time.perf_counter() - began:.0f} s in all", flush=True)
    if failed:
        raise ValueError(f"{', '.join(failed)}: failed, see above")


def run_program(program: Program, config: Config) -> list[Row]:
    """The rows of one program, run in its environment.

    Raises:
        ValueError: it failed, or printed no row.
    """
    config.environments.mkdir(parents=True, exist_ok=True)
    folder = (config.environments / program.name).resolve()
    log = folder.with_suffix(".log")
    log.unlink(missing_ok=True)
    python = environment(program, folder, log)
    options = ["--seed", str(config.seed), "--budget", str(config.budget)]
    printed = call([str(python), "-m", f"{PACKAGE}.{program.name}", *options], log)
    # Libraries print too.
    lines = [line for line in printed.splitlines() if line.startswith('{"library": ')]
    if not lines:
        raise ValueError(f"{program.name}: printed no row; see {log}")
    return [Row(program.name, config.seed, config.budget, Reached(**json.loads(line))) for line in lines]


if __name__ == "__main__":
    run_command(main, Config)
