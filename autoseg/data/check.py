"""All findings about a data set in one list: those of single scans, and those that only show between cases.

A case is an outlier if it is far from the median in two ways: by a plain factor, so that ordinary variation is not
reported, and by more than five times the spread (median absolute deviation, scaled to a standard deviation), so that
mixed data are not reported case by case. Fewer than ``FEW`` cases are too few for a median.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from autoseg.data.dataset import DatasetSpec, guess_patient, image_name
from autoseg.data.file_checks import check_own_labels, unreadable
from autoseg.data.findings import SEVERITIES, Finding
from autoseg.data.partial import count_annotated
from autoseg.data.scan import CaseScan, scan_dataset
from autoseg.data.sides import opposite_pairs
from autoseg.data.splits import Split, make_splits, own_splits, read_splits, structures_present
from autoseg.errors import DatasetError, FileError, shown
from autoseg.imaging.files import FORMATS, digest_on_disk
from autoseg.names import case_name, counted, is_hidden
from planners.mirror import find_pairs

__all__ = ["Finding", "check_dataset"]

FEW = 5
SPREADS = 5.0
SPACING_FACTOR = 2.5  # slices of 5 and of 10 mm are both common in one study
INTENSITY_FACTOR = 10.0


def check_dataset(
    dataset: DatasetSpec, scans: Sequence[CaseScan] | None = None, *, workers: int | None = 1
) -> tuple[Finding, ...]:
    """Every finding about a data set; () if there are none.

    Args:
        dataset: DatasetSpec.
        scans: result of ``scan_dataset``; computed here if not given.
        workers: threads, if the scans are made here.

    Returns:
        tuple of Finding, one for each case concerned: errors, warnings, notes; within these by code and case.
        ``findings_table`` shortens it for reading.
    """
    scans = scan_dataset(dataset, workers=workers) if scans is None else scans
    measured = [scan for scan in scans if scan.channels]
    findings = [finding for scan in scans for finding in scan.findings]
    findings += [
        *_check_files(dataset),
        *check_own_labels((case.id, case.patient, case.label) for case in dataset.training),
        *_check_patients(dataset),
        *_check_labels_used(dataset, scans),
        *_check_annotated(dataset),
    ]
    findings += [
        *_check_sides(dataset, scans),
        *_check_palettes(scans),
        *_check_orientation(scans),
        *_check_spacing(measured),
        *_check_duplicates(dataset, scans),
    ]
    findings += [*_check_test_cases(dataset, scans), *_check_folds(dataset, scans)]
    for number, name in enumerate(dataset.channels):
        findings += _check_intensities(name, number, measured)
    return tuple(sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), f.code, f.case, f.message)))


def _check_files(dataset: DatasetSpec) -> Iterator[Finding]:
    """The number of cases, and files that belong to no case, also among those for tests."""
    found = len(dataset.training)
    if dataset.num_training not in (None, found):
        message = f"numTraining: expected {shown(dataset.num_training)}, found {counted(found, 'case')}"
        yield Finding("warning", "", "case-count", message, "Add what is missing, or correct numTraining.")
    if dataset.listed:
        return
    known = {path for case in dataset.training for path in (*case.image_paths, case.label)}
    cases = {case.id for case in dataset.training}
    for path in _unknown_files(dataset.folder / "imagesTr", known):
        match = image_name(dataset.file_ending).fullmatch(path.name)
        if match and case_name(match[1]) in cases:
            message = f"expected {counted(len(dataset.channels), 'channel')}, found also {path.name}"
            remedy = "Name it in channel_names, or move it away."
            yield Finding("error", match[1], "channel-count", message, remedy)
        elif not match or int(match[2]) >= len(dataset.channels):
            yield _stray(path, dataset.file_ending)
    for path in _unknown_files(dataset.folder / "labelsTr", known):
        if not path.name.lower().endswith(dataset.file_ending):
            yield _stray(path, dataset.file_ending)
    known = {path for case in dataset.test for path in (*case.image_paths, case.label)}
    for name in ("imagesTs", "labelsTs"):
        yield from (_stray(path, dataset.file_ending) for path in _unknown_files(dataset.folder / name, known))


def _unknown_files(folder: Path, known: Container[Path | None]) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in files if path not in known and not is_hidden(path.name)]


def _stray(path: Path, ending: str) -> Finding:
    message, remedy = f"{path.parent.name}/{path.name} belongs to no case", "Rename it by the rule, or move it away."
    if not path.name.lower().endswith(ending) and path.name.lower().endswith(tuple(FORMATS)):
        message, remedy = f"{message}: it does not end in {ending}", f"Convert it to {ending}, or move it away."
    return Finding("warning", "", "stray-file", message, remedy)


def _check_patients(dataset: DatasetSpec) -> Iterator[Finding]:
    guessed = [case for case in dataset.training if case.patient == guess_patient(case.id) != case.id]
    patients = {case.patient for case in dataset.training}
    if guessed and len(patients) < len(dataset.training):
        message = (
            f"by their names, {counted(len(dataset.training), 'case')} belong to {counted(len(patients), 'patient')}, such as "
            f"{guessed[0].id} to {guessed[0].patient}; cases of one patient stay in one fold"
        )
        yield Finding("note", "", "patients-guessed", message, 'If this is wrong, list them under "patients" in dataset.json.')
    single = [case for case in dataset.training if case.patient == case.id != guess_patient(case.id)]
    if single:
        message = (
            f"each of {len(dataset.training)} cases counts as a patient of its own, because names such as {single[0].id} "
            "would leave too few patients for the folds"
        )
        yield Finding("note", "", "patients-guessed", message, 'If this is wrong, list them under "patients" in dataset.json.')


def _check_folds(dataset: DatasetSpec, scans: Sequence[CaseScan]) -> Iterator[Finding]:
    """Custom folds that cannot be used, and remarks on generated folds."""
    if path := own_splits(dataset.folder):
        try:
            yield from _check_own_folds(read_splits(path, dataset.training), dataset, path.name)
        except DatasetError as fault:
            yield Finding("error", "", "own-folds", str(fault), f"Correct {path.name}, or remove it.")
        return
    present = structures_present(dataset.training, scans, dataset.labels)
    if not present or len({case.patient for case in dataset.training}) < 2:
        return
    patients = {(name, case.patient) for case in dataset.training for name in present[case.id]}
    count = Counter(name for name, _ in patients)
    if lone := [name for name in dataset.labels.structures if count[name] == 1]:
        message = f"in the labels of one patient alone: {_few(lone)}; the fold that validates this patient cannot learn it"
        remedy = "Add other patients who have it. Until then its scores are low, whatever a model of all cases can do."
        yield Finding("warning", "", "structure-of-one-patient", message, remedy)
    if make_splits(dataset.training) != make_splits(dataset.training, present=present):
        message = "by chance a fold would lack a structure that few patients have; the folds are drawn so that none does"
        remedy = "Nothing; they differ from nnU-Net's. A splits.json in the folder gives any others."
        yield Finding("note", "", "stratified-folds", message, remedy)


def _check_own_folds(folds: Sequence[Split], dataset: DatasetSpec, name: str) -> Iterator[Finding]:
    """Cases that the user's folds never use, or validate several times."""
    used = {case for fold in folds for case in (*fold.training, *fold.validation)}
    if unused := sorted({case.id for case in dataset.training} - used):
        message = f"{name}: expected each case in some fold, found {_few(unused)} in none"
        yield Finding("warning", "", "case-in-no-fold", message, "Nothing if they are left out on purpose; else add them.")
    times = Counter(case for fold in folds for case in fold.validation)
    if twice := sorted(case for case, count in times.items() if count > 1):
        message = f"{name}: {_few(twice)} validated by several folds"
        remedy = "Nothing if this is meant: cross-validated scores take the first of these folds."
        yield Finding("warning", "", "case-in-several-folds", message, remedy)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")


