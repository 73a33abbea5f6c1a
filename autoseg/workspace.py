"""Where everything that autoseg makes lies, and how it is written.

A workspace is one folder::

    fingerprints/DATASET/   dataset.json (where the raw folder is), scan.json, fingerprint.json, findings.json, splits.json
    plans/DATASET/          PLAN.json, readable and editable
    prepared/DATASET/PLAN/  one folder per case
    runs/DATASET/RUN/       fold_K/ with run.json, checkpoint, history, curves, validation
    models/                 finished models, one folder each

Files are written beside their place and moved there in one step, so that a file that exists is whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from autoseg.atomic import replacing
from autoseg.errors import AutosegError, DatasetError
from planners.records import RecordError, from_json, to_json

__all__ = ["BrokenSeal", "Workspace", "read_json", "read_record", "unsealed", "write_json", "write_text"]

SEAL = "seal"  # key of a sealed object


Record = TypeVar("Record")


@dataclass(frozen=True)
class Workspace:
    """The folder and the places in it. Nothing is created before something is written."""

    folder: Path

    def fingerprints(self, dataset: str) -> Path:
        return self.folder / "fingerprints" / dataset

    def plan(self, dataset: str, name: str) -> Path:
        return self.folder / "plans" / dataset / f"{name}.json"

    def prepared(self, dataset: str, plan: str) -> Path:
        return self.folder / "prepared" / dataset / plan

    def run(self, dataset: str, name: str) -> Path:
        return self.folder / "runs" / dataset / name

    def model(self, name: str) -> Path:
        return self.folder / "models" / name

    def remember_dataset(self, folder: Path, name: str) -> None:
        """Store where the raw folder of a data set is, so that its name or number will do from now on.

        Raises:
            DatasetError: the name belongs to another folder already.
        """
        path = self.fingerprints(name) / "dataset.json"
        if path.is_file() and Path(read_json(path)["folder"]) != Path(folder):
            known = read_json(path)["folder"]
            if Path(known).is_dir():
                raise DatasetError(
                    f"this workspace knows {name!r} as {known}, found {folder}. Rename one folder, or use --workspace"
                )
        write_json(path, {"folder": str(folder)}, seal=True)

    def dataset_folder(self, text: str) -> Path:
        """The raw folder that a user means by a path, a name or a number.

        Raises:
            DatasetError: nothing fits, with what is known.
        """
        if Path(text).is_dir():
            return Path(text).resolve()
        known = {}
        for path in sorted(self.folder.glob("fingerprints/*/dataset.json")):
            known[path.parent.name] = Path(read_json(path)["folder"])
        for name, folder in known.items():
            number = re.match(r"Dataset(\d+)_", folder.name)
            if text in (name, folder.name) or (number and text.isdigit() and int(text) == int(number[1])):
                return folder
        names = ", ".join(known) or "none yet"
        raise DatasetError(
            f"{text!r} is neither a folder nor a data set that {self.folder} knows (it knows: {names}). "
            "Give the path of the data-set folder first: autoseg plan_and_preprocess PATH"
        )

    def models(self) -> tuple[Path, ...]:
        """The finished models, sorted by name."""
        return tuple(sorted(path.parent for path in self.folder.glob("models/[!.]*/model.json")))


def write_text(path: Path, text: str) -> None:
    with replacing(path) as draft:
        draft.write_text(text)


def write_json(path: Path, value: Any, *, seal: bool = False) -> None:
    """Records, dictionaries, lists, numbers and strings as JSON; NaN is refused.

    Args:
        seal: put a digest of all the others among the keys of an object, so that ``read_json`` notices damage. For files
            that no person edits.
    """
    content = to_json(value)
    if seal:
        content = json.loads(json.dumps(content, allow_nan=False))  # as it is read back: keys are strings
        content[SEAL] = _seal(content)
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """What is written in a file, without its seal.

    Raises:
        AutosegError: the file is missing or damaged, or is not what was sealed.
    """
    try:
        return unsealed(json.loads(Path(path).read_text()), path)
    except FileNotFoundError:
        raise AutosegError(f"{path}: there is no such file") from None
    except (ValueError, RecursionError) as fault:  # no JSON or no text, numbers of endless digits, endless depth
        raise AutosegError(f"{path}: not readable as JSON: {fault}") from fault


class BrokenSeal(AutosegError):
    """A record is not what was sealed; ``content`` is what it says now."""

    def __init__(self, where: object, content: dict[str, Any]) -> None:
        super().__init__(
            f"{where}: is not what autoseg wrote. Where it was edited on purpose delete its {SEAL!r}; where it is damaged copy "
            "it again from where it comes from, or move it away to have it made anew"
        )
        self.content = content


def unsealed(content: Any, where: object) -> Any:
    """The content of a JSON file without its seal; what has none is handed back as it is. BrokenSeal: the seal does not fit."""
    if not isinstance(content, dict) or SEAL not in content:
        return content
    rest = {key: value for key, value in content.items() if key != SEAL}
    if content[SEAL] != _seal(rest):
        raise BrokenSeal(where, rest)
    return rest


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def read_record(cls: type[Record], path: Path) -> Record:
    """A record from its file; errors name the file and the place in it."""
    try:
        record: Record = from_json(cls, read_json(path), where=str(path))
        return record
    except RecordError as fault:
        raise AutosegError(str(fault)) from fault
