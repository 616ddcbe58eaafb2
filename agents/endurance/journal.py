"""Numbered trials, each recorded as a line of a file, so that an interrupted command goes on where it was."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

Row = dict[str, Any]
"""A trial's number, its seconds, `error` where it failed, and its figures."""


def read(path: Path) -> list[Row]:
    """The trials recorded so far; a line that was cut off by an interruption is none."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        with suppress(ValueError):
            rows.append(json.loads(line))
    return rows


def record(path: Path, attempt: Callable[[int], Row], number: int) -> Row:
    """Makes the trial of that number and appends its line.

    Args:
        path: of the file.
        attempt: makes the trial and returns its figures; whatever it raises is recorded as its failure.
        number: of the trial.
    """
    began = time.monotonic()
    try:
        row = {"number": number, **attempt(number)}
    except Exception as error:
        traceback.print_exc()
        row = {"number": number, "error": f"{type(error).__name__}: {error}"}
    row |= {"seconds": round(time.monotonic() - began, 3), **usage()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        if file.tell() and not _ends_a_line(file):
            file.write(b"\n")
        file.write(json.dumps(row).encode() + b"\n")
    return row


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return bool(file.read() == b"\n")


def usage() -> Row:
    """The resident memory of this process in MB and its open file handles, where Linux tells; else nothing."""
    process = Path("/proc/self")
    if not process.is_dir():
        return {}
    # What has been freed is not counted: glibc keeps hundreds of MB that simulators of MuJoCo had.
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int((process / "statm").read_text(encoding="ascii").split()[1])
    memory = pages * os.sysconf("SC_PAGE_SIZE") / 1e6
    return {"memory": round(memory, 1), "handles": len(list((process / "fd").iterdir()))}
