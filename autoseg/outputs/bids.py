"""Predictions as a BIDS derivative: ``derivatives/autoseg/sub-01[/ses-1]/anat/sub-01[_ses-1]_dseg.nii.gz`` and its tables.

By the BIDS specification (*Derivatives*, "Imaging data types", section "Segmentations"): ``_dseg`` has a label value for each
voxel, and the ``.tsv`` of the same name gives the meaning of the values ("Common image-derived labels"); ``_probseg`` has a
frame for each structure, and its ``.json`` has their names as ``LabelMap`` ("Probabilistic Segmentations"). The files are
copies; the originals are in the folder of predictions.

A scan whose name has BIDS entities keeps them. Any other scan becomes ``sub-NAME`` of letters and digits, with a warning.
``bids.json`` beside ``run.json`` lists the files written by autoseg; a file is listed before it is written.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np

from autoseg import __version__
from autoseg.atomic import replacing
from autoseg.data.dataset import Case
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, FileError
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.files import ending_of, read_label_volume, write_label_volume, write_volume
from autoseg.imaging.volume import Volume
from autoseg.inference.bundle import Bundle
from autoseg.ledger import FOREIGN, file_digest
from autoseg.names import first_of
from autoseg.options import PredictOptions
from autoseg.outputs.probabilities import SUFFIX
from autoseg.workspace import read_record, write_json, write_text

__all__ = ["BidsName", "BidsOutput", "bids_names", "bids_output"]

logger = logging.getLogger(__name__)

VERSION = "1.10.0"  # version of BIDS
DERIVATIVE = Path("derivatives") / "autoseg"
ENTITY = re.compile(r"([a-z]+)-([A-Za-z0-9+]+)")
CHANNEL = re.compile(r"_\d{4}")
SHOWN = 5  # names in a sentence


@dataclass(frozen=True)
class BidsName:
    """The name of the files of a scan: its entities, with ``sub`` and, if present, ``ses`` first."""

    entities: tuple[tuple[str, str], ...]

    @property
    def stem(self) -> str:
        return "_".join(f"{key}-{label}" for key, label in self.entities)

    def path(self, ending: str) -> Path:
        """Path within the derivative; ``ending`` is for example ``_dseg.nii.gz``."""
        folders = [f"{key}-{label}" for key, label in self.entities if key in ("sub", "ses")]
        return Path(*folders, "anat", f"{self.stem}{ending}")


def bids_names(cases: Iterable[Case]) -> dict[str, BidsName]:
    """{case: BidsName}. Changed names are a warning.

    Raises:
        AutosegError: two cases would have the same name.
    """
    names: dict[str, BidsName] = {}
    owners: dict[str, str] = {}
    changed = []
    for case in cases:
        kept = _kept(case)
        name = names[case.id] = kept or BidsName((("sub", _label(case.id)),))
        if not kept:
            changed.append(f"{case.id} as {name.stem}")
        other = owners.setdefault(name.stem.lower(), case.id)  # some file systems ignore upper and lower case
        if other != case.id:
            raise AutosegError(
                f"the cases {other} and {case.id} would both be {name.stem} in BIDS. Rename one of them, or give their scans "
                "names with entities, such as sub-01_ses-1_T1w"
            )
    if changed:
        logger.warning("names without BIDS entities: written are %s", first_of(changed, SHOWN))
    return names


def _kept(case: Case) -> BidsName | None:
    """The name with the entities that all images of a case have in common, else that of the case; None if neither has any."""
    stems = [CHANNEL.sub("", image.name[: -len(ending_of(image))]) for image in case.images if isinstance(image, Path)]
    found = [_entities(stem) for stem in stems]
    if not found or not all(found):
        found = [_entities(case.id)]
    first, *others = [one or () for one in found]
    common = tuple(entity for entity in first if all(entity in other for other in others))
    return BidsName(common) if common and common[0][0] == "sub" else None


def _entities(stem: str) -> tuple[tuple[str, str], ...]:
    """The entities of a name such as ``sub-01_acq-x_T1w``; () if it is not a BIDS name."""
    *parts, last = stem.split("_")
    matches = [ENTITY.fullmatch(part) for part in (parts if parts and re.fullmatch(r"[A-Za-z0-9]+", last) else [*parts, last])]
    found = tuple((match[1], match[2]) for match in matches if match)
    is_name = len(found) == len(matches) and bool(found) and found[0][0] == "sub" and len(dict(found)) == len(found)
    return found if is_name else ()


def _label(text: str) -> str:
    """The letters and digits of a text; a short digest if it has none."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().removeprefix("sub-")
    return re.sub(r"[^A-Za-z0-9]+", "", plain) or blake2b(text.encode(), digest_size=4).hexdigest()


