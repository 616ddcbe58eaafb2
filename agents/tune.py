"""The settings of every tuned method, compared on validation tasks: `python -m agents.tune --learners maml`."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np

from gym_reml.evaluation import evaluate
from gym_reml.evaluation.results import markdown_table
from gym_reml.files import file_name, write_text
from gym_reml.tasks import make_family

from .comparison.grids import GRIDS, JUDGED, score
from .pages.attempts import merge_attempts
from .problems.problem import Problem
from .problems.recipes import recipe_for
from .runs.command_line import check_options, default_is, program, run_command
from .runs.pieces import Piece
from .runs.workers import check_none_failed, run_all

if TYPE_CHECKING:
    MethodName = str
else:
    METHODS = tuple(GRIDS)
    MethodName = Literal[METHODS]

FAMILY = "sinusoid"


@dataclass(frozen=True)
class Config:
    """Trains every setting of a method once, and shows which is best on validation tasks.

    Interrupted, the same command goes on where it was.
    """

    learners: Annotated[tuple[MethodName, ...], default_is("all")] = ()
    """the methods"""
    shots: int = 5
    """support points of a task"""
    seed: int = 0
    """of weights and tasks"""
    tasks: int | None = None
    """training tasks of every run"""
    validation_tasks: int = 1000
    """tasks that settings are compared on"""
    workers: int = 1
    """runs side by side, each on a core of its own"""
    ray: Annotated[str | None, default_is("processes of this machine")] = None
    """cluster that runs it instead, a run on each core: an address, "auto", or "local" for one of this machine"""
    run: Path = Path("runs/tune")
    """run directory"""
    results: Annotated[Path | None, default_is("none")] = None
    """folder of the attempts.json that the tables are merged into"""

    def implied(self) -> dict[str, str]:
        """What the family implies, for `--help`."""
        return {"tasks": f"{recipe_for(make_family(FAMILY)).tasks}, as many as REML's recipe draws"}


@dataclass(frozen=True)
class Candidate(Piece):
    """A training run with one setting of a method, judged on validation tasks.

    Attributes:
        config: of the command.
        method, setting: names of the grid and of one of its settings.
    """

    config: Config
    method: str
    setting: str

    def __str__(self) -> str:
        return f"{self.method}: {self.setting}"

    @property
    def folder(self) -> Path:
        """Where it writes."""
        about = self.config
        budget = f"{about.shots}-shot-{about.tasks or 'default'}-tasks-seed-{about.seed}"
        return about.run / budget / self.method / file_name(self.setting)

    def moved(self, root: Path) -> Candidate:
        """The same candidate in another run directory."""
        return replace(self, config=replace(self.config, run=root))

    @property
    def found(self) -> dict[str, Any] | None:
        """Means and medians after the judged steps and the seconds of training; None if it is not finished."""
        path = self.folder / f"found-{self.config.validation_tasks}.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None

    def work(self) -> float:
        """Trains and evaluates; returns the seconds of training."""
        config, family = self.config, make_family(FAMILY, shots=self.config.shots)
        recipe = recipe_for(family)
        tasks = recipe.tasks if config.tasks is None else config.tasks
        start = time.monotonic()
        problem = Problem(family, recipe.scaled(tasks), tasks, config.seed)
        learner = GRIDS[self.method].settings[self.setting](problem, self.folder / "training")
        seconds = time.monotonic() - start
        result = evaluate(learner, family, steps=JUDGED, tasks=config.validation_tasks, split="validation")
        values = [result.values(step, recipe.metric) for step in JUDGED]
        found = {
            "means": [float(value.mean()) for value in values],
            "medians": [float(np.median(value)) for value in values],
            "seconds": seconds,
        }
        write_text(self.folder / f"found-{config.validation_tasks}.json", json.dumps(found))
        return seconds


def main(config: Config) -> None:
    """Runs what is left to run, and prints a table for each method, best setting first."""
    check_options(config, shots=1, seed=0, tasks=1, validation_tasks=2, workers=1)
    methods = config.learners or tuple(GRIDS)
    candidates = [Candidate(config, method, setting) for method in methods for setting in GRIDS[method].settings]
    left = [candidate for candidate in candidates if candidate.found is None]
    print(f"run directory: {config.run} ({len(left)} of {len(candidates)} runs left to do)")
    failed = run_all(left, config.workers, config.ray)
    sections = [section_of(method, [one for one in candidates if one.method == method]) for method in methods]
    for section in sections:
        rows = [[figure["what"], figure["value"]] for figure in section["figures"]]
        print(f"\n{section['title']}\n\n{markdown_table(['setting', 'errors'], rows)}")
    check_none_failed(failed)
    if config.results is not None:
        merge_attempts(config.results / "attempts.json", sections)


def section_of(method: str, candidates: list[Candidate]) -> dict[str, Any]:
    """What `attempts.json` says of a method's settings, best first."""
    config = candidates[0].config
    finished = [(candidate, found) for candidate in candidates if (found := candidate.found) is not None]
    finished.sort(key=lambda pair: score(pair[1]["means"]))
    best = finished[0][0].setting if finished else "none"
    steps = " / ".join(map(str, JUDGED))
    tasks = "" if config.tasks is None else f" --tasks {config.tasks}"
    return {
        "title": f"Settings of `{method}`",
        "question": "Which settings does the comparison give it?",
        "tried": (
            f"All of the following, {FAMILY}, {config.shots} shots, seed {config.seed}, judged by the geometric mean "
            f"of the errors after {steps} steps on {config.validation_tasks:,} validation tasks: the procedure of "
            "every tuned method, REML among them."
        ),
        "found": f"Best: {best}.",
        "figures": [
            {
                "what": candidate.setting,
                "value": f"{' / '.join(f'{mean:.3g}' for mean in found['means'])} ({score(found['means']):.3g})",
            }
            for candidate, found in finished
        ],
        "command": f"{program('tune')} --learners {method} --shots {config.shots}{tasks}",
    }


if __name__ == "__main__":
    run_command(main, Config)
