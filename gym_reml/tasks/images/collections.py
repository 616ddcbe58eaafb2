"""Labelled images by name: Fashion-MNIST, scikit-learn's digits, and sign language digits.

Fashion-MNIST: H. Xiao, K. Rasul, R. Vollgraf, arXiv:1708.07747; MIT licence. Digits: E. Alpaydin, C. Kaynak, "Optical
Recognition of Handwritten Digits", UCI Machine Learning Repository (1998); CC BY 4.0. Sign language digits: A. Mavi,
Z. Dikle, arXiv:2011.08927; Apache licence 2.0.
"""

from __future__ import annotations

import gzip
import io
import math
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gym_reml.files import write_file
from gym_reml.tasks.arrays import immutable
from gym_reml.tasks.images.archives import import_pillow
from gym_reml.tasks.images.downloads import ROOT_VARIABLE, StampedFile, data_folder, download, fetch, stamp

DIGITS = tuple("0123456789")
GARMENTS = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FASHION_URL = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
FASHION_CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""sha256 of the decompressed files: Debian's copies, in the package dataset-fashion-mnist, are compressed anew."""
SIGNS_FILE = "sign_digits_32x32.npz"
SIGNS_SIDE = 32
SIGNS_URL = (
    "https://codeload.github.com/ardamavi/Sign-Language-Digits-Dataset/zip/4b09433ef9d5c60602e8805bb54b8aa2428527f8"
)
SIGNS_CHECKSUM = "0200f3e507faeea6d63bab938c3ea1e5ed84be13acca429473b3bd43d10b0b9f"
"""sha256 of the photographs, one after another in the order of their names: zip files of a commit differ in packing."""


@dataclass(frozen=True, eq=False)
class Collection:
    """Labelled images.

    Attributes:
        name: a key of `COLLECTIONS`.
        images: (N, channels, height, width) uint8, read-only.
        labels: (N,) int64, indices into `classes`, read-only.
        classes: names of the classes.
    """

    name: str
    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """Where a collection comes from.

    Attributes:
        classes: names of the classes.
        read: from the files to images (N, channels, height, width) uint8 and labels (N,), which are integers.
        files: names of the files; none for a collection that is part of a Python package.
        fetch: downloads the files into a folder.
    """

    classes: tuple[str, ...]
    read: Callable[[tuple[StampedFile, ...]], tuple[NDArray[np.uint8], NDArray[np.integer[Any]]]]
    files: tuple[str, ...] = ()
    fetch: Callable[[Path], None] = lambda folder: None


def read_collection(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = False) -> Collection:
    """Reads labelled images; cached while their files do not change.

    Args:
        name: a key of `COLLECTIONS`: "fashion_mnist" (70,000 of 1 x 28 x 28: the official training images, then the
            10,000 test images), "digits" (1,797 of 1 x 8 x 8) or "sign_digits" (2,062 of 3 x 32 x 32).
        root: folder of the files, or one that holds them in a folder `name`; None for the environment variable
            GYM_REML_DATA, or without it `~/.cache/gym_reml`. Digits have no files.
        download: download missing files, into the folder `name` in `root`.

    Raises:
        FileNotFoundError: files are missing; the message says how to get them.
        ImportError: digits without scikit-learn, or a download of sign digits without Pillow.
        OSError: a download failed.
        ValueError: an unknown name, a damaged file, or a download with a wrong checksum.
    """
    if name not in COLLECTIONS:
        raise ValueError(f"name={name!r}: must be one of {', '.join(map(repr, COLLECTIONS))}")
    return _read(name, find_files(name, root=root, download=download))


def find_files(
    name: str, *, root: str | os.PathLike[str] | None = None, download: bool = False
) -> tuple[StampedFile, ...]:
    """The files of a collection, without reading them; arguments and exceptions as for `read_collection`."""
    source = COLLECTIONS[name]
    folder = data_folder(root, name)
    if download and not _holds(folder, source):
        folder = data_folder(root, name, create=True)
        source.fetch(folder)
    if not _holds(folder, source):
        raise FileNotFoundError(
            f"no {name} in {folder} (looked for {', '.join(source.files)}): download=True fetches it; or set root= or "
            f"the environment variable {ROOT_VARIABLE} to the folder that holds it, or to one with a folder {name}"
        )
    return tuple(stamp(folder / file) for file in source.files)


