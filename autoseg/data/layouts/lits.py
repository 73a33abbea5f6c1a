"""LiTS (2017), livers and their tumours in CT: ``volume-N.nii`` and ``segmentation-N.nii`` in one or several folders.

``test-volume-N.nii`` have no labels. The numbers are kept: ``volume-7.nii`` is the case ``lits_007``.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from autoseg.data.findings import Finding
from autoseg.data.layouts.found import AnyPath, FoundCase, FoundDataset, Source, error, files_below, region_labels, twice
from autoseg.errors import DatasetError

__all__ = ["find"]

NAME = re.compile(r"(test-)?(volume|segmentation)-(\d+)\.nii(?:\.gz)?", re.IGNORECASE)
ABOUT = {"name": "LiTS", "reference": "Bilic et al., Medical Image Analysis 2023", "licence": "CC BY-NC-ND 4.0"}

describe_labels = region_labels({"liver": [1, 2], "tumour": [2]}, (1, 2))


def find(source: AnyPath) -> FoundDataset:
    """Every volume with its segmentation; the tumours are part of the liver."""
    found: dict[str, dict[str, Path]] = defaultdict(dict)
    findings: list[Finding] = []
    for path in files_below(source):
        if match := NAME.fullmatch(path.name):
            case = f"lits_{'test_' if match[1] else ''}{int(match[3]):03d}"
            kind = match[2].lower()
            if kind in found[case]:
                findings.append(twice(case, kind, path, found[case][kind]))
            found[case][kind] = path
    if not found:
        raise DatasetError(f"{source}: expected files such as volume-0.nii below it, found none. Choose another layout")
    cases = []
    for case, files in sorted(found.items()):
        is_test = case.startswith("lits_test")
        for kind in ("volume",) if is_test else ("volume", "segmentation"):
            if kind not in files:
                message = (
                    f"expected a {kind} of number {int(case.rpartition('_')[2])}, found {next(iter(files.values())).name} alone"
                )
                findings.append(error(case, "missing-file", message, "Download the case again."))
        if "volume" in files:
            part = "test" if is_test else "train"
            cases.append(FoundCase(case, case, (Source(files["volume"]),), files.get("segmentation"), part=part))
    return FoundDataset(
        channels=("CT",),
        cases=tuple(cases),
        describe=describe_labels,
        findings=tuple(findings),
        about=ABOUT,
    )
