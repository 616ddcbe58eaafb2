"""The comparison: one command trains everyone, goes on where it was, and leaves rows that agree with each other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tyro

from agents.compare import QUICK_EVALUATION_TASKS, QUICK_SEEDS, QUICK_TASKS, Config, jobs_of
from agents.comparison.benchmarks import BENCHMARKS, HELD_OUT, MIXED_IMAGES, TRAINING_MIXTURE
from agents.comparison.entrants import SUPERVISED
from agents.comparison.jobs import Job
from agents.comparison.rows import FIELDS, Row, key_of, merge_rows, read_rows
from agents.comparison.summarise import rows_of
from agents.comparison.tables import table_of
from agents.problems.problem import TABLE_STEPS as STEPS
from agents.problems.problem import Problem, count_parameters
from agents.problems.recipes import FUNCTIONS
from agents.rivals import fomaml
from agents.runs.run import commit, versions
from gym_reml.evaluation import Result, evaluate
from gym_reml.tasks import make_family
from gym_reml.tasks.images import archives as omniglot_data
from tests.support.collection_files import write_collections
from tests.support.command_line import stop_of
from tests.support.omniglot_archive import write_whole

ROOT = Path(__file__).resolve().parents[2]
CONTROLS = ("random_layer", "constant_step", "shuffled_observation", "zeroed_observation", "best_composition")
CONTROLLED = {name for name, entrant in SUPERVISED.items() if entrant.controlled}
COMPARED = {name: entrant.compared_with for name, entrant in SUPERVISED.items() if entrant.compared_with}
TUNED = {"scratch", "pretrained", "reptile", "maml_plus_plus", "maml_plus_plus_tuned"}
BY_REPLAYS = {name for name in SUPERVISED if name not in TUNED and not name.startswith("reml")}
"""Those that train by replays alone, and choose nothing on validation tasks."""

QUICK = ("--quick", "--family", "sinusoid", "--shots", "5")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agents.compare", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


# -- the whole ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of the quick comparison of everyone."""
    folder = tmp_path_factory.mktemp("compare") / "run"
    done = run(*QUICK, "--run", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        f"{len(SUPERVISED) * QUICK_SEEDS} of {len(SUPERVISED) * QUICK_SEEDS} runs",
        "| reml | sinusoid |",
    ):
        assert shown in " ".join(done.stdout.split())
    return folder


@pytest.fixture(scope="module")
def rows(finished: Path) -> dict[tuple[str, int], Row]:
    everything = read_rows(finished / "sinusoid.json")
    found = {(row["learner"], row["step"]): row for row in everything}
    assert len(found) == len(everything) == len({key_of(row) for row in everything}), "one row a key"
    return found


def test_everyone_has_a_row_after_every_step(rows: dict[tuple[str, int], Row]) -> None:
    shown = set(SUPERVISED)
    shown |= {f"{learner}/{control}" for learner in CONTROLLED for control in CONTROLS}
    assert rows.keys() == {(learner, step) for learner in shown for step in (0, 1, 5, 10)}
    assert {"maml_5", "maml_5_own_shape", "maml_1", "maml_1_own_shape", "reml_plain/random_pool"} <= shown


def test_rows_say_what_was_done(rows: dict[tuple[str, int], Row]) -> None:
    for (learner, _), row in rows.items():
        assert set(FIELDS) <= set(row)
        assert (row["family"], row["shots"], row["metric"]) == ("sinusoid", 5, "mse")
        assert (row["seeds"], row["tasks"]) == (QUICK_SEEDS, QUICK_EVALUATION_TASKS)
        assert row["meta_training_tasks"] == (0 if learner == "scratch" else QUICK_TASKS)
        # Everything said out loud, so that the command makes these very rows.
        assert row["command"].startswith("python -m agents.compare --family sinusoid --shots 5 --learners ")
        assert row["command"].endswith(
            f" --seeds {QUICK_SEEDS} --tasks {QUICK_TASKS} --evaluation-tasks {QUICK_EVALUATION_TASKS}"
        )
        owner = learner if learner in SUPERVISED else learner.rpartition("/")[0]
        assert f" --learners {owner} " in row["command"], "each name is made by itself"
        assert np.mean(row["per_seed"]) == pytest.approx(row["mean"])
        assert len(row["per_seed"]) == QUICK_SEEDS
        assert row["versions"] == versions()
        assert row["commit"] == commit()
        numbers = ("mean", "median", "ci95", "ci95_seeds", "ci95_tasks", "seconds")
        assert np.isfinite([row[name] for name in numbers]).all()
        # What is tuned on validation tasks takes steps too.
        assert row["inner_gradients"] >= QUICK_TASKS or learner == "scratch"
        assert (row["environment_steps"] > 0) == (learner not in BY_REPLAYS)
        assert 0.0 <= row["diverged"] <= 1.0
    sizes = {learner: row["parameters"] for (learner, _), row in rows.items()}
    assert sizes["scratch"] == 40 * 2 + 41 * 40 + 41
    assert sizes["maml_1"] == sizes["scratch"]
    assert sizes["maml_1_own_shape"] == sizes["scratch"] + 41 * 40
    assert sizes["maml_matched"] >= sizes["reml_plain"] == sizes["reml_plain/random_layer"] > sizes["router"]


