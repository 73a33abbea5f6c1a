"""Convert a source in a known layout to a data-set folder, without changing the source.

Everything is checked before anything is written. If the source has defects, it is refused with a list of all of them. Files
stay where they are and are listed in ``dataset.json``, or they are linked or copied under nnU-Net's names. A new file is
written only if the content must change (a channel of a 4D file, structures of separate files, another file type).
``conversion.jsonl`` records what each file was made from, so that an interrupted conversion can continue and a finished one
can be checked.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from autoseg.data.conversion.description import Description, describe, refused_names
from autoseg.data.conversion.finding import find_source, read_source
from autoseg.data.conversion.parts import usual_ending
from autoseg.data.conversion.writing import Made, write_dataset
from autoseg.data.file_checks import check_own_labels
from autoseg.data.findings import Finding, findings_table
from autoseg.errors import DatasetError
from autoseg.ledger import Journal
from autoseg.names import counted
from autoseg.options import ConvertOptions, Runtime
from autoseg.places import check_folder
from planners.records import digest

__all__ = ["Converted", "convert"]

logger = logging.getLogger(__name__)

RECORD = "conversion.jsonl"


@dataclass(frozen=True)
class Converted:
    """The result of a conversion, and the findings; ``left_out`` are cases with errors."""

    folder: Path
    made: Made
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Sentences about cases that could not be written."""
        return self.made.failures

    def summary(self) -> str:
        made = self.made
        lines = [findings_table(self.findings)] if self.findings else []
        lines += [f"failed: {failure}" for failure in made.failures]
        lines += [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        cases = f"{made.training} training and {counted(made.test, 'test case')}"
        there = made.written or made.kept
        files = f"{counted(made.written, 'file')} written, {made.kept} were there" if there else "files stay in place"
        return "\n".join([*lines, f"{cases}, {files}: {self.folder}"])


def convert(
    layout: str,
    source: str | PathLike[str],
    target: str | PathLike[str],
    options: ConvertOptions | None = None,
    runtime: Runtime | None = None,
) -> Converted:
    """Convert a source to a data-set folder.

    Args:
        layout: a key of ``LAYOUTS``.
        source: folder or table, read only.
        target: folder to create. If an interrupted conversion of the same kind left it, the conversion continues.
        options: how to convert. The options of a layout are the parameters of the function ``find`` in its module.
        runtime: threads and progress.

    Returns:
        Converted

    Raises:
        DatasetError: no such source, no case in it, or defects. The message lists all of them; nothing is written.
    """
    source, target = Path(os.path.abspath(source)), Path(os.path.abspath(target))
    options, runtime = options or ConvertOptions(), runtime or Runtime()
    check_folder(target)
    found, chosen = find_source(layout, source, options)
    mode = "link" if options.link else "copy" if options.copy else "reference"
    asked = {"layout": layout, "source": str(source), "mode": mode, "options": {name: str(chosen[name]) for name in chosen}}
    real = target.resolve()
    for folder in (source, *map(Path, chosen.get("also", ()))):
        if folder.resolve() in (real, *real.parents):
            raise DatasetError(f"{target} lies in {folder}, which is never written to. Choose a folder outside it")
    about = {"layout": layout, "mode": mode, "call": digest(asked)}  # without paths of this machine
    journal = Journal.open(target / RECORD, about, DatasetError, formerly=asked)
    logger.info("%s found; reading", counted(len(found.cases), "case"))
    seen = read_source(found, runtime)
    labels, values, wrong = describe(found, seen)
    twice = check_own_labels((case.id, case.patient, case.label) for case in found.cases)
    findings = (
        *found.findings,
        *refused_names(found.cases),
        *twice,
        *wrong,
        *(finding for case in seen for finding in case.findings),
    )
    bad = {finding.case for finding in findings if finding.severity == "error"}
    if "" in bad or (bad and not options.skip_bad):
        errors = sum(finding.severity == "error" for finding in findings)
        remedy = "" if "" in bad else "\nRepair the source, or leave these cases out with --skip-bad."
        raise DatasetError(f"{source} has {counted(errors, 'error')}; nothing was written\n{findings_table(findings)}{remedy}")
    good = [case for case in seen if case.case.id not in bad]
    if not any(case.case.part != "test" for case in good):
        raise DatasetError(f"{source}: no case to train on is left; nothing was written\n{findings_table(findings)}")
    description = Description(target, layout, mode, found, labels, usual_ending(good, mode))
    made = write_dataset(description, journal, good, values, runtime)
    return Converted(target, made, tuple(sorted(bad)), findings)
