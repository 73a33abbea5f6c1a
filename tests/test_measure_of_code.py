"""The code stays readable: how long functions, parameter lists and the files of the pipeline may be, and how they talk."""

import ast
from pathlib import Path

from tests.helpers.sources import nodes_of

ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob("autoseg/**/*.py"), *ROOT.glob("planners/**/*.py")]

MOST_PARAMETERS = 9
MOST_LINES = 60  # of a function, without its docstring
MOST_KEYS = 40  # accesses like record["name"] in all of the package, but for those below
FOREIGN = (
    "autoseg/imaging/",
    "autoseg/interop/",
    "autoseg/data/layouts/",
    "autoseg/training/muon.py",
    "autoseg/training/optimizers.py",
)
METRICS = ("dice", "iou", "hd95_mm", "ssim")  # values by the name of their metric
MOST_OF_A_VERB, MOST_OF_ALL_VERBS = 120, 1500  # lines of a file below autoseg/pipeline, and of all


def functions():
    for path in FILES:
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_no_function_takes_more_than_a_reader_can_hold():
    counts = {}
    for name, node in functions():
        a = node.args
        counts[name] = len([arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs) if arg.arg not in ("self", "cls")])
    assert {name: n for name, n in counts.items() if n > MOST_PARAMETERS} == {}, "options are values: pass one"


def body_lines(node):
    first = node.body[0]
    has_docstring = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    begin = first.end_lineno + 1 if has_docstring else first.lineno
    return node.end_lineno - begin + 1


def test_every_function_fits_a_screen():
    lengths = {name: body_lines(node) for name, node in functions()}
    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}, "a heading within is the name of a function"


def test_every_verb_is_a_short_file():
    lengths = {path.name: len(path.read_text().splitlines()) for path in ROOT.glob("autoseg/pipeline/*.py")}
    assert {name: n for name, n in lengths.items() if n >= MOST_OF_A_VERB} == {}, "verbs read, claim, map a step and write"
    assert sum(lengths.values()) < MOST_OF_ALL_VERBS, "what is no verb has a room of its own"


def test_our_own_files_are_read_as_records():
    """``FOREIGN`` read the files and the parameter groups of others."""
    found = []
    for path in (path for path in FILES if not path.relative_to(ROOT).as_posix().startswith(FOREIGN)):
        for node in nodes_of(path):
            is_text = (
                isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str)
            )
            if is_text and isinstance(node.ctx, ast.Load) and node.slice.value not in METRICS:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert len(found) < MOST_KEYS, "\n".join(found)


SPLATTED = {  # what is handed on there, and is no dictionary of options of ours
    "planners/records.py": "the fields of a record, as they were read",
    "autoseg/cli/flags.py": "the fields of options, as they were given",
    "autoseg/options/fields.py": "keywords of argparse",
    "autoseg/training/recipe.py": "settings of a recipe, by their names",
    "autoseg/training/augment/__init__.py": "parameters that a transform drew for itself",
    "autoseg/data/conversion/finding.py": "what one layout alone can be told",
    "autoseg/data/measure.py": "statistics, by their names",
    "autoseg/reconstruct/measure.py": "measurements, by their names",
    "autoseg/interop/nnunet_plans.py": "constants of a scheme, by their names",
    "autoseg/imaging/files.py": "what one file format alone can be told",
    "autoseg/imaging/dicom_file.py": "keywords of pydicom",
    "autoseg/imaging/dicom_seg.py": "keywords of highdicom",
    "autoseg/evaluation/comparison_report.py": "keywords of matplotlib",
}


def test_options_are_not_splatted():
    found = {}
    for path in FILES:
        for node in nodes_of(path):
            for keyword in node.keywords if isinstance(node, ast.Call) else ():
                if keyword.arg is None and isinstance(keyword.value, ast.Name):
                    found[path.relative_to(ROOT).as_posix()] = f"line {node.lineno}: **{keyword.value.id}"
    assert {file: what for file, what in found.items() if file not in SPLATTED} == {}, "name what is handed on"
    assert set(SPLATTED) <= set(found), "lines of SPLATTED that are no longer needed"


def test_every_signature_is_annotated():
    missing = []
    for name, node in functions():
        a = node.args
        own = [arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs) if arg.arg not in ("self", "cls")]
        if node.returns is None or any(arg.annotation is None for arg in own):
            missing.append(name)
    assert missing == []
