"""From finished jobs to rows of the result tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gym_reml.evaluation import Result

from .benchmarks import benchmark_of
from .entrants import Entrant
from .jobs import Job
from .rows import Row, made_by, make_row, mean_of_known, paired


def rows_of(jobs: Sequence[Job]) -> list[Row]:
    """The rows of finished jobs of one benchmark and variant; none of none."""
    if not jobs:
        return []
    benchmark, variant = benchmark_of(jobs[0].benchmark), jobs[0].variant
    metric = benchmark.metric(variant)
    summaries = {job: job.summary for job in jobs}
    # Names in files are no names of code.
    entrants = {**benchmark.choices, **{job.learner: benchmark.entrant(job.learner) for job in jobs}}
    jobs_by_name: dict[str, list[Job]] = {}
    for job, summary in summaries.items():
        for name in summary["names"]:
            jobs_by_name.setdefault(name, []).append(job)
    rows = []
    for test, split in benchmark.tests(variant).items():
        results = {
            name: {job.seed: job.result(name, test) for job in finished} for name, finished in jobs_by_name.items()
        }
        for name, finished in jobs_by_name.items():
            about: dict[str, Any] = {
                "learner": name,
                "family": test,
                "command": max(finished, key=lambda job: job.seed).command,
                **_means([summaries[job] for job in finished]),
            }
            if split is not None:
                about["split"] = split
            if benchmark.network is not None:
                about["network"] = benchmark.network
            entrant = entrants.get(name)
            others = entrant.compared_with if entrant is not None else ()
            for step in benchmark.steps(variant):
                row = make_row(list(results[name].values()), step, metric, about)
                theirs = {
                    other: _for_seeds_of(results, other, name, entrants.get(other))
                    for other in others
                    if other in results
                }
                versus = _paired(results[name], theirs, step, metric)
                rows.append(row | ({"paired": versus} if versus else {}))
    return rows


def _for_seeds_of(
    results: Mapping[str, Mapping[int, Result]], other: str, name: str, entrant: Entrant[Any, Any] | None
) -> Mapping[int, Result]:
    """The other's results by seed; of one that draws no random numbers, its only one for every seed of `name`."""
    found = results[other]
    if entrant is None or entrant.seeded or 0 not in found:
        return found
    return dict.fromkeys(results[name], found[0])


def _means(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What rows say of the runs: mean seconds and work, and the numbers that all seeds share."""
    first = summaries[0]
    # Earlier versions did not count it.
    work = {
        name: mean_of_known([summary.get(name) for summary in summaries])
        for name in ("inner_gradients", "environment_steps")
    }
    return {
        "seconds": round(float(np.mean([summary["seconds"] for summary in summaries])), 1),
        **{name: None if mean is None else round(mean) for name, mean in work.items()},
        "parameters": first["parameters"],
        "meta_training_tasks": first["meta_training_tasks"],
        **made_by(summaries),
    }


def _paired(
    own: Mapping[int, Result], others: Mapping[str, Mapping[int, Result]], step: int, metric: str
) -> dict[str, Any]:
    """Differences to others, over the seeds that both have."""
    versus = {}
    for name, theirs in others.items():
        common = sorted(own.keys() & theirs.keys())
        if common:
            versus[name] = paired([own[seed] for seed in common], [theirs[seed] for seed in common], step, metric)
    return versus
