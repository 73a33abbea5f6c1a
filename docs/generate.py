"""Pages that are made of the code when the site is built, and links that lead out of the site.

``write_pages`` makes the reference of the commands from the parser, and that of recipe, plan and options from the docstrings
and defaults of their classes. It also copies documents that live elsewhere in the repository.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
import posixpath
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import autoseg.cli
import autoseg.options
import planners.plan
from autoseg.options.fields import descriptions, flag_of
from autoseg.training.recipe import RECIPES, PatchStage, Recipe
from planners.records import to_json

ROOT = Path(__file__).parents[1]
FOLDER = Path("docs/generated")  # of the pages, not kept in the repository
COPIED = {  # page: the document that it is a copy of
    "changes.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "dataset-json.md": "dataset_json_examples/README.md",
    "planner.md": "planners/README.md",
    "security.md": "SECURITY.md",
}
EXPERIMENT = re.compile(r"docs/experiments/([\w-]+)\.md")  # as docstrings name one
COSTS = ROOT / "benchmarks" / "results" / "cost_curves.json"
LARGE = "predict, large network over voxels along an edge"
COHORT, COHORT_EDGE = 100_000, 300  # scans; voxels along an edge, as a chest and abdomen have them at 1.5 mm
LINK = re.compile(r"\[([^\]\[]+)\]\((?!\w+:)([^)#\s]+)(#[^)\s]*)?\)")


def write_pages() -> None:
    """Write every generated page below ``docs/generated``."""
    pages = {
        "commands.md": commands_page(),
        "costs.md": costs_page(),
        "options.md": options_page(),
        "plan.md": plan_page(),
        "recipe.md": recipe_page(),
    }
    pages |= {name: (ROOT / source).read_text(encoding="utf-8") for name, source in COPIED.items()}
    for name, text in pages.items():
        path = ROOT / FOLDER / name
        path.parent.mkdir(exist_ok=True)
        text = within_site(text, COPIED.get(name, str(FOLDER / name)), str(FOLDER / name))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # an unchanged page is not built again
            path.write_text(text, encoding="utf-8")


def within_site(text: str, source: str, page: str) -> str:
    """The text of a document with its links as the site needs them.

    Args:
        source: path of the document in the repository; its links start there.
        page: path of the page that it becomes. Links to pages start there; links to other files become their paths.
    """
    pages = {origin: str(FOLDER / name) for name, origin in COPIED.items()}

    def link(match: re.Match[str]) -> str:
        words, anchor = match[1], match[3] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[2]))
        target = pages.get(target, target)
        if target.startswith("docs/"):
            return f"[{words}]({posixpath.relpath(target, posixpath.dirname(page))}{anchor})"
        return f"`{target}`" if words.strip("`") == target else f"{words} (`{target}`)"

    return LINK.sub(link, text)


def commands_page() -> str:
    """All commands with their arguments and options, from the parser itself."""
    lines = ["# Commands", "", "Every command and option, as `autoseg VERB --help` shows them.", ""]
    lines += ["All commands also take `--workspace DIR`, `--quiet` and `--debug`.", ""]
    for verb in autoseg.cli.VERBS:
        parser = parser_of([verb])
        lines += _command(parser, f"autoseg {verb}", level=2)
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for name, part in action.choices.items():
                    lines += _command(part, f"autoseg {verb} {name}", level=3)
    return "\n".join(lines) + "\n"


def costs_page() -> str:
    """The cost curves as they were measured, and what they say of a large cohort; a sentence where nothing was measured yet."""
    lines = ["# Measured costs", ""]
    if not COSTS.is_file():
        return "\n".join([*lines, "Not measured yet: `benchmarks/cost_curves.py` measures it.", ""])
    found = json.loads(COSTS.read_text(encoding="utf-8"))
    machine, curves = found["machine"], found["curves"]
    lines += [
        f"Measured by `benchmarks/cost_curves.py` on {machine['date']}: {machine['processor']}, {machine['cores']} cores.",
        "",
    ]
    for name, curve in curves.items():
        lines += [f"## `autoseg` {name}", "", *_curve(curve), ""]
    large = [point for point in curves.get(LARGE, {}).get("points", ()) if "seconds" in point]
    return "\n".join([*lines, *(_cohort(large) if len(large) > 1 else [])]) + "\n"


def _curve(curve: dict[str, Any]) -> list[str]:
    points = [point for point in curve["points"] if "seconds" in point]
    rows = [(str(p["at"]), f"{p['seconds']:.1f}", f"{p['memory_mib']:.0f}", f"{p['written_mib']:.2f}") for p in points]
    table = _table(("at", "seconds", "peak memory, MiB", "written, MiB"), rows)
    if not curve.get("measured"):
        return table
    names = {"seconds": "time", "memory_mib": "memory", "written_mib": "storage"}
    told = [f"{words}: expected {curve['expected'][key]}, measured {curve['measured'][key]}" for key, words in names.items()]
    left = [f"{point['at']}: {point['left_out']}" for point in curve["points"] if "left_out" in point]
    return [*table, "", f"Exponents of growth. {'; '.join(told)}.", *(["", f"Left out: {'; '.join(left)}."] if left else [])]


def _cohort(points: list[dict[str, float]]) -> list[str]:
    """What a cohort costs by the two largest points: time and storage of a voxel, as time and storage grow with them."""
    before, last = points[-2:]
    voxels = [point["at"] ** 3 for point in (before, last)]
    seconds, written = (
        (last[key] - before[key]) / (voxels[1] - voxels[0]) * COHORT_EDGE**3 for key in ("seconds", "written_mib")
    )
    rows = [
        (f"{jobs}", f"{COHORT * seconds / 86400 / jobs:.1f}", f"{COHORT * written / 2**20:.2f}") for jobs in (1, 10, 100, 1000)
    ]
    return [
        "## A cohort",
        "",
        f"{COHORT} scans of {COHORT_EDGE}³ voxels on the grid of the network, extrapolated from the points of "
        f"{before['at']:.0f}³ and {last['at']:.0f}³ voxels of the large network: {seconds:.0f} s a scan on that machine.",
        "",
        *_table(("machines like it", "days", "masks and records, TiB"), rows),
    ]


def parser_of(arguments: list[str]) -> argparse.ArgumentParser:
    """The parser of the verb that the arguments begin with."""
    whole = autoseg.cli._parser(arguments)
    verbs = next(action for action in whole._actions if isinstance(action, argparse._SubParsersAction))
    parser: argparse.ArgumentParser = verbs.choices[arguments[0]]
    return parser


def _command(parser: argparse.ArgumentParser, name: str, level: int) -> list[str]:
    rows = [
        (" ".join(f"`{word}`" for word in _spelling(action)), action.help or ", ".join(action.choices or ()))
        for action in parser._actions
        if action.dest not in ("help", "workspace", "quiet", "debug") and not isinstance(action, argparse._SubParsersAction)
    ]
    head = ["#" * level + f" {name}", ""] + ([parser.description, ""] if parser.description else [])
    return head + (_table(("argument", "meaning"), rows) if rows else [])


def _spelling(action: argparse.Action) -> list[str]:
    value = action.metavar or ("{" + ",".join(action.choices) + "}" if action.choices else action.dest.upper())
    if action.nargs == 0:
        return list(action.option_strings)
    return [f"{flag} {value}" for flag in action.option_strings] or [str(value)]


def options_page() -> str:
    """The options of the verbs as they are called from Python."""
    lines = ["# Options in Python", "", "Each verb of `autoseg.pipeline` takes one of these values (`autoseg.options`).", ""]
    for name in autoseg.options.__all__:
        cls = getattr(autoseg.options, name)
        meaning = descriptions(cls)
        rows = []
        for field in dataclasses.fields(cls):
            flag = flag_of(field)
            spelt = f" (`{flag.name}`)" if flag else ""
            rows.append((f"`{field.name}`{spelt}", meaning.get(field.name, "")))
        lines += [f"## {name}", "", _summary(cls), "", *_table(("field (flag)", "meaning"), rows)]
    return "\n".join(lines) + "\n"


def plan_page() -> str:
    """The fields of a plan file, and of what it is made of."""
    lines = ["# Plan", "", "A plan is a JSON file in `plans/DATASET` of the workspace. You may edit it.", ""]
    module = planners.plan
    for cls in (module.Plan, module.NetworkSpec, module.AttentionStage, module.ChannelNormalization, module.Resampling):
        lines += [f"## {cls.__name__}", "", _summary(cls), "", *_fields(cls)]
    return "\n".join(lines) + "\n"


def recipe_page() -> str:
    """Every setting of a training run, with the defaults of the recipes that come with autoseg."""
    names = list(RECIPES)
    meaning = descriptions(Recipe, "`")
    rows = [
        (
            f"`{field.name}`",
            *(_json(getattr(RECIPES[name], field.name)) for name in names),
            _linked(meaning.get(field.name, "")),
        )
        for field in dataclasses.fields(Recipe)
        if field.name != "name"
    ]
    head = ["# Recipe", "", "Change a setting with `--set KEY=VALUE`, or give a JSON file with `--recipe FILE`.", ""]
    head += [inspect.cleandoc(inspect.getmodule(Recipe).__doc__ or "").replace("``", "`").partition("\n\n")[2], ""]
    stage = ["## PatchStage", "", "An entry of `patch_curriculum`.", "", _summary(PatchStage), "", *_fields(PatchStage)]
    return "\n".join([*head, *_table(("setting", *names, "meaning"), rows), *stage]) + "\n"


def _linked(words: str) -> str:
    """With a link to each experiment that a docstring names."""
    return EXPERIMENT.sub(r"[\1](../experiments/\1.md)", words)


def _fields(cls: type) -> list[str]:
    meaning = descriptions(cls, "`")
    all_fields = dataclasses.fields(cls)
    rows = [(f"`{one.name}`", f"`{_kind(one.type)}`", _default(one), meaning.get(one.name, "")) for one in all_fields]
    if not meaning:  # told in the text above
        return _table(("field", "type", "default"), [row[:3] for row in rows])
    return _table(("field", "type", "default", "meaning"), rows)


def _summary(cls: type) -> str:
    return inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[0].strip().replace("``", "`")


def _kind(kind: Any) -> str:
    return kind if isinstance(kind, str) else getattr(kind, "__name__", str(kind)) if isinstance(kind, type) else str(kind)


def _default(field: dataclasses.Field[Any]) -> str:
    return "" if field.default is dataclasses.MISSING else _json(field.default)


def _json(value: Any) -> str:
    return f"`{json.dumps(to_json(value))}`"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    def line(row: Iterable[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"

    head = list(head)
    return [line(head), "|" + "---|" * len(head), *map(line, rows), ""]


if __name__ == "__main__":
    write_pages()
