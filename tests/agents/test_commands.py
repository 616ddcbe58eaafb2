"""The command line: every command explains itself, names of families and learners of one's own, and what is wrong."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3 import PPO

from agents import animate, benchmark, command, evaluate, train
from agents.command import COMMANDS
from agents.comparison import siblings
from agents.problems.families import FamilyChoice, family_of, named_family
from agents.problems.recipes import FUNCTIONS, IMAGES, POLICIES, Recipe, RecipeOptions, plain, recipe_for
from agents.reml.training import Reml
from agents.rivals import maml, maml_plus_plus
from agents.runs.command_line import program, run_command, spelled
from agents.runs.run import Run, commit, file_name, versions
from gym_reml import TRIALS, __version__
from gym_reml.evaluation import MetaLearner
from gym_reml.evaluation import evaluate as evaluate_learner
from gym_reml.sb3 import make_vec_env
from gym_reml.tasks import FAMILIES, TaskFamily
from tests.support.command_line import stop_of

ROOT = Path(__file__).resolve().parents[2]

OWN = """
from dataclasses import dataclass

import numpy as np
import torch

from gym_reml.tasks import from_arrays, from_function
from gym_reml.tasks.base import Batch, TaskFamily

def tanh(x, scale):
    return scale * np.tanh(x)

x = np.random.default_rng(0).normal(size=(40, 30, 3)).astype(np.float32)
tanhs = from_function(tanh, {"scale": (1.0, 3.0)}, shots=7)
held = from_function(tanh, {"scale": (1.0, 3.0)}, split="test")
signs = from_arrays(x, (x[..., 0] > 0).astype(int), shots=4, queries=10)
number = 3

def scaled(scale=1.0):
    return from_arrays(x, scale * x[..., :1], shots=4, queries=10)

def text():
    return "sinusoid"

@dataclass(frozen=True)
class Lines(TaskFamily):
    name = "my lines/1"
    slope: float = 1.0
    in_features = 1
    out_features = 1

    def draw(self, generators):
        return {"slope": np.array([self.slope * generator.uniform(-1.0, 1.0) for generator in generators])}

    def points(self, tasks, count, generators):
        x = np.stack([generator.uniform(-1.0, 1.0, (count, 1)) for generator in generators])
        y = tasks["slope"][:, None, None] * x
        return Batch(torch.from_numpy(x.astype(np.float32)), torch.from_numpy(y.astype(np.float32)))

    def support(self, tasks, forward, generators):
        return self.points(tasks, self.shots, generators)

    def query(self, tasks, forward, generators):
        return self.points(tasks, self.queries, generators)

    def loss(self, outputs, batch):
        return (outputs - batch.targets).abs().mean(dim=(1, 2))

    def metrics(self, outputs, batch, loss):
        return {"mae": loss}

