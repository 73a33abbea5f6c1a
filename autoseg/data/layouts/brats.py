"""BraTS, brain tumours in four sequences: file names of 2018 to 2021 and since 2023, in any folder structure.

``BraTS20_Training_001_t1.nii.gz``, ``_t1ce``, ``_t2``, ``_flair``, ``_seg``; ``BraTS-GLI-00000-000-t1n.nii.gz``, ``-t1c``,
``-t2w``, ``-t2f``, ``-seg``. Enhancing tumour is 4 in the releases up to 2021 and 3 in 2023; the values found show which.
If both occur, both mean enhancing tumour, and nothing needs to be rewritten.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from autoseg.data.dataset import guess_patient
from autoseg.data.findings import Finding
from autoseg.data.layouts.found import (
    AnyPath,
    Counted,
    Description,
    FoundCase,
    FoundDataset,
    Source,
    error,
    files_below,
    is_test,
    region_labels,
    twice,
)
from autoseg.errors import DatasetError
from autoseg.names import counted

__all__ = ["find"]

CHANNELS = ("T1", "T1ce", "T2", "FLAIR")
KINDS = {
    "t1": 0,
    "t1n": 0,
    "t1ce": 1,
    "t1c": 1,
    "t1gd": 1,
    "t2": 2,
    "t2w": 2,
    "flair": 3,
    "t2f": 3,
    "seg": "label",
    "segm": "label",
}
NAME = re.compile(rf"(.+)[-_]({'|'.join(sorted(KINDS, key=len, reverse=True))})\.nii(?:\.gz)?", re.IGNORECASE)
NECROSIS, OEDEMA = 1, 2
ABOUT = {"name": "BraTS", "reference": "Menze et al., IEEE TMI 2015; Bakas et al., Scientific Data 2017"}


Files = dict[Any, Any]  # channel number or "label" -> path, and "test" -> bool


def find(source: AnyPath) -> FoundDataset:
    """Every case with four sequences; those without a label, in a folder of test or validation data, are test cases."""
    found: dict[str, Files] = defaultdict(dict)
    findings: list[Finding] = []
    info: dict[str, Any] = {}
    for path, parts in files_below(source).items():
        if not (match := NAME.fullmatch(path.name)):
            continue
        case, kind = match[1], KINDS[match[2].lower()]
        if kind in found[case]:
            findings.append(twice(case, "file", path, found[case][kind]))
        found[case] |= {kind: path, "test": is_test((*parts[:-1], case))}
        info |= {guess_patient(case): {"grade": grade} for grade in {"HGG", "LGG"} & set(parts)}
    if not found:
        raise DatasetError(
            f"{source}: expected files such as CASE_t1ce.nii.gz or CASE-t1c.nii.gz below it, found none. Choose another layout"
        )
    _join_misnamed_labels(found)
    cases = []
    for case, files in sorted(found.items()):
        needed = [*range(4), *(() if files["test"] else ("label",))]
        for kind in [kind for kind in needed if kind not in files]:
            code, name = ("missing-label", "segmentation") if kind == "label" else ("missing-channel", CHANNELS[kind])
            message = f"expected a file of {name}, found {', '.join(sorted(path.name for path in _paths(files)))}"
            findings.append(error(case, code, message, "Download the case again."))
        if all(channel in files for channel in range(4)):
            images = tuple(Source(files[channel]) for channel in range(4))
            part = "train" if "label" in files else "test"
            cases.append(FoundCase(case, guess_patient(case), images, files.get("label"), part=part))
    about = ABOUT | ({"patient_info": info} if info else {})
    return FoundDataset(CHANNELS, tuple(cases), describe_labels, tuple(findings), about)


def _paths(files: Files) -> list[Path]:
    return [path for kind, path in files.items() if kind != "test"]


def _join_misnamed_labels(found: dict[str, Files]) -> None:
    """Assign the only label in a folder of one case to that case: one label of the 2020 release is misnamed."""
    folders: dict[Path, list[str]] = defaultdict(list)
    for case, files in found.items():
        folders[_paths(files)[0].parent].append(case)
    for names in folders.values():
        alone = [case for case in names if set(found[case]) == {"label", "test"}]
        if len(names) == 2 and len(alone) == 1:
            (owner,) = set(names) - set(alone)
            found[owner].setdefault("label", found[alone[0]]["label"])
            del found[alone[0]]


def describe_labels(counts: Counted) -> Description:
    """Whole tumour, tumour core and enhancing tumour, from the values in the files; see ``FoundDataset``."""
    if both := sorted(case for case, values in counts.items() if {3, 4} <= set(values)):
        message = (
            f"expected 4 or 3 for enhancing tumour, found both in {', '.join(both[:5])}: this is a release that means others"
        )
        remedy = "Convert it with the layout 'folders', and write what its values mean into dataset.json."
        return {}, [error("", "label-convention", message, remedy)]
    kinds = Counter(value for values in counts.values() for value in values if value in (3, 4))
    enhancing = sorted(kinds) or [4]
    regions = {
        "whole tumour": [NECROSIS, OEDEMA, *enhancing],
        "tumour core": [NECROSIS, *enhancing],
        "enhancing tumour": enhancing,
    }
    usual = max(enhancing, key=lambda value: kinds[value])
    description, findings = region_labels(regions, (OEDEMA, NECROSIS, usual))(counts)
    if len(enhancing) == 2:
        message = (
            f"enhancing tumour is 4 in {counted(kinds[4], 'case')} and 3 in {kinds[3]}: two releases; both values count as it"
        )
        findings.append(Finding("note", "", "label-convention", message, f"Nothing. Predictions are written with {usual}."))
    return description, findings
