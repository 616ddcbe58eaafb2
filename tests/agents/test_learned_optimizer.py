"""Learned optimizers: against loops in plain PyTorch, differences, torch's optimizers, and after a short training."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from agents.comparison import optimizers
from agents.comparison.benchmarks import BENCHMARKS
from agents.comparison.entrants import ENTRANTS
from agents.comparison.jobs import Job
from agents.comparison.summarise import rows_of
from agents.learned_optimizer import entering, per_parameter, training, tuned
from agents.learned_optimizer.descent import DIVERGED, FLOOR, Fixed, descend
from agents.learned_optimizer.entering import OptimizerProblem, train_rule
from agents.learned_optimizer.hierarchical import SCALES, Hierarchical
from agents.learned_optimizer.layout import Layout, flatten
from agents.learned_optimizer.problems import PROBLEMS, ProblemFamily, Problems
from agents.learned_optimizer.rule import Rule, load_rule, save_rule
from agents.learned_optimizer.step_sizes import HORIZON, UPDATES, Runs, StepSizeEnvs, descend_by, train_agent
from agents.learned_optimizer.table import RULES
from agents.learned_optimizer.torch_optimizer import LearnedOptimizer
from agents.learned_optimizer.training import OFFSET, MetaRecipe, begin, train, unroll
from agents.learned_optimizer.tuned import RATES, try_all, tuned_for_family, tuned_for_problem
from agents.rivals import maml
from agents.tuning.training import TuningRecipe
from gym_reml.files import save_atomically
from gym_reml.tasks.blobs import Blobs
from gym_reml.tasks.landscapes import Landscape

BOWL, MLP = PROBLEMS["bowl"], ProblemFamily(Blobs(shots=4, ways=3, features=3), hidden=(4,), batch=6)
KINDS = {"point": PROBLEMS["rosenbrock"], "network": MLP}
EVERY = pytest.mark.parametrize("name", RULES)


@pytest.fixture(autouse=True)
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules under training are tried on few validation problems, for few steps."""
    monkeypatch.setattr(training, "CHECKED", (20, 60))
    monkeypatch.setattr(training, "VALIDATED", 4)


def made(name: str, seed: int = 0) -> Rule:
    """A rule with more random weights than a new one, so that nothing is hidden by small or zero weights."""
    generator = torch.Generator().manual_seed(seed)
    rule = RULES[name](generator)
    with torch.no_grad():
        for weight in rule.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=generator))
    return rule


def as_double(problems: Problems) -> Problems:
    return replace(
        problems,
        everything=problems.everything.to(torch.device("cpu"), torch.float64),
        start=problems.start.double(),
    )


# -- plain loops ------------------------------------------------------------------------------------------------------


