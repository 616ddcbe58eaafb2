"""How a dataclass becomes a command: bad input ends in one clear line, not in a traceback."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from gym_reml.rendering.plain_text import SPELL_OUT

C = TypeVar("C")

HELP = ("-h", "--help")
EXTRA = "gym-reml[agents]"
"""What has all that the commands need."""

AGENTS = __name__.partition(".")[0]
"""The package of the commands: `agents`, or `gym_reml_agents` where a wheel is installed."""


def spelled(name: str) -> str:
    """A command's name as it is typed."""
    return name.replace("_", "-")


def program(name: str) -> str:
    """What is typed to run a command, in the way that this process was started.

    Args:
        name: of the command's module below `agents`, such as "train" or "rivals.maml".
    """
    name = name.removesuffix(".__main__")
    short = spelled(name.rpartition(".")[2])
    started = Path(sys.argv[0])
    if started.stem == "gym-reml":
        return f"gym-reml {short}"
    if started.name == "__main__.py" and started.parent.name == "gym_reml":
        return f"python -m gym_reml {short}"
    return f"python -m {AGENTS}.{name}"


def run_command(main: Callable[[C], None], config: type[C], arguments: Sequence[str] | None = None) -> None:
    """Parses the arguments, by default those of this process, into `config` and runs `main` on it."""

    def parsed(prog: str, words: Sequence[str]) -> C:
        import tyro

        options = explained(config, words) if any(word in HELP for word in words) else config
        return tyro.cli(options, prog=prog, args=words)

    _run(main, parsed, arguments)


def run_plainly(main: Callable[[C], None], config: type[C], arguments: Sequence[str] | None = None) -> None:
    """The same without the extra `agents`: all options are texts that must be given."""

    def parsed(prog: str, words: Sequence[str]) -> C:
        parser = argparse.ArgumentParser(prog=prog, description=config.__doc__)
        for option in fields(config):  # type: ignore[arg-type]
            parser.add_argument(option.name, help=option.metadata.get("help"))
        return config(**vars(parser.parse_args(words)))

    _run(main, parsed, arguments)


def _run(main: Callable[[C], None], parsed: Callable[[str, Sequence[str]], C], arguments: Sequence[str] | None) -> None:
    """Runs `main` on what `parsed` makes of the program's name and the arguments."""
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
        main(parsed(program(module.removeprefix(f"{AGENTS}.")), arguments))
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
    return Union[tuple(kinds)], _without_none(kinds[0])[1]  # noqa: UP007


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
