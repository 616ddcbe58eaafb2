"""MAML for reinforcement learning (Finn et al. 2017, section 4.2): `python -m agents.rivals.maml_rl --outer trpo`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from tqdm import tqdm

from gym_reml.evaluation import MetaLearner
from gym_reml.tasks import FAMILIES
from gym_reml.tasks.policies.base import PolicyFamily

from ..pools.reinforcement import meta_learn_policies, with_inner_rates
from ..problems.own import names_or_own
from ..problems.problem import Problem, own_shape
from ..problems.recipes import POLICIES, POLICY_BATCH, Clip
from ..runs.command_line import check_options, default_is, run_command
from .rival import RivalConfig

if TYPE_CHECKING:
    PolicyName = str
else:
    NAMES = (name for name, family in FAMILIES.items() if issubclass(family, PolicyFamily))
    PolicyName = names_or_own(str | None, NAMES, "MODULE:FAMILY")


@dataclass(frozen=True)
class Config(RivalConfig):
    """A policy from which a policy-gradient step, or a few, on a task's own trajectories reach far."""

    # With more, updates at fixed rates overshoot: deviations become smaller than suits them.
    most_tasks: ClassVar[int | None] = 60 * POLICY_BATCH

    family: PolicyName = "navigation"
    """family of policies; MODULE:FAMILY is your own: a TaskFamily in a module here or installed, or what makes one"""
    surrogate: Literal["lvc", "dice", "first_order"] = "lvc"
    """the inner loss: which terms of the meta-gradient are kept"""
    outer: Literal["adam", "ppo", "trpo"] = "adam"
    """how the initial weights follow the meta-gradient"""
    updates: int = 1
    """updates that are trained through; the return after the last counts"""
    constants_learning_rate: Annotated[
        float | None, default_is(f"{POLICIES.bootstrap_constants_learning_rate}, by the recipe of policies")
    ] = None
    """Adam's learning rate for outputs that depend on no input, such as log deviations (not with --outer trpo)"""
    clip: Clip = "none"
    """norm at which the networks' gradients are clipped"""
    evaluation_tasks: int = 200
    """held-out tasks of the table"""

    def learner(self, problem: Problem) -> MetaLearner:
        """What this command trains."""
        if not isinstance(problem.family, PolicyFamily):
            raise ValueError(f"--family {self.family}: must be a family of policies (a PolicyFamily)")
        check_options(self, updates=1)
        return train(problem, self.surrogate, self.outer, self.updates, self.constants_learning_rate)


def train(
    problem: Problem,
    surrogate: str = "lvc",
    outer: str = "adam",
    updates: int = 1,
    constants_learning_rate: float | None = None,
) -> MetaLearner:
    """Initial weights for so many updates at the authors' rates, which further updates take too.

    The learning rate of log deviations is the recipe's unless one is given.

    Raises:
        ValueError: a learning rate that is not a positive number.
    """
    recipe = replace(problem.recipe, bootstrap_updates=updates)
    if constants_learning_rate is not None:
        if not 0.0 < constants_learning_rate < float("inf"):
            raise ValueError(f"--constants-learning-rate {constants_learning_rate}: must be a positive number")
        recipe = replace(recipe, bootstrap_constants_learning_rate=constants_learning_rate)
    problem = replace(problem, recipe=recipe)
    iterations = max(1, problem.tasks // POLICY_BATCH)
    with tqdm(total=iterations, desc=f"maml_rl: {surrogate}, {outer}, {updates}", unit="update", disable=None) as bar:

        def progress(_: int, loss: float) -> None:
            bar.update()
            bar.set_postfix(after=f"{-loss:.1f}", refresh=False)

        pool = meta_learn_policies(problem, iterations, progress, surrogate, outer)
    return own_shape(problem.recipe).learner("maml_rl", with_inner_rates(pool), problem.recipe.horizon)


def main(config: Config) -> None:
    """Trains, and shows how the learner does."""
    config.show(config.learner)


if __name__ == "__main__":
    run_command(main, Config)