def plain_hierarchical(rule: Hierarchical) -> Callable[[list[Tensor]], list[Tensor]]:
    """The steps of one problem, tensor by tensor and scale by scale, with torch's own recurrent unit."""
    memory: dict[str, Any] = {}

    def gru(cell: Any, inputs: Tensor, hidden: Tensor, above: Tensor | None = None) -> Tensor:
        bias = cell.inputs.bias if above is None else cell.inputs.bias + cell.above.weight @ above
        rows = torch.atleast_2d(inputs), torch.atleast_2d(hidden)
        return torch.gru_cell(*rows, cell.inputs.weight, cell.hidden.weight, bias, cell.hidden.bias).view_as(hidden)

    def step(gradients: list[Tensor]) -> list[Tensor]:
        sizes = [gradient.numel() for gradient in gradients]
        if not memory:
            like = gradients[0]
            memory.update(
                taken=0,
                averages=[[like.new_zeros(size) for _ in range(SCALES)] for size in sizes],
                squares=[[like.new_zeros(size) for _ in range(SCALES)] for size in sizes],
                own=[like.new_zeros(size, 10) for size in sizes],
                tensor=[like.new_zeros(20) for _ in sizes],
                problem=like.new_zeros(20),
                rate=[rule.first_log_rate.expand(size) for size in sizes],
                mean=[rule.first_log_rate.expand(size) for size in sizes],
            )
        most = memory["taken"] / (memory["taken"] + 1.0)
        average_rate = torch.cat(memory["rate"]).mean()
        steps = []
        for t, gradient in enumerate(gradients):
            flat, own = gradient.flatten(), memory["own"][t]
            slowest = torch.sigmoid(own @ rule.read.weight[2:].T + rule.read.bias[2:])
            scaled, magnitudes = [], []
            for s in range(SCALES):
                first, second = (slowest[:, k] ** (2.0**s) for k in (0, 1))
                first, second = first.clamp(max=most), second.clamp(max=most)
                memory["averages"][t][s] = first * memory["averages"][t][s] + (1.0 - first) * flat
                square = memory["averages"][t][s] ** 2
                memory["squares"][t][s] = second * memory["squares"][t][s] + (1.0 - second) * square
                scaled.append(memory["averages"][t][s] / (memory["squares"][t][s] + 1e-24).sqrt())
                magnitudes.append((memory["squares"][t][s] + 1e-24).sqrt().log())
            mean_magnitude = torch.stack(magnitudes).mean(dim=0)
            inputs = torch.stack(
                [
                    *scaled,
                    *(scaled[s + 1] * scaled[s] for s in range(SCALES - 1)),
                    *(magnitude - mean_magnitude for magnitude in magnitudes),
                    memory["rate"][t] - average_rate,
                ],
                dim=1,
            )
            memory["own"][t] = own = gru(rule.parameter, inputs, own, memory["tensor"][t])
            read = own @ rule.read.weight.T + rule.read.bias
            direction = read[:, 0] + sum(rule.shortcut[s] * scaled[s] for s in range(SCALES))
            memory["rate"][t] = memory["mean"][t] + read[:, 1]
            inertia = torch.sigmoid(rule.inertia)
            memory["mean"][t] = inertia * memory["mean"][t] + (1.0 - inertia) * memory["rate"][t]
            size = (direction.square().mean() + 1e-12).sqrt()
            steps.append((-memory["rate"][t].exp() * direction / size).reshape(gradient.shape))
        for t, own in enumerate(memory["own"]):
            memory["tensor"][t] = gru(rule.tensor, own.mean(dim=0), memory["tensor"][t], memory["problem"])
        memory["problem"] = gru(rule.problem, torch.stack(memory["tensor"]).mean(dim=0), memory["problem"])
        memory["taken"] += 1
        return steps

    return step


def plain_per_parameter(rule: Any) -> Callable[[list[Tensor]], list[Tensor]]:
    """The steps of one problem, parameter by parameter."""
    history: list[list[Tensor]] = []

    def average(values: list[Tensor], decay: float) -> Tensor:
        total = torch.zeros_like(values[0])
        for t, value in enumerate(values):
            own = min(decay, t / (t + 1.0))
            total = own * total + (1.0 - own) * value
        return total

    def step(gradients: list[Tensor]) -> list[Tensor]:
        history.append(gradients)
        steps, taken = [], len(history) - 1
        for t, gradient in enumerate(gradients):
            past = [each[t] for each in history]
            averages = [average(past, decay) for decay in per_parameter.MOMENTA]
            fast, slow = (average([g.square() for g in past], decay) for decay in per_parameter.SQUARES)
            scaled = torch.stack([each / (slow + 1e-24).sqrt() for each in (gradient, *averages)], dim=-1)
            ratio = ((fast + 1e-24).log() - (slow + 1e-24).log()) / 4.0
            first, last = averages[0], averages[2]
            cosine = (first * last).mean() / (first.square().mean() * last.square().mean() + 1e-24).sqrt()
            clock = torch.tensor([np.tanh(taken / scale) for scale in per_parameter.CLOCKS], dtype=gradient.dtype)
            shape = (*gradient.shape, 1)
            inputs = torch.cat(
                [
                    scaled.clamp(-5, 5),
                    ratio.clamp(-5, 5).unsqueeze(-1),
                    cosine.expand(shape),
                    clock.expand(*gradient.shape, -1),
                ],
                dim=-1,
            )
            read = rule.read(torch.relu(rule.second(torch.relu(rule.first(inputs)))))
            direction = read[..., 0] + (scaled * rule.shortcut).sum(dim=-1)
            steps.append(-per_parameter.STEP * direction * read[..., 1].exp())
        return steps

    return step


