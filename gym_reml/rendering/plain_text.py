"""Text for outputs that cannot encode every character, such as cp1252 on Windows, or ASCII."""

from __future__ import annotations

import codecs
import sys
from typing import Any

BLOCKS = "▁▂▃▄▅▆▇█"
"""Bars of rising height, for plots of values over time."""

_DENSITIES = str.maketrans(BLOCKS, ".:-=+*#@")
_SPELLINGS = {"±": "+-", "–": "-", "×": "x", "²": "2", "μ": "mu", "σ": "sigma"}

SPELL_OUT = "gym_reml.spell_out"
"""Name of a codec error handler that spells out characters in ASCII, as "?" where it has no spelling."""


def _spell_out(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    missing = error.object[error.start : error.end]
    return "".join(_SPELLINGS.get(character, "?") for character in missing), error.end


codecs.register_error(SPELL_OUT, _spell_out)


def printable(text: str) -> str:
    """The text without characters that the current standard output cannot encode.

    If necessary, bars become characters of rising density, and other characters are spelled out. An output without an
    encoding, such as `io.StringIO`, takes every character.
    """
    encoding: Any = getattr(sys.stdout, "encoding", None)
    try:
        codecs.lookup(encoding)
    except (LookupError, TypeError):
        return text
    if not _encodes(encoding, BLOCKS) and not set(text).isdisjoint(BLOCKS):
        # All bars are replaced, since some encodings have only a few of them.
        text = f"{text.translate(_DENSITIES)}\n\nbars from low to high: {BLOCKS.translate(_DENSITIES)}"
    return text.encode(encoding, SPELL_OUT).decode(encoding)


def _encodes(encoding: str, text: str) -> bool:
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True
