"""Makes the trained learners that the package ships: `python -m agents.comparison.packaged`."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import torch

from gym_reml.evaluation import MetaLearner, evaluate
from gym_reml.evaluation.protocol import TASKS
from gym_reml.evaluation.trained import FOLDER
from gym_reml.files import write_text

from ..problems.problem import TABLE_STEPS, Problem, count_parameters
from ..problems.recipes import recipe_for
from ..runs.command_line import default_is, program, run_command
from ..runs.run import versions
from .benchmarks import BENCHMARKS
from .few_shot import FewShotBenchmark


class Source(NamedTuple):
    """Where a packaged learner comes from: the first seed of an entrant of a benchmark of few-shot tasks."""

    benchmark: str
    shots: int
    entrant: str


PACKAGED = {
    "sinusoid/maml": Source("sinusoid", 5, "maml_5"),
    "sinusoid/meta_sgd": Source("sinusoid", 5, "meta_sgd"),
    "sinusoid/reml": Source("sinusoid", 5, "reml"),
}
"""The packaged learners. A new one is a row here, and the two files that this command writes."""

if TYPE_CHECKING:
    Name = str
else:
    Name = Literal[tuple(PACKAGED)]


@dataclass(frozen=True)
class Config:
    """Trains learners as `compare` does with seed 0, evaluates them on held-out tasks, and writes both down."""

    names: Annotated[tuple[Name, ...], default_is("all")] = ()
    """which learners"""
    run: Path = Path("runs/packaged")
    """run directory; an interrupted run of REML is continued from there"""
    out: Annotated[Path, default_is("the package's own folder")] = FOLDER
    """where to write FAMILY/NAME/learner.pt and about.json"""


def make(name: str, folder: Path) -> MetaLearner:
    """Trains a packaged learner; files of training go into the folder."""
    benchmark, shots, entrant = PACKAGED[name]
    setting = BENCHMARKS[benchmark]
    assert isinstance(setting, FewShotBenchmark)
    family = setting.train(shots)
    recipe = recipe_for(family)
    learner = setting.entrant(entrant).train(Problem(family, recipe, recipe.tasks, seed=0), folder)
    return replace(learner, name=name.rpartition("/")[2])


def row_of(learner: MetaLearner, family: str, shots: int, tasks: int = TASKS) -> dict[str, Any]:
    """How a learner does on held-out tasks, as its about.json says it."""
    result = evaluate(learner, family, shots=shots, steps=TABLE_STEPS, tasks=tasks)
    metric = next(name for name in result.metrics if name != "loss")
    found = {step: result.summary(step, metric) for step in result.steps}
    steps = {
        str(step): {"mean": summary.mean, "median": summary.median, "ci95": summary.ci95}
        for step, summary in found.items()
    }
    return {"tasks": tasks, "metric": metric, "steps": steps}


def main(config: Config) -> None:
    """Trains, evaluates and writes."""
    torch.set_num_threads(1)
    for name in config.names or PACKAGED:
        benchmark, shots, _ = PACKAGED[name]
        learner = make(name, config.run / name)
        learner.save(config.out / name)
        # Not what is in memory: the row is that of the file.
        learner = MetaLearner.load(config.out / name)
        row = row_of(learner, benchmark, shots)
        found = {
            "command": f"{program('comparison.packaged')} --names {name}",
            "family": benchmark,
            "shots": shots,
            "parameters": count_parameters(learner),
            "versions": versions(),
            "row": row,
        }
        write_text(config.out / name / "about.json", json.dumps(found, indent=1) + "\n")
        print(f"wrote {config.out / name}: {row['steps']}")


if __name__ == "__main__":
    run_command(main, Config)
