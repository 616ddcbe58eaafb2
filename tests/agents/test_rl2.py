"""RL²: its policy against the one it stands for, its settings, its training, and the tables of trials."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from sb3_contrib.common.recurrent.type_aliases import RNNStates

from agents import compare, rl2
from agents.compare import jobs_of
from agents.comparison.benchmarks import BENCHMARKS
from agents.comparison.entrants import ENTRANTS
from agents.comparison.rows import FIELDS, Row, read_rows
from agents.comparison.summarise import rows_of
from agents.comparison.trials import TrialBenchmark
from agents.runs.command_line import run_command
from agents.runs.run import Run
from agents.trials.baselines import baselines
from agents.trials.play import play
from agents.trials.rl2.buffer import TrialRolloutBuffer
from agents.trials.rl2.policy import TrialLstmPolicy
from agents.trials.rl2.recipes import ACTIONS, IDS, STATES, Rl2Recipe, Setting, TrialProblem, rl2_recipe_for
from agents.trials.rl2.training import Progress, TrainedAgent, train
from tests.support.command_line import stop_of

TINY = Rl2Recipe(320, n_envs=16, minibatch=8, epochs=1, lstm=8, heads=(8,))
"""Two rollouts of ten pulls."""
BANDIT = Setting.of("bandit")


# -- the policy -----------------------------------------------------------------------------------------------------


def make_policy(kind: type[RecurrentActorCriticPolicy], **arguments: Any) -> RecurrentActorCriticPolicy:
    space, actions = gym.spaces.Box(-np.inf, np.inf, (7,)), gym.spaces.Discrete(5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return kind(space, actions, lambda _: 1e-3, lstm_hidden_size=6, **arguments)


@pytest.mark.parametrize("starts", ["first", "none", "some", "middle"])
@pytest.mark.parametrize("layers", [1, 2])
def test_sequences_in_one_piece_are_what_the_base_class_computes(starts: str, layers: int) -> None:
    ours = make_policy(TrialLstmPolicy, n_lstm_layers=layers)
    theirs = make_policy(RecurrentActorCriticPolicy, n_lstm_layers=layers)
    theirs.load_state_dict(ours.state_dict())
    generator = torch.Generator().manual_seed(1)
    observations = torch.randn(3 * 4, 7, generator=generator)
    states = torch.randn(4, layers, 3, 6, generator=generator)
    flags = torch.zeros(3, 4)
    flags[:, 0] = torch.tensor({"none": [0.0, 0, 0], "some": [0.0, 1, 0]}.get(starts, [1.0, 1, 1]))
    flags[1, 2] = float(starts == "middle")
    outcomes = []
    for policy in (ours, theirs):
        both = (states[0], states[1]), (states[2], states[3])
        lstm_states = RNNStates(*both)
        actions = torch.arange(12) % 5
        values, log_prob, entropy = policy.evaluate_actions(observations, actions, lstm_states, flags.flatten())
        (values.sum() + log_prob.sum() + entropy.sum()).backward()
        gradients = [weight.grad for weight in policy.parameters() if weight.grad is not None]
        outcomes.append([values, log_prob, entropy, *gradients])
    for mine, expected in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, expected)


@pytest.mark.parametrize("observed", [(3,), (2, 2)], ids=str)
@pytest.mark.parametrize("batch_size", [7, 20, None])
def test_minibatches_are_those_of_the_base_class(
    batch_size: int | None, observed: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of trials of different lengths, cut by the edges of minibatches."""
    monkeypatch.setattr(np.random, "randint", lambda _: 17)  # where the base class begins
    steps, rows, hidden = 12, 5, 4
    base = RecurrentRolloutBuffer(
        steps, spaces.Box(-1.0, 1.0, observed), spaces.Discrete(3), (steps, 1, rows, hidden), "cpu", n_envs=rows
    )
    found = []
    for buffer in (base, TrialRolloutBuffer.like(base)):
        generator = np.random.default_rng(0)
        buffer.reset()
        for _ in range(steps):
            states = [torch.from_numpy(generator.normal(size=(1, rows, hidden))) for _ in range(4)]
            buffer.add(
                generator.normal(size=(rows, *observed)),
                generator.integers(3, size=(rows, 1)),
                generator.normal(size=rows),
                generator.random(rows) < 0.3,
                torch.from_numpy(generator.normal(size=(rows, 1))),
                torch.from_numpy(generator.normal(size=rows)),
                lstm_states=RNNStates((states[0], states[1]), (states[2], states[3])),
            )
        buffer.compute_returns_and_advantage(torch.zeros(rows), np.zeros(rows))
        found.append(list(buffer.get(batch_size)))
    for expected, mine in zip(*found, strict=True):
        for name, part in expected._asdict().items():
            one, other = part, getattr(mine, name)
            if name == "lstm_states":
                one, other = (torch.stack([*states.pi, *states.vf]) for states in (one, other))
            assert one.dtype == other.dtype
            assert torch.equal(one, other), name


