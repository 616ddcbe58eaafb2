"""Run directories: what a run writes, atomically, and how it is continued after an interruption."""

from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, fields, is_dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import gym_reml
from gym_reml.files import as_path, file_name, write_folder, write_text
from gym_reml.networks.work import count_work, work_so_far

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

C = TypeVar("C")

LIBRARIES = ("torch", "numpy", "gymnasium", "stable_baselines3", "sb3_contrib")
ABOUT = ("settings", "versions", "commit")
"""Entries of config.json about the circumstances of a run; all others are its options."""

FORMAT = "gym_reml.Run/1"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
"""Errors of file systems, often shared ones, that know no locks."""

CHECKPOINTS = "checkpoints"
WORK = "work.json"

COMMIT = "GYM_REML_COMMIT"
"""Environment variable with the commit of code that was sent here without its repository; empty for none."""


TASKS_OF_A_RUN = 100_000_000
"""Number of seeds of training tasks that are reserved for each run."""


class Run:
    """A run directory: config.json, checkpoints/, and the results of the run.

    Attributes:
        folder: where it is.
        config: the options that it was started with.
        about: what else config.json holds: the settings used, versions, and the commit of the code.
    """

    def __init__(self, folder: Path) -> None:
        """An existing run directory.

        Raises:
            FileNotFoundError: no such run.
            ValueError: a run of another version, or a damaged config.json.
        """
        self.folder = folder = as_path(folder)
        path = folder / "config.json"
        if not path.is_file():
            raise FileNotFoundError(f"{folder}: no run directory (it has no config.json)")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path}: damaged ({error})") from error
        if not isinstance(content, dict):
            raise ValueError(f"{path}: damaged (holds no options)")
        found = content.pop("format", None)
        if found != FORMAT:
            raise ValueError(f"{path}: not a run this version reads (found {found!r}, expected {FORMAT!r})")
        self.about: dict[str, Any] = {name: content.pop(name) for name in ABOUT if name in content}
        self.config: dict[str, Any] = content

    def options(self, kind: type[C]) -> C:
        """The configuration of that class that the run was started with.

        Raises:
            ValueError: a run of another command.
        """
        known = {option.name for option in fields(kind)}  # type: ignore[arg-type]
        unknown = [name for name in self.config if name not in known]
        if unknown:
            raise ValueError(f"{self.folder}: a run of another command (its config.json holds {unknown[0]!r})")
        return kind(**self.config)

    @classmethod
    def create(cls, folder: Path | None, config: Any, label: str, settings: Mapping[str, Any] | None = None) -> Run:
        """A new run directory, by default runs/TIME-label.

        Args:
            folder: where, or None.
            config: its options, a dataclass.
            label: end of the default name.
            settings: the resulting settings, recorded beside the options.

        Raises:
            FileExistsError: the folder exists.
        """
        if folder is None:
            folder = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{file_name(label)}"
        folder = as_path(folder)
        # A run that was killed at its very beginning leaves nothing but a hidden, unfinished file.
        if folder.exists() and any(not path.name.startswith(".") for path in folder.iterdir()):
            resume = f", or go on with it by --resume {folder}" if hasattr(config, "resume") else ""
            raise FileExistsError(f"{folder}: exists already; choose another --run{resume}")
        assert is_dataclass(config)
        assert not isinstance(config, type)
        about = {"settings": settings, "versions": versions(), "commit": commit()}
        content = {"format": FORMAT, **asdict(config), **about}
        write_text(folder / "config.json", json.dumps(content, indent=1, default=str))
        return cls(folder)

    @classmethod
    def begun(cls, folder: Path, config: Any, label: str) -> Run:
        """The interrupted run in that folder, to be continued, or a new one.

        Raises:
            ValueError: the run in that folder has another configuration.
        """
        folder = as_path(folder)
        if not (folder / "config.json").is_file():
            return cls.create(folder, config, label)
        run = cls(folder)
        if run.config != json.loads(json.dumps(asdict(config), default=str)):
            raise ValueError(f"{folder}: was begun by another recipe; choose another run directory")
        return run

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training this run until the block ends; there is no such lock on Windows.

        Raises:
            ValueError: another process trains it.
        """
        with open(self.folder / "config.json", "rb") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise ValueError(f"{self.folder}: another process is training this run") from None
                except OSError as error:
                    if error.errno not in WITHOUT_LOCKS:
                        raise
            yield

    def checkpoint(self, number: int, write: Callable[[Path], None]) -> None:
        """Keeps a checkpoint; see `keep_checkpoint`."""
        keep_checkpoint(self.folder, number, write)

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """The newest whole checkpoint, and its number."""
        return latest_checkpoint(self.folder)


def keep_checkpoint(folder: Path, number: int, write: Callable[[Path], None]) -> None:
    """Keeps a checkpoint: `write` fills a folder, which then gets its name in one step; older ones go."""
    target = folder / CHECKPOINTS / f"{number:012d}"
    with write_folder(target) as part:
        write(part)
        keep_work(part / WORK)
    for path in target.parent.iterdir():
        if path.name != target.name:
            shutil.rmtree(path, ignore_errors=True)


def latest_checkpoint(folder: Path) -> tuple[int, Path] | None:
    """The newest whole checkpoint in a run's folder, and its number."""
    parent = folder / CHECKPOINTS
    whole = sorted(path for path in parent.glob("*") if path.name.isdigit()) if parent.is_dir() else []
    return (int(whole[-1].name), whole[-1]) if whole else None


def keep_work(path: Path) -> None:
    """Writes the work so far, where it is counted, for runs that go on from what is kept beside the file."""
    work = work_so_far()
    if work is not None:
        write_text(path, json.dumps(asdict(work)))


def recall_work(path: Path) -> None:
    """Counts what `keep_work` wrote: work that was done before an interruption."""
    count_work(**json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"whole": False})


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
    if COMMIT in os.environ:
        return os.environ[COMMIT] or None
    root = Path(__file__).resolve().parents[2]
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
