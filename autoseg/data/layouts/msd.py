"""The Medical Segmentation Decathlon, any task: its own dataset.json lists the files; channels lie in one 4D file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoseg.data.findings import Finding
from autoseg.data.layouts.found import AnyPath, FoundCase, FoundDataset, Source, error, plain_labels
from autoseg.errors import DatasetError
from autoseg.names import fault_of_path, is_hidden
from autoseg.workspace import read_json

__all__ = ["find"]

KEPT = ("name", "description", "reference", "licence", "release")


def find(source: AnyPath) -> FoundDataset:
    """The cases listed by the task, without macOS metadata files (``._la_003.nii.gz``)."""
    source = Path(source)
    task = _read(source / "dataset.json")
    try:
        channels = tuple(str(task["modality"][key]) for key in sorted(task["modality"], key=int))
        names = {int(value): str(name) for value, name in task["labels"].items() if int(value)}
        listed = [(source / entry["image"], source / entry["label"]) for entry in task["training"]]
        tests = [entry if isinstance(entry, str) else entry["image"] for entry in task.get("test", [])]
        named = [*(path for pair in listed for path in pair), *(source / test for test in tests)]
        if fault_of := next((fault for path in named if (fault := fault_of_path(path))), ""):
            raise ValueError(f"expected paths of files, found {fault_of}")
    except (KeyError, TypeError, ValueError) as fault:
        raise DatasetError(
            f"{source / 'dataset.json'}: expected the form of the Decathlon, found another: {fault!r}. Download the task again"
        ) from fault
    cases, findings = [], []
    for image, label in listed + [(source / test, None) for test in tests]:
        if image.name.startswith("._"):
            continue
        case, part = image.name.removesuffix(".gz").removesuffix(".nii"), "train" if label else "test"
        missing = [path for path in (image, label) if path and not path.is_file()]
        for path in missing:
            message = f"expected {path}, which dataset.json lists; found none"
            findings.append(error(case, "missing-file", message, "Download the task again."))
        if not missing:
            volumes = range(len(channels)) if len(channels) > 1 else (None,)
            cases.append(FoundCase(case, case, tuple(Source(image, volume) for volume in volumes), label, part=part))
    findings += _unlisted(source, {image for image, _ in listed} | {source / test for test in tests})
    return FoundDataset(
        channels=channels,
        cases=tuple(cases),
        describe=plain_labels(names),
        findings=tuple(findings),
        about={key: task[key] for key in KEPT if key in task},
    )


def _unlisted(source: Path, listed: set[Path]) -> Iterator[Finding]:
    """Scans beside those of the task that its dataset.json does not list."""
    for folder in sorted({path.parent for path in listed if path.parent.is_dir()}):
        others = {path for path in folder.iterdir() if path.name.lower().endswith((".nii", ".nii.gz"))} - listed
        if found := sorted(path.name for path in others if not is_hidden(path.name)):
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            message = f"{folder.name}: {found[0]}{more}: not listed in dataset.json, so left out"
            yield Finding("warning", "", "unlisted-scan", message, "List them there if they belong to the task.")


def _read(path: Path) -> dict[str, Any]:
    """The description of a task; checks that the required keys exist."""
    try:
        task: dict[str, Any] = read_json(path, DatasetError)
    except DatasetError as fault:
        raise DatasetError(f"expected the dataset.json of a Decathlon task; {fault}. Give the folder that holds it") from fault
    kinds = {"modality": dict, "labels": dict, "training": list}
    lacking = [key for key, kind in kinds.items() if not isinstance(task, dict) or not isinstance(task.get(key), kind)]
    if lacking:
        raise DatasetError(
            f"{path}: expected the dataset.json of a Decathlon task, found no {', '.join(lacking)}. "
            "A folder in nnU-Net's layout needs no conversion"
        )
    return task
