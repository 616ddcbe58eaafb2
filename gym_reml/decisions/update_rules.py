"""Update rules in the grammar of Neural Optimizer Search (Bello et al. 2017, arXiv:1709.07417).

A rule is a direction d; weights move by w - step_size * d. It is built in groups: each takes two operands, applies a
unary function to each, and joins the results by a binary function. Results are operands of later groups, and the last
one is the direction.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gym_reml.files import as_path, write_text

FORMAT = "gym_reml.Rule/1"
MOST_GROUPS = 10
"""Groups of a rule: terms double with each that uses the last result twice."""

DELTA = 1e-8
"""Added to denominators, and to what logarithms are taken of."""
NOISE = 0.01
"""Standard deviation of the operand `noise`."""
RESTARTS = 5
"""How often the schedule `restarts` begins anew in a run."""

AVERAGES: dict[str, tuple[int, float]] = {"m": (1, 0.9), "v": (2, 0.999), "gamma": (3, 0.999), "square": (2, 0.99)}
"""Moving averages from 0: of which power of the gradient, and the share that is kept at each update."""

Draw = Callable[[bool], Tensor]
"""Draws random numbers of the gradient's shape: normal ones if true, else uniform ones in [0, 1)."""


@dataclass
class Update:
    """What a rule may see at one update; tensors have the shape of the gradient.

    Attributes:
        gradient, weights: of the weights that are updated.
        averages: those of `AVERAGES` that the rule needs, this gradient included.
        step: number of this update, from 1.
        time: share of the run before this update, from 0 to below 1.
        draw: draws random numbers.
    """

    gradient: Tensor
    weights: Tensor
    averages: Mapping[str, Tensor]
    step: int
    time: float
    draw: Draw


class Operand(NamedTuple):
    """Attributes: formula, what it computes (None for a number), and the moving averages that it needs."""

    formula: str
    compute: Callable[[Update], Tensor] | None
    needs: tuple[str, ...] = ()


def _adam(update: Update) -> Tensor:
    mean, square = 1.0 - AVERAGES["m"][1] ** update.step, 1.0 - AVERAGES["v"][1] ** update.step
    root = update.averages["v"].sqrt().mul_(mean / math.sqrt(square)).add_(mean * DELTA)
    return update.averages["m"] / root


def _rmsprop(update: Update) -> Tensor:
    return update.gradient / update.averages["square"].sqrt().add_(DELTA)


def _weight_decay(factor: str) -> Operand:
    share = float(factor)
    return Operand(f"{factor} * w", lambda update: update.weights * share)


OPERANDS: dict[str, Operand] = {
    "g": Operand("g", lambda update: update.gradient),
    "g^2": Operand("g^2", lambda update: update.gradient.square()),
    "g^3": Operand("g^3", lambda update: update.gradient**3),
    "m": Operand("m", lambda update: update.averages["m"], ("m",)),
    "v": Operand("v", lambda update: update.averages["v"], ("v",)),
    "gamma": Operand("gamma", lambda update: update.averages["gamma"], ("gamma",)),
    "sign g": Operand("sign(g)", lambda update: update.gradient.sign()),
    "sign m": Operand("sign(m)", lambda update: update.averages["m"].sign(), ("m",)),
    "1": Operand("1", None),
    "2": Operand("2", None),
    "noise": Operand("noise", lambda update: NOISE * update.draw(True)),
    "1e-4 w": _weight_decay("1e-4"),
    "1e-3 w": _weight_decay("1e-3"),
    "1e-2 w": _weight_decay("1e-2"),
    "1e-1 w": _weight_decay("1e-1"),
    "adam": Operand("adam", _adam, ("m", "v")),
    "rmsprop": Operand("rmsprop", _rmsprop, ("square",)),
}
"""Every operand by its name; results of earlier groups are "r1", "r2" and so on."""


class Unary(NamedTuple):
    """Attributes: formula, with "{}" for the argument; what it computes; whether it is a schedule, or draws."""

    formula: str
    compute: Callable[[Tensor, Update], Tensor]
    timed: bool = False
    draws: bool = False


def _clip(size: str) -> Unary:
    limit = float(size)
    return Unary(f"clip({{}}, {size})", lambda value, update: value.clamp(-limit, limit))


