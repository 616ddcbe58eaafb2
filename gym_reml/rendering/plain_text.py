"""Text for outputs that cannot hold every character: files and pipes under Windows (cp1252), or plain ASCII."""

from __future__ import annotations

import codecs
import sys
from typing import Any

BLOCKS = "▁▂▃▄▅▆▇█"
"""Bars of rising height, which draw a course of values."""

_DENSITIES = str.maketrans(BLOCKS, ".:-=+*#@")
_SPELLINGS = {"±": "+-", "–": "-", "×": "x", "²": "2", "μ": "mu", "σ": "sigma"}

SPELL_OUT = "gym_reml.spell_out"
"""Name of an error handler of encodings: writes characters that are missing in ASCII, and "?" where it knows none."""


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(character, "?") for character in missing), error.end


codecs.register_error(SPELL_OUT, _spell_out)


def printable(text: str) -> str:
    """The text with nothing in it that `print` cannot write to the present standard output.

    It stays as it is where the output can hold it. Else its bars become characters of rising density, and what else is
    missing is spelled out. An output without an encoding, such as `io.StringIO`, holds everything.
    """
    encoding: Any = getattr(sys.stdout, "encoding", None)
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError):
        return text
    if not _holds(encoding, BLOCKS) and not set(text).isdisjoint(BLOCKS):
        # All of them: some encodings hold a few, which would not go together with the others' stand-ins.
        text = f"{text.translate(_DENSITIES)}\n\nbars from low to high: {BLOCKS.translate(_DENSITIES)}"
    return text.encode(encoding, SPELL_OUT).decode(encoding)


def _holds(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
