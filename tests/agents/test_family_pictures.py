"""Pictures of families: one of each kind is drawn, and what cannot be is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from agents.pages.family_pictures import Config, draw, main
from gym_reml.tasks import from_arrays
from tests.support.collection_files import write_collections
from tests.support.omniglot_archive import write_archives


def test_one_of_each_kind(tmp_path: Path) -> None:
    names = ("sinusoid", "mixture", "omniglot", "fashion_mnist", "sign_digits", "navigation")
    write_archives(tmp_path / "omniglot", {"Alpha": 14, "Beta_(old)": 12, "Gamma": 12})
    write_collections(tmp_path)
    main(Config(tmp_path / "pictures", names, tmp_path))
    for name in names:
        with Image.open(tmp_path / "pictures" / f"{name}.png") as picture:
            assert np.array(picture).std() > 10.0, f"{name}: nothing is drawn"


def test_the_same_seed_draws_the_same_tasks(tmp_path: Path) -> None:
    for folder, seed in (("one", 0), ("two", 0), ("three", 1)):
        main(Config(tmp_path / folder, ("linear",), seed=seed))
    one, two, three = ((tmp_path / folder / "linear.png").read_bytes() for folder in ("one", "two", "three"))
    assert one == two != three


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="families: 'sinus' is none; choices: sinusoid, linear"):
        main(Config(tmp_path, ("sinus",)))
    arrays = from_arrays(np.zeros((9, 60, 3)), np.zeros((9, 60, 1)), shots=5, queries=5)
    with pytest.raises(ValueError, match="has neither curves, images, paths nor an environment"):
        draw(arrays, 0)