def _check_labels_used(dataset: DatasetSpec, scans: Sequence[CaseScan]) -> Iterator[Finding]:
    """Declared values that occur in no readable label file."""
    labels, readable = dataset.labels, [scan for scan in scans if scan.label_counts]
    found = {value for scan in readable for value, _ in scan.label_counts}
    where = f"found in none of {len(readable)}"
    if unread := len(scans) - len(readable):
        where += f", and the labels of {unread} more could not be read"

    def unused(what: str) -> str:
        return "Repair those labels first." if unread else f"Take {what} out of labels if it is not used."

    if labels.has_regions:  # an absent value may be the one that a region is painted with
        for name, group in labels.groups.items():
            if found and not found & set(group):
                message = f"region {name}: expected one of its values {sorted(group)} in some case, {where}"
                yield Finding("warning", "", "label-never-present", message, unused("the region"))
        return
    names = {value: name for name, group in labels.groups.items() for value in group}
    for value in (*labels.declared_values, *(() if labels.ignore is None else (labels.ignore,))):
        if found and value not in found:
            name = names.get(value) or ("ignore" if value == labels.ignore else "background")
            remedy = unused("it") if value else "Nothing, if structures fill all images; else check what stands for it."
            yield Finding(
                "warning", "", "label-never-present", f"label {value} ({name}): expected in some case, {where}", remedy
            )


