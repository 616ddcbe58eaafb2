"""An Optuna study whose trials run side by side, or on a cluster: `python -m agents.libraries.study --ray local`."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from gym_reml.evaluation.results import markdown_table
from gym_reml.files import write_text

from ..runs.command_line import check_options, default_is, run_command
from ..runs.pieces import Piece
from ..runs.workers import check_none_failed, run_all
from .optuna import hyperparameters, returns, study_of, train, training_return


@dataclass(frozen=True)
class Config:
    """Searches hyperparameters of Stable-Baselines3's PPO on `NetBuild-v0` by an Optuna study.

    Interrupted, the same command goes on where it was.
    """

    trials: int = 16
    """training runs"""
    together: int = 4
    """trials that are chosen together, before any of them is done; what is found depends on it"""
    steps: int = 6_000
    """environment steps of a trial"""
    seed: int = 0
    """of the study, and of every trial"""
    workers: int = 1
    """trials side by side, each on a core of its own"""
    ray: Annotated[str | None, default_is("processes of this machine")] = None
    """cluster that runs them instead, a trial on each core: an address, "auto", or "local" for one of this machine"""
    run: Path = Path("runs/study")
    """run directory"""

    @property
    def folder(self) -> Path:
        """That of the study: others with the same run directory have other folders."""
        return self.run / f"{self.steps}-steps-{self.together}-together-seed-{self.seed}"


@dataclass(frozen=True)
class Trial(Piece):
    """A training run with values that the study has chosen.

    Attributes:
        config: of the study.
        number: of the trial.
        values: see `hyperparameters`.
    """

    config: Config
    number: int
    values: Mapping[str, Any]

    def __str__(self) -> str:
        return f"trial {self.number}: {in_words(self.values)}"

    @property
    def folder(self) -> Path:
        """Where it writes."""
        return self.config.folder / f"trial-{self.number}"

    def moved(self, root: Path) -> Trial:
        """The same trial in another run directory."""
        return replace(self, config=replace(self.config, run=root))

    @property
    def found(self) -> dict[str, Any] | None:
        """Its values, returns and seconds; None if it is not finished.

        Raises:
            ValueError: it was run with other values: by another version of Optuna, or of this package.
        """
        path = self.folder / "found.json"
        if not path.is_file():
            return None
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if found["values"] != self.values:
            raise ValueError(f"{path}: found by other versions ({in_words(found['values'])}); choose another --run")
        return found

    def work(self) -> float:
        """Trains and evaluates; returns the seconds of training."""
        start = time.monotonic()
        model = train(self.values, self.config.seed, self.config.steps)
        seconds = time.monotonic() - start
        found = {
            "values": self.values,
            "training_return": training_return(model),
            "held_out_return": returns(model),
            "seconds": seconds,
        }
        write_text(self.folder / "found.json", json.dumps(found))
        return seconds


def in_words(values: Mapping[str, Any]) -> str:
    """Values with their names."""
    return ", ".join(f"{name} {value:.3g}" for name, value in values.items())


def main(config: Config) -> None:
    """Runs what is left to run, and prints a table of the trials, the best one first.

    The study is asked in rounds, and told in the order of the trials. So what it chooses depends neither on who is
    faster nor on where trials run, and a study that was interrupted is asked and told again what its files hold.

    Raises:
        ImportError: Optuna is not installed.
        ValueError: trials that failed; the next round needs them.
    """
    check_options(config, trials=1, together=1, steps=1, seed=0, workers=1)
    try:
        study = study_of(config.seed)
    except ImportError as error:
        raise ImportError("needs Optuna: pip install optuna") from error
    print(f"run directory: {config.folder}", flush=True)
    done: list[dict[str, Any]] = []
    while len(done) < config.trials:
        asked = [study.ask() for _ in range(min(config.together, config.trials - len(done)))]
        pieces = [Trial(config, len(done) + place, hyperparameters(one)) for place, one in enumerate(asked)]
        check_none_failed(run_all([piece for piece in pieces if piece.found is None], config.workers, config.ray))
        for one, piece in zip(asked, pieces, strict=True):
            found = piece.found
            assert found is not None
            study.tell(one, found["training_return"])
            done.append(found)
    best = sorted(range(len(done)), key=lambda number: -done[number]["training_return"])
    rows = [
        [str(number), in_words(found["values"]), f"{found['training_return']:.3f}", f"{found['held_out_return']:.3f}"]
        for number in best
        for found in [done[number]]
    ]
    print(f"\n{markdown_table(['trial', 'values', 'training return', 'held-out return'], rows)}")


if __name__ == "__main__":
    run_command(main, Config)
