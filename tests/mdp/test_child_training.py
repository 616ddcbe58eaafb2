"""Child training against plain PyTorch loops: same weights, one network at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gym_reml.mdp.child_training import Child, Children, Criterion, CrossEntropy, Order, SquaredError
from gym_reml.networks.optimizers import OPTIMIZERS
from gym_reml.tasks.data_sets.base import DataSet, Examples

FEATURES, CLASSES, UPDATES = 6, 3, 7
MakeModule = Callable[[], nn.Module]


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))


class Attention(nn.Module):
    """Attention over the features, with a single number and a constant among its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("shift", torch.ones(1))
        self.embed, self.norm = nn.Linear(1, 4), nn.LayerNorm(4)
        self.attend, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x[..., None] * self.scale + self.get_buffer("shift"))
        return self.head(self.norm(self.attend(tokens, tokens, tokens, need_weights=False)[0]).mean(dim=-2))


def convolution() -> nn.Module:
    layers = [nn.Unflatten(-1, (1, 2, 3)), nn.Conv2d(1, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(24, CLASSES))


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    return nn.Sequential(nn.Linear(FEATURES, 8), norm, nn.ReLU(), nn.Linear(8, CLASSES))


class Reader(nn.Module):
    """Reads the features one after the other, by a recurrent module for which `torch.vmap` has no rule."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU] = nn.LSTM) -> None:
        super().__init__()
        self.memory, self.head = kind(1, 5, batch_first=True), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x[..., None])[0][:, -1])


MODULES: dict[str, MakeModule] = {
    "dense": dense,
    "attention": Attention,
    "convolution": convolution,
    "batch statistics": batch_norm,
    "LSTM": Reader,
    "GRU": partial(Reader, nn.GRU),
}


def examples(generator: np.random.Generator, count: int, regression: bool) -> Examples:
    inputs = torch.from_numpy(generator.standard_normal((count, FEATURES)).astype(np.float32))
    if regression:
        return Examples(inputs, inputs[:, :CLASSES].sin())
    return Examples(inputs, torch.from_numpy(generator.integers(CLASSES, size=count)))


def data_set(seed: int, batch_size: int = 4, regression: bool = False) -> DataSet:
    generator = np.random.default_rng(seed)
    train, validation, test = (examples(generator, count, regression) for count in (10 + seed % 3, 9, 9))
    return DataSet(train, validation, test, batch_size, CLASSES)


def child(seed: int, make: MakeModule = dense, **data: Any) -> Child:
    return Child(make, make, data_set(seed, **data), np.random.default_rng(seed))


def started(seeds: list[int], optimizer: str = "sgd", criterion: Criterion | None = None, **own: Any) -> Children:
    children = Children(len(seeds), OPTIMIZERS[optimizer], criterion or CrossEntropy())
    children.start(list(range(len(seeds))), [child(seed, **own) for seed in seeds])
    return children


def state(children: Children, row: int) -> dict[str, Tensor]:
    return children.network(row).state_dict()


TORCH: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": torch.optim.SGD,
    "momentum": lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9),
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
}
STEP_SIZES = {"sgd": 0.1, "momentum": 0.05, "adam": 0.01, "rmsprop": 0.005}


def loop(
    network: nn.Module,
    data: DataSet,
    generator: np.random.Generator,
    optimizer: str,
    loss: nn.Module,
    groups: list[dict[str, Any]] | None = None,
) -> None:
    """Training of one network as PyTorch's users write it."""
    network.train()
    stepper = TORCH[optimizer](groups or network.parameters(), lr=STEP_SIZES[optimizer])
    order = np.concatenate([generator.permutation(len(data.train)) for _ in range(20)])
    for update in range(UPDATES):
        places = order[update * data.batch_size : (update + 1) * data.batch_size]
        stepper.zero_grad()
        loss(network(data.train.inputs[places]), data.train.targets[places]).backward()
        stepper.step()


def test_some_rows_are_trained_with_changed_inputs() -> None:
    """As by a loop on changed data, while the others stay as they are."""
    seeds = [0, 1, 2, 3, 4, 5]
    children = Children(6, OPTIMIZERS["momentum"], CrossEntropy())
    children.start(seeds, [child(seed, batch_size=2 if seed == 3 else 4) for seed in seeds])
    networks = [children.network(row) for row in seeds]
    before = children.measure("validation")[0]

    def divided(inputs: Tensor, rows: list[int]) -> Tensor:
        return inputs / (1.0 + torch.tensor(rows)[:, None, None])

    for rows in ([4, 1, 3], [5]):
        children.update(UPDATES, np.full(6, STEP_SIZES["momentum"]), augmentation=divided, rows=rows)
    losses = children.measure("validation")[0]
    np.testing.assert_array_equal(losses[[0, 2]], before[[0, 2]])
    for row in (1, 3, 4, 5):
        generator = np.random.default_rng(row)
        generator.integers(2**63)  # the weights' seed
        data = data_set(row, 2 if row == 3 else 4)
        changed = replace(data, train=Examples(data.train.inputs / (1.0 + row), data.train.targets))
        loop(networks[row], changed, generator, "momentum", nn.CrossEntropyLoss())
        with torch.no_grad():
            expected = nn.functional.cross_entropy(networks[row](data.validation.inputs), data.validation.targets)
        assert losses[row] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("optimizer", TORCH)
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_children_are_trained_as_by_a_plain_loop(make: MakeModule, optimizer: str) -> None:
    """Side by side, with minibatches of two sizes, and alone."""
    seeds = [0, 1, 2, 3, 4]
    for used in (seeds, seeds[:1]):
        sizes = [2 if seed == 3 else 4 for seed in used]
        children = Children(len(used), OPTIMIZERS[optimizer], CrossEntropy())
        begun = [child(seed, make, batch_size=size) for seed, size in zip(used, sizes, strict=True)]
        children.start(list(range(len(used))), begun)
        networks = [children.network(row) for row in range(len(used))]
        children.update(3, np.full(len(used), STEP_SIZES[optimizer]))
        children.update(UPDATES - 3, np.full(len(used), STEP_SIZES[optimizer]))
        losses, accuracies = children.measure("validation")
        for row, (seed, size) in enumerate(zip(used, sizes, strict=True)):
            generator = np.random.default_rng(seed)
            generator.integers(2**63)  # the weights' seed
            data = data_set(seed, size)
            loop(networks[row], data, generator, optimizer, nn.CrossEntropyLoss())
            with torch.no_grad():
                outputs = networks[row](data.validation.inputs)
                found = children.network(row)(data.validation.inputs)
            # Not the weights: attention does not depend on the keys' bias, which Adam moves by rounding errors.
            torch.testing.assert_close(found, outputs, rtol=1e-4, atol=1e-4)
            assert losses[row] == pytest.approx(
                float(nn.functional.cross_entropy(outputs, data.validation.targets)), rel=1e-4
            )
            correct = (outputs.argmax(1) == data.validation.targets).double().mean()
            assert accuracies[row] == pytest.approx(float(correct))


def test_numbers_are_predicted_by_squared_error() -> None:
    children = started([0, 1, 2, 3], criterion=SquaredError(), regression=True)
    networks = [children.network(row) for row in range(4)]
    progress = children.update(UPDATES, np.full(4, 0.1))
    losses, scores = children.measure("test")
    for row, network in enumerate(networks):
        generator = np.random.default_rng(row)
        generator.integers(2**63)
        data = data_set(row, regression=True)
        loop(network, data, generator, "sgd", nn.MSELoss())
        assert data.test is not None
        error = float((network(data.test.inputs).detach() - data.test.targets).square().mean())
        assert (losses[row], scores[row]) == pytest.approx((error, -np.log1p(error)), rel=1e-4)
    assert np.isfinite(progress.loss).all()


def test_what_agents_observe_of_an_update() -> None:
    """Norms, ratios and cosines, from the weights and gradients of a loop."""
    children = started([5])
    network = children.network(0)
    progress = children.update(3, np.full(1, 0.1))
    generator = np.random.default_rng(5)
    generator.integers(2**63)
    data = data_set(5)
    order = np.concatenate([generator.permutation(len(data.train)) for _ in range(3)])
    layers, before = (
        [network.get_submodule(name) for name in "02"],
        [value.clone() for value in network.state_dict().values()],
    )
    gradients, losses = [torch.zeros(8 * FEATURES + 8 + 8 * CLASSES + CLASSES)], []
    edge = 8 * FEATURES + 8
    for update in range(3):
        places = order[4 * update : 4 * update + 4]
        loss = nn.functional.cross_entropy(network(data.train.inputs[places]), data.train.targets[places])
        found = torch.autograd.grad(loss, list(network.parameters()))
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), found, strict=True):
                parameter.sub_(0.1 * gradient)
    assert progress.loss[0] == pytest.approx(np.mean(losses), rel=1e-5)
    for group, part in enumerate((slice(edge), slice(edge, None))):
        own = [gradient[part] for gradient in gradients]
        assert progress.gradient_norms[0, group] == pytest.approx(
            float(torch.stack([one.square().sum() for one in own[1:]]).mean().sqrt()), rel=1e-4
        )
        cosines = [float(nn.functional.cosine_similarity(own[i], own[i + 1], dim=0)) for i in range(3)]
        assert progress.alignments[0, group] == pytest.approx(np.mean([0.0, *cosines[1:]]), abs=1e-5)
        now = torch.cat([value.flatten() for value in layers[group].state_dict().values()])
        then = torch.cat([value.flatten() for value in before[2 * group : 2 * group + 2]])
        assert progress.update_ratios[0, group] == pytest.approx(float((now - then).norm() / then.norm()), rel=1e-4)


