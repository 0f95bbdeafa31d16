"""Digests that compare functions and objects by value across processes, which pickle cannot do.

The digest of a function covers its code and the values that the code reads: defaults, closure
variables, globals and modules, and the same for each function among these values. Some values
cannot be compared (an open file, a lock, a model): these raise `NotComparable`, which says where
the value was found.

The digest does not cover what a function looks up by name or reads from files while it runs:
`importlib`, environment variables, a table that it opens.
"""

from __future__ import annotations

import copyreg
import enum
import functools
import hashlib
import os
import random
import types
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from kloaders.core.code_reads import Reads, reads_of, stored_attributes
from kloaders.core.modules import is_ours, library_name, module_of, version_of

__all__ = ["NotComparable", "digest_of", "digest_of_method"]

#: For some types, a function that returns another value to compare in place of the object. Objects
#: of all other types are compared by what pickle would store.
Special = Mapping[type, Callable[[Any], Any]]

_PLAIN = (type(None), bool, int, float, complex, type(Ellipsis), type(NotImplemented))
# Every class has these attributes, and they do not affect the behaviour of its instances.
_NOT_OF_A_CLASS = frozenset(
    (
        *("__dict__", "__weakref__", "__module__", "__doc__", "__qualname__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__firstlineno__"),
        *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__parameters__"),
        *("__orig_bases__", "__dataclass_fields__", "__dataclass_params__", "__match_args__"),
    )
)
_DESCRIPTORS = (
    types.MemberDescriptorType,
    types.GetSetDescriptorType,
    types.WrapperDescriptorType,
    types.MethodDescriptorType,
    types.ClassMethodDescriptorType,
    types.MethodWrapperType,
)
_GENERATORS = (np.random.Generator, np.random.BitGenerator, np.random.RandomState, random.Random)


class NotComparable(TypeError):
    """A digest depends on something that cannot be compared by value.

    Attributes:
        where: the path to it, such as "global 'MODEL' of decode()".
        kind: a description of its type.
    """

    def __init__(self, where: str, kind: str) -> None:
        super().__init__(where, kind)
        self.where, self.kind = where, kind

    def __str__(self) -> str:
        return f"{self.where} ({self.kind}) cannot be compared by value"


def digest_of(value: Any, what: str = "it", special: Special | None = None) -> str:
    """A short digest of a value, or of a function and everything that it depends on.

    Args:
        value: any object.
        what: the name of the value in errors, such as "decode=".
        special: functions that replace objects of some types before they are compared.

    Raises:
        NotComparable: some part of it cannot be compared by value.
    """
    return _safely(lambda: _Walk(special or {}, None, frozenset(), what).of(value), what).hex()


def digest_of_method(
    owner: Any,
    name: str,
    special: Special | None = None,
    settings: Mapping[str, Any] | None = None,
) -> str:
    """A digest of a method and of what it depends on. The object counts only as far as code reads it.

    The digest covers the attributes that the method reads from the instance and from the user's
    classes. If one of these is a method, what it reads counts as well. Attributes that this package's
    own classes set do not count.

    Args:
        owner: the object that has the method.
        name: the name of the method.
        special: functions that replace objects of some types before they are compared.
        settings: attributes of this package's classes that do count if the method reads them and they
            are plain values or of a special type.

    Raises:
        NotComparable: the method reads something that cannot be compared by value.
    """
    names: frozenset[str] = frozenset({name})
    while True:  # until the attributes that are read name no further attributes
        walk = _Walk(special or {}, owner, names, f"{type(owner).__name__}.{name}()")
        walk.settings = settings or {}
        found = _safely(walk.of_owner, walk.trail[0])
        if walk.names <= names:
            return found.hex()
        names |= walk.names


def _safely(make: Callable[[], bytes], what: str) -> bytes:
    try:
        return make()
    except RecursionError:
        raise NotComparable(what, "something nested too deeply") from None


def _joined(tag: str, *parts: bytes | str) -> bytes:
    digest = hashlib.blake2b(tag.encode(), digest_size=16)
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.digest()


