"""Commands that are killed at random moments and gone on with, beside the same ones undisturbed."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
import tempfile
import time
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

# Loaded once, before processes are forked that need them.
from ..comparison import siblings  # noqa: F401
from ..pages import report, routing  # noqa: F401
from ..runs import progress
from ..runs.command_line import AGENTS
from ..trials.rl2 import training  # noqa: F401
from .journal import Row

FEW = 1
KILLS = 4
"""Kills of a run, unless it ends before."""

TIMES = ("seconds", "run", "resume", "commit", "versions")
"""Entries of JSON files that say when, where and by what code."""


class Command(NamedTuple):
    """A command in a quick form.

    Attributes:
        module: of the command, below `agents`.
        arguments: without the run directory.
        resumes: whether it is gone on with by --resume; else by the same arguments.
    """

    module: str
    arguments: str
    resumes: bool


COMMANDS = {
    "train": Command(
        "train", "--total-steps 10000 --bootstrap-iterations 6 --n-envs 32 --evaluation-tasks 4 --seed 1", True
    ),
    "rl2": Command("rl2", "--env bandit --episodes 5 --total-steps 6000 --evaluation-trials 10", True),
    "train off-policy": Command(
        "train", "--algorithm SAC --total-steps 2000 --bootstrap-iterations 2 --n-envs 32 --evaluation-tasks 4", True
    ),
    "compare": Command(
        "compare",
        "--family sinusoid --shots 5 --learners reml meta_sgd scratch --tasks 320 --seeds 1 --evaluation-tasks 4",
        False,
    ),
    "augment": Command("compare", "--family augment --learners ppo --tasks 200 --seeds 1 --evaluation-tasks 2", False),
    "rule": Command("compare", "--family rule --learners ppo --tasks 200 --seeds 1 --evaluation-tasks 2", False),
}
"""What is killed, in turns."""


def attempt(number: int) -> Row:
    """Kills a run at random moments, lets it end, and compares what it has found.

    Raises:
        ValueError: it does not go on, or has found something else.
    """
    name = tuple(COMMANDS)[number % len(COMMANDS)]
    command = COMMANDS[name]
    whole, seconds = _undisturbed(name)
    generator = np.random.default_rng([number, 2])
    killed: list[Row] = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        while True:
            moment = float(generator.uniform(0.0, seconds)) if len(killed) < KILLS else None
            code = _run(command, folder, moment)
            if code is None:
                checkpoints = sorted(path.name for path in folder.rglob("checkpoints/[0-9]*"))
                killed.append({"after": round(moment or 0.0, 2), "checkpoints": checkpoints})
            elif code:
                raise ValueError(f"{name}: fails after {len(killed)} kills: {_log(folder)[-1000:]}")
            else:
                break
        found = outcome(folder)
    wrong = sorted(path for path in whole.keys() | found.keys() if whole.get(path) != found.get(path))
    if wrong:
        raise ValueError(f"{name}: after {killed} has found something else in {', '.join(wrong)}")
    return {"command": name, "kills": len(killed), "moments": killed}


@cache
def _undisturbed(name: str) -> tuple[dict[str, str], float]:
    """What the command finds, and how long it takes."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "run"
        if _run(COMMANDS[name], folder, None):
            raise ValueError(f"{name}: {_log(folder)[-1000:]}")
        return outcome(folder), time.monotonic() - began


def _run(command: Command, folder: Path, moment: float | None) -> int | None:
    """Runs, or goes on with, the command in a process of its own; its exit code, None if it was killed.

    Args:
        command: which.
        folder: run directory.
        moment: seconds after which it is killed, None for never.
    """
    where = ["--resume" if command.resumes and (folder / "config.json").is_file() else "--run", str(folder)]
    arguments = where if where[0] == "--resume" else [*command.arguments.split(), *where]
    process = get_context("fork").Process(target=_child, args=(command.module, arguments, folder))
    process.start()
    process.join(moment)
    if process.is_alive():
        process.kill()
        process.join()
        return None
    return process.exitcode


def _child(module: str, arguments: list[str], folder: Path) -> None:
    sys.argv = [module, *arguments]
    progress.LEAST = 1  # runs as short as these have no checkpoints otherwise
    with open(_log_path(folder), "a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        runpy.run_module(f"{AGENTS}.{module}", run_name="__main__", alter_sys=True)


def _log_path(folder: Path) -> Path:
    return folder.with_suffix(".log")


def _log(folder: Path) -> str:
    return _log_path(folder).read_text(encoding="utf-8")


def outcome(folder: Path) -> dict[str, str]:
    """A digest of every file of tensors or JSON that a run leaves, without times and checkpoints, by its path."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # What is hidden was left unfinished, and is read by nothing.
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or "checkpoints" in name or path.suffix not in (".json", ".pt"):
            continue
        content = (
            json.loads(path.read_text(encoding="utf-8"))
            if path.suffix == ".json"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
        found[name] = hashlib.sha256(_plain(content).encode()).hexdigest()
    return found


def _plain(value: Any) -> str:
    """A value as a text, bit for bit."""
    if isinstance(value, dict):
        kept = sorted((str(name), entry) for name, entry in value.items() if name not in TIMES)
        return f"{{{', '.join(f'{name}: {_plain(entry)}' for name, entry in kept)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_plain, value))}]"
    if isinstance(value, torch.Tensor):
        return f"{value.dtype} {tuple(value.shape)} {value.contiguous().numpy().tobytes().hex()}"
    if isinstance(value, str) and value.startswith("{"):
        return _plain(json.loads(value))
    return repr(value)


def summary(rows: list[Row]) -> str:
    """What the trials that did not fail found."""
    kills = {name: sum(row["kills"] for row in rows if row["command"] == name) for name in COMMANDS}
    continued = sum(bool(one["checkpoints"]) for row in rows for one in row["moments"])
    return (
        f"{sum(kills.values())} kills ({', '.join(f'{count} of {name}' for name, count in kills.items())}), "
        f"{continued} of them with a checkpoint to go on from; every run ended as the undisturbed one, bit for bit"
    )