PLAIN: dict[str, Any] = {"hierarchical": plain_hierarchical, "per_parameter": plain_per_parameter}


def plain_meta_loss(rule: Rule, problems: Problems, steps: int) -> Tensor:
    """The meta-loss of an unroll from the start, problem by problem."""
    batches = [problems.minibatch() for _ in range(steps + 1)]
    total = torch.zeros((), dtype=torch.float64)
    for row in range(len(problems)):
        index = torch.tensor([row])
        everything = problems.everything.rows(index)
        first = float(problems.loss(problems.start[index], everything))
        weights = [part[0].requires_grad_() for part in problems.kind.layout.cut(problems.start[index])]
        step = PLAIN[rule.name](rule)
        for t in range(steps):
            loss = problems.loss(flatten([each[None] for each in weights]), batches[t].rows(index))[0]
            gradients = torch.autograd.grad(loss, weights, create_graph=True)
            weights = [weight + change for weight, change in zip(weights, step(list(gradients)), strict=True)]
            after = problems.loss(flatten([each[None] for each in weights]), batches[t + 1].rows(index))[0]
            total = total + torch.log(after / (first + OFFSET) + OFFSET) / (steps * len(problems))
    return total


@EVERY
@pytest.mark.parametrize("kind", KINDS)
def test_the_meta_gradient_is_that_of_a_plain_loop(name: str, kind: str) -> None:
    rule = made(name).double()
    found = unroll(rule, begin(rule, as_double(KINDS[kind].drawn(0, 3, "train")), 1), 6)
    gradients = torch.autograd.grad(found, list(rule.parameters()), allow_unused=True)
    expected = plain_meta_loss(rule, as_double(KINDS[kind].drawn(0, 3, "train")), 6)
    theirs = torch.autograd.grad(expected, list(rule.parameters()), allow_unused=True)
    torch.testing.assert_close(found, expected)
    for own, other in zip(gradients, theirs, strict=True):
        assert (own is None) == (other is None)
        if own is not None and other is not None:
            torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-9)


@EVERY
def test_the_meta_gradient_is_that_of_differences(name: str) -> None:
    rule = made(name).double()
    generator = torch.Generator().manual_seed(1)
    towards = [torch.randn(weight.shape, generator=generator, dtype=torch.float64) for weight in rule.parameters()]

    def meta_loss(distance: float) -> Tensor:
        moved = copy.deepcopy(rule)
        with torch.no_grad():
            for weight, direction in zip(moved.parameters(), towards, strict=True):
                weight.add_(distance * direction)
        return unroll(moved, begin(moved, as_double(PROBLEMS["quadratic"].drawn(0, 3, "train")), 1), 5).detach()

    loss = unroll(rule, begin(rule, as_double(PROBLEMS["quadratic"].drawn(0, 3, "train")), 1), 5)
    loss.backward()
    slope = sum(
        float((weight.grad * direction).sum())
        for weight, direction in zip(rule.parameters(), towards, strict=True)
        if weight.grad is not None
    )
    step = 1e-6
    assert slope == pytest.approx(float(meta_loss(step) - meta_loss(-step)) / (2.0 * step), rel=1e-4)


