"""Fixtures of several tests of agents."""

from pathlib import Path

import pytest

from agents.tuning import augmentations, fixed_losses, rules, schedules
from agents.tuning.fixed_losses import GRID
from tests.support.omniglot_archive import write_archives


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives with enough characters for tasks of five in every split."""
    return write_archives(tmp_path_factory.mktemp("images"), {"Alpha": 35, "Beta_(old)": 30, "Gamma": 30})


@pytest.fixture
def few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tuned has few settings, tried on few tasks."""
    monkeypatch.setattr(schedules, "TUNING_TASKS", 4)
    for name, value in {
        "TUNING_TASKS": 4,
        "TRIALS": 2,
        "FIRST_TRIALS": 2,
        "CANDIDATES": 6,
        "CHILDREN": 16,
        "MAGNITUDES": (0.3,),
    }.items():
        monkeypatch.setattr(augmentations, name, value)
    monkeypatch.setattr(schedules, "RATES_A_DECADE", 1)
    monkeypatch.setattr(fixed_losses, "TUNING_TASKS", 4)
    few_of = {"TUNING_TASKS": 3, "RATES": (0.01, 0.1), "WRITTEN": 8, "CANDIDATES": 2}
    for name, few in (few_of | {"ROWS": 8, "TRIED_AGAIN": 4, "TRIALS": 2}).items():
        monkeypatch.setattr(rules, name, few)
    monkeypatch.setattr(
        fixed_losses, "GRID", {name: (values[0], values[-1])[: 1 + (name == "trust")] for name, values in GRID.items()}
    )
