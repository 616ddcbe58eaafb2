"""The door to the commands: `gym-reml train`, or `python -m gym_reml train`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Runs the command that the first argument names; `--help` lists them.

    A wheel installs the folder of the commands as `gym_reml_agents`; in a checkout, and so in an editable install,
    it is `agents/`.
    """
    package = "gym_reml_agents"
    if not (HERE / package).is_dir():
        package = "agents"
        # Ahead of any `agents` of other people's, for the processes that this one starts too.
        sys.path.insert(0, str(HERE))
    importlib.import_module(f"{package}.command").main(sys.argv[1:])


if __name__ == "__main__":
    main()
