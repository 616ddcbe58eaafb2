"""Labelled images by name: reading and downloading."""

from __future__ import annotations

import gzip
import hashlib
import io
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gym_reml.tasks.images import collections, downloads
from gym_reml.tasks.images.collections import COLLECTIONS, FASHION_CHECKSUMS, SIGNS_FILE, Collection, read_collection
from tests.support.collection_files import SHARED_DATA, idx, write_collections
from tests.support.file_server import serving

SHAPES = {"fashion_mnist": (240, 1, 28, 28), "sign_digits": (240, 3, 32, 32)}


@pytest.fixture
def root(tmp_path: Path, no_omniglot_environment: None) -> Path:
    return write_collections(tmp_path / "data")


def check(collection: Collection, shape: tuple[int, ...]) -> None:
    assert collection.images.shape == shape
    assert collection.images.dtype == np.uint8
    assert collection.labels.shape == shape[:1]
    assert collection.labels.dtype == np.int64
    assert len(collection.classes) == 10
    assert set(collection.labels.tolist()) == set(range(10))
    assert not collection.images.flags.writeable
    assert not collection.labels.flags.writeable


@pytest.mark.parametrize("name", SHAPES)
def test_files_are_found_by_argument_variable_and_cache(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = read_collection(name, root=root)
    check(found, SHAPES[name])
    assert read_collection(name, root=str(root / name)) is found
    with pytest.raises(FileNotFoundError, match=rf"no {name} in .*cache.*download=True.*GYM_REML_DATA"):
        read_collection(name)
    monkeypatch.setenv("GYM_REML_DATA", str(root))
    assert read_collection(name) is found
    monkeypatch.delenv("GYM_REML_DATA")
    monkeypatch.setattr(downloads, "DEFAULT_ROOT", str(root))
    assert read_collection(name) is found


def test_fashion_is_the_training_images_then_the_test_images(root: Path) -> None:
    found = read_collection("fashion_mnist", root=root)
    parts = [gzip.decompress((root / "fashion_mnist" / name).read_bytes()) for name in FASHION_CHECKSUMS]
    assert found.images.tobytes() == parts[0][16:] + parts[2][16:]
    assert found.labels.astype(np.uint8).tobytes() == parts[1][8:] + parts[3][8:]
    assert (found.classes[0], found.classes[-1]) == ("T-shirt/top", "Ankle boot")


def test_sign_digits_have_their_channels_first(root: Path) -> None:
    found = read_collection("sign_digits", root=root)
    with np.load(root / "sign_digits" / SIGNS_FILE) as arrays:
        assert np.array_equal(found.images[:, 1], arrays["images"][..., 1])
        assert np.array_equal(found.labels, arrays["labels"])


def test_digits_are_those_of_scikit_learn() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    found, theirs = read_collection("digits"), datasets.load_digits()
    check(found, (1797, 1, 8, 8))
    assert np.allclose(found.images[:, 0] * (16 / 255), theirs.images, atol=16 / 255 / 2)
    assert np.array_equal(found.labels, theirs.target)


def test_digits_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    collections._read.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match=r"gym-reml\[digits\]"):
        read_collection("digits")


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(ValueError, match="name='mnist': must be one of 'fashion_mnist', 'digits', 'sign_digits'"):
        read_collection("mnist")


LABELS = "train-labels-idx1-ubyte.gz"
IMAGES = np.zeros((2, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "damaged"),
        (idx(np.zeros(200, np.uint8))[:-9], "damaged"),
        (idx(np.zeros((200, 1), np.uint8)), "IDX"),
        (gzip.compress(bytes((0, 0, 8, 1, 0, 0))), "IDX"),
        (gzip.compress(gzip.decompress(idx(np.zeros(200, np.uint8)))[:-1]), "IDX"),
        (idx(np.zeros(199, np.uint8)), "labels"),
        (idx(np.full(200, 10, np.uint8)), "labels must be integers from 0 to 9"),
    ],
    # Not the bytes, which hold the time of compression.
    ids=["no gzip", "shortened", "two dimensions", "no length", "a value missing", "a label missing", "label 10"],
)
def test_damaged_fashion(content: bytes, message: str, root: Path) -> None:
    (root / "fashion_mnist" / LABELS).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_collection("fashion_mnist", root=root)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES}, "`images` and `labels`"),
        ({"images": IMAGES, "labels": np.array([{}, {}])}, "`images` and `labels`"),
        ({"images": IMAGES[..., 0], "labels": np.zeros(2, np.uint8)}, "must be"),
        ({"images": IMAGES / 255, "labels": np.zeros(2, np.uint8)}, "float64"),
        ({"images": IMAGES, "labels": np.zeros(3, np.uint8)}, "labels"),
        ({"images": IMAGES, "labels": np.zeros(2)}, "integers"),
        ({"images": IMAGES, "labels": np.array([-1, 0])}, "from 0 to 9"),
    ],
)
def test_damaged_signs(arrays: dict[str, Any], message: str, root: Path) -> None:
    np.savez(root / "sign_digits" / SIGNS_FILE, **arrays)
    with pytest.raises(ValueError, match=message):
        read_collection("sign_digits", root=root)
    (root / "sign_digits" / SIGNS_FILE).write_bytes(b"no npz")
    with pytest.raises(ValueError, match="npz"):
        read_collection("sign_digits", root=root)


