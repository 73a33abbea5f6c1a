"""``autoseg slurm``: the remaining work of a command as a SLURM job array."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from autoseg.cli.common import workspace_of
from autoseg.cli.flags import add_flags, options_from
from autoseg.errors import AutosegError
from autoseg.options import PredictOptions, Runtime, SlurmOptions, StudyOptions, TrainOptions
from autoseg.studies.slurm import JobArray, submission

Words = tuple[str, ...]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_flags(parser, SlurmOptions)
    parser.add_argument(
        "command",
        nargs=argparse.REMAINDER,
        metavar="-- train|study|predict ...",
        help="the command that the jobs share, as it would be given without SLURM",
    )


def run(args: argparse.Namespace) -> int:
    from autoseg.cli import parse
    from autoseg.names import counted  # imports numpy, which --help does not need

    options = options_from(args, SlurmOptions())
    words = tuple(args.command[1:] if args.command[:1] == ["--"] else args.command)
    if not words or words[0] not in KINDS:
        raise AutosegError(f"slurm: expected -- and a command, one of {', '.join(KINDS)}, found {' '.join(words) or 'none'}")
    asked = parse(words)
    if asked.fresh:
        raise AutosegError("--fresh: a job that goes on after an interruption would begin again. Give another --name or folder")
    if asked.workspace is None:
        words = (
            *words,
            "--workspace",
            str(workspace_of(argparse.Namespace(workspace=asked.workspace or args.workspace)).folder),
        )
        asked = parse(words)
    array = KINDS[words[0]](asked, words, options)
    print(submission(array, options, Path.cwd()), end="")
    print(f"{counted(len(array.commands), 'job')} left, and one that follows", file=sys.stderr)
    return 0


def _train(asked: argparse.Namespace, words: Words, options: SlurmOptions) -> JobArray:
    from autoseg.studies.left import folds_left

    runtime = options_from(asked, Runtime())
    left = folds_left(asked.dataset, asked.fold, workspace_of(asked), options_from(asked, TrainOptions()), _device(runtime))
    return JobArray("train", tuple(_of_fold(words, asked, fold) for fold in left), words, needs_all=True)


def _study(asked: argparse.Namespace, words: Words, options: SlurmOptions) -> JobArray:
    from autoseg.studies.left import trainings_left

    study, runtime = options_from(asked, StudyOptions()), options_from(asked, Runtime())
    left = trainings_left(asked.dataset, workspace_of(asked), study, _device(runtime))
    return JobArray(study.name, left, words, needs_all=True)


def _predict(asked: argparse.Namespace, words: Words, options: SlurmOptions) -> JobArray:
    from autoseg.pipeline import find_model
    from autoseg.studies.left import shards_left

    if asked.watch is not None:
        raise AutosegError("--watch: a station runs until somebody stops it, and cannot be shared by jobs. Leave it out")
    model = find_model(asked.model, workspace_of(asked))
    left = shards_left(asked.input, asked.output, Path(model), options_from(asked, PredictOptions()), options.shards)
    return JobArray(
        "predict", tuple((*words, "--shard", f"{shard}/{options.shards}") for shard in left), words, needs_all=False
    )


KINDS: dict[str, Callable[[argparse.Namespace, Words, SlurmOptions], JobArray]] = {
    "train": _train,
    "study": _study,
    "predict": _predict,
}


def _device(runtime: Runtime) -> Runtime:
    """The runtime of the jobs, whose machines may differ from this one."""
    if runtime.device == "auto":
        raise AutosegError(
            "--device: expected the device of the jobs, found auto. They run on other machines, and a training run on a CPU "
            "differs from one on a GPU. Give --device cuda or --device cpu"
        )
    return runtime


def _of_fold(words: Words, asked: argparse.Namespace, fold: str) -> Words:
    """The same command for one fold: replaces the word that sets the fold and changes nothing else."""
    from autoseg.cli import parse

    wanted: dict[str, object] = {**vars(asked), "fold": fold}
    for place in _places(words, asked.fold):
        changed = (*words[:place], fold, *words[place + 1 :])
        if vars(parse(changed)) == wanted:
            return changed
    raise AssertionError("the fold is a word of its command")


def _places(words: Sequence[str], word: str) -> list[int]:
    return [place for place, other in enumerate(words) if other == word]
