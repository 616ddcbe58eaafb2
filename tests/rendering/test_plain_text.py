"""Images in text, tables and commands can be printed in any encoding, and stay legible."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

import gym_reml
from gym_reml.evaluation import Result
from gym_reml.evaluation.results import table
from gym_reml.rendering.plain_text import BLOCKS, SPELL_OUT, printable
from gym_reml.rendering.render import render_ansi
from gym_reml.tasks import FAMILIES
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments

ROOT = Path(__file__).resolve().parents[2]
IDS = list(gym_reml.REGISTRATIONS)
POOR = ("cp1252", "cp437", "latin-1", "ascii")


class Output(io.TextIOWrapper):
    """A standard output with some encoding, and the bytes written to it."""

    def __init__(self, encoding: str, errors: str = "strict") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, errors=errors)

    @property
    def text(self) -> str:
        self.flush()
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


def redirected(encoding: str, monkeypatch: pytest.MonkeyPatch) -> Output:
    """Replaces the standard output for the rest of the test; a fixture would come before pytest's own."""
    output = Output(encoding)
    monkeypatch.setattr(sys, "stdout", output)
    return output


def single(name: str) -> str:
    env = gym.make(name, render_mode="ansi")
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(2):
        env.step(env.action_space.sample())
    return str(env.render())


def native(name: str) -> tuple[str, ...]:
    env = gym.make_vec(name, num_envs=2, render_mode="ansi")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    frames: Any = env.render()
    return tuple(frames)


def sync(name: str) -> tuple[str, ...]:
    env = SyncVectorEnv([lambda: gym.make(name, render_mode="ansi")] * 2)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    frames: Any = env.render()
    return tuple(frames)


@pytest.mark.parametrize("encoding", POOR)
@pytest.mark.parametrize("face", [single, native, sync], ids=lambda face: face.__name__)
@pytest.mark.parametrize("name", IDS)
def test_pictures_of_every_environment_can_be_printed(
    name: str, face: Any, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    redirected(encoding, monkeypatch)
    picture = face(name)
    print(picture)
    shown = picture if isinstance(picture, str) else picture[0]
    assert "?" not in shown, "every character has a stand-in"
    assert not set(shown) & set(BLOCKS)
    assert max(map(len, shown.splitlines())) <= 80
    if name != "BanditTrial-v0":
        assert shown.endswith("bars from low to high: .:-=+*#@")


@pytest.mark.parametrize("encoding", ["cp1252"])
@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "mixture"])
def test_pictures_of_every_family_can_be_printed(
    family: str, encoding: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    output = redirected(encoding, monkeypatch)
    if family.startswith(("half_cheetah", "ant")):
        pytest.importorskip("mujoco")
    kwargs = image_arguments(family, tmp_path) if family in IMAGE_FAMILIES else {}
    sizes: dict[str, Any] = {"shots": 2, "queries": 2, "pool": "random"}
    env = gym.make("NetBuild-v0", family=family, family_kwargs=kwargs, render_mode="ansi", **sizes)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    print(env.render())
    assert "bars from low to high" in output.text


def test_pictures_keep_their_blocks_where_the_output_holds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    strange = type("Strange", (io.StringIO,), {"encoding": "unheard-of"})()
    for stream in (Output("utf-8"), io.StringIO(), strange, None):
        monkeypatch.setattr(sys, "stdout", stream)
        picture = single("NetBuild-v0")
        assert set(picture) & set(BLOCKS)
        assert "bars from low" not in picture


def test_the_output_is_the_one_at_the_time_of_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    env = gym.make("NetBuild-v0", render_mode="ansi")
    env.reset(seed=0)
    env.step(np.zeros(env.action_space.shape or (), dtype=np.float32))
    shown: dict[str, list[Any]] = {}
    for encoding in ("utf-8", "ascii", "utf-8"):
        monkeypatch.setattr(sys, "stdout", Output(encoding))
        shown.setdefault(encoding, []).append(env.render())
    assert shown["utf-8"][0] == shown["utf-8"][1] != shown["ascii"][0]
    blocks = str.maketrans(dict(zip(BLOCKS, ".:-=+*#@", strict=True)))
    assert shown["ascii"][0].startswith(str(shown["utf-8"][0]).translate(blocks)), "the same heights"


@pytest.mark.parametrize("encoding", POOR)
def test_names_of_a_user_can_be_printed(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = redirected(encoding, monkeypatch)
    from tests.rendering.test_episode import make_frame

    print(render_ansi(make_frame(family="синус ± 正弦, 5 shots")))
    assert "5 shots" in output.text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_tables_can_be_printed(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    output = redirected(encoding, monkeypatch)
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    result = Result("reml", "sinusoid", 5, 0, (0, 1), {"loss": values}, np.zeros((2, 2), dtype=np.bool_))
    print(table([result]))
    sign = "+-" if output.encoding == "ascii" else "±"
    assert f"1.500 {sign} 0.980 (1.500)" in output.text
    assert len({len(line) for line in output.text.splitlines()}) == 1, "columns stay in line"


def test_what_is_missing_is_spelled_out() -> None:
    assert "± – × RL² μ 正".encode("ascii", SPELL_OUT) == b"+- - x RL2 mu ?"
    assert "3 ± 1".encode("cp1252", SPELL_OUT).decode("cp1252") == "3 ± 1"
    with pytest.raises(UnicodeDecodeError):
        b"\xff".decode("ascii", SPELL_OUT)


def test_text_that_the_output_holds_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Output("cp1252"))
    assert printable("a ± b – c") == "a ± b – c"


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize(
    ("module", "arguments", "shown"),
    [
        ("rl2", ["--help"], "RL"),
        ("rivals.scratch", ["--tasks", "8", "--evaluation-tasks", "4"], "95 % interval"),
        ("results", ["--help"], "docs/results"),
    ],
)
def test_commands_print_into_any_file(encoding: str, module: str, arguments: list[str], shown: str) -> None:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", f"agents.{module}", *arguments], capture_output=True, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    assert shown in done.stdout.decode(encoding)