def _check_annotated(dataset: DatasetSpec) -> Iterator[Finding]:
    """The number of cases in which each structure is annotated, if it differs."""
    counts = count_annotated((case.unlabelled for case in dataset.training), dataset.labels)
    if counts:
        named = ", ".join(f"{name} in {n}" for name, n in zip(dataset.labels.structures, counts, strict=True))
        message = f"of {len(dataset.training)} cases, structures are annotated as follows: {named}; elsewhere they are not used"
        yield Finding("note", "", "partial-labels", message, "Nothing, if this is intended in dataset.json.")


def _check_sides(dataset: DatasetSpec, scans: Sequence[CaseScan]) -> Iterator[Finding]:
    """Left-right pairs that mirroring would confuse, because their names do not show the side."""
    if find_pairs(dataset.labels.structures):
        return  # then nothing is mirrored along x
    if pairs := opposite_pairs(scans, dataset.labels):
        shown = "; ".join(f"{left} / {right}" for left, right in pairs[:5]) + ("; ..." if len(pairs) > 5 else "")
        message = f"of similar size and on opposite sides in all cases: {shown}; their names do not say so"
        remedy = "Name them left and right if their side distinguishes them: then they are not mirrored into each other."
        yield Finding("warning", "", "sides-unnamed", message, remedy)


def _check_palettes(scans: Sequence[CaseScan]) -> Iterator[Finding]:
    """Labels whose palette shows a value in another colour than those of most cases: numbers or colours are mixed up."""
    seen: dict[int, Counter[tuple[int, ...]]] = {}
    for value, colour in (pair for scan in scans for pair in scan.label_colours):
        seen.setdefault(value, Counter())[colour] += 1
    for scan in scans:
        for value, colour in scan.label_colours:
            usual = seen[value].most_common(1)[0][0]
            if colour != usual:
                message = f"label {value}: expected the colour {usual} in its palette as in most cases, found {colour}"
                remedy = "Save all labels as grey pictures of the values, or with one palette."
                yield Finding("error", scan.case, "palette-differs", message, remedy)
                break


def _check_orientation(scans: Sequence[CaseScan]) -> Iterator[Finding]:
    letters = Counter(scan.orientation for scan in scans if scan.orientation)
    usual = letters.most_common(1)[0][0] if letters else ""
    for scan in scans:
        if scan.orientation not in ("", usual):
            message = f"expected array axes towards {usual} as in most cases, found {scan.orientation}"
            remedy = "Nothing if the header is right: all cases are brought to one orientation."
            yield Finding("warning", scan.case, "orientation-differs", message, remedy)


def _check_spacing(scans: Sequence[CaseScan]) -> Iterator[Finding]:
    if len(scans) < FEW:
        return
    measured = [(scan.case, scan.spacing_mm) for scan in scans if scan.spacing_mm]
    logs = np.log([spacing for _, spacing in measured])  # (cases, 3)
    usual = " x ".join(f"{v:.3g}" for v in np.exp(np.median(logs, axis=0)))
    outliers = _stands_out(logs, np.log(SPACING_FACTOR))
    for (case, spacing), odd in zip(measured, outliers, strict=True):
        if odd.any():
            message = f"expected about {usual} mm (z, y, x), found {' x '.join(f'{v:.3g}' for v in spacing)}"
            yield Finding("warning", case, "spacing-outlier", message, "Check whether the header is right.")


