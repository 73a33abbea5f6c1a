"""Segment scans with a finished model."""

import time
from dataclasses import dataclass
from pathlib import Path

from autoseg.data.dataset import Case, cases_in, read_dataset
from autoseg.errors import AutosegError
from autoseg.evaluation import Report
from autoseg.evaluation.report import refuse_foreign_summary
from autoseg.imaging.files import FORMATS, ending_of, is_dicom, series_in
from autoseg.imaging.label_tables import write_label_tables
from autoseg.imaging.pictures import label_ending
from autoseg.inference.bundle import load_bundle
from autoseg.inference.cohort import predict_cohort
from autoseg.inference.predictor import Predictor
from autoseg.networks.machine import keep_memory
from autoseg.pipeline.attention_export import attention_exporters
from autoseg.pipeline.dicom_export import dicom_exporters
from autoseg.pipeline.evaluation import all_failures, evaluate, references_in
from autoseg.pipeline.isotropic import isotropic_exporters
from autoseg.pipeline.models import find_model
from autoseg.pipeline.quiet import mute, silent
from autoseg.pipeline.reconstruction import reconstruction_exporter, surface_settings, write_measurements
from autoseg.pipeline.surface_scores import record_surface_scores
from autoseg.room import check_writable

__all__ = ["Predicted", "predict"]


@dataclass(frozen=True)
class Predicted:
    """What a prediction did: outcomes of all cases, and the report where there was a reference.

    ``failures`` are sentences about cases that could not be predicted, or could not be scored.
    """

    folder: Path
    done: int
    skipped: int
    failures: tuple[str, ...]
    seconds: float
    report: Report | None = None

    def summary(self):
        lines = [f"{self.done} predicted, {self.skipped} were done already, {len(self.failures)} failed, {self.seconds:.1f} s"]
        lines += [f"failed: {failure}" for failure in self.failures]
        if self.report is not None:
            lines += ["", self.report.table()]
        return "\n".join([*lines, f"results: {self.folder}"])


def predict(
    source,
    target,
    workspace,
    *,
    model=None,
    folds=None,
    mirror=True,
    step=0.5,
    probabilities=False,
    resample_channels=False,
    attention_maps=0,
    write=(),
    surfaces=(),
    decimate=0.0,
    coordinates="lps",
    isotropic=None,
    fold_agreement=False,
    reference=None,
    device="auto",
    workers=None,
    shard=None,
    fresh=False,
    say=mute,
    progress=silent,
):
    """Segment a scan or every case of a folder; results lie on the scans' own grids.

    Args:
        source: a scan with all channels, a folder of ``CASE_0000.EXT`` (one per channel) or ``CASE.EXT`` files (with all), a
            data-set folder, whose test cases are meant, or a DICOM file, folder or tree, of which each series is a case.
        target: folder for the results.
        model: name, folder or zip; None for the only one in the workspace.
        folds: ``"0,1"`` or None for all.
        resample_channels: bring channels that lie on other grids onto that of the first, instead of refusing the case.
        attention_maps: of how many slots for each head of the self-attention to write where they look; 0 for none.
        write: more results for scans that come as DICOM: ``seg`` and ``rtstruct``.
        surfaces: file formats, such as ``"stl,glb"``, to write the structures' surfaces in; with ``decimate`` as the share of
            triangles to take away, and ``coordinates`` ``"lps"`` or ``"ras"``.
        isotropic: edge of cubic voxels in mm to write the scan on, restored and interpolated; 0 for its finest spacing.
        fold_agreement: measure for each structure how far the model's folds agree.
        reference: folder of labels, or data-set folder, to score those cases against that have one.
        shard: ``"i/N"``: every N-th case from the i-th; its scores go to the folder ``metrics_i_of_N``.

    Returns:
        Predicted; one failed case does not stop the others.

    Raises:
        AutosegError: wrong call; nothing was written.
    """
    begun = time.monotonic()
    index, count = _shard(shard)
    settings = surface_settings(surfaces, decimate, coordinates)
    report_folder = Path(target) / (f"metrics_{index}_of_{count}" if count > 1 else "")
    references = references_in(reference) if reference else {}
    if reference:
        refuse_foreign_summary(report_folder)
    check_writable(Path(target))
    bundle = load_bundle(find_model(model, workspace))
    cases, ending = _find_cases(Path(source), bundle, say)
    ending = label_ending(ending)
    _say_unused(Path(source), cases, say)
    share = cases[index::count]
    scored = {case.id for case in share if case.id in references}
    if reference and not any(case.id in references for case in cases):
        raise AutosegError(f"{reference}: no label file in it has the name of a case, such as {cases[0].id}{ending}")
    chosen = None if folds is None else [part.strip() for part in str(folds).split(",")]
    how = {"mirror": mirror, "step": step, "resample_channels": resample_channels, "fold_agreement": fold_agreement}
    predictor = Predictor(bundle, folds=chosen, device=device, scratch=target, **how)
    if predictor.device.type == "cpu":
        keep_memory()
    exporters = [  # of what is made besides labels
        reconstruction_exporter(predictor, Path(target), settings),
        *dicom_exporters(write, cases, bundle, target),
        *isotropic_exporters(predictor, Path(target), isotropic),
        *attention_exporters(predictor, Path(target), attention_maps),
    ]
    say(f"{len(share)} cases, model {bundle.name}, on {predictor.device}")
    done = predict_cohort(
        predictor,
        cases,
        target,
        ending=ending,
        workers=workers or 2,
        on_done=progress("predict", len(share)),
        shard=(index, count),
        fresh=fresh,
        probabilities=probabilities,
        exporters=exporters,
    )
    if share:
        write_label_tables(target, dict(zip(bundle.labels.paint_values, bundle.labels.structures, strict=True)))
    table = f"measurements_{index}_of_{count}.csv" if count > 1 else "measurements.csv"
    write_measurements(Path(target), [one.case for one in done.outcomes if one.status != "failed"], table)
    report = None
    if scored:
        about = {"schema": bundle.labels, "cases": scored, "images": {case.id: case.images for case in share}}
        report = evaluate(reference, target, report_folder, **about, ending=ending, workers=workers, say=say)
        if settings["formats"]:
            record_surface_scores(Path(target), report)
    failed = all_failures(done, report)
    counts = len(done.cases("done")), len(done.cases("skipped"))
    return Predicted(Path(target), *counts, failed, time.monotonic() - begun, report)


