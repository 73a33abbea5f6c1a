"""``autoseg networks``: what ``--network`` takes."""

from __future__ import annotations

import argparse
import json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--list", action="store_true", help="name, size and one line about each (default)")
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def run(args: argparse.Namespace) -> int:
    from autoseg.pipeline import networks
    from planners.records import to_json

    found = networks()
    print(json.dumps(to_json(found.networks), indent=1) if args.json else found.summary())
    return 0
