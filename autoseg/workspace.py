"""Where autoseg keeps everything that it makes, and how it is written.

A workspace is one folder::

    fingerprints/DATASET/   dataset.json (where the raw folder is), scan.json, fingerprint.json, findings.json, splits.json
    plans/DATASET/          PLAN.json, readable and editable
    prepared/DATASET/PLAN/  one folder per case
    runs/DATASET/RUN/       fold_K/ with fold.json, checkpoint, history, curves, validation
    models/                 finished models, one folder each
    comparisons/            tables of ``compare``, one folder each
    studies/DATASET/        what a study decided, and why, one folder each

Files are written beside their destination and moved there in one step, so a file that exists is complete.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autoseg.atomic import replacing
from autoseg.errors import AutosegError, DatasetError, ModelError, PlanError, TrainingError
from autoseg.names import fault_of_path, plain_name
from planners.records import OPTIONAL, REST, NewerError, RecordError, called, from_json, to_json

__all__ = [
    "OPTIONAL",
    "REST",
    "BrokenSeal",
    "Workspace",
    "as_text",
    "called",
    "as_record",
    "known_folder",
    "parse_json",
    "read_json",
    "read_record",
    "unsealed",
    "write_json",
    "write_text",
]

SEAL = "seal"  # key of a sealed object
DEEPEST = 100  # levels of nested lists and objects; ours have a dozen

T = TypeVar("T")


@dataclass(frozen=True)
class Workspace:
    """The folder and the paths in it. Nothing is created before something is written.

    Names must be plain file names; any other name, which might lead out of the folder, raises an AutosegError.
    """

    folder: Path

    def fingerprints(self, dataset: str) -> Path:
        return self._of(dataset, "fingerprints")

    def plan(self, dataset: str, name: str) -> Path:
        return self._of(dataset, "plans") / f"{plain_name(name, what='plan', error=PlanError)}.json"

    def prepared(self, dataset: str, plan: str) -> Path:
        return self._of(dataset, "prepared") / plain_name(plan, what="plan", error=PlanError)

    def run(self, dataset: str, name: str) -> Path:
        return self._of(dataset, "runs") / plain_name(name, what="run", error=TrainingError)

    def model(self, name: str) -> Path:
        return self.folder / "models" / plain_name(name, what="model", error=ModelError)

    def comparison(self, name: str) -> Path:
        return self.folder / "comparisons" / plain_name(name, what="comparison")

    def study(self, dataset: str, name: str) -> Path:
        return self._of(dataset, "studies") / plain_name(name, what="study")

    def _of(self, dataset: str, kind: str) -> Path:
        return self.folder / kind / plain_name(dataset, what="data set", error=DatasetError)

    def remember_dataset(self, folder: Path, name: str) -> None:
        """Store where the raw folder of a data set is, so that its name or number is enough from now on.

        Raises:
            DatasetError: as ``refuse_other_dataset``.
        """
        self.refuse_other_dataset(folder, name)
        write_json(self.fingerprints(name) / "dataset.json", KnownDataset(str(folder)), seal=True)

    def refuse_other_dataset(self, folder: Path, name: str) -> None:
        """Raise DatasetError if the name already belongs to another folder that exists; to be called before the work."""
        path = self.fingerprints(name) / "dataset.json"
        if path.is_file() and (known := known_folder(path)) != Path(folder) and known.is_dir():
            raise DatasetError(
                f"this workspace knows {name!r} as {known}, found {folder}. Rename one folder, or use --workspace"
            )

    def dataset_folder(self, text: str) -> Path:
        """The raw folder that a user means by a path, a name or a number.

        Raises:
            DatasetError: nothing matches; lists the known data sets.
        """
        if Path(text).is_dir():
            return Path(text).resolve()
        known = {}
        for path in sorted(self.folder.glob("fingerprints/*/dataset.json")):
            known[path.parent.name] = known_folder(path)
        for name, folder in known.items():
            number = re.match(r"Dataset(\d+)_", folder.name)
            if text in (name, folder.name) or (number and text.isdigit() and int(text) == int(number[1])):
                return folder
        names = ", ".join(known) or "none yet"
        raise DatasetError(
            f"{text!r} is neither a folder nor a data set that {self.folder} knows (known: {names}). "
            "Correct the path; after autoseg plan_and_preprocess PATH, its name is enough"
        )

    def models(self) -> tuple[Path, ...]:
        """Folders of the finished models, sorted by name."""
        return tuple(sorted(path.parent for path in self.folder.glob("models/[!.]*/model.json")))


@dataclass(frozen=True)
class KnownDataset:
    """Where the raw folder of a data set was when the workspace last saw it."""

    folder: str


def known_folder(path: Path) -> Path:
    """The raw folder of a data set, from a ``dataset.json`` of the workspace; AutosegError: the file is damaged."""
    folder = read_record(KnownDataset, path, strict=False).folder
    if fault := fault_of_path(folder):
        raise DatasetError(f"{path}: folder: expected a path, found {fault}. Correct it there")
    return Path(folder)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file in UTF-8, whatever the locale; line ends stay as they are, errors are as in ``replacing``."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8", newline="")


def write_json(path: Path | str, value: Any, *, seal: bool = False, dense: bool = False) -> None:
    """Write records, dictionaries, lists, numbers and strings as JSON; NaN is refused.

    Args:
        seal: add a digest of the other keys to an object, so that ``read_json`` notices damage. For files that no person
            edits.
        dense: all on one line, which is written in a fifth of the time. For large files that hardly anybody reads.
    """
    write_text(path, as_text(value, seal=seal, dense=dense))


def as_text(value: Any, *, seal: bool = False, dense: bool = False) -> str:
    """The text that ``write_json`` writes."""
    content = to_json(value)
    if seal:
        content = json.loads(json.dumps(content, allow_nan=False))  # as it is read back: keys are strings
        content[SEAL] = _seal(content)
    return json.dumps(content, indent=None if dense else 1, allow_nan=False) + "\n"


def read_json(path: str | Path, error: type[AutosegError] = AutosegError) -> Any:
    """The content of a JSON file, without its seal; a byte order mark is ignored.

    Raises:
        AutosegError, or the ``error`` given: the file is missing or damaged, or as in ``parse_json``.
        BrokenSeal: the content does not match its seal.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: there is no such file. Correct the path") from None
    except (OSError, ValueError) as fault:  # ValueError: a zero byte in the path
        raise error(f"{path}: not readable as JSON: {fault}. Correct it there") from fault
    return unsealed(parse_json(data, path, error), path)


