"""ACDC (MICCAI 2017): one folder per patient with the heart in end diastole and end systole.

``training/patient001/``: ``Info.cfg`` (ED, ES, Group, Height, NbFrame, Weight), ``patient001_frame01.nii.gz``,
``patient001_frame01_gt.nii.gz``, ``patient001_4d.nii.gz``; likewise in ``testing``. The two folders may be missing.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from autoseg.data.findings import Finding
from autoseg.data.layouts.found import AnyPath, FoundCase, FoundDataset, Source, error, files_below, is_test, plain_labels
from autoseg.errors import DatasetError

__all__ = ["find"]

NAME = re.compile(r"(patient\d+)_(?:frame(\d+)(_gt)?|4d)\.nii(?:\.gz)?", re.IGNORECASE)
STRUCTURES = {1: "right ventricle", 2: "myocardium", 3: "left ventricle"}
ABOUT = {"name": "ACDC", "reference": "Bernard et al., IEEE TMI 2018", "licence": "CC BY-NC-SA 4.0"}


Files = dict[Any, Any]  # the files of a patient, see ``find``


def find(source: AnyPath, *, cine: bool = False) -> FoundDataset:
    """The ED and ES frames of every patient; with ``cine`` also each frame of the 4D series, as test cases."""
    patients: dict[str, Files] = defaultdict(dict)  # patient -> {"info", "4d", (frame, is label): path}
    for path, parts in files_below(source).items():
        if match := NAME.fullmatch(path.name):
            patients[match[1]][(int(match[2]), bool(match[3])) if match[2] else "4d"] = path
            patients[match[1]].setdefault("test", is_test(parts[:-1]))
    if not patients:
        raise DatasetError(
            f"{source}: expected files such as patient001_frame01.nii.gz below it, found none. Choose another layout"
        )
    cases: list[FoundCase] = []
    findings: list[Finding] = []
    about = {}
    for patient, files in sorted(patients.items()):
        info = _read_info(next(path for key, path in files.items() if key != "test").with_name("Info.cfg"))
        found, wrong = _frames(patient, files, info)
        findings += wrong
        cases += found
        if cine:
            found, wrong = _cine(patient, files, info)
            findings += wrong
            cases += found
        about[patient] = _readable(info)
    return FoundDataset(
        channels=("cineMRI",),
        cases=tuple(cases),
        describe=plain_labels(STRUCTURES),
        findings=tuple(findings),
        about=ABOUT | {"patient_info": about},
    )


def _read_info(path: Path) -> dict[str, str]:
    """The lines ``Key: value`` of an Info.cfg; {} if there is none."""
    lines = path.read_text("utf-8", errors="replace").splitlines() if path.is_file() else []
    return {key.strip(): value.strip() for key, found, value in (line.partition(":") for line in lines) if found}


def _frames(patient: str, files: Files, info: dict[str, str]) -> tuple[list[FoundCase], list[Finding]]:
    """(cases, findings) of end diastole and end systole; of all frames found if there is no Info.cfg."""
    findings = []
    frames = [int(info[key]) for key in ("ED", "ES") if info.get(key, "").isdigit()]
    if len(frames) < 2:
        message = "expected ED and ES in Info.cfg, found " + (f"{info}" if info else "no such file")
        findings.append(error(patient, "no-frames", message, "Put the Info.cfg of the release beside the patient's images."))
        frames = []
    cases = []
    for frame in sorted(set(frames)):
        image, label = files.get((frame, False)), files.get((frame, True))
        case = f"{patient}_frame{frame:02d}"
        if image is None or (label is None and not files["test"]):
            missing = f"{case}{'' if image is None else '_gt'}.nii.gz"
            findings.append(error(case, "missing-file", f"expected {missing}, found none", "Download the patient again."))
            continue
        cases.append(FoundCase(case, patient, (Source(image),), label, part="test" if files["test"] else "train"))
    return cases, findings


def _cine(patient: str, files: Files, info: dict[str, str]) -> tuple[list[FoundCase], list[Finding]]:
    """(test cases, findings): every frame of the 4D series."""
    if "4d" not in files or not info.get("NbFrame", "").isdigit():
        message = f"expected {patient}_4d.nii.gz and NbFrame in Info.cfg, found one or none"
        return [], [error(patient, "no-cine", message, "Download the patient again, or leave --cine out.")]
    names = [f"{patient}_4d_frame{frame:02d}" for frame in range(1, int(info["NbFrame"]) + 1)]
    return [FoundCase(name, patient, (Source(files["4d"], i),), part="test") for i, name in enumerate(names)], []


def _readable(info: dict[str, str]) -> dict[str, float | str]:
    """Information on a patient under readable names: numbers with their units, the rest as text."""
    units = {"Height": "height_cm", "Weight": "weight_kg", "NbFrame": "frames"}
    return {units.get(key, key.lower()): _number(value) for key, value in info.items()}


def _number(text: str) -> float | str:
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        return text
