"""Meta-training: truncated backpropagation through runs of the optimizer on problems of all families in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..runs.run import TASKS_OF_A_RUN
from .problems import PROBLEMS, ProblemFamily, Problems
from .rule import Rule, State, load_rule, save_rule
from .table import RULES

OFFSET = 1e-6
"""Added to losses in the meta-loss, log(loss / (first loss + OFFSET) + OFFSET)."""
FILE = "rule.pt"


@dataclass(frozen=True)
class MetaRecipe:
    """Settings of meta-training."""

    truncations: int = 4000
    """meta-updates: backpropagations through one truncated unroll each"""
    unroll: int = 20
    """steps of the optimizer in a truncated unroll"""
    mean_unrolls: float = 10.0
    """mean of the exponentially distributed number of further unrolls of a run, after the first"""
    problems: int = 16
    """problems of a family side by side"""
    learning_rate: float = 3e-3
    """Adam's initial learning rate; annealed to 0 along half a cosine"""
    clip: float = 1.0
    """largest norm of the meta-gradient"""

    def with_at_most(self, tasks: int) -> MetaRecipe:
        """A shorter training that draws at most so many problems, however short the runs on them come out."""
        problems = min(self.problems, tasks)
        return replace(self, problems=problems, truncations=min(self.truncations, tasks // problems))


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
    rule = RULES[name](torch.Generator().manual_seed(seed))
    optimizer = torch.optim.Adam(rule.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, recipe.truncations)
    # No two runs shall meet in their problems.
    drawn = (seed + 1) * TASKS_OF_A_RUN
    courses: dict[str, Course] = {}
    order: list[str] = []
    problems = gradients = 0
    start = time.monotonic()
    for update in range(recipe.truncations):
        order = order or list(generator.permutation(list(families)))
        family = order.pop()
        if family not in courses or not courses[family].left:
            unrolls = 1 + int(generator.exponential(recipe.mean_unrolls))
            courses[family] = begin(rule, families[family].drawn(drawn, recipe.problems, "train"), unrolls)
            drawn += recipe.problems
            problems += recipe.problems
        course = courses[family]
        optimizer.zero_grad()
        loss = unroll(rule, course, recipe.unroll)
        loss.backward()
        gradients += recipe.problems * recipe.unroll
        norm = torch.nn.utils.clip_grad_norm_(rule.parameters(), recipe.clip)
        if not norm.isfinite():
            optimizer.zero_grad()
        optimizer.step()
        if not (norm.isfinite() and course.parameters.isfinite().all()):
            # A run that exploded teaches nothing more.
            course.left = 0
        schedule.step()
        report(update, float(loss.detach()))
    about = {"problems": problems, "gradients": gradients, "seconds": time.monotonic() - start, "seed": seed}
    save_rule(rule, path, {**about, "recipe": asdict(recipe), "families": list(families)})
