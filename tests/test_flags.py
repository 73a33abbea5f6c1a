"""A message that names a flag names one of the command that shows it, or the command as well."""

import argparse
import ast
import re
from pathlib import Path

import pytest

from autoseg import cli
from autoseg.imaging.dicom_results import DICOM_RESULTS
from autoseg.options import PredictOptions
from autoseg.options.fields import descriptions
from autoseg.outputs.asked import _made_by_name
from tests.helpers.sources import nodes_of

ROOT = Path(__file__).parents[1] / "autoseg"
NO_MESSAGES = ("cli/", "options/", "page/p", "studies/process.py", "studies/slurm.py")  # parsers, styles, commands that are run
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*\w")
OF_OTHERS = ("--nthreads", "--scheduler-file", "--nproc-per-node", "--upgrade", "--share")  # dask, torchrun, pip, a style
TRAINING = ("train", "compare", "study")
MAPPING = ("plan_and_preprocess", "predict", "reconstruct", "evaluate", "study")  # cases to the workers of an engine
SHOWN_BY = {
    "data/labelmaps.py": ("reconstruct", "evaluate"),
    "data/conversion/description.py": ("convert",),
    "data/layouts/acdc.py": ("convert",),
    "data/layouts/bids.py": ("convert",),
    "data/layouts/chosen.py": ("convert",),
    "data/layouts/folders.py": ("convert",),
    "data/layouts/found.py": ("convert",),
    "data/layouts/join.py": ("convert",),
    "engines/choice.py": MAPPING,
    "engines/cluster.py": MAPPING,
    "evaluation/evaluate.py": ("evaluate",),
    "evaluation/groups.py": ("train", "evaluate", "study"),
    "ledger.py": (*TRAINING, "verify", "predict", "reconstruct", "evaluate", "report", "model"),
    "locks.py": ("study",),
    "networks/devices.py": (*TRAINING, "predict", "model", "recipe", "demo"),
    "outputs/asked.py": ("predict",),
    "outputs/attention.py": ("predict",),
    "outputs/calibration.py": (*TRAINING, "model"),
    "outputs/dicom.py": ("predict",),
    "pipeline/conversion.py": ("convert",),
    "pipeline/importing.py": ("model",),
    "pipeline/station.py": ("predict",),
    "plans.py": (*TRAINING, "recipe"),
    "studies/configuration.py": ("study",),
    "studies/lanes.py": (*TRAINING,),
    "studies/left.py": ("predict",),
    "studies/method.py": TRAINING,
    "studies/settled.py": ("train",),
    "studies/shipping.py": ("study",),
    "studies/shown_recipe.py": ("recipe",),
    "studies/study.py": ("study",),
    "training/checkpoint.py": TRAINING,
    "training/fold.py": TRAINING,
    "training/follow.py": ("train",),
    "training/loop.py": TRAINING,
    "training/losses.py": (*TRAINING, "recipe"),
    "training/memory.py": TRAINING,
    "training/ranks.py": ("train",),
    "training/settle.py": (*TRAINING, "recipe"),
    "training/transfer.py": ("train",),
    "workspace.py": tuple(cli.VERBS),
}


def flags_of(parser):
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    own = {flag for action in parser._actions for flag in action.option_strings}
    return own.union(*(flags_of(one) for action in inner for one in action.choices.values()))


@pytest.fixture(scope="module")
def flags():
    (verbs,) = (action for action in cli.whole_parser()._actions if isinstance(action, argparse._SubParsersAction))
    return {verb: flags_of(parser) for verb, parser in verbs.choices.items()}


def texts_in(path):
    """The strings of a file without its documentation, what is put into them left out."""
    nodes, inner = nodes_of(path), set()
    for node in nodes:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            inner.add(node.value)
        if isinstance(node, ast.JoinedStr):
            inner |= set(node.values)
            yield "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    yield from (
        node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in inner
    )


def named_in(path):
    """(flag, the command before it in the same message, or "") of every flag in the messages of a file."""
    for text in texts_in(path):
        for flag in FLAG.finditer(text):
            commands = re.findall(r"autoseg (\w+)", text[: flag.start()])
            yield flag[0], commands[-1] if commands and commands[-1] in cli.VERBS else ""


def test_every_flag_in_a_message_is_one_of_the_command_that_shows_it(flags):
    unknown = {}
    for path in sorted(ROOT.glob("**/*.py")):
        name = path.relative_to(ROOT).as_posix()
        for flag, command in () if name.startswith(NO_MESSAGES) else named_in(path):
            verbs = (command,) if command else SHOWN_BY.get(name, ())
            if flag not in OF_OTHERS and (not verbs or any(flag not in flags[verb] for verb in verbs)):
                unknown[name, flag] = [verb for verb in verbs if flag not in flags[verb]]
    assert unknown == {}, "name the command before the flag, or add to SHOWN_BY who shows the messages of the file"


def test_help_names_every_result_that_write_takes():
    (verbs,) = (action for action in cli.whole_parser()._actions if isinstance(action, argparse._SubParsersAction))
    (shown,) = (action.help for action in verbs.choices["predict"]._actions if "--write" in action.option_strings)
    known = {*_made_by_name(".nii.gz"), *DICOM_RESULTS}
    assert "probabilities" in known
    for text in (shown, descriptions(PredictOptions)["write"]):
        assert known <= set(re.findall(r"\w+", text))
