"""Every registered environment, a line each: `gym-reml list`, or `python -m agents.catalogue.list`."""

from __future__ import annotations

from dataclasses import dataclass

from gym_reml import REGISTRATIONS

from ..runs.command_line import run_plainly
from .description import describe


@dataclass(frozen=True)
class Config:
    """Lists every environment: its id, what it is, and what its agent decides."""


def main(config: Config) -> None:
    """Prints a line for each, aligned."""
    found = [describe(env_id) for env_id in REGISTRATIONS]
    widest = max(len(one.env_id) for one in found)
    longest = max(len(one.summary) for one in found)
    for one in found:
        print(f"{one.env_id:{widest}}  {one.summary:{longest}}  {one.decision}")


if __name__ == "__main__":
    run_plainly(main, Config)
