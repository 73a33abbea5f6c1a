"""Cases in which only some structures were annotated, as in a data set joined from several.

The key ``annotated`` of a ``dataset.json`` lists the annotated structures of such a case:
``{"liver_01": ["liver"], "organs_07": ["spleen", "kidney"]}``. Other cases are fully annotated. If files are listed, the list
may be in the entry of the case instead. A structure that is not in the list is *unlabelled* in that case: its voxels have the
background value, which means nothing for this structure. It does not contribute to the loss (``training.losses``) and is not
scored.

Other readers of the format ignore the key and would treat an unlabelled structure as background.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from autoseg.data.findings import Finding
from autoseg.data.labels import LabelSchema
from autoseg.errors import DatasetError, shown
from autoseg.workspace import read_json

__all__ = ["KEY", "check_unlabelled", "count_annotated", "read_unlabelled", "unlabelled_beside"]

KEY = "annotated"


def read_unlabelled(description: Mapping[str, Any], cases: Collection[str], labels: LabelSchema) -> dict[str, tuple[int, ...]]:
    """{case: numbers of its unlabelled structures}, for cases that have any.

    Args:
        description: content of a ``dataset.json``.
        cases: names of all cases.

    Raises:
        DatasetError: wrong form; a case or a structure that does not exist; a case without any structure.
    """
    found = description.get(KEY, {})
    if not isinstance(found, dict):
        raise DatasetError(f'"{KEY}" must be an object of case -> list of structures, found {shown(found)}')
    if unknown := sorted(set(found) - set(cases)):
        raise DatasetError(f'"{KEY}" names {", ".join(unknown[:4])}; there is no such case. Correct the names')
    lacking = {case: _lacking(case, names, labels) for case, names in _named(description).items()}
    return {case: numbers for case, numbers in lacking.items() if numbers}


def _named(description: Mapping[str, Any]) -> dict[str, Any]:
    """{case: its list of structures}, from the key and from the entries of listed cases."""
    listed = [entries for key in ("dataset", "test") if isinstance(entries := description.get(key), dict)]
    inside = {
        case: entry[KEY] for entries in listed for case, entry in entries.items() if isinstance(entry, dict) and KEY in entry
    }
    return dict(description.get(KEY) or {}) | inside


def _lacking(case: str, names: object, labels: LabelSchema) -> tuple[int, ...]:
    """The numbers of the structures that are not among ``names``."""
    structures = dict.fromkeys(labels.structures)
    if not isinstance(names, list) or not names or any(not isinstance(name, str) or name not in structures for name in names):
        known = ", ".join(structures)
        raise DatasetError(f'"{KEY}": case {case!r} needs a list of structures, of {known}; found {shown(names)}')
    return _others(names, labels)


def _others(names: Iterable[object], labels: LabelSchema) -> tuple[int, ...]:
    """The numbers of the structures whose names are not among these."""
    annotated = {name for name in names if isinstance(name, str)}
    return tuple(number for number, name in enumerate(labels.structures) if name not in annotated)


def unlabelled_beside(folders: Iterable[str | Path], labels: LabelSchema) -> dict[str, tuple[int, ...]]:
    """As ``read_unlabelled``, from a ``dataset.json`` in one of the folders or beside it; {} if there is none.

    Cases that are not in it, and structures that are not in ``labels``, are left out.
    """
    places = [Path(folder) for folder in folders]
    for path in (folder / "dataset.json" for folder in dict.fromkeys((*places, *(place.parent for place in places)))):
        description = read_json(path, DatasetError) if path.is_file() else None
        if isinstance(description, dict):
            known = {case: names for case, names in _named(description).items() if isinstance(names, list)}
            return {case: numbers for case, names in known.items() if (numbers := _others(names, labels))}
    return {}


def check_unlabelled(case: str, unlabelled: Collection[int], labels: LabelSchema, values: Iterable[int]) -> list[Finding]:
    """An error if the label of a case has values that belong only to unlabelled structures."""
    if not unlabelled:
        return []
    lacking = set(unlabelled)
    owners: dict[int, list[int]] = {value: [] for value in values}
    for number, group in enumerate(labels.values):
        for value in group:
            if value in owners:
                owners[value].append(number)
    odd = [value for value, numbers in owners.items() if numbers and lacking.issuperset(numbers)]
    if not odd:
        return []
    names = ", ".join(dict.fromkeys(labels.structures[n] for value in odd for n in owners[value]))
    message = f"its label holds {', '.join(map(str, odd[:10]))} ({names}), which is not among its annotated structures"
    remedy = f'Name the structure under "{KEY}" in dataset.json, or take its voxels out of the label.'
    return [Finding("error", case, "label-not-annotated", message, remedy)]


def count_annotated(unlabelled: Iterable[Collection[int]], labels: LabelSchema) -> tuple[int, ...]:
    """The number of cases in which each structure is annotated; () if all are annotated in all cases."""
    cases = list(unlabelled)
    if not any(cases):
        return ()
    lacking = Counter(number for one in cases for number in set(one))
    return tuple(len(cases) - lacking[number] for number in range(len(labels.structures)))
