"""The results page where the metric is a return: policies that are trained, and trials."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from agents.comparison.benchmarks import BENCHMARKS
from agents.comparison.trials import TrialBenchmark
from agents.comparison.tuning import TuningBenchmark
from agents.pages.groups import owner_of, read_groups
from agents.pages.published import READ, RECOMPUTED, REFERENCES
from agents.pages.report import COLOURS
from agents.pages.sections import SECTIONS, Section
from agents.pages.tables import number
from agents.results import Config, main, pages
from agents.trials.baselines import baselines
from tests.support.result_rows import line_of, row, versus, write

SMALL = 150_000  # bytes of a plot


def navigation(learner: str, step: int, mean: float, **changes: Any) -> dict[str, Any]:
    return row(learner, step, mean, **{"family": "navigation", "shots": 40, "metric": "return"} | changes)


def trial(learner: str, length: int, mean: float, **changes: Any) -> dict[str, Any]:
    about = {"family": "bandit-5", "shots": None, "metric": "return", "parameters": 0, "meta_training_tasks": 0}
    return row(
        learner, length, mean, **about | {"ci95": None, "ci95_tasks": 0.25, "seeds": 1, "seconds": 0.5} | changes
    )


def page_of(folder: Path, rows: list[dict[str, Any]], name: str) -> str:
    write(folder, rows, name)
    (section,) = [section for section in SECTIONS if section.file == name]
    page = pages(folder)["index.md"]
    return page.split(f"## {section.title}\n")[1].split("\n## ")[0]


def section_of(name: str) -> Section:
    (section,) = [section for section in SECTIONS if section.file == name]
    return section


# -- who is who ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("maml_rl", None),
        ("maml_rl/trpo", None),
        ("maml_rl/first_order", None),
        ("reml/pretrained_pool", None),
        ("reml/maml_rl_pool", None),
        ("reml/maml_rl_pool/regression", "reml/maml_rl_pool"),
        ("reml/hand_rule", "reml"),
        ("reml/random_layer", "reml"),
        ("reml/random_pool", "reml"),
        ("reml/pretrained_pool/hand_rule", "reml/pretrained_pool"),
        ("maml_rl/trpo/neutral_steps", "maml_rl/trpo"),
    ],
)
def test_variants_are_learners_and_all_else_behind_a_slash_is_a_control(name: str, owner: str | None) -> None:
    assert owner_of(name) == owner


def test_learners_and_controls_of_policies(tmp_path: Path) -> None:
    names = [
        *("reml/regression", "reml/pretrained_pool/regression", "reml/pretrained_pool", "reml/hand_rule", "reml"),
        *("maml_rl/trpo", "reml/pretrained_pool/hand_rule", "maml_rl", "pretrained", "random"),
    ]
    section = page_of(tmp_path, [navigation(name, 1, -5.0) for name in names], "navigation.json")
    first, controls = section.split("**Controls**")
    in_tables = [re.findall(r"^\| `(.+?)`", part, re.MULTILINE) for part in (first, controls)]
    assert in_tables[0] == ["random", "pretrained", "maml_rl", "maml_rl/trpo", "reml", "reml/pretrained_pool"]
    assert in_tables[1] == [
        *("reml", "reml/hand_rule", "reml/regression"),
        *("reml/pretrained_pool", "reml/pretrained_pool/hand_rule", "reml/pretrained_pool/regression"),
    ]


def test_controls_of_a_learner_that_has_no_rows(tmp_path: Path) -> None:
    rows = [navigation("random", 1, -60.0), navigation("reml/hand_rule", 1, -9.0)]
    controls = page_of(tmp_path, rows, "navigation.json").split("**Controls**")[1]
    assert re.findall(r"^\| `(.+?)`", controls, re.MULTILINE) == ["reml/hand_rule"]


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.file)
def test_sections_fit_the_comparisons(section: Section) -> None:
    colours = section.colours(section.order)
    assert set(colours.values()) <= set(range(len(COLOURS)))
    benchmarks = [benchmark for benchmark in BENCHMARKS.values() if benchmark.file == section.file]
    assert benchmarks
    assert section.kind in {benchmark.kind for benchmark in benchmarks}
    for benchmark in benchmarks:
        # Of another kind are those that leave learners out.
        same = benchmark.kind == section.kind
        assert set(benchmark.choices) == set(section.order) if same else set(benchmark.choices) < set(section.order)
        assert section.trials == isinstance(benchmark, TrialBenchmark | TuningBenchmark)
        if isinstance(benchmark, TrialBenchmark):
            for setting in benchmark.variants():
                assert {"rl2", *baselines(setting)} == set(section.order)


# -- tables ----------------------------------------------------------------------------------------------------------


def test_columns_of_policies_are_updates_and_the_highest_return_is_bold(tmp_path: Path) -> None:
    means = {"pretrained": (-38.0, -20.0), "maml_rl": (-38.5, -11.0), "reml": (-39.0, -7.25)}
    rows = [
        navigation(name, step, mean, diverged=0.01) for name, pair in means.items() for step, mean in enumerate(pair)
    ]
    section = page_of(tmp_path, rows, "navigation.json")
    assert "### navigation, 40 shots, return" in section
    head = "| learner | 0 updates | 1 update | diverged | seeds | parameters | seconds |"
    assert head in section
    line = line_of(section.split("For comparison")[0], "| `reml`")
    assert line == "| `reml` | -39.00 ± 0.05 (-19.50) | **-7.25** ± 0.05 (-3.62) | 1.0% | 3 | 1,761 | 240 |"
    assert section.split("For comparison")[0].count("**-") == 2
    assert "return on the query trajectories. Held-out tasks: 1,000." in section


def test_paired_differences_of_returns(tmp_path: Path) -> None:
    better = {"maml_rl": versus(3.5, 0.5, 0.2)}
    worse = {"maml_rl": versus(-3.5, 0.5, 0.8, median=-1.25)}
    rows = [navigation("reml", 1, -7.0, paired=better), navigation("reml", 2, -9.0, paired=worse)]
    section = page_of(tmp_path, [*rows, navigation("maml_rl", 1, -10.5)], "navigation.json")
    line = line_of(section, "| `reml` minus `maml_rl`")
    assert line == "| `reml` minus `maml_rl` | +3.50 ± 0.50, better (20%) | -3.50 ± 0.50, worse (median -1.25, 80%) |"
    assert "where a mean rises and that share is large, a few tasks make the difference" in section
    assert "| difference | 1 update | 2 updates |" in section


def test_columns_of_trials_are_lengths(tmp_path: Path) -> None:
    rows = [
        trial("gittins", 10, 6.5, ci95_tasks=0.125),
        trial("gittins", 100, 78.0),
        trial("gittins", 500, 406.8),
        trial("rl2", 10, 6.25, seeds=3, ci95=0.5, parameters=27_398, seconds=60.0, meta_training_tasks=100_000),
        trial("rl2", 100, 78.5, seeds=3, ci95=0.125, parameters=27_398, seconds=900.0, meta_training_tasks=30_000),
    ]
    section = page_of(tmp_path, rows, "bandits.json")
    assert "### bandit-5, return\n" in section
    table = section.split("For comparison")[0]
    assert "| learner | 10 pulls | 100 pulls | 500 pulls | seeds | parameters | seconds |" in table
    lines = [line_of(table, f"| `{name}`") for name in ("gittins", "rl2")]
    assert lines == [
        "| `gittins` | **6.50** ± 0.12 (3.25) | 78.00 ± 0.25 (39.00) | **406.8** ± 0.25 (203.4) | 1 | 0 | 0.5 |",
        # The interval over both, over trials alone where there is one seed; seconds are those of two trainings.
        "| `rl2` | 6.25 ± 0.50 (3.12) | **78.50** ± 0.12 (39.25) | – | 3 | 27,398 | 60 / 900 / – |",
    ]
    assert "Meta-training tasks: none (100,000 / 30,000 / – for `rl2`)." in section
    assert "diverged" not in section


def test_families_of_trials_stand_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    rows = [trial("gittins", 10, 6.5, family=family) for family in ("bandit-10", "bandit-5", "bandit-50")]
    section = page_of(tmp_path, rows, "bandits.json")
    assert re.findall(r"^### (\S+),", section, re.MULTILINE) == ["bandit-5", "bandit-10", "bandit-50"]


def test_an_oracle_is_never_the_best(tmp_path: Path) -> None:
    means = {"oracle": 218.0, "rl2": 150.0, "beb": 151.0}
    rows = [trial(name, 10, mean, family="tabular") for name, mean in means.items()]
    table = page_of(tmp_path, [*rows, trial("oracle", 25, 500.0, family="tabular")], "tabular.json")
    table = table.split("For comparison")[0]
    assert "| learner | 10 episodes | 25 episodes |" in table
    assert re.findall(r"^\| `(\w+)` \| (\**)", table, re.MULTILINE) == [("beb", "**"), ("rl2", ""), ("oracle", "")]
    assert "**500" not in table


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.00"), (0.05, "0.05"), (0.001, "0.001"), (-5.128, "-5.13"), (1092.94, "1092.9"), (-2e6, "-2e+06")],
)
def test_returns_are_written_less_finely(value: float, text: str) -> None:
    assert number(value, metric="return") == text


# -- figures from elsewhere ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "rows", "lines"),
    [
        (
            "bandits.json",
            [trial("gittins", 10, 6.5)],
            [
                "| method | source | 10 pulls | 100 pulls | 500 pulls |",
                "| Gittins | recomputed | 6.6 | 78.7 | 406.8 |",
            ],
        ),
        (
            "tabular.json",
            [trial("beb", 10, 150.0, family="tabular")],
            [
                "| method | source | 10 episodes | 25 episodes | 50 episodes |",
                "| oracle | recomputed | 218.4 | 546.3 | 1092.9 |",
            ],
        ),
        (
            "omniglot_full.json",
            [row("maml_5", 5, 0.92, family="omniglot_full-characters", shots=1, metric="accuracy", network="dense")],
            [
                "| method | source | as published |",
                "| MAML, no convolutions | published {cite:p}`finn2017maml` | 0.897 |",
            ],
        ),
        (
            "navigation.json",
            [navigation("maml_rl", 1, -11.0)],
            [
                "| method | source | 0 updates | 1 update | 2 updates | 3 updates | 4 updates |",
                "| MAML | read in its authors' result files | -40.4 | -11.7 | -3.33 | -3.23 | -3.35 |",
                "| random weights | recomputed | -81.9 | -68.5 | -63.9 | – | – |",
            ],
        ),
    ],
)
def test_figures_from_elsewhere_stand_under_the_tables(
    tmp_path: Path, file: str, rows: list[dict[str, Any]], lines: list[str]
) -> None:
    told = page_of(tmp_path, rows, file).split("**For comparison**")
    assert len(told) == 2
    for line in lines:
        assert line in told[1].splitlines()


def test_figures_from_elsewhere_say_where_they_are_from() -> None:
    for family, known in REFERENCES.items():
        for figures in known.figures:
            known_origin = figures.origin in (RECOMPUTED, READ) or figures.origin.startswith("published {cite:p}")
            assert known_origin, f"{family}: a figure that nobody has looked up"
    trials = [benchmark for benchmark in BENCHMARKS.values() if isinstance(benchmark, TrialBenchmark)]
    families = {setting.family for benchmark in trials for setting in benchmark.variants()}
    papers = {("omniglot_full-characters", 1), ("omniglot_full-characters", 5), ("omniglot_full-20way", 1)}
    assert families | {"navigation"} | papers == set(REFERENCES)


def test_there_are_none_for_other_families(tmp_path: Path) -> None:
    write(tmp_path, [row("scratch", 0, 1.0)])
    assert "For comparison" not in pages(tmp_path)["index.md"]


# -- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_of_returns(tmp_path: Path) -> None:
    learners = ("random", "pretrained", "maml_rl", "maml_rl/trpo", "reml", "reml/hand_rule")
    write(
        tmp_path,
        [navigation(name, step, -30.0 / (1 + step)) for name in learners for step in range(5)],
        "navigation.json",
    )
    policies = ("random", "gittins", "rl2")
    bandits = [
        trial(name, length, length / 2, family=family, meta_training_tasks=int(name == "rl2"))
        for name in policies
        for length in (10, 100)
        for family in ("bandit-5", "bandit-10")
        if (name, length) != ("rl2", 100)
    ]
    write(tmp_path, bandits, "bandits.json")
    main(Config(tmp_path))
    page = (tmp_path / "index.md").read_text(encoding="utf-8")
    (curves,), (points,) = (re.findall(rf"!\[(.+)\]\({name}\.png\)", page) for name in ("navigation", "bandits"))
    assert curves.startswith("Adaptation curves of pretrained, maml_rl, maml_rl/trpo, reml: return over updates")
    assert points == (
        "Means of random, gittins, rl2 as points: return of a whole trial, with 95 % intervals. A panel for each "
        "family and number of pulls"
    )
    for name in ("navigation.png", "bandits.png"):
        assert (tmp_path / name).stat().st_size <= SMALL
    with Image.open(tmp_path / "bandits.png") as image:
        assert image.width > 900, "three panels in a row"


def test_rows_as_they_are_written_are_read(tmp_path: Path) -> None:
    """Those of trials have no shots, and may be merged from several runs."""
    rows = json.loads(json.dumps([trial("ucb1", 10, 6.7), trial("ucb1", 500, 406.6, command="another")]))
    write(tmp_path, rows, "bandits.json")
    (group,) = read_groups(tmp_path / "bandits.json", section_of("bandits.json"))
    assert group.steps == [10, 500]
    page = pages(tmp_path)["index.md"]
    assert "# ucb1\npython -m agents.compare --family sinusoid --shots 5\n# ucb1\nanother\n" in page
    assert replace(section_of("bandits.json"), unit="pull").column(1) == "1 pull"