def _drop(share: float) -> Unary:
    return Unary(
        f"drop({{}}, {share})",
        lambda value, update: value * (update.draw(False) >= share) / (1.0 - share),
        draws=True,
    )


def _schedule(name: str, factor: Callable[[float], float]) -> Unary:
    return Unary(f"{name}({{}})", lambda value, update: value * factor(update.time), timed=True)


UNARIES: dict[str, Unary] = {
    "x": Unary("{}", lambda value, update: value),
    "-x": Unary("-{}", lambda value, update: -value),
    "exp": Unary("exp({})", lambda value, update: value.exp()),
    "log": Unary("log|{}|", lambda value, update: (value.abs() + DELTA).log()),
    "sqrt": Unary("sqrt|{}|", lambda value, update: value.abs().sqrt()),
    "clip 1e-5": _clip("1e-5"),
    "clip 1e-4": _clip("1e-4"),
    "clip 1e-3": _clip("1e-3"),
    "drop 0.1": _drop(0.1),
    "drop 0.3": _drop(0.3),
    "drop 0.5": _drop(0.5),
    "sign": Unary("sign({})", lambda value, update: value.sign()),
    "linear": _schedule("linear", lambda time: 1.0 - time),
    "cosine": _schedule("cosine", lambda time: (1.0 + math.cos(math.pi * time)) / 2.0),
    "restarts": _schedule("restarts", lambda time: (1.0 + math.cos(math.pi * (RESTARTS * time % 1.0))) / 2.0),
}
"""Every unary function by its name. The last three are schedules: the argument times a factor that falls with time."""


class Binary(NamedTuple):
    """Attributes: formula, with "{}" for each argument; what it computes; its precedence in formulas."""

    formula: str
    compute: Callable[[Any, Any], Any]
    precedence: int


BINARIES: dict[str, Binary] = {
    "+": Binary("{} + {}", lambda one, other: one + other, 1),
    "-": Binary("{} - {}", lambda one, other: one - other, 1),
    "*": Binary("{} * {}", lambda one, other: one * other, 2),
    "/": Binary("{} / {}", lambda one, other: one / (other + DELTA), 2),
    "^": Binary("|{}| ^ {}", lambda one, other: abs(one) ** other, 3),
    "left": Binary("{}", lambda one, other: one, 0),
}
"""Every binary function by its name; `left` is its first argument."""

ATOM = 4
"""Precedence of what is never put in brackets."""


# -- terms: rules as trees, in a form in which equal ones are the same ------------------------------------------------


@dataclass(frozen=True)
class Term:
    """A number, an operand, or a function of terms.

    Attributes:
        name: "number", or of `OPERANDS`, `UNARIES` or `BINARIES`.
        arguments: of a function.
        value: of a number; of what is random, which of the rule's draws it is.
    """

    name: str
    arguments: tuple[Term, ...] = ()
    value: float = 0.0

    @cached_property
    def formula(self) -> str:
        """The term as text."""
        if self.name == "number":
            return f"{self.value:g}"
        if not self.arguments:
            return OPERANDS[self.name].formula
        if len(self.arguments) == 1:
            inner = self.arguments[0]
            return UNARIES[self.name].formula.format(inner._bracketed(2) if self.name == "-x" else inner.formula)
        precedence = BINARIES[self.name].precedence
        one, other = self.arguments
        if self.name == "^":
            return BINARIES["^"].formula.format(one.formula, other._bracketed(ATOM))
        # On the right of "-" and "/" brackets make a difference, on the left they do not.
        texts = one._bracketed(precedence), other._bracketed(precedence + (self.name in "-/"))
        return BINARIES[self.name].formula.format(*texts)

    def _bracketed(self, least: int) -> str:
        binary = BINARIES.get(self.name) if len(self.arguments) == 2 else None
        own = binary.precedence if binary else 1 if self.name == "-x" or self.value < 0 else ATOM
        if not self.arguments and self.name.endswith(" w"):
            own = BINARIES["*"].precedence  # written as a product
        return self.formula if own >= least else f"({self.formula})"

    def walk(self) -> Iterator[Term]:
        """This term and all in it, arguments first."""
        for argument in self.arguments:
            yield from argument.walk()
        yield self


def _number(value: float) -> Term:
    # There is one NaN, which equals itself where tuples are compared.
    return Term("number", value=math.nan if math.isnan(value) else value)