def test_rows_of_the_same_networks_and_tasks_agree(rows: dict[tuple[str, int], Row]) -> None:
    means = {key: row["mean"] for key, row in rows.items()}
    assert means["maml_5", 0] != means["scratch", 0]
    for control in CONTROLS:
        assert means[f"reml/{control}", 0] == pytest.approx(means["reml", 0]), "nothing is done before the first step"
        assert means[f"reml/{control}", 5] != means["reml", 5]
    for name in ("maml_1", "maml_5"):
        assert means[name, 1] != means[f"{name}_own_shape", 1]


def test_paired_differences_are_those_of_the_rows(rows: dict[tuple[str, int], Row]) -> None:
    for (learner, step), row in rows.items():
        assert ("paired" in row) == (learner in COMPARED)
        for other, versus in row.get("paired", {}).items():
            expected = row["mean"] - rows[other, step]["mean"]
            assert versus["difference"] == pytest.approx(expected, rel=1e-6, abs=1e-9)
            assert versus["ci95"] >= versus["ci95_seeds"] > 0
            assert versus["ci95"] > versus["ci95_tasks"] > 0
        assert set(row.get("paired", {})) == set(COMPARED.get(learner, ())) & {name for name, _ in rows}


def test_running_it_again_trains_nothing_and_changes_nothing(finished: Path) -> None:
    def stamps() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in (finished / "sinusoid").rglob("*") if path.is_file()}

    before, text = stamps(), (finished / "sinusoid.json").read_text(encoding="utf-8")
    done = run(*QUICK, "--run", str(finished))
    assert done.returncode == 0, done.stderr
    assert f"(0 of {len(SUPERVISED) * QUICK_SEEDS} runs left to do)" in " ".join(done.stdout.split())
    assert stamps() == before
    assert (finished / "sinusoid.json").read_text(encoding="utf-8") == text


def test_a_lost_result_alone_is_made_again_and_comes_out_the_same(finished: Path, tmp_path: Path) -> None:
    """The rows go to another folder, and hold everyone: they are made of all that the run directory holds."""
    job = Job(finished, "sinusoid", 5, "maml_1", 1, QUICK_TASKS, QUICK_EVALUATION_TASKS)
    found = job.result("maml_1", "sinusoid")
    job.summary_path.unlink()
    assert not job.finished
    done = run(*QUICK, "--run", str(finished), "--learners", "maml_1", "--results", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "(1 of 2 runs left to do)" in " ".join(done.stdout.split())
    np.testing.assert_array_equal(job.result("maml_1", "sinusoid").metrics["loss"], found.metrics["loss"])
    again, before = (
        [row | {"seconds": 0.0} for row in read_rows(folder / "sinusoid.json")] for folder in (tmp_path, finished)
    )
    assert again == before


def test_what_fails_is_named_and_keeps_nobody_else_from_the_table(tmp_path: Path) -> None:
    small = ("--seeds", "1", "--tasks", "32", "--evaluation-tasks", "3", "--shots", "5", "--workers", "2")
    hindered = Job(tmp_path, "sinusoid", 5, "maml_5", 0, 32, 3)
    hindered.folder.parent.mkdir(parents=True)
    hindered.folder.write_text("a file where a folder has to be", encoding="utf-8")
    done = run(*small, "--learners", "maml_5", "maml_1", "--run", str(tmp_path))
    assert done.returncode == 1
    assert "maml_5, seed 0: failed" in done.stdout
    assert f"error: 1 runs failed, see {hindered.log}" in done.stderr
    assert "Traceback" not in done.stderr
    rows = read_rows(tmp_path / "sinusoid.json")
    assert {row["learner"] for row in rows} == {"maml_1"}
    assert {row["ci95"] for row in rows} == {None}


# -- what is asked for ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "error: --seeds 0: must be at least 1"),
        (["--shots", "-1"], "error: --shots -1: must be at least 1"),
        (["--tasks", "0"], "error: --tasks 0: must be at least 1"),
        (["--workers", "0"], "error: --workers 0: must be at least 1"),
        (["--evaluation-tasks", "1"], "error: --evaluation-tasks 1: must be at least 2"),
        (["--family", "sinusoids"], "sinusoids"),
        (["--speed", "3"], "--speed"),
    ],
)
def test_bad_options_end_in_one_clear_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, shown = stop_of("compare", arguments, monkeypatch, capsys)
    assert code != 0
    if message.startswith("error"):
        assert code == message
    else:
        assert message in shown
    assert not list(tmp_path.iterdir())


