"""Values from files of ``torch.save`` and ``pickle.dump``, without running their content.

A pickle is a program for a small stack machine. Only the instructions that build numbers, strings and containers are executed
here, with ``pickletools.genops``, which parses a file and executes nothing. If a pickle asks for a function or class by name,
it gets an entry of our own table, which builds plain values, or the file is refused with that name. Nothing is imported, no
object of a foreign class is created, and no attribute is set.

A checkpoint of torch (1.6 and later) is a zip: ``NAME/data.pkl``, and the bytes of each tensor as ``NAME/data/KEY``. Tensors
stay on disk until ``StoredTensor.load``, so weights can be read from a checkpoint that is mostly optimiser state.
"""

from __future__ import annotations

import io
import math
import pickletools
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.archive import read_member, safe_members
from autoseg.errors import AutosegError, ModelError, reason_of, shown

__all__ = ["StoredTensor", "read_checkpoint", "read_pickle"]

MAX_PICKLE_BYTES = 256 * 2**20  # of a data.pkl; nnU-Net's has about 1 MiB
MAX_AXES = 8

DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


@dataclass(frozen=True)
class StoredTensor:
    """A tensor still in its file: a view of ``numel`` numbers stored under ``key``."""

    key: str
    dtype: torch.dtype
    numel: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    read: Callable[[str], bytes] = field(repr=False, compare=False)

    def load(self) -> torch.Tensor:
        """The tensor, contiguous and with its own memory. Raises ModelError if its bytes are missing or damaged."""
        data = self.read(self.key)
        if len(data) != self.numel * self.dtype.itemsize:
            raise ModelError(f"tensor {self.key}: expected {self.numel * self.dtype.itemsize} bytes, found {len(data)}")
        if not self.numel:
            return torch.empty(self.shape, dtype=self.dtype)
        flat = torch.frombuffer(bytearray(data), dtype=self.dtype)
        return flat.as_strided(self.shape, self.strides, self.offset).clone(memory_format=torch.contiguous_format)


@dataclass(frozen=True)
class Known:
    """What a pickle gets for a global: its name, and a function that replaces calls of it."""

    name: str
    make: Callable[..., Any] | None = None


class _Type:
    """A numpy number format while a pickle completes it."""

    __slots__ = ("code", "order")

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r"[<>=|]?([fiu][1248]|b1|[?])", code):
            raise ValueError(f"no number format: {code!r}")
        self.code, self.order = code.lstrip("<>=|"), "<"


