"""The description of a converted data set: the meaning of its label values, and its ``dataset.json``."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoseg.data.conversion.parts import Combination, Part
from autoseg.data.findings import Finding
from autoseg.data.labels import read_labels
from autoseg.data.layouts.found import FoundCase, FoundDataset, error
from autoseg.data.layouts.reading import SeenCase, label_values
from autoseg.data.partial import KEY
from autoseg.errors import DatasetError
from autoseg.names import counted, without_spelling
from planners.names import fault_of_name

__all__ = ["Description", "describe", "refused_names"]


FEWEST_WITH_OUTLINE = 4  # structures; of two or three, such as liver and tumour, one often holds the others


def describe(found: FoundDataset, seen: Iterable[SeenCase]) -> tuple[dict[str, Any], dict[Combination, int], Sequence[Finding]]:
    """(label keys of dataset.json, {combination: value} of separate files, findings)."""
    usable = [case for case in seen if case.usable]
    masks = [case for case in usable if case.case.masks]
    if not masks:
        labelled = {case.case.id: case.values for case in usable if case.case.label}
        description, told = found.describe(labelled)
        return description, {}, [*told, *(_refused_labels(description) if labelled and description else ())]
    findings = _spelled_otherwise([case.case for case in masks])
    left_out = {finding.case for finding in findings}
    masks = [case for case in masks if case.case.id not in left_out]
    combinations = {combination for case in masks for combination in case.combinations}
    there = {name for combination in combinations for name in combination}
    structures = [name for name in found.structures or sorted(there) if name in there]
    if empty := sorted({name for case in masks for name, _ in case.case.masks} - there):
        message = f"no voxel of {', '.join(empty)} in any case: no label"
        findings.append(Finding("note", "", "empty-structure", message, "Nothing, or draw it in some case."))
    findings += [] if found.structures else _outlines(combinations, there)
    description, values = label_values(combinations, structures)
    for case in masks:
        if lacking := sorted(there - {name for name, _ in case.case.masks}):
            message = f"no file or segment of {', '.join(lacking)}: taken as absent"
            findings.append(Finding("note", case.case.id, "absent-structure", message, "Add it if it is not absent."))
    remedy = "Give all cases a label map, or all of them a file for each structure."
    findings += [
        Finding("error", case.case.id, "label-kind", "expected a file for each structure, found a label map", remedy)
        for case in usable
        if case.case.label
    ]
    return description, values, [*findings, *_refused_labels(description)]


def _outlines(combinations: Iterable[Iterable[str]], structures: Collection[str]) -> list[Finding]:
    """A note about structures that overlap all others, as the outline of the body does."""
    beside: dict[str, set[str]] = {name: set() for name in structures}
    for combination in map(set, combinations):
        for name in combination:
            beside[name] |= combination
    over = sorted(name for name, others in beside.items() if len(others) == len(beside) >= FEWEST_WITH_OUTLINE)
    if not over:
        return []
    message = f"{', '.join(over)}: overlaps all other structures, so that all {len(beside)} become regions"
    remedy = "If it is an outline such as BODY or EXTERNAL, choose the others with --structures A,B."
    return [Finding("note", "", "outline", message, remedy)]


def _spelled_otherwise(cases: Sequence[FoundCase]) -> list[Finding]:
    """An error for each structure whose name differs from that in more cases only by its spelling; but if one case has both
    names, they are two structures."""
    named = {case.id: dict.fromkeys(name for name, _ in case.masks) for case in cases}
    count = Counter(name for names in named.values() for name in names)
    forms: dict[str, list[str]] = {}
    for name in sorted(count, key=lambda name: (-count[name], name)):
        forms.setdefault(without_spelling(name), []).append(name)
    apart = {form for names in named.values() for form, n in Counter(map(without_spelling, names)).items() if n > 1}
    usual = {name: several[0] for form, several in forms.items() if form not in apart for name in several[1:]}
    remedy = "Give a structure the same name in all cases, or names that differ by more than their spelling."
    return [
        error(
            case,
            "structure-name",
            f"expected the structure {usual[name]!r}, as in {count[usual[name]]} of {len(named)} cases, found {name!r}",
            remedy,
        )
        for case, names in named.items()
        for name in names
        if name in usual
    ]


def _refused_labels(description: Mapping[str, Any]) -> list[Finding]:
    """An error if the data set could not be read with these labels."""
    try:
        read_labels(description["labels"], description.get("regions_class_order"))
    except DatasetError as fault:
        remedy = "Correct the label maps, or the names of their values."
        return [error("", "labels", str(fault).replace(" in dataset.json", ""), remedy)]
    return []


def refused_names(cases: Sequence[FoundCase]) -> list[Finding]:
    """An error for each case whose name cannot be used as a file name, or is also that of another case."""
    of: dict[str, list[FoundCase]] = {}
    for case in cases:
        of.setdefault(case.id, []).append(case)
    twice = [
        error(name, "case-twice", f"expected one case of this name, found {len(same)}: {_files_of(same)}", TWICE)
        for name, same in of.items()
        if len(same) > 1
    ]
    return [*twice, *_refused_as_files(cases)]


TWICE = "Keep one label map and one scan for each case, or rename them."


def _files_of(cases: Iterable[FoundCase]) -> str:
    """The files that tell cases of the same name apart, for a message."""
    labels = [case.label.name if case.label else f"{counted(len(case.masks), 'file')} of structures" for case in cases]
    images = [case.images[0].path.name for case in cases]
    return " and ".join(images if len(set(images)) > 1 else labels)


def _refused_as_files(cases: Iterable[FoundCase]) -> list[Finding]:
    faults = [(case.id, fault_of_name(case.id)) for case in cases]
    remedy = "Rename the case, without / and \\."
    return [
        error(case, "case-name", f"expected a plain file name for case {case!r}, found {fault}", remedy)
        for case, fault in faults
        if fault
    ]


@dataclass(frozen=True)
class Description:
    """The content of a ``dataset.json``; it lists the files if they stay in place (``mode`` ``reference``).

    Attributes:
        labels: keys for the meaning of label values.
        ending: of the files.
    """

    folder: Path
    layout: str
    mode: str
    found: FoundDataset
    labels: Mapping[str, Any]
    ending: str

    def of(self, cases: Sequence[FoundCase], parts: Mapping[str, Sequence[Part]]) -> dict[str, Any]:
        """The ``dataset.json`` for these cases and their parts."""
        about = {
            "name": self.folder.name,
            **self.found.about,
            "channel_names": {str(number): name for number, name in enumerate(self.found.channels)},
            **self.labels,
            "numTraining": sum(case.part != "test" for case in cases),
            "file_ending": self.ending,
            "converted_by": f"autoseg convert {self.layout}",
        }
        if annotated := {case.id: list(case.annotated) for case in cases if case.annotated is not None}:
            about[KEY] = annotated
        if self.mode != "reference":
            return about | {"patients": {case.id: case.patient for case in cases}}
        listing = {case.id: _listed(case, parts[case.id], self.folder) for case in cases}
        tests = {case.id for case in cases if case.part == "test"}
        about["dataset"] = {name: entry for name, entry in listing.items() if name not in tests}
        return about | ({"test": {name: listing[name] for name in listing if name in tests}} if tests else {})


def _listed(case: FoundCase, parts: Sequence[Part], folder: Path) -> dict[str, Any]:
    """The entry of a case under ``dataset``; paths are relative to the folder if source and folder move together."""

    def path_of(part: Part) -> str:
        if part.target:
            return part.target
        (path,) = part.sources
        return os.path.relpath(path, folder) if folder.parent in path.parents else str(path)

    paths = [path_of(part) for part in parts]
    label = {"label": paths[-1]} if case.label or case.masks else {}
    return {"images": paths[: len(case.images)]} | label | {"patient": case.patient}
