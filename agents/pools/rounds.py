"""How far a bootstrap has come: checkpoints of its rounds, as tensors and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gym_reml.files import load_safely, save_atomically
from gym_reml.meta_training import Clusters
from gym_reml.pool import LayerPool

from ..runs.progress import CHECKPOINTS
from ..runs.run import WORK, keep_checkpoint, latest_checkpoint, recall_work

POOL, LEARNER, CLUSTERS = "pool.pt", "learner.pt", "clusters.pt"


class Learner(Protocol):
    """What changes a pool from round to round."""

    def state(self) -> dict[str, Any]:
        """Tensors and numbers to go on from, beside the pool."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned."""


@dataclass(frozen=True)
class Rounds:
    """The rounds of a bootstrap.

    Attributes:
        count: how many there are.
        folder: where checkpoints are kept; None for nowhere.
    """

    count: int
    folder: Path | None = None

    @property
    def done(self) -> int:
        """The rounds before the newest checkpoint."""
        found = self._latest()
        return 0 if found is None else found[0]

    def keep(self, done: int, pool: LayerPool, learner: Learner, clusters: Clusters | None) -> None:
        """Keeps a checkpoint after some of the rounds."""
        if self.folder is None or done % max(1, self.count // CHECKPOINTS) or done == self.count:
            return

        def write(folder: Path) -> None:
            pool.save(folder / POOL)
            save_atomically(learner.state(), folder / LEARNER)
            if clusters is not None:
                save_atomically(clusters.state(), folder / CLUSTERS)

        keep_checkpoint(self.folder, done, write)

    def restore(self, pool: LayerPool, learner: Learner) -> None:
        """Sets pool and learner, in place, to what they were at the newest checkpoint.

        Raises:
            ValueError: a damaged checkpoint, or one of another pool.
        """
        found = self._latest()
        if found is None:
            return
        recall_work(found[1] / WORK)
        pool.assign(LayerPool.load(found[1] / POOL))
        path = found[1] / LEARNER
        try:
            learner.load_state(load_safely(path))
        except (LookupError, TypeError, AttributeError, RuntimeError, ValueError) as error:
            raise ValueError(f"{path}: damaged checkpoint, or one of another pool ({error})") from error

    def clusters(self) -> Clusters:
        """The clusters that were found before the newest checkpoint.

        Raises:
            OSError, ValueError: none, or a damaged file.
        """
        found = self._latest()
        assert found is not None
        return Clusters.from_state(load_safely(found[1] / CLUSTERS))

    def _latest(self) -> tuple[int, Path] | None:
        return None if self.folder is None else latest_checkpoint(self.folder)