def _say_unused(source, cases, say):
    """Name the images of a folder that are of no case, such as CASE.EXT beside CASE_0000.EXT."""
    used = {path for case in cases for path in case.images}
    files = sorted(source.iterdir()) if source.is_dir() else []
    unused = [path.name for path in files if path not in used and path.name.endswith(tuple(FORMATS)) and path.name[0] != "."]
    if unused:
        more = f" and {len(unused) - 5} more" if len(unused) > 5 else ""
        say(f"not used, because they are no channel of a case: {', '.join(unused[:5])}{more}")


def _shard(text):
    if text is None:
        return (0, 1)
    first, _, count = str(text).partition("/")
    if not (first.isdigit() and count.isdigit() and int(first) < int(count)):
        raise AutosegError(f"--shard {text}: expected i/N with i from 0 to N-1, such as 0/4")
    return int(first), int(count)


def _find_cases(source, bundle, say):
    """(cases, file ending) of a scan, a folder of scans, or a tree of DICOM series."""
    if source.is_file() and is_dicom(source):
        return _dicom_cases(source, bundle, say)
    if source.is_file():
        ending = ending_of(source)
        name = source.name[: -len(ending)].removesuffix("_0000")
        return [Case(name, name, (source,), None)], ending
    if not source.is_dir():
        raise AutosegError(f"{source}: there is no such file or folder")
    for ending in dict.fromkeys((bundle.file_ending, *FORMATS)):
        if cases := cases_in(source, ending, len(bundle.channels)):
            return list(cases), ending
    if (source / "dataset.json").is_file():
        spec = read_dataset(source)
        if not spec.test:
            raise AutosegError(f"{source}: a data set without test cases. Give the folder of the scans, such as imagesTr")
        return list(spec.test), spec.file_ending
    return _dicom_cases(source, bundle, say)


def _dicom_cases(source, bundle, say):
    """A case for each series; labels are written as NIfTI."""
    found = series_in(source)
    for sentence in found.left_out:
        say(f"left out: {sentence}")
    for series in (one for one in found.series if one.origin):
        say(f"{series.origin}: gives away the patient; its case is called {series.name}")
    if not found.series:
        known, left = ", ".join(FORMATS), "".join(f"\n  left out: {sentence}" for sentence in found.left_out)
        raise AutosegError(
            f"{source}: no scans in it; expected CASE_0000{bundle.file_ending}, another of {known}, or DICOM{left}"
        )
    if not any(series.planes[0].samples == len(bundle.channels) for series in found.series):
        raise AutosegError(
            f"{source}: the model needs {len(bundle.channels)} channels ({', '.join(bundle.channels)}), and DICOM does not say "
            "which series is which. Convert them to CASE_0000.nii.gz, CASE_0001.nii.gz and so on, and give the folder of these"
        )
    return [Case(series.name, series.name, (series,), None) for series in found.series], ".nii.gz"
