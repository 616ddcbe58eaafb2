"""Small arguments of the environment for every family of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gym_reml.tasks import FAMILIES
from gym_reml.tasks.images.classes import ClassFamily
from gym_reml.tasks.images.collections import COLLECTIONS
from gym_reml.tasks.policies.base import PolicyFamily
from tests.support.env_helpers import SMALL

IMAGE_FAMILIES = tuple(name for name, kind in FAMILIES.items() if issubclass(kind, ClassFamily))


def image_arguments(name: str, folder: Path) -> dict[str, Any]:
    """Of an image family, with small synthetic data in the folder; the test is skipped without what reads them."""
    if name == "omniglot":
        pytest.importorskip("PIL", reason="reading Omniglot needs Pillow")
        from tests.support.omniglot_archive import write_archives

        return {"root": str(write_archives(folder / "omniglot")), "ways": 2}
    if not COLLECTIONS[name].files:
        pytest.importorskip("sklearn", reason="digits are part of scikit-learn")
        return {"ways": 2}
    from tests.support.collection_files import write_collections

    return {"root": str(write_collections(folder / "collections")), "ways": 2}


def family_arguments(name: str, folder: Path) -> dict[str, Any]:
    """For the family of that name; synthetic data of image families are written to the folder."""
    family: dict[str, Any] = {}
    if name == "mixture":
        family = {"members": ["sinusoid", "linear"]}
    elif name in IMAGE_FAMILIES:
        family = image_arguments(name, folder)
    elif issubclass(FAMILIES[name], PolicyFamily):
        family = {"steps": 3}
    return SMALL | {"family": name, "family_kwargs": family}
