"""The options of commands that can train several seeds at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from .command_line import check_options, default_is, spelled


@dataclass(frozen=True)
class SeedOptions:
    """How many runs there are, and what they run on."""

    seeds: int = 1
    """runs, by this seed and those that follow it"""
    workers: int = 1
    """runs side by side, each on a core of its own"""
    ray: Annotated[str | None, default_is("processes of this machine")] = None
    """cluster that runs them instead, a run on each core: an address, "auto", or "local" for one of this machine"""

    def check_seeds(self, seeds: int) -> None:
        """Raises a ValueError that names an option that makes no sense with this number of runs."""
        check_options(self, seeds=1, workers=1)
        for name, unset in ("workers", 1), ("ray", None):
            value = getattr(self, name)
            if seeds == 1 and value != unset:
                raise ValueError(f"--{spelled(name)} {value}: a single run is done by this process; use --seeds")