def test_what_is_not_asked_for_is_not_measured_and_changes_nothing() -> None:
    children, others = started([0, 1], "momentum"), started([0, 1], "momentum")
    whole, part = (
        each.update(5, np.full(2, 0.1), by_groups=by_groups) for each, by_groups in ((children, True), (others, False))
    )
    for name in ("gradient_norms", "update_ratios", "alignments"):
        assert getattr(whole, name).any()
        assert not getattr(part, name).any()
    np.testing.assert_array_equal(part.loss, whole.loss)
    for row in range(2):
        for name, tensor in state(children, row).items():
            assert torch.equal(tensor, state(others, row)[name])


def test_momentum_and_decay_are_each_childs_own() -> None:
    momenta, decays = np.array([0.0, 0.5, 0.99, 0.9]), np.array([0.0, 0.1, 0.2, 0.3])
    children = started([0, 1, 2, 3], "momentum")
    networks = [children.network(row) for row in range(4)]
    children.update(UPDATES, np.full(4, 0.05), momentum=momenta, weight_decay=decays)
    for row, network in enumerate(networks):
        generator = np.random.default_rng(row)
        generator.integers(2**63)
        data, velocity = data_set(row), [torch.zeros_like(value) for value in network.parameters()]
        order = np.concatenate([generator.permutation(len(data.train)) for _ in range(20)])
        for update in range(UPDATES):
            places = order[4 * update : 4 * update + 4]
            loss = nn.functional.cross_entropy(network(data.train.inputs[places]), data.train.targets[places])
            found = torch.autograd.grad(loss, list(network.parameters()))
            with torch.no_grad():
                for place, (parameter, gradient) in enumerate(zip(network.parameters(), found, strict=True)):
                    velocity[place] = momenta[row] * velocity[place] + gradient
                    parameter.sub_(0.05 * (velocity[place] + decays[row] * parameter))
        for name, value in network.state_dict().items():
            torch.testing.assert_close(state(children, row)[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimizer", TORCH)
def test_each_group_of_parameters_has_a_step_size_of_its_own(optimizer: str) -> None:
    """As by an optimizer of torch with a group for each child of the module."""
    seeds = [0, 1, 2, 3, 4]
    children = started(seeds, optimizer, make=Attention)
    assert children.groups == ("", "embed", "norm", "attend", "head")
    networks = [children.network(row) for row in seeds]
    step_sizes = STEP_SIZES[optimizer] * np.random.default_rng(0).uniform(0.1, 2.0, (5, 5))
    step_sizes[0, 1] = 0.0
    frozen = [value.clone() for name, value in state(children, 0).items() if name.startswith("embed")]
    children.update(UPDATES, step_sizes)
    for row, network in enumerate(networks):
        generator = np.random.default_rng(seeds[row])
        generator.integers(2**63)
        owned = [[value for name, value in network.named_parameters() if "." not in name]]
        owned += [list(child.parameters()) for child in network.children()]
        groups = [{"params": own, "lr": size} for own, size in zip(owned, step_sizes[row].tolist(), strict=True)]
        data = data_set(seeds[row])
        loop(network, data, generator, optimizer, nn.CrossEntropyLoss(), groups)
        with torch.no_grad():
            outputs, found = (one(data.validation.inputs) for one in (network, children.network(row)))
        torch.testing.assert_close(found, outputs, rtol=1e-4, atol=1e-4)
    for now, then in zip(children.network(0).get_submodule("embed").parameters(), frozen, strict=True):
        assert torch.equal(now, then)


class Wrapper(nn.Module):
    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside

    def forward(self, x: Tensor) -> Tensor:
        return self.inside(x)


class Owner(Wrapper):
    """With a parameter and a frozen one beside its child."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__(inside)
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.scale * self.frozen)


GROUPS: dict[str, tuple[MakeModule, tuple[str, ...]]] = {
    "children": (dense, ("0", "2")),
    "one module": (lambda: nn.Linear(FEATURES, CLASSES), ("",)),
    "blocks": (lambda: nn.Sequential(nn.Sequential(dense()), nn.Tanh(), nn.Linear(CLASSES, CLASSES)), ("0", "2")),
    "wrapped": (lambda: Wrapper(Wrapper(dense())), ("inside.inside.0", "inside.inside.2")),
    "owner": (lambda: Owner(dense()), ("", "inside")),
    "wrapped owner": (lambda: Wrapper(Owner(dense())), ("inside", "inside.inside")),
}


@pytest.mark.parametrize(("make", "names"), GROUPS.values(), ids=GROUPS)
def test_groups_are_the_children_of_the_module(make: MakeModule, names: tuple[str, ...]) -> None:
    children = started([0], make=make)
    assert children.groups == names
    assert children.update(2, np.full(1, 0.1)).gradient_norms.shape == (1, len(names))


def test_rows_are_independent_and_may_start_at_any_time() -> None:
    children = started([0, 1, 2, 3, 4], "adam")
    children.update(3, np.full(5, 0.01))
    children.start([3, 1], [child(8), child(9, batch_size=2)])
    children.update(2, np.full(5, 0.01))
    for row, seed, size, updates in ((0, 0, 4, 5), (1, 9, 2, 2), (2, 2, 4, 5), (3, 8, 4, 2), (4, 4, 4, 5)):
        alone = started([seed], "adam", batch_size=size)
        alone.update(updates, np.full(1, 0.01))
        for name, value in state(alone, 0).items():
            torch.testing.assert_close(state(children, row)[name], value, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(children.measure("test")[0][row], alone.measure("test")[0][0], rtol=1e-4)


def test_a_child_that_diverges_counts_as_untrained_and_leaves_others_alone() -> None:
    def make() -> nn.Module:
        return nn.Sequential(nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, CLASSES))

    children, calm = started([0, 1, 2], make=make), started([0, 1, 2], make=make)
    initial = children.measure("validation")
    steps = np.full(3, 0.1)
    calm.update(4, steps)
    children.update(2, steps)
    steps[1] = 1e30
    progress = children.update(2, steps)
    assert children.diverged.tolist() == [False, True, False]
    kept = state(children, 1)
    assert all(value.isfinite().all() for value in kept.values())
    steps[1] = 0.1
    children.update(2, steps)
    for name, value in state(children, 1).items():
        assert torch.equal(value, kept[name]), "it is trained no more"
    for found, first in zip(children.measure("validation"), initial, strict=True):
        assert found[1] == first[1]
    for values in vars(progress).values():
        assert np.isfinite(values).all()
    calm.update(2, np.full(3, 0.1))
    for row in (0, 2):
        for name, value in state(calm, row).items():
            torch.testing.assert_close(state(children, row)[name], value)
    children.start([1], [child(1, make)])
    assert not children.diverged.any()
    for name, value in state(started([0, 1, 2], make=make), 1).items():
        torch.testing.assert_close(state(children, 1)[name], value)


def test_data_that_a_network_cannot_read_are_a_run_that_diverged() -> None:
    broken = child(0)
    broken.data.train.inputs.fill_(torch.inf)
    children = Children(1, OPTIMIZERS["sgd"], CrossEntropy())
    progress = children.start([0], [broken])
    assert children.diverged.all()
    assert np.isfinite(progress.loss).all()


def test_children_on_one_data_set_share_its_memory() -> None:
    data = data_set(0)
    children = Children(4, OPTIMIZERS["sgd"], CrossEntropy())
    children.start(range(4), [child(seed)._replace(data=data) for seed in range(4)])
    children.update(3, np.full(4, 0.1))
    (group,) = children._groups.values()
    assert len(group.train) == len(data.train)
    assert group.held_out["test"].inputs.stride(0) == 0
    for row in range(4):
        alone = Children(1, OPTIMIZERS["sgd"], CrossEntropy())
        alone.start([0], [child(row)._replace(data=data)])
        alone.update(3, np.full(1, 0.1))
        for name, value in state(alone, 0).items():
            torch.testing.assert_close(state(children, row)[name], value, rtol=1e-4, atol=1e-5)


def test_an_order_takes_every_example_once_before_any_twice() -> None:
    order = Order(5, np.random.default_rng(0))
    taken = np.concatenate([order.take(count) for count in (2, 4, 7, 2)])
    assert all(sorted(epoch) == list(range(5)) for epoch in taken.reshape(3, 5).tolist())


def test_random_numbers_of_accelerators_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def seed_all(seed: int) -> None:
        raise AssertionError("seeded")

    monkeypatch.setattr(torch.cuda, "manual_seed_all", seed_all)
    started([0, 1])


def test_nothing_depends_on_global_settings() -> None:
    expected = started([0, 1, 2, 3])
    expected.update(2, np.full(4, 0.1))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    with torch.inference_mode():
        children = started([0, 1, 2, 3])
        children.update(2, np.full(4, 0.1))
    assert torch.equal(before, torch.get_rng_state())
    for row in range(4):
        for name, value in state(children, row).items():
            assert torch.equal(value, state(expected, row)[name])


class InPlace(nn.Linear):
    """Adds to its input in place."""

    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x += 1.0
        return super().forward(x)


def test_data_stay_as_they_are() -> None:
    given = child(0, make=InPlace)
    before = given.data.train.inputs.clone()
    children = Children(1, OPTIMIZERS["sgd"], CrossEntropy())
    children.start([0], [given])
    assert torch.equal(given.data.train.inputs, before)


class Counting(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.get_buffer("calls").add_(1)
        return super().forward(x)


class Branching(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Detached(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).detach()


REFUSED: dict[str, tuple[MakeModule, str]] = {
    "running statistics": (lambda: nn.Sequential(nn.BatchNorm1d(FEATURES), dense()), r"BatchNorm1d.*'0'.*GroupNorm"),
    "dropout": (lambda: nn.Sequential(dense(), nn.Dropout(0.5)), r"Dropout at '1'"),
    "changes in place": (Counting, "calls|Counting"),
    "branches": (lambda: nn.Sequential(nn.Identity(), Branching(FEATURES, CLASSES)), r"Branching at '1'"),
    "another shape": (lambda: nn.Linear(FEATURES, 5), r"\(2, 6\) to \(2, 5\), must map them to \(2, 3\)"),
    "nothing to train": (nn.Identity, "no parameters"),
    "no derivative": (Detached, "no derivative with respect to any of its weights"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("count", [1, 4])
def test_what_cannot_be_trained_side_by_side_is_named(make: MakeModule, message: str, count: int) -> None:
    with pytest.raises(ValueError, match=rf"(?s)module: .*{message}"):
        started(list(range(count)), make=make)


def test_a_child_that_is_given_for_several_rows_begins_alike_in_all() -> None:
    children = Children(3, OPTIMIZERS["sgd"], CrossEntropy())
    one = child(1)
    children.start([0, 1, 2], [one, child(2), one])
    children.update(UPDATES, np.array([0.1, 0.1, 0.1]))
    alone = started([1])
    alone.update(UPDATES, np.array([0.1]))
    for row in (0, 2):
        for name, weight in state(alone, 0).items():
            torch.testing.assert_close(state(children, row)[name], weight)
    children.update(UPDATES, np.array([0.1, 0.1, 0.0]))
    assert not torch.equal(state(children, 0)["0.weight"], state(children, 2)["0.weight"])


def test_a_rule_takes_the_place_of_the_optimizer() -> None:
    """Of two groups, with minibatches of different sizes."""

    def halved(gradient: Tensor, weights: Tensor, rows: list[int]) -> Tensor:
        seen.append(rows)
        return gradient / 2.0 + 0.01 * weights

    seen: list[list[int]] = []
    ours, theirs = Children(3, OPTIMIZERS["sgd"], CrossEntropy()), Children(3, OPTIMIZERS["sgd"], CrossEntropy())
    for children in (ours, theirs):
        children.start([0, 1, 2], [child(0), child(1, batch_size=2), child(2)])
    ours.update(UPDATES, np.full(3, 0.2), rule=halved)
    theirs.update(UPDATES, np.full(3, 0.1), weight_decay=np.full(3, 0.02))
    for row in range(3):
        for name, weight in state(theirs, row).items():
            torch.testing.assert_close(state(ours, row)[name], weight)
    assert [rows for rows in seen if rows == [1]] == [[1]] * UPDATES
