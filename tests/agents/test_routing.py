"""The routing plot: which layers and step sizes a learner chose for which tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from agents.pages import routing
from agents.pages.routing import Choices, choices_of, groups_of, parameters, plot_routing
from gym_reml.evaluation import MetaLearner
from gym_reml.evaluation.plans import Plan, plan_learner
from gym_reml.pool import LayerPool
from gym_reml.spaces import layer_and_step, make_encoding
from gym_reml.tasks import FAMILIES, from_arrays, make_family
from gym_reml.tasks.base import TaskFamily
from gym_reml.tasks.images.collections import COLLECTIONS
from tests.support.family_arguments import IMAGE_FAMILIES, image_arguments

LAYERS, DEPTH, HORIZON = 4, 2, 3
ARGUMENTS: dict[str, Any] = {"action": "box", "depth": DEPTH, "horizon": HORIZON}


class ByDigits:
    """Chooses layers and step sizes by digits of what it sees, so that they differ between tasks."""

    def __init__(self) -> None:
        self.encoding = make_encoding("box", layer_and_step(LAYERS))

    def predict(
        self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False
    ) -> tuple[Any, Any]:
        digits = np.abs(1e3 * observation.sum(axis=1, dtype=np.float64))
        layers, steps = 1 + 2 * (digits.astype(np.int64) % 2), (digits % 1.0).astype(np.float32)
        decided = self.encoding.decision.decide(len(digits), layer=layers, step_size=steps)
        return self.encoding.encode(decided), None


def learner_of(family: TaskFamily, policy: Any = None) -> MetaLearner:
    pool = LayerPool.random(
        in_features=family.in_features,
        out_features=family.out_features,
        width=8,
        layers=LAYERS,
        kind="residual",
        constant_outputs=family.constant_outputs,
        seed=0,
    )
    return MetaLearner("reml", policy or ByDigits(), pool, ARGUMENTS)


def family_named(name: str, images: Path) -> TaskFamily:
    if name == "mixture":
        return make_family(name, members=["sinusoid", "step", "sinusoid"])
    if name == "omniglot":
        return make_family(name, root=str(images), ways=3, queries=6, shots=1, domains=("identity", "inverted"))
    if name == "arrays":
        numbers = np.random.default_rng(0)
        return from_arrays(numbers.normal(size=(40, 20, 2)), numbers.normal(size=(40, 20, 1)), queries=10)
    if name in IMAGE_FAMILIES:
        return make_family(name, queries=6, shots=1, **image_arguments(name, images.parent))
    if FAMILIES[name].fixed_data:
        return make_family(name)
    pytest.importorskip("mujoco") if name != "navigation" else None
    return make_family(name, shots=2, queries=2, steps=5)


def drawn(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Figure:
    """The figure that was saved."""
    figures: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *rest: Any, **more: Any) -> None:
        figures.append(figure)
        save(figure, *rest, **more)

    monkeypatch.setattr(Figure, "savefig", keep)
    plot_routing(*arguments, **options)
    (figure,) = figures
    return figure


def legend_of(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().texts]


def words(figure: Figure) -> str:
    """Everything that is written in the figure."""
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    texts += [text.get_text() for axes in figure.axes if (legend := axes.get_legend()) for text in legend.texts]
    for axes in figure.axes:
        texts += [axes.get_title(), axes.get_xlabel(), axes.get_ylabel()]
        texts += [label.get_text() for label in (*axes.get_xticklabels(), *axes.get_yticklabels())]
    return "\n".join(texts)


@pytest.mark.parametrize("name", [*FAMILIES, "arrays"])
def test_every_family_has_parameters_or_groups(name: str, images: Path) -> None:
    """Each task is in one group of each kind: a member, a domain, or the parts of each parameter."""
    family = family_named(name, images)
    found = choices_of(learner_of(family), family, seed=0, tasks=4 if name.startswith(("half_cheetah", "ant")) else 30)
    places = parameters(found.tasks)
    groups = groups_of(family, found.tasks, places)
    assert len(found.networks) == len(found.mean_sizes)
    assert bool(groups) == (name not in ("network", "arrays", *COLLECTIONS))
    if groups:
        times = np.sum(list(groups.values()), axis=0)
        assert len(set(times.tolist())) == 1
        assert times[0] == (1 if name in ("mixture", "omniglot") else len(places))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sinusoid", ["amplitude", "phase (rad)", "layers that the network was given"]),
        ("navigation", ["goal, x", "goal, y"]),
        ("mixture", ["sinusoid 1 (", "step (", "sinusoid 3 (", "share of tasks"]),
        ("omniglot", ["identity (", "inverted ("]),
        ("network", ["all tasks (30)"]),
    ],
)
def test_pictures_say_what_they_show(
    name: str, expected: list[str], images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    family, path = family_named(name, images), tmp_path / "routing.png"
    figure = drawn(monkeypatch, learner_of(family), family, path, seed=0, title="a title", tasks=30)
    assert figure.get_suptitle() == "a title"
    shown = words(figure)
    for each in ["gradient step size", *expected]:
        assert each in shown
    with Image.open(path) as picture:
        assert min(picture.size) > 200


def test_choices_are_those_of_the_episode() -> None:
    family = make_family("sinusoid")
    found = choices_of(learner_of(family), family, seed=0, tasks=12)
    assert found.layers.shape == found.sizes.shape == (HORIZON, 12)
    assert set(np.unique(found.layers[:DEPTH])) == {1, 3}
    assert not found.layers[DEPTH:].any(), "a full network takes no more"
    assert all(len(network) == DEPTH for network in found.networks)
    assert found.routed
    again = choices_of(learner_of(family), family.replace(split="train"), seed=0, tasks=12)
    np.testing.assert_array_equal(found.tasks["phase"], again.tasks["phase"], "held-out tasks, whatever the split")
    few = choices_of(learner_of(family), family, seed=3, tasks=5)
    np.testing.assert_array_equal(few.tasks["phase"], found.tasks["phase"][3:8])


def test_who_builds_the_same_network_is_shown_by_step_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = make_family("sinusoid")
    plan = plan_learner("plan", learner_of(family).pool, ARGUMENTS, (1, 2), 0.0)
    assert not choices_of(plan, family, seed=0, tasks=10).routed
    shown = words(drawn(monkeypatch, plan, family, tmp_path / "a.png", seed=0, title="", tasks=10))
    assert "size of step 1" in shown
    assert f"size of step {HORIZON}" in shown
    assert "layers that" not in shown


def test_a_learner_that_names_no_horizon(tmp_path: Path) -> None:
    family = make_family("sinusoid")
    learner = MetaLearner(
        "x", Plan(make_encoding("box", layer_and_step(LAYERS)), layer=(1,)), learner_of(family).pool, {"action": "box"}
    )
    assert len(choices_of(learner, family, seed=0, tasks=3).sizes) == 5


def test_the_legend_names_networks_by_how_common_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = Figure().subplots()
    layers = np.array([[1, 1, 1, 2], [3, 3, 0, 0]])
    choices = Choices({}, layers, np.ones((2, 4)), 3)
    assert choices.networks == [(1, 3), (1, 3), (1,), (2,)]
    routing._points_by_layers(axes, choices, np.arange(4.0), np.arange(4.0))
    assert legend_of(axes) == [
        "layers 1, 3 (50%)",
        "layer 1 (25%)",
        "layer 2 (25%)",
    ]


def test_where_networks_are_too_many_the_first_layer_decides() -> None:
    axes = Figure().subplots()
    layers = np.array([[1 + row % 2 for row in range(40)], list(range(1, 41))])
    choices = Choices({}, layers, np.ones((2, 40)), 40)
    routing._points_by_layers(axes, choices, np.arange(40.0), np.arange(40.0))
    assert axes.get_title() == "first layer that the network was given"
    assert legend_of(axes) == ["layer 1 (50%)", "layer 2 (50%)"]


def test_shares_are_those_of_the_group() -> None:
    layers = np.array([[1, 2, 0, 1], [2, 2, 0, 0]])
    figure = routing._plot_maps(
        Choices({}, layers, np.array([[0.1, 0.1, 0.4, 0.1], [0.2, 0.2, 0.2, 0.2]]), 2),
        {"a": np.array([True, True, False, False]), "b": np.array([False, False, True, True])},
    )
    shares, sizes = (axes.images[0].get_array() for axes in figure.axes[:2])
    np.testing.assert_allclose(np.asarray(shares), [[0.0, 0.5, 1.0], [0.5, 0.5, 0.0]])
    np.testing.assert_allclose(np.asarray(sizes), [[0.1, 0.2], [0.2, 0.2]])


def test_parameters_and_groups() -> None:
    tasks = {
        "slow_phase": np.linspace(0.0, 1.0, 30),
        "constant": np.ones(30),
        "place": np.stack([np.arange(30.0), np.ones(30), np.arange(30.0)], axis=1),
        "kind": np.arange(30) % 2,
        "many": np.arange(30),
        "wide": np.zeros((30, 5)),
    }
    places = parameters(tasks)
    assert list(places) == ["slow phase (rad)", "place, x", "place, z"]
    groups = groups_of(make_family("sinusoid"), tasks, places)
    assert list(groups)[:2] == ["kind 0", "kind 1"]
    parts = [rows for label, rows in groups.items() if label.startswith("slow phase")]
    assert [int(rows.sum()) for rows in parts] == [10, 10, 10]
    assert np.array(parts).sum(axis=0).tolist() == [1] * 30, "each task once"
