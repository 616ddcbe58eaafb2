"""Pieces of work that are done side by side: by processes of this machine, or by a cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import TypeVar

import torch

from .cluster import outcomes_on
from .pieces import Piece

P = TypeVar("P", bound=Piece)


def run_all(pieces: Sequence[P], workers: int, ray: str | None = None) -> list[P]:
    """Runs the pieces, printing a line for each as it ends; returns those that failed.

    Args:
        pieces: those to run.
        workers: processes of this machine; 1 for this one.
        ray: address of a cluster that runs them instead, see `outcomes_on`.
    """
    failed = []
    for done, (piece, outcome) in enumerate(outcomes(pieces, workers, ray), start=1):
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


def outcomes(pieces: Sequence[P], workers: int, ray: str | None = None) -> Iterator[tuple[P, float | str]]:
    """Runs the pieces as `run_all` does: each as it ends, with its seconds or its error as text."""
    if ray is not None and pieces:
        yield from outcomes_on(ray, pieces)
        return
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
