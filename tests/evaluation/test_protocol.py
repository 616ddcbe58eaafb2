"""The few-shot protocol: the same tasks for every learner, and statistics of results."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.running_mean_std import RunningMeanStd
from stable_baselines3.common.vec_env import VecNormalize

from gym_reml.envs.training.setup import make_setup
from gym_reml.evaluation import MetaLearner, Normaliser, Result, controls, evaluate, rollout
from gym_reml.evaluation import protocol as evaluation
from gym_reml.evaluation.meta_learner import ALGORITHMS, find_algorithm
from gym_reml.evaluation.plans import Plan, plan_learner
from gym_reml.evaluation.protocol import evaluate_all
from gym_reml.evaluation.results import half_width, table
from gym_reml.pool import LayerPool
from gym_reml.sb3 import make_vec_env
from gym_reml.spaces import Decided, layer_and_step, make_encoding
from gym_reml.streams import many_streams
from gym_reml.tasks import make_family

SMALL = {"depth": 2, "horizon": 3}


def pool_of(layers: int = 3, seed: int = 0) -> LayerPool:
    return LayerPool.random(in_features=1, out_features=1, width=8, layers=layers, seed=seed)


def result_of(losses: Sequence[Sequence[float]], **changes: Any) -> Result:
    values = np.array(losses)
    arguments: dict[str, Any] = {
        "learner": "x",
        "family": "sinusoid",
        "shots": 5,
        "seed": 0,
        "steps": tuple(range(len(values))),
        "metrics": {"loss": values, "mse": values},
        "diverged": np.zeros(values.shape, dtype=np.bool_),
    }
    return Result(**(arguments | changes))


def test_a_plan_evaluates_to_what_a_plain_loop_computes() -> None:
    pool, step = pool_of(), 0.3
    learner = plan_learner("plan", pool, SMALL, (2, 3), step)
    result = evaluate(learner, "sinusoid", steps=(0, 1, 2), tasks=3, seed=5)
    low, high = np.log(pool.step_range)
    size = float(np.exp(low + (step + 1) / 2 * (high - low)))
    moments = rollout(learner, make_family("sinusoid", split="test"), seeds=[5, 6, 7], steps=0)
    mdp = next(moments).mdp
    for task in range(3):
        x, y, query_x, query_y = (
            tensor[task].double()
            for tensor in (mdp.support.inputs, mdp.support.targets, mdp.query.inputs, mdp.query.targets)
        )
        weights = [pool.parameters["stem.matrix"], pool.parameters["head.matrix"]]
        weights = [tensor.double().clone().requires_grad_() for tensor in weights]

        def predict(inputs: torch.Tensor, matrices: list[torch.Tensor]) -> torch.Tensor:
            hidden = torch.relu(inputs @ matrices[0][:-1] + matrices[0][-1])
            for matrix in matrices[1:-1]:
                hidden = hidden + torch.relu(hidden @ matrix[:-1] + matrix[-1])
            return hidden @ matrices[-1][:-1] + matrices[-1][-1]

        expected = [((predict(query_x, weights) - query_y) ** 2).mean().item()]
        for layer in (2, 3):
            weights.insert(-1, pool.parameters["layers.matrix"][layer - 1].double().clone().requires_grad_())
            gradients = torch.autograd.grad(((predict(x, weights) - y) ** 2).mean(), weights)
            clip = min(1.0, 10.0 / float(torch.cat([g.flatten() for g in gradients]).norm()))
            weights = [(w - size * clip * g).detach().requires_grad_() for w, g in zip(weights, gradients, strict=True)]
            expected.append(((predict(query_x, weights) - query_y) ** 2).mean().item())
        np.testing.assert_allclose(result.metrics["loss"][:, task], expected, rtol=1e-4)


def test_every_learner_has_the_same_tasks_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = plan_learner("a", pool_of(), SMALL, (1,), 0.0)
    whole = evaluate(learner, "sinusoid", steps=(0, 3), tasks=20)
    other = evaluate(plan_learner("b", pool_of(), SMALL, (2,), 0.5), "sinusoid", steps=(0, 3), tasks=20)
    np.testing.assert_array_equal(whole.values(0), other.values(0))
    assert (whole.values(3) != other.values(3)).all()
    monkeypatch.setattr(evaluation, "CHUNK", 7)
    np.testing.assert_allclose(
        evaluate(learner, "sinusoid", steps=(0, 3), tasks=20).metrics["mse"], whole.metrics["mse"], rtol=1e-4
    )


def test_splits_hold_different_tasks_and_more_shots_the_same_queries() -> None:
    learner = plan_learner("a", pool_of(), SMALL, (1,), 0.0)
    by_split = [evaluate(learner, "sinusoid", steps=(0,), tasks=9, split=split) for split in ("train", "test")]
    assert (by_split[0].values(0) != by_split[1].values(0)).all()
    many = evaluate(learner, "sinusoid", shots=20, steps=(0,), tasks=9)
    np.testing.assert_allclose(many.values(0), by_split[1].values(0), rtol=1e-5)
    assert many.shots == 20


def test_steps_beyond_the_horizon_go_on_adapting() -> None:
    learner = plan_learner("a", pool_of(), SMALL, (1, 2), 0.0)
    result = evaluate(learner, "sinusoid", steps=(3, 40), tasks=30)
    assert np.median(result.values(40)) < np.median(result.values(3))


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("steps", value) for value in ((), (-1,), 5, (1.5,), (True,))],
        *[("tasks", value) for value in (0, 2.5, True)],
        *[("seed", value) for value in (-1, 0.5)],
    ],
)
def test_invalid_protocols(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{argument}={value!r}: must be")):
        evaluate(plan_learner("a", pool_of(), SMALL, (), 0.0), "sinusoid", **{argument: value})


def test_a_policy_alone_is_no_learner() -> None:
    policy: Any = plan_learner("a", pool_of(), SMALL, (), 0.0).policy
    with pytest.raises(ValueError, match=r"^learner=.*: must be a MetaLearner"):
        evaluate(policy, "sinusoid")


def test_a_family_that_does_not_fit_the_pool() -> None:
    with pytest.raises(ValueError, match="in_features"):
        evaluate(plan_learner("a", LayerPool.random(in_features=2, out_features=1), SMALL, (), 0.0), "sinusoid")


# -- results --------------------------------------------------------------------------------------------------------


def test_summaries_follow_their_formulas() -> None:
    diverged = np.array([[False] * 4, [True, False, False, False]])
    result = result_of([[1, 2, 3, 10], [0, 1, 2, 5]], diverged=diverged)
    summary = result.summary(1, "mse")
    assert (summary.mean, summary.median, summary.diverged, summary.tasks) == (2.0, 1.5, 0.25, 4)
    assert summary.ci95 == pytest.approx(1.96 * np.std([0, 1, 2, 5], ddof=1) / 2)
    assert np.isnan(half_width(np.array([1.0])))


def test_results_compare_pairwise_on_the_same_tasks_only() -> None:
    one, two = result_of([[1.0, 2.0, 3.0]]), result_of([[2.0, 4.0, 6.0]])
    assert two.minus(one, 0) == pytest.approx((2.0, 1.96 / 3**0.5))
    for change in ({"seed": 1}, {"family": "linear"}, {"shots": 10}, {"arguments": {"split": "train"}}):
        with pytest.raises(ValueError, match=next(iter(change))):
            two.minus(result_of([[1.0, 2.0, 3.0]], **change), 0)
    with pytest.raises(ValueError, match="tasks"):
        two.minus(result_of([[1.0]]), 0)
    with pytest.raises(ValueError, match="step=7"):
        one.values(7)
    with pytest.raises(ValueError, match="'loss', 'mse'"):
        one.values(0, "accuracy")
    nothings: list[Any] = [[], one]
    for nothing in nothings:
        with pytest.raises(ValueError, match=r"^results=.*one or more"):
            table(nothing)


def test_results_survive_json(tmp_path: Path) -> None:
    result = evaluate(plan_learner("a", pool_of(), SMALL, (1,), 0.0), "sinusoid", steps=(0, 3), tasks=4)
    result.save(tmp_path / "a.json")
    loaded = Result.load(tmp_path / "a.json")
    np.testing.assert_array_equal(loaded.metrics["loss"], result.metrics["loss"])
    np.testing.assert_array_equal(loaded.diverged, result.diverged)
    ranges = {"amplitude": [0.1, 5.0], "phase": [0.0, np.pi]}
    assert loaded.arguments == {"queries": 50, "split": "test", **ranges}
    assert (loaded.learner, loaded.steps, loaded.seed) == (result.learner, result.steps, result.seed)
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_tables_have_mean_interval_median_and_divergence() -> None:
    text = table([result_of([[1.0, 2.0, 6.0], [0.0, 0.0, 0.03]])], "mse")
    header, _, row = text.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == ["learner", "0 steps", "1 step", "diverged"]
    assert "3.000 ± 2.994 (2.000)" in row
    assert "0.01 ± 0.0196 (0.000)" in row
    assert "0.0%" in row
    assert "1 step" not in table([result_of([[1.0, 2.0], [3.0, 4.0]])], steps=(0,))


# -- learners -------------------------------------------------------------------------------------------------------


def test_a_learner_is_saved_and_loaded_as_one(tmp_path: Path) -> None:
    pool = pool_of()
    env = VecNormalize(make_vec_env("NetBuildMultiDiscrete-v0", n_envs=2, pool=pool, **SMALL), norm_reward=False)
    agent = PPO("MlpPolicy", env, n_steps=8, batch_size=8, device="cpu", seed=0).learn(64)
    assert isinstance(env.obs_rms, RunningMeanStd)
    normaliser = Normaliser(env.obs_rms.mean, env.obs_rms.var, env.clip_obs, env.epsilon)
    arguments = {"action": "multidiscrete", **SMALL}
    learner = MetaLearner("reml", agent, pool, arguments, normaliser, "PPO")
    seen = env.get_original_obs()
    np.testing.assert_allclose(normaliser(seen), env.normalize_obs(seen), rtol=1e-5)
    learner.save(tmp_path / "learner")
    loaded = MetaLearner.load(tmp_path / "learner")
    first, second = (evaluate(one, "sinusoid", steps=(0, 3), tasks=10) for one in (learner, loaded))
    np.testing.assert_array_equal(first.metrics["loss"], second.metrics["loss"])
    assert loaded.arguments == arguments


def test_learners_that_cannot_be_saved_or_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only SB3 algorithms and plans can be saved"):
        MetaLearner("a", Echo(), pool_of(), SMALL).save(tmp_path)
    with pytest.raises(FileNotFoundError, match="RUN/learner"):
        MetaLearner.load(tmp_path / "nowhere")
    torch.save({"format": "gym_reml.Learner/99"}, tmp_path / "learner.pt")
    with pytest.raises(ValueError, match="Learner/99"):
        MetaLearner.load(tmp_path)
    (tmp_path / "learner.pt").write_bytes(b"PK\x03\x04 not quite")
    with pytest.raises(ValueError, match="damaged"):
        MetaLearner.load(tmp_path)


def test_thirteen_algorithms_by_name() -> None:
    names = [name for names in ALGORITHMS.values() for name in names]
    assert len(names) == 13
    assert all(find_algorithm(name).__name__ == name for name in names)
    with pytest.raises(ValueError, match=r"'Ppo'.*'PPO'"):
        find_algorithm("Ppo")


# -- controls -------------------------------------------------------------------------------------------------------


def planted_pool() -> LayerPool:
    """Layer 2 destroys the output of any network, layers 1 and 3 leave it unchanged."""
    pool = pool_of(3)
    pool.parameters["layers.matrix"].zero_()
    pool.parameters["layers.matrix"][1] = 0.8
    return pool


def test_random_layers_are_uniform_and_keep_the_steps() -> None:
    learner = plan_learner("a", pool_of(), SMALL, (2, 2), 0.4)
    seen: list[np.ndarray] = []

    def spy(learner: MetaLearner, family: Any, intervene: Any, **protocol: Any) -> Result:
        def both(decided: Decided, generators: Any) -> Any:
            changed = intervene(decided, generators)
            seen.append(changed.choices[:, 0])
            np.testing.assert_array_equal(decided.numbers, changed.numbers)
            return changed

        return evaluate(learner, family, intervene=both, **protocol)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "evaluate", spy)
        result = controls.random_layer(learner, "sinusoid", steps=(3,), tasks=240)
    assert result.learner == "a/random_layer"
    first = np.concatenate(seen[0:1])
    np.testing.assert_allclose(np.bincount(first, minlength=4)[1:], 80, atol=30)
    assert (seen[2] == 0).all()


def test_initial_layers_are_no_candidates() -> None:
    """Initial layers are not meant to be appended: drawing them would weaken the control."""
    learner = plan_learner("a", pool_of(), SMALL | {"initial_layers": [1]}, (2,), 0.0)
    assert controls.candidates(learner) == [2, 3]
    assert controls.compositions(learner) == [(2,), (3,)]
    alone = plan_learner("a", pool_of(1), SMALL | {"initial_layers": [1]}, (1,), 0.0)
    assert controls.candidates(alone) == [1]


def test_the_best_composition_avoids_the_planted_layer() -> None:
    learner = plan_learner("a", planted_pool(), SMALL, (), 0.0)
    result = controls.best_composition(learner, "sinusoid", steps=(1, 3), tasks=20, tuning_tasks=20)
    assert 2 not in result.notes["layers"]
    assert result.notes["step"] in controls.STEP_GRID


def test_no_plan_beats_the_oracle() -> None:
    learner = plan_learner("a", pool_of(2), SMALL, (), 0.0)
    protocol: dict[str, Any] = {"steps": (1, 2, 3), "tasks": 12}
    oracle = controls.oracle(learner, "sinusoid", **protocol)

    def score(result: Result) -> np.ndarray:
        scores: np.ndarray = np.mean([np.log1p(result.values(step)) for step in (1, 2, 3)], axis=0)
        return scores

    plans = [
        evaluate(plan_learner("p", learner.pool, SMALL, layers, step), "sinusoid", **protocol)
        for layers in controls.compositions(learner)
        for step in controls.STEP_GRID
    ]
    assert len(plans) == 4 * len(controls.STEP_GRID)
    np.testing.assert_allclose(score(oracle), np.min([score(plan) for plan in plans], axis=0), rtol=1e-6)
    assert oracle.notes["return"] == pytest.approx(-score(oracle).mean())


def test_constant_steps_are_chosen_on_validation_tasks() -> None:
    learner = plan_learner("a", pool_of(), SMALL, (1, 2), -1.0)
    result = controls.constant_step(learner, "sinusoid", steps=(3,), tasks=30, tuning_tasks=30)
    assert result.notes["step"] > -1.0
    assert result.values(3).mean() < evaluate(learner, "sinusoid", steps=(3,), tasks=30).values(3).mean()


@pytest.mark.parametrize("action", ["box", "multidiscrete"])
def test_plans_are_saved_and_need_no_library(action: str, tmp_path: Path) -> None:
    plan = Plan(make_encoding(action, layer_and_step(3)), layer=(1, 3), step_size=0.5)
    learner = MetaLearner("a", plan, pool_of(), SMALL | {"action": action})
    learner.save(tmp_path)
    loaded = MetaLearner.load(tmp_path)
    first, second = (evaluate(one, "sinusoid", steps=(0, 3), tasks=10) for one in (learner, loaded))
    np.testing.assert_array_equal(first.metrics["loss"], second.metrics["loss"])
    assert (loaded.name, loaded.algorithm, loaded.arguments) == ("a", None, learner.arguments)
    other = make_encoding("discrete", layer_and_step(3))
    with pytest.raises(ValueError, match=r"plans actions of Discrete\(52\), not those of the arguments"):
        MetaLearner("a", Plan(other), pool_of(), SMALL | {"action": action}).save(tmp_path)


@pytest.mark.parametrize("planned", [{"layer": (1, 4)}, {"layer": -1}, {"step_size": 1.5}, {"step_size": float("nan")}])
def test_plans_of_what_there_is_not(planned: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^planned="):
        Plan(make_encoding("box", layer_and_step(3)), **planned)
    about = {"name": "a", "policy": {"plan": planned}, "arguments": {}, "normaliser": None}
    state = {"format": "gym_reml.Learner/2", "about": json.dumps(about), "policy": {}, "pool": pool_of().state()}
    torch.save(state, tmp_path / "learner.pt")
    with pytest.raises(ValueError, match="damaged learner"):
        MetaLearner.load(tmp_path)


class Echo:
    """Keeps the observations that it receives."""

    def __init__(self) -> None:
        self.seen: list[np.ndarray] = []
        self.plan = Plan(make_encoding("box", layer_and_step(3)), layer=(1,))

    def predict(self, observation: Any, state: Any = None, *arguments: Any, **more: Any) -> tuple[Any, Any]:
        self.seen.append(observation)
        return self.plan.predict(observation, state)


def test_blindfolds_replace_observations() -> None:
    shown = {}
    for control in (evaluate, controls.shuffled_observation, controls.zeroed_observation):
        echo = Echo()
        control(MetaLearner("a", echo, pool_of(), SMALL), "sinusoid", steps=(1,), tasks=5)
        shown[control.__name__] = echo.seen[0]
    np.testing.assert_array_equal(shown["shuffled_observation"], np.roll(shown["evaluate"], 1, axis=0))
    assert not shown["zeroed_observation"].any()


def test_shuffled_observations_need_two_tasks() -> None:
    with pytest.raises(ValueError, match="tasks=1"):
        controls.shuffled_observation(plan_learner("a", pool_of(), SMALL, (1,), 0.0), "sinusoid", tasks=1)


def test_from_scratch_uses_fresh_weights_of_the_same_shape_and_learns() -> None:
    learner = plan_learner("a", pool_of(), SMALL, (), 0.0)
    result = controls.from_scratch(learner, "sinusoid", steps=(0, 3), tasks=40, tuning_tasks=40)
    assert result.learner == "scratch"
    assert result.values(3).mean() < result.values(0).mean()
    assert (result.values(0) != evaluate(learner, "sinusoid", steps=(0,), tasks=40).values(0)).all()


def any_layer(decided: Decided, generators: Sequence[np.random.Generator]) -> Decided:
    drawn = np.array([generator.integers(1, 4) for generator in generators])
    return layer_and_step(3).changed(decided, layer=drawn)


@pytest.mark.parametrize(
    ("family", "intervene"),
    [("sinusoid", None), ("sinusoid", any_layer), ("navigation", None)],
    ids=["alone", "intervened", "policies"],
)
def test_learners_together_do_as_each_alone(family: str, intervene: Any) -> None:
    # Plans on one pool share data; another pool, an agent's arguments or policies' own trajectories have theirs.
    pool = make_setup(1, family=family, pool="random", width=8, layers=3).mdp.pool
    arguments = {"depth": 2, "horizon": 2}
    plans = [plan_learner("plan", pool, arguments, (layer,), step) for layer, step in ((1, 0.5), (2, -0.5), (0, 0.9))]
    plans.insert(2, plan_learner("deeper", pool, {"depth": 3, "horizon": 2}, (1, 2, 1), 0.5))
    plans.insert(1, plan_learner("other", pool.renewed(layers=3, seed=5), arguments, (1,), 0.5))
    protocol: dict[str, Any] = {"steps": (0, 1, 3), "tasks": 27, "seed": 5, "intervene": intervene}
    for plan, together in zip(plans, evaluate_all(plans, family, **protocol), strict=True):
        alone = evaluate(plan, family, **protocol)
        assert alone.learner == together.learner
        for name, values in alone.metrics.items():
            np.testing.assert_array_equal(values, together.metrics[name])
        np.testing.assert_array_equal(alone.diverged, together.diverged)


def test_episodes_begin_again_on_the_same_data() -> None:
    mdp = make_setup(5, family="sinusoid", pool="random").mdp
    mdp.seed(range(5), many_streams(3, 5, "test"))
    first = mdp.reset()
    targets, observation = mdp.query.targets.clone(), mdp.observe()
    for _ in range(2):
        mdp.train(np.full(5, 1), np.full(5, 0.05, dtype=np.float32))
        mdp.observe()
        again = mdp.again()
        assert torch.equal(mdp.query.targets, targets)
        np.testing.assert_array_equal(again["query_loss"], first["query_loss"])
        np.testing.assert_array_equal(mdp.observe(), observation)
        assert not mdp.clock.any()


@pytest.mark.parametrize("arguments", [{"family": "navigation"}, {"batch_size": 2}], ids=str)
def test_data_drawn_at_every_step_are_not_there_again(arguments: dict[str, Any]) -> None:
    mdp = make_setup(1, pool="random", **arguments).mdp
    mdp.seed([0], many_streams(0, 1, "test"))
    mdp.reset()
    with pytest.raises(ValueError, match="drawn at every step"):
        mdp.again()
