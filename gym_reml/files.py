"""Files and folders written whole or not at all, and read without executing anything in them."""

from __future__ import annotations

import io
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f]')
"""Characters that Windows has in no file's name."""


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path, with `~` spelled out."""
    return Path(os.path.expanduser(path))


def file_name(name: str) -> str:
    """The name with "-" for what no file's name may hold somewhere: a learner's or a family's as that of a file."""
    return FORBIDDEN.sub("-", name).rstrip(". ") or "-"


def write_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file in one piece: whoever reads it finds the old one or the new one, never a part.

    Args:
        path: of the file; folders that are not there are made.
        write: writes the content to the binary file that it is given, which holds it in memory. If it fails, nothing
            was touched.
    """
    content = io.BytesIO()
    write(content)
    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`: its files are for one user alone, and the file would stay so.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8, in one piece."""
    content = text.encode("utf-8")
    write_file(path, lambda file: file.write(content))


def save_atomically(state: Any, path: str | os.PathLike[str]) -> None:
    """`torch.save`, in one piece."""
    write_file(path, lambda file: torch.save(state, file))


@contextmanager
def write_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a folder in one piece: the block fills another one, which then gets the name.

    `with write_folder(folder) as part:`. Where the folder is there already it is replaced. If the block fails, it stays
    as it was.
    """
    folder = as_path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}")
    old = part.with_name(f"{part.name}.old")
    part.mkdir()
    try:
        yield part
        for path in part.rglob("*"):
            if path.is_file():
                _flush(path)
        # No system puts a folder in the place of one that holds something in a single step.
        if folder.exists():
            os.rename(folder, old)
        os.rename(part, folder)
    except BaseException:
        if old.exists() and not folder.exists():
            os.rename(old, folder)
        shutil.rmtree(part, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)
    _flush_folder(folder.parent)


def _flush(path: Path) -> None:
    """Makes sure that a file has reached the disk."""
    # Windows flushes through writable descriptors alone.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Makes sure that the names in a folder have reached the disk, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows has no descriptors of folders
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_safely(path: str | os.PathLike[str]) -> Any:
    """`torch.load(weights_only=True)` onto the CPU; ValueError for what is damaged or not a torch file."""
    try:
        # Whoever reads in inference mode wants weights that can learn all the same.
        with torch.inference_mode(False):
            state = torch.load(as_path(path), map_location="cpu", weights_only=True)
            _check_tensors(state)
    except OSError:
        raise  # the file is absent, a folder, forbidden: the message says it
    except Exception as error:  # a damaged pickle can fail in any way
        raise ValueError(f"{path}: not a readable file of this kind, or damaged ({type(error).__name__})") from error
    return state


def _check_tensors(state: Any) -> None:
    """Raises a ValueError if there are tensors that say they hold more numbers than the file did."""
    if isinstance(state, torch.Tensor):
        dense = state.layout is torch.strided and state.device.type == "cpu" and not state.is_quantized
        if not dense or state.numel() * state.element_size() > state.untyped_storage().nbytes():
            raise ValueError("a tensor that is not there number by number")
    elif isinstance(state, dict):
        for value in state.values():
            _check_tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            _check_tensors(value)
