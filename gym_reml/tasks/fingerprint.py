"""What tasks depend on, as a short text that is the same in every process: formulas, ranges, arrays, classes.

Functions and classes of installed packages, gym-reml's among them, count by name. The user's own count by what they
do: bytecode, constants, defaults, closures, and the globals that they name. Neither addresses nor files nor line
numbers enter. Bytecode differs between versions of Python, so there a user's own formula counts as another one.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import secrets
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gymnasium import spaces

DIGITS = 16
"""Of a fingerprint, hexadecimal."""
DEPTH = 100
"""Things inside things: beyond it they count by their type alone."""

_OPAQUE: dict[int, tuple[Any, str]] = {}
"""What cannot be read, by its id: kept, so that no other object gets that id, with a name of this process alone."""


def fingerprint(value: Any) -> str:
    """A text that is equal where values are, in whatever process.

    Things that cannot be read, such as handles of C libraries, count as equal to themselves alone, and to nothing in
    another process; the text then names them.
    """
    reader = _Reader()
    digits = reader.read(value).hex()[:DIGITS]
    return digits + (f" with {', '.join(sorted(reader.opaque))} of one process" if reader.opaque else "")


class Fingerprinted:
    """What has a fingerprint of its own."""

    @property
    def fingerprint(self) -> str:
        """A short text that is equal, in whatever process, where this class and `identity()` are."""
        return fingerprint(self)

    def identity(self) -> dict[str, Any]:
        """All that counts beside the class, by name: everything that an instance holds but cannot compute again."""
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(getattr(type(self), name, None), functools.cached_property)
        }


class _Reader:
    """One walk over a value.

    Attributes:
        opaque: types of what could not be read.
    """

    def __init__(self) -> None:
        self.opaque: set[str] = set()
        self._known: dict[int, tuple[Any, bytes]] = {}
        self._open: list[int] = []

    def read(self, value: Any) -> bytes:
        """The digest of a value."""
        if value is None or type(value) in (bool, int, float, complex, str, bytes):
            return _digest(type(value).__name__, repr(value))
        if isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
            return self.read(value.item())
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) in self._open:
            return _digest("cycle", str(len(self._open) - self._open.index(id(value))))
        if len(self._open) > DEPTH:
            return _digest("deep", _name(type(value)))
        self._open.append(id(value))
        try:
            digest = self._read(value)
        finally:
            self._open.pop()
        self._known[id(value)] = (value, digest)
        return digest

    def _all(self, kind: str, *values: Any) -> bytes:
        return _digest(kind, *map(self.read, values))

    def _read(self, value: Any) -> bytes:
        match value:
            case Fingerprinted():
                return self._all("family", type(value), sorted(value.identity().items(), key=lambda item: item[0]))
            case np.ndarray() if value.dtype.hasobject:
                return self._all("array", value.shape, value.tolist())
            case np.ndarray():
                # In one byte order, so that machines agree.
                little = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
                return _digest("array", little.dtype.str, repr(value.shape), little.tobytes())
            case torch.Tensor():
                return self._all("tensor", value.detach().cpu().numpy())
            case tuple() | list() if not hasattr(value, "_fields"):
                return self._all("sequence", *value)
            case set() | frozenset():
                return _digest("set", *sorted(map(self.read, value)))
            case dict() | types.MappingProxyType():
                # In order: it is that in which parameters are drawn.
                return self._all("mapping", *value.keys(), *value.values())
            case _ if type(value).__name__ in ("Generator", "RandomState") and _installed(type(value).__module__):
                # Sources of randomness: not by their states, which use changes.
                return _digest("generator", _name(type(value)))
            case spaces.Space():
                held = {name: vars(value)[name] for name in sorted(vars(value)) if name != "_np_random"}
                return self._all("space", type(value), held)
            case types.ModuleType():
                return _digest("module", value.__name__)
            case types.FunctionType():
                return self._function(value)
            case types.MethodType():
                return self._all("method", value.__func__, value.__self__)
            case functools.partial():
                return self._all("partial", value.func, value.args, value.keywords)
            case staticmethod() | classmethod():
                return self._all(type(value).__name__, value.__func__)
            case property():
                return self._all("property", value.fget, value.fset)
            case functools.cached_property():
                return self._all("property", value.func)
            case types.CodeType():
                return self._code(value, None)
            case type():
                return self._class(value)
        return self._object(value)

    def _function(self, function: types.FunctionType) -> bytes:
        if function.__module__ is not None and _installed(function.__module__):
            return _digest("function", _name(function))
        inside = [_content(cell) for cell in function.__closure__ or ()]
        globals_ = [self._global(function.__globals__, *found) for found in _references(function.__code__)]
        parts = (function.__defaults__, function.__kwdefaults__, inside)
        return _digest("function", self._code(function.__code__, function.__doc__), *map(self.read, parts), *globals_)

    def _code(self, code: types.CodeType, words: str | None) -> bytes:
        constants = code.co_consts
        if words is not None and constants[:1] == (words,):
            constants = constants[1:]
        arguments = code.co_argcount + code.co_kwonlyargcount
        names = (code.co_varnames[:arguments], code.co_names, code.co_flags & (0x04 | 0x08))
        return self._all("code", code.co_code, constants, *names)

    def _global(self, found: dict[str, Any], name: str, attributes: tuple[str, ...]) -> bytes:
        """What a function's code reaches by this name; of the user's modules, what it takes out of them."""
        if name not in found:
            return _digest("name", name, *attributes)
        value = found[name]
        for attribute in attributes:
            if not isinstance(value, types.ModuleType) or _installed(value.__name__):
                break
            value = getattr(value, attribute, None)
        return _digest("global", name, self.read(value))

    def _class(self, kind: type) -> bytes:
        if _installed(kind.__module__):
            return _digest("class", _name(kind))
        # Docstrings, annotations and what dataclasses write say nothing that fields and methods do not.
        own = {
            name: member
            for name, member in vars(kind).items()
            if not (
                name.startswith("__") and name.endswith("__") and (not inspect.isroutine(member) or _written(member))
            )
            and name not in ("_abc_impl", "__annotate_func__", "__annotate__")
            and not isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType)
        }
        return self._all("class", kind.__bases__, [(name, own[name]) for name in sorted(own)])

    def _object(self, value: Any) -> bytes:
        """Anything else: by name if it has one, else as it would be pickled."""
        if isinstance(value, types.BuiltinFunctionType) and not isinstance(
            value.__self__, types.ModuleType | type(None)
        ):
            return self._all("method", value.__name__, value.__self__)
        if hasattr(value, "__wrapped__"):
            # Such as `functools.cache`'s, which would count by name.
            return self._all("wrapped", type(value), value.__wrapped__)
        if inspect.isroutine(value) or isinstance(value, np.ufunc):
            return _digest("function", _name(value))
        try:
            how = value.__reduce_ex__(2)
            if isinstance(how, str):
                return _digest("name", _name(type(value)), how)
            parts = [list(part) if isinstance(part, Iterator) else part for part in how]
        except Exception:
            self.opaque.add(_name(type(value)))
            return _digest("opaque", _OPAQUE.setdefault(id(value), (value, secrets.token_hex(DIGITS)))[1])
        return self._all("object", type(value), *parts)


def _digest(kind: str, *parts: str | bytes) -> bytes:
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        # With their lengths, so that no two sequences of parts join to the same bytes.
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def _name(value: Any) -> str:
    """Of a class or function: its module and its name there."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", repr(type(value)))
    return f"{getattr(value, '__module__', None) or 'builtins'}.{name}"


@functools.lru_cache(maxsize=1024)
def _installed(module: str) -> bool:
    """Whether a module is gym-reml's, Python's or another package's that is installed, and no code of the user's."""
    if module.partition(".")[0] in ("gym_reml", *sys.stdlib_module_names):
        return True
    if module == "__main__":  # whatever file started the process
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _references(code: types.CodeType) -> list[tuple[str, tuple[str, ...]]]:
    """The globals that code names, inner functions' too, with the attributes taken of each, in order of name."""
    found = set()
    chain: list[str] = []
    for instruction in [*dis.get_instructions(code), None]:
        if instruction is not None and instruction.opname == "EXTENDED_ARG":
            continue
        if instruction is not None and chain and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain.append(str(instruction.argval))
            continue
        if chain:
            found.add((chain[0], tuple(chain[1:])))
        chain = [instruction.argval] if instruction and instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") else []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            found.update(_references(constant))
    return sorted(found)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _written(member: Any) -> bool:
    """Whether a special method is one that `dataclass` wrote."""
    function = getattr(member, "__func__", member)
    code = getattr(function, "__code__", None)
    return code is None or code.co_filename == "<string>" or function.__module__ == "dataclasses"