def parse_json(data: bytes | str, where: object, error: type[AutosegError] = AutosegError) -> Any:
    """The value of JSON text or bytes, including a seal; a byte order mark is ignored.

    Args:
        where: what messages call the file.

    Raises:
        AutosegError, or the ``error`` given: no JSON; nested more deeply than ``DEEPEST``; invalid text; an integer of
            thousands of digits; a key twice in one object.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        content = json.loads(text, object_pairs_hook=_each_once)
        if "\\ud" in text.lower():  # an unpaired surrogate is not valid text and cannot be written
            json.dumps(content, ensure_ascii=False).encode()
        if _is_deep(content):
            raise RecursionError
    except RecursionError:
        raise error(f"{where}: not readable as JSON: nested too deeply. Correct it there") from None
    except ValueError as fault:  # invalid JSON or UTF-8, or an integer with too many digits
        raise error(f"{where}: not readable as JSON: {fault}. Correct it there") from fault
    return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these keys and values; Python would keep the last of equal keys without a word."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice[:80]!r} occurs twice in one object")
    return found


def _is_deep(content: Any) -> bool:
    """Whether lists and objects are nested more deeply than ``DEEPEST``; recursive functions might fail on them."""
    level = [content]
    for _ in range(DEEPEST):
        parts = [one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list)]
        level = [one for part in parts for one in part if isinstance(one, dict | list)]
        if not level:
            return False
    return True


class BrokenSeal(AutosegError):
    """A record does not match its seal; ``content`` is what it holds now."""

    def __init__(self, where: object, content: dict[str, Any]) -> None:
        super().__init__(
            f"{where}: is not what autoseg wrote. If it was edited on purpose, delete its {SEAL!r}. If it is damaged, copy it "
            "again from its source, or move it away; then it is made again"
        )
        self.content = content


def unsealed(content: Any, where: object) -> Any:
    """The content of a JSON file without its seal, if it has one. BrokenSeal: the content does not match the seal."""
    if not isinstance(content, dict) or SEAL not in content:
        return content
    rest = {key: value for key, value in content.items() if key != SEAL}
    if content[SEAL] != _seal(rest):
        raise BrokenSeal(where, rest)
    return rest


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_record(cls: type[T], path: Path | str, *, strict: bool = True) -> T:
    """Read a record from its file; errors name the file and the place in it. ``strict`` as in ``from_json``."""
    return as_record(cls, read_json(path), path, strict=strict)


def as_record(
    cls: type[T],
    content: Any,
    where: object,
    *,
    strict: bool = True,
    error: type[AutosegError] = AutosegError,
    remedy: str = "Correct it there",
) -> T:
    """Make a record from the content of its file, as ``from_json``; a fault raises the ``error`` given, with a remedy."""
    try:
        return from_json(cls, content, where=str(where), strict=strict)
    except NewerError as fault:
        raise error(str(fault)) from fault
    except RecordError as fault:
        raise error(f"{fault}. {remedy}") from fault
