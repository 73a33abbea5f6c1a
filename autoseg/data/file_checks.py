"""Checks of the files of one case. Each function returns findings; none raises because of a file.

Grids are compared by their corners, in voxels: ``is_same_grid`` allows for rounding in a header, voxels that only
``corresponds`` finds give a warning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from autoseg.data.dataset import Case, called_alike, image_name
from autoseg.data.findings import Finding
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.imaging.files import FileContent
from autoseg.imaging.raw import REMEDY
from autoseg.imaging.values import count_values
from autoseg.names import counted

__all__ = [
    "Counts",
    "check_channels",
    "check_grids",
    "check_intensities",
    "check_label",
    "check_own_labels",
    "check_presence",
    "count_label",
    "unreadable",
]

LAST_SENTENCE = re.compile(r"(.*)\. ([A-Z].*)", re.DOTALL)
FEW_STEPS = 256  # of single precision, over the range of an image
Counts = tuple[tuple[int, int], ...]  # (value, voxels), ascending


def unreadable(case: str, path: Path, fault: Exception) -> Finding:
    """The finding about an unreadable file; errors of our own readers end with their remedy."""
    message, remedy = f"{path}: {fault}", REMEDY
    if isinstance(fault, AutosegError):
        message = str(fault)
        if split := LAST_SENTENCE.fullmatch(message):
            message, remedy = split.groups()
    return Finding("error", case, "unreadable-file", message.rstrip(" ."), remedy)


def check_presence(case: Case, ending: str) -> list[Finding]:
    """Missing files of a case."""
    missing = [path for path in case.image_paths if not path.is_file()]
    code, remedy = "missing-channel", "Add the channel, or leave the case out."
    if len(missing) == len(case.image_paths):
        code, remedy, missing = "missing-image", "Add the image, or remove the label.", missing[:1]
    findings = [_missing(case, code, path, _misnamed(case, path, ending) or remedy) for path in missing]
    if case.label is None or not case.label.is_file():
        remedy = (_misnamed(case, case.label, ending) if case.label else "") or "Add the label, or remove the image."
        findings.append(_missing(case, "missing-label", case.label, remedy))
    return findings


def _misnamed(case: Case, wanted: Path, ending: str) -> str:
    """What to do about a missing file where another has nearly its name; "" if none has. Often an image lacks the number of the
    channel or has fewer digits, and a label has one or a word such as ``_seg``. Case names may also end in four digits."""
    first = wanted.with_name(f"{case.id[:-4]}0000{ending}")
    if case.label and image_name(ending).fullmatch(case.label.name) and first.is_file():
        return f"Labels carry no channel number: rename {case.label.name} to {case.id[:-5]}{ending}."
    folder, stem = wanted.parent, wanted.name[: -len(ending)]
    there = {path.name[: -len(ending)] for path in folder.iterdir() if path.name.endswith(ending)} if folder.is_dir() else set()
    number = image_name(ending).fullmatch(wanted.name) if wanted != case.label else None
    if number and int(number[2]) == 0 and f"{case.id}_0001" in there:
        return (
            f"Channels are numbered from 0: rename {case.id}_0001{ending} to {wanted.name}, and those of higher numbers alike."
        )
    scans = [name.removesuffix("_0000") for name in there if name.endswith("_0000")] if number else []
    if case.label and case.label.is_file() and (owner := called_alike(case.id, scans)):
        return f"Rename {case.label.name} to {owner}{ending}."
    shorter = [case.id, *(f"{case.id}_{int(number[2]):0{digits}d}" for digits in (1, 2, 3))] if number else []
    found = next((name for name in shorter if name in there), None) or called_alike(stem, there)
    return f"Rename {found}{ending} to {wanted.name}." if found else ""


def _missing(case: Case, code: str, path: Path | None, remedy: str) -> Finding:
    return Finding("error", case.id, code, f"expected {path or 'a label file'}, found no such file", remedy)


def check_own_labels(cases: Iterable[tuple[str, str, Path | None]]) -> Iterator[Finding]:
    """Label files of several patients; from (case, patient, label file) of each case."""
    first: dict[Path, tuple[str, str]] = {}
    for case, patient, path in cases:
        other, others = first.setdefault(path, (case, patient)) if path else (case, patient)
        if path and others != patient:
            message = f"expected a label of its own, found {path.name}, which is also that of {other}"
            remedy = "Correct its path, or give both cases the same patient."
            yield Finding("error", case, "label-twice", message, remedy)


def check_intensities(case: str, path: Path, data: np.ndarray) -> list[Finding]:
    """Values (C, Z, Y, X) that are not finite, or that single precision, in which networks compute, hardly tells apart."""
    odd = 0 if data.dtype.kind != "f" else sum(int(part.size - np.isfinite(part).sum()) for part in data)
    if not odd:
        return _check_precision(case, path, data)
    message = f"{path.name}: expected finite intensities, found {odd} of {data.size} voxels that are NaN or infinite"
    return [Finding("error", case, "not-finite", message, "Export the image again, or fill these voxels.")]


def _check_precision(case: str, path: Path, data: np.ndarray) -> list[Finding]:
    if data.dtype.kind in "iu" and data.dtype.itemsize <= 2:
        return []
    lowest, highest = float(data.min()), float(data.max())
    with np.errstate(over="ignore", invalid="ignore"):  # beyond single precision
        steps = (highest - lowest) / float(np.spacing(np.float32(max(abs(lowest), abs(highest)))))
    if lowest == highest or not steps < FEW_STEPS:
        return []
    message = f"{path.name}: expected intensities that single precision tells apart, found {lowest:.9g} to {highest:.9g}, "
    message += f"of which it has {counted(int(steps) + 1, 'value')}"
    return [Finding("warning", case, "precision", message, "Subtract the offset of the intensities in all images.")]


def check_channels(case: str, names: Sequence[str], ending: str, images: Sequence[FileContent]) -> list[Finding]:
    """Check that there are as many channels as ``names``, each with more than one intensity. ``ending`` is the images'."""
    channels = [channel for image in images for channel in image.data]
    findings = []
    if len(channels) != len(names):
        message = f"expected {counted(len(names), 'channel')} ({', '.join(names)}), found {len(channels)} in "
        message += counted(len(images), "file")
        remedy = f"One file per channel, {case}_0000{ending} and so on; or correct channel_names."
        findings.append(Finding("error", case, "channel-count", message, remedy))
    flat = [i for i, channel in enumerate(channels) if channel.min() == channel.max()]
    severity = "error" if len(flat) == len(channels) else "warning"  # an absent sequence is sometimes filled with zeros
    for i in flat:
        message = f"channel {i}: expected an image, found the value {channels[i].flat[0]} everywhere"
        findings.append(Finding(severity, case, "constant-image", message, "Export the image again."))
    return findings


