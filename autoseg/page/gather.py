"""Build the Page of a folder of results: a fold, a study, predictions, an evaluation, or reconstructions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

from autoseg import __version__
from autoseg.data.dataset import Case, image_name, read_dataset
from autoseg.data.findings import Finding
from autoseg.data.labelmaps import completed, label_maps
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.evaluation.calibration import CALIBRATION, Calibration
from autoseg.evaluation.comparison_report import ComparisonRecord
from autoseg.evaluation.report import REPORT_FILE, Report, ScoredFiles, read_report
from autoseg.evaluation.restored import RESTORED_FILE, RestorationResult
from autoseg.evaluation.study_findings import MADE_BY, StudyFindings
from autoseg.imaging.files import FORMATS, digest_on_disk, ending_of, paths_of, read_label_volume
from autoseg.imaging.values import count_values
from autoseg.names import case_name, fault_of_path, folders_of, inside
from autoseg.options import ReportOptions
from autoseg.page.page import Page
from autoseg.page.runs import RunRecord
from autoseg.page.scene import PageCase
from autoseg.page.study import StudyShown
from autoseg.records import (
    CalibrationAbout,
    CaseRecord,
    CohortRecord,
    FoldRecord,
    ModelAbout,
    read_case,
    read_cohort,
    read_fold,
    read_validations,
)
from autoseg.workspace import known_folder, read_record
from planners.fingerprint import Fingerprint
from planners.records import RecordError, from_json

__all__ = ["page_of"]

STUDY = "study.json"
RECONSTRUCT = "autoseg reconstruct"  # ``made_by`` in its records


def page_of(folder: Path, options: ReportOptions) -> Page:
    """The Page of a folder.

    Args:
        folder: ``runs/NAME/RUN/fold_N``, ``studies/NAME/STUDY``, a folder with predictions, metrics or both, or the output
            of ``reconstruct``.
        options: folders of scans, references and label maps.

    Raises:
        AutosegError: the folder is none of these, a study in it is not finished, or a file cannot be read.
    """
    fold = read_fold(folder)
    study = _if_there(StudyFindings, folder / STUDY)
    if study and study.made_by == MADE_BY:
        return _of_study(folder, study)
    return _of_run(folder, fold) if fold else _of_results(folder, _Sources(options))


def _of_run(folder: Path, fold: FoldRecord) -> Page:
    """The Page of a fold: the training run, its data set, and its validation cases."""
    plan, workspace, results = fold.task.plan, folder.absolute().parents[3], folder / "validation"
    about = inside(workspace / "fingerprints", plan.dataset)
    home = str(known_folder(about / "dataset.json")) if (about / "dataset.json").is_file() else None
    scored = read_report(results / REPORT_FILE) if (results / REPORT_FILE).is_file() else None
    known = _cases_of_dataset(home, set(fold.task.validation))
    cases = []
    guesses = label_maps(results) if scored else {}
    for name in fold.task.validation if scored else ():
        case = known.get(name)
        cases.append(_case(name, results, case.images if case else (), case.label if case else None, guesses.get(name)))
    run = RunRecord(
        fold=fold,
        history=read_validations(folder / "history.jsonl"),
        fingerprint=_if_there(Fingerprint, about / "fingerprint.json"),
        findings=_if_there(tuple[Finding, ...], about / "findings.json") or (),
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


def _of_study(folder: Path, found: StudyFindings) -> Page:
    """The Page of a finished study: its comparison, its decisions, and the cases as predicted by its model."""
    if not (folder / REPORT_FILE).is_file():
        raise AutosegError(f"{folder}: this study is not finished. Give the same command again to continue it")
    report, dataset = read_report(folder / REPORT_FILE), folder.absolute().parent.name
    workspace = [folder, *folder.absolute().parents][:4][-1]
    about = workspace / "fingerprints" / dataset / "dataset.json"
    home = str(known_folder(about)) if about.is_file() else None
    known = _cases_of_dataset(home, set(found.predicted))
    cases = []
    for name, where in found.predicted.items():
        case, path = known.get(name), inside(workspace, where)
        guess = path if path.is_file() else None
        cases.append(_case(name, folder, case.images if case else (), case.label if case else None, guess))
    return Page(
        title=f"Study of {dataset}" + (f": {folder.name}" if folder.name != "study" else ""),
        facts=(("model", found.model), ("configuration", found.chosen), ("cases", str(len(report.cases)))),
        labels=report.labels,
        report=report,
        cases=tuple(cases),
        study=StudyShown(found, _if_there(ComparisonRecord, folder / "comparison.json")),
        folders=_folders([folder, workspace, *([home] if home else [])], report),
        calibration=_about(found.calibration, bool(found.calibration.temperatures)) if found.calibration else None,
    )


def _if_there(cls: Any, path: Path) -> Any:
    """The record in a file; None if there is no such file."""
    return read_record(cls, path, strict=False) if path.is_file() else None


def _cases_of_dataset(folder: str | None, names: Set[str]) -> dict[str, Case]:
    """{name: Case} of the data set; {} if it can no longer be read."""
    try:
        return {case.id: case for case in read_dataset(Path(folder)).training if case.id in names} if folder else {}
    except AutosegError:
        return {}


@dataclass(frozen=True)
class _Sources:
    """Finds the files of cases; each folder is listed only once."""

    options: ReportOptions
    maps: dict[Path, dict[str, Path]] = field(default_factory=dict)
    scans: dict[Path, dict[str, list[Path]]] = field(default_factory=dict)

    def map_of(self, case: str, folder: str | PathLike[str] | None, recorded: str = "") -> Path | None:
        """The label map of a case: in ``folder``, or else at the recorded path; None if neither exists.

        Only older versions recorded paths. Current ones record a file name alone, which does not identify the folder.
        """
        if folder is not None and (found := self._maps_in(Path(folder)).get(case)):
            return found
        path = Path(recorded)
        is_there = path.name != recorded and not fault_of_path(path) and path.is_file()
        return path if is_there else None

    def _maps_in(self, folder: Path) -> dict[str, Path]:
        if folder not in self.maps:
            self.maps[folder] = label_maps(folder) if folder.is_dir() else {}
        return self.maps[folder]

    def images_of(self, case: str, labels: Path | None) -> Sequence[Any]:
        """The scan's files, one per channel; () if they are not found."""
        images = self.options.images
        if isinstance(images, Mapping):
            return tuple(images.get(case, ()))
        if images is None and labels is not None and labels.parent.name.startswith("labels"):
            images = labels.parent.with_name(labels.parent.name.replace("labels", "images"))
        if images is None:
            return ()
        folder = Path(images)
        if folder not in self.scans:
            self.scans[folder] = _scans_in(folder) if folder.is_dir() else {}
        return tuple(sorted(self.scans[folder].get(case, ())))

    @property
    def places(self) -> list[str | PathLike[str]]:
        """All input folders, including those of the scans; a scan may be a DicomSeries of several files."""
        known = [place for place in (self.options.reference, self.options.predicted) if place is not None]
        images = self.options.images
        if isinstance(images, Mapping):
            return [*known, *{path.parent for case in images.values() for image in case for path in paths_of(image)}]
        return [*known] if images is None else [*known, images]