def test_fashion_is_downloaded_where_missing(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = {
        name: hashlib.sha256(gzip.decompress((root / "fashion_mnist" / name).read_bytes())).hexdigest()
        for name in FASHION_CHECKSUMS
    }
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(collections, "FASHION_CHECKSUMS", sums)
    with serving(root / "fashion_mnist") as (address, handler):
        monkeypatch.setattr(collections, "FASHION_URL", address)
        found = read_collection("fashion_mnist", root=tmp_path / "new", download=True)
        assert {path.name for path in (tmp_path / "new" / "fashion_mnist").iterdir()} == set(sums)
        assert np.array_equal(found.images, read_collection("fashion_mnist", root=root).images)
        assert read_collection("fashion_mnist", root=tmp_path / "new", download=True) is found
        assert len(handler.requested) == 4
        sums[LABELS] = "0" * 64
        with pytest.raises(ValueError, match=f"{LABELS} has sha256 .*, expected 000"):
            read_collection("fashion_mnist", root=tmp_path / "bad", download=True)
        assert not (tmp_path / "bad" / "fashion_mnist" / LABELS).exists()


def test_signs_are_shrunk_from_the_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pillow = pytest.importorskip("PIL.Image")
    names, content = [f"signs-main/Dataset/{digit}/IMG_{digit}.JPG" for digit in range(10)], []
    with zipfile.ZipFile(tmp_path / "commit", "w") as archive:
        for name in reversed(names):
            photograph = io.BytesIO()
            pillow.new("RGB", (100, 100), (20 * int(name[-5]), 0, 90)).save(photograph, "jpeg")
            content.append(photograph.getvalue())
            archive.writestr(name, photograph.getvalue())
        archive.writestr("signs-main/Examples/example_0.JPG", b"another")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(collections, "SIGNS_CHECKSUM", hashlib.sha256(b"".join(content[::-1])).hexdigest())
    with serving(tmp_path) as (address, _):
        monkeypatch.setattr(collections, "SIGNS_URL", f"{address}commit")
        found = read_collection("sign_digits", root=tmp_path / "new", download=True)
        monkeypatch.setattr(collections, "SIGNS_URL", f"{address}absent")
        with pytest.raises(OSError, match=r"absent.*place sign_digits_32x32.npz"):
            read_collection("sign_digits", root=tmp_path / "other", download=True)
    check(found, (10, 3, 32, 32))
    assert found.labels.tolist() == list(range(10))
    assert np.abs(found.images[:, 0].mean(axis=(1, 2)) - 20 * np.arange(10)).max() < 3


def test_the_real_collections() -> None:
    """What is there of them; the checksums are those of downloads."""
    sizes = {"fashion_mnist": (70_000, 1, 28, 28), "sign_digits": (2062, 3, 32, 32)}
    there = [name for name in sizes if (SHARED_DATA / name).is_dir()]
    if not there:
        pytest.skip("needs folders fashion_mnist or sign_digits in GYM_REML_DATA or ../shared/data")
    for name in there:
        check(read_collection(name, root=SHARED_DATA), sizes[name])
    for name, checksum in FASHION_CHECKSUMS.items() if "fashion_mnist" in there else ():
        content = gzip.decompress((SHARED_DATA / "fashion_mnist" / name).read_bytes())
        assert hashlib.sha256(content).hexdigest() == checksum


def test_every_collection_has_its_classes() -> None:
    assert all(len(set(source.classes)) == 10 for source in COLLECTIONS.values())
