"""Bring a source in a known layout into a data-set folder, without touching it.

Everything is looked at before anything is written: a source with defects is refused with all of them. Files stay where they
are and are listed in ``dataset.json``, or they are linked or copied under nnU-Net's names; only what has to change (a channel
of a 4D file, structures of separate files, another file type) is written anew. ``conversion.jsonl`` says what each file was
made from, so that an interrupted conversion goes on and a finished one is checked.
"""

import contextlib
import inspect
import json
import os
import shutil
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np

from autoseg.atomic import remove_leftovers, replacing
from autoseg.data.findings import findings_table
from autoseg.data.layouts import LAYOUTS
from autoseg.data.layouts.found import Source
from autoseg.data.layouts.reading import combine, label_values, read_image, see_cases
from autoseg.data.scan import Finding
from autoseg.engines import map_cases
from autoseg.errors import AutosegError, DatasetError
from autoseg.imaging.files import FORMATS, ending_of, read_file, read_geometry, read_label_volume, write_label_volume
from autoseg.imaging.raw import digest_of, read_bytes
from autoseg.imaging.volume import LabelVolume
from autoseg.pipeline.quiet import mute, silent
from autoseg.room import check_writable, told_when_full
from autoseg.workspace import read_json, write_json, write_text
from planners.records import to_json

__all__ = ["Converted", "convert"]

RECORD = "conversion.jsonl"
ONE_FILE = {".nhdr": ".nrrd", ".mhd": ".mha"}  # a header with its voxels elsewhere is not linked or copied alone


