"""The Omniglot archives: finding or downloading them, decoding their drawings, splitting their characters.

Omniglot: B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 350 (2015); MIT licence.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import tempfile
import urllib.request
import zipfile
import zlib
from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

SIDE = 28
"""Height and width of the images after shrinking, in pixels (105 in the archives)."""
DRAWINGS = 20
"""Drawings of every character."""
ROOT_VARIABLE = "GYM_REML_DATA"
DEFAULT_ROOT = "~/.cache/gym_reml/omniglot"
PATTERNS = ("images_background*.zip", "images_evaluation.zip")
BASE_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
CHECKSUMS = {
    "images_background_small1.zip": "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    "images_background_small2.zip": "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
}
"""sha256 of the archives that `download` fetches."""
SPLITS_BY = ("character", "alphabet")
SHARES = {"train": 160, "validation": 20, "test": 62}
"""The splits of the two small archives' 242 characters; other collections are split in the same proportions."""

Name = tuple[str, str]
"""A character: its alphabet and its folder in it."""


class Archive(NamedTuple):
    """A zip file, with what tells whether it changed since it was decoded.

    Attributes:
        path: absolute.
        size: in bytes.
        modified: time of the last change in nanoseconds.
    """

    path: str
    size: int
    modified: int


@dataclass(frozen=True, eq=False)
class Characters:
    """Every character of some archives, in order of name whatever the archives' order.

    Attributes:
        names: alphabet and character folder of each.
        images: (characters, DRAWINGS, SIDE * SIDE) uint8, ink 255 on 0, read-only.
        members: the characters of each split, for both ways of splitting: `members[split_by][split]`, (m,) int64.
    """

    names: tuple[Name, ...]
    images: NDArray[np.uint8]
    members: dict[str, dict[str, NDArray[np.int64]]]


