"""The HTML page of a run, of predictions, of reconstructions or of an evaluation."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autoseg import __version__
from autoseg.data.dataset import Case, image_name, read_dataset
from autoseg.data.labels import LabelSchema
from autoseg.data.scan import Finding
from autoseg.errors import AutosegError
from autoseg.evaluation.report import REPORT_FILE, Report, ScoredFiles, read_report
from autoseg.evaluation.restored import RESTORED_FILE, RestorationResult
from autoseg.imaging.files import FORMATS, digest_on_disk, paths_of, read_label_volume
from autoseg.page import MOST_PICTURED, Page, PageCase, write_page
from autoseg.page.runs import RunRecord
from autoseg.pipeline.quiet import mute, silent
from autoseg.records import CaseRecord, CohortRecord, FoldRecord, read_case, read_checks, read_cohort, read_fold
from autoseg.workspace import read_json, read_record
from planners.fingerprint import Fingerprint
from planners.records import from_json

__all__ = ["Reported", "Sources", "report", "try_report"]

logger = logging.getLogger(__name__)

PAGE = "report.html"
RECONSTRUCT = "autoseg reconstruct"  # what its records say that they were made by
Images = str | Path | Mapping[str, Sequence[Any]] | None


@dataclass(frozen=True)
class Reported:
    """The page that was written; ``notes`` are sentences about what it could not show."""

    path: Path
    notes: tuple[str, ...]
    seconds: float

    def summary(self) -> str:
        size = self.path.stat().st_size / 2**20
        return "\n".join([*self.notes, f"{self.path} ({size:.1f} MiB, {self.seconds:.1f} s)"])


@dataclass(frozen=True)
class Sources:
    """Where a page finds what it shows.

    Attributes:
        images: folder of the scans, or {case: paths}; None for the imagesTr (or imagesTs) beside the references' labelsTr, or
            beside that of the maps that were reconstructed.
        reference, predicted: folders of label maps; None for those that the metrics, or the reconstructions, name.
    """

    images: Images = None
    reference: str | Path | None = None
    predicted: str | Path | None = None

    @property
    def places(self) -> list[str | Path]:
        """The folders, those of the scans too, of which one may be a DicomSeries."""
        known = [place for place in (self.reference, self.predicted) if place is not None]
        if isinstance(self.images, Mapping):
            return [*known, *{path.parent for case in self.images.values() for image in case for path in paths_of(image)}]
        return known if self.images is None else [*known, self.images]


def report(
    path: str | Path,
    *,
    images: Images = None,
    reference: str | Path | None = None,
    predicted: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[str, int], Any] = silent,
) -> Reported:
    """Write ``report.html`` into the folder of a fold of a run, of predictions, of reconstructions, or of an evaluation.

    Args:
        path: ``runs/NAME/RUN/fold_N``, a folder with predictions or with metrics.json or both, or what ``reconstruct`` wrote.
        images, reference, predicted: as in ``Sources``.

    Returns:
        Reported

    Raises:
        AutosegError: the folder holds none of these, or what is in it cannot be read.
    """
    begun = time.monotonic()
    folder = Path(path)
    if not folder.is_dir():
        raise AutosegError(f"{folder}: there is no such folder. Correct the path")
    fold = read_fold(folder)
    page = _of_run(folder, fold) if fold else _of_results(folder, Sources(images, reference, predicted))
    notes = write_page(page, folder / PAGE, workers=workers, on_done=progress("draw", min(len(page.cases), MOST_PICTURED)))
    return Reported(folder / PAGE, notes, time.monotonic() - begun)


def try_report(path: str | Path, *, say: Callable[[str], object] = mute, **options: Any) -> Path | None:
    """``report`` as the last step of other work: what goes wrong is said, and the work stays done.

    Returns:
        path of the page, or None.
    """
    try:
        done = report(path, **options)
        say(f"page: {done.path}")
        return done.path
    except Exception as fault:  # noqa: BLE001 - results that are written must not be lost to a picture
        say(f"no {PAGE} in {path}: {fault if isinstance(fault, AutosegError) else repr(fault)}")
        return None


def _of_run(folder: Path, fold: FoldRecord) -> Page:
    """The Page of a fold: the training, its data set, and the cases that it held back."""
    plan, workspace, results = fold.task.plan, folder.absolute().parents[3], folder / "validation"
    about = workspace / "fingerprints" / plan.dataset
    home = read_json(about / "dataset.json").get("folder") if (about / "dataset.json").is_file() else None
    scored = read_report(results / REPORT_FILE) if (results / REPORT_FILE).is_file() else None
    known = _cases_of_dataset(home, fold.task.validation)
    cases = []
    for name in fold.task.validation if scored else ():
        case = known.get(name)
        cases.append(_case(name, results, case.images if case else (), case.label if case else None))
    run = RunRecord(
        fold=fold,
        history=read_checks(folder / "history.jsonl"),
        fingerprint=_if_there(Fingerprint, about / "fingerprint.json"),
        findings=_findings(about / "findings.json"),
        restoration=_if_there(RestorationResult, results / RESTORED_FILE),
    )
    return Page(
        title=f"{plan.dataset}: {plan.name}, {plan.network.name}, {folder.name.replace('_', ' ')}",
        labels=fold.task.labels,
        report=scored,
        cases=tuple(cases),
        run=run,
        folders=_folders([folder, workspace, *([home] if home else [])], scored),
    )


def _if_there(cls: Any, path: Path) -> Any:
    """The record in a file; None where there is no such file."""
    return read_record(cls, path, strict=False) if path.is_file() else None


def _findings(path: Path) -> tuple[Finding, ...]:
    found = read_json(path) if path.is_file() else []
    return tuple(from_json(Finding, one, str(path), strict=False) for one in found)


def _cases_of_dataset(folder: str | None, names: Sequence[str]) -> dict[str, Case]:
    """{name: Case} of the data set, {} where it has gone."""
    try:
        return {case.id: case for case in read_dataset(Path(folder)).training if case.id in names} if folder else {}
    except AutosegError:
        return {}


def _of_results(folder: Path, sources: Sources) -> Page:
    """The Page of a folder with predictions, metrics, or both; else of reconstructions."""
    scored = read_report(folder / REPORT_FILE) if (folder / REPORT_FILE).is_file() else None
    names = list(scored.files if scored and scored.files else sorted(_label_files(folder)))
    if not names:
        return _of_reconstructions(folder, sources)
    cases = [_result(name, folder, sources, scored.files.get(name) if scored else None) for name in names]
    record = read_cohort(folder)
    model = Path(record.model.name).name  # which may be the path that was given
    facts = (
        ("model", model),
        ("scored", str(len(scored.cases)) if scored else ""),
        ("failed", str(len({failure.case for failure in scored.failures})) if scored and scored.failures else ""),
        ("device", record.device),
        ("autoseg", record.versions.get("autoseg", __version__)),
    )
    kind = "Predictions" if model or not scored else "Evaluation"
    return Page(
        title=f"{kind} of {len(cases)} case{'s' * (len(cases) != 1)}",
        facts=facts,
        labels=scored.labels if scored else _labels(record, cases),
        report=scored,
        cases=tuple(cases),
        folders=_folders([folder, *sources.places], scored),
    )


def _result(name: str, folder: Path, sources: Sources, files: ScoredFiles | None) -> PageCase:
    """A case that was scored, or only predicted."""
    truth = _find(name, sources.reference, Path(files.reference) if files else None)
    guess = _find(name, sources.predicted or folder, Path(files.predicted) if files else None)
    return _case(name, folder, _images(name, sources.images, truth), truth, guess)


def _of_reconstructions(folder: Path, sources: Sources) -> Page:
    """The Page of what ``reconstruct`` wrote; the label maps are where they were, or in the folder ``predicted``."""
    found = {path.stem: read_case(path) for path in sorted(folder.glob("[!.]*.json"))}
    records = {name: record for name, record in found.items() if record and record.made_by == RECONSTRUCT and record.is_done}
    if not records:
        raise AutosegError(
            f"{folder}: neither a run's fold, nor predictions, nor reconstructions, nor {REPORT_FILE} in it. "
            "Expected RUN/fold_N, or the output folder of `autoseg predict`, `autoseg reconstruct` or `autoseg evaluate`"
        )
    cases = [_reconstructed(name, folder, record, sources) for name, record in records.items()]
    groups: dict[str, tuple[int, ...]] = {}
    for record in records.values():
        groups = {**record.groups, **groups}
    values = tuple(groups.values())
    places = [folder, *sources.places, *(Path(record.source).parent for record in records.values())]
    return Page(
        title=f"Reconstruction of {len(cases)} label map{'s' * (len(cases) != 1)}",
        facts=(("autoseg", __version__),),
        labels=LabelSchema(tuple(groups), values, any(len(group) > 1 for group in values), tuple(v[0] for v in values)),
        cases=tuple(cases),
        folders=_folders(places, None),
    )


def _reconstructed(name: str, folder: Path, record: CaseRecord, sources: Sources) -> PageCase:
    """A label map and what was made of it, with a note where the map has gone or changed."""
    source = Path(record.source)
    found = _find(name, sources.predicted, source)
    notes = []
    if found is None:
        notes.append(f"{source.name}: the label map is not where it was; --predicted DIR names its folder")
    elif digest_on_disk(found) not in record.inputs.values():
        notes.append(f"{found.name}: is not the label map that surfaces and measurements were made of")
    truth = _find(name, sources.reference, None)
    case = _case(name, folder, _images(name, sources.images, truth or found), truth, found, home=folder)
    return replace(case, record=replace(record, notes=tuple(notes)), called="labels")


def _case(
    name: str,
    folder: Path,
    images: Sequence[Any] = (),
    reference: Path | None = None,
    predicted: Path | None = None,
    home: Path | None = None,
) -> PageCase:
    """A PageCase with what lies in ``home``, else beside its prediction."""
    predicted = predicted or _label_files(folder, name).get(name)
    home = home or (predicted.parent if predicted else folder)
    surfaces = home / f"{name}_surfaces"
    return PageCase(
        id=name,
        images=tuple(images),
        reference=reference,
        predicted=predicted,
        record=read_case(home / f"{name}.json") or CaseRecord(),
        surfaces=surfaces if surfaces.is_dir() else None,
    )


def _label_files(folder: Path, name: str | None = None) -> dict[str, Path]:
    """{case: path} of the label maps in a folder; ``CASE_iso`` and ``CASE_iso_cubic`` are scans on cubic voxels."""
    found = {}
    for ending in sorted(FORMATS, key=len):
        for path in sorted(folder.glob(f"[!.]*{ending}")) if name is None else [folder / f"{name}{ending}"]:
            if path.is_file() and not path.name.endswith((f"_iso{ending}", f"_iso_cubic{ending}")):
                found[path.name[: -len(ending)]] = path
    return found


def _find(name: str, folder: str | Path | None, path: Path | None) -> Path | None:
    """The label map of a case in a folder, else the path given; None where neither is a file."""
    if folder is not None and (found := _label_files(Path(folder), name).get(name)):
        return found
    return path if path is not None and path.is_file() else None


def _images(name: str, images: Images, reference: Path | None) -> Sequence[Any]:
    """The scan's files, one per channel; () where they are not found."""
    if isinstance(images, Mapping):
        return images.get(name, ())
    if images is None and reference is not None and reference.parent.name.startswith("labels"):
        images = reference.parent.with_name(reference.parent.name.replace("labels", "images"))
    if images is None or not Path(images).is_dir():
        return ()
    for ending in sorted(FORMATS, key=len, reverse=True):
        paths = [
            path for path in Path(images).iterdir() if (match := image_name(ending).fullmatch(path.name)) and match[1] == name
        ]
        paths = paths or [path for path in [Path(images) / f"{name}{ending}"] if path.is_file()]
        if paths:
            return tuple(sorted(paths))
    return ()


def _labels(record: CohortRecord, cases: Iterable[PageCase]) -> LabelSchema:
    """The structures that the model was made for, else one for every value found."""
    if record.labels:
        return record.labels
    maps = [read_label_volume(case.predicted) for case in cases]
    values = sorted({int(value) for labels in maps for value in np.unique(labels.data)} - {0})
    return LabelSchema(tuple(f"label {v}" for v in values), tuple((v,) for v in values), False, tuple(values))


def _folders(known: Iterable[str | Path], scored: Report | None) -> tuple[str, ...]:
    """Folders whose names may stand in messages, with those that they lie in."""
    paths = [Path(place) for place in known]
    for files in scored.files.values() if scored else ():
        paths += [Path(files.reference).parent, Path(files.predicted).parent]
    every = {form for path in paths for form in (path, path.absolute())}
    return tuple(sorted({str(folder) for path in every for folder in (path, *path.parents) if folder.name}))
