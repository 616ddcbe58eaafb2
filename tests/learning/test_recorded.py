"""Recorded meta-gradients: the same pools as without, and a replay without a recording wherever one does not serve.

Devices without graphs are given a stand-in that computes anew, into the tensors of the first time.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gym_reml.learning import LearningOptions, PoolLearner, recorded
from gym_reml.mdp import Objective, TrainingMDP
from gym_reml.meta_training import meta_train
from gym_reml.networks.blocks import BLOCKS
from gym_reml.networks.layer_kinds import LAYER_KINDS
from gym_reml.networks.work import counting_work
from gym_reml.pool import LayerPool
from gym_reml.pool.rates import RATES
from gym_reml.streams import many_streams
from gym_reml.tasks import from_classes, make_family

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, STEPS = 6, 3


class Recorder:
    """Records, or stands in for it, and counts."""

    def __init__(self, capture: Callable[..., Any] | None) -> None:
        self.capture, self.recordings, self.runs = capture, 0, 0

    def __call__(self, compute: Callable[[], Any], device: torch.device) -> Any:
        self.recordings += 1
        outputs, run = self.again(compute) if self.capture is None else self.capture(compute, device)

        def counted() -> None:
            self.runs += 1
            run()

        return outputs, counted

    def again(self, compute: Callable[[], Any]) -> Any:
        outputs = compute()

        def run() -> None:
            leaves = [gradient for gradient in outputs.gradients if gradient is not None]
            new = compute()
            outputs.losses.copy_(new.losses)
            outputs.summary.copy_(new.summary)
            for target, source in zip(leaves, [tensor for tensor in new.gradients if tensor is not None], strict=True):
                target.copy_(source)

        return outputs, run


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder(recorded.capture if DEVICE == "cuda" else None)
    monkeypatch.setattr(recorded, "capture", made)
    monkeypatch.setattr(recorded, "RECORDING", (DEVICE,))
    return made


class Waiting(TorchDispatchMode):
    """Refuses what waits for an accelerator: numbers taken out of tensors, and shapes that depend on values."""

    REFUSED = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().removeprefix("aten::").split(".")[0]
        assert not name.startswith(self.REFUSED), name
        if name.startswith("index"):
            places = args[1] if isinstance(args[1], list | tuple) else ()
            assert not any(place is not None and place.dtype == torch.bool for place in places), name
        return func(*args, **(kwargs or {}))


def pictures() -> Any:
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    return from_classes(images, np.arange(60) % 12, ways=3, shots=1, queries=6)


def trained(
    kind: str = "residual",
    *,
    granularity: str = "step",
    choose: Any = "alike",
    iterations: int = 8,
    rule: str = "maml",
    **options: Any,
) -> tuple[LayerPool, PoolLearner]:
    """A pool after some updates on fresh tasks, on whatever records."""
    convolutional = kind.startswith("conv")
    family = pictures() if convolutional else make_family("sinusoid")
    pool = LayerPool.random(
        in_features=family.in_features,
        input_shape=family.input_shape if convolutional else None,
        out_features=family.out_features,
        width=8,
        layers=3,
        kind=kind,
    )
    pool = pool.with_rates(granularity, 0.05, steps=STEPS, slots=1).to(DEVICE)
    learner = PoolLearner(pool, family, rule, LearningOptions(step_weights=(0.0, 0.0, 1.0), **options))
    mdp = TrainingMDP(ROWS, family, pool, Objective(STEPS), slots=1)
    mdp.seed(range(ROWS), many_streams(0, ROWS, family.split))
    choice = {
        "alike": lambda seen: np.arange(len(seen)) % 3 + 1,
        "some": lambda seen: (np.arange(len(seen)) % 2) * 2,
        "none": lambda seen: np.zeros(len(seen), dtype=np.int64),
        None: None,
    }[choose]
    meta_train(mdp, learner, choice, iterations=iterations)
    return pool, learner


@pytest.mark.parametrize("rule", ["maml", "fomaml"])
@pytest.mark.parametrize("kind", ["relu", "residual", "layer_norm", "conv", "conv_group_norm"])
def test_pools_learn_as_without_recordings(
    kind: str, rule: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with counting_work() as work:
        pool, learner = trained(kind, rule=rule)
    # The first episodes of a kind are replayed without a recording.
    assert (recorder.recordings, recorder.runs) == (1, 7)
    monkeypatch.setattr(recorded, "RECORDING", ())
    with counting_work() as plain_work:
        plain, other = trained(kind, rule=rule)
    assert recorder.runs == 7
    torch.testing.assert_close(pool.trainable(), plain.trainable(), rtol=2e-4, atol=2e-5)
    assert work == plain_work
    assert (learner.updates, learner.used) == (other.updates, other.used)


@pytest.mark.parametrize(
    ("kind", "granularity"),
    [*((kind, "step") for kind in (*LAYER_KINDS, *BLOCKS)), *(("residual", granularity) for granularity in RATES)],
)
def test_what_is_recorded_does_not_wait_for_the_device(
    kind: str, granularity: str, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watched(compute: Callable[[], Any], device: torch.device) -> Any:
        compute()
        with Waiting():
            compute()
        return recorder(compute, device)

    monkeypatch.setattr(recorded, "capture", watched)
    trained(kind, granularity=granularity, iterations=2)
    assert recorder.runs == 1


def test_networks_that_are_complete_need_no_observations(recorder: Recorder) -> None:
    pool, _ = trained(choose=None)
    same, _ = trained(choose="none")
    assert recorder.runs == 14
    torch.testing.assert_close(pool.trainable(), same.trainable(), rtol=0.0, atol=0.0)


@pytest.mark.parametrize("kind", ["relu", "conv"])
def test_slots_that_only_some_rows_fill_are_not_recorded(kind: str, recorder: Recorder) -> None:
    _, learner = trained(kind, choose="some")
    assert learner.updates == 8
    assert recorder.recordings == 0


def test_what_waits_for_the_device_is_not_recorded(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def refused(compute: Callable[[], Any], device: torch.device) -> Any:
        tries.append(compute())
        raise RuntimeError("called a synchronizing CUDA operation")

    monkeypatch.setattr(recorded, "capture", refused)
    _, learner = trained()
    assert learner.updates == 8
    assert len(tries) == 1, "which is found out once"


def test_episodes_above_the_cap_are_left_out_as_without_recordings(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for recording in ((DEVICE,), ()):
        monkeypatch.setattr(recorded, "RECORDING", recording)
        family = make_family("sinusoid")
        pool = LayerPool.random(in_features=1, out_features=1, width=8, layers=3).to(DEVICE)
        learner = PoolLearner(pool, family, "maml", LearningOptions(step_weights=(0.0, 0.0, 1.0)))
        mdp = TrainingMDP(ROWS, family, pool, Objective(STEPS), slots=1)
        mdp.seed(range(ROWS), many_streams(0, ROWS, family.split))
        for turn in range(5):
            mdp.reset()
            sizes = torch.full((STEPS, ROWS), 0.01)
            if turn == 3:
                sizes[:, 1] = 1e30
            layers = torch.ones((STEPS, ROWS), dtype=torch.int64)
            learner.update(mdp.episodes(layers, sizes))
        results.append((pool.trainable(), learner.dropped, learner.used))
    assert results[0][1:] == results[1][1:] == (1, 5 * ROWS - 1)
    assert recorder.runs == 4
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-4, atol=1e-5)


def test_learners_with_recordings_can_be_pickled(recorder: Recorder) -> None:
    _, learner = trained()
    assert recorder.runs
    assert pickle.loads(pickle.dumps(learner)).updates == learner.updates
