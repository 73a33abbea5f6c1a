"""The HTML page of a run, of predictions, of reconstructions or of an evaluation."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from autoseg import __version__
from autoseg.data.dataset import image_name, read_dataset
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.evaluation.stored import read_report
from autoseg.imaging.files import FORMATS, digest_on_disk, paths_of, read_label_volume
from autoseg.page import MOST_PICTURED, Page, PageCase, write_page
from autoseg.page.runs import RunRecord
from autoseg.pipeline.quiet import mute, silent
from autoseg.training.monitor import read_history
from autoseg.workspace import read_json
from planners.records import from_json

__all__ = ["Reported", "report", "try_report"]

PAGE = "report.html"
RECONSTRUCT = "autoseg reconstruct"  # what its markers say that they were made by


@dataclass(frozen=True)
class Reported:
    """The page that was written; ``notes`` are sentences about what it could not show."""

    path: Path
    notes: tuple[str, ...]
    seconds: float

    def summary(self):
        size = self.path.stat().st_size / 2**20
        return "\n".join([*self.notes, f"{self.path} ({size:.1f} MiB, {self.seconds:.1f} s)"])


def report(path, *, images=None, reference=None, predicted=None, workers=None, progress=silent):
    """Write ``report.html`` into the folder of a fold of a run, of predictions, of reconstructions, or of an evaluation.

    Args:
        path: ``runs/NAME/RUN/fold_N``, a folder with predictions or with metrics.json or both, or what ``reconstruct`` wrote.
        images: folder of the scans, or {case: paths}; None for the imagesTr (or imagesTs) beside the references' labelsTr, or
            beside that of the maps that were reconstructed.
        reference, predicted: folders of label maps; None for those that the metrics, or the reconstructions, name.

    Returns:
        Reported

    Raises:
        AutosegError: the folder holds none of these, or what is in it cannot be read.
    """
    begun = time.monotonic()
    folder = Path(path)
    if not folder.is_dir():
        raise AutosegError(f"{folder}: there is no such folder. Correct the path")
    record = read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    page = _of_run(folder, record) if "task" in record else _of_results(folder, record, images, reference, predicted)
    notes = write_page(page, folder / PAGE, workers=workers, on_done=progress("draw", min(len(page.cases), MOST_PICTURED)))
    return Reported(folder / PAGE, notes, time.monotonic() - begun)


def try_report(path, *, say=mute, **options):
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


def _of_run(folder, record):
    """The Page of a fold: the training, its data set, and the cases that it held back."""
    task, workspace = record["task"], folder.absolute().parents[3]
    labels = from_json(LabelSchema, task["labels"])
    about = workspace / "fingerprints" / task["plan"]["dataset"]
    fingerprint, findings, home = (
        read_json(path) if (path := about / name).is_file() else {}
        for name in ("fingerprint.json", "findings.json", "dataset.json")
    )
    held_back, results = task["validation"], folder / "validation"
    scored = read_report(results / "metrics.json") if (results / "metrics.json").is_file() else None
    restored = read_json(results / "restoration.json") if (results / "restoration.json").is_file() else {}
    known = _cases_of_dataset(home.get("folder"), held_back)
    files = {name: (known[name].images, known[name].label) if name in known else ((), None) for name in held_back}
    cases = [_case(name, results, *paths) for name, paths in files.items()] if scored else []
    plan = task["plan"]
    return Page(
        title=f"{plan['dataset']}: {plan['name']}, {plan['network']['name']}, {folder.name.replace('_', ' ')}",
        labels=labels,
        report=scored,
        cases=tuple(cases),
        run=RunRecord(record, tuple(read_history(folder / "history.jsonl")), fingerprint, tuple(findings or ()), restored),
        folders=_folders([home.get("folder"), folder, workspace], scored),
    )


def _cases_of_dataset(folder, names):
    """{name: Case} of the data set, {} where it has gone."""
    try:
        return {case.id: case for case in read_dataset(Path(folder)).training if case.id in names} if folder else {}
    except AutosegError:
        return {}


def _of_results(folder, record, images, reference, predicted):
    """The Page of a folder with predictions, metrics, or both; else of reconstructions."""
    scored = read_report(folder / "metrics.json") if (folder / "metrics.json").is_file() else None
    files = {case: paths for case, *paths in scored.files} if scored else {}
    names = list(files) or sorted(_label_files(folder))
    if not names:
        return _of_reconstructions(folder, images, reference, predicted)
    cases = []
    for name in names:
        truth, guess = (Path(path) for path in files.get(name, ("", "")))
        truth = _find(name, reference, truth if files else None)
        cases.append(
            _case(name, folder, _images(name, images, truth), truth, _find(name, predicted or folder, guess if files else None))
        )
    labels = scored.labels if scored else _labels(record, [case.predicted for case in cases])
    model = Path(record.get("model", {}).get("name", "")).name  # which may be the path that was given
    failed = {failure.case for failure in scored.failures} if scored else ()
    kind = "Predictions" if model or not scored else "Evaluation"
    facts = (
        ("model", model),
        ("scored", str(len(scored.cases)) if scored else ""),
        ("failed", str(len(failed)) if failed else ""),
    )
    return Page(
        title=f"{kind} of {len(cases)} case{'s' * (len(cases) != 1)}",
        facts=(
            *facts,
            ("device", record.get("device", "")),
            ("autoseg", record.get("versions", {}).get("autoseg", __version__)),
        ),
        labels=labels,
        report=scored,
        cases=tuple(cases),
        folders=_folders([folder, reference, predicted, *_places(images)], scored),
    )


def _of_reconstructions(folder, images, reference, predicted):
    """The Page of what ``reconstruct`` wrote; the label maps are where they were, or in the folder ``predicted``."""
    records = {path.stem: read_json(path) for path in sorted(folder.glob("[!.]*.json"))}
    records = {case: record for case, record in records.items() if _is_reconstruction(record)}
    if not records:
        raise AutosegError(
            f"{folder}: neither a run's fold, nor predictions, nor reconstructions, nor metrics.json in it. "
            "Expected RUN/fold_N, or the output folder of `autoseg predict`, `autoseg reconstruct` or `autoseg evaluate`"
        )
    cases, groups, places = [], {}, [folder, reference, predicted, images]
    for name, record in records.items():
        source = Path(record["source"])
        found = _find(name, predicted, source)
        notes = [f"{source.name}: the label map is not where it was; --predicted DIR names its folder"] if found is None else []
        if found and digest_on_disk(found) != record["identity"]["input"]["digest"]:
            notes.append(f"{found.name}: is not the label map that surfaces and measurements were made of")
        truth = _find(name, reference, None)
        case = _case(name, folder, _images(name, images, truth or found), truth, found, home=folder)
        cases.append(replace(case, record={**record, "notes": notes}, called="labels"))
        places.append(source.parent)
        groups = {**record["labels"], **groups}
    values = tuple(tuple(group) for group in groups.values())
    return Page(
        title=f"Reconstruction of {len(cases)} label map{'s' * (len(cases) != 1)}",
        facts=(("autoseg", __version__),),
        labels=LabelSchema(tuple(groups), values, any(len(group) > 1 for group in values), tuple(v[0] for v in values)),
        cases=tuple(cases),
        folders=_folders(places, None),
    )


def _is_reconstruction(record):
    return isinstance(record, dict) and record.get("made_by") == RECONSTRUCT and record.get("state") == "done"


def _case(name, folder, images=(), reference=None, predicted=None, home=None):
    """A PageCase with what lies in ``home``, else beside its prediction."""
    predicted = predicted or _label_files(folder, name).get(name)
    home = home or (predicted.parent if predicted else folder)
    marker, surfaces = home / f"{name}.json", home / f"{name}_surfaces"
    record = read_json(marker) if marker.is_file() else {}
    return PageCase(
        id=name,
        images=tuple(images),
        reference=reference,
        predicted=predicted,
        record=record if isinstance(record, dict) else {},
        surfaces=surfaces if surfaces.is_dir() else None,
    )


def _label_files(folder, name=None):
    """{case: path} of the label maps in a folder; ``CASE_iso`` and ``CASE_iso_cubic`` are scans on cubic voxels."""
    found = {}
    for ending in sorted(FORMATS, key=len):
        for path in sorted(folder.glob(f"[!.]*{ending}")) if name is None else [folder / f"{name}{ending}"]:
            if path.is_file() and not path.name.endswith((f"_iso{ending}", f"_iso_cubic{ending}")):
                found[path.name[: -len(ending)]] = path
    return found


def _find(name, folder, path):
    """The label map of a case in a folder, else the path given; None where neither is a file."""
    if folder is not None and (found := _label_files(Path(folder), name).get(name)):
        return found
    return path if path is not None and path.is_file() else None


def _images(name, images, reference):
    """The scan's files, one per channel; () where they are not found."""
    if isinstance(images, dict):
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


def _places(images):
    """The folders of the scans, of which one may be a DicomSeries."""
    if not isinstance(images, dict):
        return [images]
    return {path.parent for case in images.values() for image in case for path in paths_of(image)}


def _labels(record, paths):
    """The structures that the model was made for, else one for every value found."""
    if "labels" in record:
        return from_json(LabelSchema, record["labels"])
    values = sorted({int(value) for path in paths for value in np.unique(read_label_volume(path).data)} - {0})
    return LabelSchema(tuple(f"label {v}" for v in values), tuple((v,) for v in values), False, tuple(values))


def _folders(known, scored):
    """Folders whose names may stand in messages, with those that they lie in."""
    paths = [Path(path).parent for _, *pair in (scored.files if scored else ()) for path in pair]
    for entry in known:
        paths += [Path(part) for part in ([entry] if isinstance(entry, str | Path) else entry or ())]
    every = {form for path in paths for form in (path, path.absolute())}
    return tuple(sorted({str(folder) for path in every for folder in (path, *path.parents) if folder.name}))
