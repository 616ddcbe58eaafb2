"""Omniglot: reading and downloading the archives."""

from __future__ import annotations

import copy
import functools
import hashlib
import io
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="reading Omniglot needs Pillow")

from PIL import Image

from gym_reml.tasks.base import SPLITS
from gym_reml.tasks.images import archives as omniglot_data
from gym_reml.tasks.images.omniglot import Omniglot
from tests.support.file_server import Handler, serving
from tests.support.omniglot_archive import ALPHABETS, CONTENTS, write_archive, write_archives, write_whole

Make = Callable[..., Omniglot]


pytestmark = pytest.mark.usefixtures("no_omniglot_environment")


@pytest.fixture
def make(archives: Path) -> Make:
    return functools.partial(Omniglot, root=str(archives))


# Reading


def test_reads_each_character_once_with_ink_one_on_zero(make: Make, archives: Path) -> None:
    characters = make().characters
    assert len(characters.names) == len(set(characters.names)) == sum(ALPHABETS.values())
    assert {alphabet for alphabet, _ in characters.names} == set(ALPHABETS)
    assert characters.images.dtype == np.uint8
    with zipfile.ZipFile(archives / "images_background_small2.zip") as archive:
        content = archive.read("images_background_small2/Gamma/character03/0003_07.png")
    ink = 1 - np.asarray(Image.open(io.BytesIO(content))).astype(float)
    mean = ink[:, :, None].repeat(28, 2).reshape(105, 105 * 28).reshape(105, 28, 105).mean(2)
    mean = mean.repeat(28, 0).reshape(28, 105, 28).mean(1)
    image = characters.images[characters.names.index(("Gamma", "character03")), 6].reshape(28, 28) / 255
    # Box resizing weighs whole source pixels by their centre, so a border pixel may count a little differently.
    assert np.abs(image - mean).max() < 0.35
    assert np.abs(image - mean).mean() < 0.02


def test_order_of_names_and_archives_does_not_matter(tmp_path: Path, make: Make) -> None:
    write_archive(tmp_path / "images_evaluation.zip", {"Beta_(old)": 5, "Alpha": 7}, sorted(ALPHABETS))
    write_archive(tmp_path / "images_background.zip", {"Gamma": 4}, sorted(ALPHABETS))
    other, ours = Omniglot(root=str(tmp_path)).characters, make().characters
    assert other.names == ours.names
    np.testing.assert_array_equal(other.images, ours.images)
    for split in SPLITS:
        np.testing.assert_array_equal(other.members["character"][split], ours.members["character"][split])


def test_ignores_what_archiving_on_a_mac_adds(tmp_path: Path, make: Make) -> None:
    write_archives(tmp_path)
    with zipfile.ZipFile(tmp_path / "images_background_small1.zip", "a") as archive:
        archive.writestr("__MACOSX/images_background_small1/Alpha/._0001_01.png", b"x")
    assert Omniglot(root=str(tmp_path)).characters.names == make().characters.names


def test_decodes_once_per_state_of_the_files(tmp_path: Path) -> None:
    write_archives(tmp_path)
    family = Omniglot(root=str(tmp_path))
    assert family.characters is copy.deepcopy(family).characters is Omniglot(root=str(tmp_path), shots=1).characters
    assert not family.characters.images.flags.writeable
    write_archive(tmp_path / "images_evaluation.zip", {"Delta": 2}, ["Delta"])
    assert len(Omniglot(root=str(tmp_path)).characters.names) == sum(ALPHABETS.values()) + 2


def test_missing_archives_are_noticed_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        Omniglot(root=str(tmp_path / "nowhere"))
    for hint in ("nowhere", "root=", "GYM_REML_DATA", "download=True", "images_background*.zip", "images_evaluation"):
        assert hint in str(caught.value)


def test_environment_variable_then_cache(tmp_path: Path, archives: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FileNotFoundError, match="cache"):
        Omniglot()
    monkeypatch.setenv("GYM_REML_DATA", str(archives))
    assert len(Omniglot().characters.names) == sum(ALPHABETS.values())
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        Omniglot(root=str(tmp_path / "elsewhere"))


