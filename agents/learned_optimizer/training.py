"""Meta-training: truncated backpropagation through runs of the optimizer on problems of all families at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..runs.run import TASKS_OF_A_RUN
from .descent import descend
from .problems import PROBLEMS, ProblemFamily, Problems
from .rule import Rule, State, load_rule, save_rule
from .table import RULES

OFFSET = 1e-6
"""Added to losses in the meta-loss, log(loss / (first loss + OFFSET) + OFFSET)."""
FILE = "rule.pt"
CHECKED = (200, 2000)
"""Steps after which rules are compared on validation problems; few runs of meta-training are as long as the last."""
VALIDATED = 16
"""Validation problems of each family."""


@dataclass(frozen=True)
class MetaRecipe:
    """Settings of meta-training."""

    updates: int = 200
    """meta-updates, each by backpropagation through a truncated unroll on every family"""
    unroll: int = 50
    """steps of the optimizer in a truncated unroll"""
    mean_unrolls: float = 12.0
    """mean of the exponentially distributed number of further unrolls of a run, after the first"""
    problems: int = 16
    """problems of a family side by side"""
    learning_rate: float = 3e-3
    """Adam's initial learning rate; annealed to 0 along half a cosine"""
    clip: float = 1.0
    """largest norm of a family's meta-gradient, so that none outweighs the others"""
    memory: float = 0.95
    """what the moving average of the weights, which is the trained rule, keeps of itself in an update"""
    checks: int = 10
    """how often that rule is tried on validation problems; the best is kept"""
    tasks: int | None = None
    """problems that may be drawn; None for as many as it takes"""

    def with_at_most(self, tasks: int) -> MetaRecipe:
        """A shorter training that draws at most so many problems, however short the runs on them come out."""
        problems = min(self.problems, tasks)
        updates = min(self.updates, tasks // problems)
        checks = min(self.checks, 1 + updates // 10)
        return replace(self, problems=problems, updates=updates, checks=checks, tasks=tasks)


@dataclass
class Course:
    """Runs of the optimizer on problems of one family that are under way.

    Attributes:
        problems: the problems.
        first: (n,), their losses at the start.
        parameters: (n, P), now.
        state: of the optimizer, now.
        left: unrolls that are left to do.
    """

    problems: Problems
    first: Tensor
    parameters: Tensor
    state: State
    left: int


@dataclass(frozen=True)
class TrainedRule:
    """A finished meta-training.

    Attributes:
        rule: the optimizer.
        problems: number of problems that it was trained on.
        gradients: gradients of single problems that were computed.
        seconds: of training.
    """

    rule: Rule
    problems: int
    gradients: int
    seconds: float

    @property
    def parameters(self) -> int:
        """The number of meta-parameters."""
        return sum(weights.numel() for weights in self.rule.parameters())


def begin(rule: Rule, problems: Problems, unrolls: int) -> Course:
    """Runs that have taken no step yet."""
    with torch.no_grad():
        first = problems.loss(problems.start, problems.everything)
    return Course(problems, first, problems.start, rule.initial(problems.kind.layout, len(problems)), unrolls)


def unroll(rule: Rule, course: Course, steps: int) -> Tensor:
    """The meta-loss of some further steps, (); differentiable with respect to the rule, second derivatives included.

    It is the mean over steps and problems of log(loss / (first loss + OFFSET) + OFFSET), each loss being that of the
    minibatch after the step (Wichrowska et al. 2017, section 4.4). The course then has the state after the steps, cut
    from those before.
    """
    problems, layout = course.problems, course.problems.kind.layout
    parameters, state = course.parameters.detach().requires_grad_(), course.state
    losses = []
    loss = problems.loss(parameters, problems.minibatch())
    for _ in range(steps):
        (gradients,) = torch.autograd.grad(loss.sum(), parameters, create_graph=True)
        change, state = rule(gradients, parameters, state, layout)
        parameters = parameters + change
        loss = problems.loss(parameters, problems.minibatch())
        losses.append(loss)
    course.parameters = parameters.detach()
    course.state = {name: tensor.detach() for name, tensor in state.items()}
    course.left -= 1
    return torch.log(torch.stack(losses) / (course.first + OFFSET) + OFFSET).mean()


def train(
    name: str,
    recipe: MetaRecipe,
    *,
    seed: int,
    folder: Path,
    families: Mapping[str, ProblemFamily] = PROBLEMS,
    report: Callable[[int, float], None] = lambda update, loss: None,
) -> TrainedRule:
    """Trains a rule of `RULES`, or loads the one in the folder.

    Args:
        name: of the rule.
        recipe: how.
        seed: of weights and problems.
        folder: for the file of the rule.
        families: to train on; those that are held out are not.
        report: is called with the number of each update and its meta-loss.

    Raises:
        ValueError: a file in the folder that holds another rule.
    """
    path = folder / FILE
    if not path.is_file():
        _train(name, recipe, seed, path, {key: kind for key, kind in families.items() if not kind.held_out}, report)
    rule, about = load_rule(path, RULES)
    if rule.name != name:
        raise ValueError(f"{path}: holds {rule.name!r}, not {name!r}")
    numbers = {key: about[key] for key in ("problems", "gradients", "seconds")}
    return TrainedRule(rule, **numbers)  # type: ignore[arg-type]


def _train(
    name: str,
    recipe: MetaRecipe,
    seed: int,
    path: Path,
    families: Mapping[str, ProblemFamily],
    report: Callable[[int, float], None],
) -> None:
    generator = np.random.default_rng(seed)
    rule, average, best = (RULES[name](torch.Generator().manual_seed(seed)) for _ in range(3))
    optimizer = torch.optim.Adam(rule.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.updates)
    # No two runs shall meet in their problems.
    first = (seed + 1) * TASKS_OF_A_RUN
    courses: dict[str, Course] = {}
    problems = gradients = 0
    found: list[float] = []
    checked = {round(recipe.updates * number / recipe.checks) - 1 for number in range(1, recipe.checks + 1)}
    start = time.monotonic()
    for update in range(recipe.updates):
        losses, total = [], [torch.zeros_like(weights) for weights in rule.parameters()]
        for family, kind in families.items():
            # Where no more problems may be drawn, runs go on.
            more = recipe.tasks is None or problems + recipe.problems <= recipe.tasks
            if family not in courses and not more:
                continue
            if family not in courses or (more and courses[family].left <= 0):
                unrolls = 1 + int(generator.exponential(recipe.mean_unrolls))
                courses[family] = begin(rule, kind.drawn(first + problems, recipe.problems, "train"), unrolls)
                problems += recipe.problems
            course = courses[family]
            optimizer.zero_grad()
            loss = unroll(rule, course, recipe.unroll)
            loss.backward()
            gradients += recipe.problems * recipe.unroll
            norm = torch.nn.utils.clip_grad_norm_(rule.parameters(), recipe.clip)
            if norm.isfinite():
                for sum_, weights in zip(total, rule.parameters(), strict=True):
                    sum_ += 0.0 if weights.grad is None else weights.grad / len(families)
            if not (norm.isfinite() and course.parameters.isfinite().all()):
                # A run that exploded teaches nothing more.
                course.left = 0
            losses.append(float(loss.detach()))
        for sum_, weights in zip(total, rule.parameters(), strict=True):
            weights.grad = sum_
        optimizer.step()
        schedule.step()
        # Of few updates it is nearly their mean.
        kept = min(recipe.memory, (update + 1) / (update + 10))
        with torch.no_grad():
            for mean, weights in zip(average.parameters(), rule.parameters(), strict=True):
                mean.lerp_(weights, 1.0 - kept)
        if update in checked:
            found.append(validate(average, families))
            if found[-1] == min(found):
                best.load_state_dict(average.state_dict())
        report(update, float(np.mean(losses)))
    about = {"problems": problems, "gradients": gradients, "seconds": time.monotonic() - start, "seed": seed}
    save_rule(best, path, {**about, "recipe": asdict(recipe), "families": list(families), "validation": found})


def validate(rule: Rule, families: Mapping[str, ProblemFamily]) -> float:
    """The mean of log10(loss / first loss) over families, validation problems of each, and the steps CHECKED."""
    descents = [descend(rule, kind.drawn(0, VALIDATED, "validation"), CHECKED) for kind in families.values()]
    return float(np.mean([descent.log_ratio.mean() for descent in descents]))
