"""Invented rows of result files, and the pages made from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from agents.pages.groups import Group, read_groups
from agents.pages.sections import SECTIONS


def row(learner: str, step: int, mean: float, **changes: Any) -> dict[str, Any]:
    usual: dict[str, Any] = {
        "learner": learner,
        "family": "sinusoid",
        "shots": 5,
        "step": step,
        "metric": "mse",
        "mean": mean,
        "median": mean / 2,
        "ci95": 0.05,
        "ci95_tasks": 0.02,
        "diverged": 0.0,
        "seeds": 3,
        "tasks": 1000,
        "meta_training_tasks": 184_000,
        "parameters": 1_761,
        "seconds": 240.4,
        "command": "python -m agents.compare --family sinusoid --shots 5",
        "seed_means": None,
        "commit": None,
        "versions": None,
    }
    return usual | changes


def write(folder: Path, rows: Any, name: str = "sinusoid.json") -> Path:
    path = folder / name
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def group_of(folder: Path, rows: list[dict[str, Any]]) -> Group:
    (group,) = read_groups(write(folder, rows), SECTIONS[0])
    return group


def line_of(page: str, start: str) -> str:
    (line,) = [line for line in page.splitlines() if line.startswith(start)]
    return line
