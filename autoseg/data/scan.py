"""One look at every file of a case: what is wrong with it, and its numbers.

Each file is read once. From the same arrays come the findings (files missing or damaged, grids that differ, values that
nobody declared), the sizes and the intensity statistics, so that verification and fingerprint cost one pass together.
A *sketch* stands for a distribution: its quantiles at the fixed ``LEVELS``, dense in the tails, where percentiles 0.5
and 99.5 are read. Grids are compared by their corners, in voxels: up to ``SAME_GRID`` is rounding in a header, up to
``SHIFTED_GRID`` is worth a warning, more means that voxels do not correspond.
"""

import hashlib
import itertools
import json
import re
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np

from autoseg.data.dataset import image_name
from autoseg.engines import map_cases
from autoseg.errors import AutosegError, FileError
from autoseg.imaging.crop import crop, nonzero_box
from autoseg.imaging.files import SAME_GRID_MM, read_file
from autoseg.imaging.raw import REMEDY, digest_of, read_bytes

__all__ = [
    "LEVELS",
    "CaseScan",
    "ChannelScan",
    "Finding",
    "check_channels",
    "check_grids",
    "check_intensities",
    "count_label",
    "scan_case",
    "scan_dataset",
    "unreadable",
]

VERSION = 1  # of what a scan measures; scans of another version are not reused
LEVELS = np.sin(np.linspace(0, np.pi / 2, 401)) ** 2  # 0 ... 1
SAME_GRID, SHIFTED_GRID = 0.01, 0.5  # voxels between corresponding corners
BLOCK = 2**20  # voxels held in float64 at a time
LAST_SENTENCE = re.compile(r"(.*)\. ([A-Z].*)", re.DOTALL)
LARGEST_RANGE = 2**20  # of label values that are counted in a table


@dataclass(frozen=True)
class Finding:
    """Something a person should know about the data.

    Attributes:
        severity: ``error`` (training would be wrong or stop), ``warning`` or ``note``.
        case: identifier, or "" for the whole data set.
        code: kebab-case name of the kind of finding.
        message: what was expected and what was found.
        remedy: what to do about it.
    """

    severity: str
    case: str
    code: str
    message: str
    remedy: str


@dataclass(frozen=True)
class ChannelScan:
    """Intensities of one channel of one case.

    ``voxels`` to ``sketch`` describe the labelled foreground, that is every voxel with a label other than 0; they are
    zeros and an empty sketch where there is none. ``low`` and ``high`` are percentiles 0.5 and 99.5 of the voxels where
    some channel is not zero; ``unit_mean`` and ``unit_std`` are over the crop, clipped to these and scaled to [0, 1],
    and are zeros for a constant image.
    """

    voxels: int
    mean: float
    variance: float
    minimum: float
    maximum: float
    sketch: tuple[float, ...]
    low: float
    high: float
    unit_mean: float
    unit_std: float


