"""Files written in one piece, and read without executing anything in them."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import torch


def save_atomically(state: Any, path: str | os.PathLike[str]) -> None:
    """`torch.save` to a temporary file beside `path`, then a rename over it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are for one user alone, and the file would stay so.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_safely(path: str | os.PathLike[str]) -> Any:
    """`torch.load(weights_only=True)` onto the CPU; ValueError for what is damaged or not a torch file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise  # the file is absent, a folder, forbidden: the message says it
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path}: not a readable file of this kind, or damaged ({type(error).__name__})") from error
