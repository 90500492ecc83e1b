"""Graphs of structures that were exported before: of this process in memory, of others in the cache folder.

torch's exporter takes seconds, its first call in a process twice as many. What it makes of a module whose weights are
inputs depends on the module's structure alone; a graph is kept for each structure, and for other processes where all
code that it was made by is vidlet's and torch's own, of the same versions.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import inspect
import io
import os
import pickle
import sys
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from ..files import cache_folder, write_bytes
from ..onnx_graph import copy_model

IN_MEMORY = 64
ON_DISK = 512
PACKAGE = Path(__file__).parents[1]
_BEGAN = time.time()
OURS = {"vidlet", "torch", "numpy", "builtins", "collections", "functools", "math", "operator", "pathlib"}
"""Where code may come from for a graph to be kept for other processes: others' code is not of a known version."""


@dataclass(frozen=True)
class Structure:
    """All of a module that its graph depends on but the values of its weights.

    Attributes:
        digest: of the module's pickle, in which weights are names, and of the constants that its code reads. Nothing
            is ever loaded from a pickle.
        code: its classes and their ``forward``; who defines a class anew in a notebook has another.
        functions: those that the code may call; the same holds of them.
        known: whether all of that code is of ``OURS``.
    """

    digest: bytes
    code: tuple[tuple[type, object], ...]
    functions: frozenset[FunctionType]
    known: bool


def structure_of(network: nn.Module) -> Structure | None:
    """The structure of a module; None where it cannot be pickled."""
    names = {id(tensor): name for name, tensor in [*network.named_parameters(), *network.named_buffers()]}
    origins: set[str] = set()

    class Pickler(pickle.Pickler):
        def persistent_id(self, item: object) -> object:
            if type(item) is set and all(type(part) is str for part in item):
                return "set", tuple(sorted(item))  # whose order is another in each process
            if id(item) not in names or not isinstance(item, Tensor):
                return None
            return names[id(item)], tuple(item.shape), str(item.dtype)

        def reducer_override(self, item: object) -> Any:
            origins.add(_origin(item if hasattr(item, "__qualname__") else type(item)))
            return NotImplemented

    sink = io.BytesIO()
    try:
        Pickler(sink, protocol=4).dump(network)
    except Exception:  # whatever a module of others holds: it is then exported each time
        return None
    code = tuple((type(layer), type(layer).forward) for layer in network.modules())
    functions, constants = _reached(kind for kind, _ in code)
    origins |= {_origin(part) for pair in code for part in pair} | {_origin(part) for part in functions}
    digest = hashlib.sha256(sink.getvalue() + repr(constants).encode()).digest()
    return Structure(digest, code, functions, origins <= OURS)


def kept(structure: Structure, request: object, export: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """The graph of a structure as it was asked for, for the caller to change; ``export`` makes one that is not kept."""
    request = request, str(torch.get_default_dtype())
    key = (structure, request)
    if key not in _kept:
        _kept[key] = _from_disk(structure, request, export) if structure.known else export()
    _kept.move_to_end(key)
    while len(_kept) > IN_MEMORY:
        _kept.popitem(last=False)
    return copy_model(_kept[key])


_kept: OrderedDict[object, onnx.ModelProto] = OrderedDict()


def _from_disk(structure: Structure, request: object, export: Callable[[], onnx.ModelProto]) -> onnx.ModelProto:
    """A file holds a checksum and a graph; one that cannot be read, or is damaged, is made again."""
    if not _unchanged():
        return export()
    names = [f"{kind.__module__}.{kind.__qualname__}" for kind, _ in structure.code]
    name = hashlib.sha256(repr((structure.digest, names, request, _versions())).encode()).hexdigest()[:40]
    folder = Path(os.environ.get("VIDLET_GRAPHS") or cache_folder("graphs"))
    path = folder / f"{name}.graph"
    try:
        stored = path.read_bytes()
        if hashlib.sha256(stored[32:]).digest() == stored[:32]:
            with contextlib.suppress(OSError):  # of a cache that others filled and that cannot be written
                path.touch()
            return onnx.load_model_from_string(stored[32:])
    except OSError:
        pass
    model = export()
    content = model.SerializeToString(deterministic=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_bytes(path, hashlib.sha256(content).digest() + content)
        oldest = sorted(folder.glob("*.graph"), key=lambda found: found.stat().st_mtime)
        for found in oldest[:-ON_DISK]:
            found.unlink(missing_ok=True)
    except OSError:
        pass  # a full or read-only cache costs time, no answer
    return model


@functools.cache
def _versions() -> str:
    """What decides how a structure becomes a graph beside itself: the interpreter, the exporter, and vidlet's code."""
    hashed = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        hashed.update(file.relative_to(PACKAGE).as_posix().encode() + b"\0" + file.read_bytes())
    packages = [f"{name} {metadata.version(name)}" for name in ("torch", "onnx", "onnxscript", "onnx-ir", "numpy")]
    return " ".join([f"{sys.version_info}", *packages, hashed.hexdigest()])


def _unchanged() -> bool:
    """Whether vidlet's files are those that this process runs: who installs another version meanwhile changes them."""
    return all(file.stat().st_ctime < _BEGAN for file in PACKAGE.rglob("*.py"))


def _reached(kinds: Iterable[type]) -> tuple[frozenset[FunctionType], list[str]]:
    """The functions that the code of classes may call by names of its modules, and the constants it may read so."""
    bases = {base for kind in kinds for base in kind.__mro__ if _is_followed(base)}
    waiting: list[Any] = [value for base in bases for value in vars(base).values()]
    functions, constants = set[FunctionType](), set[str]()
    while waiting:
        found = waiting.pop()
        found = inspect.unwrap(getattr(found, "__func__", None) or getattr(found, "fget", None) or found)
        if not isinstance(found, FunctionType) or found in functions or not _is_followed(found):
            continue
        functions.add(found)
        values = {name: found.__globals__.get(name) for name in _names(found.__code__)}
        constants |= {f"{found.__module__} {k} {v!r}" for k, v in values.items() if isinstance(v, (int, float, str))}
        waiting += values.values()
    return frozenset(functions), sorted(constants)


def _is_followed(item: object) -> bool:
    return _origin(item) not in {"torch", "numpy", "onnx", *sys.stdlib_module_names}


def _names(code: CodeType) -> set[str]:
    inner = [part for part in code.co_consts if isinstance(part, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def _origin(item: object) -> str:
    """The package that a class or a function is of; "" where that is not known."""
    return str(getattr(item, "__module__", None) or "").partition(".")[0]