@EVERY
def test_truncated_unrolls_go_on_where_they_were_and_pass_no_gradient_back(name: str) -> None:
    rule = made(name)
    whole, cut = (begin(rule, MLP.drawn(0, 2, "train"), 2) for _ in range(2))
    # The minibatch after the last step is drawn once more by the next unroll, so without minibatches.
    for course in (whole, cut):
        course.problems.kind = replace(MLP, batch=None)
    unroll(rule, whole, 6)
    unroll(rule, cut, 3)
    assert not any(tensor.requires_grad for tensor in (cut.parameters, *cut.state.values()))
    unroll(rule, cut, 3)
    assert (whole.left, cut.left) == (1, 0)
    torch.testing.assert_close(cut.parameters, whole.parameters)
    for key, tensor in whole.state.items():
        torch.testing.assert_close(cut.state[key], tensor)


# -- the face of torch, and files -------------------------------------------------------------------------------------


def network_of(problems: Problems, row: int) -> Any:
    """A row's initial network as a module."""
    parts: Any = problems.kind.layout.cut(problems.start)
    (inputs, width), (_, outputs) = parts[0].shape[1:], parts[2].shape[1:]
    network: Any = nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, outputs))
    with torch.no_grad():
        for layer, weight, bias in ((network[0], parts[0], parts[1]), (network[2], parts[2], parts[3])):
            layer.weight.copy_(weight[row].T)
            layer.bias.copy_(bias[row, 0])
    return network


def gradients_of(network: nn.Module, problems: Problems, row: int) -> None:
    network.zero_grad()
    batch = problems.minibatch().rows(torch.tensor([row]))
    nn.functional.cross_entropy(network(batch.inputs[0]), batch.targets[0]).backward()


@EVERY
def test_the_optimizer_of_torch_takes_the_same_steps(name: str) -> None:
    rule = made(name)
    problems = MLP.drawn(0, 3, "test")
    descent = descend(rule, problems, (1, 10, 20))
    problems = MLP.drawn(0, 3, "test")
    network = network_of(problems, 1)
    optimizer = LearnedOptimizer(network.parameters(), rule)
    everything = problems.everything
    first = nn.functional.cross_entropy(network(everything.inputs[1]), everything.targets[1])
    for step in range(1, 21):
        gradients_of(network, problems, 1)
        optimizer.step()
        if step in (1, 10, 20):
            loss = nn.functional.cross_entropy(network(everything.inputs[1]), everything.targets[1])
            expected = descent.log_ratio[(1, 10, 20).index(step), 1]
            assert torch.log10(loss / first + FLOOR).item() == pytest.approx(expected, abs=2e-4 if step > 1 else 1e-6)


@EVERY
def test_one_step_of_torch_is_that_of_the_batch(name: str) -> None:
    """From the same gradients, the numbers agree to the last bits."""
    rule, layout = made(name), Layout(((3, 2), (2,), ()))
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator).requires_grad_() for shape in layout.shapes]
    parameters = torch.cat([weight.detach().reshape(1, -1) for weight in weights], dim=1).repeat(4, 1)
    optimizer, state = LearnedOptimizer(weights, rule), rule.initial(layout, 4)
    for _ in range(15):
        gradients = torch.randn(4, layout.count, generator=generator)
        for weight, part in zip(weights, layout.cut(gradients), strict=True):
            weight.grad = part[2].clone()
        optimizer.step()
        with torch.no_grad():
            change, state = rule(gradients, parameters, state, layout)
        parameters = parameters + change
        own = torch.cat([weight.detach().reshape(-1) for weight in weights])
        torch.testing.assert_close(own, parameters[2], rtol=1e-5, atol=1e-6)


