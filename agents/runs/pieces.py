"""A piece of work that leaves a folder with a log, wherever it is done."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self  # in typing since Python 3.11


class Piece(ABC):
    """A piece of work, which can be pickled, and prints as what progress calls it."""

    @property
    @abstractmethod
    def folder(self) -> Path:
        """Where it writes."""

    @property
    def log(self) -> Path:
        """The file for all that it prints."""
        return self.folder / "log.txt"

    @abstractmethod
    def work(self) -> float:
        """Does it, and returns the seconds that count."""

    @abstractmethod
    def moved(self, root: Path) -> Self:
        """The same piece in another run directory."""

    def run(self) -> float:
        """Does it, with all that is printed going to the log; returns the seconds that count."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.log, "a", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
            try:
                return self.work()
            except Exception:
                traceback.print_exc()
                raise

    def outcome(self) -> float | str:
        """Does it; returns the seconds that count, or what went wrong."""
        try:
            return self.run()
        except Exception as error:
            return repr(error)