def _holds(folder: Path, source: Source) -> bool:
    return all((folder / file).is_file() for file in source.files)


@lru_cache(maxsize=4)
def _read(name: str, files: tuple[StampedFile, ...]) -> Collection:
    source = COLLECTIONS[name]
    images, labels = source.read(files)
    where = Path(files[0].path).parent if files else "scikit-learn"
    if images.ndim != 4 or images.dtype != np.uint8 or labels.shape != images.shape[:1] or not len(labels):
        raise ValueError(f"{name} in {where}: images {images.shape} {images.dtype} for labels {labels.shape}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= len(source.classes):
        raise ValueError(f"{name} in {where}: labels must be integers from 0 to {len(source.classes) - 1}")
    return Collection(name, immutable(images), immutable(labels.astype(np.int64)), source.classes)


def _read_fashion(files: tuple[StampedFile, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    parts = [_read_idx(file.path, axes) for file, axes in zip(files, (3, 1, 3, 1), strict=True)]
    return np.concatenate(parts[::2])[:, None], np.concatenate(parts[1::2])


def _read_idx(path: str, axes: int) -> NDArray[np.uint8]:
    """An array of bytes in the IDX format, compressed by gzip: 0, 0, type 8, number of axes, lengths, values."""
    try:
        content = gzip.decompress(Path(path).read_bytes())
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is damaged ({error}): delete it and download it again") from error
    start = 4 + 4 * axes
    is_idx = len(content) >= start and content[:4] == bytes((0, 0, 8, axes))
    shape = np.frombuffer(content[4:start], ">u4").tolist() if is_idx else []
    if not is_idx or len(content) - start != math.prod(shape):
        raise ValueError(f"{path} is no IDX file of bytes with {axes} axes")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _read_digits(files: tuple[StampedFile, ...]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError('digits are part of scikit-learn: pip install "gym-reml[digits]"') from error
    found = load_digits()
    # From 0 to 16.
    return np.rint(found.images[:, None] * (255 / 16)).astype(np.uint8), found.target


def _read_signs(files: tuple[StampedFile, ...]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    path = files[0].path
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: must be an npz file with `images` and `labels` ({error})") from error
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"{path}: images {images.shape}: must be (N, height, width, 3)")
    return images.transpose(0, 3, 1, 2), labels


def _fetch_fashion(folder: Path) -> None:
    download(folder, FASHION_CHECKSUMS, FASHION_URL, gzip.decompress)


def _fetch_signs(folder: Path) -> None:
    """Writes the authors' photographs, shrunk to SIGNS_SIDE x SIGNS_SIDE."""
    pillow = import_pillow("sign_digits")
    instead = f"or place {SIGNS_FILE} in {folder}: `images` (N, 32, 32, 3) uint8 and `labels` (N,) uint8"
    pictures = _signs_of(fetch(SIGNS_URL, SIGNS_CHECKSUM, instead, lambda data: b"".join(_signs_of(data).values())))
    images = np.empty((len(pictures), SIGNS_SIDE, SIGNS_SIDE, 3), np.uint8)
    for image, content in zip(images, pictures.values(), strict=True):
        with pillow.open(io.BytesIO(content)) as picture:
            image[:] = picture.convert("RGB").resize((SIGNS_SIDE, SIGNS_SIDE), pillow.Resampling.LANCZOS)
    labels = np.array([int(name.split("/")[-2]) for name in pictures], np.uint8)
    write_file(folder / SIGNS_FILE, lambda file: np.savez_compressed(file, images=images, labels=labels))


def _signs_of(data: bytes) -> dict[str, bytes]:
    """The photographs in the repository's zip file by name, .../DIGIT/NAME.JPG, sorted."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = sorted(name for name in archive.namelist() if "/Dataset/" in name and name.lower().endswith(".jpg"))
        return {name: archive.read(name) for name in names}


COLLECTIONS: dict[str, Source] = {
    "fashion_mnist": Source(GARMENTS, _read_fashion, tuple(FASHION_CHECKSUMS), _fetch_fashion),
    "digits": Source(DIGITS, _read_digits),
    "sign_digits": Source(DIGITS, _read_signs, (SIGNS_FILE,), _fetch_signs),
}
"""Every collection, by name."""