@EVERY
def test_what_is_saved_takes_the_same_steps(name: str, tmp_path: Path) -> None:
    rule, path = made(name), tmp_path / "rule.pt"
    save_rule(rule, path, {"seed": 3})
    again, about = load_rule(path, RULES)
    assert about == {"seed": 3}
    problems = [BOWL.drawn(0, 2, "test") for _ in range(2)]
    first, second = (descend(each, p, (5,)).log_ratio for each, p in zip((rule, again), problems, strict=True))
    np.testing.assert_array_equal(first, second)
    # An optimizer is continued from its state, as every one of torch.
    networks = [nn.Linear(3, 2) for _ in range(2)]
    networks[1].load_state_dict(networks[0].state_dict())
    one, other = (LearnedOptimizer(network.parameters(), path) for network in networks)
    inputs = torch.ones(4, 3)

    def step(network: nn.Module, optimizer: Any) -> Any:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss: Tensor = network(inputs).square().mean()
            loss.backward()
            return loss

        return optimizer.step(closure)

    assert step(networks[0], one).item() > 0.0
    save_atomically(one.state_dict(), tmp_path / "state.pt")
    networks[1].load_state_dict(networks[0].state_dict())
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for network, optimizer in zip(networks, (one, other), strict=True):
        step(network, optimizer)
    torch.testing.assert_close(networks[0].weight, networks[1].weight, rtol=0, atol=0)


def test_parameters_without_a_gradient_stay() -> None:
    used, unused = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    optimizer = LearnedOptimizer([used, unused], made("hierarchical"))
    used.square().sum().backward()
    optimizer.step()
    assert (used != 1.0).all()
    assert (unused == 1.0).all()
    optimizer.add_param_group({"params": [torch.ones(1, requires_grad=True)]})
    with pytest.raises(ValueError, match="params: have 6 numbers, had 5 at the first step"):
        optimizer.step()


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rule.pt"
    save_atomically({"format": "another"}, path)
    with pytest.raises(ValueError, match="no learned optimizer this version reads"):
        load_rule(path, RULES)
    rule = made("per_parameter")
    changes: tuple[dict[str, Any], ...] = ({"rule": "unheard of"}, {"weights": {}}, {"about": "{"})
    for change in changes:
        save_rule(rule, path)
        save_atomically(torch.load(path, weights_only=True) | change, path)
        with pytest.raises(ValueError, match="a damaged learned optimizer"):
            LearnedOptimizer([torch.ones(1, requires_grad=True)], path)


# -- training ---------------------------------------------------------------------------------------------------------


@EVERY
def test_a_short_training_lowers_the_loss(name: str, tmp_path: Path) -> None:
    families = {key: PROBLEMS[key] for key in ("quadratic", "branin")}  # the second is held out
    recipe = MetaRecipe(updates=60, unroll=20, mean_unrolls=2.0, problems=4, learning_rate=0.01, checks=2)
    reported: list[int] = []
    trained = train(
        name, recipe, seed=0, folder=tmp_path, families=families, report=lambda update, loss: reported.append(update)
    )
    assert reported == list(range(60))
    untrained = RULES[name](torch.Generator().manual_seed(0))
    before, after = (
        descend(rule, families["quadratic"].drawn(0, 16, "test"), (50,)).log_ratio for rule in (untrained, trained.rule)
    )
    assert after.mean() < before.mean() - 0.5
    assert (trained.gradients, trained.problems % 4) == (60 * 20 * 4, 0)
    assert trained.parameters == sum(weight.numel() for weight in untrained.parameters())
    again = train(name, recipe, seed=1, folder=tmp_path, families=families)
    assert again.seconds == trained.seconds
    other = next(key for key in RULES if key != name)
    with pytest.raises(ValueError, match=f"holds '{name}', not '{other}'"):
        train(other, recipe, seed=0, folder=tmp_path)


def test_the_rule_that_does_best_on_validation_problems_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores, tried = [3.0, 1.0, 2.0], []

    def score(rule: Rule, families: dict[str, ProblemFamily]) -> float:
        tried.append(rule.get_parameter("read.weight").detach().clone())
        return scores[len(tried) - 1]

    monkeypatch.setattr(training, "validate", score)
    recipe = MetaRecipe(updates=6, unroll=3, problems=2, checks=3)
    kept = train("per_parameter", recipe, seed=0, folder=tmp_path).rule
    assert len(tried) == 3
    torch.testing.assert_close(kept.get_parameter("read.weight"), tried[1], rtol=0, atol=0)
    assert (tried[1] != tried[2]).any()


