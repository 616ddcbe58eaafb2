"""Writes small files laid out as those of Fashion-MNIST and of the sign digits."""

from __future__ import annotations

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np

SHARED_DATA = Path(os.environ.get("GYM_REML_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
"""Folder of the real data sets, each in a folder of its own."""
EXAMPLES = {"train": 20, "t10k": 4}
"""Images of each class."""


def write_collections(folder: Path, side: int = 28) -> Path:
    """Writes both, each into a folder of its name in `folder`, and returns `folder`."""
    for name in ("fashion_mnist", "sign_digits"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for part, count in EXAMPLES.items():
        labels = generator.permutation(np.repeat(np.arange(10, dtype=np.uint8), count))
        images = generator.integers(256, size=(len(labels), side, side), dtype=np.uint8)
        for kind, values in (("images", images), ("labels", labels)):
            (folder / "fashion_mnist" / f"{part}-{kind}-idx{values.ndim}-ubyte.gz").write_bytes(idx(values))
    labels = np.repeat(np.arange(10, dtype=np.uint8), sum(EXAMPLES.values()))
    images = generator.integers(256, size=(len(labels), 32, 32, 3), dtype=np.uint8)
    np.savez(folder / "sign_digits" / "sign_digits_32x32.npz", images=images, labels=labels)
    return folder


def idx(values: np.ndarray[Any, Any]) -> bytes:
    """Bytes in the IDX format, compressed."""
    lengths = np.array(values.shape, ">u4").tobytes()
    return gzip.compress(bytes((0, 0, 8, values.ndim)) + lengths + values.tobytes())
