"""Work that is done side by side, each piece in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Protocol, TypeVar

import torch


class Work(Protocol):
    """A piece of work, which can be pickled."""

    def run(self) -> float:
        """Does it, and returns its duration in seconds."""


W = TypeVar("W", bound=Work)


def single_thread() -> None:
    """Initialises a process: with small matrices a single thread is fastest."""
    torch.set_num_threads(1)


def outcomes(pieces: Sequence[W], workers: int) -> Iterator[tuple[W, float | Exception]]:
    """Does the work, a single worker in this process: each piece as it ends, with its seconds or its error."""
    if workers == 1:
        single_thread()
        for piece in pieces:
            try:
                yield piece, piece.run()
            except Exception as failure:
                yield piece, failure
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=single_thread) as pool:
        running = {pool.submit(_run, piece): piece for piece in pieces}
        try:
            for future in as_completed(running):
                error = future.exception()
                yield running[future], error if isinstance(error, Exception) else future.result()
        except BaseException:
            # Interrupted: without this, all that is queued would still be run.
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run(piece: Work) -> float:
    return piece.run()
