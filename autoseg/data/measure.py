"""The fingerprint: the scans of all cases, pooled.

Every case has the same weight, however large its structures are. Means and variances of the cases combine exactly to those
of the equally weighted mixture. Its quantiles come from the sketches; each value is weighted by the fraction of the case
around it. Only numbers per case are kept, so memory does not grow with the images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from autoseg.data.dataset import DatasetSpec
from autoseg.data.findings import findings_table
from autoseg.data.intensities import LEVELS, ChannelScan
from autoseg.data.partial import count_annotated
from autoseg.data.scan import CaseScan, scan_dataset
from autoseg.errors import DatasetError
from planners.fingerprint import ChannelStats, Fingerprint

__all__ = ["measure_fingerprint"]


def measure_fingerprint(dataset: DatasetSpec, scans: Iterable[CaseScan] | None = None) -> Fingerprint:
    """Measure the fingerprint of a data set, for a planner.

    Args:
        dataset: DatasetSpec.
        scans: result of ``scan_dataset``; computed here if not given. Scans of other cases are ignored, so that
            cases can be left out of ``dataset`` without a new scan.

    Raises:
        DatasetError: a case with an error, or without a scan; no case with labelled foreground.
    """
    known = {scan.case: scan for scan in (scan_dataset(dataset) if scans is None else scans)}
    missing = sorted({case.id for case in dataset.training} - set(known))
    if missing:
        raise DatasetError(f"case {missing[0]!r} and {len(missing) - 1} more were not scanned; scan the data set again")
    used = [known[case] for case in sorted(case.id for case in dataset.training)]
    errors = [finding for scan in used for finding in scan.findings if finding.severity == "error"]
    if errors:
        raise DatasetError(f"{dataset.folder}: expected cases without errors; found\n{findings_table(errors)}")
    labels = dataset.labels
    return Fingerprint(
        dataset=dataset.name,
        cases=tuple(scan.case for scan in used),
        shapes=tuple(scan.shape for scan in used if scan.shape),
        spacings_mm=tuple(scan.spacing_mm for scan in used if scan.spacing_mm),
        channels=tuple(_pool(name, [scan.channels[i] for scan in used]) for i, name in enumerate(dataset.channels)),
        structures=labels.structures,
        n_labels=1 + len(labels.structures) + (labels.ignore is not None),
        relative_crop=float(np.median([scan.relative_crop for scan in used])),
        has_regions=labels.has_regions,
        has_ignore=labels.ignore is not None,
        label_values=len(labels.declared_values) - 1 if labels.has_regions else 0,
        annotated_in=count_annotated((scan.unlabelled for scan in used), labels),
        source_digest=hashlib.blake2b("".join(scan.key for scan in used).encode(), digest_size=8).hexdigest(),
    )


def _pool(name: str, channels: Sequence[ChannelScan]) -> ChannelStats:
    """``ChannelStats`` from the ``ChannelScan`` of all cases."""
    labelled = [channel for channel in channels if channel.voxels]
    if not labelled:
        raise DatasetError(
            "expected labelled voxels, found none in any case. `autoseg verify` lists the cases; label some of them"
        )
    means = np.array([channel.mean for channel in labelled])
    low, median, high = _quantiles([channel.sketch for channel in labelled], [0.005, 0.5, 0.995])
    varied = [channel for channel in channels if channel.unit_std > 0]
    unit = {}
    if varied:
        unit["unit_mean"] = float(np.mean([channel.unit_mean for channel in varied]))
        unit["unit_std"] = float(np.mean([channel.unit_std for channel in varied]))
    return ChannelStats(
        name=name,
        mean=float(means.mean()),
        median=median,
        std=float(np.sqrt(np.mean([channel.variance for channel in labelled]) + means.var())),
        minimum=min(channel.minimum for channel in labelled),
        maximum=max(channel.maximum for channel in labelled),
        percentile_00_5=low,
        percentile_99_5=high,
        **unit,
    )


def _quantiles(sketches: Sequence[Sequence[float]], levels: Sequence[float]) -> list[float]:
    """Quantiles of the equally weighted mixture of the sketched distributions; list of float."""
    values = np.concatenate(sketches)
    order = np.argsort(values, kind="stable")
    share = np.diff((LEVELS[1:] + LEVELS[:-1]) / 2, prepend=0, append=1)  # fraction of its case, for each value of a sketch
    weights = (np.tile(share, len(sketches)) / len(sketches))[order]
    quantiles: list[float] = np.interp(levels, np.cumsum(weights) - weights / 2, values[order]).tolist()
    return quantiles
