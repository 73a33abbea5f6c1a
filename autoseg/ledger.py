"""What is done, what is ours, what is somebody else's: one answer for every verb that writes results.

A piece of work (a case, a file) leaves an *entry*: who made it, what it depends on (its *identity*), its state, and its
files with their digests. The entry says ``writing`` before the first file is written and ``done`` afterwards. With it the
same command skips what is done, makes again what is ours and does not fit any more, and stops at what is not ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoseg.atomic import remove_leftovers
from autoseg.errors import AutosegError
from autoseg.names import inside, plain_name
from autoseg.room import told_when_full
from autoseg.workspace import parse_json, read_json, write_json, write_text
from planners.records import OPTIONAL, RecordError, from_json, to_json

__all__ = ["DONE", "FOREIGN", "WRITING", "Claim", "Entry", "Journal", "Ledger", "file_digest", "judge", "remove_outputs"]

DONE, WRITING = "done", "writing"
FOREIGN = "exists and was not made by this program. Move it away, choose another folder, or ask for a fresh start (--fresh)"
EDITED = "was edited after it had been made. Move it away, or ask for a fresh start (--fresh)"


@dataclass(frozen=True)
class Entry:
    """What a piece of work left.

    Attributes:
        made_by: the command that made it.
        identity: JSON of all that its files depend on.
        state: ``writing`` or ``done``.
        outputs: digest of each file by its path within the folder; None where it was only planned.
        record: all else that was written beside these, as JSON.
    """

    made_by: str
    identity: Any
    state: str
    outputs: Mapping[str, str | None]
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """What there is to do: nothing where ``done``, else the work, after which files of the ``earlier`` entry go that it no
    longer makes. ``entry`` is what was found, None for nothing of ours."""

    done: bool
    entry: Entry | None = None

    @property
    def earlier(self) -> Mapping[str, str | None]:
        return self.entry.outputs if self.entry else {}


def judge(entry: Entry | None, identity: Any, is_whole: Callable[[], bool]) -> Claim:
    """Whether a piece of work is done: its entry says so, it depends on the same, and what it left is whole.

    This is the one answer for every verb, wherever its entries stand: in a file for each case, in a journal, in a prepared
    case, in the checkpoint of a training run.

    Args:
        entry: what the work left; None for nothing of ours.
        identity: what it depends on now, as JSON.
        is_whole: looks at its files; asked only where the rest holds.
    """
    return Claim(entry is not None and entry.state == DONE and entry.identity == to_json(identity) and is_whole(), entry)


@dataclass(frozen=True)
class Ledger:
    """The entries of a folder, one JSON file for each piece of work.

    Attributes:
        folder: where results and entries lie.
        made_by: the command, such as ``autoseg predict``; entries of others are not ours.
        fresh: take everything for not done, and whatever is in the way for ours.
        is_work: whether a file whose bytes have changed may be somebody's work, which stays, rather than damage, which is
            repaired; by default any is.
    """

    folder: Path
    made_by: str
    fresh: bool = False
    is_work: Callable[[Path], bool] = lambda path: True

    def path(self, name: str) -> Path:
        """The file of an entry."""
        return self.folder / f"{plain_name(name, what='case')}.json"

    def find(self, name: str) -> Entry | None:
        """Our entry of that name; None where there is none, it is another's, or it cannot be read."""
        try:
            return self._entry(read_json(self.path(name))) if self.path(name).is_file() else None
        except AutosegError:
            return None

    def claim(self, name: str, identity: Any, places: Iterable[Path] = ()) -> Claim:
        """What to do for a piece of work that depends on ``identity`` and may write to ``places``.

        Raises:
            AutosegError: what lies in the way is not ours, or was edited; never with ``fresh``.
        """
        entry = self.find(name)
        if self.fresh:
            return Claim(False, entry)
        if entry is None:
            self.refuse_foreign([self.path(name), *places])
            return Claim(False)
        if entry.state != DONE:
            return Claim(False, entry)
        found = self.digests(inside(self.folder, path) for path in entry.outputs)
        for path, digest in entry.outputs.items():
            if found.get(path, digest) != digest and self.is_work(self.folder / path):
                raise AutosegError(f"{self.folder / path}: {EDITED}")
        return judge(entry, identity, lambda: found == entry.outputs)

    def refuse_foreign(self, places: Iterable[Path]) -> None:
        """Raise AutosegError where one of these exists."""
        for path in places:
            if path.exists() or path.is_symlink():
                raise AutosegError(f"{path}: {FOREIGN}")

    def begin(self, name: str, identity: Any, outputs: Mapping[str, str | None], record: Mapping[str, Any]) -> None:
        """Write, before the first file of the work, that it is going on, and which files are or will be ours."""
        self._write(name, {**record, "state": WRITING, "outputs": outputs}, identity)

    def finish(
        self, name: str, identity: Any, files: Iterable[Path], record: Mapping[str, Any], earlier: Mapping[str, str | None]
    ) -> dict[str, str]:
        """Write that the work is done; files that only the earlier entry had are removed. Returns the digests."""
        outputs = self.digests(files)
        remove_outputs(self.folder, {path: digest for path, digest in earlier.items() if path not in outputs})
        self._write(name, {**record, "state": DONE, "outputs": outputs}, identity)
        return outputs

    def digests(self, paths: Iterable[Path]) -> dict[str, str]:
        """Digest of each file that is there, by its path within the folder."""
        return {p.relative_to(self.folder).as_posix(): file_digest(p) for p in paths if p.is_file()}

    def _write(self, name: str, about: Mapping[str, Any], identity: Any) -> None:
        write_json(self.path(name), {"made_by": self.made_by, "identity": identity, **about})

    def _entry(self, found: Any) -> Entry | None:
        if not isinstance(found, dict) or found.get("made_by") != self.made_by:
            return None
        outputs = found.get("outputs")
        outputs = outputs if isinstance(outputs, dict) else {}
        return Entry(self.made_by, found.get("identity"), str(found.get("state")), outputs, found)


