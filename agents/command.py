"""From a dataclass to a command: bad input ends in one clear line, not in a traceback."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import tyro

C = TypeVar("C")


def run_command(main: Callable[[C], None], config: type[C]) -> None:
    """Parses the command line into `config` and runs `main` on it."""
    try:
        main(tyro.cli(config))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")