def test_nothing_is_decoded_at_construction(tmp_path: Path) -> None:
    (tmp_path / "images_evaluation.zip").write_bytes(b"not a zip")
    family = Omniglot(root=str(tmp_path))
    with pytest.raises(ValueError, match=r"images_evaluation\.zip is damaged"):
        family.draw([np.random.default_rng(0)])


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    path = write_archives(tmp_path) / "images_background_small2.zip"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"images_background_small2\.zip is damaged"):
        _ = Omniglot(root=str(tmp_path)).characters
    broken = bytearray(content)
    broken[content.index(b"IDAT", len(content) // 2) + 8] ^= 255
    path.write_bytes(broken)
    with pytest.raises(ValueError, match=r"images_background_small2\.zip"):
        _ = Omniglot(root=str(tmp_path)).characters


def put(content: bytes, position: int) -> bytes:
    return content[:position] + b"\0" + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda content: b"", id="empty"),
        pytest.param(lambda content: content[:60], id="cut short"),
        pytest.param(lambda content: content[:200], id="cut later"),
        pytest.param(lambda content: put(content, 11), id="header's length"),
        pytest.param(lambda content: put(content, 36), id="chunk's length"),
    ],
)
def test_undecodable_image_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    write_archive(tmp_path / "whole.zip", {"Alpha": 1}, ["Alpha"])
    with (
        zipfile.ZipFile(tmp_path / "whole.zip") as whole,
        zipfile.ZipFile(tmp_path / "images_evaluation.zip", "w") as damaged,
    ):
        for member in whole.namelist():
            content = whole.read(member)
            damaged.writestr(f"images_{member}", damage(content) if "_03" in member else content)
    with pytest.raises(ValueError, match=r"images_evaluation\.zip: cannot decode .*0001_03\.png"):
        _ = Omniglot(root=str(tmp_path)).characters


def test_damaged_compression_is_named(tmp_path: Path) -> None:
    path = tmp_path / "images_evaluation.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for drawing in range(20):
            archive.writestr(f"images_evaluation/Alpha/character01/0001_{drawing:02d}.png", b"stroke" * 99)
    content = path.read_bytes()
    start = content.index(b"0001_00.png") + len("0001_00.png")
    path.write_bytes(content[:start] + b"\xff" * 4 + content[start + 4 :])
    with pytest.raises(ValueError, match=r"images_evaluation\.zip: cannot decode .*0001_00\.png"):
        _ = Omniglot(root=str(tmp_path)).characters


def test_other_layouts_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "images_evaluation.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="holds no images"):
        _ = Omniglot(root=str(tmp_path)).characters
    with zipfile.ZipFile(tmp_path / "images_evaluation.zip", "w") as archive:
        archive.writestr("images_evaluation/Alpha/character01/0001_01.png", b"")
    with pytest.raises(ValueError, match="character01 has 1 drawings, expected 20"):
        _ = Omniglot(root=str(tmp_path)).characters


def test_missing_pillow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = Omniglot(root=str(write_archives(tmp_path)))
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r'pip install "gym-reml\[render\]"'):
        family.draw([np.random.default_rng(0)])


# Downloading


@pytest.fixture
def server(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Handler]]:
    with serving(archives) as (address, handler):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        monkeypatch.setattr(omniglot_data, "BASE_URL", address)
        sums = {f"{name}.zip": hashlib.sha256((archives / f"{name}.zip").read_bytes()).hexdigest() for name in CONTENTS}
        monkeypatch.setattr(omniglot_data, "CHECKSUMS", sums)
        yield handler


