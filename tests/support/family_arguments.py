"""Small arguments of the environment for every family of the registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gym_reml.tasks import FAMILIES
from gym_reml.tasks.policies.base import PolicyFamily
from tests.support.env_helpers import SMALL


def family_arguments(name: str, folder: Path) -> dict[str, Any]:
    """For the family of that name; synthetic archives of Omniglot are written to the folder."""
    family: dict[str, Any] = {}
    if name == "mixture":
        family = {"members": ["sinusoid", "linear"]}
    elif name == "omniglot":
        pytest.importorskip("PIL")
        from tests.support.omniglot_archive import write_archives

        family = {"root": str(write_archives(folder / "omniglot")), "ways": 2}
    elif issubclass(FAMILIES[name], PolicyFamily):
        family = {"steps": 3}
    return SMALL | {"family": name, "family_kwargs": family}