class _Walk:
    """One traversal of everything that a value depends on.

    Attributes:
        names: attribute names that the code visited so far reads from any object.
        trail: the path from the first value to the current one.
    """

    def __init__(self, special: Special, owner: Any, names: frozenset[str], what: str) -> None:
        self.special = special
        self.owner = owner
        self.names = set(names)
        self.of_self: set[str] = set()
        self.settings: Mapping[str, Any] = {}
        self.trail = [what]
        # Digests by object id. A value in progress has a placeholder, since it may contain itself.
        # `_alive` keeps the objects alive: an id may otherwise be reused for another object.
        self._seen: dict[int, bytes] = {}
        self._alive: list[Any] = []
        self._modules: dict[tuple[Any, ...], bytes] = {}
        kinds = [] if owner is None else type(owner).__mro__
        self._ours = [kind for kind in kinds if is_ours(kind.__module__) or kind is object]
        self._users = [kind for kind in kinds if kind not in self._ours and not library_name(kind)]

    @contextmanager
    def _at(self, step: str) -> Any:
        self.trail.append(step)
        yield
        self.trail.pop()

    def _refuse(self, kind: str) -> NotComparable:
        return NotComparable(" of ".join(reversed(self.trail)), kind)

    # ------------------------------------------------------------------ values

    def of(self, value: Any, step: str | None = None) -> bytes:
        """The digest of a value; `step` describes how it was reached from the previous value."""
        if step is not None:
            with self._at(step):
                return self.of(value)
        kind = type(value)
        if kind in _PLAIN:
            return _joined(kind.__name__, repr(value))
        if kind is str or kind is bytes:
            return _joined(kind.__name__, value)
        if kind is tuple:  # never by id: whether equal constants are the same object is arbitrary
            return _joined("tuple", *[self.of(v, f"item {k}") for k, v in enumerate(value)])
        if kind is frozenset or kind is set:
            return _joined(kind.__name__, *sorted(map(self._alone, value)))
        if isinstance(value, types.ModuleType):
            return self._of_module(value)
        seen = self._seen.get(id(value))
        if seen is None:
            self._alive.append(value)
            self._seen[id(value)] = _joined("again", str(len(self._seen)))
            seen = self._seen[id(value)] = self._of_object(value)
        return seen

    def _alone(self, value: Any) -> bytes:
        # The order of a set's members differs between processes.
        walk = _Walk(self.special, self.owner, frozenset(self.names), self.trail[0])
        walk.trail = [*self.trail, "member"]
        found = walk.of(value)
        self.names |= walk.names
        return found

    def _of_object(self, value: Any) -> bytes:
        for kind, make in self.special.items():
            if isinstance(value, kind):
                return _joined(kind.__name__, self.of(make(value)))
        if value is self.owner and value is not None:
            return _joined("self")
        if isinstance(value, type):
            return self._of_class(value)
        if isinstance(value, types.FunctionType):
            return self._of_function(value)
        if isinstance(value, types.CodeType):
            return self._of_code(value)
        if isinstance(value, types.MethodType):
            return _joined("method", self.of(value.__func__), self.of(value.__self__, "self"))
        if isinstance(value, (types.BuiltinFunctionType, *_DESCRIPTORS)):
            return self._of_builtin(value)
        if isinstance(value, np.ndarray):
            return self._of_array(value)
        if type(value) is list:
            return _joined("list", *[self.of(v, f"item {k}") for k, v in enumerate(value)])
        if type(value) in (dict, types.MappingProxyType):
            return self._of_items(value)
        return self._of_instance(value)

    def _of_items(self, value: Mapping[Any, Any]) -> bytes:
        parts = [(self.of(k), self.of(v, f"entry {k!r:.60}")) for k, v in value.items()]
        return _joined("dict", *[half for part in parts for half in part])

    def _of_array(self, array: np.ndarray[Any, Any]) -> bytes:
        about = f"{array.dtype.descr} {array.shape}"
        if isinstance(array, np.memmap) and isinstance(array.filename, (str, os.PathLike)):
            status = os.stat(array.filename)
            facts = (os.fspath(array.filename), array.offset, status.st_size, status.st_mtime_ns)
            return _joined("memmap", about, repr(facts))
        if array.dtype.hasobject:
            return _joined("objects", about, self.of(array.reshape(-1).tolist()))
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        return _joined("array", about, content.tobytes())

    def _of_builtin(self, value: Any) -> bytes:
        name = library_name(value)
        if name is not None:
            return _joined("library", name)
        if isinstance(value, _DESCRIPTORS[:-1]):
            return _joined("descriptor", value.__objclass__.__qualname__, value.__name__)
        of = getattr(value, "__self__", None)
        if of is None or isinstance(of, types.ModuleType):
            module = of.__name__ if of is not None else str(value.__module__)
            return _joined("builtin", module, value.__name__, version_of(module) or "")
        return _joined("bound", value.__name__, self.of(of, f"owner of {value.__name__}()"))

    # ------------------------------------------------------------------ modules

    def _of_module(self, module: types.ModuleType) -> bytes:
        name = module.__name__
        if is_ours(name):
            return _joined("ours", name.partition(".")[0])
        version = version_of(name)
        if version is not None:
            return _joined("module", name, version)
        # A module of the user. Only the names that the code visited so far reads count; later code
        # may read more of them.
        inside = vars(module)
        names = sorted(n for n in self.names if n in inside and not n.startswith("__"))
        key = (id(module), *names)
        if key in self._modules:
            return self._modules[key]
        self._modules[key] = _joined("module again", str(len(self._modules)))
        parts = [self.of(inside[n], f"{n!r} of module {name}") for n in names]
        self._modules[key] = _joined("user's module", *names, *parts)
        return self._modules[key]

    # ------------------------------------------------------------------ functions

    def _of_function(self, function: types.FunctionType) -> bytes:
        named = library_name(function)
        if named is not None:
            return _joined("library", named)
        with self._at(f"{function.__name__}()"):
            parts = [self.of(d, f"default {k}") for k, d in enumerate(function.__defaults__ or ())]
            for name, default in sorted((function.__kwdefaults__ or {}).items()):
                parts += [_joined(name), self.of(default, f"default of {name}")]
            cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
            for name, cell in cells:
                try:
                    inside = cell.cell_contents
                except ValueError:  # the variable has no value yet
                    parts.append(_joined("empty"))
                else:
                    parts.append(self.of(inside, f"variable {name!r}"))
            # Attributes of the function: `__wrapped__` of a decorator, and those that the user set.
            for name, value in sorted(vars(function).items()):
                parts += [_joined(name), self.of(value, f"attribute {name!r}")]
            return _joined("function", self._of_its_code(function), *parts)

    def _of_its_code(self, function: types.FunctionType) -> bytes:
        code, module = function.__code__, str(function.__globals__.get("__name__", ""))
        qualname = getattr(code, "co_qualname", code.co_name)
        if is_ours(module):  # the cache's format version covers changes of this package's results
            return _joined("ours", qualname)
        version = version_of(module)
        if version is not None:
            return _joined("library code", module, qualname, version)
        reads = reads_of(code)
        self.names |= reads.attributes
        if self._is_of_owner(function):
            self.of_self |= reads.of_self
        return _joined("code", self.of(code), *self._of_globals(function.__globals__, reads))

    def _is_of_owner(self, function: types.FunctionType) -> bool:
        return any(
            getattr(value, "__func__", getattr(value, "fget", value)) is function
            for kind in self._users
            for value in vars(kind).values()
        )

    def _of_globals(self, inside: dict[str, Any], reads: Reads) -> list[bytes]:
        builtins = inside.get("__builtins__", {})
        builtins = builtins if isinstance(builtins, dict) else vars(builtins)
        found = []
        for name in sorted(reads.globals | reads.perhaps):
            if name == "__name__":
                continue
            if name in inside:
                found += [_joined(name), self.of(inside[name], f"global {name!r}")]
            elif name in builtins:
                found.append(_joined("builtin", name))
            elif name in reads.globals:
                with self._at(f"global {name!r}"):
                    raise self._refuse("which is not defined yet")
        for name, level in sorted(reads.imports):
            found += [_joined(name, str(level)), self._of_import(name, level, inside)]
        return found

    def _of_import(self, name: str, level: int, inside: dict[str, Any]) -> bytes:
        try:
            module = module_of(name, level, inside)
        except Exception as error:  # the same error will occur when the function runs
            return _joined("no module", type(error).__name__)
        return self.of(module, f"module {name}")

    def _of_code(self, code: types.CodeType) -> bytes:
        arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        facts = (code.co_flags, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount)
        return _joined(
            "code",
            code.co_code,
            getattr(code, "co_exceptiontable", b""),
            repr((facts, arguments, code.co_names, code.co_freevars, code.co_cellvars)),
            *map(self.of, code.co_consts),
        )

    # ------------------------------------------------------------------ classes and instances

    def _of_class(self, kind: type) -> bytes:
        if kind in self._users:
            return _joined("class of self", str(self._users.index(kind)))
        if is_ours(kind.__module__):
            return _joined("ours", kind.__qualname__)
        named = library_name(kind)
        if named is not None:
            return _joined("library", named)
        with self._at(f"class {kind.__name__}"):
            bases = [self.of(base) for base in kind.__bases__]
            if issubclass(kind, enum.Enum):
                inside = [(name, member.value) for name, member in kind.__members__.items()]
                functions = (types.FunctionType, property, classmethod, staticmethod)
                inside += [(n, v) for n, v in vars(kind).items() if isinstance(v, functions)]
            else:
                inside = [(n, v) for n, v in vars(kind).items() if n not in _NOT_OF_A_CLASS]
            parts = [(_joined(n), self.of(v, f"attribute {n!r}")) for n, v in sorted(inside)]
            return _joined("class", *bases, *[half for part in parts for half in part])

    def _of_instance(self, value: Any) -> bytes:
        kind = type(value)
        if isinstance(value, _GENERATORS):
            raise self._refuse("a random generator, of which only the first numbers would be kept")
        if callable(getattr(kind, "get_weights", None)) or (
            callable(getattr(kind, "state_dict", None)) and callable(getattr(kind, "forward", None))
        ):
            raise self._refuse(f"a model, {kind.__module__}.{kind.__qualname__}")
        if isinstance(value, enum.Enum):
            return _joined("member", self.of(kind), self.of(value.name))
        if isinstance(value, (staticmethod, classmethod)):
            return _joined(kind.__name__, self.of(value.__func__))
        if isinstance(value, property):
            return _joined("property", *map(self.of, (value.fget, value.fset, value.fdel)))
        if isinstance(value, functools.cached_property):  # its lock is not part of its value
            return _joined("cached_property", self.of(value.func))
        if isinstance(value, np.generic):
            return self._of_array(np.asarray(value))
        if callable(getattr(kind, "comparable_value", None)):  # a class of this package
            try:
                return _joined(kind.__qualname__, self.of(value.comparable_value()))
            except NotComparable:
                raise
            except Exception as error:  # any error of the library inside
                raise self._refuse(f"of type {kind.__qualname__}") from error
        # A torch tensor: pickle's form of its storage cannot be compared.
        if hasattr(kind, "detach") and hasattr(kind, "cpu"):
            return _joined("tensor", self._of_array(np.asarray(value.detach().cpu())))
        wrapped = getattr(value, "__wrapped__", None)
        if callable(wrapped) and version_of(kind.__module__):  # lru_cache, numba's compiler
            return _joined("wrapper", kind.__qualname__, self.of(wrapped, "what it wraps"))
        return self._of_reduced(value)

    def _of_reduced(self, value: Any) -> bytes:
        """Compare an object by what pickle would store of it."""
        kind = type(value)
        try:
            registered = copyreg.dispatch_table.get(kind)
            reduced = value.__reduce_ex__(4) if registered is None else registered(value)
        except Exception as error:  # a user's class may raise anything
            raise self._refuse(f"of type {kind.__module__}.{kind.__qualname__}") from error
        if isinstance(reduced, str):
            return _joined(
                "global", f"{kind.__module__}.{reduced}", version_of(kind.__module__) or ""
            )
        make, arguments, *rest = reduced
        state, items, entries = [*rest, None, None, None][:3]
        inside = state if isinstance(state, dict) else {}
        parts = [self.of(v, f"attribute {n!r}") for n, v in inside.items()]
        names = [str(n) for n in inside]
        return _joined(
            "instance",
            self.of(make),
            self.of(arguments),
            *names,
            *parts,
            self.of(None if isinstance(state, dict) else state),
            self.of(None if items is None else list(items)),
            self.of(None if entries is None else list(entries)),
        )

    # ------------------------------------------------------------------ the owner of a method

    def of_owner(self) -> bytes:
        """The digest of the owner's attributes that are read, by the names known so far."""
        inside, parts = vars(self.owner), []
        everything = bool({"__dict__", "vars"} & self.names)
        for k, kind in enumerate(self._users):
            always = {"__getattr__", "__getattribute__"}
            for name in sorted((self.names | always) & set(vars(kind))):
                value = vars(kind)[name]
                if name not in _NOT_OF_A_CLASS:
                    parts += [_joined(str(k), name), self.of(value, f"{kind.__name__}.{name}")]
        ours = _set_by(tuple(kind for kind in self._ours if kind is not object))
        for name in sorted(set(inside) - ours):
            if name in self.names or everything:
                parts += [_joined(name), self.of(inside[name], f"self.{name}")]
        for name in sorted(self.of_self & set(self.settings)):
            if self._counts(self.settings[name]):
                parts += [_joined("setting", name), self.of(self.settings[name], f"self.{name}")]
        return _joined("owner", *parts)

    def _counts(self, value: Any) -> bool:
        """Whether a setting can affect a sample: plain values do, other objects do not count."""
        if isinstance(value, (list, tuple)):
            return all(map(self._counts, value))
        plain = (*_PLAIN, str, bytes, np.dtype, np.ndarray, *self.special)
        return isinstance(value, plain)


@functools.lru_cache(maxsize=64)
def _set_by(kinds: tuple[type, ...]) -> frozenset[str]:
    """The attributes that methods of these classes set."""
    values = [value for kind in kinds for value in vars(kind).values()]
    functions = [value.fget if isinstance(value, property) else value for value in values]
    codes = [f.__code__ for f in functions if isinstance(f, types.FunctionType)]
    names = {name for code in codes for name in stored_attributes(code)}
    return frozenset(names.union(*(vars(kind).get("__annotations__", {}) for kind in kinds)))