@dataclass(frozen=True)
class Made:
    """A file written by autoseg: its ``digest``, '' before it is written, and the digest of its source (``made_of``)."""

    digest: str = ""
    made_of: str = ""


@dataclass(frozen=True)
class BidsRecord:
    """``bids.json``: file within the derivative -> its Made."""

    made_by: str = "autoseg predict --layout bids"
    files: dict[str, Made] = field(default_factory=dict)


@dataclass(frozen=True)
class BidsOutput:
    """A folder of predictions as a BIDS derivative.

    Attributes:
        folder: folder of the predictions.
        names: {case: BidsName}.
        labels: meaning of the label values.
        ending: file ending of the label maps.
        model: name of the model, for the description.
        record: name of the file that lists the files of autoseg; each shard has its own.
        fresh: overwrite files of other programs.
    """

    folder: Path
    names: Mapping[str, BidsName]
    labels: LabelSchema
    ending: str
    model: str
    record: str = "bids.json"
    fresh: bool = False

    @property
    def root(self) -> Path:
        return self.folder / DERIVATIVE

    def check(self) -> None:
        """Raise FileError if another program made the derivative."""
        name, text = "dataset_description.json", self._texts()["dataset_description.json"]
        path = self.root / name
        if not self.fresh and not self._is_ours(name, self._known()) and _text_of(path) != text:
            raise FileError(f"{path}: {FOREIGN}")

    def write(self, cases: Iterable[Case]) -> tuple[str, ...]:
        """Write the files of predicted cases; returns sentences about failures.

        Raises:
            FileError: the record is damaged or cannot be written.
        """
        known, failures = self._known(), []
        todo: dict[str, str | Path] = {
            name: text for name, text in self._texts().items() if self.fresh or self._is_ours(name, known)
        }
        for case in cases:
            files = {str(path): self._content(case, path) for path in self._paths(case.id)}
            theirs = [name for name in files if not self.fresh and not self._is_ours(name, known)]
            if theirs:
                failures.append(f"{case.id}: not written as BIDS: {self.root / theirs[0]}: {FOREIGN}")
            else:
                todo |= files
        todo = {name: content for name, content in todo.items() if not self._is_done(known.get(name), name, content)}
        self._remember({**known, **dict.fromkeys(todo, Made())})
        for name, content in todo.items():
            try:
                self._write_file(self.root / name, content)
                known[name] = Made(file_digest(self.root / name), _made_of(content))
            except (AutosegError, OSError, MemoryError) as fault:
                failures.append(f"{name}: not written as BIDS: {fault or type(fault).__name__}")
        self._remember(known)
        return tuple(failures)

    def _paths(self, case: str) -> Iterator[Path]:
        """The paths of a case within the derivative."""
        kinds = ("dseg", "probseg") if (self.folder / f"{case}{SUFFIX}").is_file() else ("dseg",)
        for kind in kinds:
            endings = (".nii.gz", ".json", ".tsv") if kind == "dseg" else (".nii.gz", ".json")
            yield from (self.names[case].path(f"_{kind}{ending}") for ending in endings)

    def _content(self, case: Case, path: Path) -> str | Path:
        """The text of a file, or the file of the predictions to copy."""
        if path.suffix == ".tsv":
            return self._table()
        if path.suffix == ".json":
            return _json(self._sidecar(case, path))
        return self.folder / f"{case.id}{SUFFIX if 'probseg' in path.name else self.ending}"

    def _write_file(self, target: Path, content: str | Path) -> None:
        if isinstance(content, str):
            write_text(target, content)
        elif content.name.endswith(SUFFIX):
            with np.load(content, allow_pickle=False) as file:
                frames = file["probabilities"].astype(np.float32)
            labels = content.with_name(f"{content.name.removesuffix(SUFFIX)}{self.ending}")
            write_volume(Volume(frames, read_label_volume(labels).geometry), target)
        elif self.ending == ".nii.gz":
            with replacing(target, content.stat().st_size) as draft:
                shutil.copyfile(content, draft)
        else:
            write_label_volume(read_label_volume(content), target)

    def _is_done(self, made: Made | None, name: str, content: str | Path) -> bool:
        return made is not None and (self.root / name).is_file() and made.made_of == _made_of(content)

    def _table(self) -> str:
        """``dseg.tsv``: index, name and colour of each value."""
        values = self.labels.painted
        colours = structure_colours(values)
        rows = [
            f"{value}\t{' '.join(name.split())}\t#{red:02x}{green:02x}{blue:02x}"
            for (value, name), (red, green, blue) in zip(values.items(), colours, strict=True)
        ]
        return "\n".join(["index\tname\tcolor", *rows, ""])

    def _sidecar(self, case: Case, path: Path) -> dict[str, object]:
        scan = ", ".join(image.name for image in case.images)
        about = {"Description": f"Segmentation of {scan} by the model {self.model}", "Manual": False}
        if "probseg" not in path.name:
            return about
        background = [] if self.labels.has_regions else ["background"]
        return {**about, "LabelMap": [*background, *self.labels.structures]}

    def _texts(self) -> dict[str, str]:
        """The text files that the derivative has once."""
        about = {
            "Name": "Segmentations by autoseg",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "autoseg", "Version": __version__, "Description": f"model {self.model}"}],
        }
        readme = f"# Segmentations by autoseg\n\nPredicted by the model {self.model}. For research only.\n"
        return {"dataset_description.json": _json(about), "README.md": readme}

    def _known(self) -> dict[str, Made]:
        path = self.folder / self.record
        return dict(read_record(BidsRecord, path, strict=False).files) if path.is_file() else {}

    def _remember(self, files: Mapping[str, Made]) -> None:
        write_json(self.folder / self.record, BidsRecord(files=dict(files)), seal=True)

    def _is_ours(self, name: str, known: Mapping[str, Made]) -> bool:
        """Whether the path is free, or holds what autoseg wrote or was about to write."""
        path = self.root / name
        if not (path.exists() or path.is_symlink()):
            return True
        return path.is_file() and name in known and known[name].digest in ("", file_digest(path))


def bids_output(
    options: PredictOptions, folder: Path, cases: Sequence[Case], ending: str, model: Bundle, fresh: bool
) -> BidsOutput | None:
    """The BidsOutput if it is requested, else None.

    Args:
        cases: cases of all shards.
        ending: file ending of their label maps.

    Raises:
        AutosegError: two cases would have the same name, or another program made the derivative.
    """
    if options.layout != "bids":
        return None
    index, count = options.shard
    record = "bids.json" if count == 1 else f"bids_{index}_of_{count}.json"
    made = BidsOutput(folder, bids_names(cases), model.labels, ending, Path(model.name).name, record, fresh)
    made.check()
    return made


def _made_of(content: str | Path) -> str:
    return blake2b(content.encode(), digest_size=8).hexdigest() if isinstance(content, str) else file_digest(content)


def _text_of(path: Path) -> str | None:
    """The text of a file; None if it is not a file or not text."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return None


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