@dataclass(frozen=True)
class Line:
    """An entry of a journal.

    Attributes:
        file: what was made, within the folder.
        key: of what it depends on.
        digest: of its bytes.
        how: it was made.
    """

    file: str
    key: str
    digest: str
    how: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True)
class Journal:
    """The entries of one large piece of work that makes many files: lines of JSON in one file, which only grows.

    The first line says what all of it is ``about``: that of another work is not ours.
    """

    path: Path
    about: Mapping[str, Any]
    entries: dict[str, Line] = field(default_factory=dict)

    @classmethod
    def open(
        cls,
        path: Path,
        about: Mapping[str, Any],
        error: type[AutosegError] = AutosegError,
        *,
        formerly: Mapping[str, Any] | None = None,
    ) -> Journal:
        """The journal, nothing written yet.

        Args:
            formerly: what an older version wrote of the same work as ``about``.

        Raises:
            AutosegError: the folder holds something that this work did not make.
        """
        remove_leftovers(path.parent)  # a kill in the first writes leaves nothing else
        lines = list(_lines(path))
        if path.parent.exists() and any(path.parent.iterdir()) and (not lines or lines[0] not in (about, formerly)):
            raise error(
                f"{path.parent}: expected an empty folder, or one that the same command began; found another. "
                "Choose a new folder, or empty this one"
            )
        entries = [_line(path, line) for line in lines[1:]]
        for entry in entries:
            inside(path.parent, entry.file)  # which may be removed
        return cls(path, about, {entry.file: entry for entry in entries})

    def begin(self) -> None:
        """Write the file again, without a last line that a kill has cut short."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, _as_lines([self.about, *self.entries.values()]))

    def end(self, files: Iterable[str]) -> None:
        """Write the file again, of these entries and in the order of their names, whatever order they were made in."""
        write_text(self.path, _as_lines([self.about, *(self.entries[name] for name in sorted(files))]))

    def claim(self, file: str, key: str) -> bool:
        """Whether a file is there as it was made, from what it would be made of now."""
        about, path = self.entries.get(file), self.path.parent / file
        entry = Entry("", about.key, DONE, {file: about.digest}) if about else None
        return judge(entry, key, lambda: path.is_file() and file_digest(path) == self.entries[file].digest).done

    def is_edited(self, file: str) -> bool:
        """Whether a file is there, and not as it was made."""
        entry, path = self.entries.get(file), self.path.parent / file
        return path.is_file() and (entry is None or file_digest(path) != entry.digest)

    def entry(self, file: str, key: str, how: str) -> Line:
        """The entry of a file that is there."""
        return Line(file, key, file_digest(self.path.parent / file), how)

    def append(self, entries: Iterable[Line]) -> None:
        entries = list(entries)
        with told_when_full(self.path.parent), self.path.open("a", encoding="utf-8") as lines:
            lines.write(_as_lines(entries))
        self.entries.update({entry.file: entry for entry in entries})


def _line(path: Path, found: Any) -> Line:
    try:
        line: Line = from_json(Line, found, str(path))
    except RecordError as fault:
        raise AutosegError(f"{fault}. Move the folder away; then it is made again") from fault
    return line


def _as_lines(entries: Iterable[Mapping[str, Any] | Line]) -> str:
    return "".join(json.dumps(to_json(entry)) + "\n" for entry in entries)


def _lines(path: Path) -> Iterator[Any]:
    """The lines of a journal; the last one may be cut short."""
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(AutosegError):
            yield parse_json(line, path)


def file_digest(path: Path) -> str:
    """Sixteen hexadecimal digits of a file's bytes (BLAKE2b)."""
    state = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def remove_outputs(folder: Path, outputs: Mapping[str, str | None]) -> None:
    """Remove files that belonged to an earlier result, unless somebody has edited them."""
    for name, digest in outputs.items():
        path = inside(folder, name)
        if path.is_file() and file_digest(path) == digest:
            path.unlink()
