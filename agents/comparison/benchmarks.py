"""The comparison's benchmarks: what is trained on, what is tested on, and who takes part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily

from ..problems.problem import POLICY_STEPS
from ..problems.recipes import recipe_for
from .learners import POLICIES, SUPERVISED

TRAINING_MIXTURE = ("sinusoid", "absolute", "bump", "cubic", "network", "ramp", "two_sinusoids")
HELD_OUT = ("linear", "quadratic", "step", "sawtooth")
OUTSIDE = {"amplitude": (5.0, 8.0), "phase": (3.141592653589793, 6.283185307179586)}
"""Sinusoids outside the ranges that were trained on."""

STEPS = (0, 1, 5, 10)


@dataclass(frozen=True)
class Test:
    """What a trained learner is tested on.

    Attributes:
        family: the tasks.
        split: what tables say of it beside its name: "heldout", "train" or None.
    """

    family: TaskFamily
    split: str | None = None


@dataclass(frozen=True)
class Benchmark:
    """A comparison of meta-learners that train on the same family and are tested on the same tasks.

    Attributes:
        file: the result file its rows belong to.
        shots: the numbers of shots it is run with, each on its own.
        learners: who takes part.
        train: the family trained on, for a number of shots.
        tests: by the name that tables use, for a number of shots.
        seeds, evaluation_tasks: how many, when nothing else is asked for.
        steps: after how many steps networks are judged.
    """

    file: str
    shots: tuple[int, ...]
    learners: tuple[str, ...]
    train: Callable[[int], TaskFamily]
    tests: Callable[[int], dict[str, Test]]
    seeds: int
    evaluation_tasks: int
    steps: tuple[int, ...] = STEPS

    @property
    def choices(self) -> tuple[str, ...]:
        """Who may take part: everyone of the kind of those who do."""
        return next(tuple(kind) for kind in (SUPERVISED, POLICIES) if set(self.learners) <= set(kind))

    def metric(self, shots: int) -> str:
        """What its tables show."""
        return recipe_for(self.train(shots)).metric


def _sinusoid(shots: int) -> TaskFamily:
    return make_family("sinusoid", shots=shots)


def _mixture(shots: int) -> TaskFamily:
    return make_family("mixture", members=TRAINING_MIXTURE, shots=shots)


def _unrelated(shots: int) -> dict[str, Test]:
    outside = make_family("sinusoid", shots=shots, **OUTSIDE)
    heldout = {name: Test(make_family(name, shots=shots), "heldout") for name in HELD_OUT}
    trained = {name: Test(make_family(name, shots=shots), "train") for name in TRAINING_MIXTURE}
    return heldout | {"sinusoid-outside": Test(outside, "heldout")} | trained


def _omniglot(name: str, **arguments: Any) -> Benchmark:
    def family(shots: int) -> TaskFamily:
        return make_family("omniglot", shots=shots, **arguments)

    return Benchmark(
        "omniglot.json",
        (1, 5),
        # No pretraining: labels are dealt out anew for every task, so before adaptation there is nothing to get right.
        ("scratch", "maml_5", "maml_matched", "fomaml", "meta_sgd", "maml_plus_plus", "reml"),
        family,
        lambda shots: {name: Test(family(shots))},
        seeds=3,
        evaluation_tasks=600,
    )


def _navigation(shots: int) -> TaskFamily:
    return make_family("navigation", shots=shots, queries=shots)


BENCHMARKS: dict[str, Benchmark] = {
    "sinusoid": Benchmark(
        "sinusoid.json",
        (5, 10),
        tuple(SUPERVISED),
        _sinusoid,
        lambda shots: {"sinusoid": Test(_sinusoid(shots))},
        seeds=5,
        evaluation_tasks=1000,
    ),
    "unrelated": Benchmark(
        "unrelated.json",
        (5,),
        ("scratch", "pretrained", "maml_5", "maml_5_own_shape", "meta_sgd", "router", "reml", "reml_multipliers"),
        _mixture,
        _unrelated,
        seeds=3,
        evaluation_tasks=1000,
    ),
    "navigation": Benchmark(
        "navigation.json",
        (40,),
        tuple(POLICIES),
        # The authors train with half of the trajectories that they test with.
        lambda shots: _navigation(max(1, shots // 2)),
        lambda shots: {"navigation": Test(_navigation(shots))},
        seeds=3,
        evaluation_tasks=200,
        steps=POLICY_STEPS,
    ),
    "omniglot": _omniglot("omniglot"),
    "omniglot-alphabets": _omniglot("omniglot-alphabets", split_by="alphabet"),
    "omniglot-domains": _omniglot("omniglot-domains", domains=("identity", "inverted", "permuted")),
}
"""The benchmarks by the name that `python -m agents.compare --family` takes."""
