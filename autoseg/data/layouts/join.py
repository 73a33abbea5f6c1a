"""Several data-set folders as one: a common list of structures, each case annotated for those of its own set.

Structures with the same name are one structure. Label maps are renumbered by structure, so each set may use its own values. If
structures overlap in any set, all become regions. Patients with the same name are treated as one, so that they are never on
both sides of a fold. Cases whose names occur twice also get the name of their set.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial

from autoseg.data.dataset import Case, DatasetSpec, read_dataset
from autoseg.data.findings import Finding
from autoseg.data.labels import LabelSchema
from autoseg.data.layouts.found import AnyPath, Counted, Description, FoundCase, FoundDataset, Source, error
from autoseg.data.layouts.reading import label_values
from autoseg.errors import DatasetError
from autoseg.names import counted, without_spelling

__all__ = ["find"]

Combination = frozenset[str]


def find(source: AnyPath, *, also: Sequence[AnyPath] = (), channels: Sequence[str] | None = None) -> FoundDataset:
    """The cases of all data sets.

    Args:
        source: folder of the first data set.
        also: of the others.
        channels: names of the channels, if they differ between sets.

    Raises:
        DatasetError: fewer than two sets, the same set twice, or sets with different channels.
    """
    sets = [read_dataset(folder) for folder in (source, *also)]
    if len(sets) < 2:
        raise DatasetError(f"{source}: expected two data sets or more, found one. Name the others with --also A,B")
    if twice := [str(folder) for folder, count in Counter(one.folder.resolve() for one in sets).items() if count > 1]:
        raise DatasetError(f"{twice[0]} is named twice. Name each data set once")
    names = tuple(channels) if channels else _one_of([one.channels for one in sets], sets)
    for one in sets:
        if len(one.channels) != len(names):
            raise DatasetError(
                f"{one.folder}: expected {counted(len(names), 'channel')} ({', '.join(names)}), found {len(one.channels)}"
            )
    structures = list(dict.fromkeys(name for one in sets for name in one.labels.structures))
    combinations = {combination for one in sets for combination in _meanings(one.labels).values()}
    labels, values = label_values(combinations, sorted(structures))
    ignore = max(values.values()) + 1 if any(one.labels.ignore is not None for one in sets) else None
    if ignore is not None:
        labels["labels"]["ignore"] = ignore
    ids = Counter(case.id for one in sets for case in (*one.training, *one.test))
    cases = []
    for one in sets:
        renumber = {value: values[meaning] for value, meaning in _meanings(one.labels).items()}
        renumber |= {} if one.labels.ignore is None or ignore is None else {one.labels.ignore: ignore}
        for part, some in (("train", one.training), ("test", one.test)):
            for case in some:
                name = case.id if ids[case.id] == 1 else f"{one.name}_{case.id}"
                cases.append(_found(case, name, part, one, structures, renumber))
    lesions = list(dict.fromkeys(name for one in sets for name in one.lesions))
    return FoundDataset(
        channels=names,
        cases=tuple(cases),
        describe=partial(_describe, labels=labels, known={case.id: dict(case.renumber) for case in cases}),
        findings=tuple(_alike(structures)),
        about={"lesions": lesions} if lesions else {},
    )


def _one_of(channels: Sequence[tuple[str, ...]], sets: Sequence[DatasetSpec]) -> tuple[str, ...]:
    """The common channels of all sets."""
    for names, one in zip(channels, sets, strict=True):
        if names != channels[0]:
            raise DatasetError(
                f"{one.folder}: expected the channels {', '.join(channels[0])}, as in {sets[0].folder}, found "
                f"{', '.join(names)}. If they mean the same, give their names with --channels A,B"
            )
    return channels[0]


def _meanings(labels: LabelSchema) -> dict[int, Combination]:
    """{value: the structures that its voxels belong to}."""
    found: dict[int, set[str]] = {value: set() for value in labels.declared_values}
    for name, group in labels.groups.items():
        for value in group:
            found[value].add(name)
    return {value: frozenset(names) for value, names in found.items()}


def _found(
    case: Case, name: str, part: str, one: DatasetSpec, structures: Sequence[str], renumber: dict[int, int]
) -> FoundCase:
    lacking = set(case.unlabelled)
    annotated = tuple(name for number, name in enumerate(one.labels.structures) if number not in lacking)
    return FoundCase(
        id=name,
        patient=case.patient,
        images=tuple(Source(path) for path in case.image_paths),
        label=case.label,
        part=part,
        renumber=tuple(sorted(renumber.items())),
        annotated=annotated if set(annotated) != set(structures) else None,
    )


def _describe(counted: Counted, labels: dict[str, object], known: dict[str, dict[int, int]]) -> Description:
    """The joined labels, and an error for each case with a value that its own set does not declare."""
    odd = {case: sorted(set(values) - set(known[case])) for case, values in counted.items()}
    findings = [
        error(case, "undeclared-label", f"expected values among {sorted(known[case])}, found {values}", "Name them in its set.")
        for case, values in odd.items()
        if values
    ]
    return labels, findings


def _alike(structures: Sequence[str]) -> list[Finding]:
    """A warning about names that differ only in letter case and spacing: perhaps they mean one structure."""
    seen: dict[str, str] = {}
    found = []
    for name in structures:
        other = seen.setdefault(without_spelling(name), name)
        if other != name:
            message = f"{other!r} and {name!r} are two structures here"
            remedy = "If they are the same, give them the same name in the data sets."
            found.append(Finding("warning", "", "structure-names", message, remedy))
    return found