def _fold(compute: Callable[..., Any], *numbers: Term) -> Term:
    """The number that this is of numbers, in float32 as in an update."""
    with torch.no_grad():
        return _number(
            float(compute(*(torch.tensor(number.value, dtype=torch.float32, device="cpu") for number in numbers)))
        )


ZERO, ONE = _number(0.0), _number(1.0)


def _unary(name: str, inner: Term, draw: int) -> Term:
    """The function of a term, simplified."""
    function = UNARIES[name]
    if name == "x":
        return inner
    if function.draws or function.timed:
        return ZERO if inner == ZERO else Term(name, (inner,), float(draw) if function.draws else 0.0)
    if inner.name == "number":
        return _fold(lambda value: function.compute(value, cast(Update, None)), inner)
    if name == "-x":
        if inner.name == "-":
            return _binary("-", inner.arguments[1], inner.arguments[0])
        return inner.arguments[0] if inner.name == "-x" else Term(name, (inner,))
    if inner.name == "-x":
        if name in ("log", "sqrt"):
            return _unary(name, inner.arguments[0], draw)
        if name != "exp":  # odd functions
            return _unary("-x", _unary(name, inner.arguments[0], draw), draw)
    if name == "sign":
        if inner.name in ("g", "m"):
            return Term(f"sign {inner.name}")
        if inner.name == "g^3":
            return Term("sign g")
        if inner.name in ("sign", "sign g", "sign m"):
            return inner
    return Term(name, (inner,))


def _binary(name: str, one: Term, other: Term) -> Term:
    """The function of two terms, simplified."""
    if name == "left":
        return one
    if one.name == other.name == "number":
        return _fold(BINARIES[name].compute, one, other)
    if name in ("*", "/") and "-x" in (one.name, other.name):
        plain = [term.arguments[0] if term.name == "-x" else term for term in (one, other)]
        # The denominator's sign stays: what is added to it has one, too.
        if name == "*":
            joined = _binary(name, *plain)
            return joined if one.name == other.name else _unary("-x", joined, 0)
        if one.name == "-x":
            return _unary("-x", _binary(name, plain[0], other), 0)
    if name == "+":
        if other.name == "-x":
            return _binary("-", one, other.arguments[0])
        if one.name == "-x":
            return _binary("-", other, one.arguments[0])
        if ZERO in (one, other):
            return other if one == ZERO else one
        if one == other:
            return _binary("*", _number(2.0), one)
    if name == "-":
        if other.name == "-x":
            return _binary("+", one, other.arguments[0])
        if one.name == "-x":
            return _unary("-x", _binary("+", one.arguments[0], other), 0)
        if one == other:
            return ZERO
        if ZERO in (one, other):
            return one if other == ZERO else _unary("-x", other, 0)
    if name == "*":
        if ZERO in (one, other):
            return ZERO
        if ONE in (one, other):
            return other if one == ONE else one
    if name == "/" and (one == ZERO or other == ONE):
        return one
    if name == "^" and (one == ONE or other == ZERO):
        return ONE
    if name in ("+", "*") and (one.formula, one.value) > (other.formula, other.value):
        one, other = other, one
    return Term(name, (one, other))


def _is_random(term: Term) -> bool:
    return term.name == "noise" or (len(term.arguments) == 1 and UNARIES[term.name].draws)


def _renumbered(term: Term, numbers: dict[float, float]) -> Term:
    """The term whose draws are numbered in the order in which they are met."""
    arguments = tuple(_renumbered(argument, numbers) for argument in term.arguments)
    value = numbers.setdefault(term.value, float(len(numbers))) if _is_random(term) else term.value
    return Term(term.name, arguments, value)


# -- rules ------------------------------------------------------------------------------------------------------------

PLACES = ("operand_1", "operand_2", "unary_1", "unary_2", "binary")
"""What is decided of a group, in this order."""


@dataclass(frozen=True)
class Group:
    """binary(unary_1(operand_1), unary_2(operand_2)), by names.

    Attributes:
        operand_1, operand_2: of `OPERANDS`, or "r1", "r2", ... for the result of the first, second, ... group.
        unary_1, unary_2: of `UNARIES`.
        binary: of `BINARIES`.
    """

    operand_1: str
    operand_2: str = "g"
    unary_1: str = "x"
    unary_2: str = "x"
    binary: str = "left"


