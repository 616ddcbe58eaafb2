"""Run directories: what a training writes, whole or not at all, and how it goes on after an interruption."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import asdict, is_dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import gym_reml
from gym_reml.results import write_text

LIBRARIES = ("torch", "numpy", "gymnasium", "stable_baselines3", "sb3_contrib")

FORMAT = "gym_reml.Run/1"
CHECKPOINTS = "checkpoints"


TASKS_OF_A_RUN = 100_000_000
"""Seeds of training tasks that one run may use without meeting those of another."""


class Run:
    """A run directory: config.json, checkpoints/, and whatever the run leaves at its end."""

    def __init__(self, folder: Path) -> None:
        """An existing run directory.

        Raises:
            FileNotFoundError: no such run.
            ValueError: a run of another version, or a damaged config.json.
        """
        self.folder = folder
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder}: no run directory (it has no config.json)")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: damaged ({error})") from error
        found = content.pop("format", None)
        if found != FORMAT:
            raise ValueError(f"{path}: not a run this version reads (found {found!r}, expected {FORMAT!r})")
        self.config: dict[str, Any] = content

    @classmethod
    def create(cls, folder: Path | None, config: Any, label: str) -> Run:
        """A new run directory, by default runs/TIME-label.

        Raises:
            FileExistsError: there is something already.
        """
        if folder is None:
            folder = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{label}"
        if folder.exists() and any(folder.iterdir()):
            raise FileExistsError(
                f"{folder}: exists already; choose another --run, or go on with it by --resume {folder}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        assert is_dataclass(config)
        assert not isinstance(config, type)
        write_text(folder / "config.json", json.dumps({"format": FORMAT, **asdict(config)}, indent=1, default=str))
        return cls(folder)

    @classmethod
    def begun(cls, folder: Path, config: Any, label: str) -> Run:
        """The run that an interruption left there, to go on with, or a new one.

        Raises:
            ValueError: what is there was begun by another configuration.
        """
        if not (folder / "config.json").is_file():
            return cls.create(folder, config, label)
        run = cls(folder)
        if run.config != json.loads(json.dumps(asdict(config), default=str)):
            raise ValueError(f"{folder}: was begun by another recipe; choose another run directory")
        return run

    def checkpoint(self, number: int, write: Callable[[Path], None]) -> None:
        """Keeps a checkpoint: `write` fills a folder, which then gets its name in one step; older ones go."""
        parent = self.folder / CHECKPOINTS
        parent.mkdir(exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".part-"))
        write(temporary)
        for path in temporary.rglob("*"):
            _flush(path)
        target = parent / f"{number:012d}"
        shutil.rmtree(target, ignore_errors=True)
        os.rename(temporary, target)
        _flush(parent)
        for path in parent.iterdir():
            if path.name != target.name:
                shutil.rmtree(path, ignore_errors=True)

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """The newest whole checkpoint, and its number."""
        parent = self.folder / CHECKPOINTS
        whole = sorted(path for path in parent.glob("*") if path.name.isdigit()) if parent.is_dir() else []
        return (int(whole[-1].name), whole[-1]) if whole else None


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of what figures depend on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "gym_reml": gym_reml.__version__}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def commit() -> str | None:
    """The commit of the checkout that this code is run from, "-dirty" behind it if files were changed; else None."""
    root = Path(__file__).resolve().parent.parent
    try:
        top, head = _git(root, "rev-parse", "--show-toplevel", "HEAD").split()
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    # An environment may lie inside a repository of its user's, which says nothing about this code.
    return f"{head}{'-dirty' if changed else ''}" if Path(top).resolve() == root else None


def _git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=folder, capture_output=True, check=True, timeout=10, encoding="utf-8"
    )
    return done.stdout.strip()


def _flush(path: Path) -> None:
    """Makes sure that a file or folder has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
