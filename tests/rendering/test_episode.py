"""Images and texts of episodes: constant size, visible changes, and extreme values."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gym_reml.rendering.episode.words import curve_scales, loss_scale, step_scale
from gym_reml.rendering.frames import Curve, Frame, Paths
from gym_reml.rendering.render import render_ansi, render_rgb
from gym_reml.rendering.scales import Scale, plane_reach

SHAPE = (560, 896, 3)
GRID = np.linspace(-5.0, 5.0, 60)


def make_curve(share: float = 0.5) -> Curve:
    """A sinusoid, and a prediction at the fraction ``share`` between 0 and it."""
    support_x = np.array([-4.0, -1.5, 0.2, 2.0, 3.5])
    return Curve(GRID, 3 * np.sin(GRID), share * 3 * np.sin(GRID), support_x, 3 * np.sin(support_x))


def make_paths(share: float = 0.5, seed: int = 0) -> Paths:
    """Four paths of nine steps, and later ones that end at the fraction ``share`` of the distance to the goal."""
    goal = np.array([0.3, -0.4])
    steps = np.random.default_rng(seed).normal(0.0, 0.05, (2, 4, 10, 2))
    steps[:, :, 0] = 0.0
    before, now = steps.cumsum(axis=2)
    now += share * np.linspace(0.0, 1.0, 10)[:, None] * goal
    before[0, 6:] = now[1, 4:] = np.nan
    return Paths(before, now, goal)


def make_decided(layers: tuple[int, ...], sizes: tuple[float, ...] | None = None) -> dict[str, tuple[float, ...]]:
    """Decisions: layers and step sizes."""
    return {"layer": layers, "step_size": sizes or tuple(0.031 * 0.9**step for step in range(len(layers)))}


def make_frame(steps: int = 2, horizon: int = 5, slots: int = 2, pool_size: int = 8, **changes: Any) -> Frame:
    """The frame after ``steps`` steps that append layers 3, 4, 5, ... until the network is full."""
    layers = tuple((step + 2) % pool_size + 1 for step in range(steps))
    frame = Frame(
        family="sinusoid, 5 shots",
        kind="residual",
        width=40,
        slots=slots,
        pool_size=pool_size,
        layers=layers[:slots],
        horizon=horizon,
        decided=make_decided(layers),
        appended=tuple(step < slots for step in range(steps)),
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
    "paths": make_frame(2, curve=None, paths=make_paths(), measure="return"),
    "paths at the start": make_frame(0, curve=None, paths=make_paths(), measure="return"),
    "far paths": make_frame(2, curve=None, paths=replace(make_paths(), before=30.0 * make_paths().before)),
    "returns of both signs": make_frame(2, measure="return", support_loss=(60.0, -3.0, 2.0)),
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
        {"decided": make_decided((3, 0))},
        {"decided": make_decided((3, 4), (0.031, 0.2))},
        {"appended": (True, False)},
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
def test_changes_are_visible(changes: dict[str, Any]) -> None:
    before, after = FRAMES["midway"], replace(FRAMES["midway"], **changes)
    assert (render_rgb(before) != render_rgb(after)).any()
    assert render_ansi(before) != render_ansi(after)


@pytest.mark.parametrize("changes", [{"images": 1 - IMAGES}, {"query_accuracy": 0.9}], ids=["images", "accuracy"])
def test_changes_in_classification_are_visible(changes: dict[str, Any]) -> None:
    before, after = FRAMES["images"], replace(FRAMES["images"], **changes)
    assert (render_rgb(before) != render_rgb(after)).any()
    assert render_ansi(before) != render_ansi(after)


@pytest.mark.parametrize(
    "changes",
    [
        {"paths": make_paths(0.9)},
        {"paths": replace(make_paths(), before=make_paths(seed=1).before)},
        {"paths": replace(make_paths(), goal=np.array([-0.3, 0.4]))},
        {"measure": "loss"},
    ],
    ids=["now", "before", "goal", "measure"],
)
def test_changes_in_navigation_are_visible(changes: dict[str, Any]) -> None:
    before, after = FRAMES["paths"], replace(FRAMES["paths"], **changes)
    assert (render_rgb(before) != render_rgb(after)).any()
    assert render_ansi(before) != render_ansi(after)


def test_returns_are_minus_losses_on_a_linear_axis() -> None:
    frame = FRAMES["paths"]
    text = render_ansi(frame)
    assert "return -0.802, at start -3.21" in text
    assert "return -1.64, at start -4.56" in text
    assert "loss" not in text
    scale = loss_scale(frame)
    assert not scale.log
    assert scale.low < -4.56
    assert scale.high > -0.802
    assert not loss_scale(FRAMES["returns of both signs"]).log
    # Minus a loss of nothing is nothing, not "-0".
    assert "return 0, at start 0" in render_ansi(replace(FRAMES["perfect fit"], measure="return"))


def test_the_plane_holds_all_paths_and_seldom_moves() -> None:
    assert plane_reach([0.1, np.nan]) == pytest.approx(0.7)
    assert plane_reach([[0.7, -0.2]]) == pytest.approx(0.7)
    assert plane_reach([[0.2, -0.71]]) == pytest.approx(1.0)
    assert plane_reach([[1.2, 0.0], [np.inf, 0.0]]) == pytest.approx(1.5)
    assert plane_reach([25.0]) == pytest.approx(30.0)
    assert plane_reach([1e300]) >= 1e30


def test_the_plane_in_characters() -> None:
    corner = np.array([[0.0, 0.0], [0.7, 0.0], [0.7, 0.7]])
    frame = make_frame(2, curve=None, paths=Paths(corner[None], corner[None, :2], np.array([-0.7, -0.7])))
    rows = [line.partition("|")[2].rstrip("|") for line in render_ansi(frame).split("\n") if "|" in line]
    assert len(rows) == 17
    assert rows[-1][0] == "G"
    assert rows[8][17] == "S"
    assert rows[8][-1] == "#"
    assert rows[0].strip() == "."
    assert rows[0][-1] == "."


def test_text_says_what_happened() -> None:
    text = render_ansi(FRAMES["midway"])
    assert "sinusoid, 5 shots" in text
    assert "input -> stem -> [layer 3] -> [layer 4] -> head -> output" in text
    assert "step 2 of 5: append layer 4, step size 0.0279" in text
    assert "8 residual layers of width 40: 1 2 3 >4< 5" in text
    assert "loss 0.802, at start 3.21" in text
    assert "loss 1.64, at start 4.56" in text
    assert "o support point" in text
    assert "step 0 of 5: no step yet" in render_ansi(FRAMES["nothing appended"])
    assert "stem -> [ empty ] -> [ empty ] -> head" in render_ansi(FRAMES["nothing appended"])
    assert "62.0% of the query set" in render_ansi(FRAMES["images"])


def test_refused_steps_and_ignored_layers_are_named() -> None:
    refused = render_ansi(FRAMES["refused"])
    assert "REFUSED" in refused
    assert "x 0.0279" in refused
    assert "REFUSED" not in render_ansi(FRAMES["midway"])
    assert "step 3 of 5: layer 5 ignored (network full)" in render_ansi(make_frame(3))
    assert "append no layer" in render_ansi(
        make_frame(2, decided=make_decided((3, 0)), layers=(3,), appended=(True, False))
    )


OTHERS: dict[str, dict[str, tuple[float, ...]]] = {
    "loss 2, momentum 0.25, decay -1, x 1": {"loss": (1, 2), "momentum": (0.5, 0.25), "decay": (0, -1), "x": (1, 1)},
    "step size 0.02, weight decay 0.25": {"step_size": (0.1, 0.02), "weight_decay": (0.5, 0.25)},
    "append layer 4": {"layer": (3, 4)},
    "append layer 4, augmentation 2, step size 0.02": {
        "layer": (3, 4),
        "augmentation": (0, 2),
        "step_size": (0.1, 0.02),
    },
}


@pytest.mark.parametrize(("words", "decided"), OTHERS.items(), ids=OTHERS)
def test_any_decision_is_shown_by_names_and_values(words: str, decided: dict[str, tuple[float, ...]]) -> None:
    frame = make_frame(2, decided=decided)
    text = render_ansi(frame)
    assert render_rgb(frame).shape == SHAPE
    assert max(map(len, text.split("\n"))) <= 80
    assert ("gradient step sizes" in text) == ("step_size" in decided)
    assert (">4<" in text) == ("layer" in decided)
    (line,) = [line for line in text.split("\n") if line.startswith("action")]
    assert line.endswith(f"step 2 of 5: {words}")
    many = make_frame(20, decided={name: values * 10 for name, values in decided.items()}, horizon=20)
    assert render_rgb(many).shape == SHAPE
    assert max(map(len, render_ansi(many).split("\n"))) <= 80


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
        make_frame(2, decided=make_decided((3, 4), (value, 0.1))),
        make_frame(2, step_range=(value, value)),
        make_frame(2, curve=replace(curve, prediction=everywhere)),
        make_frame(2, curve=replace(curve, prediction=spike)),
        make_frame(2, curve=replace(curve, target=everywhere, support_y=np.full(5, value))),
        make_frame(2, curve=replace(curve, x=everywhere, support_x=np.full(5, value))),
        make_frame(2, curve=None, images=np.full((3, 4, 4), value), query_accuracy=value),
        make_frame(2, curve=None, paths=Paths(np.full((3, 4, 2), value), np.full((3, 4, 2), value), np.full(2, value))),
        make_frame(2, measure="return", support_loss=(1.0, value, value), query_loss=(value,) * 3),
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
