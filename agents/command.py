"""From a dataclass to a command: bad input ends in one clear line, not in a traceback."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from gym_reml.plain_text import SPELL_OUT

C = TypeVar("C")


def run_command(main: Callable[[C], None], config: type[C]) -> None:
    """Parses the command line into `config` and runs `main` on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # No command shall end in the middle for a sign that a redirected output cannot hold.
            stream.reconfigure(errors=SPELL_OUT)
    try:
        main(tyro.cli(config))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def check_options(config: Any, **least: int) -> None:
    """Raises a ValueError that names the first option below the least value that is given for it.

    Options that are None are left to the recipe.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least {lowest}")