def _check_intensities(name: str, number: int, scans: Sequence[CaseScan]) -> Iterator[Finding]:
    """The range of a channel against the other cases; if it is usual, the mean of its foreground."""
    rows = [(scan.case, scan.channels[number]) for scan in scans]
    rows = [(case, channel) for case, channel in rows if channel.voxels and channel.high > channel.low]
    if len(rows) < FEW:
        return
    channels = [channel for _, channel in rows]
    logs = np.log([channel.high - channel.low for channel in channels])
    other_scale = _stands_out(logs, np.log(INTENSITY_FACTOR))
    means = np.array([channel.mean for channel in channels])
    width = np.sqrt(np.median([channel.variance for channel in channels]))
    other_level = _stands_out(means, width) & ~other_scale
    for (case, channel), odd_scale, odd_level in zip(rows, other_scale, other_level, strict=True):
        if odd_scale:
            usual, found = np.exp(np.median(logs)), channel.high - channel.low
            message = f"{name}: expected intensities over a range of about {usual:.3g}, found {found:.3g}"
            yield Finding("warning", case, "intensity-scale", message, "Check whether unit and export are the same.")
        elif odd_level:
            usual = np.median(means)
            message = f"{name}: expected a mean of about {usual:.3g} in the structures, found {channel.mean:.3g}"
            yield Finding("warning", case, "intensity-level", message, "Check whether unit and offset are the same.")


def _check_duplicates(dataset: DatasetSpec, scans: Sequence[CaseScan]) -> Iterator[Finding]:
    """The same voxels twice: in two cases, or in two channels of one.

    A scan may occur twice with different structures annotated. Both copies must then belong to one patient, or folds share it.
    """
    patients = {case.id: case.patient for case in dataset.training}
    first: dict[tuple[str, ...], CaseScan] = {}
    for scan in scans:
        images, label = scan.contents[:-1], scan.contents[-1:]
        if not images or "" in images:
            continue
        if len(set(images)) < len(images):
            message = "expected channels that differ, found two with the same voxels"
            yield Finding("warning", scan.case, "duplicate-channel", message, "Export each channel from its own image.")
        other = first.setdefault(images, scan)
        if other is scan:
            continue
        if other.contents[-1:] == label:
            message = f"the same image and label as case {other.case}"
            yield Finding("warning", scan.case, "duplicate-case", message, "Leave one of them out.")
        elif scan.unlabelled != other.unlabelled:
            if patients.get(scan.case) != patients.get(other.case):
                message = f"the same image as case {other.case}, annotated for other structures, but called another patient's"
                yield Finding("error", scan.case, "duplicate-image", message, 'Name one patient for both under "patients".')
        else:
            message = f"the same image as case {other.case}, with another label"
            yield Finding("error", scan.case, "duplicate-image", message, "Keep the right one of the two.")


def _check_test_cases(dataset: DatasetSpec, scans: Sequence[CaseScan]) -> Iterator[Finding]:
    """Missing and unreadable files of test cases; their images, patients or names also among the training cases."""
    learnt_from = {case.patient: case.id for case in dataset.training}
    trained_on = {case.id for case in dataset.training}
    for case in dataset.test:
        if missing := [path for path in case.image_paths if not path.is_file()]:
            message = f"expected {missing[0].name}, found no such file: this test case cannot be predicted"
            yield Finding("warning", case.id, "missing-channel", message, "Add the channel, or leave the case out.")
        if case.id in trained_on:
            message = f"a test case called as a training case, {case.id}"
            remedy = "Rename it if it is another scan, since results are named after cases; else remove one of the two."
            yield Finding("warning", case.id, "test-name-in-training", message, remedy)
        elif case.patient in learnt_from:
            message = f"a test case of patient {case.patient}, of whom {learnt_from[case.patient]} is trained on"
            yield Finding("warning", case.id, "test-patient-in-training", message, "Leave all cases of the patient out.")
    training = {scan.digests[0]: scan.case for scan in scans if scan.digests}
    for case in dataset.test:
        path = case.image_paths[0]
        try:
            digest = digest_on_disk(path) if path.is_file() else ""
        except FileError as fault:
            yield replace(unreadable(case.id, path, fault), severity="warning")
            continue
        if digest in training:
            message = f"the test image {path.name} is also that of training case {training[digest]}"
            yield Finding("warning", case.id, "test-in-training", message, "Remove it from one of the two.")


def _stands_out(values: np.ndarray, least: float) -> np.ndarray:
    """Where values (cases, ...) differ from their median by more than ``least`` and ``SPREADS`` scaled MADs; bool."""
    distance = np.abs(values - np.median(values, axis=0))
    spread = 1.4826 * np.median(distance, axis=0)  # equals the standard deviation for a normal distribution
    odd: np.ndarray = distance > np.maximum(least, SPREADS * spread)
    return odd
