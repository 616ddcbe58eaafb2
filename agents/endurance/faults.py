"""Faults of the machine and files from strangers: what each of them ends in."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from gym_reml.evaluation import MetaLearner, Result
from gym_reml.files import load_safely, save_atomically, write_folder
from gym_reml.pool import LayerPool

from ..runs.run import FORMAT, Run
from .journal import Row


class Hostile:
    """An object whose pickle touches a file where it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.trace,)


def _refused(error: type[Exception], act: Callable[[], Any]) -> str:
    """The message of the error that this ends in.

    Raises:
        ValueError: it ends in none.
    """
    try:
        act()
    except error as found:
        return f"{type(found).__name__}: {found}"
    raise ValueError(f"no {error.__name__}")


def _pool(seed: int = 0) -> LayerPool:
    return LayerPool.random(in_features=1, out_features=1, width=4, layers=2, seed=seed)


def _full_disk(folder: Path) -> str:
    """The old file stays, and no part of the new one is left."""
    path = folder / "pool.pt"
    _pool().save(path)
    before = path.read_bytes()
    with mock.patch("os.fsync", side_effect=OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))):
        said = _refused(OSError, lambda: _pool(1).save(path))
    if path.read_bytes() != before or len(list(folder.iterdir())) != 1:
        raise ValueError("the old file is gone, or a part of the new one is left")
    return said


def _full_disk_in_a_checkpoint(folder: Path) -> str:
    """The checkpoint before stays the latest."""
    save_atomically({}, folder / "checkpoints" / "1" / "agent.pt")

    def write() -> None:
        with write_folder(folder / "checkpoints" / "2") as part:
            (part / "agent.pt").write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    said = _refused(OSError, write)
    if [path.name for path in (folder / "checkpoints").iterdir()] != ["1"]:
        raise ValueError("a part of a checkpoint is left")
    return said


def _read_only_folder(folder: Path) -> str:
    """Said by the system's own message; injected, as root may write anywhere."""
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
    with mock.patch("builtins.open", side_effect=denied):
        return _refused(OSError, lambda: _pool().save(folder / "pool.pt"))


def _truncated(folder: Path) -> str:
    path = folder / "agent.pt"
    save_atomically({"a": torch.arange(1000)}, path)
    path.write_bytes(path.read_bytes()[:-500])
    return _refused(ValueError, lambda: load_safely(path))


def _two_runs(folder: Path) -> str:
    """The second one is told."""
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"format": FORMAT}), encoding="utf-8")
    with Run(run).held():
        return _refused(ValueError, lambda: Run(run).held().__enter__())


def _hostile(read: Callable[[Path], Any], name: str, *, zipped: bool) -> Callable[[Path], str]:
    """A file of that name that holds an object with code in its pickle, read by `read`."""

    def act(folder: Path) -> str:
        trace, path = folder / "trace", folder / name
        content = {"format": "x", "kind": Hostile(trace)}
        if zipped:
            torch.save(content, path)
        else:
            path.write_bytes(pickle.dumps(content))
        said = _refused(ValueError, lambda: read(path))
        if trace.exists():
            raise ValueError("its code was run")
        return said

    return act


FAULTS: dict[str, Callable[[Path], str]] = {
    "a full disk": _full_disk,
    "a full disk in a checkpoint": _full_disk_in_a_checkpoint,
    "a read-only folder": _read_only_folder,
    "a truncated file": _truncated,
    "two runs in one folder": _two_runs,
} | {
    f"a hostile {what}, {'zipped' if zipped else 'a bare pickle'}": _hostile(read, name, zipped=zipped)
    for what, name, read in (
        ("pool", "pool.pt", LayerPool.load),
        ("learner", "learner.pt", lambda path: MetaLearner.load(path.parent)),
        ("checkpoint", "agent.pt", load_safely),
        ("result", "result.json", Result.load),
        ("run", "config.json", lambda path: Run(path.parent)),
    )
    for zipped in (True, False)
}
"""What is done in an empty folder; each returns the message that it ended in."""

FEW = len(FAULTS)


def attempt(number: int) -> Row:
    """Makes one of the faults, which take turns.

    Raises:
        ValueError: it did not end in a clear error, damaged what was there, or ran code of a file.
    """
    name = tuple(FAULTS)[number % len(FAULTS)]
    with tempfile.TemporaryDirectory() as folder:
        return {"fault": name, "said": FAULTS[name](Path(folder)).replace(folder, "FOLDER")}


def summary(rows: list[Row]) -> str:
    """What the trials that did not fail found."""
    return "\n".join(f"{row['fault']}: {row['said']}" for row in rows)
