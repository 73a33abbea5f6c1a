"""Merges the records and tables of a prediction in shards, as if one command had written them."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.evaluation import Report, write_report
from autoseg.evaluation.folder import completed_notes, lasting_notes
from autoseg.evaluation.report import REPORT_FILE, read_report, summarise
from autoseg.inference.cohort import MADE_BY
from autoseg.names import counted
from autoseg.outputs.tables import refuse_foreign_tables, write_tables
from autoseg.records.cohort import COHORT_FILE, CohortRecord, read_cohort
from autoseg.workspace import read_record, write_json

__all__ = ["merge_shards"]

logger = logging.getLogger(__name__)

RECORD = re.compile(r"run_(\d+)_of_(\d+)\.json")


def merge_shards(folder: Path, *, fresh: bool = False) -> None:
    """Write ``run.json``, the tables and the scores of all cases of a folder that was predicted in shards.

    Nothing is done if there are no shards, or if a command without ``--shard`` has written its own files. A missing shard is a
    warning; the others are merged.

    Args:
        fresh: overwrite files of these names that other programs made.

    Raises:
        AutosegError: shards of different models or options; files in the way.
    """
    shards = _shards_in(folder)
    if not shards or ((folder / COHORT_FILE).exists() and not fresh and read_cohort(folder).shards == 0):
        return
    if not fresh:
        refuse_foreign_tables(folder)
    count = shards[0].shard[1]
    missing = sorted(set(range(count)) - {record.shard[0] for record in shards})
    if missing:
        named = ", ".join(f"{index}/{count}" for index in missing)
        logger.warning("shards that are missing, and whose cases are in no table: %s", named)
    merged = _merged(shards)
    reports = _reports(folder, shards)
    if reports:
        write_report(_together(reports), folder, fresh=fresh)
    write_tables(folder, [one.case for one in merged.cases if one.status in ("done", "skipped")])
    write_json(folder / COHORT_FILE, merged)
    logger.info("%s put together, %s", counted(len(shards), "shard"), counted(len(merged.cases), "case"))


def _shards_in(folder: Path) -> list[CohortRecord]:
    """The records of the shards, in order; if a folder was divided in several ways, those of the last division."""
    found = {path: match for path in folder.glob("run_*_of_*.json") if (match := RECORD.fullmatch(path.name))}
    if not found:
        return []
    count = found[max(found, key=lambda path: path.stat().st_mtime)][2]
    paths = sorted((path for path, match in found.items() if match[2] == count), key=lambda path: int(found[path][1]))
    records = [read_record(CohortRecord, path, strict=False) for path in paths]
    return [record for record in records if record.made_by == MADE_BY]


def _merged(shards: Sequence[CohortRecord]) -> CohortRecord:
    first = shards[0]
    for record in shards[1:]:
        for what in ("model", "options", "labels"):
            if getattr(record, what) != getattr(first, what):
                name = "run_{}_of_{}.json".format(*record.shard)
                raise AutosegError(
                    f"{name}: expected the {what} of the other shards, found another. Predict that shard as the others"
                )
    cases = sorted((case for record in shards for case in record.cases), key=lambda case: case.case)
    last = next((case for case in reversed(cases) if case.device), first)
    return replace(
        first,
        shard=(0, 1),
        shards=len(shards),
        device=last.device,
        precision=last.precision,
        windows={key: sum(record.windows.get(key, 0) for record in shards) for key in ("computed", "of")},
        seconds=sum(record.seconds for record in shards),
        failures={case.case: case.message for case in cases if case.status == "failed"},
        cases=tuple(cases),
    )


def _reports(folder: Path, shards: Sequence[CohortRecord]) -> dict[str, Report]:
    """{i/N: scores} of the shards that have scores."""
    places = {f"{i}/{n}": folder / f"metrics_{i}_of_{n}" / REPORT_FILE for i, n in (record.shard for record in shards)}
    return {name: read_report(path) for name, path in places.items() if path.is_file()}


def _together(reports: dict[str, Report]) -> Report:
    """The report on the cases of all shards."""
    labels = next(iter(reports.values())).labels
    rows = sorted((row for report in reports.values() for row in report.rows), key=lambda row: row.case)
    of_all = set.intersection(*(set(report.notes) for report in reports.values()))
    every = ((name, note) for name, report in reports.items() for note in lasting_notes(report.notes))
    notes = dict.fromkeys(note if note in of_all else f"shard {name}: {note}" for name, note in every)
    files = {case: named for report in reports.values() for case, named in report.files.items()}
    failures = (failure for report in reports.values() for failure in report.failures)
    return summarise(
        rows,
        labels,
        failures=sorted(failures, key=lambda failure: failure.case),
        files=dict(sorted(files.items())),
        notes=completed_notes(notes, rows, labels),
        trained_on=sorted(case for report in reports.values() for case in report.trained_on),
    )