def test_no_more_problems_are_drawn_than_allowed(tmp_path: Path) -> None:
    recipe = MetaRecipe(updates=4, unroll=2, problems=4, mean_unrolls=0.5).with_at_most(10)
    trained = train("per_parameter", recipe, seed=0, folder=tmp_path)
    assert (recipe.problems, recipe.updates, trained.problems) == (4, 2, 8)
    assert MetaRecipe().with_at_most(3).problems == 3


def test_training_follows_from_the_seed(tmp_path: Path) -> None:
    recipe = MetaRecipe(updates=4, unroll=3, problems=2)
    found: list[Any] = [
        train("per_parameter", recipe, seed=seed, folder=tmp_path / str(run)).rule.get_parameter("read.weight")
        for run, seed in enumerate((0, 0, 1))
    ]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
    assert (found[0] != found[2]).all()


def test_what_explodes_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(per_parameter, "STEP", 1e30)
    recipe = MetaRecipe(updates=3, unroll=3, problems=2, mean_unrolls=100.0)
    trained = train("per_parameter", recipe, seed=0, folder=tmp_path, families={"rosenbrock": PROBLEMS["rosenbrock"]})
    assert trained.problems == 6
    assert all(weight.isfinite().all() for weight in trained.rule.parameters())
    descent = descend(trained.rule, PROBLEMS["rosenbrock"].drawn(0, 3, "test"), (1, 5))
    assert descent.diverged.all()
    np.testing.assert_allclose(descent.log_ratio, np.log10(DIVERGED + FLOOR))


# -- what they are compared with --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sgd", "momentum", "adam", "rmsprop"])
def test_fixed_optimizers_are_those_of_torch(name: str) -> None:
    makers: dict[str, Any] = {
        "sgd": lambda weights: torch.optim.SGD(weights, lr=0.02),
        "momentum": lambda weights: torch.optim.SGD(weights, lr=0.02, momentum=0.9),
        "adam": lambda weights: torch.optim.Adam(weights, lr=0.02),
        "rmsprop": lambda weights: torch.optim.RMSprop(weights, lr=0.02),
    }
    descent = descend(Fixed(name, torch.tensor([0.02])), MLP.drawn(0, 2, "test"), (30,))
    problems = MLP.drawn(0, 2, "test")
    network = network_of(problems, 1)
    optimizer = makers[name](network.parameters())
    data = problems.everything
    first = nn.functional.cross_entropy(network(data.inputs[1]), data.targets[1])
    for _ in range(30):
        gradients_of(network, problems, 1)
        optimizer.step()
    last = nn.functional.cross_entropy(network(data.inputs[1]), data.targets[1])
    assert torch.log10(last / first + FLOOR).item() == pytest.approx(descent.log_ratio[0, 1], abs=1e-4)


def test_rates_are_tuned_on_validation_problems_or_for_each() -> None:
    steps, kind = (5, 20), replace(MLP, family=Blobs(shots=2, ways=2, features=2))
    every = try_all("adam", kind, 4, "test", steps)
    for rate in (0, 8):
        alone = descend(Fixed("adam", torch.tensor([RATES[rate]])), kind.tested(4), steps)
        np.testing.assert_allclose(every.log_ratio[:, rate], alone.log_ratio, atol=1e-5)
    best = tuned_for_problem("adam", kind, 4, steps)
    np.testing.assert_array_equal(best.log_ratio, every.log_ratio.min(axis=1))
    rates = try_all("adam", kind, 64, "validation", steps).log_ratio.mean(axis=2).argmin(axis=1)
    family = tuned_for_family("adam", kind, 4, steps)
    for place, rate in enumerate(rates):
        np.testing.assert_array_equal(family.log_ratio[place], every.log_ratio[place, rate])


class AtPlace:
    """A policy that leaves the step size at a place."""

    def __init__(self, place: float) -> None:
        self.place = place

    def predict(self, observation: Any, *about: Any, **named: Any) -> Any:
        return np.full((len(observation), 1), self.place, dtype=np.float32), None


