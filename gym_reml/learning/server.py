"""One pool for several processes: one owns the pool and its learner, the others deliver finished episodes."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gym_reml.files import load_safely, save_atomically
from gym_reml.learning.episodes import Episodes
from gym_reml.learning.options import LearningOptions
from gym_reml.learning.pool_learner import PoolLearner
from gym_reml.pool.layer_pool import LayerPool
from gym_reml.tasks.base import TaskFamily

STATE = "state.pt"


class Delivery(NamedTuple):
    """Episodes that a runner, one of the processes with environments, finished.

    Attributes:
        runner: number of the runner, and a text that no other has, nor a later one of the same number.
        number: how many deliveries it made before.
        updates: number of updates of the pool when these episodes began.
        episodes: the episodes.
        stale: number of episodes that the runner itself left out, see `PoolLearner.stale`.
    """

    runner: tuple[int, str]
    number: int
    updates: int
    episodes: Episodes
    stale: int = 0

    @property
    def file(self) -> str:
        """Name of its file."""
        return f"{self.runner[0]:06d}-{self.runner[1]}-{self.number:09d}.pt"


class PoolServer:
    """A pool and its learner, which learn in rounds, and survive their process.

    Runners deliver finished episodes at any time; `learn` then updates the pool from all of them, in the order of
    the runners, so the result does not depend on which was faster. What was delivered and what was learned is in a
    folder before a call returns. Calls may be repeated, as they are after a restart: a delivery counts once.

    Attributes:
        learner: updates the pool.
        folder: with the state, and with deliveries that were not learned from yet.
    """

    def __init__(
        self, pool: LayerPool, family: TaskFamily, rule: str, options: LearningOptions | None, folder: str | Path
    ) -> None:
        """Starts with this pool, or continues from the folder if it holds a state."""
        self.learner, self.folder = PoolLearner(pool, family, rule, options), Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._seen: dict[str, int] = {}
        self._waiting: list[Delivery] = []
        if (self.folder / STATE).is_file():
            self._load(load_safely(self.folder / STATE))
        else:
            self._store()
        for path in sorted(self.folder.glob("*-*.pt")):
            state = load_safely(path)
            delivery = Delivery(**(state | {"episodes": Episodes.from_state(state["episodes"])}))
            if self._is_new(delivery):
                self._accept(delivery)

    def deliver(self, delivery: Delivery) -> None:
        """Takes finished episodes; `learn` uses them."""
        if self._is_new(delivery):
            content = delivery._asdict() | {"episodes": delivery.episodes.state()}
            # First, as the call is repeated if it fails.
            save_atomically(content, self.folder / delivery.file)
            self._accept(delivery)

    def _is_new(self, delivery: Delivery) -> bool:
        return delivery.number > self._seen.get(delivery.runner[1], -1)

    def _accept(self, delivery: Delivery) -> None:
        self._seen[delivery.runner[1]] = delivery.number
        self._waiting.append(delivery)

    def learn(self) -> dict[str, Any]:
        """Updates the pool from what was delivered; returns `weights()`.

        Episodes that do not fill a batch wait for the next round. If data depend on the network, episodes that began
        before the last update are left out.
        """
        learner, fixed = self.learner, self.learner.family.fixed_data
        delivered = sorted(self._waiting, key=lambda one: (one.runner, one.number))
        if not fixed:
            late = sum(len(one.episodes) for one in delivered if one.updates != learner.updates)
            learner.leave_out(late + sum(one.stale for one in delivered))
            delivered = [one for one in delivered if one.updates == learner.updates]
        used, size = sum(len(one.episodes) for one in delivered), learner.options.batch_size
        rest: list[Delivery] = []
        if used < size:
            rest = [one._replace(stale=0) for one in delivered]
        elif used:
            episodes = Episodes.concatenate([one.episodes for one in delivered])
            if fixed and used % size:
                index = torch.arange(used)
                kept = episodes.take(index[-(used % size) :])
                rest = [delivered[-1]._replace(episodes=kept)]
                episodes = episodes.take(index[: -(used % size)])
            learner.add(episodes)
        if self._waiting:
            self._waiting = rest
            self._store()
        return self.weights()

    def weights(self) -> dict[str, Any]:
        """The pool's state, and the counts of its learner."""
        learner = self.learner
        counts = {name: getattr(learner, name) for name in ("updates", "used", "dropped", "stale")}
        return {"pool": learner.pool.state(), "counts": counts}

    def state(self) -> dict[str, Any]:
        """All that is needed to continue, as plain data."""
        waiting = [one._asdict() | {"episodes": one.episodes.state()} for one in self._waiting]
        return {
            "pool": self.learner.pool.state(),
            "learner": self.learner.state(),
            "seen": dict(self._seen),
            "waiting": waiting,
        }

    def load_state(self, state: dict[str, Any]) -> dict[str, Any]:
        """Continues from a state that `state()` returned; returns `weights()`."""
        self._load(state)
        self._store()
        return self.weights()

    def _load(self, state: dict[str, Any]) -> None:
        learner = self.learner
        learner.pool.assign(LayerPool.from_state(state["pool"], modules=learner.pool.modules))
        learner.load_state(state["learner"])
        self._seen = dict(state["seen"])
        self._waiting = [
            Delivery(**(one | {"runner": tuple(one["runner"]), "episodes": Episodes.from_state(one["episodes"])}))
            for one in state["waiting"]
        ]

    def _store(self) -> None:
        """Writes the state; the files of deliveries are then in it, or used up."""
        written = list(self.folder.glob("*-*.pt"))
        save_atomically(self.state(), self.folder / STATE)
        for path in written:
            path.unlink()


class DeliveringLearner(PoolLearner):
    """Takes the place of an environment's pool learner in a runner: delivers its episodes to a `PoolServer`.

    Attributes:
        send: hands a delivery to the server; None as long as there is no server.
    """

    def __init__(self, learner: PoolLearner, runner: int) -> None:
        """Takes the place of `learner` in the runner of this number."""
        super().__init__(learner.pool, learner.family, learner.rule, learner.options)
        self.send: Callable[[Delivery], None] | None = None
        self._runner = runner, uuid.uuid4().hex
        self._finished: list[tuple[int, Episodes]] = []
        self._delivered = 0

    def add(self, episodes: Episodes) -> None:
        """Keeps finished episodes for the next delivery."""
        self._finished.append((self.updates, episodes.map(lambda tensor: tensor.cpu())))

    def leave_out(self, episodes: int) -> None:
        """Counts `episodes` as stale, for the next delivery."""
        self.stale += episodes

    def restart(self) -> None:
        """Raises a ValueError: the pool is not this environment's own."""
        raise ValueError("options: pool='initial': the pool is shared with other processes, which go on learning")

    def deliver(self) -> None:
        """Sends the finished episodes, which are kept until there is a server, and until `send` returned."""
        while self._finished and self.send is not None:
            updates = self._finished[0][0]
            episodes = Episodes.concatenate([part for began, part in self._finished if began == updates])
            self.send(Delivery(self._runner, self._delivered, updates, episodes, self.stale))
            self._delivered, self.stale = self._delivered + 1, 0
            self._finished = [pair for pair in self._finished if pair[0] != updates]

    def take(self, weights: dict[str, Any]) -> None:
        """Overwrites the pool by weights that the server returned."""
        self.pool.assign(LayerPool.from_state(weights["pool"], modules=self.pool.modules))
        self.updates = weights["counts"]["updates"]
