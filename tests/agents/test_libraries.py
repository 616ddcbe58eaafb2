"""The programs of the libraries, the command that runs them, and their table."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import gym_reml
from agents.libraries import environments, reached
from agents.libraries.environments import Program, constraints, environment, programs
from agents.libraries.reached import Reached, held_out_return
from agents.libraries.table import Row, page, read_rows, table, write_rows

command: Any = importlib.import_module("agents.libraries.__main__")

ROOT = Path(__file__).resolve().parents[2]
PAGE, ROWS = ROOT / "docs/libraries/index.md", ROOT / "docs/results/libraries.json"
REACHED = Reached("numpy", "2.0", "none", "NetBuild-v0", "single", 12_000, 3.2, -2.5, -0.5)
FAKE = Program("fake_library", ("numpy",))


def test_every_program_pins_its_library_and_has_a_page() -> None:
    known = programs()
    assert "torchrl" in known
    assert "reached" not in known
    for program in known.values():
        assert re.fullmatch(r"[\w.-]+(\[\w+\])?==[\w.]+", program.requirements[0]), program
        assert (PAGE.parent / f"{program.name}.md").is_file(), program


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ('REQUIREMENTS = ("a==1", "b<2")', ("a==1", "b<2")),
        ('REQUIREMENTS: tuple[str, ...] = ("a==1",)', ("a==1",)),
        ("import no_such_library\nREQUIREMENTS = ()", ()),
        ("OTHER = 1", None),
        ("REQUIREMENTS = tuple(x)", "must be written out"),
        ('REQUIREMENTS = "a==1"', "must be a tuple"),
    ],
)
def test_requirements_are_read_without_importing(source: str, found: Any, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(source, encoding="utf-8")
    if isinstance(found, str):
        with pytest.raises(ValueError, match=found):
            programs(tmp_path)
    else:
        assert programs(tmp_path) == ({} if found is None else {"one": Program("one", found)})


def test_a_requirement_stands_above_the_constraints() -> None:
    pins = "# exact versions\nnumpy==2.4.6\nsb3_contrib==2.9.2\nfilelock==4.2.11\n"
    assert constraints(("sb3-contrib==2.8", "filelock<4"), pins) == "# exact versions\nnumpy==2.4.6\n"


def test_an_environment_is_made_once_for_the_same_requirements(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[list[str]] = []
    monkeypatch.setattr(environments, "call", lambda command, log: calls.append(command))
    folder, log = tmp_path / "numpy", tmp_path / "numpy.log"
    for program in (FAKE, FAKE, replace(FAKE, requirements=("numpy<3",))):
        python = environment(program, folder, log)
    assert [made[1:3] for made in calls] == [["-m", "venv"], ["-m", "pip"]] * 2
    assert calls[3] == [
        *(str(python), "-m", "pip", "install", "-c", str(folder / "constraints.txt")),
        *("-e", str(ROOT), "numpy<3"),
    ]


def fake(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Has the command know other programs, which run in this environment."""
    monkeypatch.setattr(command, "programs", lambda: {name: Program(name, ()) for name in names})
    monkeypatch.setattr(command, "environment", lambda program, folder, log: Path(sys.executable))
    monkeypatch.setattr(command, "PACKAGE", "tests.support")


