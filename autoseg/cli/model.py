"""``autoseg model``: pack a model into one file, import and export models, and show what a model contains."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import Any

from autoseg.cli.common import add_common, runtime_of, share_cores, workspace_of
from autoseg.cli.flags import add_flags
from autoseg.engines import core_use
from autoseg.options import Runtime


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    export = actions.add_parser("export", help="write a model as one zip, as ONNX, or for nnU-Net")
    export.add_argument("model", metavar="MODEL", help="name or folder")
    export.add_argument("file", metavar="FILE", help="what to write: a zip, an .onnx file, or a folder for nnU-Net")
    export.add_argument("--format", choices=("autoseg", "onnx", "nnunet"), default="autoseg", help="default: autoseg's own")
    export.add_argument("--fresh", action="store_true", help="with autoseg's own format: overwrite a file of another program")
    install = actions.add_parser("import", help="check a model file and add it to the workspace")
    install.add_argument(
        "file", metavar="FILE", help="zip or folder; also results of nnU-Net 2: folder, exported zip, or one fold"
    )
    install.add_argument("--name", help="default: the file's name, or data set and configuration of nnU-Net's")
    info = actions.add_parser("info", help="describe a model")
    info.add_argument("model", metavar="MODEL", help="name, folder or zip")
    info.add_argument("--json", action="store_true", help="print the description as JSON")
    calibrate = actions.add_parser("calibrate", help="find which windows a model can skip")
    calibrate.add_argument("model", metavar="MODEL", help="name or folder")
    calibrate.add_argument(
        "--cases", required=True, metavar="DIR", help="scans larger than the model's windows; labels are not needed"
    )
    add_flags(calibrate, Runtime, only=("device",))
    for action in (export, install, info, calibrate):
        add_common(action)


def run(args: argparse.Namespace) -> None:
    before = core_use()
    from autoseg.pipeline import calibrate_model, describe_model, export_model, import_model

    workspace = workspace_of(args)
    if args.action == "export":
        print(export_model(args.model, args.file, workspace, format=args.format, fresh=args.fresh))
    elif args.action == "import":
        print(import_model(args.file, workspace, name=args.name))
    elif args.action == "calibrate":
        share_cores(before, args.device)
        found = calibrate_model(args.model, args.cases, workspace, runtime_of(args))
        print(found.summary(describe_model(args.model, workspace)["structures"]))
    else:
        about = describe_model(args.model, workspace)
        print(json.dumps(about, indent=1) if args.json else "\n".join(_lines(about)))


def _lines(about: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """Lines for people: without recipe settings, which are in ``--json`` and the methods text, and without empty values."""
    for key, value in about.items():
        if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()) and len(indent) < 4:
            yield f"{indent}{_plain(key)}:"
            yield from _lines(value, indent + "  ")
        elif text := _text(value):
            yield f"{indent}{_plain(key)}: {text}"


def _text(value: Any) -> str:
    """A value in a line; '' if it is empty."""
    if isinstance(value, dict):
        parts = ((key, _text(part)) for key, part in value.items() if key != "recipe")
        return ", ".join(f"{_plain(key)} {text}" for key, text in parts if text)
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return "" if value is None else _plain(value)


def _plain(value: Any) -> str:
    """A value as text; its control characters, which could be commands to a terminal, are escaped."""
    return text if (text := str(value)).isprintable() else repr(text)
