"""Results do not depend on the user's torch settings: default dtype and device, inference mode, autocast, gradients."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

from agents.pools.outer_updates import OUTER_UPDATES
from agents.pools.reinforcement import meta_learn_policies
from agents.problems.problem import NetworkShape, Problem
from gym_reml.evaluation import evaluate
from gym_reml.evaluation.plans import plan_learner
from gym_reml.learning import RULES, LearningOptions, PoolLearner
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.meta_training import find_clusters, greedy_competition, meta_train
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.streams import many_streams
from gym_reml.tasks import FAMILIES, TaskFamily, make_family
from gym_reml.tasks.base import Batch, Forward, Generators, Tasks
from gym_reml.tasks.functions.sinusoid import Sinusoid
from tests.support.env_helpers import SMALL, Absolute, Restless, assert_same, make_classes, play_vector, sample_actions
from tests.support.family_arguments import family_arguments
from tests.support.small_policies import RECIPE
from tests.support.tuning_helpers import OWN_VARIANTS, QUICK, TUNING_VARIANTS

pytestmark = pytest.mark.filterwarnings("error")


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
        assert torch.get_default_dtype() == dtype
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
        assert torch.empty(0).device.type == device
    finally:
        torch.set_default_device(None)


@contextmanager
def inference() -> Iterator[None]:
    with torch.inference_mode():
        yield
        assert torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()


@contextmanager
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield
        assert torch.is_autocast_enabled("cpu")


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def everything() -> Iterator[None]:
    with default_dtype(torch.float64), default_device("meta"), autocast(), inference():
        yield


STATES: dict[str, Callable[[], Any]] = {
    "float64": lambda: default_dtype(torch.float64),
    "float16": lambda: default_dtype(torch.float16),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "inference": inference,
    "no_grad": torch.no_grad,
    "autocast": autocast,
    "deterministic": deterministic,
    "all at once": everything,
}
"""Every setting that other code may have made."""
every_state = pytest.mark.parametrize("state", STATES)
some_states = pytest.mark.parametrize("state", ["float16", "autocast", "all at once"])
"""The settings with the largest effect, for tests with many cases."""
every_rule = pytest.mark.parametrize("rule", RULES)
HORIZON = 3
PICTURES = {"family": "digits", "family_kwargs": {"side": 4, "imbalances": [9.0], "examples": [20], "held_out": 20}}
TUNERS = {
    name: (TUNING_VARIANTS | OWN_VARIANTS)[name]
    for name in ("adam, every dial, test split", "class correlation, macro F1", "own arrays and module")
}
TUNERS["pictures"] = ("NetLoss-v0", PICTURES)


def play(arguments: dict[str, Any], steps: int = 2 * HORIZON) -> list[Any]:
    """Everything returned by episodes in three rows, and the final pool."""
    try:
        envs: Any = gym.make_vec("NetBuild-v0", num_envs=3, autoreset_mode="SameStep", **arguments)
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        pytest.skip(str(error))
    trail = play_vector(envs, sample_actions(envs.action_space, steps), seed=0)
    return [*trail, {name: tensor.detach().numpy().copy() for name, tensor in envs.unwrapped.pool.trainable().items()}]


@pytest.mark.parametrize("state", ["float16", "all at once"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_plays_as_ever(family: str, state: str, tmp_path: Path) -> None:
    given = family_arguments(family, tmp_path) | {"horizon": HORIZON}
    expected = play(given)
    with STATES[state]():
        found = play(given)
    assert_same(found, expected)


@pytest.mark.parametrize("state", ["float16", "all at once"])
@pytest.mark.parametrize("variant", TUNERS)
def test_dials_and_losses_are_set_as_ever(variant: str, state: str) -> None:
    if variant == "pictures":
        pytest.importorskip("sklearn")
    env_id, given = TUNERS[variant]

    def run() -> list[Any]:
        envs: Any = gym.make_vec(env_id, num_envs=5, autoreset_mode="SameStep", **(QUICK | given))
        envs.action_space.seed(0)
        actions = [envs.action_space.sample() for _ in range(HORIZON + 1)]
        trail = play_vector(envs, actions, seed=0)
        weights = envs.unwrapped.export(1).state_dict()
        return [*trail, {name: weight.numpy() for name, weight in weights.items()}]

    expected = run()
    with STATES[state]():
        found = run()
    assert_same(found, expected)


@some_states
@pytest.mark.parametrize("kind", LAYER_KINDS)
@pytest.mark.parametrize("family", [Restless(), Absolute()], ids=["fresh data", "autograd"])
def test_every_kind_plays_as_ever(kind: str, family: TaskFamily, state: str) -> None:
    given = SMALL | {"family": family, "layer_kind": kind, "horizon": HORIZON}
    expected = play(given)
    with STATES[state]():
        found = play(given)
    assert_same(found, expected)


@some_states
@every_rule
@pytest.mark.parametrize("family", ["sinusoid", "classes", "navigation"])
def test_every_rule_learns_as_ever(rule: str, family: str, state: str) -> None:
    given: dict[str, Any] = SMALL | {"family": make_classes() if family == "classes" else family, "horizon": HORIZON}
    if family == "navigation":
        given["family_kwargs"] = {"steps": 3}
    given |= {"learn": rule, "learn_kwargs": {"batch_size": 3}}
    expected, start = play(given), play(given, 0)
    assert any(not np.array_equal(start[-1][name], expected[-1][name]) for name in start[-1]), "it learns"
    with STATES[state]():
        found = play(given)
    assert_same(found, expected)


@every_state
@pytest.mark.parametrize("rule", ["fomaml", "maml"])
def test_pools_with_all_their_parts_learn_as_ever(rule: str, state: str) -> None:
    def run() -> list[Any]:
        pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3, kind="batch_norm")
        pool = pool.with_rates("step", 0.05, steps=HORIZON).with_step_norms(HORIZON, statistics=True)
        given = {"pool": pool, "learn": rule, "learn_kwargs": {"batch_size": 3}, "horizon": HORIZON}
        return [*play(given), {name: tensor.numpy() for name, tensor in pool.statistics.items()}]

    expected = run()
    with STATES[state]():
        found = run()
    assert_same(found, expected)


@every_state
def test_made_in_another_state_than_played_in(state: str) -> None:
    """Results and learning are the same whichever of pool, environment and steps is created in inference mode."""
    given = SMALL | {"horizon": HORIZON, "learn": "maml", "learn_kwargs": {"batch_size": 3}}
    pooled = {name: value for name, value in given.items() if name not in ("pool", "width", "layers")}
    actions = None
    ends = []
    for inside in ("nothing", "pool", "envs", "steps"):

        def here(part: str, inside: str = inside) -> Any:
            return STATES[state]() if inside == part else torch.enable_grad()

        with here("pool"):
            pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3)
        with here("envs"):
            envs: Any = gym.make_vec("NetBuild-v0", num_envs=3, **(pooled | {"pool": pool}))
        actions = actions or sample_actions(envs.action_space, 3 * HORIZON)
        with here("steps"):
            play_vector(envs, actions, seed=0)
        assert envs.unwrapped.mdp.learner.updates > 1
        ends.append({name: tensor.numpy().copy() for name, tensor in pool.parameters.items()})
        # Going on, starting over and evaluating must be possible as well.
        envs.reset(options={"pool": "initial"})
        play_vector(envs, actions, seed=0)
        assert_same({name: tensor.numpy() for name, tensor in pool.parameters.items()}, ends[-1])
    for end in ends[1:]:
        assert_same(end, ends[0])


@every_state
def test_bootstraps_work_as_ever(state: str) -> None:
    family = make_family("sinusoid", shots=3, queries=4)

    def run() -> list[Any]:
        pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3)
        greedy_competition(pool, family, iterations=2, tasks=3)
        mdp = TrainingMDP(4, family, pool, Objective(horizon=2), slots=1)
        mdp.seed(range(4), many_streams(0, 4, family.split))
        learner = PoolLearner(pool, family, "maml", LearningOptions())
        meta_train(mdp, learner, lambda seen: np.full(len(seen), 1), iterations=2)
        clusters = find_clusters(mdp, 2, tasks=8)
        meta_train(mdp, learner, lambda seen: clusters.assign(seen) + 1, iterations=2)
        assert learner.updates == 4
        return [{name: tensor.numpy() for name, tensor in pool.parameters.items()}, clusters.centres]

    expected = run()
    with STATES[state]():
        found = run()
    assert_same(found, expected)


@some_states
@pytest.mark.parametrize("outer", OUTER_UPDATES)
def test_policies_are_meta_learned_as_ever(outer: str, state: str) -> None:
    family = make_family("navigation", steps=3, shots=3, queries=3)

    def run() -> dict[str, Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch's own, of forward mode
            pool = meta_learn_policies(Problem(family, RECIPE, 40, 0), 1, lambda *_: None, outer=outer)
        return {name: tensor.numpy() for name, tensor in pool.parameters.items()}

    expected = run()
    with STATES[state]():
        found = run()
    assert_same(found, expected)


@every_state
def test_learners_are_evaluated_as_ever(state: str) -> None:
    shape = NetworkShape(width=6, depth=1, kind="relu")

    def run() -> Any:
        pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=1, kind="relu")
        learner = plan_learner("plain", pool, shape.arguments(HORIZON), (), 0.0)
        return evaluate(learner, "sinusoid", steps=(0, 2), tasks=5).values(2)

    expected = run()
    with STATES[state]():
        found = run()
    assert_same(found, expected)


@every_state
@pytest.mark.parametrize("rates", [None, "weight"])
def test_pools_are_saved_and_loaded_in_any_state(rates: str | None, state: str, tmp_path: Path) -> None:
    pool = LayerPool.random(in_features=2, out_features=1, width=4, layers=2, kind="layer_norm")
    pool = pool if rates is None else pool.with_rates(rates, 0.1)
    with STATES[state]():
        pool.save(tmp_path / "inside.pt")
        made = LayerPool.random(in_features=2, out_features=1, width=4, layers=2, kind="layer_norm")
        loaded = LayerPool.load(tmp_path / "inside.pt")
        copies = [pool.clone(), pool.to("cpu"), LayerPool.from_state(pool.state()), loaded]
    for copy in [*copies, LayerPool.load(tmp_path / "inside.pt")]:
        for name, tensor in pool.trainable().items():
            assert torch.equal(copy.trainable()[name], tensor), name
        copy.assign(pool)
    for name, tensor in pool.parameters.items():
        assert torch.equal(made.parameters[name], tensor), name
        assert tensor.dtype == torch.float32
        assert not made.parameters[name].is_inference()


@dataclass(frozen=True)
class Careless(Sinusoid):
    """A user's family whose tensors have the user's default dtype."""

    name: ClassVar[str] = "careless"

    def support(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        x = torch.linspace(-5, 5, 4).reshape(1, -1, 1).repeat(len(generators), 1, 1)
        return Batch(x, x.sin(), {"smoother": torch.ones(len(generators), 11, 4), "static_signal": x[:, :1, 0] + 0.0})

    def query(self, tasks: Tasks, forward: Forward, generators: Generators) -> Batch:
        batch = self.support(tasks, forward, generators)
        return Batch(batch.inputs, batch.targets)

    @property
    def signal_size(self) -> int:
        return 12

    def loss(self, outputs: Tensor, batch: Batch) -> Tensor:
        return (torch.ones(1) * (outputs - batch.targets).square()).mean(dim=(1, 2))

    def output_gradient(self, outputs: Tensor, batch: Batch) -> Tensor:
        return TaskFamily.output_gradient(self, outputs, batch)


@every_state
def test_families_of_the_users_may_follow_the_state(state: str) -> None:
    if state in ("float16", "bfloat16"):
        pytest.skip("their own numbers are coarser then")
    given = SMALL | {"family": Careless(), "horizon": HORIZON, "learn": "maml", "learn_kwargs": {"batch_size": 3}}
    expected = play(given)
    with STATES[state]():
        found = play(given)
    assert_same(found, expected, 1e-5)
    assert found[-1]["stem.matrix"].dtype == np.float32


# -- pools that were put together by hand ------------------------------------------------------------------------------


def fresh() -> LayerPool:
    return LayerPool.random(in_features=1, out_features=1, width=6, layers=3)


def with_tensors(change: Callable[[Tensor], Tensor]) -> LayerPool:
    pool = fresh()
    pool.parameters = {name: change(tensor) for name, tensor in pool.parameters.items()}
    return pool


def half_meta(pool: LayerPool) -> LayerPool:
    pool.parameters["head.matrix"] = pool.parameters["head.matrix"].to("meta")
    return pool


REFUSED = {
    "float16": (lambda: with_tensors(Tensor.half), "numbers are not of one floating type"),
    "bfloat16": (lambda: with_tensors(Tensor.bfloat16), "numbers are not of one floating type"),
    "integers": (lambda: with_tensors(Tensor.int), "numbers are not of one floating type"),
    "meta": (lambda: with_tensors(lambda tensor: tensor.to("meta")), "numbers are on meta"),
    "two devices": (lambda: half_meta(fresh()), "numbers are on cpu, meta"),
    "NaN": (lambda: with_tensors(lambda tensor: tensor * torch.nan), "not finite"),
    "huge": (lambda: with_tensors(lambda tensor: tensor * 1e35), r"numbers above 1e\+30"),
    "arrays": (lambda: with_tensors(lambda tensor: tensor.numpy()), "must be tensors by name"),  # type: ignore[arg-type,return-value]
    "other shapes": (lambda: with_tensors(lambda tensor: tensor[..., :2]), "do not fit together"),
}


@pytest.mark.parametrize("learn", [None, *RULES])
@pytest.mark.parametrize("what", REFUSED)
def test_pools_that_cannot_be_used_are_refused(what: str, learn: str | None) -> None:
    make, message = REFUSED[what]
    with pytest.raises(ValueError, match=f"^pool: .*{message}"):
        gym.make("NetBuild-v0", pool=make(), learn=learn)


@pytest.mark.parametrize("learn", [None, *RULES])
@pytest.mark.parametrize("kind", LAYER_KINDS)
def test_a_pool_of_doubles_is_computed_with_in_double_precision(kind: str, learn: str | None, tmp_path: Path) -> None:
    pool = LayerPool.random(in_features=1, out_features=1, width=6, layers=3, kind=kind).with_rates("weight", 1.0)
    doubles = pool.clone()
    for part in (doubles.parameters, doubles.rates):
        part |= {name: tensor.double() for name, tensor in part.items()}
    doubles.save(tmp_path / "pool.pt")
    given: dict[str, Any] = {"horizon": HORIZON, "learn": learn}
    given |= {} if learn is None else {"learn_kwargs": {"batch_size": 3}}
    expected, found = play(given | {"pool": pool}), play(given | {"pool": doubles})
    assert {values.dtype for values in found[-1].values()} == {np.dtype(np.float64)}
    # Until the pool learns, whose Adam may go the other way where a gradient is as good as 0.
    assert_same(found[:HORIZON], expected[:HORIZON], 1e-3)
    assert_same(play(given | {"pool": tmp_path / "pool.pt"}), found)


def inference_tensors() -> LayerPool:
    with torch.inference_mode():
        return with_tensors(lambda tensor: tensor * 1.0)


ODD = {
    "parameters": lambda: with_tensors(torch.nn.Parameter),
    "requires_grad": lambda: with_tensors(lambda tensor: tensor.clone().requires_grad_()),
    "no leaves": lambda: with_tensors(lambda tensor: tensor.clone().requires_grad_() * 1.0),
    "strided": lambda: with_tensors(lambda tensor: tensor.transpose(-1, -2).contiguous().transpose(-1, -2)),
    "expanded": lambda: with_tensors(lambda tensor: tensor[..., :1].expand(tensor.shape)),
    "inference": inference_tensors,
}


@pytest.mark.parametrize("learn", [None, *RULES])
@pytest.mark.parametrize("what", ODD)
def test_pools_of_odd_tensors_are_as_good_as_others(what: str, learn: str | None) -> None:
    pool = ODD[what]()
    plain = pool.clone()
    ends = []
    for each in (pool, plain):
        given: dict[str, Any] = {"pool": each, "horizon": HORIZON, "learn": learn}
        given |= {} if learn is None else {"learn_kwargs": {"batch_size": 3}}
        ends.append(play(given))
    assert_same(ends[0], ends[1])
    if what != "expanded" or learn is not None:
        pool.assign(fresh())
        assert torch.equal(pool.parameters["stem.matrix"], fresh().parameters["stem.matrix"])
