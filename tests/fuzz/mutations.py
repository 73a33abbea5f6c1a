"""Sound files, changed a little: bytes, numbers of headers, and the entries of JSON.

A *change* is a few numbers, so that Hypothesis can draw and shrink it and a coverage-guided fuzzer can make it by chance. What
it does to a file is settled by ``changed``.
"""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "changed", "random_changes"]

HEADER = 400  # bytes at the beginning of a file that are changed more often than others
DEEP = "@deep@"  # stands for lists within lists until the text is made
NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
REALS = (0.0, -1.0, 1e-30, 1e30, float("inf"), float("-inf"), float("nan"))
WORDS = (b"0", b"-1", b"1e400", b"nan", b"inf", b"99999999999", b"3.5", b"", b"\x00", b"\xff\xfe", b"(1,0,0)", b"none", b"text")
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**6, 10**18, 2**70, -(2**40), 0.5, -0.0, 1e-300, 1e308, float("nan"), float("inf")),
    *("", "x", " ", ".", "..", "../x", "/tmp/x", "a\x00b", "x" * 300, "\ud800", "\u202e", "1", "é", DEEP),
    *([], {}, [[]], [None], [1, [2]], {"": None}, [1, 2, 3], ["a", "b"], {"0": "CT"}, [0.1] * 40, {"a": {"b": []}}),
)


@dataclass(frozen=True)
class Change:
    """One change; every number means something in every file, whatever its length.

    Attributes:
        kind: what is done.
        at: where, as a number from 0 to 2**20 that is scaled to the file.
        how: which value is put there.
        is_early: within the header.
    """

    kind: int
    at: int
    how: int
    is_early: bool = False


def random_changes(rng: random.Random, most: int = 4) -> list[Change]:
    """Some changes by chance."""
    return [
        Change(rng.randrange(64), rng.randrange(1 << 20), rng.randrange(1 << 16), rng.random() < 0.6)
        for _ in range(rng.randint(1, most))
    ]


def changed(content: bytes, changes: Iterable[Change]) -> bytes:
    """The file after the changes: of JSON mostly its entries, of text its numbers, of anything its bytes."""
    for change in changes:
        if content[:1] in (b"{", b"[") and change.kind % 8:
            content = _entry_changed(content, change)
        else:
            content = BYTES[change.kind // 8 % len(BYTES)](content, change)
    return content


def _place(content: bytes, change: Change) -> int:
    length = min(len(content), HEADER) if change.is_early else len(content)
    return change.at * length >> 20


def _flipped(content: bytes, change: Change) -> bytes:
    at = _place(content, change)
    return content[:at] + bytes([content[at] ^ (1 << change.how % 8)]) + content[at + 1 :] if content else content


def _cut(content: bytes, change: Change) -> bytes:
    return content[: _place(content, change)]


def _without(content: bytes, change: Change) -> bytes:
    at = _place(content, change)
    return content[:at] + content[at + 1 + change.how % 32 :]


def _twice(content: bytes, change: Change) -> bytes:
    at = _place(content, change)
    return content[: at + 1 + change.how % 256] + content[at:]


def _inserted(content: bytes, change: Change) -> bytes:
    at = _place(content, change)
    return content[:at] + WORDS[change.how % len(WORDS)] + content[at:]


def _number(content: bytes, change: Change) -> bytes:
    """A binary number of another value, where numbers of its size are wont to begin."""
    size, order = (1, 2, 4, 8)[change.how % 4], "<>"[change.how // 4 % 2]
    at = _place(content, change) // min(size, 4) * min(size, 4)
    if change.how // 8 % 2 and size >= 4:
        packed = struct.pack(f"{order}{'f' if size == 4 else 'd'}", REALS[change.how // 16 % len(REALS)])
    else:
        value = NUMBERS[change.how // 16 % len(NUMBERS)] % (1 << 8 * size)
        packed = value.to_bytes(size, "little" if order == "<" else "big")
    return content[:at] + packed + content[at + size :]


def _word(content: bytes, change: Change) -> bytes:
    """A number written in letters, or a word, of another value."""
    found = list(re.finditer(rb"-?\d+(\.\d+)?|[A-Za-z_]+", content[: 4 * HEADER]))
    if not found:
        return _flipped(content, change)
    start, stop = found[change.at * len(found) >> 20].span()
    return content[:start] + WORDS[change.how % len(WORDS)] + content[stop:]


BYTES = (_flipped, _number, _word, _number, _flipped, _without, _twice, _cut, _inserted)


def _entry_changed(content: bytes, change: Change) -> bytes:
    """JSON with another value, without an entry, or with one that has another name or occurs twice; else a bit flipped."""
    try:
        return _rewritten(json.loads(content), change)
    except (ValueError, RecursionError):  # no JSON any more, or deep by an earlier change
        return _flipped(content, change)


def _rewritten(document: Any, change: Change) -> bytes:
    places = list(_places(document))
    holder, key = places[change.at * len(places) >> 20] if places else (None, None)
    if holder is None:
        document = VALUES[change.how % len(VALUES)]
    elif change.kind // 8 == 0:
        del holder[key]
    elif change.kind // 8 == 1 and isinstance(holder, dict):
        holder[str(VALUES[change.how % len(VALUES)])] = holder.pop(key)
    elif change.kind // 8 == 1:
        holder.append(holder[key])
    elif change.kind // 8 == 2:
        other, its = places[change.how % len(places)]
        holder[key] = json.loads(json.dumps(other[its]))
    else:
        holder[key] = VALUES[change.how % len(VALUES)]
    text = json.dumps(document)
    depth = (3, 300, 900, 50_000)[change.how % 4]
    return text.replace(f'"{DEEP}"', "[" * depth + "]" * depth).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every entry, at any depth."""
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        keys: Iterable[Any] = ()
        if isinstance(holder, dict):
            keys = list(holder)
        elif isinstance(holder, list):
            keys = range(len(holder))
        for key in keys:
            yield holder, key
            waiting.append(holder[key])
