"""The benchmarks by name: what is trained on, what is tested on, and who takes part."""

from __future__ import annotations

from typing import Any

from gym_reml.files import file_name
from gym_reml.tasks import make_family
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.policies.base import PolicyFamily

from ..problems.families import named_family
from ..problems.own import find_own, is_own
from ..problems.problem import POLICY_STEPS, TABLE_STEPS
from ..problems.recipes import CONVOLUTIONS
from ..trials.rl2.recipes import Setting
from ..tuning.setting import AugmentSetting, LossSetting, RuleSetting, TuningSetting
from .base import Benchmark
from .few_shot import FewShotBenchmark, Test
from .optimizers import OptimizerBenchmark
from .trials import TrialBenchmark
from .tuning import TuningBenchmark

TRAINING_MIXTURE = ("sinusoid", "absolute", "bump", "cubic", "network", "ramp", "two_sinusoids")
HELD_OUT = ("linear", "quadratic", "step", "sawtooth")
OUTSIDE = {"amplitude": (5.0, 8.0), "phase": (3.141592653589793, 6.283185307179586)}
"""Sinusoids outside the ranges that were trained on."""


def _sinusoid(shots: int) -> TaskFamily:
    return make_family("sinusoid", shots=shots)


def _mixture(shots: int) -> TaskFamily:
    return make_family("mixture", members=TRAINING_MIXTURE, shots=shots)


def _unrelated(shots: int) -> dict[str, Test]:
    outside = make_family("sinusoid", shots=shots, **OUTSIDE)
    heldout = {name: Test(make_family(name, shots=shots), "heldout") for name in HELD_OUT}
    trained = {name: Test(make_family(name, shots=shots), "train") for name in TRAINING_MIXTURE}
    return heldout | {"sinusoid-outside": Test(outside, "heldout")} | trained


def _omniglot(name: str, **arguments: Any) -> FewShotBenchmark:
    def family(shots: int) -> TaskFamily:
        return make_family("omniglot", shots=shots, **arguments)

    return FewShotBenchmark(
        file="omniglot.json",
        kind="supervised",
        # No pretraining: labels are dealt out anew for every task, so before adaptation there is nothing to get right.
        learners=("scratch", "maml_5", "maml_matched", "fomaml", "meta_sgd", "maml_plus_plus", "reml"),
        seeds=3,
        evaluation_tasks=600,
        shots=(1, 5),
        train=family,
        tested=lambda shots: {name: Test(family(shots))},
    )


IMAGE_LEARNERS = ("scratch", "maml_5", "fomaml", "meta_sgd", "maml_plus_plus", "reml")


def _omniglot_full(
    name: str, shots: tuple[int, ...], *, channels: int | None = None, **arguments: Any
) -> FewShotBenchmark:
    """The whole of Omniglot as papers use it, with rotated characters as further classes.

    With `channels` networks are convolutional, else dense.
    """

    def family(shots: int) -> TaskFamily:
        return make_family("omniglot", shots=shots, whole=True, rotations=True, **arguments)

    return FewShotBenchmark(
        file="omniglot_full.json",
        kind="supervised",
        learners=IMAGE_LEARNERS,
        network="dense" if channels is None else f"conv 4 x {channels}",
        seeds=3,
        evaluation_tasks=600,
        shots=shots,
        train=family,
        tested=lambda shots: {name: Test(family(shots))},
        tasks=120_000 if channels is None else 80_000,
        changes={} if channels is None else CONVOLUTIONS | {"width": channels},
    )


CHARACTERS = {"name": "omniglot", "split_by": "vinyals", "rotations": True, "ways": 3}
MIXED_IMAGES: dict[str, dict[str, Any]] = {
    "characters": CHARACTERS,
    "inverted": CHARACTERS | {"domains": ("inverted",)},
    "garments": {"name": "fashion_mnist"},
    "signs": {"name": "sign_digits", "grey": True, "size": 28},
}
"""Members of the mixture of domains: grey images of 28 x 28, three classes a task."""


def _mixed_images(shots: int, *members: str) -> TaskFamily:
    chosen = [MIXED_IMAGES[member] for member in members or MIXED_IMAGES]
    return make_family("mixture", members=chosen, shots=shots, queries=30)


def _tests_of_mixed_images(shots: int) -> dict[str, Test]:
    members = {f"mixed_images-{member}": Test(_mixed_images(shots, member)) for member in MIXED_IMAGES}
    return {"mixed_images": Test(_mixed_images(shots))} | members


def _navigation(shots: int) -> TaskFamily:
    return make_family("navigation", shots=shots, queries=shots)


def _augment(setting: AugmentSetting) -> TuningBenchmark:
    return TuningBenchmark(file="augment.json", kind="augment", seeds=5, evaluation_tasks=400, setting=setting)


