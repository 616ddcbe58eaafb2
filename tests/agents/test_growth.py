"""The command that measures how time and memory grow."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from agents.growth import __main__ as growth

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and reads Linux's peak of memory")
COMMITTED = Path(__file__).resolve().parents[2] / "docs"


def test_every_size_is_measured_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = {name: subject._replace(values={"n": (2, 200)}) for name, subject in growth.SUBJECTS.items()}
    monkeypatch.setattr(growth, "SUBJECTS", few)
    growth.main(growth.Config(folder=tmp_path, quick=True))
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines()[2:]]
    assert rows == list(few)
    points = [
        growth.Point(**point)
        for point in json.loads((tmp_path / "results" / "growth.json").read_text(encoding="utf-8"))
    ]
    assert [(point.subject, point.value) for point in points] == [(name, value) for name in few for value in (2, 200)]
    assert all(point.milliseconds > 0.0 and point.megabytes >= 0.0 for point in points)
    memory = {name: curve[-1].megabytes for (name, _), curve in growth.curves(points).items()}
    assert memory[f"exact, {growth.AT_ONCE} rows at once"] < memory["exact meta-gradient"]
    assert (tmp_path / "_static" / "growth.png").read_bytes().startswith(b"\x89PNG")


def test_exponents_are_slopes() -> None:
    assert growth.exponent([1, 2, 4, 8], [100.0, 4.0, 16.0, 64.0]) == pytest.approx(2.0)
    assert growth.exponent([1, 2, 4], [0.0, 0.0, 0.0]) == pytest.approx(0.0)


def test_the_page_has_the_table_of_the_committed_figures() -> None:
    text = (COMMITTED / "results" / "growth.json").read_text(encoding="utf-8")
    points = [growth.Point(**point) for point in json.loads(text)]
    assert growth.table(points) in (COMMITTED / "growth.md").read_text(encoding="utf-8")
