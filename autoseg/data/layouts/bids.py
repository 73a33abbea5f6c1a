"""BIDS, the brain imaging data structure: ``sub-01[/ses-1]/anat/sub-01[_ses-1]_T1w.nii.gz``, labels below ``derivatives``.

A case is a session of a subject. Its label is a ``_dseg`` file, or one ``_label-NAME_mask`` file per structure and ``hemi``,
of the same subject and session. A ``dseg.tsv`` (columns index and name) names the values of maps in and below its folder
whose names contain all parts of its own name; ``participants.tsv`` describes the subjects.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autoseg.data.findings import Finding
from autoseg.data.layouts.chosen import choose
from autoseg.data.layouts.folders import read_names, read_table
from autoseg.data.layouts.found import AnyPath, FoundCase, FoundDataset, Source, error, files_below, plain_labels
from autoseg.errors import DatasetError

__all__ = ["find", "suffixes"]

NAME = re.compile(r"(sub-[^_]+)(?:_(ses-[^_]+))?((?:_[^_]+)*)_([A-Za-z0-9]+)(?i:\.nii(?:\.gz)?)")


Images = Mapping[str, Mapping[str, list[Path]]]  # session -> suffix -> files


def find(
    source: AnyPath,
    *,
    channels: Sequence[str] | None = None,
    derivative: str | None = None,
    names: AnyPath | None = None,
    ignore: int | None = None,
    structures: Sequence[str] | None = None,
) -> FoundDataset:
    """Every session of every subject.

    Args:
        source: the root of the data set.
        channels: suffixes of the images, such as ``T1w,FLAIR``; None for those that every labelled session has.
        derivative: the folder below ``derivatives`` to take labels from, if there are several.
        names, ignore, structures: as in the layout ``folders``; None for names from a ``dseg.tsv``.
    """
    source = Path(source)
    images: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    labels: dict[str, list[Path]] = defaultdict(list)
    tables: list[Path] = []
    for path, parts in files_below(source).items():
        in_labels = parts[0] == "derivatives" and derivative in (None, parts[1])
        if in_labels and path.name.endswith("dseg.tsv"):
            tables.append(path)
        if not (match := NAME.fullmatch(path.name)):
            continue
        case = "_".join(part for part in match.groups()[:2] if part)
        if in_labels and match[4] in ("dseg", "mask"):
            labels[case].append(path)
        elif parts[0] != "derivatives" and parts[-2] == "anat" and match[4] not in ("dseg", "mask"):
            images[case][match[4]].append(path)
    if not images:
        raise DatasetError(
            f"{source}: expected files such as sub-01/anat/sub-01_T1w.nii.gz below it, found none. Choose another layout"
        )
    channels = tuple(channels or _common_channels(images, labels))
    if not channels:
        raise DatasetError(
            f"{source}: the labelled sessions have no kind of image in common. Name those to use with --channels"
        )
    cases: list[FoundCase] = []
    findings: list[Finding] = []
    for case, files in sorted(images.items()):
        found, wrong = _case(case, files, labels.get(case, []), channels)
        cases += found
        findings += wrong
    for case in sorted(set(labels) - set(images)):
        message = f"expected an image of the session, found {labels[case][0].name} alone"
        findings.append(error(case, "no-image", message, "Add the image, or remove the label."))
    values = read_names(names) if names else _names(cases, tables, findings)
    dataset = FoundDataset(
        channels=channels,
        cases=tuple(cases),
        describe=plain_labels(values, closed=False, ignore=ignore),
        findings=tuple(findings),
        about=_participants(source / "participants.tsv"),
    )
    return choose(dataset, structures, values, ignore) if structures else dataset


def suffixes(source: AnyPath) -> list[str]:
    """Suffixes of the anatomical images in any session, such as T1w, from the file names."""
    places = (Path(source).glob(f"sub-*/{inner}anat/*") for inner in ("", "ses-*/"))
    matches = (NAME.fullmatch(path.name) for paths in places for path in paths)
    return sorted({match[4] for match in matches if match} - {"dseg", "mask"})


def _common_channels(images: Images, labels: Mapping[str, list[Path]]) -> list[str]:
    """Suffixes that all labelled sessions have, T1w first."""
    counts = Counter(suffix for case in labels for suffix in images.get(case, ()))
    common = [suffix for suffix, n in counts.items() if n == len(set(labels) & set(images))]
    return sorted(common, key=lambda suffix: (suffix != "T1w", suffix))


def _case(
    case: str, files: Mapping[str, list[Path]], labels: list[Path], channels: Sequence[str]
) -> tuple[list[FoundCase], list[Finding]]:
    """([FoundCase] or [], findings) of one session."""
    findings = []
    for channel in channels:
        if len(files[channel]) != 1:
            found = ", ".join(path.name for path in files[channel]) or "none"
            remedy = "Leave one in a copy of the data set, or name the pairs in a table for the layout 'folders'."
            findings.append(error(case, "image-count", f"expected one {channel} image, found {found}", remedy))
    maps = [path for path in labels if "_dseg." in path.name]
    masks = [(structure, path) for path in labels if (structure := _structure(path.name))]
    if len(maps) > 1 or len(dict(masks)) < len(masks):
        found = ", ".join(str(path) for path in maps or labels)
        remedy = "Choose whose labels to use with --derivative NAME, or leave one in a copy of the data set."
        findings.append(error(case, "label-count", f"expected one label, found {found}", remedy))
    if any(finding.severity == "error" for finding in findings):
        return [], findings
    if not maps and not masks:
        message = "a session without a label: it becomes a test case"
        findings.append(Finding("note", case, "no-label", message, "Add its label if it is to be trained on."))
        if labels:
            message = f"expected a _dseg or a _label-NAME_mask as label, found {', '.join(path.name for path in labels)}"
            remedy = "Nothing if it is none; else rename it so, or name the pairs in a table for the layout 'folders'."
            findings.append(Finding("warning", case, "label-name", message, remedy))
    if maps and masks:
        message = f"its label is {maps[0].name}; left out beside it: {', '.join(path.name for _, path in masks)}"
        remedy = "Nothing if the map has their voxels; else name the pairs in a table for the layout 'folders'."
        findings.append(Finding("warning", case, "label-name", message, remedy))
    sources = tuple(Source(files[channel][0]) for channel in channels)
    label, files_of = (maps[0], ()) if maps else (None, tuple(masks))
    part = "train" if label or files_of else "test"
    return [FoundCase(case, case.split("_")[0], sources, label, files_of, part)], findings


def _structure(name: str) -> str | None:
    """What a mask shows: its ``label``, and its side, ``_L`` or ``_R``, of ``hemi``; None for other files."""
    label, hemi = (re.search(rf"_{entity}-([^_]+)_(?:.*_)?mask\.", name) for entity in ("label", "hemi"))
    return label and (f"{label[1]}_{hemi[1]}" if hemi else label[1])


def _names(cases: Sequence[FoundCase], tables: Sequence[Path], findings: list[Finding]) -> dict[int, str]:
    """{value: name} for all maps; a value with two names is added to the findings."""
    known: dict[int, str] = {}
    folders: dict[Path, list[Path]] = defaultdict(list)  # there may be a table for each case
    for path in tables:
        folders[path.parent].append(path)
    only = tables[0] if len(tables) == 1 else None
    table_of = {case.id: _table_of(case.label, folders) or only for case in cases if case.label}
    read = {path: read_names(path) for path in set(table_of.values()) if path}
    for case in cases:
        table = table_of.get(case.id)
        for value, name in read[table].items() if table else ():
            if known.setdefault(value, name) != name:
                message = f"{table}: expected {value} to be {known[value]} as for other maps, found {name}"
                findings.append(error(case.id, "label-name", message, "Name the values with --names FILE."))
    return known


def _table_of(label: Path, folders: Mapping[Path, Sequence[Path]]) -> Path | None:
    """The table of a map by the inheritance principle: in or above its folder, with no name part that the map lacks.

    Of several, the nearest with the most parts; None if none matches.

    Args:
        folders: {folder: the tables in it}.
    """
    parts = set(label.name.partition(".")[0].split("_"))
    above = (path for folder in label.parents for path in folders.get(folder, ()))
    fitting = (path for path in above if set(path.stem.split("_")) <= parts)
    return max(fitting, key=lambda path: (len(path.parts), len(path.stem.split("_"))), default=None)


def _participants(path: Path) -> dict[str, Any]:
    """{"patient_info": {subject: row}} of a participants.tsv, {} if there is none."""
    rows = read_table(path)[1] if path.is_file() else []
    return {"patient_info": {row.pop("participant_id"): row for row in rows if row.get("participant_id")}} if rows else {}
