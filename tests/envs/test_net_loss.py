"""What `NetLoss` is about; its contract is that of `test_net_tune`, by the table of variants."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from gym_reml.decisions.losses import LOSSES, Loss
from gym_reml.streams import row_streams
from gym_reml.tasks.data_sets.base import DataSet, DataSets, Examples, Task
from tests.support.env_helpers import assert_same, play
from tests.support.tuning_helpers import QUICK, SIZES, Slopes, make_line, make_normed, points

pytestmark = pytest.mark.filterwarnings("error")


def make(**arguments: Any) -> Any:
    return gym.make("NetLoss-v0", **(QUICK | arguments)).unwrapped


def native(count: int, **arguments: Any) -> Any:
    return gym.make_vec("NetLoss-v0", count, autoreset_mode="Disabled", **(QUICK | arguments))


def test_tasks_are_imbalanced_and_noisy_by_default() -> None:
    envs: Any = gym.make_vec("NetLoss-v0", 60, updates=1)
    _, info = envs.reset(seed=0)
    task, children = info["task"], envs.unwrapped.tuning.children
    assert set(task["imbalance"]) == {1.0, 10.0, 50.0}
    assert set(task["label_noise"]) == {0.0, 0.2, 0.4}
    assert info["logit_adjustment"].tolist() == [0.0] * 60
    group = next(iter(children._groups.values()))
    for row, child in zip(group.rows, group.children, strict=True):
        counts = np.bincount(child.data.train.targets, minlength=10)
        if task["label_noise"][row] == 0.0 and task["imbalance"][row] > 1:
            assert counts.max() / max(counts.min(), 1) > task["imbalance"][row] / 4
        assert np.bincount(child.data.validation.targets, minlength=10).min() > 10


def test_an_episode_is_the_run_of_a_plain_loop() -> None:
    data = {"train": points(20), "validation": points(10, 1), "test": points(10, 2)}
    names = ("smoothing", "class_weights")
    arguments = {"module": make_normed, "batch_size": 5, "horizon": 3, "updates": 4, "losses": names}
    env = make(**arguments, metric="macro_f1", optimizer="sgd", step_size=0.3, **data)
    env.reset(seed=3)
    network, order = env.export(), np.random.default_rng(row_streams(3, "train").query.integers(2**63))
    order.integers(2**63)  # the weights' seed
    places = np.concatenate([order.permutation(20) for _ in range(3)])
    inputs, labels = (torch.from_numpy(array) for array in data["train"])
    shares = torch.bincount(labels) / len(labels)
    stepper = torch.optim.SGD(network.parameters(), lr=0.3)
    value = np.zeros(2)
    for step, action in enumerate(([1.0, 1.0], [1.0, -2.0], [-0.5, 1.0])):
        _, _, _, _, info = env.step(np.array(action, dtype=np.float32))
        value = np.clip(value + np.clip(action, -1, 1) * [0.1, 0.25], 0.0, [0.6, 1.0])
        np.testing.assert_allclose([info[name] for name in names], value, atol=1e-7)
        weights = shares ** -value[1]
        weights = (weights / (weights * shares).sum()).float()
        for update in range(4):
            chosen = places[5 * (4 * step + update) :][:5]
            stepper.zero_grad()
            logs = network(inputs[chosen]).log_softmax(1)
            soft = (1 - value[0]) * functional.one_hot(labels[chosen], 2) + value[0] / 2
            (weights[labels[chosen]] * -(soft * logs).sum(1)).mean().backward()
            stepper.step()
        held_out = torch.from_numpy(data["validation"][0])
        with torch.no_grad():
            torch.testing.assert_close(env.export()(held_out), network(held_out), rtol=1e-4, atol=1e-5)


def test_doing_nothing_is_cross_entropy() -> None:
    varied = SIZES | {"imbalances": [1.0, 10.0], "label_noises": [0.0, 0.4], "input_scales": [1.0]}
    ours = native(3, family_kwargs=varied, metric="accuracy", optimizer="sgd", step_size=0.1)
    rate: dict[str, Any] = {"min_step": 0.1, "max_step": 0.1, "optimizer": "sgd"}
    theirs: Any = gym.make_vec("NetTune-v0", 3, autoreset_mode="Disabled", family_kwargs=varied, **rate, **QUICK)
    ours.reset(seed=0), theirs.reset(seed=0)
    for _ in range(3):
        mine, its = (envs.step(np.zeros(envs.action_space.shape, dtype=np.float32)) for envs in (ours, theirs))
        np.testing.assert_allclose(mine[1], its[1], atol=1e-6)
        for name in ("train_loss", "validation_loss", "validation_accuracy", "test_accuracy"):
            np.testing.assert_allclose(mine[4][name], its[4][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("losses", [("logit_adjustment", "focal", "smoothing", "trust"), ("class_correlation",)])
def test_nothing_depends_on_test_data(losses: tuple[str, ...]) -> None:
    data: dict[str, Any] = {"train": points(20), "validation": points(10, 1), "module": make_normed, "losses": losses}
    one, other = (make(test=points(10, seed), **data) for seed in (2, 9))
    one.action_space.seed(0)
    actions = [one.action_space.sample() for _ in range(4)]
    for mine, its in zip(play(one, actions, seed=0), play(other, actions, seed=0), strict=True):
        assert_same(mine[0], its[0])
        if len(mine) > 2:
            assert mine[1] == its[1]


def test_the_sign_of_the_gain() -> None:
    gain, sign = (native(3, family_kwargs=SIZES, reward=reward, step_size=0.3) for reward in ("gain", "sign"))
    gain.reset(seed=0), sign.reset(seed=0)
    gain.action_space.seed(0)
    for _ in range(3):
        action = gain.action_space.sample()
        np.testing.assert_array_equal(np.sign(gain.step(action)[1]), sign.step(action)[1])


def test_the_phi_of_ranks_is_that_of_labels() -> None:
    """Class 1 is the more frequent one, so it has rank 0."""
    labels = np.array([1] * 8 + [0] * 2)
    train = points(10)[0], labels
    env = make(train=train, validation=points(9, 1), losses=("class_correlation",), module=make_normed)
    env.reset(seed=0)
    process = env.tuning
    names = [f"class_correlation_{one}_{other}" for one in (0, 1) for other in (0, 1)]
    assert process.decision.names == tuple(names)
    *_, info = env.step(np.array([0.5, 1.0, -1.0, 0.0], dtype=np.float32))
    np.testing.assert_allclose([info[name] for name in names], [1.05, 0.1, -0.1, 1.0])
    np.testing.assert_allclose(process._loss_values()["class_correlation"][0], [[1.0, -0.1], [0.1, 1.05]])
    with torch.no_grad():
        predicted = env.export()(torch.from_numpy(points(9, 1)[0])).argmax(1).numpy()
    observed = env.tuning.observe()[0, process.parts["confusions"]].reshape(2, 2)
    truth = points(9, 1)[1]
    expected = [[np.mean(predicted[truth == one] == other) for other in (1, 0)] for one in (1, 0)]
    np.testing.assert_allclose(observed, expected, atol=1e-6)


def test_what_is_observed_of_validation() -> None:
    data: dict[str, Any] = {"train": points(20), "validation": points(15, 1), "module": make_normed}
    env = make(**data, horizon=4)
    inputs, labels = (torch.from_numpy(array) for array in data["validation"])
    ranks = np.argsort(-np.bincount(data["train"][1]), kind="stable")
    averages = None
    for step in range(4):
        observation = env.reset(seed=1)[0] if step == 0 else env.step(np.ones(4, dtype=np.float32))[0]
        with torch.no_grad():
            logs = env.export()(inputs).log_softmax(1)
        predicted = logs.argmax(1)
        recall = torch.stack([(predicted[labels == one] == one).float().mean() for one in range(2)])
        share = predicted.float().mean().double()
        entropy = -(torch.xlogy(share, share) + torch.xlogy(1 - share, 1 - share)) / np.log(2)
        by_class = [float(logs[labels == one, one].mean()) for one in ranks]
        now = np.array([recall.min(), recall.std(), logs.exp().amax(1).mean(), entropy, *by_class])
        averages = now if averages is None else averages
        parts = env.tuning.parts
        np.testing.assert_allclose(observation[parts["statistics"]], now, atol=1e-5)
        np.testing.assert_allclose(observation[parts["relative"]], now - averages, atol=1e-5)
        averages = 0.8 * averages + 0.2 * now
    np.testing.assert_allclose(observation[parts["parameters"]], 2 * np.array([0.375, 0.5, 0.5, 0.75]) - 1, atol=1e-6)


def test_recall_at_1_is_that_of_the_outputs_of_the_network() -> None:
    data: dict[str, Any] = {"train": points(20), "validation": points(15, 1), "module": make_normed, "batch_size": 10}
    env = make(**data, losses=("classification", "triplet"), metric="recall_at_1", step_size=0.3)
    env.reset(seed=0)
    before, (inputs, labels) = 0.0, data["validation"]
    for step, action in enumerate(([0.0, 1.0], [-1.0, 1.0])):
        _, reward, _, _, info = env.step(np.array(action, dtype=np.float32))
        with torch.no_grad():
            outputs = env.export()(torch.from_numpy(inputs))
        distances = torch.stack([(outputs - one).norm(dim=1) for one in outputs]).fill_diagonal_(torch.inf)
        expected = np.mean(labels[distances.argmin(dim=1)] == labels)
        assert info["validation_recall_at_1"] == pytest.approx(expected)
        if step:
            assert reward == pytest.approx(expected - before)
        before = expected


UNSEEN: dict[str, Any] = SIZES | {"unseen": 4, "examples": [40], "imbalances": [10.0], "label_noises": [0.3]}


@pytest.mark.parametrize("losses", [tuple(LOSSES), ("logit_adjustment", "class_weights")])
def test_classes_that_are_not_trained_on_leave_everything_finite(losses: tuple[str, ...]) -> None:
    envs = native(3, losses=losses, metric="recall_at_2", family_kwargs=UNSEEN)
    observation, info = envs.reset(seed=0)
    process = envs.unwrapped.tuning
    high = np.ones(envs.action_space.shape, dtype=np.float32)
    for _ in range(3):
        assert np.isfinite(observation).all()
        observation, _, _, _, info = envs.step(high)
        assert not info["diverged"].any()
        assert (info["test_recall_at_2"] > 0).all()
    # The rarest class is that of those that are trained on, and the others come last.
    group = next(iter(process.children._groups.values()))
    for row, child in zip(group.rows, group.children, strict=True):
        counts = np.bincount(child.data.train.targets, minlength=10)
        imbalance = observation[row, process.parts["imbalance"]]
        assert imbalance == pytest.approx(np.log10(counts.max() / max(np.sort(counts)[4], 1)), abs=1e-6)
        assert set(process._ranks[row, :6]) >= set(np.flatnonzero(counts > 1))


@pytest.mark.parametrize("env_id", ["NetLoss-v0", "NetTune-v0", "NetRule-v0"])
def test_predicted_classes_are_no_measure_of_those_that_are_not_trained_on(env_id: str) -> None:
    metric = "balanced_accuracy" if env_id == "NetLoss-v0" else "accuracy"
    message = f"^metric='{metric}': has no meaning for classes that .* unseen=4; must be one of 'recall_at_1'"
    with pytest.raises(ValueError, match=message):
        gym.make(env_id, family_kwargs=UNSEEN)


class Margin(Loss):
    name, low, high, move = "margin", 0.0, 1.0, 0.5

    def logits(self, logits: Tensor, value: Tensor, shares: Tensor) -> Tensor:
        return logits * (1.0 - value[:, None, None])


def test_a_loss_of_ones_own_is_decided() -> None:
    env = make(losses=(Margin(), "focal"), family_kwargs=SIZES)
    env.reset(seed=0)
    for expected in (0.5, 1.0, 1.0):
        *_, info = env.step(np.array([1.0, 0.0], dtype=np.float32))
        assert info["margin"] == expected


class Growing(DataSets):
    """Tasks of different numbers of classes."""

    def draw(self, generator: np.random.Generator) -> Task:
        return {"classes": int(generator.integers(2, 9))}

    def data(self, task: Task, generator: np.random.Generator) -> DataSet:
        part = Examples(torch.zeros(9, 4), torch.zeros(9, dtype=torch.int64))
        return DataSet(part, part, None, 3, task["classes"])


ONE_CLASS = np.zeros((3, 4)), np.zeros(3, dtype=int)
BAD: list[tuple[dict[str, Any], str]] = [
    ({"losses": ("hinge",)}, "losses: 'hinge'.*'focal'"),
    ({"losses": "focal"}, "losses='focal'"),
    ({"losses": ()}, r"losses=\(\)"),
    ({"metric": "recall"}, "metric='recall'.*'macro_f1'"),
    ({"reward": "loss"}, "reward='loss'.*'sign'"),
    ({"step_size": 0}, "step_size=0"),
    ({"optimizer": "lamb"}, "optimizer='lamb'"),
    ({"family_kwargs": {"imbalances": [0.5]}}, "imbalances="),
    ({"family": Slopes(), "module": make_line}, "its targets are numbers"),
    ({"losses": ("class_correlation",), "action": "discrete"}, "action='discrete'.*too many"),
    (
        {"train": ONE_CLASS, "validation": ONE_CLASS},
        "one class",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[message for _, message in BAD])
def test_a_bad_value_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        make(**arguments)


def test_the_number_of_classes_is_that_of_every_task() -> None:
    env = make(family=Growing(), module=lambda classes: nn.Linear(4, classes))
    classes = env.tuning.classes
    env.reset(seed=0, options={"task": {"classes": classes}})
    with pytest.raises(ValueError, match="classes; their number must not depend"):
        env.reset(options={"task": {"classes": classes + 1}})