def test_an_agent_that_leaves_the_step_size_is_adam() -> None:
    found = descend_by(AtPlace(0.0), MLP.drawn(0, 4, "test"), (10, 50))
    problems = MLP.drawn(0, 4, "test")
    problems.minibatch()  # which the first observation is of
    middle = Fixed("adam", torch.tensor([10.0**-1.5]))
    np.testing.assert_allclose(found.log_ratio, descend(middle, problems, (10, 50)).log_ratio, atol=1e-4)
    with pytest.raises(ValueError, match="must be multiples of the 10 minibatches"):
        descend_by(AtPlace(0.0), MLP.drawn(0, 4, "test"), (7,))


def test_returns_are_falls_of_the_log_loss() -> None:
    envs = StepSizeEnvs([BOWL, MLP], 2)
    envs.seed(5)
    observation = envs.reset()
    assert envs.observation_space.contains(observation[0])
    total = np.zeros(4)
    for decision in range(HORIZON):
        _, rewards, ended, infos = envs.step(np.full((4, 1), 0.3, dtype=np.float32))
        total += rewards
        assert ended.all() == (decision == HORIZON - 1)
    assert all(info["terminal_observation"].shape == (7,) for info in infos)
    for row, kind in ((0, BOWL), (2, MLP)):
        runs = Runs(kind.drawn(5, 2, "train"))
        for _ in range(HORIZON):
            runs.advance(torch.full((2,), 0.3))
        np.testing.assert_allclose(total[row : row + 2], -torch.log10(runs.ratio() + FLOOR), atol=1e-4)
    assert entering.JUDGED[0] == UPDATES * HORIZON


def test_an_agent_is_trained_on_the_problems(tmp_path: Path) -> None:
    recipe = TuningRecipe(total_steps=40, n_envs=2, batch_size=20, epochs=1)
    families = {"bowl": BOWL, "branin": PROBLEMS["branin"]}
    agent = train_agent(recipe, seed=0, folder=tmp_path, families=families)
    assert agent.steps == 40
    again = train_agent(recipe, seed=0, folder=tmp_path, families=families)
    problems = [BOWL.drawn(0, 2, "test") for _ in range(2)]
    found = [descend_by(each.policy, p, (10,)).log_ratio for each, p in zip((agent, again), problems, strict=True)]
    np.testing.assert_array_equal(found[0], found[1])


def test_layouts() -> None:
    layout = Layout(((2, 3), (3,), ()))
    assert (layout.count, layout.owner.tolist()) == (10, [0] * 6 + [1] * 3 + [2])
    flat = torch.arange(20.0).reshape(2, 10)
    parts = layout.cut(flat)
    assert [tuple(part.shape) for part in parts] == [(2, 2, 3), (2, 3), (2,)]
    means = layout.means(flat)
    torch.testing.assert_close(means, torch.stack([part.reshape(2, -1).mean(dim=1) for part in parts], dim=1))
    assert layout.spread(means)[:, 6].tolist() == means[:, 1].tolist()
    torch.testing.assert_close(flatten(parts[:2]), flat[:, :9])


@pytest.mark.parametrize("name", PROBLEMS)
def test_problems_follow_from_their_seeds(name: str) -> None:
    kind = PROBLEMS[name]
    three, one = kind.drawn(0, 3, "test"), kind.drawn(2, 1, "test")
    assert three.start.shape == (3, kind.layout.count)
    torch.testing.assert_close(three.start[2:], one.start, rtol=0, atol=0)
    for _ in range(70):
        batch, own = three.minibatch(), one.minibatch()
    torch.testing.assert_close(batch.inputs[2:], own.inputs, rtol=0, atol=0)
    losses = three.loss(three.start, three.everything)
    assert (losses > 0.0).all()
    torch.testing.assert_close(losses[2:], one.loss(one.start, one.everything))


def test_landscapes_are_among_the_problems() -> None:
    assert {kind.family.function for kind in PROBLEMS.values() if isinstance(kind.family, Landscape)} >= {"rosenbrock"}


