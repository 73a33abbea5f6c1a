"""The page of a folder of predictions, of an evaluation, or of reconstructions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from autoseg import __version__
from autoseg.data.labelmaps import completed, label_maps
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.evaluation.report import REPORT_FILE, ScoredFiles, read_report
from autoseg.evaluation.values import count_values
from autoseg.imaging.files import digest_on_disk, read_label_volume
from autoseg.page.page import Page
from autoseg.page.scene import PageCase
from autoseg.page.sources import Sources, case_at, named_folders
from autoseg.records import CaseRecord, CohortRecord, read_case, read_cohort

__all__ = ["page_of_results"]

RECONSTRUCT = "autoseg reconstruct"  # what its records say that they were made by


def page_of_results(folder: Path, sources: Sources) -> Page:
    """The Page of a folder with predictions, metrics, or both; else of reconstructions."""
    scored = read_report(folder / REPORT_FILE) if (folder / REPORT_FILE).is_file() else None
    names = list(scored.files if scored and scored.files else label_maps(folder))
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
        folders=named_folders([folder, *sources.places], scored),
    )


def _result(name: str, folder: Path, sources: Sources, files: ScoredFiles | None) -> PageCase:
    """A case that was scored, or only predicted."""
    options = sources.options
    truth = sources.map_of(name, options.reference, Path(files.reference) if files else None)
    guess = sources.map_of(name, options.predicted or folder, Path(files.predicted) if files else None)
    return case_at(name, folder, sources.images_of(name, truth), truth, guess)


def _labels(record: CohortRecord, cases: Iterable[PageCase]) -> LabelSchema:
    """The structures that the model was made for, else one for every value found."""
    if record.labels:
        return record.labels
    maps = (read_label_volume(case.predicted).data for case in cases if case.predicted)
    return completed(None, {value for data in maps for value in count_values(data)})


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
        folders=named_folders(places, None),
    )


def _reconstructed(name: str, folder: Path, record: CaseRecord, sources: Sources) -> PageCase:
    """A label map and what was made of it, with a note where the map has gone or changed."""
    source = Path(record.source)
    found = sources.map_of(name, sources.options.predicted, source)
    notes = []
    if found is None:
        notes.append(f"{source.name}: the label map is not where it was; --predicted DIR names its folder")
    elif digest_on_disk(found) not in record.inputs.values():
        notes.append(f"{found.name}: is not the label map that surfaces and measurements were made of")
    truth = sources.map_of(name, sources.options.reference, None)
    case = case_at(name, folder, sources.images_of(name, truth or found), truth, found, home=folder)
    return replace(case, record=replace(record, notes=tuple(notes)), called="labels")