@dataclass(frozen=True)
class Converted:
    """What a conversion made: cases by part, files written and files that were there; and the findings.

    ``left_out`` are cases with errors, ``failures`` sentences about cases that could not be written.
    """

    folder: Path
    training: int
    test: int
    written: int
    kept: int
    left_out: tuple[str, ...]
    failures: tuple[str, ...]
    findings: tuple[Finding, ...]

    def summary(self):
        lines = [findings_table(self.findings)] if self.findings else []
        lines += [f"failed: {failure}" for failure in self.failures]
        lines += [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        made = f"{self.written} files written, {self.kept} were there"
        return "\n".join([*lines, f"{self.training} training and {self.test} test cases, {made}: {self.folder}"])


@dataclass(frozen=True)
class Part:
    """One file of the data set: how it comes about, from what, and where it is to stand (None: it stays where it is).

    ``make`` writes to the path that it is given; None for a link or a copy of the one source.
    """

    sources: tuple[Path, ...]
    target: str | None
    key: str
    make: object = None


@dataclass(frozen=True)
class Target:
    """The folder that is made, and its record: what it is made of, and of each file its key and digest."""

    folder: Path
    about: dict
    record: dict = field(default_factory=dict)

    def begin(self):
        """Write the record anew, without a last line that a kill has cut short."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / RECORD, _as_lines([self.about, *self.record.values()]))

    def end(self, files):
        """Write the record anew, of these files and in the order of their names, whatever order they were made in."""
        write_text(self.folder / RECORD, _as_lines([self.about, *(self.record[name] for name in sorted(files))]))

    def append(self, entries):
        with told_when_full(self.folder), open(self.folder / RECORD, "a", encoding="utf-8") as lines:
            lines.write(_as_lines(entries))
        self.record.update({entry["file"]: entry for entry in entries})


def _as_lines(entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


def convert(
    layout,
    source,
    target,
    *,
    options=None,
    mode="reference",
    skip_bad=False,
    workers=None,
    say=mute,
    progress=silent,
):
    """Convert a source to a data-set folder.

    Args:
        layout: a key of ``LAYOUTS``.
        source: folder or table, read only.
        target: folder to be made; one that an interrupted conversion of the same kind left goes on.
        options: of the layout, see the function ``find`` of its module.
        mode: ``reference``, ``link`` (hard links, copies where the file system has none) or ``copy``.
        skip_bad: leave cases with errors out instead of refusing.

    Returns:
        Converted

    Raises:
        DatasetError: no such source, no case in it, or defects: all of them in the message, nothing is written.
    """
    source, target = Path(os.path.abspath(source)), Path(os.path.abspath(target))
    options = options or {}
    found = _find(layout, source, options)
    about = {"layout": layout, "source": str(source), "mode": mode, "options": {name: str(options[name]) for name in options}}
    made = _open_target(target, source, about)
    check_writable(target)
    say(f"{len(found.cases)} cases found; reading them")
    groups = [tuple(group) for _, group in groupby(found.cases, key=lambda case: case.images[0].path)]
    outcomes = map_cases(
        partial(see_cases, channels=found.channels),
        groups,
        workers=workers,
        name=lambda group: group[0].id,
        on_done=progress("read", len(groups)),
    )
    seen = [case for outcome in outcomes for case in _value(outcome)]
    description, values, wrong = _describe(found, seen)
    findings = (*found.findings, *wrong, *(finding for case in seen for finding in case.findings))
    bad = {finding.case for finding in findings if finding.severity == "error"}
    if "" in bad or (bad and not skip_bad):
        errors = sum(finding.severity == "error" for finding in findings)
        remedy = "" if "" in bad else "\nMend the source, or leave these cases out with --skip-bad."
        raise DatasetError(f"{source} has {errors} errors; nothing was written\n{findings_table(findings)}{remedy}")
    good = [case for case in seen if case.case.id not in bad]
    if not any(case.case.part != "test" for case in good):
        raise DatasetError(f"{source}: no case to train on is left; nothing was written\n{findings_table(findings)}")
    return _write(made, found, good, description, values, tuple(sorted(bad)), findings, workers, say, progress)


def _find(layout, source, options):
    """What the layout finds; an option that it does not have is an error that lists those it has."""
    find = LAYOUTS[layout]
    known = [name for name, about in inspect.signature(find).parameters.items() if about.kind is about.KEYWORD_ONLY]
    if unknown := sorted(set(options) - set(known)):
        raise AutosegError(f"layout {layout!r} has no option {unknown[0]!r}; it has: {', '.join(known) or 'none'}")
    return find(source, **options)


def _value(outcome):
    if outcome.error is not None:
        raise outcome.error
    return outcome.value


def _open_target(folder, source, about):
    """The Target, nothing written yet.

    Raises:
        DatasetError: the folder lies in the source, or holds something that this conversion did not make.
    """
    real = folder.resolve()
    if source.resolve() in (real, *real.parents):
        raise DatasetError(f"{folder} lies in {source}, which is never written to. Choose a folder outside")
    target = Target(folder, about)
    remove_leftovers(folder)  # a kill in the first writes leaves nothing else
    if not folder.exists() or not any(folder.iterdir()):
        return target
    lines = _lines(folder / RECORD)
    if not lines or lines[0] != about:
        raise DatasetError(
            f"{folder}: expected an empty folder, or one that the same conversion began; found another. "
            "Choose a new folder, or empty this one"
        )
    target.record.update({line["file"]: line for line in lines[1:]})
    return target


def _lines(path):
    """The lines of a record; the last one may be cut short."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines


def _describe(found, seen):
    """(label keys of dataset.json, {combination: value} of separate files, findings)."""
    usable = [case for case in seen if case.usable]
    masks = [case for case in usable if case.case.masks]
    if not masks:
        description, findings = found.describe({case.case.id: case.values for case in usable if case.case.label})
        return description, {}, findings
    combinations = {combination for case in masks for combination in case.combinations}
    structures = {name for case in masks for name, _ in case.case.masks}
    description, values = label_values(combinations, structures)
    findings = []
    for case in masks:
        if lacking := sorted(structures - {name for name, _ in case.case.masks}):
            message = f"no file of {', '.join(lacking)}: taken as absent"
            findings.append(Finding("note", case.case.id, "absent-structure", message, "Add the file if it is not absent."))
    remedy = "Give all cases a label map, or all of them a file for each structure."
    findings += [
        Finding("error", case.case.id, "label-kind", "expected a file for each structure, found a label map", remedy)
        for case in usable
        if case.case.label
    ]
    return description, values, findings


def _write(made, found, good, description, values, bad, findings, workers, say, progress):
    """Everything that has to be written; Converted."""
    ending = _ending(good, made.about["mode"])
    parts = {case.case.id: _parts(case, ending, values, made.about["mode"]) for case in good}
    made.begin()

    def done(outcome):
        if outcome.error is None:
            made.append([entry for entry, is_new in outcome.value if is_new])
        shown(outcome)

    shown = progress("write", len(good)) if any(part.target for group in parts.values() for part in group) else mute
    outcomes = map_cases(
        lambda case: [_make(part, made) for part in parts[case.case.id] if part.target],
        good,
        workers=workers,
        name=lambda case: case.case.id,
        on_done=done,
    )
    failures = tuple(f"{outcome.name}: {outcome.error}" for outcome in outcomes if outcome.error is not None)
    whole = [case.case for case, outcome in zip(good, outcomes, strict=True) if outcome.error is None]
    if not any(case.part != "test" for case in whole):
        raise DatasetError(f"{made.folder}: no case could be written\n  " + "\n  ".join(failures))
    written = [is_new for outcome in outcomes for _, is_new in outcome.value or ()]
    entries = [entry for outcome in outcomes for entry, _ in outcome.value or ()]
    _remove_stale(made, {entry["file"] for entry in entries})
    if copied := sum(entry["how"] == "copied" for entry in entries) * (made.about["mode"] == "link"):
        say(f"{copied} files were copied, because they cannot be linked from where they are")
    _write_json(made, "dataset.json", _dataset_json(made, found, whole, parts, description, ending), say)
    if any(case.part == "val" for case in whole):
        names = {part: sorted(case.id for case in whole if case.part == part) for part in ("train", "val")}
        _write_json(made, "splits.json", [names], say)
    made.end({*(entry["file"] for entry in entries), *({"dataset.json", "splits.json"} & set(made.record))})
    training = sum(case.part != "test" for case in whole)
    return Converted(made.folder, training, len(whole) - training, sum(written), written.count(False), bad, failures, findings)


def _ending(good, mode):
    """The ending of most images; that of the data set."""
    endings = Counter(ending_of(source.path) for case in good for source in case.case.images)
    ending = endings.most_common(1)[0][0]
    return ending if mode == "reference" else ONE_FILE.get(ending, ending)


def _parts(seen, ending, values, mode):
    """The files of a case: one Part for each image, and one for its label if it has one."""
    case = seen.case
    where = "Ts" if case.part == "test" else "Tr"

    def part(source, target, make=_write_volume):
        key = digest_of(json.dumps([seen.digests[source.path], source.volume, target, mode]).encode())
        if source.volume is not None or (mode != "reference" and not source.path.name.lower().endswith(ending)):
            return Part((source.path,), target, key, partial(make, source))
        return Part((source.path,), None if mode == "reference" else target, key)

    parts = [part(source, f"images{where}/{case.id}_{i:04d}{ending}") for i, source in enumerate(case.images)]
    target = f"labels{where}/{case.id}{ending}"
    if case.label:
        parts.append(part(Source(case.label), target, partial(_write_label, case.images[0].path)))
    elif case.masks:
        numbers = sorted((sorted(group), value) for group, value in values.items())
        key = digest_of(json.dumps([[seen.digests[path] for _, path in case.masks], numbers, target]).encode())
        make = partial(_write_combined, case.masks, values, case.images[0].path)
        parts.append(Part(tuple(path for _, path in case.masks), target, key, make))
    return parts


def _write_volume(source, path):
    """One volume of a file, or all of a file of another type, in its own number type."""
    content = read_image(source)
    like = source.path if FORMATS[ending_of(source.path)] is FORMATS[ending_of(path)] else None
    FORMATS[ending_of(path)].write(path, content.data, content.geometry, like)


def _write_label(image, source, path):
    """A label map as another type of file; a DICOM segmentation on the grid of the image."""
    write_label_volume(read_label_volume(source.path, onto=read_geometry(image)), path)


def _write_combined(masks, values, image, path):
    """The label map of structures in separate files, on the grid of the image."""
    geometry = read_file(image).geometry
    codes, combinations = combine(
        ((name, read_file(file, as_label=True, onto=geometry).data[0] != 0) for name, file in masks), geometry.shape
    )
    table = np.array([values[frozenset(combination)] for combination in combinations])
    write_label_volume(LabelVolume(table[codes], geometry), path, like=image)


def _make(part, made):
    """Write, link or copy a file unless it is there; its entry in the record, and whether it is new."""
    path = made.folder / part.target
    old = made.record.get(part.target, {})
    if old.get("key") == part.key and path.is_file() and digest_of(read_bytes(path)) == old["digest"]:
        return old, False
    path.parent.mkdir(parents=True, exist_ok=True)
    how = "written"
    if part.make:
        part.make(path)
    else:
        how = _place(part.sources[0], path, made.about["mode"])
    return {"file": part.target, "key": part.key, "digest": digest_of(read_bytes(path)), "how": how}, True


def _place(source, path, mode):
    """Link or copy a file; which of the two it was."""
    if mode == "link":
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            os.link(source.resolve(), path)
            return "linked"
    with replacing(path) as draft:
        shutil.copyfile(source, draft)
    return "copied"


def _remove_stale(made, wanted):
    """Take away files of an earlier run whose cases are no longer part of the data."""
    for file in set(made.record) - wanted - {"dataset.json", "splits.json"}:
        (made.folder / file).unlink(missing_ok=True)


def _dataset_json(made, found, cases, parts, description, ending):
    about = {
        "name": made.folder.name,
        **found.about,
        "channel_names": {str(number): name for number, name in enumerate(found.channels)},
        **description,
        "numTraining": sum(case.part != "test" for case in cases),
        "file_ending": ending,
        "converted_by": f"autoseg convert {made.about['layout']}",
    }
    if made.about["mode"] != "reference":
        return about | {"patients": {case.id: case.patient for case in cases}}
    listing = {case.id: _listed(case, parts[case.id], made.folder) for case in cases}
    tests = {case.id for case in cases if case.part == "test"}
    about["dataset"] = {name: entry for name, entry in listing.items() if name not in tests}
    return about | ({"test": {name: listing[name] for name in listing if name in tests}} if tests else {})


def _listed(case, parts, folder):
    """The entry of a case under ``dataset``: paths from the folder where source and folder move together."""

    def path_of(part):
        if part.target:
            return part.target
        (path,) = part.sources
        return os.path.relpath(path, folder) if folder.parent in path.parents else str(path)

    paths = [path_of(part) for part in parts]
    has_label = bool(case.label or case.masks)
    label = {"label": paths[-1]} if has_label else {}
    return {"images": paths[: len(case.images)]} | label | {"patient": case.patient}


def _write_json(made, name, value, say):
    """Write a JSON file of the data set; one that somebody edited since stays as it is."""
    path, old = made.folder / name, made.record.get(name)
    ours = not path.is_file() or read_json(path) == to_json(value)  # a kill may have come before the record
    if not ours and (old is None or digest_of(read_bytes(path)) != old["digest"]):
        say(f"{path} was edited and stays as it is")
        return
    write_json(path, value)
    made.append([{"file": name, "key": "", "digest": digest_of(read_bytes(path)), "how": "written"}])
