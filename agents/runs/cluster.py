"""Pieces of work as tasks of a Ray cluster: their folders travel as bytes, so that machines share no file system."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch

import gym_reml
from gym_reml.files import write_folder

from .pieces import Piece
from .run import COMMIT, commit

RETRIES = 5
"""How many times a piece is begun again whose machine or process is lost; errors of its own are not retried."""

P = TypeVar("P", bound=Piece)


def outcomes_on(address: str, pieces: Sequence[P]) -> Iterator[tuple[P, float | str]]:
    """Runs the pieces on a cluster, one on each core: each as it ends, with its seconds or its error as text.

    A piece's folder is sent with it and comes back when it ends, also after an error. It replaces the local one in a
    single step, so that whatever happens, there is never a part of one.

    Args:
        address: what `ray.init` takes: "auto", "local" for a cluster of this machine, or a cluster's address.
        pieces: those to run.

    Raises:
        ImportError: Ray is not installed.
        ConnectionError: there is no cluster at the address.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("--ray needs Ray: pip install ray") from error
    packages = [str(Path(gym_reml.__file__).parent), str(Path(__file__).parents[1])]
    environment = {"py_modules": packages, "env_vars": {COMMIT: commit() or ""}}
    ray.init(address, runtime_env=environment, log_to_driver=False)
    try:
        nodes = [node for node in ray.nodes() if node["Alive"]]
        print(f"ray: {ray.cluster_resources().get('CPU', 0):.0f} cores in {len(nodes)} nodes", flush=True)
        task: Any = ray.remote(num_cpus=1, max_retries=RETRIES)(work_elsewhere)
        running = {}
        for piece in pieces:
            try:
                piece.folder.mkdir(parents=True, exist_ok=True)
                running[task.remote(piece, packed(piece.folder))] = piece
            except OSError as error:
                yield piece, repr(error)
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            piece = running.pop(ended)
            try:
                content, outcome = ray.get(ended)
                unpack(content, piece.folder)
            except (ray.exceptions.RayError, OSError, tarfile.TarError) as error:
                outcome = repr(error)
            yield piece, outcome
    finally:
        ray.shutdown()


def work_elsewhere(piece: Piece, content: bytes) -> tuple[bytes, float | str]:
    """Runs a piece in a folder that begins with this content; returns what it holds then, and seconds or the error."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as place:
        moved = piece.moved(Path(place))
        unpack(content, moved.folder)
        outcome = moved.outcome()
        return packed(moved.folder), outcome


def packed(folder: Path) -> bytes:
    """All files of a folder as bytes."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=".")
    return content.getvalue()


def unpack(content: bytes, folder: Path) -> None:
    """Writes a folder with what `packed` returned, replacing the one that is there in a single step."""
    with write_folder(folder) as part, tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(part, filter="data")
