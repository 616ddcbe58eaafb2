"""A virtual environment for each library, with what its program needs."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_reml.files import write_text

CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Program:
    """The program of one library.

    Attributes:
        name: of its module in `agents.libraries`.
        requirements: what pip installs for it, besides gym-reml.
    """

    name: str
    requirements: tuple[str, ...]


def programs(folder: Path = PROGRAMS) -> dict[str, Program]:
    """The programs by name, read without importing them: the modules of `folder` that assign REQUIREMENTS."""
    found = {path.stem: _requirements(path) for path in sorted(folder.glob("*.py"))}
    return {name: Program(name, given) for name, given in found.items() if given is not None}


def _requirements(path: Path) -> tuple[str, ...] | None:
    """What a module assigns to REQUIREMENTS; None where it has no such name.

    Raises:
        ValueError: something else than a tuple of texts.
    """
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target: Any = node.target if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])[0]
        if not isinstance(target, ast.Name) or target.id != "REQUIREMENTS":
            continue
        try:
            given = ast.literal_eval(node.value)  # type: ignore[attr-defined]
        except ValueError as error:
            raise ValueError(f"{path}: REQUIREMENTS must be written out") from error
        if not isinstance(given, tuple) or not all(isinstance(one, str) for one in given):
            raise ValueError(f"{path}: REQUIREMENTS={given!r}: must be a tuple of texts")
        return given
    return None


def constraints(requirements: tuple[str, ...], pins: str) -> str:
    """The lines of constraints.txt that requirements leave in force: where they name a package, theirs holds."""
    named = {_package(one) for one in requirements}
    return "".join(f"{line}\n" for line in pins.splitlines() if _package(line) not in named)


def _package(requirement: str) -> str:
    """The normalised name of the package that a requirement is of."""
    name = re.match(r"[\w.-]*", requirement.strip())
    return re.sub(r"[-_.]+", "-", name[0] if name else "").lower()


def environment(program: Program, folder: Path, log: Path) -> Path:
    """The Python of the program's environment in `folder`, which is made unless it is there with these requirements.

    Args:
        program: whose requirements are installed, with this checkout.
        folder: of the environment.
        log: what pip says.

    Raises:
        ValueError: pip failed.
    """
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    wanted = constraints(program.requirements, (CHECKOUT / "constraints.txt").read_text(encoding="utf-8"))
    installed, text = folder / "requirements.txt", "\n".join([*program.requirements, wanted])
    if installed.is_file() and installed.read_text(encoding="utf-8") == text:
        return python
    install = [str(python), "-m", "pip", "install", "-c", str(folder / "constraints.txt"), "-e", str(CHECKOUT)]
    call([sys.executable, "-m", "venv", "--clear", str(folder)], log)
    write_text(folder / "constraints.txt", wanted)
    call([*install, *program.requirements], log)
    # Last, so that a broken installation is begun anew.
    write_text(installed, text)
    return python


def call(command: list[str], log: Path) -> str:
    """Runs a command in the checkout; returns what it prints, and appends to `log` what it says besides.

    Raises:
        ValueError: it failed; the message ends with its last lines.
    """
    with open(log, "a", encoding="utf-8") as errors:
        done = subprocess.run(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=errors, text=True)
    if done.returncode:
        last = (log.read_text(encoding="utf-8") + done.stdout).splitlines()[-5:]
        raise ValueError("\n".join([f"{' '.join(command)}: failed with {done.returncode}; see {log}", *last]))
    return done.stdout
