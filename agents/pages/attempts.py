"""The page of what was tried and did not work, from `attempts.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gym_reml.evaluation.results import markdown_table
from gym_reml.files import write_text

from ..comparison.rows import read_list
from .tables import number

ATTEMPT_FIELDS = ("title", "question", "tried", "found", "figures")
"""What every attempt holds; "command" is its to give."""

INTRODUCTION = "Also what did work, where it took several attempts or is not part of the default settings."


def attempts_page(path: Path) -> str:
    """The page's text, but for its first line.

    Raises:
        ValueError: an entry that is not as it should be.
    """
    attempts = [_attempt(attempt) for attempt in read_attempts(path)]
    return "\n\n".join(["# What did not work", INTRODUCTION, *(attempts or ["No attempts are recorded yet."])])


def read_attempts(path: Path) -> list[dict[str, Any]]:
    """What was tried and did not work; nothing if there is no such file.

    Raises:
        ValueError: an entry that is not as it should be.
    """
    attempts = read_list(path)
    titles: set[str] = set()
    for place, attempt in enumerate(attempts, start=1):
        where = f"{path}: attempt {place}"
        _check_attempt(attempt, where)
        if attempt["title"] in titles:
            raise ValueError(f"{where}: title={attempt['title']!r}: another attempt has it too")
        titles.add(attempt["title"])
    return attempts


def merge_attempts(path: Path, attempts: Sequence[dict[str, Any]]) -> None:
    """Writes these into the file, over those of the same title."""
    new = {attempt["title"]: attempt for attempt in attempts}
    merged = [new.pop(old["title"], old) for old in read_attempts(path)]
    write_text(path, json.dumps([*merged, *new.values()], indent=1, ensure_ascii=False) + "\n")


def _check_attempt(attempt: Any, where: str) -> None:
    if not isinstance(attempt, dict):
        raise ValueError(f"{where}: must be an object with {', '.join(ATTEMPT_FIELDS)}")
    missing = [name for name in ATTEMPT_FIELDS if name not in attempt]
    unknown = [name for name in attempt if name not in (*ATTEMPT_FIELDS, "command")]
    if missing or unknown:
        raise ValueError(f"{where}: {'lacks' if missing else 'has unknown'} {', '.join(missing or unknown)}")
    for name in attempt.keys() - {"figures"}:
        if not isinstance(attempt[name], str) or not attempt[name].strip():
            raise ValueError(f"{where}: {name}={attempt[name]!r}: must be a text")
    figures = attempt["figures"]
    if not isinstance(figures, list) or not all(_is_figure(figure) for figure in figures):
        raise ValueError(f"{where}: figures={figures!r}: must be a list of objects with what (a text) and value")


def _is_figure(figure: Any) -> bool:
    return (
        isinstance(figure, dict)
        and set(figure) == {"what", "value"}
        and isinstance(figure["what"], str)
        and isinstance(figure["value"], str | int | float)
        and not isinstance(figure["value"], bool)
    )


def _attempt(attempt: dict[str, Any]) -> str:
    parts = [f"## {attempt['title']}"]
    parts += [f"**{name.capitalize()}.** {attempt[name]}" for name in ("question", "tried", "found")]
    if attempt["figures"]:
        rows = [
            [figure["what"], number(figure["value"]) if isinstance(figure["value"], float) else str(figure["value"])]
            for figure in attempt["figures"]
        ]
        parts.append(markdown_table(["figure", "value"], rows))
    if "command" in attempt:
        parts.append(f"```bash\n{attempt['command']}\n```")
    return "\n\n".join(parts)
