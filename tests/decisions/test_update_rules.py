"""Update rules: what they compute, when they are equal, and what they are written as."""

from __future__ import annotations

import copy
import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gym_reml.decisions.rule_optimizer import RuleOptimizer
from gym_reml.decisions.update_rules import (
    AVERAGES,
    BINARIES,
    OPERANDS,
    RULES,
    UNARIES,
    Group,
    RowRules,
    Rule,
    Update,
    advance,
    drawer,
    operand_names,
    options,
)

DRAWING = {"noise", *(name for name, unary in UNARIES.items() if unary.draws)}


def random_rules(count: int, *, draws: bool, groups: int = 3) -> list[Rule]:
    generator = np.random.default_rng(0)
    rules: list[Rule] = []
    while len(rules) < count:
        names = [options(number) for number in range(1, groups + 1)]
        rule = Rule(tuple(Group(*(str(generator.choice(allowed)) for allowed in group)) for group in names))
        used = {term.name for term in rule.term.walk()}
        if draws or not used & DRAWING:
            rules.append(rule)
    return rules


def no_draws(normal: bool) -> Tensor:
    raise AssertionError("nothing is random here")


# -- what rules compute ----------------------------------------------------------------------------------------------


def descend(make: Callable[[Any], torch.optim.Optimizer], steps: int = 20) -> Tensor:
    """The weights after some minibatches of a regression; one weight never has a gradient other than 0."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    optimizer = make(network.parameters())
    for _ in range(steps):
        inputs = torch.randn(5, 3) * torch.tensor([1.0, 1.0, 0.0])
        optimizer.zero_grad()
        (network(inputs) - inputs[:, :1].sin()).square().mean().backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


TORCHS: dict[str, tuple[Callable[[Any], torch.optim.Optimizer], float]] = {
    "sgd": (lambda parameters: torch.optim.SGD(parameters, lr=0.1), 0.1),
    # Torch's velocity is ten times the average.
    "momentum": (lambda parameters: torch.optim.SGD(parameters, lr=0.02, momentum=0.9), 0.2),
    "adam": (lambda parameters: torch.optim.Adam(parameters, lr=0.01), 0.01),
    "rmsprop": (lambda parameters: torch.optim.RMSprop(parameters, lr=0.01), 0.01),
}


@pytest.mark.parametrize("name", TORCHS)
def test_known_rules_are_the_optimizers_of_torch(name: str) -> None:
    theirs, rate = TORCHS[name]
    ours = descend(lambda parameters: RuleOptimizer(parameters, RULES[name], lr=rate))
    torch.testing.assert_close(ours, descend(theirs), rtol=1e-4, atol=1e-6)


class Signs(torch.optim.Optimizer):
    """PowerSign and AddSign as the paper writes them."""

    def __init__(self, parameters: Any, factor: Callable[[Tensor], Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})
        self.factor = factor

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            mean = self.state[parameter].get("mean", torch.zeros_like(parameter))
            self.state[parameter]["mean"] = mean = 0.9 * mean + 0.1 * parameter.grad
            agree = parameter.grad.sign() * mean.sign()
            parameter -= self.param_groups[0]["lr"] * self.factor(agree) * parameter.grad


@pytest.mark.parametrize(("name", "factor"), [("powersign", torch.exp), ("addsign", lambda agree: 1 + agree)])
def test_found_rules_are_those_of_the_paper(name: str, factor: Callable[[Tensor], Tensor]) -> None:
    ours = descend(lambda parameters: RuleOptimizer(parameters, name, lr=0.05))
    torch.testing.assert_close(ours, descend(lambda parameters: Signs(parameters, factor, 0.05)))


def naive(rule: Rule, update: Update) -> Tensor:
    """Every group as it is written."""
    results: list[Any] = []
    for group in rule.groups:
        sides = []
        for name, unary in ((group.operand_1, group.unary_1), (group.operand_2, group.unary_2)):
            if name in OPERANDS:
                compute = OPERANDS[name].compute
                value = torch.full_like(update.gradient, float(name)) if compute is None else compute(update)
            else:
                value = results[int(name[1:]) - 1]
            sides.append(UNARIES[unary].compute(value, update))
        results.append(BINARIES[group.binary].compute(*sides))
    return results[-1]


def test_a_simplified_rule_computes_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    checked = 0
    for rule in random_rules(400, draws=False):
        gradient, weights = torch.randn(2, 1, 50, generator=generator)
        average = {name: torch.rand(1, 50, generator=generator) - 0.5 * (name in "m gamma") for name in AVERAGES}
        update = Update(gradient, weights, average, 3, 0.3, lambda normal: torch.zeros(1, 50))
        ours, theirs = rule.direction(update), naive(rule, update)
        if theirs.isfinite().all():
            torch.testing.assert_close(ours, theirs, rtol=2e-4, atol=1e-6, msg=str(rule))
            checked += 1
    assert checked > 300


def test_rows_with_different_rules_are_optimizers_side_by_side() -> None:
    """Step by step, each row as if it were alone, by the exported optimizer."""
    generator = torch.Generator().manual_seed(1)
    rules = [*RULES.values(), *random_rules(40, draws=False), RULES["adam"]]
    weights = torch.randn(len(rules), 12, generator=generator)
    alone = [nn.Parameter(row.clone()) for row in weights]
    optimizers = [RuleOptimizer([row], rule, lr=0.01, updates=6) for row, rule in zip(alone, rules, strict=True)]
    together = RowRules(rules, [np.random.default_rng(row) for row in range(len(rules))], 6)
    for _ in range(6):
        gradient = torch.randn(weights.shape, generator=generator)
        weights = weights - 0.01 * together(gradient, weights, list(range(len(rules))))
        for row, optimizer in enumerate(optimizers):
            alone[row].grad = gradient[row]
            optimizer.step()
            torch.testing.assert_close(weights[row], alone[row].detach(), equal_nan=True, msg=str(rules[row]))


def test_a_row_does_not_depend_on_its_companions() -> None:
    rules = random_rules(30, draws=True)
    gradients = torch.randn(4, len(rules), 12, generator=torch.Generator().manual_seed(2))

    def course(rows: list[int]) -> list[Tensor]:
        update = RowRules(rules, [np.random.default_rng(row) for row in range(len(rules))], 4)
        return [update(gradient[rows], gradient[rows], rows) for gradient in gradients]

    every, some = course(list(range(30))), course(list(range(0, 30, 3)))
    for one, other in zip(every, some, strict=True):
        torch.testing.assert_close(one[::3], other, equal_nan=True)


@pytest.mark.parametrize(
    ("group", "mean", "deviation"),
    [
        (Group("noise"), 0.0, 0.01),
        (Group("1", unary_1="drop 0.3"), 1.0, math.sqrt(0.3 / 0.7)),
        (Group("noise", "noise", binary="-"), 0.0, 0.01 * math.sqrt(2)),
    ],
)
def test_what_is_random(group: Group, mean: float, deviation: float) -> None:
    draw = drawer([np.random.default_rng(0)], (1, 200_000), torch.device("cpu"))
    zeros = torch.zeros(1, 200_000)
    found = advance(Rule((group,)), {}, zeros, zeros, updates=1, draw=draw)
    assert float(found.mean()) == pytest.approx(mean, abs=0.01)
    assert float(found.std()) == pytest.approx(deviation, rel=0.02)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("linear", lambda time: 1 - time),
        ("cosine", lambda time: 0.5 * (1 + math.cos(math.pi * time))),
        ("restarts", lambda time: 0.5 * (1 + math.cos(math.pi * (5 * time % 1)))),
    ],
)
def test_schedules_end_with_the_run(name: str, factor: Callable[[float], float]) -> None:
    rule, state = Rule((Group("g", unary_1=name),)), dict[str, Any]()
    ones = torch.ones(3)
    for step in range(12):
        found = advance(rule, state, ones, ones, updates=10, draw=no_draws)
        np.testing.assert_allclose(found, factor(min(step, 9) / 10), atol=1e-6)


# -- equality and text -----------------------------------------------------------------------------------------------

POWERS = (
    Group("g", "m", binary="-"),
    Group("m", "r1", binary="^"),
    Group("g", "v", binary="/"),
    Group("r2", "r3", binary="/"),
)
SAME: list[tuple[str, list[tuple[Group, ...]]]] = [
    ("g", [(Group("g"),), (Group("g", "g", "-x"), Group("r1", unary_1="-x")), (Group("g", "1", binary="*"),)]),
    ("sign(g) * sign(m)", [(Group("sign g", "sign m", binary="*"),), (Group("sign m", "sign g", binary="*"),)]),
    ("sign(g)", [(Group("sign g"),), (Group("g", unary_1="sign"),), (Group("g^3", unary_1="sign"),)]),
    ("2 * g", [(Group("g", binary="+"),), (Group("g", "2", binary="*"),)]),
    ("m - g", [(Group("m", binary="-"),), (Group("g", "m", "-x", binary="+"),)]),
    ("0", [(Group("g", binary="-"),), (Group("1", "1", binary="-"), Group("r1", "m", binary="*"))]),
    ("-(g + m)", [(Group("g", "m", "-x", binary="-"),), (Group("m", "g", "-x", binary="-"),)]),
    ("exp(sign(g) * sign(m)) * g", [RULES["powersign"].groups]),
    ("(1 + sign(g) * sign(m)) * g", [RULES["addsign"].groups]),
    ("noise", [(Group("noise"),), (Group("noise"), Group("noise", "r1"))]),
    ("1e-2 * w + adam", [(Group("adam", "1e-2 w", binary="+"),), (Group("1e-2 w", "adam", binary="+"),)]),
    ("|m| ^ (g - m) / (g / v)", [POWERS]),
]


@pytest.mark.parametrize(("formula", "rules"), SAME, ids=[formula for formula, _ in SAME])
def test_equal_rules_have_one_formula_and_one_hash(formula: str, rules: list[tuple[Group, ...]]) -> None:
    found = [Rule(groups) for groups in rules]
    assert {str(rule) for rule in found} == {formula}
    assert len(set(found)) == 1


def test_two_draws_are_not_one() -> None:
    apart = Rule((Group("noise", "noise", binary="-"),))
    once = Rule((Group("noise"), Group("r1", "r1", binary="-")))
    assert apart != once
    assert once.formula == "0"


def test_different_rules_are_different() -> None:
    assert len(set(RULES.values())) == len(RULES)
    assert RULES["sgd"] != "sgd"


@pytest.mark.parametrize("rule", [*RULES.values(), *random_rules(20, draws=True)], ids=str)
def test_a_rule_survives_json_choices_and_copies(rule: Rule, tmp_path: Path) -> None:
    rule.save(tmp_path / "rule.json")
    copies = [Rule.load(tmp_path / "rule.json"), Rule.from_json(rule.to_json())]
    copies += [Rule.from_choices(rule.choices(groups)) for groups in (3, 5)]
    copies += [pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule)]
    assert {(copied, copied.formula) for copied in copies} == {(rule, rule.formula)}
    assert json.loads(rule.to_json())["formula"] == rule.formula


BAD_TEXTS = [
    ("{", "not JSON"),
    ("[]", "format"),
    ('{"format": "another", "groups": []}', "format"),
    ('{"format": "gym_reml.Rule/1", "groups": []}', "from 1 to 10"),
    ('{"format": "gym_reml.Rule/1", "groups": [{"operand_1": "g"}]}', "must have 'operand_1'"),
    (RULES["sgd"].to_json().replace('"left"', '"__import__"'), "binary='__import__' in group 1.*'left'"),
    (RULES["sgd"].to_json().replace('"left"', "[3]"), "binary="),
    (RULES["powersign"].to_json().replace('"r1"', '"r2"'), "operand_1='r2' in group 2.*'r1'"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS)
def test_what_is_no_rule_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        Rule.from_json(text)


def test_more_groups_than_there_is_room_for() -> None:
    with pytest.raises(ValueError, match="3 groups, more than 2"):
        RULES["addsign"].choices(2)
    assert operand_names(3)[-2:] == ["r1", "r2"]


# -- as an optimizer of torch ----------------------------------------------------------------------------------------


def test_the_state_of_an_optimizer_goes_on_elsewhere() -> None:
    def make() -> tuple[nn.Parameter, RuleOptimizer]:
        parameter = nn.Parameter(torch.ones(4))
        return parameter, RuleOptimizer([parameter], RULES["adam"], lr=0.1)

    def go_on(parameter: nn.Parameter, optimizer: RuleOptimizer, steps: int) -> None:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = (parameter - torch.arange(4)).square().sum()
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item() for _ in range(steps)]
        assert losses == sorted(losses, reverse=True)

    one, first = make()
    go_on(one, first, 5)
    other, second = make()
    other.data.copy_(one.data)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    go_on(one, first, 5)
    go_on(other, second, 5)
    torch.testing.assert_close(one, other)


def test_an_optimizer_leaves_what_has_no_gradient_and_the_global_randomness() -> None:
    still, moved = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3))
    optimizer = RuleOptimizer([{"params": [still]}, {"params": [moved], "lr": 1.0}], Rule((Group("noise"),)), lr=0.0)
    moved.grad = torch.zeros(3)
    before = torch.get_rng_state()
    optimizer.step()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(still, torch.ones(3))
    assert not torch.equal(moved, torch.ones(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rule": "lamb"}, "rule='lamb'.*'powersign'"),
        ({"lr": -1.0}, r"lr=-1\.0"),
        ({"rule": Rule((Group("g", unary_1="cosine"),))}, "updates=None.*schedule"),
        ({"updates": 0}, "updates=0"),
    ],
)
def test_a_bad_argument_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=rf"(?s){message}"):
        RuleOptimizer([nn.Parameter(torch.ones(1))], **(dict[str, Any](rule="sgd", lr=0.1) | arguments))


def test_operands_that_are_products_have_brackets() -> None:
    assert Rule((Group("g", "1e-4 w", binary="/"),)).formula == "g / (1e-4 * w)"
    assert Rule((Group("g", "1e-1 w", binary="^"),)).formula.endswith("(1e-1 * w)")
    assert Rule((Group("g", "1e-4 w", binary="+"),)).formula == "1e-4 * w + g"


def test_rules_have_a_limit() -> None:
    """Terms double with each group that uses the last result twice."""
    groups = [Group("g")] + [Group(f"r{number}", f"r{number}", "exp", binary="*") for number in range(1, 40)]
    with pytest.raises(ValueError, match="groups: 40 of them; a rule has from 1 to 10"):
        Rule(tuple(groups))
    assert len(Rule(tuple(groups[:10])).formula) > 100
    with pytest.raises(ValueError, match="no rule: not JSON"):
        Rule.from_json("[" * 200_000)


def test_a_copied_optimizer_goes_on() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = RuleOptimizer([weight], RULES["addsign"], 0.1)
    copied = copy.deepcopy(optimizer)
    for one in (optimizer, copied):
        (parameter,) = one.param_groups[0]["params"]
        parameter.grad = torch.full((3,), 0.5)
        one.step()
    torch.testing.assert_close(copied.param_groups[0]["params"][0], weight)
    for lr in (math.nan, math.inf, -1.0):
        with pytest.raises(ValueError, match="lr="):
            RuleOptimizer([weight], RULES["sgd"], lr)