def test_jobs_are_seed_by_seed_and_as_many_as_asked_for() -> None:
    jobs = jobs_of(Config(learners=("maml_5", "reml"), seeds=2))
    assert [(job.seed, job.variant, job.learner) for job in jobs] == [
        (seed, shots, learner) for seed in (0, 1) for shots in (5, 10) for learner in ("maml_5", "reml")
    ]
    assert {(job.tasks, job.evaluation_tasks) for job in jobs} == {(None, 1000)}
    benchmark = BENCHMARKS["sinusoid"]
    assert len(jobs_of(Config())) == benchmark.seeds * len(benchmark.variants()) * len(SUPERVISED)
    quick = jobs_of(Config(family="all", quick=True))
    assert {job.benchmark for job in quick} == set(BENCHMARKS)
    assert {(job.tasks, job.evaluation_tasks) for job in quick} == {(QUICK_TASKS, QUICK_EVALUATION_TASKS)}
    assert len({job.folder for job in quick}) == len(quick)
    assert {job.tasks for job in jobs_of(Config(quick=True, tasks=77))} == {77}


def test_budgets_of_other_sizes_have_folders_and_results_of_their_own() -> None:
    base = Job(Path("r"), "sinusoid", 5, "reml/random_pool", 0, None, 20)
    changes: list[dict[str, Any]] = [{"tasks": 640}, {"seed": 1}, {"variant": 10}, {"learner": "reml"}]
    folders = {Job(**(vars(base) | change)).folder for change in changes}
    assert len(folders | {base.folder}) == len(changes) + 1
    assert Job(**(vars(base) | {"evaluation_tasks": 30})).summary_path != base.summary_path
    assert base.folder == Path("r/sinusoid/5-shot/default-tasks/reml-random_pool/seed-0")


def test_the_command_of_a_row_makes_it_again() -> None:
    config = Config(family="sinusoid", shots=10, seeds=3, tasks=500, evaluation_tasks=7, workers=2, learners=("reml",))
    command = jobs_of(config)[-1].command
    arguments = command.removeprefix("python -m agents.compare ").split()
    again = tyro.cli(Config, args=arguments)
    assert jobs_of(again) == jobs_of(config)
    plain = jobs_of(Config(shots=5, learners=("reml",)))[-1].command
    assert plain == "python -m agents.compare --family sinusoid --shots 5 --learners reml"


