"""``autoseg verify``: every defect of every case, as a table and as JSON."""

from __future__ import annotations

import argparse

from autoseg.cli.common import check_json_file, print_findings, runtime_of, workspace_of
from autoseg.cli.flags import add_flags
from autoseg.options import Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument("--json", metavar="FILE", help="also write the findings to FILE ('-' for standard output)")
    help_of_fresh = "read every file again; also overwrite a FILE of another program"
    add_flags(parser, Runtime, only=["workers", "fresh"], help={"fresh": help_of_fresh})


def run(args: argparse.Namespace) -> int:
    from autoseg.data.findings import findings_table
    from autoseg.pipeline import verify
    from autoseg.places import FINDINGS

    check_json_file(args.json, FINDINGS, fresh=args.fresh)
    findings = verify(args.dataset, workspace_of(args), runtime_of(args)).findings
    print_findings(findings, args.json, findings_table(findings))
    return 1 if any(finding.severity == "error" for finding in findings) else 0
