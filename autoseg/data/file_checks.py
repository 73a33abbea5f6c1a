"""Checks of the files of one case. Each function returns findings; none raises because of a file.

Grids are compared by their corners, in voxels: up to ``SAME_GRID`` is rounding in a header, up to ``SHIFTED_GRID`` gives a
warning, and beyond that voxels do not correspond.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from autoseg.data.dataset import Case, image_name
from autoseg.data.findings import Finding
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError
from autoseg.imaging.files import FileContent
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.raw import REMEDY
from autoseg.imaging.values import count_values
from autoseg.names import counted

__all__ = [
    "Counts",
    "check_channels",
    "check_grids",
    "check_intensities",
    "check_label",
    "check_presence",
    "count_label",
    "unreadable",
]

SAME_GRID, SHIFTED_GRID = 0.01, 0.5  # voxels between corresponding corners
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
    findings = []
    if len(missing) == len(case.image_paths):
        remedy = _remedy_of_names(case, missing[0], ending)
        findings.append(_missing(case, "missing-image", missing[0], remedy))
    else:
        findings += [_missing(case, "missing-channel", path, "Add the channel, or leave the case out.") for path in missing]
    if case.label is None or not case.label.is_file():
        findings.append(_missing(case, "missing-label", case.label, "Add the label, or remove the image."))
    return findings


def _remedy_of_names(case: Case, wanted: Path, ending: str) -> str:
    """What to do about a case without images. Often the images exist, but their names lack the channel number or the label's
    name has one. Case names may also end in four digits."""
    similar, first = (wanted.with_name(name + ending) for name in (case.id, f"{case.id[:-4]}0000"))
    if case.label and image_name(ending).fullmatch(case.label.name) and first.is_file():
        return f"Labels carry no channel number: rename {case.label.name} to {case.id[:-5]}{ending}."
    if similar.is_file():
        return f"Rename {similar.name} to {wanted.name}."
    return "Add the image, or remove the label."


def _missing(case: Case, code: str, path: Path | None, remedy: str) -> Finding:
    return Finding("error", case.id, code, f"expected {path or 'a label file'}, found no such file", remedy)


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
        voxels = _distance_voxels(first.geometry, file.geometry)
        if voxels > SHIFTED_GRID or (is_channel and not file.geometry.is_same_grid(first.geometry)):
            severity, code = "error", "grid-mismatch"
            remedy = "If the voxels correspond, copy the header of the image; otherwise resample one to the grid of the other."
        elif voxels > SAME_GRID:
            severity, code = "warning", "grid-shift"
            remedy = "Nothing if the voxels correspond: the grid of the image counts."
        else:
            continue
        apart = "" if voxels == np.inf else f"; corners up to {voxels:.2g} voxels apart"
        message = f"{path.name}: expected the grid of the image, {first.geometry}; found {file.geometry}{apart}"
        findings.append(Finding(severity, case, code, message, remedy))
    return findings


def _distance_voxels(geometry: Geometry, other: Geometry) -> float:
    """The largest distance between corresponding corners along an axis, in voxels; infinite if shapes differ."""
    if geometry.shape != other.shape:
        return np.inf
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in geometry.shape])))
    return float(np.abs(geometry.to_index(other.to_world(corners)) - corners).max())


def count_label(case: str, path: Path, data: np.ndarray) -> tuple[Counts, list[Finding]]:
    """How often each value occurs in a label (C, Z, Y, X), as ((value, voxels), ...) ascending, and the findings."""
    if len(data) != 1:
        message = f"{path.name}: expected one value per voxel, found {len(data)} channels"
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
        message = f"{path.name}: expected values among {sorted(declared)}, found {listed} in {voxels} voxels"
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
