"""Minibatches: passes over the support set, streams, gradients, and what they leave alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from gym_reml.envs.training.setup import make_setup
from gym_reml.mdp import TrainingMDP
from gym_reml.streams import many_streams
from gym_reml.tasks import TaskFamily, make_family
from tests.support.env_helpers import Restless, make_classes

ROWS = 3


def process(rows: int = ROWS, seed: int = 0, **arguments: Any) -> TrainingMDP:
    arguments = {"pool": "random", "width": 6, "layers": 3, **arguments}
    mdp = make_setup(rows, **arguments).mdp
    mdp.seed(range(rows), many_streams(seed, rows, mdp.family.split))
    mdp.reset()
    return mdp


def drawn(mdp: TrainingMDP, row: int) -> list[int]:
    """The numbers of the points of the row's next minibatch."""
    batch = mdp.train(np.zeros(mdp.count, dtype=np.int64), np.full(mdp.count, 0.01, dtype=np.float32)).support
    inputs = mdp.support.inputs[row]
    return [int((inputs == point).all(dim=1).nonzero()[0]) for point in batch.inputs[row]]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 6])
def test_a_pass_visits_every_point_once(batch_size: int) -> None:
    mdp = process(shots=6, batch_size=batch_size)
    passes = [[point for _ in range(6 // batch_size) for point in drawn(mdp, 0)] for _ in range(4)]
    assert [sorted(one) for one in passes] == [list(range(6))] * 4
    assert len({tuple(one) for one in passes}) > 1, "shuffled"


def test_a_rest_that_fills_no_minibatch_is_left_out() -> None:
    mdp = process(shots=5, batch_size=3)
    batches = [drawn(mdp, 1) for _ in range(20)]
    assert all(len(set(batch)) == 3 for batch in batches)
    assert {point for batch in batches for point in batch} == set(range(5))


def test_rows_have_streams_of_their_own() -> None:
    """And begin a new pass with every episode."""
    together, alone = process(shots=6, batch_size=2), process(1, seed=1, shots=6, batch_size=2)
    for step in range(7):
        assert drawn(together, 1) == drawn(alone, 0)
        if step == 3:
            together.reset(np.array([1]))
            alone.reset()
            torch.testing.assert_close(together.support.inputs[1], alone.support.inputs[0], rtol=0, atol=0)


def test_data_are_the_same_with_any_batch_size() -> None:
    processes = [process(batch_size=batch_size) for batch_size in (None, 2, 4)]
    for _ in range(2):
        for mdp in processes:
            drawn(mdp, 0)
            mdp.reset()
            for name in ("support", "query"):
                one, other = (getattr(each, name).inputs for each in (mdp, processes[0]))
                torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize("family", [make_family("sinusoid", shots=(2, 5)), make_family("sinusoid"), make_classes()])
def test_gradients_are_those_of_the_minibatch(family: TaskFamily) -> None:
    """Of real points, where the number of shots varies, each with the same weight."""
    mdp = process(family=family, batch_size=2, clip=None, depth=1)
    for _ in range(3):
        before = [mdp.networks.weights(row) for row in range(ROWS)]
        copies = [torch.nn.ParameterList(weights.tensors()) for weights in before]
        trained = mdp.train(np.zeros(ROWS, dtype=np.int64), np.full(ROWS, 0.05, dtype=np.float32))
        for row in range(ROWS):
            stem, *_, head = copies[row]
            rows = {tuple(point) for point in mdp.support.inputs[row].tolist()}
            inputs, targets = trained.support.inputs[row], trained.support.targets[row]
            assert len({tuple(point) for point in inputs.tolist()} & rows) == 2
            hidden = functional.relu(functional.linear(inputs.clone(), stem[0, :-1].T, stem[0, -1]))
            outputs = functional.linear(hidden, head[0, :-1].T, head[0, -1])
            loss = functional.mse_loss if targets.is_floating_point() else functional.cross_entropy
            loss(outputs, targets.clone()).backward()
            after = mdp.networks.weights(row).tensors()
            for parameter, new in ((stem, after[0]), (head, after[-1])):
                torch.testing.assert_close(parameter - 0.05 * parameter.grad, new, rtol=1e-5, atol=1e-6)


def test_episodes_for_replays_have_the_next_minibatches() -> None:
    mdp = process(shots=6, batch_size=2, horizon=3)
    layers, sizes = torch.zeros((3, ROWS), dtype=torch.int64), torch.full((3, ROWS), 0.01)
    support = torch.cat([batch.inputs for batch in mdp.episodes(layers, sizes).support], dim=1)
    torch.testing.assert_close(support.sort(dim=1)[0], mdp.support.inputs.sort(dim=1)[0], rtol=0, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"family": Restless(), "batch_size": 2}, "batch_size=2: must be None.*'restless'"),
        ({"family": "navigation", "batch_size": 1}, "batch_size=1: must be None.*'navigation'"),
        ({"shots": (3, 7), "batch_size": 4}, "batch_size=4: .*from 1 to 3"),
        ({"family": make_classes(), "batch_size": 5}, "batch_size=5: .*from 1 to 4"),
        ({"batch_size": True}, "batch_size=True: .*integer"),
        ({"layer_kind": "batch_norm", "batch_size": 1}, "batch_size=1: layers of kind 'batch_norm'.*2 points"),
    ],
)
def test_invalid_sizes(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        process(**arguments)