def check_grids(case: str, first: FileContent | None, others: Iterable[tuple[Path, FileContent | None, bool]]) -> list[Finding]:
    """Compare the grids of other files with the first image.

    Args:
        others: (path, content, whether it is a channel); ``read_volume`` refuses channels whose grids differ at all.
    """
    findings: list[Finding] = []
    for path, file, is_channel in others:
        if file is None or first is None:
            continue
        if first.geometry.is_same_grid(file.geometry):
            continue
        voxels = first.geometry.distance_voxels(file.geometry)
        if is_channel or not first.geometry.corresponds(file.geometry):
            severity, code = "error", "grid-mismatch"
            remedy = "If the voxels correspond, copy the header of the image; otherwise resample one to the grid of the other."
        else:
            severity, code = "warning", "grid-shift"
            remedy = "Nothing if the voxels correspond: the grid of the image counts."
        apart = "" if voxels == np.inf else f"; corners up to {voxels:.2g} voxels apart"
        message = f"{path.name}: expected the grid of the image, {first.geometry}; found {file.geometry}{apart}"
        findings.append(Finding(severity, case, code, message, remedy))
    return findings


def count_label(case: str, path: Path, data: np.ndarray) -> tuple[Counts, list[Finding]]:
    """How often each value occurs in a label (C, Z, Y, X), as ((value, voxels), ...) ascending, and the findings."""
    if len(data) != 1:
        message = f"{path.name}: expected one value per voxel, found {counted(len(data), 'channel')}"
        return (), [Finding("error", case, "label-channels", message, "Merge the channels into one label map.")]
    if (odd := _first_fraction(data[0])) is not None:
        message = f"{path.name}: expected integers, found other numbers such as {odd:.6g}"
        return (), [Finding("error", case, "label-not-integer", message, "Resample labels with nearest neighbour.")]
    return tuple(count_values(data[0]).items()), []


def check_label(case: str, path: Path, labels: LabelSchema, data: np.ndarray) -> tuple[Counts, list[Finding]]:
    """How often each value occurs in a label (C, Z, Y, X), and the findings."""
    counts, findings = count_label(case, path, data)
    if not counts:
        return counts, findings
    declared = {*labels.declared_values, *(() if labels.ignore is None else (labels.ignore,))}
    if unknown := [value for value, _ in counts if value not in declared]:
        listed = ", ".join(str(value) for value in unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        voxels = sum(n for value, n in counts if value not in declared)
        message = f"{path.name}: expected values among {sorted(declared)}, found {listed} in {counted(voxels, 'voxel')}"
        findings.append(
            Finding("error", case, "undeclared-label", message, "Name the values under labels, or correct the file.")
        )
    if not any(value not in (0, labels.ignore) for value, _ in counts):
        message = f"{path.name}: expected labelled structures, found only {', '.join(str(v) for v, _ in counts)}"
        findings.append(
            Finding("warning", case, "empty-label", message, "Keep it if there is nothing to label; otherwise label it.")
        )
    return counts, findings


def _first_fraction(label: np.ndarray) -> float | None:
    """A value of a (Z, Y, X) label that is not an integer (also NaN or infinite); None if there is none."""
    for part in label if label.dtype.kind == "f" else ():
        odd = part[~np.isfinite(part) | (part != np.rint(part))]
        if odd.size:
            return float(odd[0])
    return None