def test_a_comparison_pairs_every_seed_with_what_is_tuned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = optimizers.OptimizerBenchmark(file="tiny.json", kind="optimizer", seeds=2, evaluation_tasks=4)
    families = {"bowl": BOWL, "branin": PROBLEMS["branin"]}
    monkeypatch.setitem(BENCHMARKS, "tiny", made)
    monkeypatch.setattr(optimizers, "PROBLEMS", families)
    monkeypatch.setattr(optimizers, "JUDGED", (10, 20))
    monkeypatch.setattr(entering, "JUDGED", (10, 20))
    monkeypatch.setattr(tuned, "TUNING_PROBLEMS", 3)
    monkeypatch.setattr(entering, "TuningRecipe", lambda: TuningRecipe(n_envs=9, batch_size=60, epochs=1))
    entrants = ENTRANTS["optimizer"]
    pairs = [(name, seed) for name in entrants for seed in range(2 if entrants[name].seeded else 1)]
    jobs = [Job(tmp_path, "tiny", 1, name, seed, 9, 4) for name, seed in pairs]
    for job in jobs:
        job.work()
    rows = {(row["learner"], row["family"], row["step"]): row for row in rows_of(jobs)}
    assert set(rows) == {(name, family, step) for name in entrants for family in families for step in (10, 20)}
    row = rows["hierarchical", "branin", 20]
    assert (row["metric"], row["split"], row["seeds"], row["tasks"]) == ("log_ratio", "heldout", 2, 4)
    assert row["meta_training_tasks"] == 9
    assert rows["ppo", "bowl", 10]["environment_steps"] == 9 * HORIZON
    for (name, family, step), row in rows.items():
        assert set(row.get("paired", {})) == set(entrants[name].compared_with)
        for other, difference in row.get("paired", {}).items():
            expected = row["mean"] - rows[other, family, step]["mean"]
            assert difference["difference"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="whose problems have none"):
        made.variants(5)


def test_the_command_writes_a_rule_a_table_and_curves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = importlib.import_module("agents.learned_optimizer.__main__")
    monkeypatch.setattr(command, "PROBLEMS", {"bowl": BOWL, "branin": PROBLEMS["branin"]})
    monkeypatch.setattr(command, "STEPS", (5, 10))
    monkeypatch.setattr(command, "JUDGED", (5, 10))
    monkeypatch.setattr(tuned, "RATES", (0.03, 0.1))
    config = command.Config(rule="per_parameter", updates=2, evaluation_tasks=2, run=tmp_path / "run")
    command.main(config)
    shown = capsys.readouterr().out
    table = (tmp_path / "run" / "table.md").read_text(encoding="utf-8")
    assert table.strip() in shown
    assert "branin (held out)" in table
    assert load_rule(tmp_path / "run" / "rule.pt", RULES)[0].name == "per_parameter"
    assert (tmp_path / "run" / "curves.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(FileExistsError, match=r"choose another --run$"):
        command.main(config)


def test_a_training_tells_how_many_problems_it_drew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained = train_rule("per_parameter", OptimizerProblem(64, 0), tmp_path)
    assert 0 < trained.problems <= 64
    assert f"drew {trained.problems} of at most 64 training problems" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("family", ["gym_reml.tasks.landscapes:Landscape", "gym_reml.tasks.blobs:Blobs"])
def test_maml_runs_on_the_families_of_the_problems(family: str, capsys: pytest.CaptureFixture[str]) -> None:
    maml.main(maml.Config(family=family, tasks=32, evaluation_tasks=4))
    assert "maml_5" in capsys.readouterr().out


def test_a_copied_optimizer_goes_on() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    rule = RULES["per_parameter"](torch.Generator().manual_seed(0))
    optimizer = LearnedOptimizer([weight], rule)
    for one in (optimizer, copy.deepcopy(optimizer)):
        (parameter,) = one.param_groups[0]["params"]
        parameter.grad = torch.full((3,), 0.5)
        one.step()
    torch.testing.assert_close(parameter, weight)