def read_checkpoint(source: bytes | Path, name: str | Path) -> Any:
    """The value written by ``torch.save``: plain Python values, dictionaries, and ``StoredTensor`` for tensors.

    Args:
        source: the file, or its bytes.
        name: what messages call it.

    Raises:
        ModelError: not a zip of torch, damaged, or with content other than tensors, numbers, strings and containers, which
            the message names.
    """
    opened = io.BytesIO(source) if isinstance(source, bytes) else source
    members = safe_members(opened, name, expected="a whole checkpoint, as torch 1.6 and later save it")
    roots = [member[: -len("data.pkl")] for member in members if member.split("/", 1)[-1] == "data.pkl" and "/" in member]
    if len(roots) != 1:
        raise ModelError(f"{name}: not a checkpoint of torch: expected one data.pkl in it, found {len(roots)}")
    root, archive = roots[0], zipfile.ZipFile(opened)
    if members[f"{root}data.pkl"] > MAX_PICKLE_BYTES:
        raise ModelError(f"{name}: data.pkl has {members[f'{root}data.pkl']} bytes, more than the {MAX_PICKLE_BYTES} allowed")
    if f"{root}byteorder" in members and read_member(archive, f"{root}byteorder", name) != b"little":
        raise ModelError(f"{name}: written on a big-endian machine, which is not supported. Save it again on another")

    def read(key: str) -> bytes:
        return read_member(archive, f"{root}data/{key}", name)

    def storage(reference: Any) -> tuple[str, torch.dtype, int]:
        kind, form, key, _, numel = reference
        dtype = DTYPES.get(form.name.rpartition(".")[2]) if isinstance(form, Known) else None
        if kind != "storage" or dtype is None or not re.fullmatch(r"[0-9]{1,9}", key) or not _is_count(numel):
            raise ValueError("a reference to something else than stored numbers")
        if members.get(f"{root}data/{key}") != numel * dtype.itemsize:
            raise ValueError(f"the numbers of tensor {key} are missing or incomplete: is the file whole?")
        return key, dtype, numel

    def tensor(stored: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> StoredTensor:
        key, dtype, numel = stored
        axes = (*shape, *strides, offset)
        if len(shape) != len(strides) or len(shape) > MAX_AXES or not all(_is_count(number) for number in axes):
            raise ValueError("a tensor without a proper shape")
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if math.prod(shape) > numel or (math.prod(shape) and last >= numel):
            raise ValueError(f"a tensor of shape {shape!r} reaches beyond its {numel} numbers")
        return StoredTensor(key, dtype, numel, offset, tuple(shape), tuple(strides), read)

    table = {**PLAIN, "torch._utils._rebuild_tensor_v2": tensor, "torch._utils._rebuild_parameter": lambda data, *_: data}
    table |= {f"torch.{form}": None for form in DTYPES}
    return read_pickle(read_member(archive, f"{root}data.pkl", name), name, table, storage)


def read_pickle(
    data: bytes,
    name: str | Path,
    known: Mapping[str, Callable[..., Any] | None],
    persistent: Callable[[Any], Any] | None = None,
) -> Any:
    """The value of a pickle that consists of plain values.

    Args:
        data: the pickle, of any protocol.
        name: what messages call it.
        known: ``module.name`` of every permitted global -> the function that replaces calls of it; None if it is only named
            and stays a ``Known``.
        persistent: function for references to data outside the pickle; None if there are none.

    Raises:
        ModelError: damaged, an unknown global, or an instruction that plain values do not need.
    """
    machine = _Machine(known, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except _Refused as refused:
        raise ModelError(
            f"{name}: holds {refused}, which is not plain data. It is refused, and nothing of it was run. "
            "Ask its author for a checkpoint of weights and numbers alone"
        ) from None
    except AutosegError:
        raise
    except Exception as fault:
        raise ModelError(f"{name}: damaged, or not a checkpoint: {reason_of(fault)}") from fault
    raise ModelError(f"{name}: damaged: it ends too early")


class _Refused(Exception):
    """A request of a pickle that was refused."""


class _Machine:
    """The stack of a pickle, its marks, and its memo."""

    def __init__(self, known: Mapping[str, Callable[..., Any] | None], persistent: Callable[[Any], Any] | None) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.known, self.persistent = known, persistent

    def step(self, name: str, argument: Any) -> None:
        """Execute one instruction."""
        stack = self.stack
        if name in VALUES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name == "POP":
            stack.pop()
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            self.memo[len(self.memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name in SEVERAL:
            items = self.marked()
            stack.append(SEVERAL[name](items))
        elif name in TUPLES:
            n = TUPLES[name]
            if len(stack) < n:
                raise LookupError("its stack is empty")
            stack[-n:] = [tuple(stack[-n:])]
        elif name in ("APPEND", "APPENDS"):
            items = self.marked() if name == "APPENDS" else [stack.pop()]
            _expect(stack[-1], list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self.marked() if name == "SETITEMS" else [stack.pop(), stack.pop()][::-1]
            _expect(stack[-1], dict).update(_pairs(items))
        elif name == "GLOBAL":
            stack.append(self.find(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self.find(_expect(module, str), _expect(attribute, str)))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = _expect(stack.pop(), tuple), stack.pop()
            if not isinstance(function, Known) or function.make is None:
                raise _Refused(f"a call of {getattr(function, 'name', type(function).__name__)}")
            stack.append(function.make(*arguments))
        elif name == "BUILD":
            state = stack.pop()
            if isinstance(stack[-1], _Type):
                stack[-1].order = ">" if state[1] == ">" else "<"
            elif not isinstance(stack[-1], dict):  # the state of an OrderedDict is the metadata of a state dict, not needed
                raise _Refused(f"attributes of {type(stack[-1]).__name__}")
        elif name == "BINPERSID" and self.persistent is not None:
            stack.append(self.persistent(stack.pop()))
        else:
            raise _Refused(f"the instruction {name}")

    def marked(self) -> list[Any]:
        """Pop the values above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def find(self, module: str, attribute: str) -> Known:
        """The entry of the table of globals."""
        name = f"{module}.{attribute}"
        if name not in self.known:
            raise _Refused(name if name.isprintable() and len(name) <= 100 else shown(name))
        return Known(name, self.known[name])


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, found a {type(value).__name__}")
    return value


def _key(value: Any) -> Any:
    """A key: a number, a string, or a tuple of these. Hashing nested tuples can take unlimited time."""
    for part in value if isinstance(value, tuple) else (value,):
        if part is not None and not isinstance(part, str | bytes | int | float):
            raise TypeError(f"a {type(part).__name__} within a key")
    return value


def _pairs(items: list[Any]) -> dict[Any, Any]:
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _is_count(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 2**48


def _ordered(items: Iterable[Any] = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in items}


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"no encoding of bytes: {encoding!r}")
    return str(_expect(text, str)).encode("latin1")


def _scalar(kind: _Type, data: bytes) -> bool | int | float:
    number: bool | int | float
    (number,) = np.frombuffer(_expect(data, bytes), np.dtype(_expect(kind, _Type).order + kind.code)).tolist()
    return number


VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict}
SEVERAL: dict[str, Callable[[list[Any]], Any]] = {"TUPLE": tuple, "LIST": list, "DICT": _pairs}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PLAIN: dict[str, Callable[..., Any] | None] = {
    "collections.OrderedDict": _ordered,
    "torch.device": lambda kind, index=None: kind if index is None else f"{kind}:{index}",
    "torch.Size": tuple,
    "_codecs.encode": _encoded,
    "numpy.dtype": lambda code, *_: _Type(code),
    "numpy.core.multiarray.scalar": _scalar,  # numpy 1
    "numpy._core.multiarray.scalar": _scalar,  # numpy 2
}
