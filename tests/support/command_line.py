"""Commands of `agents/`, run in this process up to where they stop."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from agents.command import COMMANDS
from agents.runs.command_line import run_command


def stop_of(
    module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Any, str]:
    """Exit code, or the message in its place, and all that was shown, of a command that must not come to its end."""
    command = importlib.import_module(f"agents.{COMMANDS[module][0]}")
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as stop:
        run_command(command.main, command.Config)
    captured = capsys.readouterr()
    return stop.value.code, captured.out + captured.err