def test_a_shared_memory_learns_from_both_losses() -> None:
    shared = {"shared_lstm": True, "enable_critic_lstm": False}
    observations, starts = torch.ones(8, 7), torch.zeros(8)
    states = torch.zeros(1, 2, 6)
    lstm_states = RNNStates((states, states), (states, states))
    outcomes, learned = [], []
    for kind in (TrialLstmPolicy, RecurrentActorCriticPolicy):
        policy = make_policy(kind, **shared)
        policy.load_state_dict(make_policy(RecurrentActorCriticPolicy, **shared).state_dict())
        outcome = policy.evaluate_actions(observations, torch.zeros(8), lstm_states, starts)
        outcomes.append(outcome)
        outcome[0].sum().backward()
        learned.append(policy.lstm_actor.bias_hh_l0.grad)
    for mine, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert learned[0] is not None
    assert learned[1] is None


def test_forget_gates_begin_as_they_are_told() -> None:
    policy = make_policy(TrialLstmPolicy, n_lstm_layers=2, forget_bias=3.0)
    for lstm in (policy.lstm_actor, policy.lstm_critic):
        assert lstm is not None
        for layer in range(2):
            bias = getattr(lstm, f"bias_hh_l{layer}").detach()
            assert (bias[6:12] == 3.0).all()
            assert (bias[:6].abs() < 1.0).all()
    assert make_policy(TrialLstmPolicy, shared_lstm=True, enable_critic_lstm=False).lstm_critic is None


# -- settings -------------------------------------------------------------------------------------------------------


