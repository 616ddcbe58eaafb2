"""Jobs of a comparison on a cluster: their folders travel, and nothing is lost or done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pytest

from agents.comparison.jobs import Job
from agents.comparison.rows import read_rows
from agents.comparison.scaling import job_lengths, makespan
from agents.runs.cluster import outcomes_on, packed, unpack, work_elsewhere
from agents.runs.pieces import Piece
from agents.runs.run import COMMIT, commit
from agents.runs.workers import run_all

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Sum(Piece):
    """Adds its number to what lies in its folder."""

    root: Path
    number: int

    def __str__(self) -> str:
        return f"sum {self.number}"

    @property
    def folder(self) -> Path:
        return self.root / "sums" / f"{self.number}"

    def moved(self, root: Path) -> Sum:
        return replace(self, root=root)

    def work(self) -> float:
        path = self.folder / "deep" / "sum.txt"
        path.parent.mkdir(exist_ok=True)
        before = int(path.read_text(encoding="utf-8")) if path.exists() else 0
        path.write_text(f"{before + self.number}", encoding="utf-8")
        if not self.number:
            raise ValueError("nothing to add")
        return float(self.number)


def sum_of(piece: Piece) -> int:
    return int((piece.folder / "deep" / "sum.txt").read_text(encoding="utf-8"))


def test_a_folder_goes_out_and_comes_home(tmp_path: Path) -> None:
    piece = Sum(tmp_path / "here", 3)
    assert piece.outcome() == 3.0
    content, outcome = work_elsewhere(piece, packed(piece.folder))
    assert outcome == 3.0
    assert sum_of(piece) == 3, "until it is written"
    unpack(content, piece.folder)
    assert sum_of(piece) == 6


def test_what_fails_elsewhere_leaves_its_log(tmp_path: Path) -> None:
    piece = Sum(tmp_path, 0)
    piece.folder.mkdir(parents=True)
    content, outcome = work_elsewhere(piece, packed(piece.folder))
    unpack(content, piece.folder)
    assert outcome == "ValueError('nothing to add')"
    assert "Traceback" in piece.log.read_text(encoding="utf-8")


def test_this_machine_remains_the_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pieces = [Sum(tmp_path, number) for number in (1, 0, 2)]
    assert run_all(pieces, 1) == [pieces[1]]
    shown = capsys.readouterr().out
    assert "sum 2: 2 s" in shown
    assert "sum 0: failed: ValueError('nothing to add')" in shown
    assert sum_of(pieces[2]) == 2


def test_without_ray_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match="pip install ray"):
        run_all([Sum(tmp_path, 1)], 1, "auto")
    assert run_all([], 1, "auto") == []


def test_code_that_was_sent_keeps_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMMIT, "abc")
    assert commit() == "abc"
    monkeypatch.setenv(COMMIT, "")
    assert commit() is None


def test_job_lengths_on_many_machines() -> None:
    assert makespan([3.0, 1.0, 2.0], 1) == 6.0
    assert makespan([3.0, 1.0, 2.0], 2) == 3.0
    assert makespan([3.0, 1.0, 2.0], 100) == 3.0
    assert makespan([1.0] * 100, 1000, driver=1.0) == pytest.approx(100.0, rel=0.02), "the driver is the limit"
    assert makespan([1.0] * 100, 10, driver=0.01) == pytest.approx(10.0, rel=0.02), "the cores are"
    lengths = job_lengths(ROOT / "docs" / "results")
    assert len(lengths) > 500
    assert min(lengths) >= 0.0


# -- with Ray -------------------------------------------------------------------------------------------------------

LEARNERS = ("scratch", "maml_1", "reptile", "reml")
QUICK = ("--quick", "--family", "sinusoid", "--shots", "5", "--learners", *LEARNERS)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without cores, and two nodes with one each."""
    utils = pytest.importorskip("ray.cluster_utils", reason="needs Ray: pip install ray")
    found = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        found.add_node(num_cpus=1, include_dashboard=False)
    yield found
    found.shutdown()


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of processes of this machine."""
    folder = tmp_path_factory.mktemp("local")
    process = compare(folder)
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return folder


def compare(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return start("agents.compare", *QUICK, "--run", str(folder), *arguments)


def start(module: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def until(stream: IO[str], start: str) -> str:
    """All that a process prints until a line that starts so."""
    lines = []
    for line in stream:
        lines.append(line)
        if line.startswith(start):
            return "".join(lines)
    raise AssertionError("".join(lines))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [row | {"seconds": None} for row in read_rows(folder / "sinusoid.json")]


def files_of(folder: Path) -> set[str]:
    """Names of all files that are not named after a process."""
    return {
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and "tfevents" not in path.name
    }


@pytest.mark.slow
def test_a_cluster_that_loses_a_node_finds_what_one_machine_finds(cluster: Any, local: Path, tmp_path: Path) -> None:
    process = compare(tmp_path, "--ray", cluster.address)
    assert process.stdout is not None
    shown = until(process.stdout, "[1/8]")
    cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
    rest, _ = process.communicate(timeout=600)
    assert process.returncode == 0, rest
    assert "ray: 2 cores in 3 nodes" in shown
    assert sorted(line.split("]")[0] for line in (shown + rest).splitlines() if line.startswith("[")) == [
        f"[{number}/8" for number in range(1, 9)
    ]
    assert rows_of(tmp_path) == rows_of(local)
    assert files_of(tmp_path) == files_of(local)


@pytest.mark.slow
def test_a_driver_that_dies_goes_on_where_it_was(cluster: Any, local: Path, tmp_path: Path) -> None:
    process = compare(tmp_path, "--ray", cluster.address)
    assert process.stdout is not None
    until(process.stdout, "[2/8]")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("finished-*.json")}
    assert 2 <= len(finished) < 8
    again = compare(tmp_path, "--ray", cluster.address)
    out, _ = again.communicate(timeout=600)
    assert again.returncode == 0, out
    assert f"({8 - len(finished)} of 8 runs left to do)" in " ".join(out.split())
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert rows_of(tmp_path) == rows_of(local)


@pytest.mark.slow
def test_more_held_out_tasks_train_nobody_again(cluster: Any, local: Path) -> None:
    """The folder that goes out holds what was trained."""
    job = Job(local, "sinusoid", 5, "reml", 0, 640, 10)
    before = json.loads((local / "sinusoid/5-shot/640-tasks/reml/seed-0/finished-20.json").read_text(encoding="utf-8"))
    ((_, outcome),) = outcomes_on(cluster.address, [job])
    assert isinstance(outcome, float)
    assert outcome < 0.5 * before["seconds"]
    assert job.finished
    assert job.moved(local) == job


# -- training runs and studies --------------------------------------------------------------------------------------

TRAIN = ("--seeds", "2", "--bootstrap-iterations", "4", "--total-steps", "1000", "--evaluation-tasks", "4")
STUDY = ("--trials", "4", "--together", "2", "--steps", "1000")


def ends_well(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=600)
    assert process.returncode == 0, out
    return out


def contents(folder: Path) -> dict[str, Any]:
    """The JSON and Markdown of a folder, without seconds."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*.md")
    }
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        content.pop("seconds", None)
        found[str(path.relative_to(folder))] = content
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "arguments", "first", "every"),
    [
        ("agents.train", TRAIN, "[1/2]", "seed-*/training/results/table.md"),
        ("agents.libraries.study", STUDY, "[1/2]", "*/trial-*/found.json"),
    ],
)
def test_runs_on_a_cluster_survive_their_driver(
    module: str, arguments: tuple[str, ...], first: str, every: str, cluster: Any, tmp_path: Path
) -> None:
    """The same files as this machine alone, after the driver was killed; what was finished is not done again."""
    if module == "agents.libraries.study":
        pytest.importorskip("optuna", reason="needs Optuna: pip install optuna")
    ends_well(start(module, *arguments, "--run", str(tmp_path / "local")))
    folder = tmp_path / "cluster"
    process = start(module, *arguments, "--run", str(folder), "--ray", cluster.address)
    assert process.stdout is not None
    until(process.stdout, first)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    finished = {path: path.stat().st_mtime_ns for path in folder.glob(every)}
    assert finished
    again = ("--resume", str(folder)) if module == "agents.train" else (*arguments, "--run", str(folder))
    ends_well(start(module, *again, "--ray", cluster.address))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert files_of(folder) == files_of(tmp_path / "local")
    assert contents(folder) == contents(tmp_path / "local")
