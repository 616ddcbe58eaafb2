"""Endurance in its short forms: configurations, steps, a kill, and every fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.endurance import __main__ as command
from agents.endurance import configurations, faults, journal, kills, steps
from agents.endurance.drawing import WITH_FILES, configuration
from gym_reml import REGISTRATIONS
from gym_reml.tasks import FAMILIES


@pytest.mark.parametrize("number", range(22))
def test_a_configuration_of_every_environment(number: int) -> None:
    assert configurations.attempt(number)["id"] == tuple(REGISTRATIONS)[number]


def test_configurations_are_drawn_from_their_number() -> None:
    drawn = [configuration(number) for number in range(1200)]
    assert drawn[0] == configuration(0)
    assert {one.env_id for one in drawn} == set(REGISTRATIONS)
    assert {one.arguments["family"] for one in drawn if one.pool} == set(FAMILIES) - set(WITH_FILES)


@pytest.mark.parametrize("name", faults.FAULTS)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_fault_ends_in_a_clear_error(name: str, tmp_path: Path) -> None:
    said = faults.FAULTS[name](tmp_path)
    assert str(tmp_path) in said or "checkpoint" in name


def test_steps_go_on_from_trial_to_trial() -> None:
    assert steps.attempt(5)["steps"] == 256 * 600


def test_the_command_goes_on_and_names_what_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = []

    def attempt(number: int) -> journal.Row:
        made.append(number)
        if number == 3:
            raise RuntimeError("of no use")
        return {"id": "x", "rows": 1, "steps": 8}

    monkeypatch.setattr(configurations, "attempt", attempt)
    path = tmp_path / "journal.jsonl"
    command.main(command.Config("configurations", count=2, journal=path))
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"number": 2, "st')
    with pytest.raises(ValueError, match=r"1 trials failed: .*endurance configurations --first 3 --count 1"):
        command.main(command.Config("configurations", count=4, journal=path))
    assert made == [0, 1, 2, 3]
    assert "4 trials" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_ends_as_one_that_was_not() -> None:
    assert kills.attempt(0)["kills"] > 0
