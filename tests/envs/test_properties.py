"""Under random configurations and extreme actions, all numbers stay finite and inside their spaces."""

from __future__ import annotations

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gym_reml.envs.net_build import NetBuildEnv, NetBuildVectorEnv
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.spaces import ENCODINGS
from gym_reml.tasks import make_family
from tests.support.env_helpers import HILLS, MIXTURE, Absolute, Restless, make_classes

FAMILIES: list[dict[str, Any]] = [
    {"family": "sinusoid"},
    {"family": "linear"},
    {"family": "sawtooth"},
    MIXTURE,
    {"family": HILLS},
    {"family": make_classes()},
    {"family": Restless()},
    {"family": Absolute()},
]
quickly = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    """Arguments of small environments of every kind, with step sizes up to a million."""
    chosen = draw(st.sampled_from(FAMILIES))
    depth, layers = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    steps = sorted(draw(st.lists(st.sampled_from([1e-6, 1e-3, 0.3, 4.0, 1e3, 1e6]), min_size=2, max_size=2)))
    horizon = draw(st.integers(1, 4))
    arguments: dict[str, Any] = {
        **chosen,
        "shots": draw(st.integers(1, 6)),
        "queries": draw(st.integers(1, 6)),
        "depth": depth,
        "initial_layers": draw(st.lists(st.integers(1, layers), max_size=depth)),
        "horizon": horizon,
        "burn_in": draw(st.integers(0, horizon - 1)),
        "reward": draw(st.sampled_from(["performance", "improvement"])),
        "feedback": draw(st.sampled_from(["query", "support"])),
        "action": draw(st.sampled_from(sorted(ENCODINGS))),
        "observation": draw(st.sampled_from(["flat", "dict"])),
        "step_bins": draw(st.integers(1, 5)),
        "min_step": steps[0],
        "max_step": steps[1],
    }
    family = make_family(chosen["family"], **chosen.get("family_kwargs", {}))
    pool = LayerPool.random(
        in_features=family.in_features,
        out_features=family.out_features,
        width=draw(st.integers(1, 7)),
        layers=layers,
        kind=draw(st.sampled_from(sorted(LAYER_KINDS))),
        scale=draw(st.sampled_from([0.0, 1.0, 30.0])),
        adapt_stem=draw(st.booleans()),
        seed=draw(st.integers(0, 99)),
    )
    granularity = draw(st.sampled_from([None, *RATES]))
    if granularity is not None:
        pool = pool.with_rates(granularity, draw(st.sampled_from([1e-9, 0.01, 10.0])), steps=2, slots=1)
    return arguments | {"pool": pool}


def extreme_action(draw: Any, space: gym.Space[Any]) -> Any:
    """Actions of a diverged agent: corners, ties, values far out of bounds."""
    if isinstance(space, gym.spaces.Dict):
        return {name: extreme_action(draw, part) for name, part in space.items()}
    if isinstance(space, gym.spaces.Box) and np.issubdtype(space.dtype, np.floating):
        values = st.sampled_from([-1.0, 1.0, 0.0, -1e30, 1e30, float("inf"), float("-inf"), 0.3])
        flat = draw(st.lists(values, min_size=int(np.prod(space.shape)), max_size=int(np.prod(space.shape))))
        return np.array(flat, dtype=np.float32).reshape(space.shape)
    space.seed(draw(st.integers(0, 10_000)))
    return space.sample()


def assert_finite(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for name, entry in value.items():
            if not name.startswith("_"):
                assert_finite(entry, f"{path}.{name}")
    elif isinstance(value, np.ndarray) and value.dtype == object:
        for entry in value:
            assert_finite(entry, path)
    elif isinstance(value, float | int | np.ndarray | np.generic):
        assert np.isfinite(value).all(), path


def assert_sound(space: gym.Space[Any], observation: Any) -> None:
    assert space.contains(observation)
    parts = observation.values() if isinstance(observation, dict) else [observation]
    assert all(part.dtype == np.float32 for part in parts)


@settings(quickly, max_examples=120)
@given(arguments=configurations(), data=st.data(), seed=st.integers(0, 2**32))
def test_nothing_makes_an_environment_unsound(arguments: dict[str, Any], data: st.DataObject, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = NetBuildEnv(**arguments)
        observation, info = env.reset(seed=seed)
        assert_sound(env.observation_space, observation)
        assert_finite(info, "reset")
        depth = len(arguments["initial_layers"])
        for step in range(arguments["horizon"] + 1):
            loss = info["query_loss"]
            observation, reward, terminated, _, info = env.step(extreme_action(data.draw, env.action_space))
            assert_sound(env.observation_space, observation)
            assert np.isfinite(reward)
            assert_finite(info, f"step {step}")
            assert terminated == (step + 1 >= arguments["horizon"])
            assert depth <= info["depth"] <= min(depth + 1, arguments["depth"])
            if info["diverged"]:
                assert info["depth"] == depth
                assert info["layer"] == 0
                assert not env.family.fixed_data or info["query_loss"] == loss
            else:
                assert info["query_loss"] <= max(env.family.cap, loss)
            depth = info["depth"]


@settings(quickly, max_examples=50)
@given(arguments=configurations(), data=st.data(), seed=st.integers(0, 2**32))
@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_nothing_makes_a_vector_unsound(mode: str, arguments: dict[str, Any], data: st.DataObject, seed: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        envs = NetBuildVectorEnv(num_envs=3, autoreset_mode=mode, **arguments)
        observation, info = envs.reset(seed=seed)
        for step in range(arguments["horizon"] + 2):
            assert_sound(envs.observation_space, observation)
            assert_finite(info, f"step {step}")
            observation, reward, terminated, truncated, info = envs.step(extreme_action(data.draw, envs.action_space))
            assert reward.dtype == np.float64
            assert np.isfinite(reward).all()
            assert terminated.dtype == truncated.dtype == np.bool_
            for final in info.get("final_obs", ()):
                assert_sound(envs.single_observation_space, final)


@settings(quickly, max_examples=40)
@given(
    arguments=configurations(),
    data=st.data(),
    rule=st.sampled_from(["in_place", "reptile", "fomaml", "maml"]),
    seed=st.integers(0, 2**32),
)
def test_nothing_learned_makes_a_pool_unsound(
    arguments: dict[str, Any], data: st.DataObject, rule: str, seed: int
) -> None:
    """Episodes whose replay is not finite are dropped, so the pool stays finite."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of extreme actions nothing may be left to learn from.
        warnings.filterwarnings("ignore", "learn=")
        envs = NetBuildVectorEnv(
            num_envs=3, autoreset_mode="SameStep", learn=rule, learn_kwargs={"batch_size": 3}, **arguments
        )
        envs.reset(seed=seed)
        for _ in range(2 * arguments["horizon"]):
            observation, reward, *_ = envs.step(extreme_action(data.draw, envs.action_space))
            assert_sound(envs.observation_space, observation)
            assert np.isfinite(reward).all()
        for name, tensor in envs.pool.trainable().items():
            assert tensor.isfinite().all(), name
            assert not tensor.requires_grad