BENCHMARKS: dict[str, Benchmark] = {
    "sinusoid": FewShotBenchmark(
        file="sinusoid.json",
        kind="supervised",
        seeds=5,
        evaluation_tasks=1000,
        shots=(5, 10),
        train=_sinusoid,
        tested=lambda shots: {"sinusoid": Test(_sinusoid(shots))},
        all_controls=True,
    ),
    "unrelated": FewShotBenchmark(
        file="unrelated.json",
        kind="supervised",
        learners=(
            *("scratch", "pretrained", "maml_5", "maml_5_own_shape", "maml_tuned", "meta_sgd", "meta_sgd_tuned"),
            *("router", "router_rates", "reml_plain", "reml"),
        ),
        seeds=3,
        evaluation_tasks=1000,
        shots=(5,),
        train=_mixture,
        tested=_unrelated,
    ),
    "navigation": FewShotBenchmark(
        file="navigation.json",
        kind="policies",
        seeds=3,
        evaluation_tasks=200,
        shots=(40,),
        # The authors train with half of the trajectories that they test with.
        train=lambda shots: _navigation(max(1, shots // 2)),
        tested=lambda shots: {"navigation": Test(_navigation(shots))},
        judged=POLICY_STEPS,
    ),
    "omniglot": _omniglot("omniglot"),
    "omniglot-alphabets": _omniglot("omniglot-alphabets", split_by="alphabet"),
    "omniglot-domains": _omniglot("omniglot-domains", domains=("identity", "inverted", "permuted")),
    "omniglot_full": _omniglot_full("omniglot_full", (1, 5), split_by="vinyals"),
    "omniglot_full-characters": _omniglot_full("omniglot_full-characters", (1, 5), split_by="character"),
    "omniglot_full-conv32": _omniglot_full("omniglot_full-characters", (1, 5), channels=32, split_by="character"),
    "omniglot_full-conv64": _omniglot_full("omniglot_full-characters", (1, 5), channels=64, split_by="character"),
    "omniglot_full-20way": _omniglot_full("omniglot_full-20way", (1,), split_by="character", ways=20, queries=100),
    "mixed_images": FewShotBenchmark(
        file="mixed_images.json",
        kind="supervised",
        learners=IMAGE_LEARNERS,
        network="dense",
        seeds=3,
        evaluation_tasks=600,
        shots=(1, 5),
        train=_mixed_images,
        tested=_tests_of_mixed_images,
    ),
    "bandits": TrialBenchmark(
        file="bandits.json",
        kind="bandits",
        seeds=3,
        evaluation_tasks=1000,
        trained=tuple(Setting("bandit", pulls, arms) for pulls in (10, 100) for arms in (5, 10, 50)),
    ),
    "tabular": TrialBenchmark(
        file="tabular.json",
        kind="tabular",
        seeds=3,
        evaluation_tasks=1000,
        trained=(Setting("tabular", 10),),
        untrained=(Setting("tabular", 25), Setting("tabular", 50)),
    ),
    "tuning": TuningBenchmark(
        file="net_tune.json", kind="tuning", seeds=5, evaluation_tasks=200, setting=TuningSetting()
    ),
    "loss": TuningBenchmark(file="loss.json", kind="loss", seeds=5, evaluation_tasks=200, setting=LossSetting()),
    "loss-fashion_mnist": TuningBenchmark(
        file="loss.json", kind="loss", seeds=5, evaluation_tasks=200, setting=LossSetting(family="fashion_mnist")
    ),
    "loss-retrieval": TuningBenchmark(
        file="loss.json",
        kind="retrieval",
        seeds=5,
        evaluation_tasks=200,
        setting=LossSetting(
            losses=("classification", "triplet", "cosine_triplet", "smoothing", "trust"),
            metric="recall_at_1",
        ),
    ),
    "rule": TuningBenchmark(
        file="rule.json",
        kind="rule",
        seeds=5,
        evaluation_tasks=200,
        setting=RuleSetting(),
        held_out=("fashion_mnist", "digits"),
    ),
    "optimizer": OptimizerBenchmark(file="optimizer.json", kind="optimizer", seeds=5, evaluation_tasks=50),
    "augment-glyphs": _augment(AugmentSetting()),
    "augment": _augment(AugmentSetting(family="omniglot")),
    "augment-fashion_mnist": _augment(AugmentSetting(family="fashion_mnist")),
    # With the larger steps of the others, networks on these bright images in colour unlearn what they learned.
    "augment-sign_digits": _augment(AugmentSetting(family="sign_digits", updates=360, step_size=0.01)),
}
"""The benchmarks by the name that `python -m agents.compare --family` takes."""


def benchmark_of(name: str) -> Benchmark:
    """The benchmark of a name of `BENCHMARKS`, or the user's own that MODULE:FAMILY names.

    The latter is a `Benchmark`, or a family of tasks as `agents.train --family` takes it: all entrants of its kind
    train on its tasks, and are tested on held-out ones.

    Raises:
        ValueError: MODULE:FAMILY names something else.
        ImportError: its module cannot be imported.
    """
    if not is_own(name):
        return BENCHMARKS[name]
    found = find_own("--family", name, lambda value: isinstance(value, Benchmark), "benchmarks")
    if isinstance(found, Benchmark):
        return found
    family = named_family(name, {})

    def own(shots: int) -> TaskFamily:
        return family if shots == family.shots else family.replace(shots=shots)

    if not isinstance(family.shots, int):
        raise ValueError(f"--family {name}: has shots={family.shots!r}; a benchmark needs one number")
    policies = isinstance(family, PolicyFamily)
    return FewShotBenchmark(
        file=f"{file_name(name)}.json",
        kind="policies" if policies else "supervised",
        seeds=3,
        evaluation_tasks=200 if policies else 600,
        shots=(family.shots,),
        train=own,
        tested=lambda shots: {family.name: Test(own(shots))},
        judged=POLICY_STEPS if policies else TABLE_STEPS,
    )
