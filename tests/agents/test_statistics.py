"""Intervals of means over seeds and tasks: closed forms, simulated coverage, and a bootstrap that resamples both."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from agents.comparison.statistics import one_way_half_width, two_way_half_width


def crossed(
    generator: np.random.Generator, count: int, shape: tuple[int, int], deviations: tuple[float, float, float]
) -> NDArray[np.float64]:
    """Values (count, seeds, tasks) with mean 0: effects of seeds, of tasks, and of both together."""
    (seeds, tasks), (of_seeds, of_tasks, of_both) = shape, deviations
    values: NDArray[np.float64] = (
        of_seeds * generator.normal(size=(count, seeds, 1))
        + of_tasks * generator.normal(size=(count, 1, tasks))
        + of_both * generator.normal(size=(count, seeds, tasks))
    )
    return values


def half_width_of(values: NDArray[np.float64]) -> float:
    found = two_way_half_width(values.mean(axis=1), values.mean(axis=0))
    assert found is not None
    return found


def test_one_way_intervals_are_students() -> None:
    assert one_way_half_width([1.0]) is None
    assert one_way_half_width([1.0, 3.0]) == pytest.approx(12.7062047)
    low, high = stats.t.interval(0.95, 2, loc=3.0, scale=stats.sem([3.0, 5.0, 1.0]))
    assert one_way_half_width([3.0, 5.0, 1.0]) == pytest.approx((high - low) / 2)


def test_without_an_effect_of_tasks_it_is_the_interval_over_seeds() -> None:
    values = np.outer([1.0, 4.0, 2.0], np.ones(50))
    assert half_width_of(values) == pytest.approx(4.302653 * np.std([1, 4, 2], ddof=1) / 3**0.5, rel=1e-6)


def test_without_an_effect_of_seeds_it_is_the_interval_over_tasks() -> None:
    values = np.outer(np.ones(3), np.arange(50.0))
    low, high = stats.t.interval(0.95, 49, scale=stats.sem(np.arange(50)))
    assert half_width_of(values) == pytest.approx((high - low) / 2)


def test_between_them_it_is_computed_by_hand() -> None:
    # Standard errors 3 and 4 with 4 and 9 degrees of freedom: 25² / (81 / 4 + 256 / 9) = 12.83.
    seeds, tasks = (np.arange(count) - (count - 1) / 2 for count in (5, 10))
    seeds, tasks = 3.0 * seeds / stats.sem(seeds), 4.0 * tasks / stats.sem(tasks)
    both = stats.t.ppf(0.975, 625 / (81 / 4 + 256 / 9)) * 5.0
    assert both > 4.0 * stats.t.ppf(0.975, 9) > 3.0 * stats.t.ppf(0.975, 4)
    assert two_way_half_width(seeds, tasks) == pytest.approx(both)


def test_it_is_never_narrower_than_that_over_seeds() -> None:
    # Standard errors 1 and 0.35, with 1 and 100 degrees of freedom.
    seeds, tasks = np.array([-1.0, 1.0]), 6.0 * np.linspace(-1.0, 1.0, 101)
    error, alone = stats.sem(tasks), one_way_half_width(seeds)
    freedom = (1.0 + error**2) ** 2 / (1.0 + error**4 / 100)
    assert alone == pytest.approx(12.7062047)
    assert stats.t.ppf(0.975, freedom) * (1.0 + error**2) ** 0.5 < 10.0, "what Satterthwaite's degrees alone give"
    assert two_way_half_width(seeds, tasks) == alone


def test_single_seeds_and_tasks_have_none_and_equals_have_no_width() -> None:
    assert two_way_half_width([1.0], [1.0, 2.0]) is None
    assert two_way_half_width([1.0, 2.0], [1.5]) is None
    assert two_way_half_width([1.0, 1.0], [1.0, 1.0, 1.0]) == 0.0


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize(
    "deviations",
    [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.3, 1.0, 1.0), (1.0, 1.0, 1.0)],
)
def test_it_covers_the_mean_as_often_as_it_says(seeds: int, deviations: tuple[float, float, float]) -> None:
    """The standard error of 95 % of 800 simulated tables is 0.8 %."""
    tables = crossed(np.random.default_rng(seeds), 800, (seeds, 60), deviations)
    covered = np.mean([abs(values.mean()) <= half_width_of(values) for values in tables])
    assert covered >= 0.93
    if max(deviations) == sum(deviations) and deviations[2] == 0.0:
        assert covered <= 0.97, "exact, where there is one effect alone"


def test_it_agrees_with_a_bootstrap_that_resamples_seeds_and_tasks() -> None:
    """With many seeds and tasks and little interaction, where both estimate the same."""
    generator = np.random.default_rng(0)
    (values,) = crossed(generator, 1, (60, 80), (1.0, 1.0, 0.5))
    means = [values[generator.integers(60, size=60)][:, generator.integers(80, size=80)].mean() for _ in range(4000)]
    low, high = np.quantile(means, [0.025, 0.975])
    assert half_width_of(values) == pytest.approx((high - low) / 2, rel=0.06)
    for wrong in (values.mean(axis=0), values.mean(axis=1), values.ravel()):
        assert one_way_half_width(wrong) < 0.85 * (high - low) / 2
