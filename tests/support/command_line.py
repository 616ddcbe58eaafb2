"""Runs commands of `agents/` in this process."""

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
    """Exit code, or the message in its place, and the output of a command that must fail."""
    command = importlib.import_module(f"agents.{COMMANDS[module][0]}")
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(SystemExit) as stop:
        run_command(command.main, command.Config)
    captured = capsys.readouterr()
    return stop.value.code, captured.out + captured.err