def _scans_in(folder: Path) -> dict[str, list[Path]]:
    """{case: its files} of the scans in a folder: ``CASE_0000.EXT`` and so on, or else ``CASE.EXT``."""
    found: dict[str, dict[tuple[str, bool], list[Path]]] = {}  # by (ending, whether each channel has its own file)
    for path in folder.iterdir():
        if path.name.lower().endswith(tuple(FORMATS)):
            ending = ending_of(path)
            found.setdefault(case_name(path.name[: -len(ending)]), {})[ending, False] = [path]
            if match := image_name(ending).fullmatch(path.name):
                found.setdefault(case_name(match[1]), {}).setdefault((ending, True), []).append(path)
    return {case: kinds[max(kinds, key=lambda kind: (len(kind[0]), kind[1]))] for case, kinds in found.items()}


def _of_results(folder: Path, sources: _Sources) -> Page:
    """The Page of a folder with predictions, metrics or both; without these, that of reconstructions."""
    scored = read_report(folder / REPORT_FILE) if (folder / REPORT_FILE).is_file() else None
    names = list(scored.files if scored and scored.files else _maps_of_others(folder))
    if not names:
        return _of_reconstructions(folder, sources)
    cases = [_result(name, folder, sources, scored.files.get(name) if scored else None) for name in names]
    record = read_cohort(folder)
    model = Path(record.model.name).name  # the record may hold the path that was given
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
        calibration=_calibration(folder, record),
    )


