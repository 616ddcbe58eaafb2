"""Pieces of work that are done side by side, each in a process of its own, and that leave a log."""

from __future__ import annotations

import traceback
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import torch

from .cluster import outcomes_on

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


P = TypeVar("P", bound=Piece)


def run_all(pieces: Sequence[P], workers: int, ray: str | None = None) -> list[P]:
    """Runs the pieces, printing a line for each as it ends; returns those that failed.

    Args:
        pieces: those to run.
        workers: processes of this machine; 1 for this one.
        ray: address of a cluster that runs them instead, see `outcomes_on`.
    """
    failed = []
    ended = outcomes_on(ray, pieces) if ray is not None and pieces else _outcomes(pieces, workers)
    for done, (piece, outcome) in enumerate(ended, start=1):
        if isinstance(outcome, str):
            failed.append(piece)
        said = f"failed: {outcome}" if isinstance(outcome, str) else f"{outcome:.0f} s"
        print(f"[{done}/{len(pieces)}] {piece}: {said}", flush=True)
    return failed


def check_none_failed(failed: Sequence[Piece]) -> None:
    """Raises a ValueError that names the logs of pieces that failed, if there are any."""
    if failed:
        raise ValueError(f"{len(failed)} runs failed, see {', '.join(str(piece.log) for piece in failed)}")


def _single_thread() -> None:
    """Initialises a process: with small matrices a single thread is fastest."""
    torch.set_num_threads(1)


def _outcomes(pieces: Sequence[P], workers: int) -> Iterator[tuple[P, float | str]]:
    """Runs the pieces, a single worker in this process: each as it ends, with its seconds or its error as text."""
    if workers == 1:
        _single_thread()
        for piece in pieces:
            yield piece, piece.outcome()
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_single_thread) as pool:
        running = {pool.submit(piece.outcome): piece for piece in pieces}
        try:
            for future in as_completed(running):
                error = future.exception()
                yield running[future], repr(error) if isinstance(error, Exception) else future.result()
        except BaseException:
            # Interrupted: without this, all that is queued would still be run.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
