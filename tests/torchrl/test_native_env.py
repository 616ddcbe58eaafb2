"""TorchRL on the native vector environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec

pytest.importorskip("torchrl")

from torchrl.data import Binary, Composite, Unbounded
from torchrl.envs import GymEnv, check_env_specs
from torchrl.envs.gym_like import default_info_dict_reader

import gym_reml
from gym_reml.torchrl import NativeEnv, make_vec_env
from tests.support import lock_trial

COUNT, HORIZON = 4, 3
IDS = sorted(gym_reml.ENVIRONMENTS)


@pytest.mark.parametrize("env_id", [*IDS, "BanditTrial-v0"])
def test_keeps_torchrls_rules(env_id: str) -> None:
    arguments: dict[str, Any] = {"horizon": HORIZON} if env_id in IDS else {}
    for env in (make_vec_env(env_id, COUNT, **arguments), GymEnv(env_id, **arguments)):
        env.set_seed(0)
        check_env_specs(env)


@pytest.mark.parametrize("env_id", IDS)
def test_rows_are_single_environments(env_id: str) -> None:
    """Row i of seed s is the single environment of seed s + i, over the ends of episodes."""
    ours = make_vec_env(env_id, COUNT, horizon=HORIZON, categorical_action_encoding=True)
    ours.set_seed(5, static_seed=True)
    steps = ours.rollout(2 * HORIZON, break_when_any_done=False)
    assert steps.batch_size == (COUNT, 2 * HORIZON)
    assert steps["next", "done"].squeeze(-1).sum(dim=1).tolist() == [2] * COUNT
    actions = list(ours.full_action_spec.keys(True, True))
    for row in range(COUNT):
        single = GymEnv(env_id, horizon=HORIZON, categorical_action_encoding=True)
        single.set_seed(5 + row, static_seed=True)
        data = single.reset()
        for step in range(2 * HORIZON):
            taken = steps[row, step]
            np.testing.assert_allclose(data["observation"], taken["observation"], atol=2e-4)
            done, data = single.step_and_maybe_reset(data.update(taken.select(*actions)))
            for key in (("next", "observation"), ("next", "reward"), ("next", "done")):
                np.testing.assert_allclose(done[key].float(), taken[key].float(), atol=2e-4)


def test_discrete_parts_may_be_indices() -> None:
    one_hot, index = (make_vec_env("NetBuildHybrid-v0", COUNT, categorical_action_encoding=on) for on in (False, True))
    assert one_hot.action_spec["layer"].shape == (COUNT, 9)
    assert index.action_spec["layer"].shape == (COUNT,)
    assert index.rollout(2).batch_size == (COUNT, 2)


def test_infos_are_read_by_name() -> None:
    env = make_vec_env("NetBuildDiscrete-v0", COUNT, horizon=HORIZON)
    options = int(env.action_spec.shape[-1])
    spec = Composite(
        query_loss=Unbounded((COUNT,)), action_mask=Binary(options, (COUNT, options), dtype=torch.int8), shape=(COUNT,)
    )
    env.set_info_dict_reader(default_info_dict_reader(["query_loss", "action_mask"], spec=spec))
    steps = env.rollout(HORIZON + 1, break_when_any_done=False)
    assert steps["next", "action_mask"].shape == (COUNT, HORIZON + 1, options)
    assert torch.isfinite(steps["next", "query_loss"]).all()


def test_tensors_stay_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither observations, rewards and ends nor actions are converted by TorchRL."""
    env = make_vec_env("NetBuildHybrid-v0", COUNT, horizon=HORIZON)
    inner: Any = env._env
    taken, given = [], []
    step = inner.step

    def watched(action: Any) -> Any:
        taken.append(action)
        given.append(step(action))
        return given[-1]

    monkeypatch.setattr(inner, "step", watched)
    steps = env.rollout(HORIZON + 1, break_when_any_done=False)
    assert all(isinstance(part, torch.Tensor) for action in taken for part in action.values())
    for number, (observation, reward, terminated, _, _) in enumerate(given):
        for name, tensor in (("observation", observation), ("reward", reward), ("terminated", terminated)):
            assert torch.equal(steps["next", name][:, number].squeeze(-1), tensor.squeeze(-1))


def test_environments_of_the_users_need_no_argument_for_tensors() -> None:
    place = lock_trial.__name__
    spec = EnvSpec("Lock-v0", f"{place}:LockTrialEnv", vector_entry_point=f"{place}:LockTrialVectorEnv")
    env = make_vec_env(spec, COUNT)
    assert env.rollout(4, break_when_any_done=False).batch_size == (COUNT, 4)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="output='numpy': must be 'torch' here"):
        make_vec_env(output="numpy")
    with pytest.raises(ValueError, match="autoreset_mode='SameStep': must be 'Disabled'"):
        make_vec_env(autoreset_mode="SameStep")
    with pytest.raises(ValueError, match="GymEnv"):
        make_vec_env("CartPole-v1")
    unknown: Any = {"no_such_argument": 1}
    with pytest.raises(TypeError, match="no_such_argument"):
        make_vec_env(**unknown)
    assert isinstance(make_vec_env(), NativeEnv)