def operand_names(groups: int) -> list[str]:
    """The operands of rules of so many groups: those of `OPERANDS`, and the results of all groups but the last."""
    return [*OPERANDS, *(f"r{number}" for number in range(1, groups))]


def options(groups: int) -> tuple[list[str], ...]:
    """The names that may stand in each of `PLACES`, in rules of so many groups."""
    operands = operand_names(groups)
    return operands, operands, list(UNARIES), list(UNARIES), list(BINARIES)


@dataclass(frozen=True, eq=False)
class Rule:
    """An update rule, as plain data.

    Rules are equal, and have the same hash, if their formulas are simplified to the same one.

    Attributes:
        groups: at least one.

    Raises:
        ValueError: no groups, or a name that may not stand where it does.
    """

    groups: tuple[Group, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.groups) <= MOST_GROUPS:
            raise ValueError(f"groups: {len(self.groups)} of them; a rule has from 1 to {MOST_GROUPS}")
        for number, group in enumerate(self.groups, 1):
            if not isinstance(group, Group):
                raise ValueError(f"groups: {group!r}: must be a Group")
            for name, allowed in zip(PLACES, options(number), strict=True):
                value = getattr(group, name)
                if value not in allowed:
                    raise ValueError(
                        f"groups: {name}={value!r} in group {number}: must be one of {', '.join(map(repr, allowed))}"
                    )

    @cached_property
    def term(self) -> Term:
        """The simplified rule."""
        results: list[Term] = []
        draws = iter(range(4 * len(self.groups)))

        def operand(name: str) -> Term:
            if name.startswith("r") and name not in OPERANDS:
                return results[int(name[1:]) - 1]
            if OPERANDS[name].compute is None:
                return _number(float(name))
            return Term(name, value=float(next(draws)) if name == "noise" else 0.0)

        for group in self.groups:
            sides = [
                _unary(unary, operand(name), next(draws))
                for name, unary in ((group.operand_1, group.unary_1), (group.operand_2, group.unary_2))
            ]
            results.append(_binary(group.binary, *sides))
        return _renumbered(results[-1], {})

    @property
    def formula(self) -> str:
        """The simplified rule as text."""
        return self.term.formula

    def __str__(self) -> str:
        return self.formula

    def __eq__(self, other: object) -> bool:
        return self.term == other.term if isinstance(other, Rule) else NotImplemented

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> Any:
        # Without what is computed from the groups: functions, and a hash that other processes compute differently.
        return Rule, (self.groups,)

    @cached_property
    def _hash(self) -> int:
        return hash(self.term)

    @cached_property
    def needs(self) -> tuple[str, ...]:
        """The moving averages that it needs, of `AVERAGES`."""
        used = {name for term in self.term.walk() if term.name in OPERANDS for name in OPERANDS[term.name].needs}
        return tuple(name for name in AVERAGES if name in used)

    @cached_property
    def timed(self) -> bool:
        """Whether it has a schedule, so that it must know how long a run is."""
        return any(len(term.arguments) == 1 and UNARIES[term.name].timed for term in self.term.walk())

    @cached_property
    def _program(self) -> list[tuple[Callable[..., Any] | None, Any, tuple[int, ...]]]:
        """Every different term once, arguments first: what computes it, or its number; the places of its arguments."""
        terms = list(dict.fromkeys(self.term.walk()))
        places = {term: place for place, term in enumerate(terms)}
        # Functions of one number are schedules, and what draws; others were folded.
        tensors = {term.arguments[0] for term in terms if len(term.arguments) == 1}
        computed: list[tuple[Callable[..., Any] | None, Any, tuple[int, ...]]] = []
        for term in terms:
            compute: Callable[..., Any] | None
            if term.name == "number":
                compute = None
            else:
                compute = (OPERANDS, UNARIES, BINARIES)[len(term.arguments)][term.name].compute
            value = torch.tensor(term.value, dtype=torch.float32, device="cpu") if term in tensors else term.value
            computed.append((compute, value, tuple(places[argument] for argument in term.arguments)))
        return computed

    def direction(self, update: Update) -> Tensor:
        """The direction d in w - step_size * d, of the gradient's shape."""
        found: list[Any] = []
        for compute, value, places in self._program:
            if compute is None:
                found.append(value)
            elif not places:
                found.append(compute(update))
            elif len(places) == 1:
                found.append(compute(found[places[0]], update))
            else:
                found.append(compute(found[places[0]], found[places[1]]))
        last = found[-1]
        if isinstance(last, Tensor) and last.ndim:
            return last
        return torch.as_tensor(last, dtype=update.gradient.dtype, device=update.gradient.device).expand_as(
            update.gradient
        )

    @staticmethod
    def from_choices(choices: NDArray[np.int64]) -> Rule:
        """The rule of these places in `options`, (groups, 5)."""
        names = options(len(choices))
        return Rule(tuple(Group(*(names[place][taken] for place, taken in enumerate(row))) for row in choices.tolist()))

    def choices(self, groups: int) -> NDArray[np.int64]:
        """Its places in `options` as a rule of so many groups, (groups, 5); those beyond its own repeat its result.

        Raises:
            ValueError: it has more groups.
        """
        if len(self.groups) > groups:
            raise ValueError(f"{self}: has {len(self.groups)} groups, more than {groups}")
        missing = range(len(self.groups), groups)
        padded = [*self.groups, *(Group(f"r{number}", f"r{number}") for number in missing)]
        names = options(groups)
        return np.array(
            [[names[place].index(getattr(group, name)) for place, name in enumerate(PLACES)] for group in padded]
        )

    def to_json(self) -> str:
        """The rule as JSON."""
        return json.dumps(
            {"format": FORMAT, "formula": self.formula, "groups": [asdict(group) for group in self.groups]}, indent=1
        )

    @staticmethod
    def from_json(text: str) -> Rule:
        """The rule of such a text, which runs no code.

        Raises:
            ValueError: a text that is none, or names what is unknown.
        """
        try:
            read = json.loads(text)
        except (json.JSONDecodeError, RecursionError) as error:
            raise ValueError(f"no rule: not JSON ({error})") from error
        if not isinstance(read, dict) or read.get("format") != FORMAT or not isinstance(read.get("groups"), list):
            raise ValueError(f"no rule: must be a dict with format {FORMAT!r} and a list of groups")
        for group in read["groups"]:
            if not isinstance(group, dict) or set(group) != {one.name for one in fields(Group)}:
                raise ValueError(f"no rule: group {group!r} must have {', '.join(map(repr, PLACES))}")
        return Rule(tuple(Group(**group) for group in read["groups"]))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes it into a JSON file."""
        write_text(path, self.to_json() + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Rule:
        """The rule in a JSON file; raises what `from_json` raises, and an OSError where there is none."""
        return Rule.from_json(as_path(path).read_text(encoding="utf-8"))


SIGNS = Group("sign g", "sign m", binary="*")

RULES: dict[str, Rule] = {
    "sgd": Rule((Group("g"),)),
    "momentum": Rule((Group("m"),)),
    "adam": Rule((Group("adam"),)),
    "rmsprop": Rule((Group("rmsprop"),)),
    "powersign": Rule((SIGNS, Group("r1", "g", "exp", binary="*"))),
    "addsign": Rule((SIGNS, Group("1", "r1", binary="+"), Group("r2", "g", binary="*"))),
}
"""Known rules by name; PowerSign and AddSign were found by Bello et al. 2017."""


def check_rule(argument: str, rule: Any) -> Rule:
    """The rule itself, or that of this name.

    Raises:
        ValueError: neither.
    """
    if isinstance(rule, str) and rule in RULES:
        return RULES[rule]
    if not isinstance(rule, Rule):
        raise ValueError(f"{argument}={rule!r}: must be one of {', '.join(map(repr, RULES))}, or a Rule")
    return rule


# -- updates ----------------------------------------------------------------------------------------------------------

State = dict[str, Any]
"""What a rule remembers of some weights: "step", and the moving averages that it needs."""


def advance(rule: Rule, state: State, gradient: Tensor, weights: Tensor, *, updates: int, draw: Draw) -> Tensor:
    """The direction of one update, by a rule whose state this is; the state is changed in place.

    Args:
        rule: whose.
        state: empty before the first update.
        gradient, weights: of one shape; not differentiable.
        updates: of the whole run; read if the rule has a schedule.
        draw: draws random numbers of this shape.
    """
    _move_averages(rule.needs, state, gradient)
    return _direction(rule, state, gradient, weights, updates=updates, draw=draw)


def _move_averages(names: Sequence[str], state: State, gradient: Tensor) -> None:
    """Takes a gradient into these moving averages, which are 0 before the first one."""
    for name in names:
        power, kept = AVERAGES[name]
        average = state[name] if name in state else state.setdefault(name, torch.zeros_like(gradient))
        if power == 1:
            average.lerp_(gradient, 1.0 - kept)
        elif power == 2:
            average.mul_(kept).addcmul_(gradient, gradient, value=1.0 - kept)
        else:
            average.mul_(kept).add_(gradient**power, alpha=1.0 - kept)


def _direction(rule: Rule, state: State, gradient: Tensor, weights: Tensor, *, updates: int, draw: Draw) -> Tensor:
    """The direction of one update, see `advance`, with moving averages that have the gradient already."""
    step = state["step"] = state.get("step", 0) + 1
    time = min(step - 1, updates - 1) / updates
    return rule.direction(Update(gradient, weights, state, step, time, draw))


def drawer(generators: Sequence[np.random.Generator], shape: Sequence[int], device: torch.device) -> Draw:
    """Draws numbers of the shape (n, ...), each row from its generator; rows that share one get the same numbers."""
    different = list(dict.fromkeys(generators))
    index = torch.tensor([different.index(one) for one in generators], device=device)

    def draw(normal: bool) -> Tensor:
        size = shape[1:]
        rows = [
            generator.standard_normal(size, dtype=np.float32) if normal else generator.random(size, dtype=np.float32)
            for generator in different
        ]
        drawn = torch.from_numpy(rows[0][None] if len(rows) == 1 else np.stack(rows)).to(device)
        if len(rows) == 1:
            return drawn.expand(*shape)
        return drawn if len(rows) == len(index) else drawn.index_select(0, index)

    return draw


@dataclass
class RowRules:
    """Different rules for different rows of networks that are trained side by side.

    Rows of equal rules are updated together. Moving averages that any of them needs are those of all rows.

    Attributes:
        rules: of each row.
        generators: of each row, for what is random; rows of equal rules that share one draw the same numbers.
        updates: of the whole run.
    """

    rules: Sequence[Rule]
    generators: Sequence[np.random.Generator]
    updates: int
    _blocks: dict[tuple[int, ...], list[tuple[Rule, slice | Tensor, Draw, State]]] = field(default_factory=dict)
    _averages: dict[tuple[int, ...], State] = field(default_factory=dict)

    def __call__(self, gradient: Tensor, weights: Tensor, rows: Sequence[int]) -> Tensor:
        """The directions (g, P) of an update of these rows, of gradients and weights (g, P).

        All calls must name the same rows together.
        """
        key = tuple(rows)
        if key not in self._blocks:
            self._blocks[key] = self._split(key, gradient.shape[1], gradient.device)
        blocks, averages = self._blocks[key], self._averages.setdefault(key, {})
        # Of all rows in one go, which is faster than of those alone that need them.
        _move_averages([name for name in AVERAGES if any(name in one.needs for one, *_ in blocks)], averages, gradient)
        found = torch.empty_like(gradient)
        for rule, block, draw, state in blocks:
            state.update({name: averages[name][block] for name in rule.needs})
            found[block] = _direction(rule, state, gradient[block], weights[block], updates=self.updates, draw=draw)
        return found

    def _split(
        self, rows: tuple[int, ...], size: int, device: torch.device
    ) -> list[tuple[Rule, slice | Tensor, Draw, State]]:
        places: dict[Rule, list[int]] = {}
        for place, row in enumerate(rows):
            places.setdefault(self.rules[row], []).append(place)
        blocks: list[tuple[Rule, slice | Tensor, Draw, State]] = []
        for rule, own in places.items():
            adjacent = own[-1] - own[0] + 1 == len(own)
            block = slice(own[0], own[-1] + 1) if adjacent else torch.tensor(own, device=device)
            draw = drawer([self.generators[rows[place]] for place in own], (len(own), size), device)
            blocks.append((rule, block, draw, {}))
        return blocks
