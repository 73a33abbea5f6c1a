"""How a scan differs from the training scans of a model.

A model stores the ranges of its training scans: spacing, size, shape, and the intensities of each channel. A scan is *unlike*
them in a quantity that is clearly outside: lengths by more than ``FACTOR``, intensities by more than a fraction of the range
of a scan. Its mask may be as good as any other, but no validation score covers it.

Intensities are compared after what the model's normalisation makes irrelevant is removed. If every scan is scaled on its own
(MR), unit and offset are arbitrary, and only the shape of the histogram counts: where the median lies between the scan's
percentiles 0.5 and 99.5. If all scans share one scale (CT numbers, pictures), the values themselves count, up to the clipping
limits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from autoseg.data.intensities import PERCENTILES
from autoseg.data.scan import CaseScan
from planners.plan import ChannelNormalization

__all__ = ["ChannelRanges", "ScanFacts", "Spread", "TrainingScans", "Unlike", "ranges_of", "training_scans", "unlike"]

FACTOR = 1.5  # for lengths outside the training range; augmentation scales by 0.7 to 1.4
OWN_SCALE, SHARED_SCALE = 0.15, 0.2  # of the range of percentiles 0.5 to 99.5 of the scan, or of the training scans
LEAST_REACH = 0.5  # of the range of the training structures' intensities
SHARED = ("ct", "ct_zscore", "none", "rgb")  # schemes in which equal values mean the same in all scans
CLIPPED = ("ct", "ct_zscore")
LOW, MIDDLE, HIGH = PERCENTILES.index(0.5), PERCENTILES.index(50.0), PERCENTILES.index(99.5)
AXES = "zyx"


@dataclass(frozen=True)
class Spread:
    """Percentiles 2.5, 50 and 97.5 of a number over cases."""

    low: float
    middle: float
    high: float


@dataclass(frozen=True)
class ChannelRanges:
    """Intensities of a channel over cases, in the voxels where some channel is not 0.

    Attributes:
        name: of the channel.
        percentiles: the ``PERCENTILES`` of a scan, in the unit of the files; () if unknown.
        scaled: the same, after mapping the scan's own percentiles 0.5 and 99.5 to 0 and 1.
    """

    name: str
    percentiles: tuple[Spread, ...] = ()
    scaled: tuple[Spread, ...] = ()

    def __post_init__(self) -> None:
        if {len(self.percentiles), len(self.scaled)} - {0, len(PERCENTILES)}:
            raise ValueError(f"expected {len(PERCENTILES)} percentiles of channel {self.name!r}, or none")


@dataclass(frozen=True)
class TrainingScans:
    """The scans of a model's data set in numbers; axes are (z, y, x) in the orientation of the plan.

    Attributes:
        cases: their number, including validation cases.
        spacing_mm: voxel size.
        size_mm, shape: size of the nonzero region, in millimetres and in voxels.
        channels: one entry per channel.
    """

    cases: int
    spacing_mm: tuple[Spread, Spread, Spread]
    size_mm: tuple[Spread, Spread, Spread]
    shape: tuple[Spread, Spread, Spread]
    channels: tuple[ChannelRanges, ...]


@dataclass(frozen=True)
class ScanFacts:
    """The compared values of a scan: ``spacing_mm`` and ``shape`` along (z, y, x) as in TrainingScans, and for each channel
    ``PERCENTILES`` from ``percentiles_of``."""

    spacing_mm: tuple[float, float, float]
    shape: tuple[int, int, int]
    percentiles: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Unlike:
    """A quantity in which a scan is unlike the training scans, whose range was ``low`` to ``high``."""

    quantity: str
    found: float
    low: float
    high: float
    unit: str = ""

    def __str__(self) -> str:
        unit = f" {self.unit}" if self.unit else ""
        low, high = _number(self.low), _number(self.high)
        return f"{self.quantity}: {_number(self.found)}{unit}, in training {low if low == high else f'{low} to {high}'}{unit}"


def training_scans(channels: Sequence[str], scans: Sequence[CaseScan]) -> TrainingScans | None:
    """The scans of a data set in numbers, axes in the canonical orientation; None if no case was measured."""
    sizes = [(scan.spacing_mm, scan.shape) for scan in scans if scan.spacing_mm and scan.shape]
    if not sizes:
        return None
    spacings, shapes = zip(*sizes, strict=True)
    found = []
    for number, name in enumerate(channels):
        rows = [s.channels[number].percentiles for s in scans if len(s.channels) > number and s.channels[number].percentiles]
        found.append(_channel(name, np.array(rows)) if rows else ChannelRanges(name))
    return ranges_of(spacings, shapes, tuple(found))


def ranges_of(
    spacings_mm: Sequence[Sequence[float]], shapes: Sequence[Sequence[float]], channels: tuple[ChannelRanges, ...]
) -> TrainingScans:
    """TrainingScans from the spacings and shapes, (z, y, x) each, of one or more cases."""
    spacing, shape = np.array(spacings_mm, float), np.array(shapes, float)
    return TrainingScans(len(spacing), _by_axis(spacing), _by_axis(spacing * shape), _by_axis(shape), channels)


def _by_axis(rows: np.ndarray) -> tuple[Spread, Spread, Spread]:
    z, y, x = _spreads(rows)
    return z, y, x


def _channel(name: str, rows: np.ndarray) -> ChannelRanges:
    """ChannelRanges from percentiles (cases, levels)."""
    return ChannelRanges(name, _spreads(rows), _spreads(_by_its_own(rows)))


def _by_its_own(percentiles: np.ndarray) -> np.ndarray:
    """(..., levels) with percentiles 0.5 and 99.5 mapped to 0 and 1; zeros if these are equal."""
    low, high = percentiles[..., LOW, None], percentiles[..., HIGH, None]
    with np.errstate(invalid="ignore"):  # the brightest voxels may be infinite; they are not compared
        scaled: np.ndarray = (percentiles - low) / np.where(high > low, high - low, np.inf)
    return scaled


def _spreads(rows: np.ndarray) -> tuple[Spread, ...]:
    """A Spread of each column."""
    return tuple(Spread(*map(float, column)) for column in np.percentile(rows, [2.5, 50, 97.5], axis=0).T.tolist())


def unlike(
    scan: ScanFacts, training: TrainingScans, schemes: Sequence[ChannelNormalization], *, axes: Sequence[int] = (0, 1, 2)
) -> tuple[Unlike, ...]:
    """The quantities in which a scan is unlike the training scans; () if there are none.

    Args:
        schemes: normalisation of each channel, from the plan.
        axes: the axes used by the model, of (z, y, x).
    """
    lengths = [found for axis in axes for found in _lengths(scan, training, axis)]
    channels = zip(training.channels, scan.percentiles, schemes, strict=True)
    return (*lengths, *(found for ranges, levels, how in channels if (found := _intensities(np.array(levels), ranges, how))))


def _lengths(scan: ScanFacts, training: TrainingScans, axis: int) -> Iterator[Unlike]:
    """Spacing and size along an axis; the number of voxels only if neither explains it."""
    spacing, shape = scan.spacing_mm[axis], scan.shape[axis]
    told = False
    for name, found, known, unit in (
        ("spacing", spacing, training.spacing_mm[axis], "mm"),
        ("size", spacing * shape, training.size_mm[axis], "mm"),
        ("voxels", float(shape), training.shape[axis], ""),
    ):
        if not (known.low / FACTOR <= found <= known.high * FACTOR) and not (told and name == "voxels"):
            told = True
            yield Unlike(f"{name} along {AXES[axis]}", found, known.low, known.high, unit)


def _intensities(levels: np.ndarray, ranges: ChannelRanges, how: ChannelNormalization) -> Unlike | None:
    """The percentile of a channel that is farthest outside; None if all are inside."""
    if not ranges.percentiles:
        return _reach(levels, how) if how.scheme in CLIPPED else None
    if how.scheme in SHARED:
        known, margin, name = ranges.percentiles, SHARED_SCALE, f"of {ranges.name}"
        low, high = known[LOW].middle, known[HIGH].middle
        compared = np.clip(levels, min(low, how.lower), max(high, how.upper)) if how.scheme in CLIPPED else levels
        scale = max(high - low, np.finfo(np.float32).tiny)
    else:
        known, margin, scale = ranges.scaled, OWN_SCALE, 1.0
        name = f"of {ranges.name}, from its darkest (0) to its brightest (1)"
        compared = levels = _by_its_own(levels)
    beyond = [
        max(one.low - found, found - one.high) / scale - max(margin, (one.high - one.low) / scale / 2)
        for found, one in zip(compared.tolist(), known, strict=True)
    ]
    worst = max(range(LOW + 1, HIGH), key=beyond.__getitem__)
    if beyond[worst] <= 0:
        return None
    called = "median" if worst == MIDDLE else f"percentile {PERCENTILES[worst]:g}"
    found = levels[worst] if np.isfinite(levels[worst]) else compared[worst]  # records cannot hold infinite numbers
    return Unlike(f"{called} {name}", float(found), known[worst].low, known[worst].high)


def _reach(levels: np.ndarray, how: ChannelNormalization) -> Unlike | None:
    """If only the structures' intensities are known: the fraction of their range that the scan reaches."""
    inside = min(float(levels[-1]), how.upper) - max(float(levels[0]), how.lower)
    share = max(0.0, inside) / (how.upper - how.lower)
    if share >= LEAST_REACH:
        return None
    name = f"share of the structures' intensities, {_number(how.lower)} to {_number(how.upper)}, that {how.channel} reaches"
    return Unlike(name, 100 * share, 100.0, 100.0, "%")


def _number(value: float) -> str:
    """Three significant digits, or all digits before the decimal point."""
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
