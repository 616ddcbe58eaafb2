"""The list of environments and all about one: complete, true to the environments, without more than the core."""

from __future__ import annotations

import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import pytest

from agents import command
from agents.catalogue.description import competitors, describe
from gym_reml import REGISTRATIONS

ROOT = Path(__file__).resolve().parents[2]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    command.main(arguments)
    return capsys.readouterr().out


def test_the_list_has_a_line_for_every_id(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == list(REGISTRATIONS)
    (build,) = [line for line in lines if line.startswith("NetBuild-v0 ")]
    assert "Build and train one small network" in build
    assert build.endswith("layer (of 9), step_size")


@pytest.mark.parametrize("env_id", REGISTRATIONS)
def test_a_description_is_that_of_the_environment(env_id: str) -> None:
    found = describe(env_id)
    spec = gym.spec(env_id)
    module, _, name = str(spec.entry_point).partition(":")
    kind = getattr(sys.modules[module], name)
    parameters = {key: value for key, value in inspect.signature(kind.__init__).parameters.items() if key != "self"}
    assert {one.name for one in found.arguments} == set(parameters)
    for one in found.arguments:
        default = spec.kwargs.get(one.name, parameters[one.name].default)
        assert eval(one.default) == default, one.name
        assert one.meaning
    env = gym.make(env_id)
    assert found.spaces == {"actions": str(env.action_space), "observations": str(env.observation_space)}
    assert (ROOT / found.page).is_file()
    assert set(found.siblings) == {
        other for other, row in REGISTRATIONS.items() if row.entry_point == spec.entry_point
    } - {env_id}


def test_competitors_are_those_of_the_benchmarks() -> None:
    assert competitors("BanditTrial-v0")["bandits"] == (
        "random",
        "thompson",
        "epsilon_greedy",
        "ucb1",
        "gittins",
        "rl2",
    )
    assert {"augment", "augment-fashion_mnist", "augment-glyphs", "augment-sign_digits"} == set(
        competitors("NetAugment-v0")
    )
    assert "reml" in competitors("NetBuildDiscrete-v0")["sinusoid"]
    assert competitors("NavigationTrial-v0") == {}


def test_info_shows_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "info", "NetTuneHybrid-v0")
    for part in (
        "decides: step_size",
        "Dict('step_size': Box(-1.0, 1.0, (1,), float32))",
        'gymnasium.make_vec("gym_reml:NetTuneHybrid-v0", num_envs=n)',
        "action='hybrid': ",
        "cosine_per_task",
        "other encodings: NetTune-v0",
        "page: docs/environments/net_tune.md",
    ):
        assert part in text
    with pytest.raises(
        SystemExit, match=r"^error: 'NetBuilt-v0': no environment of this package; choices: NetBuild-v0"
    ):
        command.main(["info", "NetBuilt-v0"])


def test_both_need_the_core_alone() -> None:
    extras = ("tyro", "rich", "stable_baselines3", "sb3_contrib", "matplotlib", "tqdm", "PIL")
    code = f"import sys; sys.modules.update(dict.fromkeys({extras!r})); from agents.command import main; "
    code += "main(['info', 'NetBuild-v0']); main(['list'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert "competitors: pip install 'gym-reml[agents]' shows them" in done.stdout
    assert "TabularTrial-v0" in done.stdout


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    script = tmp_path / "gym-reml.bash"
    with pytest.raises(SystemExit) as stop:
        command.main(["--tyro-write-completion", "bash", str(script)])
    assert not stop.value.code
    code = f"""source {script.as_posix()}
    try() {{ COMP_WORDS=("$@"); COMP_CWORD=$(( $# - 1 )); COMPREPLY=(); _tyro_gym_reml; echo "${{COMPREPLY[@]}}"; }}
    try gym-reml tr
    try gym-reml maml-p
    try gym-reml compare --lear
    try gym-reml train --algorithm S"""
    done = subprocess.run(["bash", "-c", code], capture_output=True, encoding="utf-8", check=True)
    assert done.stdout.splitlines() == ["train trial-pictures", "maml-plus-plus", "--learners", "SAC"]
