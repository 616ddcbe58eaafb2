"""From finished trainings to rows of the result tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gym_reml.evaluation import Result

from .benchmarks import BENCHMARKS
from .jobs import Job
from .rows import Row, made_by, make_row, paired

COMPARED = {
    "reml": (
        *("scratch", "maml_1", "maml_1_own_shape", "maml_5", "maml_5_own_shape", "maml_matched", "meta_sgd"),
        *("maml_plus_plus", "router"),
        *("maml_rl", "reml/neutral_steps", "reml/hand_rule", "reml/regression", "reml/maml_rl_pool"),
    ),
    "reml/maml_rl_pool": (
        *("maml_rl", "reml/maml_rl_pool/neutral_steps", "reml/maml_rl_pool/hand_rule"),
        "reml/maml_rl_pool/regression",
    ),
    "reml/pretrained_pool": ("maml_rl", "reml/maml_rl_pool"),
    "reml/layers": ("maml_rl", "reml"),
    "reml_multipliers": (
        *("scratch", "maml_1", "maml_1_own_shape", "maml_5", "maml_5_own_shape", "meta_sgd", "maml_plus_plus", "reml"),
    ),
}
"""Against whom REML's rows hold paired differences."""


def rows_of(jobs: Sequence[Job]) -> list[Row]:
    """The rows of finished jobs of one benchmark and number of shots; none of none."""
    if not jobs:
        return []
    benchmark, shots = BENCHMARKS[jobs[0].benchmark], jobs[0].shots
    metric = benchmark.metric(shots)
    summaries = {job: job.summary for job in jobs}
    everyone: dict[str, list[Job]] = {}
    for job, summary in summaries.items():
        for name in summary["names"]:
            everyone.setdefault(name, []).append(job)
    rows = []
    for test_name, test in benchmark.tests(shots).items():
        results = {name: [job.result(name, test_name) for job in trained] for name, trained in everyone.items()}
        for name in everyone:
            about: dict[str, Any] = {
                "learner": name,
                "family": test_name,
                "command": max(everyone[name], key=lambda job: job.seed).command,
                **_means([summaries[job] for job in everyone[name]]),
            }
            if test.split is not None:
                about["split"] = test.split
            for step in benchmark.steps:
                row = make_row(results[name], step, metric, about)
                versus = _paired(name, everyone, results, step, metric)
                rows.append(row | ({"paired": versus} if versus else {}))
    return rows


def _means(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What rows say of the trainings: mean seconds, and the numbers that all seeds share."""
    first = summaries[0]
    return {
        "seconds": round(float(np.mean([summary["seconds"] for summary in summaries])), 1),
        "parameters": first["parameters"],
        "meta_training_tasks": first["meta_training_tasks"],
        **made_by(summaries),
    }


def _paired(
    name: str,
    everyone: dict[str, list[Job]],
    results: dict[str, list[Result]],
    step: int,
    metric: str,
) -> dict[str, Any]:
    """Differences to others over the seeds that both have."""
    versus = {}
    for other in COMPARED.get(name, ()):
        if other not in everyone:
            continue
        own, theirs = (
            {job.seed: result for job, result in zip(everyone[who], results[who], strict=True)} for who in (name, other)
        )
        common = sorted(own.keys() & theirs.keys())
        if common:
            versus[other] = paired([own[seed] for seed in common], [theirs[seed] for seed in common], step, metric)
    return versus
