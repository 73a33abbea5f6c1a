"""Which results are done, which are ours and which are foreign: one rule for every verb that writes results.

A piece of work (a case, a file) leaves an *entry*: the command that made it, what it depends on (its *identity*), its state,
and its files with their digests. The state is ``writing`` before the first file is written, and ``done`` at the end. When the
same command runs again, it skips what is done, makes again what is ours but no longer matches, and stops at what is foreign.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
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

__all__ = [
    "DONE",
    "FOREIGN",
    "NOT_OURS",
    "WRITING",
    "Claim",
    "Entry",
    "Journal",
    "Ledger",
    "file_digest",
    "judge",
    "remove_outputs",
    "tell_other_options",
]

logger = logging.getLogger(__name__)

DONE, WRITING = "done", "writing"
INPUTS = ("input", "inputs")  # keys of an identity: the files of the user that work is made from
NOT_OURS = "exists and was not made by this program. Move it away, or choose another place"  # for verbs without --fresh
FOREIGN = f"{NOT_OURS}, or ask for a fresh start (--fresh)"
EDITED = "was edited after autoseg wrote it. Move it away, or ask for a fresh start (--fresh)"


@dataclass(frozen=True)
class Entry:
    """The record of a piece of work.

    Attributes:
        made_by: the command that made it.
        identity: all that its files depend on, as JSON.
        state: ``writing`` or ``done``.
        outputs: digest of each file, by its path within the folder; None if it was only planned.
        record: content of the entry's own file, as JSON; {} if it has none.
    """

    made_by: str
    identity: Any
    state: str
    outputs: Mapping[str, str | None]
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Claim:
    """Whether a piece of work is ``done``, and the ``entry`` that was found, None for nothing of ours.

    Work that is not done is done again. Afterwards, files of the ``earlier`` entry that are no longer made are removed.
    """

    done: bool
    entry: Entry | None = None

    @property
    def earlier(self) -> Mapping[str, str | None]:
        return self.entry.outputs if self.entry else {}


def judge(entry: Entry | None, identity: Any, is_whole: Callable[[], bool]) -> Claim:
    """Whether a piece of work is done: its entry says so, its identity is unchanged, and its files are whole.

    This is the rule for every verb, wherever its entries are: in a file for each case, in a journal, in a prepared case, in
    the checkpoint of a training run.

    Args:
        entry: of the work; None for nothing of ours.
        identity: what it depends on now, as JSON.
        is_whole: checks its files; called only if the rest holds.
    """
    return Claim(entry is not None and entry.state == DONE and entry.identity == to_json(identity) and is_whole(), entry)


@dataclass(frozen=True)
class Ledger:
    """The entries of a folder, one JSON file for each piece of work.

    Attributes:
        folder: of results and entries.
        made_by: the command, such as ``autoseg predict``; entries of others are not ours.
        fresh: treat everything as not done, and existing files as ours.
        is_work: whether a change to a file may be somebody's edit, which is kept, rather than damage, which is repaired; by
            default it may always be.
    """

    folder: Path
    made_by: str
    fresh: bool = False
    is_work: Callable[[Path], bool] = lambda path: True

    def path(self, name: str) -> Path:
        """The file of an entry; AutosegError: ``name`` is not a plain file name."""
        return self.folder / f"{plain_name(name, what='case')}.json"

    def find(self, name: str) -> Entry | None:
        """Our entry of that name; None if there is none, another command made it, or it cannot be read."""
        try:
            return self._entry(read_json(self.path(name))) if self.path(name).is_file() else None
        except AutosegError:
            return None

    def options_of(self, names: Iterable[str]) -> Any:
        """The options, as JSON, of the first of these names with an entry; None if there is none, or it has no options."""
        entry = next(filter(None, map(self.find, names)), None)
        return entry.identity.get("options") if entry and isinstance(entry.identity, dict) else None

    def claim(self, name: str, identity: Any, places: Iterable[Path] = ()) -> Claim:
        """What to do for a piece of work that depends on ``identity`` and may write to ``places``.

        Raises:
            AutosegError: an existing file is foreign, or was edited; never with ``fresh``.
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
        if _inputs_of(entry.identity) != _inputs_of(to_json(identity)):
            logger.warning("%s: results of another file of this name are replaced", name)
        return judge(entry, identity, lambda: found == entry.outputs)

    def refuse_foreign(self, places: Iterable[Path]) -> None:
        """Raise AutosegError if one of these exists."""
        for path in places:
            if path.exists() or path.is_symlink():
                raise AutosegError(f"{path}: {FOREIGN}")

    def begin(self, name: str, identity: Any, outputs: Mapping[str, str | None], record: Mapping[str, Any]) -> None:
        """Record, before the first file is written, that the work is in progress, and which files are or will be ours."""
        self._write(name, {**record, "state": WRITING, "outputs": outputs}, identity)

    def finish(
        self, name: str, identity: Any, files: Iterable[Path], record: Mapping[str, Any], earlier: Mapping[str, str | None]
    ) -> dict[str, str]:
        """Record that the work is done, and remove files that only the earlier entry had. Returns ``digests(files)``."""
        outputs = self.digests(files)
        remove_outputs(self.folder, {path: digest for path, digest in earlier.items() if path not in outputs})
        self._write(name, {**record, "state": DONE, "outputs": outputs}, identity)
        return outputs

    def digests(self, paths: Iterable[Path]) -> dict[str, str]:
        """{path within the folder: digest} of each file that exists."""
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
        file: path within the folder.
        key: of what it depends on, such as a digest; may be empty.
        digest: of its bytes.
        how: how it was made.
    """

    file: str
    key: str
    digest: str
    how: str = field(default="", metadata=OPTIONAL)


@dataclass(frozen=True)
class Journal:
    """The entries of one large piece of work that makes many files: lines of JSON, appended to one file.

    The first line says what the work is ``about``; a journal about something else is not ours.
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
        """Read the journal, or start an empty one; nothing is written.

        Args:
            error: the class to raise.
            formerly: what an older version wrote as ``about`` for the same work.

        Raises:
            AutosegError: the folder holds something that this work did not make, or a line is invalid.
        """
        remove_leftovers(path.parent)  # a kill during the first writes leaves nothing else
        lines = list(_lines(path))
        if path.parent.exists() and any(path.parent.iterdir()) and (not lines or lines[0] not in (about, formerly)):
            raise error(
                f"{path.parent}: expected an empty folder, or one that the same command began; found another. "
                "Choose a new folder, or empty this one"
            )
        entries = [_line(path, line) for line in lines[1:]]
        for entry in entries:
            inside(path.parent, entry.file)  # checked, as it may be removed
        return cls(path, about, {entry.file: entry for entry in entries})

    def begin(self) -> None:
        """Rewrite the file, without a last line that a kill has cut short."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_text(self.path, _as_lines([self.about, *self.entries.values()]))

    def end(self, files: Iterable[str]) -> None:
        """Rewrite the file with the entries of these files alone, sorted by name."""
        write_text(self.path, _as_lines([self.about, *(self.entries[name] for name in sorted(files))]))

    def claim(self, file: str, key: str) -> bool:
        """Whether a file exists as it was made, and what it depends on (``key``) is unchanged."""
        about, path = self.entries.get(file), self.path.parent / file
        entry = Entry("", about.key, DONE, {file: about.digest}) if about else None
        return judge(entry, key, lambda: path.is_file() and file_digest(path) == self.entries[file].digest).done

    def is_edited(self, file: str) -> bool:
        """Whether a file exists but is not as it was made."""
        entry, path = self.entries.get(file), self.path.parent / file
        return path.is_file() and (entry is None or file_digest(path) != entry.digest)

    def entry(self, file: str, key: str, how: str) -> Line:
        """The entry of a file that exists."""
        return Line(file, key, file_digest(self.path.parent / file), how)

    def append(self, entries: Iterable[Line]) -> None:
        """Append entries to the file and to ``entries``; FileError: the disk is full."""
        entries = list(entries)
        with told_when_full(self.path.parent), self.path.open("a", encoding="utf-8") as lines:
            lines.write(_as_lines(entries))
        self.entries.update({entry.file: entry for entry in entries})


def _inputs_of(identity: Any) -> list[Any]:
    """What an identity says about the files that work is made from."""
    return [identity.get(key) for key in INPUTS] if isinstance(identity, dict) else []


def _line(path: Path, found: Any) -> Line:
    try:
        line: Line = from_json(Line, found, str(path))
    except RecordError as fault:
        raise AutosegError(f"{fault}. Move the folder away; then it is made again") from fault
    return line


def _as_lines(entries: Iterable[Mapping[str, Any] | Line]) -> str:
    return "".join(json.dumps(to_json(entry)) + "\n" for entry in entries)


def _lines(path: Path) -> Iterator[Any]:
    """The lines of a journal that are JSON; a kill may have cut the last one short."""
    for line in path.read_bytes().splitlines() if path.is_file() else ():
        with contextlib.suppress(AutosegError):
            yield parse_json(line, path)


def file_digest(path: Path) -> str:
    """Digest of a file's bytes: 16 hexadecimal digits of BLAKE2b."""
    state = hashlib.blake2b(digest_size=8)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return state.hexdigest()


def tell_other_options(folder: Path, earlier: Any, options: Any) -> None:
    """Warn if earlier results in a folder were made with other options, given as JSON; None or {} for no earlier results."""
    if earlier and earlier != to_json(options):
        told = "%s: holds results of other options; those of cases that are done again are replaced, %s"
        logger.warning(told, folder, "and files that are no longer asked for are removed")


def remove_outputs(folder: Path, outputs: Mapping[str, str | None]) -> None:
    """Remove files of an earlier result, except those that were edited since, and folders that this leaves empty."""
    for name, digest in outputs.items():
        path = inside(folder, name)
        if path.is_file() and file_digest(path) == digest:
            path.unlink()
        if path.parent != folder:
            with contextlib.suppress(OSError):  # something else is in it
                path.parent.rmdir()