def data_root(root: str | None) -> Path:
    """The folder of the archives: `root`, else the environment's GYM_REML_DATA, else a folder in the user's cache."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT).expanduser().resolve()


def find_archives(folder: Path) -> tuple[Archive, ...]:
    """The archives in `folder`, in order of name; nothing is read.

    Raises:
        FileNotFoundError: there is none.
    """
    paths = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    if not paths:
        raise FileNotFoundError(
            f"no Omniglot archives in {folder} (looked for {' and '.join(PATTERNS)}): set root= or the environment "
            f"variable {ROOT_VARIABLE} to the folder that holds them, or download=True to fetch the two small ones"
        )
    return tuple(map(_stamp, paths))


def download(folder: Path) -> None:
    """Fetches the two small archives into `folder` unless they are there with the right checksum.

    A file appears in the folder whole and verified, or not at all.

    Raises:
        OSError: the network or the disk failed.
        ValueError: what came is not the archive expected.
    """
    for name, checksum in CHECKSUMS.items():
        target = folder / name
        if target.is_file() and _checksum(_stamp(target)) == checksum:
            continue
        url = BASE_URL + name
        try:
            with urllib.request.urlopen(url, timeout=60) as response:
                content: bytes = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise OSError(f"could not fetch {url}: {error}; fetch it by hand and put it in {folder}") from error
        received = hashlib.sha256(content).hexdigest()
        if received != checksum:
            raise ValueError(f"{url} has sha256 {received}, expected {checksum}: nothing was kept")
        folder.mkdir(parents=True, exist_ok=True)
        # A folder of its own, on the same disk: other processes may be fetching the same file.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
            part = Path(temporary, name)
            part.write_bytes(content)
            os.replace(part, target)


@lru_cache(maxsize=4)
def read_characters(archives: tuple[Archive, ...]) -> Characters:
    """Decodes `archives`, once per process and state of the files; a character in several of them counts once.

    Raises:
        FileNotFoundError: an archive has gone since it was found.
        ImportError: Pillow is missing.
        ValueError: an archive is damaged, or is not laid out as Omniglot's are.
    """
    found: dict[Name, NDArray[np.uint8]] = {}
    for archive in archives:
        found |= _read_archive(archive.path, found)
    names = tuple(sorted(found))
    images = np.stack([found[name] for name in names])
    images.setflags(write=False)
    members = {"character": split_by_character(names), "alphabet": split_by_alphabet(names)}
    return Characters(names, images, members)


def split_by_character(names: Sequence[Name]) -> dict[str, NDArray[np.int64]]:
    """Splits the positions of `names` in the proportions of SHARES, mixing alphabets; the order does not matter."""
    order = sorted(range(len(names)), key=lambda index: _rank("/".join(names[index])))
    bounds = [round(len(names) * part / sum(SHARES.values())) for part in np.cumsum(list(SHARES.values()))]
    parts = np.split(np.array(order, dtype=np.int64), bounds[:-1])
    return {split: np.sort(part) for split, part in zip(SHARES, parts, strict=True)}


def split_by_alphabet(names: Sequence[Name]) -> dict[str, NDArray[np.int64]]:
    """Splits the positions of `names` by whole alphabets, as near to the proportions of SHARES as they allow.

    From three alphabets on, no split is empty.
    """
    alphabets: dict[str, list[int]] = {}
    for index, (alphabet, _) in enumerate(names):
        alphabets.setdefault(alphabet, []).append(index)
    missing = {split: len(names) * share / sum(SHARES.values()) for split, share in SHARES.items()}
    members: dict[str, list[int]] = {split: [] for split in SHARES}
    # The largest alphabets first, each to the split that lacks most: the small ones then even out the shares.
    order = sorted(alphabets, key=lambda alphabet: (-len(alphabets[alphabet]), _rank(alphabet)))
    for position, alphabet in enumerate(order):
        empty = [split for split in SHARES if not members[split]]
        candidates = empty if len(order) - position <= len(empty) else list(SHARES)
        split = max(candidates, key=missing.__getitem__)
        members[split] += alphabets[alphabet]
        missing[split] -= len(alphabets[alphabet])
    return {split: np.array(sorted(indices), dtype=np.int64) for split, indices in members.items()}


def _rank(name: str) -> bytes:
    """A fixed random rank: a hash, for it is the same in every version of every library."""
    return hashlib.sha256(f"gym_reml omniglot {name}".encode()).digest()


def _stamp(path: Path) -> Archive:
    status = path.stat()
    return Archive(str(path), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=16)
def _checksum(archive: Archive) -> str:
    return hashlib.sha256(Path(archive.path).read_bytes()).hexdigest()


def _read_archive(path: str, known: Container[Name]) -> dict[Name, NDArray[np.uint8]]:
    """The drawings (DRAWINGS, SIDE * SIDE) of the characters in the archive at `path` that are not `known`."""
    pillow = import_pillow("Omniglot")
    try:
        with zipfile.ZipFile(path) as archive:
            folders: dict[Name, list[str]] = {}
            for member in archive.namelist():
                parts = member.split("/")
                # Not "__MACOSX/..." and its "._0001_01.png", which archives made on a Mac carry.
                if len(parts) == 4 and parts[0].startswith("images_") and parts[3].endswith(".png"):
                    folders.setdefault((parts[1], parts[2]), []).append(member)
            if not folders:
                raise ValueError(f"{path} holds no images named images_.../ALPHABET/CHARACTER/NAME.png")
            return {
                name: _read_character(pillow, archive, sorted(members))
                for name, members in folders.items()
                if name not in known
            }
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and fetch it anew") from error


def _read_character(pillow: ModuleType, archive: zipfile.ZipFile, members: list[str]) -> NDArray[np.uint8]:
    if len(members) != DRAWINGS:
        folder = members[0].rpartition("/")[0]
        raise ValueError(f"{archive.filename}: {folder} has {len(members)} drawings, expected {DRAWINGS}")
    images = np.empty((DRAWINGS, SIDE, SIDE), dtype=np.uint8)
    for image, member in zip(images, members, strict=True):
        try:
            with pillow.open(io.BytesIO(archive.read(member))) as picture:
                # As grey before shrinking: pixels at the edge of a stroke become the share of ink they cover.
                image[:] = picture.convert("L").resize((SIDE, SIDE), pillow.Resampling.BOX)
        except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
            raise ValueError(f"{archive.filename}: cannot decode {member} ({error})") from error
    return (255 - images).reshape(DRAWINGS, SIDE * SIDE)


def import_pillow(who: str) -> ModuleType:
    """Pillow's `Image`.

    Raises:
        ImportError: it is missing; the message says who needs it.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f'{who} needs Pillow to read its images: pip install "gym-reml[render]"') from error
    return Image
