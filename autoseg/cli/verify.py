"""``autoseg verify``: every defect of every case, as a table and as JSON."""

import json

from autoseg.cli.common import Progress, positive, workspace_of


def add_arguments(parser):
    parser.add_argument("dataset", metavar="DATASET", help="folder, name or number of a data set")
    parser.add_argument("--json", metavar="FILE", help="write the findings there too ('-' for standard output)")
    parser.add_argument("--workers", type=positive, help="threads; default: one per core, eight at most")


def run(args):
    from autoseg.data.findings import findings_table
    from autoseg.pipeline import verify
    from autoseg.workspace import write_json
    from planners.records import to_json

    findings = verify(args.dataset, workspace_of(args), workers=args.workers, progress=Progress(args)).findings
    if args.json == "-":
        print(json.dumps(to_json(findings), indent=1))
    else:
        if args.json:
            write_json(args.json, findings)
        print(findings_table(findings))
    return 1 if any(finding.severity == "error" for finding in findings) else 0
