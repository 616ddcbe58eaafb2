"""Fingerprints: hashes of everything that tasks depend on (formulas, ranges, arrays, classes), equal in all processes.

Functions and classes of installed packages, including gym-reml, are identified by name; the user's by content:
bytecode, constants, defaults, closures, and the globals they refer to. Memory addresses, file names and line numbers do
not enter. Bytecode differs between versions of Python, and so do fingerprints of a user's formulas.
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
"""Number of hexadecimal digits of a fingerprint."""
DEPTH = 100
"""Largest nesting depth; deeper objects are identified by their type alone."""

_OPAQUE: dict[int, tuple[Any, str]] = {}
"""Unreadable objects by id, with a random token; stored so that their ids are not reused."""


def fingerprint(value: Any) -> str:
    """A text that is equal for equal values, in all processes.

    Objects that cannot be read, such as handles of C libraries, are equal only to themselves and only within a process;
    the text then names their types.
    """
    reader = _Reader()
    digits = reader.read(value).hex()[:DIGITS]
    return digits + (f" with {', '.join(sorted(reader.opaque))} of one process" if reader.opaque else "")


class Fingerprinted:
    """Base of classes with a fingerprint."""

    @property
    def fingerprint(self) -> str:
        """A short text that is equal for objects of the same class with equal `identity()`, in all processes."""
        return fingerprint(self)

    def identity(self) -> dict[str, Any]:
        """Attributes that enter the fingerprint, by name: all except cached properties."""
        return {
            name: value
            for name, value in vars(self).items()
            if not isinstance(getattr(type(self), name, None), functools.cached_property)
        }


class _Reader:
    """Recursive traversal of a value.

    Attributes:
        opaque: types of objects that could not be read.
    """

    def __init__(self) -> None:
        self.opaque: set[str] = set()
        self._digests: dict[int, tuple[Any, bytes]] = {}
        self._path: list[int] = []

    def read(self, value: Any) -> bytes:
        """The digest of a value."""
        if value is None or type(value) in (bool, int, float, complex, str, bytes):
            return _digest(type(value).__name__, repr(value))
        if isinstance(value, np.generic) and value.dtype.kind in "biufcSU":
            return self.read(value.item())
        if id(value) in self._digests:
            return self._digests[id(value)][1]
        if id(value) in self._path:
            return _digest("cycle", str(len(self._path) - self._path.index(id(value))))
        if len(self._path) > DEPTH:
            return _digest("deep", _name(type(value)))
        self._path.append(id(value))
        try:
            digest = self._read(value)
        finally:
            self._path.pop()
        self._digests[id(value)] = (value, digest)
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
                # In little-endian byte order on all machines.
                little = np.ascontiguousarray(value.astype(value.dtype.newbyteorder("<"), copy=False))
                return _digest("array", little.dtype.str, repr(value.shape), little.tobytes())
            case torch.Tensor():
                return self._all("tensor", value.detach().cpu().numpy())
            case tuple() | list() if not hasattr(value, "_fields"):
                return self._all("sequence", *value)
            case set() | frozenset():
                return _digest("set", *sorted(map(self.read, value)))
            case dict() | types.MappingProxyType():
                # Order matters: it is the order in which parameters are drawn.
                return self._all("mapping", *value.keys(), *value.values())
            case _ if type(value).__name__ in ("Generator", "RandomState") and _installed(type(value).__module__):
                # Random generators: without their states, which change with use.
                return _digest("generator", _name(type(value)))
            case spaces.Space():
                attributes = {name: vars(value)[name] for name in sorted(vars(value)) if name != "_np_random"}
                return self._all("space", type(value), attributes)
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
        inside = [_cell_content(cell) for cell in function.__closure__ or ()]
        globals_ = [self._global(function.__globals__, *reference) for reference in _references(function.__code__)]
        parts = (function.__defaults__, function.__kwdefaults__, inside)
        return _digest("function", self._code(function.__code__, function.__doc__), *map(self.read, parts), *globals_)

    def _code(self, code: types.CodeType, docstring: str | None) -> bytes:
        constants = code.co_consts
        if docstring is not None and constants[:1] == (docstring,):
            constants = constants[1:]
        arguments = code.co_argcount + code.co_kwonlyargcount
        names = (code.co_varnames[:arguments], code.co_names, code.co_flags & (0x04 | 0x08))
        return self._all("code", code.co_code, constants, *names)

    def _global(self, namespace: dict[str, Any], name: str, attributes: tuple[str, ...]) -> bytes:
        """Digest of the global that code refers to by `name`; for the user's modules, of the attributes it uses."""
        if name not in namespace:
            return _digest("name", name, *attributes)
        value = namespace[name]
        for attribute in attributes:
            if not isinstance(value, types.ModuleType) or _installed(value.__name__):
                break
            value = getattr(value, attribute, None)
        return _digest("global", name, self.read(value))

    def _class(self, kind: type) -> bytes:
        if _installed(kind.__module__):
            return _digest("class", _name(kind))
        # Docstrings, annotations and methods generated by dataclasses add nothing to fields and methods.
        own = {
            name: member
            for name, member in vars(kind).items()
            if not (
                name.startswith("__") and name.endswith("__") and (not inspect.isroutine(member) or _generated(member))
            )
            and name not in ("_abc_impl", "__annotate_func__", "__annotate__")
            and not isinstance(member, types.GetSetDescriptorType | types.MemberDescriptorType)
        }
        return self._all("class", kind.__bases__, [(name, own[name]) for name in sorted(own)])

    def _object(self, value: Any) -> bytes:
        """Digest of any other object: by name if it has one, else by its pickled state."""
        if isinstance(value, types.BuiltinFunctionType) and not isinstance(
            value.__self__, types.ModuleType | type(None)
        ):
            return self._all("method", value.__name__, value.__self__)
        if hasattr(value, "__wrapped__"):
            # Such as those of `functools.cache`, which would otherwise be identified by name.
            return self._all("wrapped", type(value), value.__wrapped__)
        if inspect.isroutine(value) or isinstance(value, np.ufunc):
            return _digest("function", _name(value))
        try:
            reduced = value.__reduce_ex__(2)
            if isinstance(reduced, str):
                return _digest("name", _name(type(value)), reduced)
            parts = [list(part) if isinstance(part, Iterator) else part for part in reduced]
        except Exception:
            self.opaque.add(_name(type(value)))
            return _digest("opaque", _OPAQUE.setdefault(id(value), (value, secrets.token_hex(DIGITS)))[1])
        return self._all("object", type(value), *parts)


