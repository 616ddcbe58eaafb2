"""Every command by name: what `gym-reml COMMAND` runs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, Union

from gym_reml import __version__

from .runs.command_line import EXTRA, HELP, program, run_command, run_plainly, spelled

COMMANDS = {
    "list": ("catalogue.list", "list the environments: id, what it is, what is decided"),
    "info": ("catalogue.info", "show an environment's spaces, arguments and competitors, and how it is made"),
    "train": ("train", "meta-train an agent and a pool of layers (REML), or one of another --env, and compare it"),
    "evaluate": ("evaluate", "evaluate a trained learner on its family, or on another of as many inputs and outputs"),
    "animate": ("animate", "draw a trained learner at work, as an animated GIF"),
    "average": ("average", "one table over runs that differ in their seed"),
    "compare": ("compare", "train every entrant of a benchmark and tabulate them: meta-learners, or RL² on trials"),
    "tune": ("tune", "compare settings of the tuned methods on validation tasks"),
    "scratch": ("rivals.scratch", "train from scratch, the step size tuned"),
    "pretrained": ("rivals.pretrained", "one network for all tasks, then finetuned"),
    "maml": ("rivals.maml", "MAML with the exact meta-gradient"),
    "fomaml": ("rivals.fomaml", "first-order MAML"),
    "reptile": ("rivals.reptile", "Reptile"),
    "meta_sgd": ("rivals.meta_sgd", "Meta-SGD: a learned rate for every weight"),
    "maml_plus_plus": ("rivals.maml_plus_plus", "MAML++, each of its parts a switch"),
    "bouncegrad": ("rivals.bouncegrad", "a pool of layers and a search among them (BounceGrad)"),
    "router": ("rivals.router", "a pool of specialists and a router trained by gradient descent"),
    "maml_rl": ("rivals.maml_rl", "MAML for reinforcement learning"),
    "rl2": ("rl2", "RL²: a recurrent policy that learns within trials"),
    "learned_optimizer": ("learned_optimizer.__main__", "an optimizer that is learned, beside tuned ones"),
    "headroom": ("headroom", "how much there is to learn in an environment"),
    "study": ("libraries.study", "search PPO's hyperparameters by Optuna, trials side by side or on a cluster"),
    "benchmark": ("benchmark", "environment steps per second"),
    "growth": ("growth.__main__", "how time and memory grow with sizes"),
    "endurance": ("endurance.__main__", "random configurations, many steps, kills and faults"),
    "results": ("results", "make the pages of results from their JSON files"),
    "specialists": ("pools.specialists", "make the pool of specialists that the package ships"),
    "packaged": ("comparison.packaged", "make the trained learners that the package ships"),
    "family_pictures": ("pages.family_pictures", "a picture of each task family"),
    "trial_pictures": ("pages.trial_pictures", "pictures of trials under good policies"),
    "moving_pictures": ("pages.moving_pictures", "an episode of each environment, as an animated GIF"),
    "scaling": ("comparison.scaling", "how long the jobs of the tables take on many machines"),
    "libraries": ("libraries.__main__", "train by every reinforcement-learning library, each in its own environment"),
    "shared_pool": ("libraries.shared_pool", "RLlib's PPO with one pool for all env runners"),
}
"""Every command: its module here, which holds a `Config` and a `main`, and what it is for."""

OF_THE_PACKAGE = "results"
"""The first of the commands that make the package's own pages and files; those before it are for everyone."""

PLAIN = ("list", "info")
"""Commands that need the package's core dependencies alone."""

COMPLETION = "--tyro-"
"""What tyro's options that make scripts for the completion of shells begin with."""


def main(arguments: Sequence[str]) -> None:
    """Runs a command of COMMANDS: its name, with hyphens or underscores, and its arguments."""
    first, *others = arguments or [""]
    name = first.replace("-", "_")
    if first in HELP:
        print(overview())
    elif first == "--version":
        print(__version__)
    elif not first:
        sys.exit(overview())
    elif first.startswith(COMPLETION):
        complete(arguments)
    elif name not in COMMANDS:
        sys.exit(f"error: {first!r} is no command; choices: {', '.join(map(spelled, COMMANDS))}")
    else:
        module = _module_of(name)
        options = module.options(others) if hasattr(module, "options") else module.Config
        run = run_plainly if name in PLAIN else run_command
        run(module.main, options, others)


def _module_of(name: str) -> Any:
    """The module of a command; without what it needs, one line that says so."""
    try:
        return importlib.import_module(f".{COMMANDS[name][0]}", __package__)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("gym_reml", __package__):
            raise
        sys.exit(f"error: {spelled(name)} needs {missing}: pip install '{EXTRA}'")


def complete(arguments: Sequence[str]) -> None:
    """Writes a script that completes commands and their options: `--tyro-write-completion SHELL FILE`."""
    commands = [(name, _module_of(name).Config) for name in COMMANDS]
    import tyro

    subcommands = tuple(
        Annotated[config, tyro.conf.subcommand(spelled(name), description=COMMANDS[name][1], prefix_name=False)]
        for name, config in commands
    )
    tyro.cli(Union[subcommands], prog="gym-reml", args=arguments)  # type: ignore[call-overload]  # noqa: UP007


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {spelled(name):18}{purpose}" for name, (_, purpose) in COMMANDS.items()]
    everyone = list(COMMANDS).index(OF_THE_PACKAGE)
    lines[everyone:everyone] = ["", "what makes the package's own pages, pictures and files (in a checkout):"]
    usage = f"usage: {program('')}COMMAND [OPTIONS]; COMMAND --help lists a command's options"
    return "\n".join([usage, "", "commands:", *lines])
