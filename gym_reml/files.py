"""Atomic writing of files and folders, and reading without executing their content."""

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
"""Characters that Windows does not allow in file names."""


def as_path(path: str | os.PathLike[str]) -> Path:
    """The path, with `~` expanded."""
    return Path(os.path.expanduser(path))


def file_name(name: str) -> str:
    """A file name, valid on any system, from a learner's or a family's name: forbidden characters become "-"."""
    return FORBIDDEN.sub("-", name).rstrip(". ") or "-"


def write_file(path: str | os.PathLike[str], write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file atomically: readers find the old content or the new, never a part.

    Args:
        path: of the file; missing folders are created.
        write: writes the content into the in-memory file that it is called with. If it raises, `path` is unchanged.
    """
    content = io.BytesIO()
    write(content)
    path = as_path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Not `tempfile`, whose files only their owner may read: the result would keep these permissions.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with open(temporary, "xb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None and error.filename is None:
            error.filename = str(path)  # a full disk does not say where
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text as UTF-8, atomically."""
    content = text.encode("utf-8")
    write_file(path, lambda file: file.write(content))


def save_atomically(state: Any, path: str | os.PathLike[str]) -> None:
    """`torch.save`, atomically."""
    write_file(path, lambda file: torch.save(state, file))


@contextmanager
def write_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a folder atomically: the block fills a temporary folder, which is then renamed.

    Use `with write_folder(folder) as part:`. An existing folder is replaced; if the block raises, it is unchanged.
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
        # No system replaces a folder that is not empty in a single operation.
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
    """Flushes a file to disk."""
    # Windows flushes only through writable descriptors.
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(path: Path) -> None:
    """Flushes a folder's entries to disk, where the system can."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except PermissionError:
        return  # Windows cannot open folders
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_safely(path: str | os.PathLike[str]) -> Any:
    """`torch.load(weights_only=True)` onto the CPU.

    Raises:
        OSError: the file is missing or cannot be opened.
        ValueError: the file is damaged, or not one that `torch.save` wrote.
    """
    # Read first, since torch raises an OSError of its own for some files that were cut off.
    content = as_path(path).read_bytes()
    try:
        # Tensors created in inference mode could not be trained afterwards.
        with torch.inference_mode(False):
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            _check_tensors(state)
    except Exception as error:  # a damaged pickle can raise anything
        raise ValueError(f"{path}: not a readable file of this kind, or damaged ({type(error).__name__})") from error
    return state


def _check_tensors(state: Any) -> None:
    """Raises a ValueError if a tensor is not dense, or declares more elements than its storage in the file has."""
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