def test_settings_fill_in_what_is_usual() -> None:
    assert Setting.of("bandit") == Setting("bandit", 10, 5)
    assert Setting.of("bandit", 100, 50).family == "bandit-50"
    assert Setting.of("tabular").arguments == {"episodes": 10}
    assert [Setting.of(env).length for env in ("bandit", "tabular", "navigation")] == [10, 100, 200]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("chess",), "env='chess'.*'bandit', 'tabular', 'navigation'"),
        (("tabular", None, 5), "arms=5"),
        (("bandit", 1), "episodes=1"),
        (("bandit", 10, 1), "arms=1"),
    ],
)
def test_settings_that_are_none(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Setting.of(*arguments)


@pytest.mark.parametrize("env", IDS)
def test_settings_are_those_of_the_environments(env: Any) -> None:
    setting = Setting.of(env)
    trial = gym.make(f"gym_reml:{setting.env_id}", **setting.arguments)
    observation, _ = trial.reset(seed=0)
    if env == "tabular":
        assert observation.shape == (STATES + ACTIONS + 2,)
    steps, ended = 0, False
    while not ended:
        # Points that stand still do not come upon their goal.
        *_, terminated, truncated, _ = trial.step(trial.action_space.sample() * 0)
        steps, ended = steps + 1, terminated or truncated
    assert steps == setting.length
    trial.close()


@pytest.mark.parametrize("setting", [Setting("bandit", 10, 5), Setting("bandit", 100, 50), Setting("tabular", 10)])
def test_rollouts_are_whole_minibatches(setting: Setting) -> None:
    recipe = rl2_recipe_for(setting)
    assert recipe.n_envs % recipe.minibatch == 0


# -- training -------------------------------------------------------------------------------------------------------


def weights(trained: TrainedAgent) -> list[float]:
    return torch.cat([weight.flatten() for weight in trained.agent.policy.parameters()]).tolist()


def new_run(folder: Path) -> Run:
    return Run.create(folder, rl2.Config(), "rl2")


def test_training_is_a_function_of_its_seed(tmp_path: Path) -> None:
    first, second, other = (
        train(new_run(tmp_path / name), BANDIT, TINY, seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert weights(first) == weights(second) != weights(other)
    assert first.steps == TINY.total_steps
    assert [steps for steps, _ in first.curve] == [160]
    assert 0.0 <= first.curve[0][1] <= 10.0
    again = train(Run(tmp_path / "a"), BANDIT, TINY, 1)
    assert (weights(again), again.seconds, again.curve) == (weights(first), first.seconds, first.curve)
    found = play(first.policy, BANDIT, 20)
    assert found.total.tolist() == play(again.policy, BANDIT, 20).total.tolist()


def test_an_interrupted_training_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path / "run")
    monkeypatch.setattr("agents.runs.progress.CHECKPOINTS", 10**9)
    monkeypatch.setattr("agents.runs.progress.LEAST", 1)
    with monkeypatch.context() as patch:
        on_rollout_start = Progress._on_rollout_start

        def crash(progress: Progress) -> None:
            on_rollout_start(progress)
            if progress.num_timesteps >= 320:
                raise KeyboardInterrupt

        patch.setattr(Progress, "_on_rollout_start", crash)
        with pytest.raises(KeyboardInterrupt):
            train(run, BANDIT, replace(TINY, total_steps=640), 0)
    found = run.latest_checkpoint()
    assert found is not None
    assert found[0] == 320
    kept = json.loads((found[1] / "progress.json").read_text(encoding="utf-8"))
    entropies = []
    with monkeypatch.context() as patch:

        def note(progress: Progress) -> None:
            on_rollout_start(progress)
            entropies.append(progress.model.ent_coef)  # type: ignore[attr-defined]

        patch.setattr(Progress, "_on_rollout_start", note)
        trained = train(Run(run.folder), BANDIT, replace(TINY, total_steps=640), 0)
    assert trained.steps == 640
    whole = train(new_run(tmp_path / "whole"), BANDIT, replace(TINY, total_steps=640), 0)
    assert weights(trained) == weights(whole)
    assert trained.curve == whole.curve
    assert trained.curve[: len(kept["curve"])] == [tuple(point) for point in kept["curve"]]
    assert trained.seconds > kept["seconds"]
    assert 0.0 < entropies[-1] < TINY.entropy / 2


def test_the_command_trains_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    arguments = ["--env", "bandit", "--total-steps", "1", "--evaluation-trials", "30", "--run", str(folder)]
    monkeypatch.setattr(sys, "argv", ["rl2", *arguments])
    run_command(rl2.main, rl2.Config)
    shown = capsys.readouterr().out
    for name in ("rl2", *baselines(BANDIT)):
        assert f"\n| {name} | " in shown
    table = shown[shown.index("| policy") : shown.rindex("|")]
    monkeypatch.setattr(sys, "argv", ["rl2", "--resume", str(folder)])
    run_command(rl2.main, rl2.Config)
    assert table in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--total-steps", "0"], "--total-steps 0"),
        (["--seed", "-1"], "--seed -1"),
        (["--evaluation-trials", "1"], "--evaluation-trials 1"),
        (["--env", "tabular", "--arms", "5"], "arms=5"),
        (["--resume", "nowhere"], "nowhere"),
    ],
)
def test_bad_arguments_end_in_a_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _ = stop_of("rl2", arguments, monkeypatch, capsys)
    assert str(code).startswith("error: ")
    assert message in str(code)


@pytest.mark.slow
def test_short_bandits_are_played_almost_as_well_as_can_be(tmp_path: Path) -> None:
    trained = train(new_run(tmp_path / "run"), BANDIT, rl2_recipe_for(BANDIT), 0)
    assert play(trained.policy, BANDIT, 2000).total.mean() > 6.4


# -- tables ---------------------------------------------------------------------------------------------------------

BUDGET: dict[str, Any] = {"tasks": 1, "evaluation_tasks": 20, "seeds": 2}


@pytest.fixture
def tiny_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, dict[str, Any]] = {
        "bandits": {"trained": (Setting("bandit", 10, 5), Setting("bandit", 12, 5))},
        "tabular": {"trained": (Setting("tabular", 2),), "untrained": (Setting("tabular", 3),)},
    }
    for name, changes in settings.items():
        monkeypatch.setitem(BENCHMARKS, name, replace(trials_of(name), **changes))
    monkeypatch.setattr("agents.comparison.entrants.rl2_recipe_for", lambda setting: TINY)


def trials_of(name: str) -> TrialBenchmark:
    benchmark = BENCHMARKS[name]
    assert isinstance(benchmark, TrialBenchmark)
    return benchmark


