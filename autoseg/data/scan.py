"""One pass over the files of a case: findings and measurements.

Each file is read once. The same arrays give the findings (missing or damaged files, different grids, undeclared values:
``file_checks``), the sizes and the intensity statistics (``intensities``), so verification and fingerprint need one pass
together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import Any

import numpy as np

from autoseg.data.dataset import Case, DatasetSpec
from autoseg.data.digests import content_digest, is_as_before, key_of, key_on_disk
from autoseg.data.file_checks import (
    Counts,
    check_channels,
    check_grids,
    check_intensities,
    check_label,
    check_presence,
    unreadable,
)
from autoseg.data.findings import Finding
from autoseg.data.intensities import ChannelScan, measure_channel
from autoseg.data.partial import check_unlabelled
from autoseg.digits import rounded
from autoseg.engines import Outcome, map_cases
from autoseg.imaging.crop import crop, nonzero_box, value_boxes
from autoseg.imaging.files import FileContent, read_file
from autoseg.workspace import OPTIONAL

__all__ = ["CaseScan", "scan_case", "scan_dataset"]


@dataclass(frozen=True)
class CaseScan:
    """Measurements and findings of one case.

    Attributes:
        case: identifier.
        key: digest of the files and their dataset.json entries; equal keys mean equal scans.
        digests: of the bytes of each image file, then of the label file; "" if unreadable.
        contents: digest of the voxels of each image, then of the label, independent of file type; "" if unreadable.
        orientation: three letters, array axes as stored; see ``Geometry.orientation``.
        label_counts: (value, voxels) of the label file, ascending.
        findings: about this case alone. If one is an error, nothing below is measured.
        full_shape: (z, y, x) voxels in canonical orientation.
        shape: the same after cropping to the nonzero region.
        spacing_mm: (z, y, x), canonical orientation.
        relative_crop: cropped / full volume, in (0, 1].
        channels: one entry per channel.
        label_centres_mm: (value, (x, y, z) in RAS+): centre of the bounding box of each label value but 0.
        unlabelled: numbers of the structures that were not annotated in it.
        label_colours: (value, (red, green, blue)) of the label's palette, for the values that occur; () without a palette.
    """

    case: str
    key: str
    digests: tuple[str, ...]
    contents: tuple[str, ...]
    orientation: str
    label_counts: tuple[tuple[int, int], ...]
    findings: tuple[Finding, ...]
    full_shape: tuple[int, int, int] | None = None
    shape: tuple[int, int, int] | None = None
    spacing_mm: tuple[float, float, float] | None = None
    relative_crop: float = 1.0
    channels: tuple[ChannelScan, ...] = ()
    label_centres_mm: tuple[tuple[int, tuple[float, float, float]], ...] = ()
    unlabelled: tuple[int, ...] = field(default=(), metadata=OPTIONAL)
    label_colours: tuple[tuple[int, tuple[int, ...]], ...] = field(default=(), metadata=OPTIONAL)

    @property
    def usable(self) -> bool:
        """No finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def scan_dataset(
    dataset: DatasetSpec,
    *,
    workers: int | None = 1,
    known: Iterable[CaseScan] = (),
    on_done: Callable[[Outcome], object] | None = None,
) -> tuple[CaseScan, ...]:
    """Scan all training cases.

    Args:
        dataset: DatasetSpec.
        workers: threads; see ``engines.map_cases``.
        known: earlier scans. A scan is reused if files and dataset.json are unchanged (by digest, not by date) and it
            had no error.
        on_done: called with each ``Outcome`` as it arrives.

    Returns:
        tuple of CaseScan in the order of ``dataset.training``; a case that fails is a scan with an error.
    """
    earlier = {scan.case: scan for scan in known if scan.usable}
    as_before = is_as_before(content for scan in earlier.values() for content in scan.contents)

    def scan(case: Case) -> CaseScan:
        old = earlier.get(case.id)
        return old if old and old.key == key_on_disk(case, dataset) else scan_case(case, dataset, as_before=as_before)

    outcomes = map_cases(scan, dataset.training, workers=workers, name=attrgetter("id"), on_done=on_done)
    return tuple(outcome.value or _failed(outcome) for outcome in outcomes)


