"""Writes small archives laid out as Omniglot's, with random strokes for characters."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from gym_reml.tasks.images.downloads import data_folder
from tests.support.collection_files import SHARED_DATA

REAL_DATA = data_folder(SHARED_DATA, "omniglot")
"""Folder of the real archives."""
ALPHABETS = {"Alpha": 7, "Beta_(old)": 5, "Gamma": 4}
"""Characters of each alphabet."""
CONTENTS = {
    "images_background_small1": ("Alpha", "Beta_(old)"),
    "images_background_small2": ("Beta_(old)", "Gamma"),
}
"""Alphabets of each archive; the second is in both."""
SIDE = 105
DRAWINGS = 20


def write_archives(folder: Path, alphabets: dict[str, int] = ALPHABETS) -> Path:
    """Writes both archives into `folder`, the same bytes every time, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in CONTENTS.items():
        write_archive(folder / f"{name}.zip", {key: alphabets[key] for key in contents}, sorted(ALPHABETS))
    return folder


def write_whole(folder: Path, background: dict[str, int], evaluation: dict[str, int]) -> dict[str, int]:
    """Writes archives named as those of the whole data set into `folder`; their numbers of characters by name.

    They are taken for the whole data set where `archives.WHOLE_SIZES` is what this returns.
    """
    contents = {"images_background.zip": background, "images_evaluation.zip": evaluation}
    for name, alphabets in contents.items():
        write_archive(folder / name, alphabets, list(alphabets))
    return {name: sum(alphabets.values()) for name, alphabets in contents.items()}


def write_archive(path: Path, alphabets: dict[str, int], known: Iterable[str]) -> None:
    """Writes one archive; a character's drawings depend on its name alone, not on the archive."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = {alphabet: number for number, alphabet in enumerate(known)}
    with zipfile.ZipFile(path, "w") as archive:
        for alphabet, characters in alphabets.items():
            archive.writestr(zipfile.ZipInfo(f"{path.stem}/{alphabet}/"), b"")
            for character in range(1, characters + 1):
                generator = np.random.default_rng([numbers[alphabet], character])
                strokes = generator.uniform(15, SIDE - 15, size=(2, 4, 2))
                for drawing in range(1, DRAWINGS + 1):
                    member = f"{path.stem}/{alphabet}/character{character:02d}/{character:04d}_{drawing:02d}.png"
                    jitter = generator.normal(scale=3, size=strokes.shape)
                    # ZipInfo: no time of writing in the file, so that its checksum is fixed.
                    archive.writestr(zipfile.ZipInfo(member), _draw(strokes + jitter))


def _draw(strokes: np.ndarray) -> bytes:
    """A binary PNG of the strokes (lines, points, 2): black ink on white."""
    picture = Image.new("1", (SIDE, SIDE), 1)
    pen = ImageDraw.Draw(picture)
    for stroke in strokes:
        pen.line([(float(x), float(y)) for x, y in stroke], fill=0, width=3)
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()
