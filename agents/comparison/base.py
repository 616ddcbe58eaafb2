"""What every benchmark is: entrants that learn from the same tasks, and are tested on the same held-out ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gym_reml.evaluation import Result

from ..trials.rl2.recipes import Setting
from .entrants import ENTRANTS, Entrant

Variant = int | Setting
"""What a benchmark is run with, each on its own: a number of shots, or a setting of trials."""


@dataclass(frozen=True)
class Findings:
    """What came out for an entrant and a seed.

    Attributes:
        results: by test, of the entrant and of its controls.
        seconds: of training; of an entrant that is not trained, those of its trials.
        parameters: numbers that were learned.
        meta_training_tasks: training tasks drawn.
    """

    results: dict[str, list[Result]]
    seconds: float
    parameters: int
    meta_training_tasks: int


@dataclass(frozen=True, kw_only=True)
class Benchmark(ABC):
    """A comparison on one kind of tasks.

    Attributes:
        file: the result file its rows belong to.
        kind: the table of `ENTRANTS` that may enter.
        learners: who takes part where nobody is named; () for all that may.
        seeds: training runs of each, where no number is asked for.
        evaluation_tasks: held-out tasks, where no number is asked for.
    """

    file: str
    kind: str
    learners: tuple[str, ...] = ()
    seeds: int
    evaluation_tasks: int

    @property
    def choices(self) -> Mapping[str, Entrant[Any, Any]]:
        """Who may enter, by name."""
        return ENTRANTS[self.kind]

    @abstractmethod
    def variants(self, shots: int | None = None) -> tuple[Variant, ...]:
        """All that it is run with, or what that number of shots comes to.

        Raises:
            ValueError: shots of tasks that have none.
        """

    @abstractmethod
    def label(self, variant: Any) -> str:
        """The variant in words."""

    @abstractmethod
    def folder(self, variant: Any) -> str:
        """What the variant's folder is called."""

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
        self, name: str, variant: Any, *, seed: int, tasks: int | None, evaluation_tasks: int, folder: Path
    ) -> Findings:
        """Trains an entrant and evaluates it on every test.

        Args:
            name: of the entrant.
            variant: what it is run with.
            seed: of weights and tasks.
            tasks: training tasks, None for as many as the recipe draws.
            evaluation_tasks: held-out tasks.
            folder: for whatever training writes; an interrupted training run goes on from there.
        """