def test_runs_a_program_and_keeps_the_rows_of_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the command to the page; a program that fails stops no other."""
    fake(monkeypatch, "no_such_program", "fake_library")
    output = tmp_path / "rows.json"
    write_rows(output, [Row("other", 0, 1.0, REACHED), Row("fake_library", 3, 1.0, REACHED)])
    config = command.Config(
        environments=tmp_path / "environments", budget=0.5, output=output, page=tmp_path / "index.md"
    )
    with pytest.raises(ValueError, match="no_such_program: failed"):
        command.main(config)
    rows = {row.program: row for row in read_rows(output)}
    assert set(rows) == {"other", "fake_library"}
    own = rows["fake_library"]
    assert (own.seed, own.budget, own.reached.steps) == (0, 0.5, 50)
    assert own.reached.version == np.__version__
    assert (tmp_path / "index.md").read_text(encoding="utf-8") == page(read_rows(output))
    printed = capsys.readouterr().out
    assert "No module named tests.support.no_such_program" in printed
    assert "fake_library: none on NetBuildDiscrete-v0" in printed


def test_bad_input_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"sb4: no such program; choices: .*torchrl"):
        command.main(command.Config(("sb4",)))
    with pytest.raises(ValueError, match="--budget 0: must be positive"):
        command.main(command.Config(budget=0))
    fake(monkeypatch, "small_policies")  # a module that prints nothing
    with pytest.raises(ValueError, match="printed no row"):
        command.run_program(Program("small_policies", ()), command.Config(environments=tmp_path))
    (tmp_path / "rows.json").write_text('[{"program": "x"}]', encoding="utf-8")
    with pytest.raises(ValueError, match="no list of rows"):
        read_rows(tmp_path / "rows.json")


def test_the_table_says_what_was_reached() -> None:
    line = table([Row("fake", 0, 1.0, replace(REACHED, first_return=-3.0, note="a note"))]).splitlines()[-1]
    assert (
        line
        == "| [numpy 2.0](fake.md) | none | `NetBuild-v0` | -2.50 | -3.00 | **-0.50** | 12,000 | 3 | single | a note |"
    )


def test_the_committed_page_is_made_from_the_committed_rows() -> None:
    rows = read_rows(ROWS)
    assert PAGE.read_text(encoding="utf-8") == page(rows), "run python -m agents.libraries.table"
    for row in rows:
        assert row.program in programs()
        assert row.reached.id in gym_reml.REGISTRATIONS
        assert row.reached.trained_return > row.reached.random_return, f"{row.program} learned nothing"


@pytest.mark.parametrize("env_id", ["NetBuildHybrid-v0", "BanditTrial-v0", "NavigationTrial-v0"])
def test_held_out_returns_are_of_the_test_split(env_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same episodes at every call, each from its start to its end."""
    made: list[Any] = []
    make = reached.make_rows

    def recorded(*args: Any, **kwargs: Any) -> Any:
        made.append(make(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(reached, "make_rows", recorded)
    first, second = (held_out_return(env_id, episodes=5) for _ in range(2))
    assert first == second
    assert [env.unwrapped.split for env in made] == ["test", "test"]
    envs = gym.make_vec(env_id, num_envs=5, vectorization_mode="vector_entry_point", **TEST[env_id])
    envs.action_space.seed(10_000)
    envs.reset(seed=10_000)
    rewards, running = np.zeros(5), np.ones(5, dtype=np.bool_)
    for _ in range(1000):
        _, reward, terminated, truncated, _ = envs.step(envs.action_space.sample())
        rewards, running = rewards + running * reward, running & ~(terminated | truncated)
    assert first == pytest.approx(rewards.mean())


TEST: dict[str, dict[str, Any]] = {
    "NetBuildHybrid-v0": {"family_kwargs": {"split": "test"}},
    "BanditTrial-v0": {"split": "test"},
    "NavigationTrial-v0": {"split": "test"},
}


@pytest.mark.slow
def test_the_quick_half_of_the_matrix(tmp_path: Path) -> None:
    """By the command itself, in environments that it makes; the adapters' own tests run in these too."""
    reachable = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", str(tmp_path), "tianshou"]
    if subprocess.run(reachable, capture_output=True).returncode:
        pytest.skip("the Python package index is not reachable")
    names = ("tianshou", "torchrl")
    options = ["--budget", "0.25", "--environments", str(tmp_path / "environments")]
    options += ["--output", str(tmp_path / "rows.json"), "--page", str(tmp_path / "index.md")]
    subprocess.run([sys.executable, "-m", "agents.libraries", *names, *options], cwd=ROOT, check=True)
    rows = read_rows(tmp_path / "rows.json")
    assert {row.program for row in rows} == set(names)
    for row in rows:
        if row.reached.id.startswith("NetBuild"):  # a quarter of the budget is too little for trials
            assert row.reached.trained_return > row.reached.random_return + 1.0
    for adapted in ("tianshou", "torchrl"):
        python = str(tmp_path / "environments" / adapted / "bin/python")
        pip = ["-m", "pip", "install", "-q", "-c", str(ROOT / "constraints.txt"), "pytest"]
        subprocess.run([python, *pip], check=True)
        subprocess.run([python, "-m", "pytest", "-o", "addopts=", "-q", f"tests/{adapted}"], cwd=ROOT, check=True)
