"""Schedules and agents at the dials of training, and their comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents.comparison import tuning as benchmark
from agents.comparison.entrants import ENTRANTS
from agents.comparison.jobs import Job
from agents.comparison.summarise import rows_of
from agents.tuning import augmentations, rules, training
from agents.tuning.augmentations import (
    rand_augment,
    random_policies,
    sampled,
    scores,
    train_children,
    trivial_augment,
)
from agents.tuning.fixed_losses import FixedLoss, best_loss, best_per_kind, cross_entropy, settings
from agents.tuning.recipes import AUGMENT_RECIPES, RECIPES, RULE_RECIPES
from agents.tuning.reinforce import ReinforceRecipe
from agents.tuning.rules import FixedRule, known_rule, random_rules, search, tune
from agents.tuning.schedules import SHAPES, Schedule, best_fixed, rates, try_all, tuned_per_task
from agents.tuning.setting import AugmentSetting, LossSetting, RuleSetting, RunSetting, TuningSetting, play
from agents.tuning.training import Recipe, TuningRecipe, train
from gym_reml.decisions.augmentations import NAMES, AugmentationPolicy, Step
from gym_reml.decisions.update_rules import OPERANDS, RULES, UNARIES, Rule
from gym_reml.files import save_atomically

QUICK = TuningSetting(horizon=3, updates=2)
QUICK_AUGMENT = AugmentSetting(horizon=4, updates=2)
QUICK_LOSS = LossSetting(horizon=3, updates=2)
QUICK_RETRIEVAL = LossSetting(horizon=3, updates=2, losses=("classification", "triplet", "trust"), metric="recall_at_2")
QUICK_RULE = RuleSetting(updates=3)
RECIPE = TuningRecipe(total_steps=12, n_envs=4, batch_size=6, epochs=1)
SMALL_RECIPES: dict[str, Recipe] = {"ppo": RECIPE, "reinforce": ReinforceRecipe(total_steps=12, n_envs=4)}

pytestmark = pytest.mark.usefixtures("few_tries")


def test_schedules_are_those_of_torch() -> None:
    def course(make: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.2)
        scheduler, found = make(optimizer), []
        for _ in range(8):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            scheduler.step()
        return found

    time = np.arange(8) / 8
    expected = {
        "constant": course(lambda optimizer: torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)),
        "cosine": course(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)),
        "step_decay": course(lambda optimizer: torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 6])),
    }
    assert set(expected) == set(SHAPES)
    for name, shape in SHAPES.items():
        np.testing.assert_allclose(0.2 * shape(time), expected[name])


def test_a_schedule_is_a_policy_that_knows_the_time_only() -> None:
    from gymnasium import make_vec

    envs: Any = make_vec("NetTune-v0", 3, **QUICK.arguments("train"))
    observation, _ = envs.reset(seed=0)
    found = []
    for _ in range(3):
        action, _ = Schedule(QUICK, "cosine", 0.5).predict(observation)
        observation, _, _, _, info = envs.step(action)
        found.append(info["step_size"])
    np.testing.assert_allclose(found, np.repeat([[0.5], [0.375], [0.125]], 3, axis=1), rtol=1e-5)


def test_the_best_rate_is_found_on_validation_tasks(tmp_path: Path) -> None:
    schedule = best_fixed(QUICK, "constant", tmp_path)
    tried = json.loads((tmp_path / "tried.json").read_text(encoding="utf-8"))
    assert list(tried) == [f"{rate:.3g}" for rate in rates(QUICK)] == ["0.0001", "0.001", "0.01", "0.1", "1", "10"]
    assert tried[f"{schedule.rate:.3g}"] == max(tried.values())
    assert play(schedule, QUICK, 4, "validation").validation.mean() == pytest.approx(max(tried.values()))


def test_rates_tuned_per_task_are_the_best_of_each() -> None:
    every = try_all(QUICK, "cosine", 5, "test")
    found = tuned_per_task(QUICK, "cosine", 5)
    np.testing.assert_array_equal(found.validation, np.max([played.validation for played in every], axis=0))
    for task in range(5):
        pairs = {(played.validation[task], played.test[task]) for played in every}
        assert (found.validation[task], found.test[task]) in pairs


def test_an_agent_is_trained_once_and_then_read(tmp_path: Path) -> None:
    agent = train(QUICK, RECIPE, seed=0, folder=tmp_path)
    again = train(QUICK, RECIPE, seed=0, folder=tmp_path)
    assert (again.steps, again.seconds, again.parameters) == (agent.steps, agent.seconds, agent.parameters)
    assert agent.steps == 12
    np.testing.assert_array_equal(play(agent.policy, QUICK, 4).test, play(again.policy, QUICK, 4).test)
    save_atomically({"format": "another"}, tmp_path / "agent.pt")
    with pytest.raises(ValueError, match="not an agent this version reads"):
        train(QUICK, RECIPE, seed=0, folder=tmp_path)


def test_a_fixed_loss_goes_to_its_values_and_stays_there() -> None:
    from gymnasium import make_vec

    assert cross_entropy(QUICK_LOSS).values == (0.0, 0.0, 0.0, 0.0)
    envs: Any = make_vec("NetLoss-v0", 2, updates=1)
    observation, _ = envs.reset(seed=0)
    policy = FixedLoss(QUICK_LOSS, (0.6, 1.0, 0.05, 0.0))
    assert QUICK_LOSS.losses == envs.unwrapped.tuning.decision.names == tuple(policy.notes)
    for expected in ([0.25, 0.5, 0.05, 0.0], [0.5, 1.0, 0.05, 0.0], [0.6, 1.0, 0.05, 0.0], [0.6, 1.0, 0.05, 0.0]):
        observation, _, _, _, info = envs.step(policy.predict(observation)[0])
        np.testing.assert_allclose([info[name][1] for name in policy.notes], expected, atol=1e-5)


def test_losses_are_chosen_on_validation_tasks(tmp_path: Path) -> None:
    best = best_loss(QUICK_LOSS, tmp_path)
    tried = json.loads((tmp_path / "tried.json").read_text(encoding="utf-8"))
    assert list(tried) == ["0.0, 0.0, 0.0, 0.0", "0.0, 0.0, 0.0, 0.5"]
    assert tried[", ".join(map(str, best.values))] == max(tried.values())
    found = best_per_kind(QUICK_LOSS, 5)
    every = [play(fixed, QUICK_LOSS, 5) for fixed in settings(QUICK_LOSS)]
    for task in range(5):
        assert found.test[task] in {played.test[task] for played in every}


def test_the_grid_is_of_the_losses_that_are_decided() -> None:
    assert cross_entropy(QUICK_RETRIEVAL).values == (1.0, 0.0, 0.0)
    assert [fixed.values for fixed in settings(QUICK_RETRIEVAL)] == [(1.0, 0.0, 0.0), (1.0, 0.0, 0.5)]


def test_the_metric_is_that_of_the_setting() -> None:
    assert (TuningSetting().measured, LossSetting().measured) == ("accuracy", "balanced_accuracy")
    assert LossSetting().folder == "clusters-20-momentum-15", "as before there were other metrics"
    assert QUICK_RETRIEVAL.folder == "clusters-3-momentum-2-recall_at_2"
    envs: Any = gym.make_vec("NetLoss-v0", num_envs=2, **QUICK_RETRIEVAL.arguments("validation"))
    _, info = envs.reset(seed=0)
    assert "validation_recall_at_2" in info


def test_policies_write_rules() -> None:
    from gymnasium import make_vec

    envs: Any = make_vec("NetRule-v0", 40, updates=1)
    observation, _ = envs.reset(seed=0)
    fixed, random = FixedRule(QUICK_RULE, RULES["addsign"]), random_rules(QUICK_RULE, 0)
    for step in range(3):
        np.testing.assert_array_equal(fixed.predict(observation)[0], [RULES["addsign"].choices(3)[step]] * 40)
        action, _ = random.predict(observation)
        assert (action[:, :2].max(), action[:, 2:].max()) == (len(OPERANDS) + step - 1, len(UNARIES) - 1)
        observation, *_ = envs.step(action)


def test_the_rate_of_a_rule_is_the_best_on_validation_tasks() -> None:
    rate, accuracy = tune(RULES["adam"], QUICK_RULE)
    found = []
    for one in rules.RATES:
        envs: Any = gym.make("NetRule-v0", **replace(QUICK_RULE, tasks=3, rates=(one,)).arguments("validation"))
        envs.reset(seed=0)
        for group in RULES["adam"].choices(3):
            *_, info = envs.step(group)
        found.append(info["validation_accuracy"])
    assert rate == rules.RATES[int(np.argmax(found))]
    assert accuracy == pytest.approx(max(found))
    played = known_rule("adam")(QUICK_RULE, 4)
    again = play(FixedRule(QUICK_RULE, RULES["adam"]), replace(QUICK_RULE, rates=(rate,)), 4)
    np.testing.assert_array_equal(played.test, again.test)


def test_a_search_writes_down_the_best_rule(tmp_path: Path) -> None:
    found = search(random_rules(QUICK_RULE, 1), QUICK_RULE, tmp_path, seed=1)
    tried = json.loads((tmp_path / "tried.json").read_text(encoding="utf-8"))
    assert Rule.load(tmp_path / "rule.json") == found.rule
    assert tried[found.rule.formula] == max(tried.values()) == tune(found.rule, QUICK_RULE)[1]
    assert len(tried) == 2
    assert search(random_rules(QUICK_RULE, 1), QUICK_RULE, tmp_path, seed=1).rule == found.rule
    assert found.steps == (8 + 4 * 2) * QUICK_RULE.horizon


def test_policies_and_their_competitors_are_what_papers_say() -> None:
    plain = rand_augment(0.3)
    assert len(plain.sub_policies) == len(set(plain.sub_policies)) == 16**2
    assert {(len(steps), *steps[0][1:], *steps[1][1:]) for steps in plain.sub_policies} == {(2, 1.0, 0.3, 1.0, 0.3)}
    trivial = trivial_augment(0.6)
    assert {len(steps) for steps in trivial.sub_policies} == {1}
    magnitudes = [step.magnitude for (step,) in trivial.sub_policies if step.operation == "rotate"]
    np.testing.assert_allclose(magnitudes, np.linspace(0, 0.6, 31))
    policies = random_policies(QUICK_AUGMENT, 50, 0)
    steps = [step for policy in policies for steps in policy.sub_policies for step in steps]
    assert {len(policy.sub_policies) for policy in policies} == {2}
    assert {step.operation for step in steps} == set(NAMES)
    assert {round(10 * step.magnitude, 6) for step in steps} == set(range(11))


def test_policies_are_tried_on_the_same_training_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    shift = AugmentationPolicy(((Step("translate_x", 0.5, 0.4), Step("translate_y", 0.5, 0.4)),))
    setting = AugmentSetting(updates=40)
    together = scores([AugmentationPolicy(), *[shift] * 2], setting, range(3))
    np.testing.assert_allclose(together[1:], np.repeat(scores([shift], setting, range(3)), 2), atol=0.03)
    assert together[1] > together[0]
    # The tasks, weights and order of the environment's episodes.
    envs: Any = gym.make_vec("NetAugment-v0", 6, updates=40, autoreset_mode="Disabled")
    envs.reset(seed=0)
    info = envs.unwrapped.tuning.train_with([shift] * 6)
    monkeypatch.setattr(augmentations, "ROWS", 4)
    found = train_children(shift, setting, 6, "train")
    np.testing.assert_allclose(found.test, info["test_accuracy"], atol=0.03)


def test_an_agent_draws_policies_of_its_own(tmp_path: Path) -> None:
    agent = train(QUICK_AUGMENT, RECIPE, seed=0, folder=tmp_path)
    first, again, other = (sampled(agent.policy, QUICK_AUGMENT, 6, seed) for seed in (0, 0, 1))
    assert first == again != other
    assert len(set(first)) == 6


@pytest.mark.parametrize(
    ("kind", "setting"),
    [
        ("tuning", QUICK),
        ("loss", QUICK_LOSS),
        ("retrieval", QUICK_RETRIEVAL),
        ("rule", QUICK_RULE),
        ("augment", QUICK_AUGMENT),
    ],
)
def test_a_comparison_pairs_every_seed_with_what_is_fixed(
    kind: str, setting: RunSetting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agents.comparison.benchmarks import BENCHMARKS

    made = benchmark.TuningBenchmark(file="tiny.json", kind=kind, seeds=2, evaluation_tasks=4, setting=setting)
    entrants = ENTRANTS[kind]
    monkeypatch.setitem(BENCHMARKS, "tiny", made)
    for table in (RECIPES, RULE_RECIPES, AUGMENT_RECIPES):
        for algorithm, recipe in SMALL_RECIPES.items():
            monkeypatch.setitem(table, algorithm, recipe)
    pairs = [(name, seed) for name in entrants for seed in range(2 if entrants[name].seeded else 1)]
    jobs = [Job(tmp_path, "tiny", setting, name, seed, None, 4) for name, seed in pairs]
    for job in jobs:
        job.work()
    rows = {row["learner"]: row for row in rows_of(jobs)}
    assert {row["metric"] for row in rows.values()} == {setting.measured}
    assert set(rows) == {*entrants, *((f"{name}/average" for name in RECIPES) if kind == "rule" else ())}
    # An agent that builds policies or writes rules is followed by the trials of those that it draws.
    trained = {"augment": 16 + 6 * 2, "rule": 4 + 8 + 4 * 2}.get(kind, 4)
    if kind == "augment":
        assert rows["random_search"]["meta_training_tasks"] == trained
        written = json.loads(next(tmp_path.rglob("policy.json")).read_text(encoding="utf-8"))
        assert AugmentationPolicy.from_json(json.dumps(written)).sub_policies
    for agent in RECIPES:
        assert (rows[agent]["seeds"], rows[agent]["tasks"], rows[agent]["meta_training_tasks"]) == (2, 4, trained)
        for other, difference in rows[agent]["paired"].items():
            assert difference["difference"] == pytest.approx(rows[agent]["mean"] - rows[other]["mean"])
            assert len(difference["per_seed"]) == 2
    with pytest.raises(ValueError, match="no shots"):
        made.variants(5)


@pytest.mark.parametrize("small", SMALL_RECIPES.values(), ids=SMALL_RECIPES)
def test_an_interrupted_training_goes_on_from_its_checkpoint(
    small: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting, recipe = TuningSetting(horizon=2, updates=1), replace(small, total_steps=64)
    monkeypatch.setattr("agents.runs.progress.CHECKPOINTS", 10**9)
    monkeypatch.setattr("agents.runs.progress.LEAST", 1)
    steps = []

    class Interrupted(training.Progress):
        def _on_step(self) -> bool:
            steps.append(self.num_timesteps)
            if len(steps) == 5:
                raise KeyboardInterrupt
            return super()._on_step()

    monkeypatch.setattr(training, "Progress", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        training.train(setting, recipe, seed=0, folder=tmp_path)
    agent = training.train(setting, recipe, seed=0, folder=tmp_path)
    whole = training.train(setting, recipe, seed=0, folder=tmp_path / "whole")
    for one, other in zip(agent.policy.policy.parameters(), whole.policy.policy.parameters(), strict=True):  # type: ignore[attr-defined]
        assert one.equal(other)
    assert steps[:7] == [4, 8, 12, 16, 20, 20, 24], "the rollout that was interrupted is played again"
    assert agent.steps == whole.steps == steps[-1] == 64
    assert not (tmp_path / training.CHECKPOINTS).exists()
