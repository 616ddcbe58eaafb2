"""Base of all benchmarks: entrants are trained on the same tasks and tested on the same held-out ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_reml.evaluation import Result

from ..problems.own import find_own, is_own
from ..trials.rl2.recipes import Setting
from ..tuning.setting import RunSetting
from .entrants import ENTRANTS, Entrant

Variant = int | Setting | RunSetting
"""What a benchmark is run with, each on its own: a number of shots, or a setting of trials or of training runs."""


@dataclass(frozen=True)
class Findings:
    """The results of an entrant for one seed.

    Attributes:
        results: by test, of the entrant and of its controls.
        seconds: duration of training, or of the trials if the entrant is not trained.
        parameters: number of learned parameters.
        meta_training_tasks: number of training tasks drawn.
        inner_gradients, environment_steps: work of training, see `gym_reml.networks.work.Work`; None where it is not
            known, because training was interrupted and continued.
    """

    results: dict[str, list[Result]]
    seconds: float
    parameters: int
    meta_training_tasks: int
    inner_gradients: int | None
    environment_steps: int | None


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """A comparison on one kind of tasks.

    Attributes:
        file: the result file its rows belong to.
        kind: the table of `ENTRANTS` that may enter.
        learners: the entrants by default; () for all of the table.
        seeds: default number of training runs of each.
        evaluation_tasks: default number of held-out tasks.
        network: what its rows say of the networks, where results of several kinds are in one file; None for nothing.
    """

    file: str
    kind: str
    learners: tuple[str, ...] = ()
    network: str | None = None
    seeds: int
    evaluation_tasks: int

    @property
    def choices(self) -> Mapping[str, Entrant[Any, Any]]:
        """The possible entrants by name."""
        return ENTRANTS[self.kind]

    def entrant(self, name: str) -> Entrant[Any, Any]:
        """The entrant of that name, or the user's own that MODULE:LEARNER names.

        The latter is an `Entrant`, or a function that takes a problem and a folder and returns what is evaluated; that
        one is compared with all others that take part.

        Raises:
            ValueError: MODULE:LEARNER names something else.
            ImportError: its module cannot be imported.
        """
        if not is_own(name):
            return self.choices[name]
        found = find_own("--learners", name, lambda value: isinstance(value, Entrant), "entrants")
        if isinstance(found, Entrant):
            return found
        if not callable(found) or isinstance(found, type):
            raise ValueError(f"--learners {name}: {found!r} is no Entrant, and no function that trains a learner")
        return Entrant(found, compared_with=tuple(self.choices))

    @abstractmethod
    def variants(self, shots: int | None = None) -> tuple[Variant, ...]:
        """All variants, or only that with this number of shots.

        Raises:
            ValueError: shots of tasks that have none.
        """

    @abstractmethod
    def label(self, variant: Any) -> str:
        """The variant in words."""

    @abstractmethod
    def folder(self, variant: Any) -> str:
        """The name of the variant's folder."""

    @abstractmethod
    def option(self, variant: Any) -> str:
        """What chooses the variant on the command line; "" where nothing does."""

    def enters(self, name: str, variant: Any) -> bool:
        """Whether that entrant takes part in the variant."""
        return True

    @abstractmethod
    def metric(self, variant: Any) -> str:
        """What its tables show."""

    @abstractmethod
    def steps(self, variant: Any) -> tuple[int, ...]:
        """The places on the results' axis that have rows."""

    @abstractmethod
    def tests(self, variant: Any) -> dict[str, str | None]:
        """The names of its tests, and what tables say of each beside it: "heldout", "train" or None."""

    @abstractmethod
    def measure(
        self,
        name: str,
        variant: Any,
        *,
        seed: int,
        tasks: int | None,
        evaluation_tasks: int,
        folder: Path,
        device: str = "cpu",
    ) -> Findings:
        """Trains an entrant and evaluates it on every test.

        Args:
            name: of the entrant.
            variant: what it is run with.
            seed: of weights and tasks.
            tasks: training tasks, None for as many as the recipe draws.
            evaluation_tasks: held-out tasks.
            folder: for the files of training; an interrupted training run is continued from there.
            device: that networks are computed on.
        """
