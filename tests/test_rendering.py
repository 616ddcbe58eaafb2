"""Frames as pictures and as text: they have one size, show what changed, and survive what training can throw."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gym_reml.rendering import Curve, Frame, Scale, curve_scales, loss_scale, render_ansi, render_rgb, step_scale

SHAPE = (560, 896, 3)
GRID = np.linspace(-5.0, 5.0, 60)


def make_curve(share: float = 0.5) -> Curve:
    """A sinusoid and a prediction that has come ``share`` of the way to it."""
    support_x = np.array([-4.0, -1.5, 0.2, 2.0, 3.5])
    return Curve(GRID, 3 * np.sin(GRID), share * 3 * np.sin(GRID), support_x, 3 * np.sin(support_x))


def make_frame(steps: int = 2, horizon: int = 5, slots: int = 2, pool_size: int = 8, **changes: Any) -> Frame:
    """The frame after ``steps`` steps that append layers 3, 4, 5, ... until the network is full."""
    actions = tuple((step + 2) % pool_size + 1 for step in range(steps))
    frame = Frame(
        family="sinusoid, 5 shots",
        kind="residual",
        width=40,
        slots=slots,
        pool_size=pool_size,
        layers=actions[:slots],
        horizon=horizon,
        actions=actions,
        step_sizes=tuple(0.031 * 0.9**step for step in range(steps)),
        step_range=(1e-3, 0.3),
        diverged=(False,) * steps,
        support_loss=tuple(3.21 * 0.5**step for step in range(steps + 1)),
        query_loss=tuple(4.56 * 0.6**step for step in range(steps + 1)),
        curve=make_curve(steps / horizon),
    )
    return replace(frame, **changes)


IMAGES = np.random.default_rng(0).random((5, 28, 28))
FRAMES = {
    "nothing appended": make_frame(0),
    "midway": make_frame(2),
    "end": make_frame(5),
    "refused": make_frame(2, diverged=(False, True)),
    "images": make_frame(2, curve=None, images=IMAGES, query_accuracy=0.62),
    "many images": make_frame(2, curve=None, images=np.ones((80, 5, 3)), query_accuracy=1.0),
    "images without accuracy": make_frame(2, curve=None, images=IMAGES[:1]),
    "neither": make_frame(2, curve=None),
    "one slot": make_frame(1, slots=1, pool_size=1),
    "horizon 10, six slots": make_frame(7, horizon=10, slots=6),
    "horizon 50, full": make_frame(50, horizon=50, slots=3, diverged=(True,) * 50),
    "horizon 200, 30 slots, 60 layers": make_frame(150, horizon=200, slots=30, pool_size=60),
    "long names": make_frame(2, family="a very long name " * 12, kind="residual with everything"),
    "negative losses": make_frame(2, support_loss=(-1.0, 0.0, 3.0), query_loss=(-2.0, -1.0, 2.0)),
    "perfect fit": make_frame(2, support_loss=(0.0,) * 3, query_loss=(0.0,) * 3),
}


@pytest.mark.parametrize("name", FRAMES)
def test_every_frame_has_one_size_and_eighty_columns(name: str) -> None:
    frame = FRAMES[name]
    picture = render_rgb(frame)
    assert picture.shape == SHAPE
    assert picture.dtype == np.uint8
    assert picture.flags.writeable
    np.testing.assert_array_equal(picture[:, :8], 255, err_msg="the margin stays empty")
    np.testing.assert_array_equal(picture[:, -8:], 255, err_msg="the margin stays empty")
    lines = render_ansi(frame).split("\n")
    assert max(map(len, lines)) <= 80
    assert "\t" not in "".join(lines)


def test_rendering_twice_gives_the_same_picture() -> None:
    np.testing.assert_array_equal(render_rgb(FRAMES["midway"]), render_rgb(FRAMES["midway"]))


@pytest.mark.parametrize(
    "changes",
    [
        {"layers": (3, 1)},
        {"actions": (3, 0)},
        {"step_sizes": (0.031, 0.2)},
        {"diverged": (False, True)},
        {"support_loss": (3.21, 2.0, 0.1)},
        {"query_loss": (4.56, 2.0, 0.1)},
        {"curve": make_curve(0.9)},
        {"curve": None},
        {"family": "step function, 10 shots"},
        {"width": 64},
        {"slots": 3},
        {"pool_size": 9},
        {"horizon": 6},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_changes_is_seen(changes: dict[str, Any]) -> None:
    before, after = FRAMES["midway"], replace(FRAMES["midway"], **changes)
    assert (render_rgb(before) != render_rgb(after)).any()
    assert render_ansi(before) != render_ansi(after)


@pytest.mark.parametrize("changes", [{"images": 1 - IMAGES}, {"query_accuracy": 0.9}], ids=["images", "accuracy"])
def test_what_changes_in_classification_is_seen(changes: dict[str, Any]) -> None:
    before, after = FRAMES["images"], replace(FRAMES["images"], **changes)
    assert (render_rgb(before) != render_rgb(after)).any()
    assert render_ansi(before) != render_ansi(after)


def test_text_says_what_happened() -> None:
    text = render_ansi(FRAMES["midway"])
    assert "sinusoid, 5 shots" in text
    assert "input -> stem -> [layer 3] -> [layer 4] -> head -> output" in text
    assert "step 2 of 5: append layer 4, gradient step 0.0279" in text
    assert "8 residual layers of width 40: 1 2 3 >4< 5" in text
    assert "loss 0.802, at start 3.21" in text
    assert "loss 1.64, at start 4.56" in text
    assert "o support point" in text
    assert "step 0 of 5: nothing done yet" in render_ansi(FRAMES["nothing appended"])
    assert "stem -> [ empty ] -> [ empty ] -> head" in render_ansi(FRAMES["nothing appended"])
    assert "62.0% of the query set" in render_ansi(FRAMES["images"])


def test_refused_steps_and_ignored_layers_are_named() -> None:
    refused = render_ansi(FRAMES["refused"])
    assert "REFUSED" in refused
    assert "x 0.0279" in refused
    assert "REFUSED" not in render_ansi(FRAMES["midway"])
    assert "step 3 of 5: layer 5 ignored (network full)" in render_ansi(make_frame(3))
    assert "append nothing" in render_ansi(make_frame(2, actions=(3, 0), layers=(3,)))


@pytest.mark.parametrize(
    ("layers", "actions", "diverged", "appended"),
    [
        ((), (), (), ()),
        ((3, 4), (3, 0, 4), (False,) * 3, (True, False, True)),
        ((3, 4), (3, 4, 4), (False,) * 3, (True, True, False)),
        ((1, 2), (2, 2), (False,) * 2, (True, False)),
        ((1, 2), (0, 0), (False,) * 2, (False, False)),
        ((2,), (1, 2), (True, False), (False, True)),
        ((1, 2), (1, 2), (True, False), (True, True)),
    ],
    ids=["start", "pause", "full", "initial", "all initial", "refused and undone", "refused and kept"],
)
def test_appended_is_recovered(
    layers: tuple[int, ...], actions: tuple[int, ...], diverged: tuple[bool, ...], appended: tuple[bool, ...]
) -> None:
    frame = make_frame(len(actions), layers=layers, actions=actions, diverged=diverged)
    assert frame.appended == appended


BAD = (float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 1e-300, 0.0)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", BAD)
def test_values_that_are_not_finite_or_huge_survive(value: float) -> None:
    curve = make_curve()
    spike = curve.prediction.copy()
    spike[::7] = value
    everywhere = np.full_like(GRID, value)
    frames = [
        make_frame(2, support_loss=(1.0, value, value), query_loss=(value,) * 3),
        make_frame(2, step_sizes=(value, 0.1)),
        make_frame(2, step_range=(value, value)),
        make_frame(2, curve=replace(curve, prediction=everywhere)),
        make_frame(2, curve=replace(curve, prediction=spike)),
        make_frame(2, curve=replace(curve, target=everywhere, support_y=np.full(5, value))),
        make_frame(2, curve=replace(curve, x=everywhere, support_x=np.full(5, value))),
        make_frame(2, curve=None, images=np.full((3, 4, 4), value), query_accuracy=value),
    ]
    for frame in frames:
        assert render_rgb(frame).shape == SHAPE
        assert max(map(len, render_ansi(frame).split("\n"))) <= 80


def test_axes_of_the_fit_do_not_follow_the_prediction() -> None:
    curve = make_curve()
    wild = replace(curve, prediction=1e6 * curve.prediction)
    assert curve_scales(curve) == curve_scales(wild)
    across, upward = curve_scales(curve)
    assert (across.low, across.high) == (-5.0, 5.0)
    assert upward.low < -3.0
    assert upward.high > 3.0
    # Clipping: outside the plot, right half and upper part included, a wild prediction paints nothing.
    calm, loud = render_rgb(make_frame(2, curve=curve)), render_rgb(make_frame(2, curve=wild))
    np.testing.assert_array_equal(calm[:215], loud[:215])
    np.testing.assert_array_equal(calm[:, 440:], loud[:, 440:])


def test_scales() -> None:
    log = Scale(0.01, 1.0, log=True)
    np.testing.assert_allclose(log.fraction([0.01, 0.1, 1.0, 10.0]), [0.0, 0.5, 1.0, 1.5])
    assert log.ticks() == pytest.approx([0.01, 0.1, 1.0])
    linear = Scale(-4.2, 4.2)
    assert linear.ticks() == pytest.approx([-4.0, -2.0, 0.0, 2.0, 4.0])
    assert np.isnan(linear.fraction([np.nan, np.inf])).all()
    assert loss_scale(make_frame(2)).log
    assert not loss_scale(FRAMES["negative losses"]).log
    assert step_scale(make_frame(2)) == Scale(1e-3, 0.3, log=True)


def test_missing_pillow_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match=r"gym-reml\[render\]"):
        render_rgb(make_frame())
    assert "layer 3" in render_ansi(make_frame())
