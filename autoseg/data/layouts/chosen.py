"""The structures chosen from a source (``--structures``): all others are left out of every case.

A structure has the asked name in a case, or the one name there that differs from it only by its spelling
(``names.without_spelling``). If such names mean two structures in any case, only the exact name is taken.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial

from autoseg.data.findings import Finding
from autoseg.data.layouts.found import Counted, Description, FoundCase, FoundDataset, error, unique_names
from autoseg.errors import DatasetError, shown
from autoseg.names import counted, first_of, without_spelling

__all__ = ["choose"]

FEW, MOST = 5, 50  # names in a sentence, and in the list of all
COMPARED = 64  # characters of a name that say how near it is to another


def choose(found: FoundDataset, asked: Sequence[str], values: Mapping[int, str], ignore: int | None = None) -> FoundDataset:
    """The data set with only these structures, in this order.

    Args:
        asked: names of structures.
        values: {label value: name} of its label maps; {} if their values have no names.
        ignore: label value of voxels without annotation.

    Raises:
        DatasetError: the labels have no names, or no case has one of the structures; the message lists the names found.
    """
    if not any(case.label or case.masks for case in found.cases):
        return found  # its findings say why
    asked = tuple(dict.fromkeys(asked))
    named = {value: name for value, name in unique_names(values, values).items() if value not in (0, ignore)}
    names_of = [_names_in(case, named) for case in found.cases]
    cases_of = Counter(name for names in names_of for name in names)
    if not cases_of:
        raise DatasetError(
            "structures: expected labels that name their structures, found label maps without names. Name their values with "
            "--names FILE, or leave --structures out"
        )
    lists = {asked, *map(tuple, names_of)}
    apart = {form for names in lists for form, n in Counter(map(without_spelling, names)).items() if n > 1}
    matched = [_match(asked, names) for names in names_of]
    if lacking := [name for name in asked if not any(name in matches for matches in matched)]:
        raise DatasetError(
            f"structures: expected names of structures, found no case with {', '.join(map(shown, lacking))}. There are: "
            f"{_nearest(cases_of, lacking)}. Correct the names"
        )
    cases, findings, spelt = [], [*found.findings], Counter[tuple[str, str]]()
    for case, names, matches in zip(found.cases, names_of, matched, strict=True):
        called = {name: some[0] for name, some in matches.items() if some == [name] or without_spelling(name) not in apart}
        findings += [_ambiguous(case, name, some) for name, some in matches.items() if name not in called]
        if names and not matches:
            message = f"expected one of the chosen structures, found only {_listed(names)}"
            findings.append(error(case.id, "missing-label", message, "Add one of them, or correct its name."))
        spelt.update((name, own) for name, own in called.items() if own != name)
        cases.append(_masks_of(case, called) if case.masks else case)
    left_out = sorted(set(cases_of) - {name for matches in matched for some in matches.values() for name in some})
    findings += [*_spelled(spelt), *_left_out(left_out)]
    of_maps = next((matches for case, matches in zip(cases, matched, strict=True) if case.label and matches), {})
    number_of = {own: asked.index(name) + 1 for name, some in of_maps.items() for own in some}
    numbers = {value: number_of[name] for value, name in named.items() if name in number_of}
    if ignore is not None:
        numbers[ignore] = len(asked) + 1
    return replace(
        found,
        cases=tuple(replace(c, renumber=tuple(numbers.items())) if c.label and numbers else c for c in cases),
        describe=partial(_describe, names=dict(enumerate(asked, 1)), numbers=numbers, ignore=ignore),
        findings=tuple(findings),
        structures=asked,
    )


def _names_in(case: FoundCase, named: Mapping[int, str]) -> tuple[str, ...]:
    """The names of the structures that a case may have."""
    return tuple(dict.fromkeys(name for name, _ in case.masks)) or (tuple(named.values()) if case.label else ())


def _match(asked: Sequence[str], names: Sequence[str]) -> dict[str, list[str]]:
    """{structure: names in a case that may mean it}: the exact one alone, or all that differ from it only by spelling."""
    forms: dict[str, list[str]] = {}
    own, known = set(names), set(asked)
    for name in names:
        if name not in known:
            forms.setdefault(without_spelling(name), []).append(name)
    found = {name: [name] if name in own else forms.get(without_spelling(name), []) for name in asked}
    return {name: some for name, some in found.items() if some}


def _masks_of(case: FoundCase, called: Mapping[str, str]) -> FoundCase:
    """The case with these structures only; ``called`` is {structure: its name in the case}."""
    meant = {own: name for name, own in called.items()}
    masks = tuple((meant[own], path) for own, path in case.masks if own in meant)
    return replace(case, masks=masks, called=tuple((name, own) for name, own in called.items() if name != own))


def _describe(counts: Counted, names: Mapping[int, str], numbers: Mapping[int, int], ignore: int | None) -> Description:
    """The labels of renumbered label maps, and an error about structures that no map has."""
    there = {numbers.get(value) for values in counts.values() for value in values}
    lacking = [name for number, name in names.items() if number not in there]
    message = f"expected voxels of the chosen structures, found none of {', '.join(lacking)} in any label map"
    findings = [error("", "structures", message, "Leave these names out of --structures.")] if lacking else []
    last = {} if ignore is None else {"ignore": numbers[ignore]}
    return {"labels": {"background": 0} | {name: number for number, name in names.items()} | last}, findings


def _ambiguous(case: FoundCase, name: str, some: Sequence[str]) -> Finding:
    message = f"expected the structure {shown(name)}, found {_listed(some)}; such names mean several structures"
    return error(case.id, "structure-name", message, "Give it the same name in all cases.")


def _spelled(spelt: Mapping[tuple[str, str], int]) -> list[Finding]:
    """A note for each chosen structure that has other names."""
    own: dict[str, list[str]] = {}
    for (name, other), count in spelt.items():
        own.setdefault(name, []).append(f"{shown(other)} in {counted(count, 'case')}")
    remedy = "Nothing if they are the same structure."
    return [
        Finding("note", "", "structure-name", f"{shown(name)} is written {first_of(others, FEW)}", remedy)
        for name, others in own.items()
    ]


def _left_out(names: Sequence[str]) -> list[Finding]:
    message = f"{counted(len(names), 'structure')} not chosen: {_listed(names)}"
    return [Finding("note", "", "left-out", message, "Nothing, or name them with --structures too.")] if names else []


def _nearest(cases_of: Mapping[str, int], lacking: Iterable[str]) -> str:
    """The names found, the most similar to a lacking one first, with their numbers of cases."""
    wanted = [without_spelling(name)[:COMPARED] for name in lacking][:MOST]

    def distance(name: str) -> float:
        form = without_spelling(name)[:COMPARED]
        return -max(difflib.SequenceMatcher(None, form, other).ratio() for other in wanted)

    names = sorted(Counter(cases_of).most_common(), key=lambda item: (-item[1], item[0]))[: 10 * MOST]
    names.sort(key=lambda item: distance(item[0]))
    return first_of((f"{shown(name)} ({counted(count, 'case')})" for name, count in names), MOST, of=len(cases_of))


def _listed(names: Iterable[str]) -> str:
    return first_of(map(shown, names), FEW)