@dataclass(frozen=True)
class CaseScan:
    """What one case looks like.

    Attributes:
        case: identifier.
        key: digest of the files and of what dataset.json says about them; equal keys, equal scans.
        digests: of the bytes of each image file and then of the label file; "" if unreadable.
        contents: digest of the voxels of each image and then of the label, whatever the file type; "" if unreadable.
        orientation: three letters, array axes as stored; see ``Geometry.orientation``.
        label_counts: (value, voxels) of the label file, ascending.
        findings: about this case alone. Where one is an error, nothing below is measured.
        full_shape: (z, y, x) voxels in canonical orientation.
        shape: the same after cropping to the region that is not zero.
        spacing_mm: (z, y, x), canonical orientation.
        relative_crop: cropped / full volume, in (0, 1].
        channels: one entry per channel.
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

    @property
    def usable(self):
        """No finding is an error."""
        return not any(finding.severity == "error" for finding in self.findings)


def scan_dataset(dataset, *, workers=1, known=(), on_done=None):
    """Scan all training cases.

    Args:
        dataset: DatasetSpec.
        workers: threads; see ``engines.map_cases``.
        known: scans of an earlier time. One is returned again where files and dataset.json are the same (by digest, not
            by date) and it had no error.
        on_done: called with each ``Outcome`` as it comes.

    Returns:
        tuple of CaseScan in the order of ``dataset.training``; a case that fails is a scan with an error.
    """
    earlier = {scan.case: scan for scan in known if scan.usable}

    def scan(case):
        old = earlier.get(case.id)
        return old if old and old.key == _key_on_disk(case, dataset) else scan_case(case, dataset)

    outcomes = map_cases(scan, dataset.training, workers=workers, name=attrgetter("id"), on_done=on_done)
    return tuple(outcome.value or _failed(outcome) for outcome in outcomes)


def scan_case(case, dataset):
    """Read every file of a case once; a CaseScan, whatever the files are like."""
    files, findings = _read(case, dataset)
    images, label = files[:-1], files[-1]
    for path, image in zip(case.images, images, strict=True):
        findings += check_intensities(case, path, image.data) if image else []
    findings += check_channels(case, dataset, images) if all(images) else []
    findings += check_grids(case, files)
    counts, found = _check_label(case, dataset.labels, label.data) if label else ((), [])
    findings += found
    usable = not any(finding.severity == "error" for finding in findings)
    digests = tuple(file.digest if file else "" for file in files)
    return CaseScan(
        case=case.id,
        key=_key(dataset, digests),
        digests=digests,
        contents=tuple(_content_digest(file.data) if file else "" for file in files),
        orientation=next((file.geometry.orientation for file in files if file), ""),
        label_counts=counts,
        findings=tuple(findings),
        **(_measure(images, label) if usable else {}),
    )


def _key(dataset, digests):
    labels = dataset.labels
    parts = [VERSION, dataset.channels, labels.declared_values, labels.ignore, digests]
    return digest_of(json.dumps(parts).encode())


def _key_on_disk(case, dataset):
    try:
        return _key(dataset, [digest_of(read_bytes(path)) for path in (*case.images, case.label)])
    except FileError:
        return ""


def _content_digest(data):
    """Digest of the voxels as float32 in the order stored: equal for equal images, whatever the file type."""
    state = hashlib.blake2b(str(data.shape).encode(), digest_size=8)
    with np.errstate(over="ignore"):  # wild numbers of a damaged float64 file
        for part in data.reshape(-1, *data.shape[2:]):  # (Y, X)
            state.update(np.ascontiguousarray(part, np.float32))
    return state.hexdigest()


def _failed(outcome):
    """The scan of a case where our own code failed: reported like any other fault of a case."""
    message = f"the scan stopped: {type(outcome.error).__name__}: {outcome.error}"
    finding = Finding("error", outcome.name, "scan-failed", message, "Look at the files; report it if they are sound.")
    return CaseScan(outcome.name, "", (), (), "", (), (finding,))


# What is wrong with the files. Each function returns a list of findings.


def _read(case, dataset):
    """The files of a case, images and then the label, None in place of one that cannot be read; and the findings."""
    files, findings = [], []
    for path in (*case.images, case.label):
        files.append(None)
        try:
            if path and path.is_file():
                grid = files[0].geometry if path is case.label and files[0] else None
                files[-1] = read_file(path, as_label=path is case.label, onto=grid)
        except Exception as fault:  # noqa: BLE001 - whatever a reader trips over is a finding about its file
            finding = unreadable(case.id, path, fault)
            findings.append(replace(finding, message=finding.message.replace(str(path), path.name)))
    for note in dict.fromkeys(note for file in files if file for note in file.notes):
        findings.append(Finding("note", case.id, "reader-note", note, "Correct the header if this is not meant."))
    return files, _check_presence(case, dataset) + findings


def unreadable(case, path, fault):
    """The finding about a file that cannot be read; the refusals of our own readers end with their remedy."""
    message, remedy = f"{path}: {fault}", REMEDY
    if isinstance(fault, AutosegError):
        message = str(fault)
        if split := LAST_SENTENCE.fullmatch(message):
            message, remedy = split.groups()
    return Finding("error", case, "unreadable-file", message.rstrip(" ."), remedy)


def _check_presence(case, dataset):
    ending = dataset.file_ending
    missing = [path for path in case.images if not path.is_file()]
    findings = []
    if len(missing) == len(case.images):
        remedy = "Add the image, or take the label away."
        if image_name(ending).fullmatch(case.label.name if case.label else ""):
            remedy = f"Labels carry no channel number: rename {case.label.name} to {case.id[:-5]}{ending}."
        elif (similar := missing[0].with_name(case.id + ending)).is_file():
            remedy = f"Rename {similar.name} to {missing[0].name}."
        findings.append(_missing(case, "missing-image", missing[0], remedy))
    else:
        findings += [_missing(case, "missing-channel", path, "Add the channel, or leave the case out.") for path in missing]
    if case.label is None or not case.label.is_file():
        findings.append(_missing(case, "missing-label", case.label, "Add the label, or take the image away."))
    return findings


def _missing(case, code, path, remedy):
    return Finding("error", case.id, code, f"expected {path or 'a label file'}, found no such file", remedy)


def check_intensities(case, path, data):
    """Values (C, Z, Y, X) that are not finite."""
    odd = 0 if data.dtype.kind != "f" else sum(int(part.size - np.isfinite(part).sum()) for part in data)
    if not odd:
        return []
    message = f"{path.name}: expected finite intensities, found {odd} of {data.size} voxels that are NaN or infinite"
    return [Finding("error", case.id, "not-finite", message, "Export the image again, or fill these voxels.")]


def check_channels(case, dataset, images):
    """As many as dataset.json names, each with more than one intensity."""
    channels = [channel for image in images for channel in image.data]
    findings = []
    if len(channels) != len(dataset.channels):
        message = (
            f"expected {len(dataset.channels)} channels ({', '.join(dataset.channels)}), "
            f"found {len(channels)} in {len(images)} files"
        )
        remedy = f"One file per channel, {case.id}_0000{dataset.file_ending} and on; or correct channel_names."
        findings.append(Finding("error", case.id, "channel-count", message, remedy))
    flat = [i for i, channel in enumerate(channels) if channel.min() == channel.max()]
    severity = "error" if len(flat) == len(channels) else "warning"  # an absent sequence is sometimes filled with zeros
    for i in flat:
        message = f"channel {i}: expected an image, found the value {channels[i].flat[0]} everywhere"
        findings.append(Finding(severity, case.id, "constant-image", message, "Export the image again."))
    return findings


def check_grids(case, files):
    """Channels and label against the first image."""
    findings = []
    for path, file in zip((*case.images, case.label), files, strict=True):
        if file is None or files[0] is None:
            continue
        voxels = _distance_voxels(files[0].geometry, file.geometry)
        strict = path is not case.label  # read_volume refuses channels whose grids differ at all
        if voxels > SHIFTED_GRID or (strict and not file.geometry.matches(files[0].geometry, SAME_GRID_MM)):
            severity, code = "error", "grid-mismatch"
            remedy = "If the voxels do correspond, copy the header of the image; else resample one onto the other."
        elif voxels > SAME_GRID:
            severity, code = "warning", "grid-shift"
            remedy = "Nothing if the voxels correspond: the grid of the image counts."
        else:
            continue
        apart = "" if voxels == np.inf else f"; corners up to {voxels:.2g} voxels apart"
        message = f"{path.name}: expected the grid of the image, {files[0].geometry}; found {file.geometry}{apart}"
        findings.append(Finding(severity, case.id, code, message, remedy))
    return findings


def _distance_voxels(geometry, other):
    """The largest distance between corresponding corners along an axis, in voxels; infinite if shapes differ."""
    if geometry.shape != other.shape:
        return np.inf
    corners = np.array(list(itertools.product(*[(0, n - 1) for n in geometry.shape])))
    return float(np.abs(geometry.to_index(other.to_world(corners)) - corners).max())


def count_label(case, path, data):
    """How often each value occurs in a label (C, Z, Y, X), ((value, voxels), ...) ascending; and the findings."""
    if len(data) != 1:
        message = f"{path.name}: expected one value per voxel, found {len(data)} channels"
        return (), [Finding("error", case.id, "label-channels", message, "Merge the channels into one label map.")]
    if (odd := _first_fraction(data[0])) is not None:
        message = f"{path.name}: expected integers, found other numbers such as {odd:.6g}"
        return (), [Finding("error", case.id, "label-not-integer", message, "Resample labels with nearest neighbour.")]
    return _count(data[0]), []


def _check_label(case, labels, data):
    """How often each value occurs in a label (C, Z, Y, X), and the findings."""
    counts, findings = count_label(case, case.label, data)
    if not counts:
        return counts, findings
    declared = {*labels.declared_values, *(() if labels.ignore is None else (labels.ignore,))}
    if unknown := [value for value, _ in counts if value not in declared]:
        listed = ", ".join(str(value) for value in unknown[:10]) + (", ..." if len(unknown) > 10 else "")
        voxels = sum(n for value, n in counts if value not in declared)
        message = f"{case.label.name}: expected values among {sorted(declared)}, found {listed} in {voxels} voxels"
        findings.append(
            Finding("error", case.id, "undeclared-label", message, "Name the values under labels, or correct the file.")
        )
    if not any(value not in (0, labels.ignore) for value, _ in counts):
        message = f"{case.label.name}: expected labelled structures, found only {', '.join(str(v) for v, _ in counts)}"
        findings.append(
            Finding("warning", case.id, "empty-label", message, "Keep it if nothing is there to label; else label it.")
        )
    return counts, findings


def _first_fraction(label):
    """A value (Z, Y, X) that is no integer, NaN and infinities included; None where there is none."""
    for part in label if label.dtype.kind == "f" else ():
        odd = part[~np.isfinite(part) | (part != np.rint(part))]
        if odd.size:
            return float(odd[0])
    return None


def _count(label):
    """((value, voxels), ...) of an array (Z, Y, X) of whole numbers, ascending."""
    lowest, highest = int(label.min()), int(label.max())
    if highest - lowest > LARGEST_RANGE:
        values, counts = np.unique(label, return_counts=True)
        return tuple((int(value), int(n)) for value, n in zip(values, counts, strict=True))
    counts = np.zeros(highest - lowest + 1, np.int64)
    for part in label:
        counts += np.bincount((part.astype(np.int64) - lowest).ravel(), minlength=counts.size)
    return tuple((int(i) + lowest, int(counts[i])) for i in np.flatnonzero(counts))


# The numbers of a sound case.


def _measure(images, label):
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
        "channels": tuple(_measure_channel(crop(channel, lower, upper), *masks) for channel in channels),
    }


def _measure_channel(channel, inside, foreground):
    """A ChannelScan.

    Args:
        channel: (Z, Y, X) finite numbers of any type, inside the crop.
        inside: (Z, Y, X) bool, where some channel is not zero; not empty.
        foreground: (Z, Y, X) bool, where there is a label.
    """
    low, high = np.percentile(channel[inside], [0.5, 99.5], overwrite_input=True).tolist()
    mean, variance = _moments(channel, low, high)
    span = high - low
    unit_mean, unit_std = ((mean - low) / span, variance**0.5 / span) if span > 0 else (0.0, 0.0)
    values = np.sort(channel[foreground])
    if not values.size:
        return ChannelScan(0, 0.0, 0.0, 0.0, 0.0, (), low, high, unit_mean, unit_std)
    mean, variance = _moments(values)
    return ChannelScan(
        voxels=values.size,
        mean=mean,
        variance=variance,
        minimum=float(values[0]),
        maximum=float(values[-1]),
        sketch=_sketch(values),
        low=low,
        high=high,
        unit_mean=unit_mean,
        unit_std=unit_std,
    )


def _sketch(ascending):
    """Quantiles of sorted values at ``LEVELS``: values that occur, to seven digits."""
    at = np.minimum((LEVELS * len(ascending)).astype(np.int64), len(ascending) - 1)
    return tuple(float(f"{value:.7g}") for value in ascending[at].tolist())


def _moments(values, low=-np.inf, high=np.inf):
    """Mean and variance of values clipped to [low, high], float64, block by block; any array that is not empty."""
    step = max(1, BLOCK // values[0].size)
    shift = float(np.clip(values.flat[0], low, high))  # against cancellation where the mean is far from 0
    total = squares = 0.0
    for start in range(0, len(values), step):
        block = np.clip(values[start : start + step].astype(np.float64), low, high).ravel() - shift
        total += block.sum()
        squares += block @ block
    mean = float(total) / values.size
    return shift + mean, max(0.0, float(squares) / values.size - mean**2)