def _digest(kind: str, *parts: str | bytes) -> bytes:
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for part in parts:
        content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        # With their lengths, so that different sequences of parts give different bytes.
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


def _name(value: Any) -> str:
    """Module and qualified name of a class or function."""
    name = getattr(value, "__qualname__", None) or getattr(value, "__name__", repr(type(value)))
    return f"{getattr(value, '__module__', None) or 'builtins'}.{name}"


@functools.lru_cache(maxsize=1024)
def _installed(module: str) -> bool:
    """Whether a module belongs to gym-reml, Python or another installed package, rather than to the user's code."""
    if module.partition(".")[0] in ("gym_reml", *sys.stdlib_module_names):
        return True
    if module == "__main__":  # even if started from an installed file
        return False
    file = getattr(sys.modules.get(module), "__file__", None)
    return file is not None and not {"site-packages", "dist-packages"}.isdisjoint(Path(file).parts)


def _references(code: types.CodeType) -> list[tuple[str, tuple[str, ...]]]:
    """Globals that code (and inner functions) refers to, with chains of attributes read from each, sorted."""
    references = set()
    chain: list[str] = []
    for instruction in [*dis.get_instructions(code), None]:
        if instruction is not None and instruction.opname == "EXTENDED_ARG":
            continue
        if instruction is not None and chain and instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            chain.append(str(instruction.argval))
            continue
        if chain:
            references.add((chain[0], tuple(chain[1:])))
        chain = [instruction.argval] if instruction and instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME") else []
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            references.update(_references(constant))
    return sorted(references)


def _cell_content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return "empty"


def _generated(member: Any) -> bool:
    """Whether a special method was generated by `dataclass`."""
    function = getattr(member, "__func__", member)
    code = getattr(function, "__code__", None)
    return code is None or code.co_filename == "<string>" or function.__module__ == "dataclasses"