def test_download_fetches_what_is_missing_and_no_more(tmp_path: Path, server: type[Handler]) -> None:
    root = tmp_path / "new" / "folder"
    family = Omniglot(root=str(root), download=True)
    assert len(family.characters.names) == sum(ALPHABETS.values())
    assert sorted(path.name for path in root.iterdir()) == sorted(omniglot_data.CHECKSUMS)
    assert len(server.requested) == 2
    before = {path: path.stat().st_mtime_ns for path in root.iterdir()}
    Omniglot(root=str(root), download=True)
    assert len(server.requested) == 2
    assert before == {path: path.stat().st_mtime_ns for path in root.iterdir()}
    bad = root / "images_background_small2.zip"
    good = bad.read_bytes()
    bad.write_bytes(good[:-1] + b"?")
    Omniglot(root=str(root), download=True)
    assert server.requested[2:] == ["/images_background_small2.zip"]
    assert bad.read_bytes() == good


def test_download_of_the_whole_data_set(
    tmp_path: Path, server: type[Handler], archives: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a folder of its own: the splits of the small archives do not change."""
    whole = write_whole(archives, {"Greek": 3}, {"Keble": 2})
    sums = {name: hashlib.md5((archives / name).read_bytes()).hexdigest() for name in whole}
    monkeypatch.setattr(omniglot_data, "WHOLE_CHECKSUMS", sums)
    monkeypatch.setattr(omniglot_data, "WHOLE_SIZES", whole)
    try:
        for _ in range(2):
            family = Omniglot(root=str(tmp_path), download=True, split_by="lake")
            assert len(family.characters.members["lake"]["test"]) == 2
            assert {path.name for path in (tmp_path / "omniglot_full").iterdir()} == set(whole)
            assert server.requested == [f"/{name}" for name in whole]
        with pytest.raises(FileNotFoundError):
            Omniglot(root=str(tmp_path))
        sums["images_evaluation.zip"] = "0" * 32
        with pytest.raises(ValueError, match=r"images_evaluation\.zip has md5"):
            Omniglot(root=str(tmp_path / "bad"), download=True, split_by="vinyals")
    finally:
        for name in whole:
            (archives / name).unlink()


def test_download_goes_to_the_cache_and_is_found_there(tmp_path: Path, server: type[Handler]) -> None:
    Omniglot(download=True)
    assert sorted(path.name for path in (tmp_path / "cache" / "omniglot").iterdir()) == sorted(omniglot_data.CHECKSUMS)
    assert len(Omniglot().characters.names) == sum(ALPHABETS.values())


def test_no_download_unless_asked(server: type[Handler]) -> None:
    with pytest.raises(FileNotFoundError):
        Omniglot()
    assert server.requested == []


def test_bad_download_leaves_nothing(tmp_path: Path, server: type[Handler], monkeypatch: pytest.MonkeyPatch) -> None:
    name = "images_background_small1.zip"
    monkeypatch.setitem(omniglot_data.CHECKSUMS, name, "0" * 64)
    with pytest.raises(ValueError, match=f"{name} has sha256 .*, expected 0000"):
        Omniglot(root=str(tmp_path / "root"), download=True)
    assert not list(tmp_path.rglob("*.*"))


def test_broken_connections_name_the_address(tmp_path: Path, server: type[Handler]) -> None:
    server.short.add("/images_background_small1.zip")
    with pytest.raises(OSError, match=r"could not fetch http://127.*small1\.zip.*by hand"):
        Omniglot(root=str(tmp_path / "root"), download=True)
    omniglot_data.CHECKSUMS["absent.zip"] = "0" * 64
    server.short.clear()
    with pytest.raises(OSError, match=r"could not fetch http://127.*absent\.zip.*404"):
        Omniglot(root=str(tmp_path / "root"), download=True)


def test_failed_write_leaves_nothing(tmp_path: Path, server: type[Handler], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="disk full"):
        Omniglot(root=str(tmp_path / "root"), download=True)
    assert not list((tmp_path / "root").iterdir())


def test_official_checksums() -> None:
    assert set(omniglot_data.CHECKSUMS) == {"images_background_small1.zip", "images_background_small2.zip"}
    assert set(omniglot_data.WHOLE_CHECKSUMS) == set(omniglot_data.WHOLE_SIZES)
    assert omniglot_data.BASE_URL.startswith("https://")
    assert omniglot_data.BASE_URL.endswith("/")
