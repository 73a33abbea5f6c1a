"""The command line: one module per verb, each a thin shell over ``autoseg.pipeline``.

Only this package reads arguments and the environment, and only this package prints: progress to standard error, results
to standard output. Exit status: 0 all done; 1 some cases failed and the others finished; 2 wrong call or input;
130 interrupted.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import io
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from autoseg.cli.common import add_common, install_log, place_among_ranks
from autoseg.errors import AutosegError

__all__ = ["main", "parse"]

VERBS = {
    "convert": "make a data-set folder from public data or from any scans and labels",
    "verify": "find every defect of a data set",
    "plan_and_preprocess": "verify, measure, plan and prepare data sets",
    "train": "train one fold or several, then predict and score the validation cases",
    "predict": "segment a scan or a folder of scans",
    "reconstruct": "make surfaces, measurements and cubic voxels from the label maps of any tool",
    "evaluate": "score predictions against references",
    "report": "write the HTML report of a run, a study, predictions, reconstructions or an evaluation",
    "compare": "train several networks under equal conditions and compare them by paired tests",
    "study": "cross-validate configurations, choose by paired tests, and write one model",
    "slurm": "print a SLURM job array for what is left of a training run, a study or a prediction",
    "model": "export, import or describe a model",
    "networks": "list the networks",
    "recipe": "show every setting of a training run, its value and where it comes from",
    "completion": "print the script that completes these commands in a shell",
    "demo": "run every step on synthetic scans, on a CPU, in minutes",
}

OF_VOLUMES = ("convert", "verify", "plan_and_preprocess", "reconstruct", "evaluate")  # many, in threads, without a network


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status. Without ``argv`` it is the program, whose process ends after it."""
    if argv is not None:
        return _run(list(argv))
    try:
        return _run(sys.argv[1:])
    finally:
        gc.freeze()  # else Python looks for garbage in all that was imported before it ends: a fifth of a short command


def _run(argv: list[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # results are printed even if the encoding lacks a character
    parser = _parser(argv)
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        return 2
    install_log(args.quiet)
    try:
        _refuse_torchrun(args.verb)
        if args.verb in OF_VOLUMES:
            from autoseg.room import keep_memory

            keep_memory()
        with _asked_to_stop():
            return args.run(args) or 0
    except AutosegError as fault:
        if args.debug:
            raise
        print(f"{type(fault).__name__}: {fault}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has closed its end, as head does
        return 0
    except OSError as fault:
        if args.debug:
            raise
        print(f"{fault.filename or 'a file'}: {fault.strerror or fault}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as fault:
        from autoseg.room import is_want_of_memory, out_of_memory

        if args.debug or not is_want_of_memory(fault):
            raise
        fewer = ", or give fewer --workers" if hasattr(args, "workers") else ""
        print(f"{out_of_memory(fault)}. Close other programs{fewer}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 130


def _refuse_torchrun(verb: str) -> None:
    """``torchrun`` starts several processes of one command, which would all do the same work."""
    if place_among_ranks()[1] > 1 and verb != "train":
        raise AutosegError(f"torchrun is for autoseg train. Start autoseg {verb} without it; autoseg predict has --shard i/N")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Parse the words of a command into its arguments; SystemExit with a message if they are wrong."""
    return _parser(words).parse_args(words)


@contextmanager
def _asked_to_stop() -> Iterator[None]:
    """Interrupt the command at the first stop signal. Later ones are ignored, except Ctrl+C from a person."""
    from autoseg.engines import on_stop_signals

    told: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        told.append(number)
        if len(told) == 1 or number == signal.SIGINT:
            raise KeyboardInterrupt

    with on_stop_signals(interrupt):
        yield


def whole_parser() -> argparse.ArgumentParser:
    """The parser with the arguments of every verb."""
    return _parser(VERBS, every=True)


def _parser(argv: Iterable[str], *, every: bool = False) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="autoseg",
        description="Self-configuring segmentation of medical images: a folder of scans in, masks and a report out.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    chosen = next((word for word in argv if word in VERBS), None)
    for name, meaning in VERBS.items():
        verb = verbs.add_parser(name, help=meaning, description=meaning[0].upper() + meaning[1:] + ".")
        if every or name == chosen:  # other verbs are not imported
            module = importlib.import_module(f"autoseg.cli.{name}")
            module.add_arguments(verb)
            if name != "model":  # its actions have their own
                add_common(verb)
            verb.set_defaults(run=module.run)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *more: Any, **options: Any) -> None:
        from autoseg import __version__

        print(f"autoseg {__version__}")
        parser.exit()
