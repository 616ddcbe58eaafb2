"""Vector environments that return tensors: the same trajectories as arrays, and nothing large goes to the host."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor

import gym_reml
from gym_reml.spaces import base
from tests.support.env_helpers import SMALL, VARIANTS, sample_actions
from tests.support.tuning_helpers import small_data


@pytest.fixture(params=["cpu", "accelerator"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU, as it is and as a stand-in for an accelerator, whose memory is not that of arrays."""
    if request.param == "accelerator":
        monkeypatch.setattr(base, "SHARED", ())


on_both = pytest.mark.usefixtures("device")
ROWS = 3
MODES = {"SameStep": 5, "NextStep": 5, "Disabled": 2}
FACES = ("NetBuild-v0", "NetTune-v0", "NavigationTrial-v0")


def small(env_id: str) -> dict[str, Any]:
    if env_id in gym_reml.TUNERS:
        return {"horizon": 2, "updates": 2, "family_kwargs": small_data(env_id)}
    return SMALL | {"horizon": 2, "depth": 3} if env_id in gym_reml.ENVIRONMENTS else {"episodes": 2}


def as_tensors(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {name: as_tensors(part) for name, part in values.items()}
    return torch.as_tensor(values)


def assert_tensor(found: Any, expected: Any) -> None:
    """A tensor that autograd takes, with the numbers of an array; or dicts of such."""
    if isinstance(expected, Mapping):
        assert isinstance(found, Mapping)
        assert set(found) == set(expected)
        for name in expected:
            assert_tensor(found[name], expected[name])
        return
    assert isinstance(found, Tensor)
    assert not found.is_inference()
    assert found.dtype == (torch.bool if expected.dtype == np.bool_ else torch.float32)
    assert torch.equal(found, torch.from_numpy(expected).to(found.dtype))


def assert_same_trajectory(env_id: str, mode: str, **arguments: Any) -> None:
    arrays, tensors = (
        gym.make_vec(env_id, num_envs=ROWS, autoreset_mode=mode, output=output, **arguments)
        for output in ("numpy", "torch")
    )
    observation, info = tensors.reset(seed=4)
    assert_tensor(observation, arrays.reset(seed=4)[0])
    ends = 0
    for action in sample_actions(arrays.action_space, MODES[mode]):
        *expected, other = arrays.step(action)
        *found, info = tensors.step(as_tensors(action))
        for one, two in zip(found, expected, strict=True):
            assert_tensor(one, two)
        ends += "final_obs" in info
        assert set(info) == set(other)
        if "final_obs" in info:
            for row in np.flatnonzero(info["_final_obs"]):
                final = info["final_obs"]
                one = {name: part[row] for name, part in final.items()} if isinstance(final, dict) else final[row]
                assert_tensor(one, other["final_obs"][row])
    assert ends > 0 or mode != "SameStep"


@on_both
@pytest.mark.parametrize("env_id", gym_reml.REGISTRATIONS)
def test_trajectories_are_the_same(env_id: str) -> None:
    assert_same_trajectory(env_id, "SameStep", max_episode_steps=3, **small(env_id))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("env_id", FACES)
def test_trajectories_are_the_same_in_every_autoreset_mode(env_id: str, mode: str) -> None:
    assert_same_trajectory(env_id, mode, max_episode_steps=2, **small(env_id))


@on_both
@pytest.mark.parametrize(("env_id", "arguments"), VARIANTS.values(), ids=VARIANTS)
def test_trajectories_are_the_same_for_every_kind_of_network_and_task(env_id: str, arguments: dict[str, Any]) -> None:
    assert_same_trajectory(env_id, "SameStep", **arguments | {"horizon": 2})


@on_both
def test_trajectories_are_the_same_where_layers_do_not_learn_well() -> None:
    assert_same_trajectory("NetBuild-v0", "SameStep", **small("NetBuild-v0") | {"max_step": 1e30, "clip": None})


@pytest.mark.parametrize("action", ["box", "hybrid"])
def test_only_decisions_and_losses_go_to_the_host(action: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every way from an accelerator to numpy is by `Tensor.cpu`, so what passes there is counted."""
    sizes: list[int] = []
    original = Tensor.cpu

    def counted(self: Tensor, *arguments: Any, **named: Any) -> Tensor:
        sizes.append(self.numel())
        return original(self, *arguments, **named)

    monkeypatch.setattr(base, "SHARED", ())
    count, seen = 50, {}
    for output in ("numpy", "torch"):
        envs: Any = gym.make_vec(
            "NetBuild-v0", count, autoreset_mode="SameStep", action=action, output=output, **SMALL | {"depth": 2}
        )
        if envs.mdp.networks.compiled:
            pytest.skip("compiled loops are for the CPU")
        envs.reset(seed=0)
        actions = as_tensors(sample_actions(envs.action_space, 1)[0])
        with monkeypatch.context() as patches:
            patches.setattr(Tensor, "cpu", counted)
            sizes.clear()
            envs.step(actions)
        seen[output] = max(sizes) / count
    size = envs.single_observation_space.shape[0]
    # The norms of the gradient by position are the most that steers the host: refused steps, clipping.
    assert seen["torch"] <= envs.mdp.slots + 2 < envs.mdp.decision.size < size / 2 < seen["numpy"]


@on_both
def test_tensors_are_fit_for_autograd_wherever_they_were_made() -> None:
    envs: Any = gym.make_vec("NetBuild-v0", 2, output="torch", **small("NetBuild-v0"))
    with torch.inference_mode():
        observation, _ = envs.reset(seed=0)
    layer = torch.nn.Linear(observation.shape[1], 1)
    layer(observation).sum().backward()
    policy = torch.nn.Linear(observation.shape[1], envs.single_action_space.shape[0])
    observation, reward, *_ = envs.step(policy(observation))  # with its gradient
    (policy(observation).mean(dim=1) * reward).sum().backward()
    assert policy.weight.grad is not None


@on_both
def test_returned_tensors_belong_to_the_caller() -> None:
    for env_id in FACES:
        envs = gym.make_vec(env_id, ROWS, autoreset_mode="SameStep", output="torch", **small(env_id))
        kept = [envs.reset(seed=0)[0]]
        copies = [kept[0].clone()]
        for action in sample_actions(envs.action_space, 4):
            outcome = envs.step(action)  # arrays are taken too
            kept += outcome[:4]
            copies += [tensor.clone() for tensor in outcome[:4]]
        assert all(torch.equal(one, other) for one, other in zip(kept, copies, strict=True))


def test_bad_outputs_are_named_with_the_choices() -> None:
    for env_id in FACES:
        with pytest.raises(ValueError, match="output='jax': must be one of 'numpy', 'torch'"):
            gym.make_vec(env_id, 2, output="jax", **small(env_id))
        with pytest.raises(TypeError, match=r"output='torch'.*native vector environments have it, by gym.make_vec"):
            gym.make(env_id, output="torch", **small(env_id))


def test_the_environment_says_where_it_computes() -> None:
    for env_id in FACES:
        for env in (gym.make(env_id, **small(env_id)).unwrapped, gym.make_vec(env_id, 2, **small(env_id))):
            assert env.device == torch.device("cpu")  # type: ignore[union-attr]


def test_adapters_to_libraries_of_arrays_refuse_tensors() -> None:
    sb3 = pytest.importorskip("stable_baselines3") and pytest.importorskip("gym_reml.sb3")
    with pytest.raises(ValueError, match="output='torch': must be 'numpy' here"):
        sb3.make_vec_env(output="torch")
    with pytest.raises(ValueError, match="output='torch', must be 'numpy'"):
        sb3.NativeVecEnv(gym.make_vec("NetBuild-v0", 2, autoreset_mode="SameStep", output="torch"))