def scan_case(case: Case, dataset: DatasetSpec, *, as_before: bool = False) -> CaseScan:
    """Read every file of a case once; always returns a CaseScan, even for damaged files. ``as_before`` is for digests."""
    files, findings = _read(case, dataset)
    images, label = [file for file in files[:-1] if file], files[-1]
    for path, image in zip(case.image_paths, files, strict=False):
        findings += check_intensities(case.id, path, image.data) if image else []
    if len(images) == len(case.images):
        findings += check_channels(case.id, dataset.channels, dataset.file_ending, images)
    channels = [(path, file, True) for path, file in zip(case.image_paths, files, strict=False)]
    counts: Counts = ()
    if case.label and label:
        findings += check_grids(case.id, files[0], [*channels, (case.label, label, False)])
        counts, found = check_label(case.id, case.label, dataset.labels, label.data)
        findings += [*found, *check_unlabelled(case.id, case.unlabelled, dataset.labels, (value for value, _ in counts))]
    else:
        findings += check_grids(case.id, files[0], channels)
    usable = not any(finding.severity == "error" for finding in findings)
    digests = tuple(file.digest if file else "" for file in files)
    return CaseScan(
        case=case.id,
        key=key_of(dataset, case, digests),
        digests=digests,
        contents=tuple(content_digest(file.data, as_before=as_before) if file else "" for file in files),
        orientation=next((file.geometry.orientation for file in files if file), ""),
        label_counts=counts,
        findings=tuple(findings),
        unlabelled=case.unlabelled,
        label_colours=label.colours if label else (),
        **(_measure(images, label) if usable and label else {}),
    )


def _read(case: Case, dataset: DatasetSpec) -> tuple[list[FileContent | None], list[Finding]]:
    """The files of a case, images then label, with None for an unreadable one; and the findings."""
    files: list[FileContent | None] = []
    findings: list[Finding] = []
    for path, is_label in (*((path, False) for path in case.image_paths), (case.label, True)):
        files.append(None)
        if path is None:
            continue
        try:
            if path.is_file():
                grid = files[0].geometry if files[0] else None
                files[-1] = read_file(path, as_label=is_label, onto=grid)
        except Exception as fault:  # noqa: BLE001 - any error of a reader is a finding about its file
            finding = unreadable(case.id, path, fault)
            findings.append(replace(finding, message=finding.message.replace(str(path), path.name)))
    for note in dict.fromkeys(note for file in files if file for note in file.notes):
        findings.append(Finding("note", case.id, "reader-note", note, "Correct the header if this is not meant."))
    return files, check_presence(case, dataset.file_ending) + findings


def _measure(images: Sequence[FileContent], label: FileContent) -> dict[str, Any]:
    """Sizes and channel statistics, as fields of a CaseScan."""
    channels = [channel for image in images for channel in image.data]  # each (Z, Y, X)
    geometry = images[0].geometry
    inside = np.zeros(geometry.shape, bool)
    for channel in channels:
        inside |= channel != 0
    lower, upper = nonzero_box(inside[None])
    order, _ = geometry.canonical()
    cropped = geometry.cropped(lower, np.subtract(upper, lower)).transposed(order)
    masks = crop(inside, lower, upper), crop(label.data[0], lower, upper) != 0
    return {
        "full_shape": geometry.transposed(order).shape,
        "shape": cropped.shape,
        "spacing_mm": cropped.spacing_mm,
        "relative_crop": float(np.prod(cropped.shape) / np.prod(geometry.shape)),
        "label_centres_mm": _centres(label),
        "channels": tuple(measure_channel(crop(channel, lower, upper), *masks) for channel in channels),
    }


def _centres(label: FileContent) -> tuple[tuple[int, tuple[float, float, float]], ...]:
    """The centre of each value's bounding box except 0, to 0.01 mm or finer for small voxels."""
    boxes = value_boxes(np.rint(label.data[0]).astype(np.int64, copy=False) if label.data.dtype.kind == "f" else label.data[0])
    middles = [(np.array(lower) + upper - 1) / 2 for lower, upper in boxes.values()]
    points = label.geometry.to_world(np.reshape(middles, (-1, 3))).tolist()
    return tuple((value, (rounded(x, 2), rounded(y, 2), rounded(z, 2))) for value, (x, y, z) in zip(boxes, points, strict=True))


def _failed(outcome: Outcome) -> CaseScan:
    """The scan of a case in which our own code failed; reported like any other fault of a case."""
    message = f"the scan stopped: {type(outcome.error).__name__}: {outcome.error}"
    finding = Finding("error", outcome.name, "scan-failed", message, "Look at the files; report it if they are sound.")
    return CaseScan(outcome.name, "", (), (), "", (), (finding,))
