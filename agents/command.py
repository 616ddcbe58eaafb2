"""The commands, and how a dataclass becomes one: bad input ends in one clear line, not in a traceback."""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from gym_reml import __version__
from gym_reml.plain_text import SPELL_OUT

C = TypeVar("C")

COMMANDS = {
    "train": "meta-train an agent and a pool of layers (REML), and compare it with its controls",
    "evaluate": "evaluate a trained learner on any family",
    "animate": "draw a trained learner at work, as an animated GIF",
    "average": "one table over runs that differ in their seed",
    "compare": "train every meta-learner of a benchmark and tabulate them",
    "compare_trials": "RL² and classical policies on the same trials",
    "results": "make the pages of results from their JSON files",
    "scratch": "train from scratch, the step size tuned",
    "pretrained": "one network for all tasks, then finetuned",
    "maml": "MAML with the exact meta-gradient",
    "fomaml": "first-order MAML",
    "reptile": "Reptile",
    "meta_sgd": "Meta-SGD: a learned rate for every weight",
    "maml_plus_plus": "MAML++, each of its parts a switch",
    "bouncegrad": "a pool of layers and a search among them (BounceGrad)",
    "router": "a pool of specialists and a router taught by gradient",
    "maml_rl": "MAML for reinforcement learning",
    "rl2": "RL²: a recurrent policy that learns within trials",
    "headroom": "how much there is to learn in the default environment",
    "specialists": "make the pool of specialists that the package ships",
    "picture_trials": "pictures of trials that are played well",
    "benchmark": "environment steps per second",
    "benchmark_trials": "steps per second of trials",
}
"""Every command: the module of that name here, which holds a `Config` and a `main`, and what it is for."""

HELP = ("-h", "--help")
EXTRA = "gym-reml[agents]"


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
    elif name not in COMMANDS:
        sys.exit(f"error: {first!r} is no command; choices: {', '.join(map(spelled, COMMANDS))}")
    else:
        try:
            module = importlib.import_module(f".{name}", __package__)
        except ModuleNotFoundError as error:
            missing = (error.name or "").partition(".")[0]
            if missing in ("gym_reml", __package__):
                raise
            sys.exit(f"error: {spelled(name)} needs {missing}: pip install '{EXTRA}'")
        run_command(module.main, module.Config, others)


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {spelled(name):18}{purpose}" for name, purpose in COMMANDS.items()]
    usage = f"usage: {program('')}COMMAND [OPTIONS]; COMMAND --help tells a command's options"
    return "\n".join([usage, "", "commands:", *lines])


def spelled(name: str) -> str:
    """A command's name as it is typed."""
    return name.replace("_", "-")


def program(name: str) -> str:
    """What is typed to run a command, in the way that this process was started; `name` as in COMMANDS."""
    started = Path(sys.argv[0])
    if started.stem == "gym-reml":
        return f"gym-reml {spelled(name)}"
    if started.name == "__main__.py" and started.parent.name == "gym_reml":
        return f"python -m gym_reml {spelled(name)}"
    return f"python -m {__package__}.{name}"


def run_command(main: Callable[[C], None], config: type[C], arguments: Sequence[str] | None = None) -> None:
    """Parses the arguments, by default those of this process, into `config` and runs `main` on it."""
    import tyro

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # No command shall end in the middle for a sign that a redirected output cannot hold.
            stream.reconfigure(errors=SPELL_OUT)
    arguments = sys.argv[1:] if arguments is None else arguments
    module = main.__module__
    if module == "__main__":
        spec = sys.modules[module].__spec__
        module = Path(sys.argv[0]).stem if spec is None else spec.name
    try:
        options = explained(config, arguments) if any(argument in HELP for argument in arguments) else config
        main(tyro.cli(options, prog=program(module.rpartition(".")[2]), args=arguments))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"error: {error}")


def explained(config: type[C], arguments: Sequence[str]) -> type[C]:
    """The same options, where those that are None by default tell what they then are, and that they take no None.

    A configuration whose defaults depend on other options has a method `implied` that gives them as texts by name.
    """
    import tyro

    try:
        rest = [argument for argument in arguments if argument not in HELP]
        given: Any = tyro.cli(config, args=rest, console_outputs=False)
    except SystemExit:
        # Something is missing or wrong. A configuration of which something must be given has nothing to imply.
        given = config() if hasattr(config, "implied") else None
    implied = given.implied() if hasattr(given, "implied") else {}
    hints = get_type_hints(config, include_extras=True)
    options = []
    for option in fields(config):  # type: ignore[arg-type]
        if option.default is None:
            hint, kind = _without_none(hints[option.name])
            if option.name in implied:
                hint = Annotated[hint, default_is(implied[option.name])]
            # Whatever it is, the hint stands in its place.
            options.append((option.name, hint, get_args(kind)[0] if get_origin(kind) is Literal else kind()))
    if not options:
        return config
    return make_dataclass(config.__name__, options, bases=(config,), frozen=True, namespace={"__doc__": config.__doc__})


def _without_none(hint: Any) -> tuple[Any, Any]:
    """The type without None: with all that annotates it, and bare."""
    if get_origin(hint) is Annotated:
        inner, *extras = get_args(hint)
        annotated, kind = _without_none(inner)
        parts = (annotated, *extras)
        return Annotated[parts], kind
    kinds = [kind for kind in get_args(hint) if kind is not type(None)]
    if get_origin(hint) is Literal or not kinds:
        return hint, hint
    return kinds[0], _without_none(kinds[0])[1]


def default_is(text: str) -> Any:
    """How `--help` shows an option that is None by default."""
    import tyro

    return tyro.conf.arg(help_behavior_hint=f"(default: {text})")


def check_options(config: Any, **least: int) -> None:
    """Raises a ValueError that names the first option below the least value that is given for it.

    Options that are None are left to the recipe.
    """
    for name, lowest in least.items():
        value = getattr(config, name)
        if value is not None and value < lowest:
            raise ValueError(f"--{spelled(name)} {value}: must be at least {lowest}")