class Nameless(Lines):
    name = None
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a module of the user's own; it is no part of Python's path."""
    (tmp_path / "my_module.py").write_text(OWN, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import not_there_at_all\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    return tmp_path


# -- the table, and --help --------------------------------------------------------------------------------------------


def test_the_table_names_every_command() -> None:
    folder = ROOT / "agents"
    sources = {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.py")}
    # Programs of libraries, which run in environments of their own, have no Config.
    starts = 'if __name__ == "__main__"'
    commands = [path for path, source in sources.items() if starts in source and re.search(r"\bConfig\b", source)]
    names = [".".join(path.relative_to(folder).with_suffix("").parts) for path in commands]
    assert sorted(names) == sorted(module for module, _ in COMMANDS.values())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/gym-reml"])
    with pytest.raises(SystemExit) as stop:
        command.main([spelled(name), "--help"])
    shown = capsys.readouterr().out
    assert stop.value.code == 0
    assert shown.startswith(f"usage: gym-reml {spelled(name)} ")
    assert "None" not in shown
    assert "(default: )" not in shown
    assert str(ROOT) not in shown.replace("\n", "")
    for option in fields(importlib.import_module(f"agents.{COMMANDS[name][0]}").Config):
        assert option.name in shown.replace("-", "_") or option.metadata, option.name


@pytest.mark.parametrize("family", FAMILIES)
def test_help_prints_what_the_family_implies(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of Omniglot too where its archives are not there."""
    monkeypatch.setenv("GYM_REML_DATA", str(tmp_path))
    recipe = recipe_for(FAMILIES[family])
    code, shown = stop_of("train", ["--family", family, "--help"], monkeypatch, capsys)
    words = " ".join(shown.replace("│", " ").split())
    assert code == 0
    for name, value in (RecipeOptions.of(recipe) | {"shots": recipe.shots}).items():
        said = words.partition(f" --{spelled(name)} ")[2].partition(" --")[0]
        assert f"(default: {'none' if value is None else value}, by the family {family})" in said, name


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("train", ["--rates", "none"], f"(default: {plain(FUNCTIONS).total_steps}, by"),
        ("maml", ["--family", "navigation"], f"(default: {POLICIES.tasks}, as many as REML draws"),
        ("compare", ["--family", "omniglot"], "(default: 1 and 5, by the benchmark omniglot)"),
        ("compare", ["--family", "all"], "(default: each benchmark's own)"),
        ("compare", ["--family", "bandits", "--quick"], "(default: 20)"),
        ("compare", ["--family", "tabular"], "(default: none, as tasks are trials)"),
        ("rl2", ["--env", "navigation"], "(default: 2, for navigation)"),
        ("rl2", ["--episodes", "100"], "(default: 12000000, for bandit-5, 100 episodes a trial)"),
    ],
)
def test_help_follows_the_other_options(
    name: str,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, shown = stop_of(name, [*arguments, "--help"], monkeypatch, capsys)
    assert code == 0
    assert said in " ".join(shown.replace("│", " ").split())


def test_help_of_an_own_family(own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    _, shown = stop_of("train", ["--family", "my_module:tanhs", "--help"], monkeypatch, capsys)
    assert "7, by the family my_module:tanhs)" in " ".join(shown.replace("│", " ").split())


# -- the door ---------------------------------------------------------------------------------------------------------


def test_the_door_lists_commands_and_knows_no_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command.main(["--help"])
    shown = capsys.readouterr().out
    for name, (_, purpose) in COMMANDS.items():
        assert any(line.split()[:1] == [spelled(name)] and line.endswith(purpose) for line in shown.splitlines())
    command.main(["--version"])
    assert capsys.readouterr().out == f"{__version__}\n"
    with pytest.raises(SystemExit, match="'trian' is no command; choices: list, info, train, evaluate"):
        command.main(["trian"])
    with pytest.raises(SystemExit, match="commands:"):
        command.main([])


@pytest.mark.parametrize(
    ("started", "said"),
    [
        ("/x/bin/gym-reml", "gym-reml meta-sgd"),
        (r"gym-reml.exe", "gym-reml meta-sgd"),
        ("/x/gym_reml/__main__.py", "python -m gym_reml meta-sgd"),
        ("/x/agents/rivals/meta_sgd.py", "python -m agents.rivals.meta_sgd"),
        ("/x/pytest/__main__.py", "python -m agents.rivals.meta_sgd"),
    ],
)
def test_messages_name_a_command_that_works_here(started: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [started])
    assert program("rivals.meta_sgd") == said


def test_the_door_opens_from_anywhere(tmp_path: Path) -> None:
    """And it takes the commands beside the package, not other people's `agents`."""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("raise SystemExit('the wrong ones')\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "gym_reml", "average", "--help"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout.startswith("usage: python -m gym_reml average")


@pytest.mark.parametrize("missing", ["tyro", "stable_baselines3"])
def test_a_missing_extra_is_named(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['gym-reml', 'train']; "
    code += "from gym_reml.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 1
    assert done.stderr == f"error: train needs {missing}: pip install 'gym-reml[agents]'\n"


# -- families of one's own --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments", "shots", "features"),
    [
        ("my_module:tanhs", "{}", 7, 1),
        ("my_module:signs", "{}", 4, 3),
        ("my_module:scaled", '{"scale": 2.0}', 4, 3),
        ("my_module:Lines", '{"slope": 2.0}', 5, 1),
    ],
)
def test_own_families_are_found_and_keep_their_shots(
    own: Path, name: str, arguments: str, shots: int, features: int
) -> None:
    family = family_of(FamilyChoice(name, arguments))
    assert (family.shots, family.in_features, family.split) == (shots, features, "train")
    assert family_of(FamilyChoice(name, arguments, 3)).shots == 3


def test_own_families_train_on_training_tasks(own: Path) -> None:
    assert named_family("my_module:held", {}).split == "train"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nowhere:x", "{}", "no module 'nowhere', neither in"),
        ("my_module.sub:x", "{}", "no module 'my_module.sub'"),
        ("broken:x", "{}", "broken needs a module that is missing .*not_there_at_all"),
        ("my_module:nothing", "{}", "my_module has no 'nothing'; families there: tanhs, held, signs, Lines"),
        ("my_module:number", "{}", "3 is no TaskFamily"),
        ("my_module:TaskFamily", "{}", "is no TaskFamily, and nothing that makes one"),
        ("my_module:text", "{}", "'sinusoid' is no TaskFamily"),
        ("my_module:Nameless", "{}", "Nameless lacks the class attribute `name`"),
        ("my_module:scaled", '{"size": 2}', "does not take --family-kwargs .*'size'"),
        ("my_module:tanhs", '{"size": 2}', "takes no 'size'"),
        ("my_module:", "{}", "must be MODULE:NAME"),
        (":tanhs", "{}", "must be MODULE:NAME"),
        ("my module:tanhs", "{}", "must be MODULE:NAME"),
        ("sinusoids", "{}", "'sinusoids'"),
    ],
)
@pytest.mark.parametrize("module", ["train", "maml", "maml_rl"])
def test_what_is_wrong_with_a_family_is_named(
    own: Path,
    module: str,
    name: str,
    arguments: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    code, shown = stop_of(module, ["--family", name, "--family-kwargs", arguments], monkeypatch, capsys)
    said = " ".join(f"{code} {shown}".replace("│", " ").split())
    assert re.search(message, said), said
    assert not list(own.glob("runs/*"))


def test_policies_are_asked_for_where_only_they_serve(
    own: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = stop_of("maml_rl", ["--family", "my_module:tanhs"], monkeypatch, capsys)
    assert code == "error: --family my_module:tanhs: must be a family of policies (a PolicyFamily)"


def test_recipes_of_own_families_show_what_they_report(own: Path) -> None:
    for name, metric, kind in (("tanhs", "mse", FUNCTIONS), ("signs", "accuracy", IMAGES), ("Lines", "mae", FUNCTIONS)):
        assert recipe_for(named_family(f"my_module:{name}", {})) == replace(kind, metric=metric)


@pytest.mark.parametrize("rival", [maml, maml_plus_plus])
@pytest.mark.parametrize("name", ["scaled", "signs", "Lines"])
def test_rivals_train_on_own_families(own: Path, rival: Any, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    rival.main(rival.Config(family=f"my_module:{name}", tasks=64, evaluation_tasks=2))
    assert "| 5 steps" in capsys.readouterr().out


@pytest.fixture
def quick_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """The learner alone in tables: its controls take their time."""

    def alone(learner: MetaLearner, family: TaskFamily, tasks: int, seed: int, **_: Any) -> list[Any]:
        return [evaluate_learner(learner, family, steps=(0, 1, 5, 10), tasks=tasks, seed=seed)]

    for module in (train, evaluate):
        monkeypatch.setattr(module, "compare_with_controls", alone)


def test_an_own_family_from_training_to_its_picture(own: Path, quick_report: None) -> None:
    folder = Path("run")
    train.main(
        train.Config(
            family="my_module:Lines",
            family_kwargs='{"slope": 2.0}',
            bootstrap_iterations=2,
            total_steps=320,
            n_envs=16,
            evaluation_tasks=4,
            run=folder,
        )
    )
    assert "mae" in (folder / "results" / "table.md").read_text(encoding="utf-8")
    evaluate.main(evaluate.Config(folder, tasks=4))
    evaluate.main(evaluate.Config(folder, family_kwargs='{"slope": 3.0}', tasks=4, out=Path("there")))
    assert [path.name for path in (folder / "evaluations").iterdir()] == ["my-lines-1-5-shot"]
    assert json.loads(Path("there/reml.json").read_text(encoding="utf-8"))["arguments"]["slope"] == 3.0
    animate.main(animate.Config(folder, episodes=1))
    assert (folder / "episode.gif").is_file()


@pytest.mark.parametrize("given", [["subprocess:check_output"], ["sender:make"], ["my_module:system"]])
@pytest.mark.parametrize("name", ["train", "evaluate", "animate", "average"])
def test_what_a_run_names_is_not_run_unless_it_is_the_users(
    name: str,
    given: list[str],
    own: Path,
    learner: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """config.json names MODULE:FAMILY and its arguments: from a stranger, any function and any call."""
    mark, run = own / "was_here", own / "run"
    Path("my_module.py").write_text("from os import system\n" + OWN, encoding="utf-8")
    words = {
        "subprocess:check_output": {"args": ["touch", str(mark)]},
        "my_module:system": {"command": f"touch {mark}"},
    }
    Run.create(run, train.Config(family=given[0], family_kwargs=json.dumps(words.get(given[0], {}))), "x")
    (run / "sender.py").write_text(f"open({str(mark)!r}, 'w')\ndef make():\n    pass\n", encoding="utf-8")
    shutil.copytree(learner, run / "learner")
    if given[0].startswith("sender"):
        monkeypatch.chdir(run)
    arguments = ["--resume", str(run)] if name == "train" else [str(run)]
    code, shown = stop_of(name, arguments, monkeypatch, capsys)
    assert f"names code, {given[0]}, which does not lie in the working directory" in f"{code} {shown}"
    assert not mark.exists()


def test_a_family_that_the_user_names_himself_is_his(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (own / "elsewhere").mkdir()
    Run.create(own / "run", train.Config(family="my_module:tanhs"), "x")
    choice = evaluate.LearnerChoice(own / "run")
    assert choice.chosen_family().name == "formula"
    monkeypatch.chdir(own / "elsewhere")
    with pytest.raises(ValueError, match="say so by --family my_module:tanhs"):
        choice.chosen_family()
    assert replace(choice, family="my_module:tanhs").chosen_family().shots == 7


# -- saved learners ---------------------------------------------------------------------------------------------------


@pytest.fixture
def learner(tmp_path: Path) -> Path:
    """A learner that no command has made, saved somewhere."""
    env = make_vec_env("NetBuildMultiDiscrete-v0", n_envs=2)
    agent = PPO("MlpPolicy", env, n_steps=4, batch_size=8, device="cpu")
    folder = tmp_path / "somewhere"
    MetaLearner("mine", agent, env.get_attr("pool")[0], {"action": "multidiscrete"}, algorithm="PPO").save(folder)
    return folder


def test_evaluate_and_animate_take_a_learners_folder(learner: Path, quick_report: None) -> None:
    evaluate.main(evaluate.Config(learner, family="linear", shots=3, tasks=4))
    assert (learner / "evaluations" / "linear-3-shot" / "table.md").is_file()
    animate.main(animate.Config(learner, family="linear", episodes=1))
    assert (learner / "episode.gif").is_file()


def test_evaluate_and_animate_take_a_learner_of_the_package(
    tmp_path: Path, quick_report: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they write into the working directory does not hide it."""
    monkeypatch.chdir(tmp_path)
    name = Path("sinusoid/meta_sgd")
    evaluate.main(evaluate.Config(name, tasks=4))
    evaluate.main(evaluate.Config(name, family="linear", shots=7, tasks=4))
    folders = [path.name for path in (name / "evaluations").iterdir()]
    assert sorted(folders) == ["linear-7-shot", "sinusoid-5-shot"]
    animate.main(animate.Config(name, episodes=1))
    assert (name / "episode.gif").is_file()
    with pytest.raises(FileNotFoundError, match=r"no learner of the package \(sinusoid/maml, sinusoid/meta_sgd, "):
        evaluate.Config(Path("sinusoid/mamml")).learner()


def test_a_learner_in_its_run_knows_what_it_was_trained_on(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", train.Config(family="step", shots=9), "x")
    family = evaluate.LearnerChoice(run.folder / "learner").chosen_family()
    assert (family.name, family.shots) == ("step", 9)


@pytest.mark.parametrize("module", ["evaluate", "animate"])
def test_what_is_wrong_with_a_learners_folder_is_named(
    module: str, learner: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Run.create(tmp_path / "begun", train.Config(), "x")
    (tmp_path / "empty").mkdir()
    for arguments, message in {
        (str(learner),): f"--family: must be given, as {learner} does not tell",
        (str(learner), "--family", "omniglots"): "'omniglots': must be one of",
        (str(tmp_path / "nowhere"), "--family", "linear"): "nowhere: no such folder",
        (str(tmp_path / "empty"), "--family", "linear"): "empty",
        (str(tmp_path / "begun"),): "begun: has no learner yet; finish the run by --resume",
    }.items():
        code, shown = stop_of(module, list(arguments), monkeypatch, capsys)
        assert message in " ".join(f"{code} {shown}".replace("│", " ").split())


# -- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [FUNCTIONS, IMAGES, POLICIES], ids=lambda recipe: recipe.metric)
def test_a_recipes_own_options_change_nothing(recipe: Recipe) -> None:
    assert RecipeOptions(**RecipeOptions.of(recipe)).applied(recipe) == recipe


@pytest.mark.parametrize("recipe", [FUNCTIONS, plain(FUNCTIONS), IMAGES, POLICIES])
def test_the_clip_is_an_option(recipe: Recipe) -> None:
    without = RecipeOptions(clip="none").applied(recipe)
    assert without == replace(recipe, clip=None)
    assert RecipeOptions.of(without)["clip"] == "none"
    assert without.arguments("box")["clip"] is None
    assert RecipeOptions(clip=3.0).applied(recipe).clip == 3.0


def test_the_optimizer_is_an_option() -> None:
    changed = RecipeOptions(optimizer="adam").applied(FUNCTIONS)
    assert changed == replace(FUNCTIONS, optimizer="adam")
    assert changed.arguments("box")["optimizer"] == "adam"


def test_options_without_rates_are_those_of_the_plain_recipe() -> None:
    changed = RecipeOptions(rates="none").applied(FUNCTIONS)
    assert changed == plain(FUNCTIONS)
    assert changed.bootstrap == "competition"
    assert RecipeOptions(**RecipeOptions.of(changed)).applied(FUNCTIONS) == changed
    assert RecipeOptions(rates="weight").applied(FUNCTIONS) == replace(FUNCTIONS, rates="weight")
    assert RecipeOptions(rates="tensor", initial_rate=0.1).applied(IMAGES).initial_rate == 0.1


@pytest.mark.parametrize(("horizon", "weights"), [(1, (0.4,)), (3, (0.3, 0.1, 0.4)), (7, (0.3, *(0.1,) * 5, 0.4))])
def test_another_horizon_keeps_the_weights_of_first_and_last_steps(horizon: int, weights: tuple[float, ...]) -> None:
    assert RecipeOptions(horizon=horizon).applied(plain(FUNCTIONS)).step_weights == weights
    for recipe in (IMAGES, POLICIES):
        assert any(RecipeOptions(horizon=horizon).applied(recipe).step_weights)


@pytest.mark.parametrize(
    ("recipe", "options", "message"),
    [
        *((FUNCTIONS, {name: 0}, f"--{spelled(name)} 0: must be at least 1") for name in ("depth", "width", "layers")),
        *((FUNCTIONS, {name: 0}, f"--{spelled(name)} 0: must be at least 1") for name in ("horizon", "n_envs")),
        (FUNCTIONS, {"total_steps": -5}, "--total-steps -5: must be at least 1"),
        (FUNCTIONS, {"bootstrap_iterations": 0}, "--bootstrap-iterations 0"),
        (FUNCTIONS, {"agent_learning_rate": 0.0}, "--agent-learning-rate 0.0: must be a positive number"),
        (FUNCTIONS, {"pool_learning_rate": float("nan")}, "--pool-learning-rate nan"),
        (FUNCTIONS, {"bootstrap_learning_rate": -1.0}, "--bootstrap-learning-rate -1.0"),
        (IMAGES, {"initial_rate": float("inf")}, "--initial-rate inf"),
        (FUNCTIONS, {"clip": 0.0}, "--clip 0.0: must be none or a positive number"),
        (POLICIES, {"clip": float("inf")}, "--clip inf: must be none or a positive number"),
        (plain(FUNCTIONS), {"initial_rate": 0.1}, "--initial-rate 0.1: there are no learned step sizes; use --rates"),
        (FUNCTIONS, {"routing_share": 1.5}, "--routing-share 1.5: must be from 0 to 1"),
        (plain(FUNCTIONS), {"settled_share": 0.9}, "--settled-share 0.9: together more than 1"),
        (IMAGES, {"depth": 1}, "--depth 1: must be at least 2"),
        (IMAGES, {"layers": 1}, "--layers 1: must be at least 2"),
        (IMAGES, {"rates": "none"}, "--rates none: the bootstrap of such families needs 'step'"),
        (POLICIES, {"rates": "weight"}, "--rates weight: the bootstrap of such families needs 'step'"),
        (POLICIES, {"layers": 3}, "--layers 3: these networks are whole from the start; use --depth"),
    ],
)
def test_settings_that_make_no_sense_are_named(recipe: Recipe, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecipeOptions(**options).applied(recipe)


def test_a_learning_rate_that_nothing_takes_is_refused() -> None:
    config = train.Config(algorithm="ARS", agent_learning_rate=0.1)
    with pytest.raises(ValueError, match=r"--agent-learning-rate 0\.1: ARS takes none"):
        train.problem_of(config)


@pytest.mark.parametrize(
    "given",
    [
        {"depth": 3, "width": 16, "layers": 4, "layer_kind": "tanh", "horizon": 3},
        {"rates": "scalar", "initial_rate": 0.02, "width": 16},
        {"family": "navigation", "depth": 2, "width": 16, "horizon": 2},
    ],
    ids=lambda given: "-".join(given),
)
def test_settings_reach_the_training(given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agents.pools.bootstraps.CLUSTERING_TASKS", 32)
    config = train.Config(
        **given, bootstrap_iterations=2, total_steps=160, n_envs=8, agent_learning_rate=0.25, pool_learning_rate=0.125
    )
    problem = train.problem_of(config)
    learner = Reml(Run.create(tmp_path / "run", config, "x"), problem).train()
    pool, arguments = learner.pool, learner.arguments
    found = {
        "depth": arguments["depth"],
        "horizon": arguments["horizon"],
        "width": pool.width,
        "layers": pool.layers,
        "layer_kind": pool.kind,
        "rates": pool.granularity,
        "family": problem.family.name,
    }
    assert {name: found[name] for name in given if name in found} == {
        name: value for name, value in given.items() if name in found
    }
    used = train.settings_used(config, problem)
    assert used["algorithm"]["learning_rate"] == 0.25
    assert used["learn_kwargs"]["learning_rate"] == 0.125


# -- config.json ------------------------------------------------------------------------------------------------------


def test_config_json_records_what_was_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_report: None) -> None:
    folder = tmp_path / "run"
    budget: dict[str, Any] = {"bootstrap_iterations": 1, "total_steps": 160, "n_envs": 8, "width": 24}
    train.main(train.Config(**budget, evaluation_tasks=2, run=folder))
    content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert (content["width"], content["depth"], content["shots"], content["rates"]) == (24, 2, 5, "weight_step")
    assert set(content["versions"]) == {
        *("python", "gym_reml", "torch", "numpy", "gymnasium", "stable_baselines3", "sb3_contrib")
    }
    assert all(content["versions"].values())
    assert content["commit"] == commit()
    used = content["settings"]
    assert set(used["recipe"]) == {field.name for field in fields(Recipe)}
    assert used["recipe"]["width"] == 24
    assert used["family"]["amplitude"] == [0.1, 5.0]
    assert used["environment"]["horizon"] == 5
    assert used["algorithm"]["batch_size"] == used["algorithm"]["n_steps"] * 8 // 4
    run = Run(folder)
    assert set(run.config) == {option.name for option in fields(train.Config)}
    assert set(run.about) == {"settings", "versions", "commit"}
    assert train.problem_of(train.config_of(run)).recipe == replace(FUNCTIONS, **budget)


def test_a_run_of_another_command_is_told_apart(tmp_path: Path) -> None:
    rl2 = importlib.import_module("agents.rl2")
    Run.create(tmp_path / "rl2", rl2.Config(), "x")
    with pytest.raises(ValueError, match="a run of another command"):
        train.config_of(Run(tmp_path / "rl2"))


def test_the_commit_is_that_of_this_code_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=tmp_path, capture_output=True, encoding="utf-8", check=True)
        return done.stdout.strip()

    author = ("-c", "user.name=x", "-c", "user.email=x")
    code = tmp_path / "agents" / "runs" / "run.py"
    installed = tmp_path / ".venv" / "site-packages" / "gym_reml_agents" / "runs" / "run.py"
    for path in (code, installed):
        path.parent.mkdir(parents=True)
        path.write_text("", encoding="utf-8")
    monkeypatch.setattr("agents.runs.run.__file__", str(code))
    assert commit() is None
    git("init", "-q")
    git("add", "agents")
    git(*author, "commit", "-qm", "x")
    assert commit() == git("rev-parse", "HEAD")
    code.write_text("changed", encoding="utf-8")
    assert commit() == f"{git('rev-parse', 'HEAD')}-dirty"
    monkeypatch.setattr("agents.runs.run.__file__", str(installed))
    assert commit() is None


def test_versions_and_names_of_files() -> None:
    assert versions()["numpy"] == np.__version__
    assert file_name("my lines/1:PPO") == "my lines-1-PPO"


def test_bad_input_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: train.Config) -> None:
        raise ValueError("no")

    monkeypatch.setattr(sys, "argv", ["train"])
    with pytest.raises(SystemExit, match=r"^error: no$"):
        run_command(refuse, train.Config, ["--seed", "1"])


def test_the_benchmark_has_a_table_for_networks_and_one_for_trials(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark.main(benchmark.Config(seconds=0.001, rounds=1, rows=(1, 2), trial_rows=2))
    shown = capsys.readouterr().out
    assert shown.count("| plain PyTorch loop | ") == len(benchmark.SIZES) + 1
    assert all(f"\n| {title} | " in shown for title in benchmark.META_GRADIENTS)
    assert shown.count("| n = 2 | ") == len(benchmark.SIZES) + 1
    assert "Trials, n = 2\n\n|  | steps/s | SyncVectorEnv, steps/s | ratio |\n|---|---|---|---|\n" in shown
    assert all(f"\n| `{env_id}` | " in shown for env_id in TRIALS)


def test_the_benchmark_measures_a_device(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "MATRIX", 32)
    benchmark.main(benchmark.Config(seconds=0.001, rounds=1, device="cpu", device_rows=(2, 4)))
    title, _, table = capsys.readouterr().out.strip().partition("\n\n")
    rate = r"[\d,]+ GFLOP/s in products of 32 x 32"
    assert re.fullmatch(rf"Default environment on cpu, threads: 1, torch \S+, {rate}", title)
    _, _, loop, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert loop[::3] == ["plain PyTorch loop, cpu", "1.0"]
    assert [row[0] for row in rows] == ["n = 2", "n = 4"]
    assert all(float(cell.strip("%").replace(",", "")) > 0.0 for row in rows for cell in row[1:])
    with pytest.raises(ValueError, match="device='meta': not available here"):
        benchmark.main(benchmark.Config(device="meta"))


def test_train_takes_every_environment_whose_agent_decides_how_networks_are_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--env", "NetLoss-v0", "--tasks=64", "--evaluation-tasks=4", "--competitors", "cross_entropy"]
    run_command(train.main, train.options(arguments), [*arguments, "--run", str(tmp_path / "run")])
    table = capsys.readouterr().out.partition("| learner")[2].partition("table, ")[0]
    assert all(f"| {name} " in table for name in ("ppo", "cross_entropy"))
    results = tmp_path / "run" / "results"
    assert {path.name for path in results.iterdir()} == {"table.md", "means.png", "decisions.png", "decisions.json"}
    decided = json.loads((results / "decisions.json").read_text(encoding="utf-8"))
    assert set(decided) == {"logit_adjustment", "focal", "smoothing", "trust"}
    assert np.shape(decided["focal"]) == (20, 4)
    arguments = ["--resume", str(tmp_path / "run")]
    run_command(train.main, train.options(arguments), arguments)
    assert table in capsys.readouterr().out, "nothing is trained again"


def test_the_agent_at_the_dials_is_trained_by_the_algorithm_that_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--env", "NetLoss-v0", "--algorithm", "reinforce", "--tasks=32", "--evaluation-tasks=4"]
    arguments += ["--competitors", "cross_entropy", "--run", str(tmp_path / "run")]
    run_command(train.main, train.options(arguments), arguments)
    table = capsys.readouterr().out.partition("| learner")[2]
    assert all(f"| {name} " in table for name in ("reinforce", "cross_entropy"))
    assert (tmp_path / "run" / "results" / "decisions.json").is_file()
    everyone = [job.learner for job in siblings.Config(env="NetLoss-v0", algorithm="reinforce").jobs(tmp_path)]
    assert everyone == ["reinforce", "cross_entropy", "fixed_loss", "ppo_phi", "fixed_loss_per_kind"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "NetTune-v0", "--family", "moons"], "--family moons: not for NetTune-v0; choices: clusters"),
        (
            ["--env", "NetLoss-v0", "--family", "digits"],
            "--family digits: not for NetLoss-v0; choices: clusters, fashion_mnist, loss-retrieval",
        ),
        (
            ["--env", "NetLoss-v0", "--family", "loss-retrieval", "--competitors", "ppo_phi"],
            "--competitors ppo_phi: choices: cross_entropy, fixed_loss, ppo, reinforce, fixed_loss_per_kind",
        ),
        (["--env", "NetLoss-v0", "--competitors", "cosine"], "--competitors cosine: choices: cross_entropy, "),
        (["--env", "NetRule-v0", "--tasks", "0"], "--tasks 0: must be at least 1"),
    ],
)
def test_what_is_wrong_with_training_at_the_dials_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"^error: {re.escape(message)}"):
        run_command(train.main, train.options(arguments), arguments)