def _calibration(folder: Path, record: CohortRecord) -> CalibrationAbout | None:
    """Calibration measured by a cross-validation in ``folder``, or else that of the model that predicted; None if unknown."""
    measured = _if_there(Calibration, folder / CALIBRATION)
    if measured:
        return _about(measured, used=False)
    try:
        study = from_json(ModelAbout, record.model.about, strict=False).info.study
    except RecordError:  # of an older version, or without a model
        return None
    return study.calibration if study else None


def _about(found: Calibration, used: bool) -> CalibrationAbout:
    return CalibrationAbout(found.before, found.after, used)


def _result(name: str, folder: Path, sources: _Sources, files: ScoredFiles | None) -> PageCase:
    """The PageCase of a case that was scored or predicted."""
    options = sources.options
    truth = sources.map_of(name, options.reference, files.reference if files else "")
    guess = sources.map_of(name, options.predicted or folder, files.predicted if files else "")
    return _case(name, folder, sources.images_of(name, truth), truth, guess)


def _maps_of_others(folder: Path) -> list[str]:
    """Names of the label maps in a folder, without those that ``reconstruct`` derived (with cubic voxels)."""
    derived = {name for record in _reconstructions(folder).values() for name in record.outputs}
    return [name for name, path in label_maps(folder).items() if path.name not in derived]


def _reconstructions(folder: Path) -> dict[str, CaseRecord]:
    """{case: record} of the finished reconstructions in a folder."""
    found = {path.stem: read_case(path) for path in sorted(folder.glob("[!.]*.json"))}
    return {name: record for name, record in found.items() if record and record.made_by == RECONSTRUCT and record.is_done}


def _of_reconstructions(folder: Path, sources: _Sources) -> Page:
    """The Page of the output of ``reconstruct``; its label maps are in ``options.predicted`` or at the recorded path.

    Raises:
        AutosegError: there are no finished reconstructions in the folder either.
    """
    records = _reconstructions(folder)
    if not records:
        raise AutosegError(
            f"{folder}: neither a run's fold, nor predictions, nor reconstructions, nor {REPORT_FILE} in it. "
            "Give RUN/fold_N, or the output folder of `autoseg study`, `predict`, `reconstruct` or `evaluate`"
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


def _reconstructed(name: str, folder: Path, record: CaseRecord, sources: _Sources) -> PageCase:
    """A label map and its reconstruction, with a note if the map is missing or has changed."""
    found = sources.map_of(name, sources.options.predicted, record.source)
    notes = []
    if found is None:
        notes.append(f"{Path(record.source).name}: the label map is not shown; autoseg report --predicted DIR names its folder")
    elif digest_on_disk(found) not in record.inputs.values():
        notes.append(f"{found.name}: is not the label map that surfaces and measurements were made from")
    truth = sources.map_of(name, sources.options.reference)
    case = _case(name, folder, sources.images_of(name, truth or found), truth, found, home=folder)
    return replace(case, record=replace(record, notes=tuple(notes)), called="labels")


def _case(
    name: str,
    folder: Path,
    images: Sequence[Any] = (),
    reference: Path | None = None,
    predicted: Path | None = None,
    home: Path | None = None,
) -> PageCase:
    """A PageCase with the record and surfaces in ``home``, by default the folder of its prediction."""
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


def _labels(record: CohortRecord, cases: Iterable[PageCase]) -> LabelSchema:
    """The structures of the model; if they are not recorded, one for every label value found."""
    if record.labels:
        return record.labels
    maps = (read_label_volume(case.predicted).data for case in cases if case.predicted)
    return completed(None, {value for data in maps for value in count_values(data)})


def _folders(known: Iterable[str | PathLike[str]], scored: Report | None) -> tuple[str, ...]:
    """Folders that messages may name, with all their parents."""
    files = scored.files.values() if scored else ()
    return folders_of([*known, *(Path(path).parent for one in files for path in (one.reference, one.predicted))])