@pytest.mark.usefixtures("tiny_tables")
@pytest.mark.parametrize("table", ["bandits", "tabular"])
def test_a_small_comparison_makes_every_row_and_makes_it_once(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = compare.Config(table, run=tmp_path / "run", results=tmp_path / "results", **BUDGET)
    compare.main(config)
    path = tmp_path / "results" / f"{table}.json"
    rows = {(row["learner"], row["step"]): row for row in read_rows(path)}
    settings = trials_of(table).variants()
    trained = {("rl2", setting.episodes) for setting in trials_of(table).trained}
    assert rows.keys() == trained | {(name, setting.episodes) for setting in settings for name in baselines(setting)}
    for (learner, _), row in rows.items():
        assert tuple(row) == FIELDS
        assert (row["metric"], row["shots"], row["tasks"], row["diverged"]) == ("return", None, 20, None)
        assert row["family"] == ("bandit-5" if table == "bandits" else "tabular")
        assert row["seeds"] == (2 if learner in ("rl2", "random", "thompson", "epsilon_greedy", "psrl") else 1)
        assert (row["parameters"] > 0) == (row["meta_training_tasks"] > 0) == (learner == "rl2")
        seeds = " --seeds 2" if row["seeds"] == 2 else ""
        assert row["command"] == (
            f"python -m agents.compare --family {table} --learners {learner}{seeds} --tasks 1 --evaluation-tasks 20"
        )
    before = path.read_text(encoding="utf-8")
    capsys.readouterr()
    compare.main(config)
    assert "(0 of " in " ".join(capsys.readouterr().out.split())
    assert path.read_text(encoding="utf-8") == before


def test_the_tables_are_those_of_the_literature() -> None:
    bandits = jobs_of(compare.Config("bandits"))
    assert {(job.variant.episodes, job.variant.arms) for job in bandits if isinstance(job.variant, Setting)} == {
        (pulls, arms) for pulls in (10, 100) for arms in (5, 10, 50)
    }
    assert {job.learner for job in bandits} == {"rl2", "gittins", "ucb1", "thompson", "epsilon_greedy", "random"}
    tabular = jobs_of(compare.Config("tabular"))
    assert {job.learner for job in tabular} == {"rl2", "psrl", "beb", "greedy", "myopic", "random", "oracle"}
    lengths = [(job.learner, job.variant.episodes) for job in tabular if isinstance(job.variant, Setting)]
    assert {length for learner, length in lengths if learner == "rl2"} == {10}
    assert {length for _, length in lengths} == {10, 25, 50}
    assert len({job.folder for job in (*bandits, *tabular)}) == len(bandits) + len(tabular)


@pytest.mark.parametrize("table", ["bandits", "tabular"])
def test_every_setting_has_its_policies(table: str) -> None:
    for setting in trials_of(table).variants():
        assert set(baselines(setting)) == {name for name in ENTRANTS[table] if name != "rl2"}


def test_the_budget_of_rl2_is_a_number_of_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("agents.comparison.entrants.train", lambda run, setting, recipe, seed: asked.append(recipe))
    train_rl2 = ENTRANTS["tabular"]["rl2"].train
    train_rl2(TrialProblem(Setting("tabular", 10), 7, 0), tmp_path / "a")
    train_rl2(TrialProblem(Setting("tabular", 10), None, 0), tmp_path / "b")
    assert [recipe.total_steps for recipe in asked] == [700, 15_000_000]


def test_rows_hold_the_seeds_that_are_there(tmp_path: Path, tiny_tables: None) -> None:
    config = compare.Config("tabular", seeds=3, tasks=1, evaluation_tasks=5, run=tmp_path)
    compare.main(config)
    compare.main(replace(config, seeds=1))
    rows: list[Row] = read_rows(tmp_path / "tabular.json")
    assert {row["seeds"] for row in rows if row["learner"] in ("rl2", "psrl")} == {3}
    assert all("--seeds" not in row["command"] for row in rows), "three are the usual number"
    jobs = [job for job in jobs_of(config) if (job.learner, job.variant) == ("psrl", Setting("tabular", 2))]
    values = np.array([job.result("psrl", "tabular").values(2, "return").mean() for job in jobs])
    (found,) = [row for row in rows_of(jobs[0].finished_like_it()) if row["learner"] == "psrl"]
    assert found["mean"] == pytest.approx(values.mean())
    assert found["ci95_seeds"] == pytest.approx(4.302653 * values.std(ddof=1) / 3**0.5, rel=1e-6)
    work = {row["learner"]: (row["inner_gradients"], row["environment_steps"]) for row in rows}
    trained = work.pop("rl2")
    assert trained[0] == 0
    assert trained[1] > 0
    assert set(work.values()) == {(0, 0)}, "nothing was trained"


def test_trials_have_no_shots(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = stop_of("compare", ["--family", "bandits", "--shots", "5"], monkeypatch, capsys)
    assert code == "error: --shots 5: not for 'bandits', whose tasks are trials, which have no shots"
