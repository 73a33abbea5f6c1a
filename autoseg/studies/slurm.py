"""Writes a script that submits autoseg commands as a SLURM job array.

Every command is a job of the array, and one more job runs when they have ended. Before its time limit, a job gets the signal
USR1: it writes its checkpoint, ends with status 130, and is put back into the queue to continue. A cancelled job gets no such
signal and stays cancelled. Paths are quoted for the shell. Settings are on the command line of ``sbatch``, because comments of
the script cannot be quoted.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoseg.errors import AutosegError
from autoseg.options import SlurmOptions

__all__ = ["JobArray", "submission"]

END = "END_OF_THE_SCRIPT_OF_AUTOSEG"
# status 1: some cases failed, and the report names them; the job is done, and jobs that depend on it may begin
JOB = """\
warned= work=
trap 'warned=yes; [ -z "$work" ] || kill -USR1 "$work"' USR1
trap '[ -z "$work" ] || kill -TERM "$work"' TERM
{python} -m autoseg "${{words[@]}}" &
work=$!
while :; do
  status=0
  wait "$work" || status=$?
  kill -0 "$work" 2>/dev/null || break
done
wait "$work" && status=0 || status=$?
if [ "$status" -eq 130 ] && [ -n "$warned" ]; then
  scontrol requeue {job}
fi
[ "$status" -ne 1 ] || status=0
exit "$status"
"""


@dataclass(frozen=True)
class JobArray:
    """The jobs to submit.

    Attributes:
        name: name of the jobs in the queue.
        commands: arguments of ``autoseg`` for each job.
        report: arguments of the job that follows.
        needs_all: it begins only if all others succeeded; otherwise when all have ended.
    """

    name: str
    commands: tuple[tuple[str, ...], ...]
    report: tuple[str, ...]
    needs_all: bool


def submission(array: JobArray, options: SlurmOptions, folder: Path) -> str:
    """A bash script that submits the jobs and prints their numbers.

    Args:
        folder: working directory of the commands, absolute.

    Raises:
        AutosegError: an argument contains a control character, such as a line break.
    """
    from autoseg.names import counted  # imports numpy, which --help does not need

    logs = (folder / options.logs).absolute()
    _refuse_control_characters([*(word for words in (*array.commands, array.report) for word in words), str(folder), str(logs)])
    shared = _settings(array.name, options, folder, logs)
    lines = [
        "#!/bin/bash",
        f"# {counted(len(array.commands), 'job')} of autoseg and one that follows. Submit them with: bash THIS_FILE",
        "set -euo pipefail",
        f"mkdir -p {shlex.quote(str(logs))}",
    ]
    after = ""
    if array.commands:
        throttle = f"%{options.at_once}" if options.at_once else ""
        own = f"--array=0-{len(array.commands) - 1}{throttle} --output={_log(logs, array.name, '%A_%a')}"
        lines += [*_sbatch("array", f"{shared} {own}", _array_script(array, options))]
        kind = "afterok" if array.needs_all else "afterany"
        after = f" --kill-on-invalid-dep=yes --dependency={kind}:$array"
    own = f"--output={_log(logs, array.name, '%j')}{after}"
    lines += [*_sbatch("report", f"{shared} {own}", _script([_words(array.report)], '"$SLURM_JOB_ID"', options))]
    lines += [f'echo "{"array $array, " if array.commands else ""}report $report"']
    return "\n".join(lines) + "\n"


def _settings(name: str, options: SlurmOptions, folder: Path, logs: Path) -> str:
    """Arguments of ``sbatch`` that all jobs have in common."""
    words = [f"--job-name=autoseg_{name}", f"--chdir={folder}", "--open-mode=append", "--requeue"]
    words += [f"--signal=B:USR1@{options.warning}"]
    words += [f"--time={-(-int(options.limit) // 60)}"] if options.limit else []
    return " ".join(shlex.quote(word) for word in [*words, *options.sbatch])


def _log(logs: Path, name: str, number: str) -> str:
    return shlex.quote(f"{logs}/autoseg_{name}_".replace("%", "%%") + f"{number}.txt")


def _sbatch(variable: str, arguments: str, script: str) -> list[str]:
    """Lines that submit a script and store the number of its job."""
    return [f"{variable}=$(sbatch --parsable {arguments} <<'{END}'", script + END, ")", f"{variable}=${{{variable}%%;*}}"]


def _array_script(array: JobArray, options: SlurmOptions) -> str:
    cases = [f"  {i}) {_words(words)} ;;" for i, words in enumerate(array.commands)]
    job = '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}"'  # the job ID of the last task would mean the whole array
    return _script(['case "$SLURM_ARRAY_TASK_ID" in', *cases, "esac"], job, options)


def _script(lines: Sequence[str], job: str, options: SlurmOptions) -> str:
    python = shlex.quote(sys.executable)
    return "\n".join(["#!/bin/bash", *options.before, *lines, JOB.format(python=python, job=job)])


def _words(words: Sequence[str]) -> str:
    return f"words=({' '.join(map(shlex.quote, words))})"


def _refuse_control_characters(words: Sequence[str]) -> None:
    for word in words:
        if any(not character.isprintable() for character in word):
            raise AutosegError(f"{word!r}: has a character that a script cannot hold. Rename the file or folder")
