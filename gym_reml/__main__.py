"""The command line: `gym-reml train`, or `python -m gym_reml train`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Runs the command that the first argument names; `--help` lists them.

    The package of commands is `gym_reml_agents` when installed from a wheel, and `agents` in a checkout or an editable
    install.
    """
    package = "gym_reml_agents"
    if not (HERE / package).is_dir():
        package = "agents"
        # First, so that no other package named `agents` is imported, here or in child processes.
        sys.path.insert(0, str(HERE))
    importlib.import_module(f"{package}.command").main(sys.argv[1:])


if __name__ == "__main__":
    main()
