"""The pages of docs/results: what tables say, what is refused, and that the pages are those of the JSON."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from agents.comparison.entrants import ENTRANTS
from agents.comparison.rows import key_of, read_list, read_per_task
from agents.pages import plots as result_plots
from agents.pages import work
from agents.pages.decisions import DECISIONS, decisions_page
from agents.pages.groups import read_groups
from agents.pages.report import log_scale
from agents.pages.sections import SECTIONS, Section
from agents.pages.tables import number, results_table, verdict
from agents.pages.work import over_work
from agents.results import Config, main, pages
from tests.support.result_rows import check_numbers, group_of, line_of, row, two_way, versus, write, write_comparison

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "results"
SMALL = 150_000  # bytes of a plot


def test_the_committed_pages_are_those_of_the_committed_rows() -> None:
    made = pages(FOLDER)
    assert {name: (FOLDER / name).read_text(encoding="utf-8") for name in made} == made, "run python -m agents.results"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_differences_are_those_of_committed_rows(path: Path) -> None:
    """Where both have all seeds, the mean difference is the difference of the means: none is of older trainings."""
    rows = {key_of(each): each for each in read_list(path) if "learner" in each}
    for key, one in rows.items():
        for name, found in one.get("paired", {}).items():
            other_key = (name, *key[1:])
            other = rows[other_key]
            if one["seeds"] == other["seeds"]:
                assert found["difference"] == pytest.approx(one["mean"] - other["mean"], abs=1e-5), (key, name)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_committed_intervals_hold_those_over_seeds_and_tasks_together(path: Path) -> None:
    rows = {key_of(each): each for each in read_list(path) if "learner" in each}
    for key, one in rows.items():
        several = [(one, one["seeds"])]
        for name, found in one.get("paired", {}).items():
            other_key = (name, *key[1:])
            several.append((found, rows[other_key]["seeds"]))
        for found, others in several:
            # A learner without randomness has one result, which is paired with every seed of the other.
            seeds = min(one["seeds"], others) if found["per_seed"] is None else len(found["per_seed"])
            if seeds == 1:
                assert found["ci95"] is found["ci95_seeds"] is None
                continue
            errors = found["ci95_seeds"] / stats.t.ppf(0.975, seeds - 1), found["ci95_tasks"] / 1.96
            expected = two_way(errors, (seeds, one["tasks"]))
            assert found["ci95"] == pytest.approx(expected, rel=1e-9), key


def test_committed_numbers_are_those_of_seeds_and_tasks() -> None:
    """Means, intervals and the words of all differences, wherever the values of seeds and tasks are there."""
    check_numbers(FOLDER)


def test_numbers_of_a_page_are_those_of_seeds_and_tasks(tmp_path: Path) -> None:
    """As for the committed ones, and what is wrong is found."""
    write_comparison(tmp_path)
    assert check_numbers(tmp_path) == 4
    page, rows = (tmp_path / name for name in ("index.md", "sinusoid.json"))
    for path, right, wrong in (
        (page, ", better (", ", n.s. ("),
        (rows, '"ci95": ', '"ci95": 1'),
        (rows, '"mean": ', '"mean": 1'),
    ):
        text = path.read_text(encoding="utf-8")
        assert right in text
        path.write_text(text.replace(right, wrong), encoding="utf-8")
        with pytest.raises((AssertionError, ValueError)):
            check_numbers(tmp_path)
        path.write_text(text, encoding="utf-8")
    arrays = read_per_task(rows)
    moved: dict[str, Any] = {name: values + 0.1 for name, values in arrays.items()}
    np.savez_compressed(rows.with_suffix(".npz"), **moved)
    with pytest.raises(AssertionError):
        check_numbers(tmp_path)


def test_figures_over_work(tmp_path: Path) -> None:
    write_comparison(tmp_path)
    assert (tmp_path / "sinusoid_work.png").stat().st_size <= SMALL
    page = (tmp_path / "index.md").read_text(encoding="utf-8")
    (alt,) = re.findall(r"!\[(.+)\]\(sinusoid_work\.png\)", page)
    assert alt.startswith("Mse of maml_5, reml as points, with 95 % intervals, over the inner gradients of training.")
    head = "| diverged | seeds | parameters | inner gradients | environment steps | seconds |"
    assert head in page
    line = line_of(page.split("**Paired")[0], "| `reml`")
    assert line.endswith("| 0.0% | 3 | 110 | 1.5 M | 0.8 M | 1.5 |")
    assert line_of(page, "| `scratch`").endswith("| 0.0% | 3 | 110 | 0 | 0 | 1.5 |")
    group = group_of(tmp_path, [row("scratch", 5, 4.0), row("reml", 5, 1.0, inner_gradients=0)])
    assert over_work([group]) == [], "nobody counted any"
    group = group_of(tmp_path, [row("reml", 5, 1.0, inner_gradients=7, split="train")])
    assert over_work([group]) == []
    group = group_of(tmp_path, [row("reml", 5, 1.0, inner_gradients=7, split="heldout")])
    assert over_work([group]) == [(group, 5)]


def test_names_in_figures_over_work_do_not_overlap() -> None:
    figure = Figure(figsize=(4.0, 3.2))
    axes = figure.subplots()
    rows = {f"learner_{number}": {"mean": 1.0 + number / 1000, "inner_gradients": 100} for number in range(9)}
    axes.loglog([10, 1000], [0.1, 2.0])
    figure.draw_without_rendering()
    work._label(axes, rows)
    places = [text.get_window_extent() for text in axes.texts]
    assert [text.get_text() for text in axes.texts] == list(rows)[::-1]
    assert not any(one.overlaps(other) for one, other in combinations(places, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= place.x0 and place.x1 <= frame.x1 for place in places)


def test_the_committed_plots_are_those_that_the_page_shows() -> None:
    shown = set(re.findall(r"\]\((\w+\.png)\)", (FOLDER / "index.md").read_text(encoding="utf-8")))
    assert {path.name for path in FOLDER.glob("*.png")} == shown, "run python -m agents.results"
    assert [path.name for path in FOLDER.glob("*.png") if path.stat().st_size > SMALL] == []


def test_bands_of_accuracies_stay_between_none_and_all(tmp_path: Path) -> None:
    rows = [row("reml", step, mean, metric="accuracy", ci95=0.9) for step, mean in ((0, 0.2), (1, 0.7))]
    axes = Figure().subplots()
    result_plots._curve(axes, group_of(tmp_path, rows), "reml", 0)
    (band,) = axes.collections
    around = band.get_paths()[0].get_extents()
    assert (around.y0, around.y1) == (0.0, 1.0)


@pytest.mark.parametrize("metric", ["mse", "accuracy"])
def test_bold_marks_the_best_of_each_step(tmp_path: Path, metric: str) -> None:
    means = {"scratch": (5.0, 4.0), "maml_5": (6.0, 0.5), "reml": (5.5, 0.25)}
    rows = [row(name, step, mean, metric=metric) for name, pair in means.items() for step, mean in enumerate(pair)]
    group = group_of(tmp_path, rows)
    bold = [
        re.findall(r"\*\*([\d.]+)\*\*", line) for line in results_table(group, group.learners, bold=True).split("\n")
    ]
    expected = [["5.000"], [], ["0.250"]] if metric == "mse" else [["4.000"], ["6.000"], []]
    assert bold[2:] == expected
    assert "**" not in results_table(group, group.learners, bold=False)


def test_equals_are_both_best(tmp_path: Path) -> None:
    group = group_of(tmp_path, [row("scratch", 0, 1.0), row("reml", 0, 1.0)])
    assert results_table(group, group.learners, bold=True).count("**1.000**") == 2


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    group = group_of(tmp_path, [row("scratch", 0, 4.0, ci95=None, seeds=1), row("reml", 0, 1.0)])
    lines = results_table(group, group.learners, bold=True).splitlines()
    assert lines[2] == "| `scratch` | 4.000 (2.000) | 0.0% | 1 | 1,761 | 240 |"
    assert lines[3] == "| `reml` | **1.000** ± 0.05 (0.500) | 0.0% | 3 | 1,761 | 240 |"


def test_a_step_that_a_learner_lacks_is_a_dash(tmp_path: Path) -> None:
    group = group_of(tmp_path, [row("scratch", 0, 4.0), row("scratch", 5, 3.0), row("reml", 5, 1.0)])
    assert results_table(group, group.learners, bold=True).splitlines()[-1].startswith("| `reml` | – | **1.000**")


def test_rivals_come_first_and_controls_have_their_own_table(tmp_path: Path) -> None:
    names = ["reml/random_layer", "reml_plain", "reml", "unheard_of", "maml_5_own_shape", "maml_5", "scratch"]
    write(tmp_path, [row(name, 5, 1.0) for name in names])
    page = pages(tmp_path)["index.md"]
    first, controls = (re.findall(r"^\| `(.+?)`", part, re.MULTILINE) for part in page.split("**Controls**"))
    assert first == ["scratch", "maml_5", "maml_5_own_shape", "unheard_of", "reml", "reml_plain"]
    assert controls == ["reml", "reml/random_layer"]


@pytest.mark.parametrize(
    ("difference", "ci95", "lower_is_better", "word"),
    [
        (-0.2, 0.1, True, "better"),
        (0.2, 0.1, True, "worse"),
        (0.2, 0.1, False, "better"),
        (-0.2, 0.1, False, "worse"),
        (-0.1, 0.2, True, "n.s."),
        (0.1, 0.1, False, "n.s."),
        (0.0, 0.0, True, "n.s."),
        (-9.0, None, True, "one seed"),
    ],
)
def test_words_of_paired_differences(difference: float, ci95: float | None, lower_is_better: bool, word: str) -> None:
    assert verdict(difference, ci95, lower_is_better=lower_is_better) == word


def test_paired_differences(tmp_path: Path) -> None:
    first, later = versus(0.5, None, 0.25), versus(-3.0, 0.02, 0.25, median=-2.5)
    rows = [row("reml", 0, 5.0, paired={"scratch": first}), row("reml", 5, 1.0, paired={"scratch": later})]
    write(tmp_path, [row("scratch", 0, 4.5), row("scratch", 5, 4.0), *rows])
    line = line_of(pages(tmp_path)["index.md"], "| `reml` minus `scratch`")
    assert line == "| `reml` minus `scratch` | +0.500, one seed (25%) | -3.000 ± 0.02, better (median -2.500, 25%) |"


def test_what_is_told_under_a_table(tmp_path: Path) -> None:
    rows = [row("scratch", 0, 1.0, meta_training_tasks=0), row("maml_5", 0, 1.0), row("reml", 0, 1.0)]
    write(tmp_path, rows)
    page = pages(tmp_path)["index.md"]
    assert "Held-out tasks: 1,000. Meta-training tasks: 184,000 (none for `scratch`)." in page
    assert "```bash\npython -m agents.compare --family sinusoid --shots 5\n```" in page
    write(tmp_path, [*rows, row("reptile", 0, 1.0, command="another")])
    commands = "# scratch, maml_5, reml\npython -m agents.compare --family sinusoid --shots 5\n# reptile\nanother\n"
    assert f"```bash\n{commands}```" in pages(tmp_path)["index.md"]


def test_the_summary_compares_with_the_better_of_scratch_and_maml(tmp_path: Path) -> None:
    rows = [
        row(name, 5, mean, family=family, split=split)
        for family, split, means in [
            ("cubic", "train", {"scratch": 2.0, "maml_5": 4.0, "reml": 1.0}),
            ("step", "heldout", {"scratch": 8.0, "maml_5": 2.0, "reml": 3.0}),
            ("linear", "heldout", {"maml_5": 2.0, "reml": 3.0}),
        ]
        for name, mean in means.items()
    ]
    write(tmp_path, rows, "unrelated.json")
    page = pages(tmp_path)["index.md"]
    summary = page.split("Means after 5 steps.")[1].split("###")[0]
    assert line_of(summary, "| cubic") == "| cubic, 5 shots, mse, trained on | 2.000 | 4.000 | **1.000** | 0.500 |"
    assert line_of(summary, "| step") == "| step, 5 shots, mse, never trained on | 8.000 | **2.000** | 3.000 | 1.500 |"
    assert line_of(summary, "| linear").endswith("| – | **2.000** | 3.000 | – |")
    titles = re.findall(r"^### (\w+)", page, re.MULTILINE)
    assert titles == ["step", "linear", "cubic"], "families never trained on come first"


def test_absent_files_are_told(tmp_path: Path) -> None:
    made = pages(tmp_path)
    assert made["index.md"].count("was not run yet") == len(SECTIONS)
    assert "No attempts are recorded yet" in made["what-did-not-work.md"]


def test_main_writes_pages_and_small_plots(tmp_path: Path) -> None:
    names = ("scratch", "maml_5", "reml", "reml/random_layer")
    rows = [row(name, step, 5.0 / (1 + step), shots=shots) for name in names for step in (0, 1, 5) for shots in (5, 10)]
    rows[0]["ci95"] = None
    write(tmp_path, rows)
    main(Config(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "when-rl-pays.md",
        *("sinusoid.json", "sinusoid.png"),
        *("index.md", "what-did-not-work.md"),
    }
    assert {name: (tmp_path / name).read_text(encoding="utf-8") for name in pages(tmp_path)} == pages(tmp_path)
    (alt,) = re.findall(r"!\[(.+)\]\(sinusoid\.png\)", pages(tmp_path)["index.md"])
    assert "scratch, maml_5, reml: mse over gradient steps" in alt
    assert (tmp_path / "sinusoid.png").stat().st_size <= SMALL
    with Image.open(tmp_path / "sinusoid.png") as image:
        assert image.width > 600


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"learner": "reml"}, "must hold a list, found dict"),
        ([{"learner": "reml"}], "no list of result rows"),
        ([row("reml", 0, 1.0), row("reml", 0, 2.0)], "rows 1 and 2 are both of learner='reml', family='sinusoid'"),
        ([row("reml", 0, 1.0, metric="beauty")], "row 1: metric='beauty': must be one of 'mse'"),
        ([row("reml", 0, 1.0, split="other")], "row 1: split='other': must be one of None, 'heldout'"),
        ([row("reml", 0, float("nan"), median=1.0)], "row 1: mean=nan: must be a finite number"),
        ([row("reml", 0, 1.0, ci95="wide")], "row 1: ci95='wide': must be a finite number"),
        ([row("reml", 0, 1.0, seeds=2.5)], "row 1: seeds=2.5: must be a whole number"),
        ([row("reml", 0, 1.0, ci95_tasks=True)], "row 1: ci95_tasks=True: must be a finite number"),
        ([row("reml", 0, 1.0, shots="5")], "row 1: shots='5': must be a whole number"),
        ([row("reml", 0, 1.0, family="")], "row 1: family='': must be a text"),
        ([row("reml", 0, 1.0, paired=[1])], "row 1: paired=[1]: must be an object"),
        ([row("reml", 0, 1.0, paired={"scratch": {}})], "must hold difference, median, ci95"),
        ([row("reml", 0, 1.0, paired={"x": versus(1.0, "wide", 0.5)})], "paired: x: ci95='wide': must be a finite"),
        ([row("reml", 0, 1.0, paired={"x": versus(1.0, None, 0.5, per_seed=[2.0])})], "their mean is not 1.0"),
        ([row("reml", 0, 1.0, per_seed=[1.0, 1.0])], "must be as many as the seeds, 3"),
        ([row("reml", 0, 1.0, per_seed=[1.0, 1.0, 2.0])], "row 1: per_seed=[1.0, 1.0, 2.0]: their mean is not 1.0"),
        ([row("reml", 0, 1.0, inner_gradients=0.5)], "row 1: inner_gradients=0.5: must be a whole number"),
    ],
)
def test_bad_rows_are_refused(tmp_path: Path, rows: Any, message: str) -> None:
    path = write(tmp_path, rows)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        pages(tmp_path)
    assert str(path) in str(caught.value)


def test_damaged_and_unknown_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such folder"):
        pages(tmp_path / "nowhere")
    (tmp_path / "sinusoid.json").write_text("[{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"sinusoid\.json: damaged"):
        pages(tmp_path)
    write(tmp_path, [])
    write(tmp_path, [], "navigatoin.json")
    with pytest.raises(ValueError, match=r"navigatoin\.json: no page shows it; known files are sinusoid\.json"):
        pages(tmp_path)


def test_groups_that_mix_rows_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, [row("reml", 0, 1.0), row("reml", 0, 1.0, shots=10)])
    with pytest.raises(ValueError, match="rows that agree in family, metric do not fit into one table"):
        read_groups(path, replace(SECTIONS[0], groups=("family", "metric")))


ATTEMPT = {
    "title": "Wider stems",
    "question": "Does width help?",
    "tried": "80 units.",
    "found": "No.",
    "figures": [{"what": "error | 5 steps", "value": 0.0123}, {"what": "seeds", "value": 3}],
}


def test_attempts_are_sections(tmp_path: Path) -> None:
    write(tmp_path, [ATTEMPT, ATTEMPT | {"title": "Second", "figures": [], "command": "python -m x"}], "attempts.json")
    page = pages(tmp_path)["what-did-not-work.md"]
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == ["Wider stems", "Second"]
    assert "**Question.** Does width help?\n\n**Tried.** 80 units.\n\n**Found.** No." in page
    assert "| error \\| 5 steps | 0.0123 |\n| seeds | 3 |" in page
    assert page.count("| figure | value |") == 1
    assert page.count("```bash\npython -m x\n```") == 1


@pytest.mark.parametrize(
    ("attempts", "message"),
    [
        ({}, "must hold a list, found dict"),
        (["x"], "attempt 1: must be an object with title"),
        ([{"title": "x"}], "attempt 1: lacks question, tried, found, figures"),
        ([ATTEMPT | {"why": "x"}], "attempt 1: has unknown why"),
        ([ATTEMPT, ATTEMPT | {"title": "y", "found": " "}], "attempt 2: found=' ': must be a text"),
        ([ATTEMPT | {"command": 3}], "attempt 1: command=3: must be a text"),
        ([ATTEMPT | {"figures": [{"what": "x"}]}], "attempt 1: figures=[{'what': 'x'}]: must be a list of objects"),
        ([ATTEMPT, ATTEMPT], "attempt 2: title='Wider stems': another attempt has it too"),
    ],
)
def test_bad_attempts_are_refused(tmp_path: Path, attempts: Any, message: str) -> None:
    path = write(tmp_path, attempts, "attempts.json")
    with pytest.raises(ValueError, match=re.escape(f"{path}: {message}")):
        pages(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.000"), (0.05, "0.05"), (0.01234, "0.0123"), (5.3806, "5.381"), (12345.0, "1.234e+04")]
)
def test_numbers_have_the_digits_that_matter(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.008, 3.0, ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2"]),
        (2.6, 4.9, ["3", "4"]),
        (14.0, 26.0, ["15", "20", "25"]),
        (1.55, 1.85, ["1.6", "1.7", "1.8"]),
    ],
)
def test_every_logarithmic_axis_has_marks(low: float, high: float, labels: list[str]) -> None:
    axes = Figure().subplots()
    axes.set_ylim(low, high)
    log_scale(axes)
    assert [label.get_text() for label in axes.get_yticklabels()] == labels
    assert axes.get_ylim() == (low, high)


def test_the_page_of_decisions_lays_rows_side_by_side(tmp_path: Path) -> None:
    """Rows are those of the result files, and verdicts those of intervals."""
    rows = [
        row("cross_entropy", 1, 0.6, family="fashion_mnist", shots=None, metric="balanced_accuracy"),
        row("fixed_loss", 1, 0.64, family="fashion_mnist", shots=None, metric="balanced_accuracy"),
        row(
            "ppo",
            1,
            0.66,
            family="fashion_mnist",
            shots=None,
            metric="balanced_accuracy",
            paired={"fixed_loss": versus(0.02, 0.01, 0.3)},
        ),
    ]
    # The same entrants by another metric have rows and a table of their own.
    others = [row("ppo", 1, 0.9, family="fashion_mnist", shots=None, metric="recall_at_1")]
    write(tmp_path, rows + others, "loss.json")
    (section,) = (one for one in SECTIONS if one.file == "loss.json")
    groups = read_groups(tmp_path / "loss.json", section)
    assert [group.title for group in groups] == ["fashion_mnist, balanced_accuracy", "fashion_mnist, recall_at_1"]
    page = decisions_page(tmp_path)
    line = line_of(page, "| [loss of a run]")
    assert all(part in line for part in ("0.600", "`cross_entropy`", "0.640", "0.660", "+0.020 ± 0.010, better"))
    assert line_of(page, "| [update rule]").count("–") == 6, "nothing is there yet"
    rows[-1]["paired"]["fixed_loss"]["ci95"] = 0.03
    write(tmp_path, rows, "loss.json")
    assert "+0.020 ± 0.030, n.s." in decisions_page(tmp_path)


def test_every_row_of_the_page_of_decisions_is_of_the_results() -> None:
    """Entrants that it names are in the tables of entrants, and its files are shown by sections."""
    names = {name for table in ENTRANTS.values() for name in table}
    files = {section.file for section in SECTIONS}
    for decision in DECISIONS:
        assert decision.file in files
        for name in (name for names in decision.who for name in names):
            assert name in names or name.partition("/")[0] in names, name


@pytest.mark.parametrize("section", [section for section in SECTIONS if not section.trials], ids=lambda one: one.file)
def test_every_picture_of_curves_has_curves(section: Section, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every panel, within the limits of its axes."""
    drawn: list[Figure] = []
    monkeypatch.setattr(result_plots, "save", lambda figure, path: drawn.append(figure))
    groups = read_groups(FOLDER / section.file, section)
    result_plots.plot_groups(groups, FOLDER / section.plot, section)
    for group, axes in zip(groups, drawn[0].axes, strict=False):
        low, high = sorted(axes.get_ylim())
        seen = [y for line in axes.lines for y in np.ravel(line.get_ydata()) if low <= y <= high]
        assert len(seen) >= len(group.steps), group.title