def test_rows_are_made_of_all_that_is_there(tmp_path: Path) -> None:
    asked = Job(tmp_path, "sinusoid", 5, "maml_1", 0, 32, 4)
    for learner, seed in (("maml_1", 0), ("scratch", 1)):
        Job(tmp_path, "sinusoid", 5, learner, seed, 32, 4).run()
    Job(tmp_path, "sinusoid", 5, "maml_1", 1, 64, 4).run()
    Job(tmp_path, "sinusoid", 5, "reml", 0, 32, 4).folder.mkdir(parents=True)
    assert [(job.learner, job.seed) for job in asked.finished_like_it()] == [("scratch", 1), ("maml_1", 0)]
    assert {row["learner"] for row in rows_of(asked.finished_like_it())} == {"scratch", "maml_1"}
    assert rows_of([]) == []


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmarks_name_learners_that_there_are(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert set(benchmark.learners) <= set(benchmark.choices)
    assert benchmark.file.endswith(".json")
    assert benchmark.variants()


@pytest.mark.parametrize(("family", "learner"), [("sinusoid", "maml_rl"), ("navigation", "meta_sgd")])
def test_learners_that_cannot_take_part(family: str, learner: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"^--learners {learner}: not for '{family}'; choices: .*reml"):
        jobs_of(Config(family=family, learners=("reml", learner), run=tmp_path))


def test_tables_have_a_column_a_step() -> None:
    def row(learner: str, step: int, ci95: float | None) -> Row:
        return {"learner": learner, "family": "f", "step": step, "mean": step / 4, "ci95": ci95}

    text = table_of([row("a", 1, 0.25), row("a", 0, None), row("b", 1, None)])
    assert text.splitlines() == [
        "| learner | family | step 0 | step 1 |",
        "|---|---|---|---|",
        "| a | f | 0.000 | 0.250 ± 0.250 |",
        "| b | f |  | 0.250 |",
    ]


# -- names, seeds and code ------------------------------------------------------------------------------------------


def write_finished(job: Job, test: str, metric: str, at_five: float) -> Job:
    """A job as if it had found the number after step 5, and the opposite after all others."""
    job.folder.mkdir(parents=True)
    values = np.full((len(STEPS), 2), 1.0 - at_five)
    values[STEPS.index(5)] = [at_five - 0.1, at_five + 0.1]
    metrics = {"loss": values, metric: values}
    refused = np.zeros(values.shape, dtype=np.bool_)
    assert isinstance(job.variant, int)
    Result(job.learner, test, job.variant, 0, STEPS, metrics, refused).save(job._result_path(job.learner, test))
    summary = {"seconds": 1.0, "parameters": len(job.learner), "meta_training_tasks": 9, "names": [job.learner]}
    job.summary_path.write_text(json.dumps(summary), encoding="utf-8")
    assert job.finished
    return job


@pytest.mark.parametrize(("benchmark", "metric"), [("sinusoid", "mse"), ("omniglot", "accuracy")])
@pytest.mark.parametrize("values", [(0.2, 0.4), (0.4, 0.2)])
def test_rows_have_their_learners_names_whoever_is_better(
    benchmark: str,
    metric: str,
    values: tuple[float, float],
    tmp_path: Path,
    archives: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GYM_REML_DATA", str(archives))
    found = dict(zip(("maml_5", "maml_5_own_shape", "reml"), (*values, 0.6), strict=True))
    jobs = [
        write_finished(Job(tmp_path, benchmark, 5, name, seed, 9, 2), benchmark, metric, value)
        for name, value in found.items()
        for seed in range(2)
    ]
    rows = {(row["learner"], row["step"]): row for row in rows_of(jobs)}
    assert {learner for learner, _ in rows} == set(found)
    for name, value in found.items():
        assert rows[name, 5]["mean"] == pytest.approx(value)
        assert rows[name, 5]["parameters"] == len(name)
        assert f" --learners {name} " in rows[name, 5]["command"]
    versus = rows["reml", 5]["paired"]
    assert {name: versus[name]["difference"] for name in versus} == pytest.approx(
        {name: 0.6 - found[name] for name in ("maml_5", "maml_5_own_shape")}
    )


def test_a_job_records_its_code(tmp_path: Path) -> None:
    job = Job(tmp_path, "sinusoid", 5, "scratch", 0, 8, 2)
    job.run()
    assert (job.summary["commit"], job.summary["versions"]) == (commit(), versions())
    found = commit()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", found)
    (row, *_) = rows_of([job])
    assert row["per_seed"] == [row["mean"]]


def test_jobs_of_an_earlier_version_have_rows_all_the_same(tmp_path: Path) -> None:
    job = write_finished(Job(tmp_path, "sinusoid", 5, "reml", 0, 9, 2), "sinusoid", "mse", 0.5)
    (row, *_) = rows_of([job])
    assert (row["commit"], row["versions"], row["inner_gradients"], row["environment_steps"]) == (None,) * 4
    other = write_finished(Job(tmp_path, "sinusoid", 5, "reml", 1, 9, 2), "sinusoid", "mse", 0.5)
    told = other.summary | {"commit": "abc", "versions": {"torch": "2.9"}, "inner_gradients": 7}
    other.summary_path.write_text(json.dumps(told), encoding="utf-8")
    (row, *_) = rows_of([job, other])
    assert (row["commit"], row["versions"]) == ("unknown, abc", {"torch": "unknown, 2.9"})
    assert (row["inner_gradients"], row["environment_steps"]) == (7, None), "the mean of those that counted it"


def test_differences_are_over_the_seeds_that_both_have(tmp_path: Path) -> None:
    found = {("reml", 0): 0.5, ("reml", 1): 0.9, ("meta_sgd", 1): 0.2, ("meta_sgd", 2): 0.4}
    jobs = [
        write_finished(Job(tmp_path, "sinusoid", 5, name, seed, 9, 2), "sinusoid", "mse", value)
        for (name, seed), value in found.items()
    ]
    (row,) = (row for row in rows_of(jobs) if (row["learner"], row["step"]) == ("reml", 5))
    assert row["paired"]["meta_sgd"] == {
        "difference": pytest.approx(0.7),
        "median": pytest.approx(0.7),
        "ci95": None,
        "ci95_seeds": None,
        "ci95_tasks": pytest.approx(0.0, abs=1e-12),
        "per_seed": [pytest.approx(0.7)],
        "lower": 0.0,
    }


# -- single jobs of the other benchmarks ----------------------------------------------------------------------------


def test_unrelated_families_are_told_apart_by_whether_they_were_trained_on(tmp_path: Path) -> None:
    job = Job(tmp_path, "unrelated", 5, "maml_5", 0, 64, 4)
    job.run()
    rows = rows_of([job])
    kinds = {(row["family"], row["split"]) for row in rows}
    assert kinds == {
        *((name, "train") for name in TRAINING_MIXTURE),
        *((name, "heldout") for name in (*HELD_OUT, "sinusoid-outside")),
    }
    assert not set(TRAINING_MIXTURE) & set(HELD_OUT)
    assert len({key_of(row) for row in rows}) == len(rows) == len(kinds) * len(STEPS)
    outside = {row["family"]: row["mean"] for row in rows if row["step"] == 0}
    assert outside["sinusoid-outside"] > 2 * outside["sinusoid"], "amplitudes of 5 to 8, not of 0.1 to 5"


def test_a_job_evaluates_what_it_trained(tmp_path: Path) -> None:
    job = Job(tmp_path, "sinusoid", 10, "fomaml", 3, 64, 5)
    job.run()
    family = make_family("sinusoid", shots=10)
    learner = fomaml.train(Problem(family, FUNCTIONS.scaled(64), 64, 3))
    expected = evaluate(learner, family, steps=STEPS, tasks=5)
    found = job.result("fomaml", "sinusoid")
    np.testing.assert_array_equal(found.metrics["loss"], expected.metrics["loss"])
    assert found.arguments["split"] == "test"
    assert job.summary["parameters"] == count_parameters(learner)
    assert job.summary["meta_training_tasks"] == 64
    assert job.summary["names"] == ["fomaml"]
    assert job.finished


def test_the_log_of_a_job_that_fails_says_why(tmp_path: Path, no_omniglot_environment: None) -> None:
    job = Job(tmp_path, "omniglot", 1, "scratch", 0, 32, 4)
    with pytest.raises((ValueError, OSError)) as error:
        job.run()
    assert not job.finished
    log = job.log.read_text(encoding="utf-8")
    assert "Traceback" in log
    assert str(error.value).splitlines()[0] in log


@pytest.mark.parametrize("name", ["omniglot_full", "omniglot_full-characters", "omniglot_full-20way", "mixed_images"])
def test_rows_of_the_papers_tables_say_what_the_networks_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = write_whole(tmp_path / "data" / "omniglot_full", {"Armenian": 5, "Greek": 14}, {"Keble": 5})
    monkeypatch.setattr(omniglot_data, "WHOLE_SIZES", sizes)
    monkeypatch.setenv("GYM_REML_DATA", str(write_collections(tmp_path / "data")))
    job = Job(tmp_path, name, 1, "maml_5", 0, 32, 4)
    job.run()
    rows = rows_of([job])
    assert {row["network"] for row in rows} == {"dense"}
    domains = ["mixed_images", *(f"mixed_images-{member}" for member in MIXED_IMAGES)]
    assert list(dict.fromkeys(row["family"] for row in rows)) == (domains if name == "mixed_images" else [name])
    merged = merge_rows(tmp_path / "rows.json", rows)
    assert len(merge_rows(tmp_path / "rows.json", [row | {"network": "conv"} for row in rows])) == 2 * len(merged)


@pytest.mark.parametrize("name", ["omniglot", "omniglot-domains"])
@pytest.mark.parametrize("learner", ["maml_5", "maml_plus_plus"])
def test_images_are_told_by_their_accuracy(
    name: str, learner: str, tmp_path: Path, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GYM_REML_DATA", str(images))
    job = Job(tmp_path, name, 1, learner, 0, 32, 4)
    job.run()
    rows = rows_of([job])
    assert {(row["learner"], row["family"], row["metric"], row["shots"]) for row in rows} == {
        (learner, name, "accuracy", 1)
    }
    assert [row["step"] for row in rows] == list(STEPS)
    assert all(0.0 <= row["mean"] <= 1.0 for row in rows)
