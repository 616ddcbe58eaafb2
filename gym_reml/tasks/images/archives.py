"""The Omniglot archives: locating, downloading and decoding them, and splitting their characters.

Omniglot: B. M. Lake, R. Salakhutdinov, J. B. Tenenbaum, "Human-level concept learning through probabilistic program
induction", Science 350 (2015); MIT licence.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from gym_reml.tasks.images.downloads import ROOT_VARIABLE, StampedFile, data_folder, stamp
from gym_reml.tasks.images.downloads import download as download_files

SIDE = 28
"""Height and width of the images after shrinking, in pixels (105 in the archives)."""
DRAWINGS = 20
"""Number of drawings of each character."""
PATTERNS = ("images_background*.zip", "images_evaluation.zip")
BASE_URL = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
CHECKSUMS = {
    "images_background_small1.zip": "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    "images_background_small2.zip": "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
}
"""sha256 of the two small archives."""
WHOLE_NAME = "omniglot_full"
"""Name of the folder of the whole data set, beside that of the small archives."""
WHOLE_CHECKSUMS = {
    "images_background.zip": "68d2efa1b9178cc56df9314c21c6e718",
    "images_evaluation.zip": "6b91aef0f799c5bb55b94e3f2daec811",
}
"""md5 of the archives of the whole data set, as torchvision has them."""
WHOLE_SIZES = {"images_background.zip": 964, "images_evaluation.zip": 659}
"""Numbers of characters in them."""
SPLITS_BY = ("character", "alphabet", "vinyals", "lake")
WHOLE_SPLITS = ("vinyals", "lake")
"""Published splits, of the whole data set."""
VINYALS_VALIDATION = ("Armenian", "Bengali", "Early_Aramaic", "Hebrew", "Mkhedruli_(Georgian)")
VINYALS_TEST = (
    *("Kannada", "Keble", "Malayalam", "Manipuri", "Mongolian", "Old_Church_Slavonic_(Cyrillic)", "Oriya", "Sylheti"),
    *("Syriac_(Serto)", "Tengwar", "Tibetan", "ULOG"),
)
"""Alphabets of "vinyals"; all others are for training, but for VINYALS_TEST_CHARACTERS."""
VINYALS_TEST_CHARACTERS = tuple(("Gurmukhi", f"character{number}") for number in (42, 43, 44, 45))
LAKE_VALIDATION = 5
"""Number of background alphabets that "lake" holds out for validation."""
SHARES = {"train": 160, "validation": 20, "test": 62}
"""Numbers of characters per split for the two small archives; other collections are split in the same proportions."""

Name = tuple[str, str]
"""A character: names of its alphabet and of its folder."""


@dataclass(frozen=True, eq=False)
class Characters:
    """All characters of some archives, sorted by name.

    Attributes:
        names: alphabet and folder of each character.
        images: (characters, DRAWINGS, SIDE * SIDE) uint8, ink 255 on 0, read-only.
        members: indices of the characters of each split, by way of splitting: `members[split_by][split]`, (m,) int64;
            WHOLE_SPLITS are there only if the archives are those of the whole data set.
    """

    names: tuple[Name, ...]
    images: NDArray[np.uint8]
    members: dict[str, dict[str, NDArray[np.int64]]]

    def of_split(self, split_by: str, split: str) -> NDArray[np.int64]:
        """Indices (m,) of a split's characters.

        Raises:
            ValueError: a published split of other archives than those of the whole data set.
        """
        if split_by not in self.members:
            sizes = " and ".join(f"{name} {size}" for name, size in WHOLE_SIZES.items())
            raise ValueError(f"split_by={split_by!r}: of the whole data set alone, with {sizes} characters")
        return self.members[split_by][split]


def find_archives(root: str | None, *, whole: bool, download: bool) -> tuple[StampedFile, ...]:
    """The archives in the folder `root` (see `data_folder`), sorted by name, without reading them.

    Args:
        root: the folder.
        whole: the two archives of the whole data set; else whatever archives there are.
        download: download them if they are missing; of a data set that is not `whole`, the two small ones.

    Raises:
        FileNotFoundError: there are none.
        OSError: a download failed.
        ValueError: the checksum of a downloaded file is wrong.
    """
    name, patterns, kind = (
        (WHOLE_NAME, tuple(WHOLE_SIZES), "both") if whole else ("omniglot", PATTERNS, "the two small ones")
    )
    folder = data_folder(root, name)
    if download and not whole:
        download_files(folder, CHECKSUMS, BASE_URL)
    elif download and not all((folder / pattern).is_file() for pattern in patterns):
        folder = data_folder(root, name, create=True)
        download_files(folder, WHOLE_CHECKSUMS, BASE_URL)
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if not paths or (whole and len(paths) < len(patterns)):
        raise FileNotFoundError(
            f"no Omniglot archives in {folder} (looked for {' and '.join(patterns)}): set root= or the environment "
            f"variable {ROOT_VARIABLE} to the folder that holds them, or download=True to fetch {kind}"
        )
    return tuple(map(stamp, paths))


@lru_cache(maxsize=4)
def read_characters(archives: tuple[StampedFile, ...]) -> Characters:
    """Decodes `archives`; cached while the files do not change. A character in several archives is included once.

    Raises:
        FileNotFoundError: an archive no longer exists.
        ImportError: Pillow is missing.
        ValueError: an archive is damaged, or does not have the layout of Omniglot's.
    """
    drawings: dict[Name, NDArray[np.uint8]] = {}
    first: dict[str, list[Name]] = {}
    for archive in archives:
        found = _read_archive(archive.path, drawings)
        drawings |= found
        first[Path(archive.path).name] = list(found)
    names = tuple(sorted(drawings))
    images = np.stack([drawings[name] for name in names])
    images.setflags(write=False)
    members = {"character": split_by_character(names), "alphabet": split_by_alphabet(names)}
    if {name: len(found) for name, found in first.items()} == WHOLE_SIZES:
        members |= {"vinyals": split_as_vinyals(names), "lake": split_as_lake(names, first["images_evaluation.zip"])}
    return Characters(names, images, members)


def split_by_character(names: Sequence[Name]) -> dict[str, NDArray[np.int64]]:
    """Splits indices of `names` in the proportions of SHARES, regardless of alphabet and of the order of `names`."""
    order = sorted(range(len(names)), key=lambda index: _rank("/".join(names[index])))
    bounds = [round(len(names) * part / sum(SHARES.values())) for part in np.cumsum(list(SHARES.values()))]
    parts = np.split(np.array(order, dtype=np.int64), bounds[:-1])
    return {split: np.sort(part) for split, part in zip(SHARES, parts, strict=True)}


def split_by_alphabet(names: Sequence[Name]) -> dict[str, NDArray[np.int64]]:
    """Splits indices of `names` by whole alphabets, as close to the proportions of SHARES as possible.

    With at least three alphabets, no split is empty.
    """
    alphabets: dict[str, list[int]] = {}
    for index, (alphabet, _) in enumerate(names):
        alphabets.setdefault(alphabet, []).append(index)
    missing = {split: len(names) * share / sum(SHARES.values()) for split, share in SHARES.items()}
    members: dict[str, list[int]] = {split: [] for split in SHARES}
    # Largest alphabets first, each to the split that lacks most characters, so that small ones balance the splits.
    order = sorted(alphabets, key=lambda alphabet: (-len(alphabets[alphabet]), _rank(alphabet)))
    for position, alphabet in enumerate(order):
        empty = [split for split in SHARES if not members[split]]
        candidates = empty if len(order) - position <= len(empty) else list(SHARES)
        split = max(candidates, key=missing.__getitem__)
        members[split] += alphabets[alphabet]
        missing[split] -= len(alphabets[alphabet])
    return {split: np.array(sorted(indices), dtype=np.int64) for split, indices in members.items()}


def split_as_vinyals(names: Sequence[Name]) -> dict[str, NDArray[np.int64]]:
    """Splits the whole data set's characters, 1,028 / 172 / 423, as Snell et al. (arXiv:1703.05175) published.

    The split is that of Vinyals et al. (arXiv:1606.04080), from https://github.com/jakesnell/prototypical-networks (MIT
    licence, copyright 2017 Jake Snell).
    """
    return _held_out(
        names,
        validation=lambda name: name[0] in VINYALS_VALIDATION,
        test=lambda name: name[0] in VINYALS_TEST or name in VINYALS_TEST_CHARACTERS,
    )


def split_as_lake(names: Sequence[Name], evaluation: Container[Name]) -> dict[str, NDArray[np.int64]]:
    """Splits as the data set's authors: the `evaluation` set is for testing, the background set for the rest.

    LAKE_VALIDATION of the background alphabets are for validation.
    """
    background = sorted({name[0] for name in names if name not in evaluation}, key=_rank)
    held_out = background[:LAKE_VALIDATION]
    return _held_out(names, validation=lambda name: name[0] in held_out, test=lambda name: name in evaluation)


def _held_out(
    names: Sequence[Name], *, validation: Callable[[Name], bool], test: Callable[[Name], bool]
) -> dict[str, NDArray[np.int64]]:
    """Splits indices of `names`: for testing, else for validation, else for training."""
    splits = np.array(["test" if test(name) else "validation" if validation(name) else "train" for name in names])
    return {split: np.flatnonzero(splits == split) for split in SHARES}


def _rank(name: str) -> bytes:
    """A pseudo-random rank: a hash, which is the same in all versions of all libraries."""
    return hashlib.sha256(f"gym_reml omniglot {name}".encode()).digest()


def _read_archive(path: str, decoded: Container[Name]) -> dict[Name, NDArray[np.uint8]]:
    """The drawings (DRAWINGS, SIDE * SIDE) of the characters in the archive at `path` that are not `decoded`."""
    pillow = import_pillow("Omniglot")
    try:
        with zipfile.ZipFile(path) as archive:
            folders: dict[Name, list[str]] = {}
            for member in archive.namelist():
                parts = member.split("/")
                # Not "__MACOSX/..." and its "._0001_01.png" in archives created on a Mac.
                if len(parts) == 4 and parts[0].startswith("images_") and parts[3].endswith(".png"):
                    folders.setdefault((parts[1], parts[2]), []).append(member)
            if not folders:
                raise ValueError(f"{path} holds no images named images_.../ALPHABET/CHARACTER/NAME.png")
            return {
                name: _read_character(pillow, archive, sorted(members))
                for name, members in folders.items()
                if name not in decoded
            }
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and download it again") from error


def _read_character(pillow: ModuleType, archive: zipfile.ZipFile, members: list[str]) -> NDArray[np.uint8]:
    if len(members) != DRAWINGS:
        folder = members[0].rpartition("/")[0]
        raise ValueError(f"{archive.filename}: {folder} has {len(members)} drawings, expected {DRAWINGS}")
    images = np.empty((DRAWINGS, SIDE, SIDE), dtype=np.uint8)
    for image, member in zip(images, members, strict=True):
        try:
            with pillow.open(io.BytesIO(archive.read(member))) as picture:
                # Converted to grey before shrinking, so that pixels at the edge of a stroke get the fraction of ink.
                image[:] = picture.convert("L").resize((SIDE, SIDE), pillow.Resampling.BOX)
        except (OSError, SyntaxError, ValueError, EOFError, zlib.error) as error:
            raise ValueError(f"{archive.filename}: cannot decode {member} ({error})") from error
    return (255 - images).reshape(DRAWINGS, SIDE * SIDE)


def import_pillow(who: str) -> ModuleType:
    """Pillow's `Image`.

    Raises:
        ImportError: it is missing; the message names `who`, which needs it.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(f'{who} needs Pillow to read its images: pip install "gym-reml[render]"') from error
    return Image
