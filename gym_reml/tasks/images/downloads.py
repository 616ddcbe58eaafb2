"""Files of data sets: the folder that holds them, and downloads, verified before they appear in it."""

from __future__ import annotations

import hashlib
import http.client
import os
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from gym_reml.files import write_file

ROOT_VARIABLE = "GYM_REML_DATA"
DEFAULT_ROOT = "~/.cache/gym_reml"
ALGORITHMS = {32: "md5", 64: "sha256"}
"""Hash functions by the length of their hexadecimal digests."""


class StampedFile(NamedTuple):
    """A file, with size and time to detect changes since it was read.

    Attributes:
        path: absolute.
        size: in bytes.
        modified: time of the last modification, in nanoseconds.
    """

    path: str
    size: int
    modified: int


def stamp(path: Path) -> StampedFile:
    """The file's present size and time.

    Raises:
        FileNotFoundError: there is no such file.
    """
    status = path.stat()
    return StampedFile(str(path), status.st_size, status.st_mtime_ns)


def data_folder(root: str | os.PathLike[str] | None, name: str, *, create: bool = False) -> Path:
    """The folder of a data set's files.

    Args:
        root: the folder itself, or one that holds it under the data set's `name`; None for the environment variable
            GYM_REML_DATA, or without it `~/.cache/gym_reml`.
        name: of the data set.
        create: the folder may be created: always one of the data set's own, `name` in `root`.
    """
    given = root or os.environ.get(ROOT_VARIABLE)
    base = Path(given or DEFAULT_ROOT).expanduser().resolve()
    return base / name if create or not given or (base / name).is_dir() else base


def download(
    folder: Path, checksums: Mapping[str, str], base_url: str, content: Callable[[bytes], bytes] = bytes
) -> None:
    """Downloads files into `folder`, unless they exist with the right checksums.

    Args:
        folder: is created if missing.
        checksums: md5 or sha256 of each file's content, hexadecimal, by name.
        base_url: of the files, up to their names.
        content: from a file's bytes to those of which the checksum is, such as decompressed ones.

    Raises:
        OSError: the network or the disk failed.
        ValueError: the checksum of a downloaded file is wrong; it is not kept.
    """
    for name, checksum in checksums.items():
        target = folder / name
        if target.is_file() and _file_checksum(stamp(target), ALGORITHMS[len(checksum)], content) == checksum:
            continue
        received = fetch(base_url + name, checksum, f"download it by hand and put it in {folder}", content)
        write_file(target, partial(_write, received))


def fetch(url: str, checksum: str, instead: str, content: Callable[[bytes], bytes] = bytes) -> bytes:
    """What is at `url`, verified.

    Args:
        url: of a file.
        checksum: md5 or sha256 of its content, hexadecimal.
        instead: what the user can do if it cannot be fetched, for the message.
        content: from the file's bytes to those of which the checksum is.

    Raises:
        OSError: the network failed.
        ValueError: another checksum.
    """
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            received: bytes = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise OSError(f"could not fetch {url}: {error}; {instead}") from error
    algorithm = ALGORITHMS[len(checksum)]
    found = _checksum(received, algorithm, content)
    if found != checksum:
        raise ValueError(f"{url} has {algorithm} {found}, expected {checksum}: it was not kept")
    return received


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


@lru_cache(maxsize=16)
def _file_checksum(file: StampedFile, algorithm: str, content: Callable[[bytes], bytes]) -> str | None:
    return _checksum(Path(file.path).read_bytes(), algorithm, content)


def _checksum(data: bytes, algorithm: str, content: Callable[[bytes], bytes]) -> str | None:
    """None if `content` cannot read the data."""
    try:
        return hashlib.new(algorithm, content(data), usedforsecurity=False).hexdigest()
    except (OSError, EOFError, ValueError, zlib.error, zipfile.BadZipFile):
        return None
