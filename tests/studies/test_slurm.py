"""The script that ``autoseg slurm`` prints, run by bash with a ``sbatch`` that keeps what it gets."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoseg.errors import AutosegError
from autoseg.options import SlurmOptions
from autoseg.studies import slurm
from autoseg.studies.slurm import JobArray, submission

ODD = ("predict", "-i", "scans of today", "-o", "it's $HOME; rm -rf `x`", "-m", 'a "b" \\ ü*', "--shard", "1/2")
SBATCH = """#!/bin/bash
n=$(ls "$PLACE" | grep -c script) || true
printf '%s\\0' "$@" > "$PLACE/arguments_$n"
cat > "$PLACE/script_$n"
echo "$((40 + n));cluster"
"""
SCONTROL = """#!/bin/bash
echo "$@" > "$PLACE/requeued"
"""
# in place of Python: says which words it got, and ends as it is told
WORKER = """#!{python}
import json, os, signal, sys, time
for number in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(number, lambda number, frame: sys.exit(130))
open(os.environ["PLACE"] + "/words", "w").write(json.dumps(sys.argv[1:]))
time.sleep(float(os.environ.get("SLEEP", "0")))
sys.exit(int(os.environ.get("STATUS", "0")))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the programs, and what they leave."""
    programs = tmp_path / "a folder of programs"
    programs.mkdir()
    for name, text in {"sbatch": SBATCH, "scontrol": SCONTROL, "worker": WORKER.format(python=sys.executable)}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    (tmp_path / "left").mkdir()
    monkeypatch.setattr(slurm.sys, "executable", str(programs / "worker"))
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PLACE", str(tmp_path / "left"))
    return tmp_path


def submitted(place, array, options=None):
    """(what the script says, the arguments of each sbatch) after the submission."""
    folder = place / "here and % there"
    folder.mkdir()
    text = submission(array, options or SlurmOptions(), folder)
    said = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True, cwd=folder).stdout
    found = sorted((place / "left").glob("arguments_*"))
    return said, [path.read_text().split("\0")[:-1] for path in found]


ARRAY = JobArray("predict", (("predict", "-i", "a"), ODD), ("predict", "-i", "a"), needs_all=False)


def start(place, index=1, **environment):
    shared = {**os.environ, "SLURM_ARRAY_TASK_ID": str(index), "SLURM_ARRAY_JOB_ID": "40", "SLURM_JOB_ID": "99", **environment}
    return subprocess.Popen(["bash", place / "left" / "script_0"], env=shared)


def until(path: Path) -> None:
    end = time.monotonic() + 20
    while not path.is_file() and time.monotonic() < end:
        time.sleep(0.02)


def test_every_word_reaches_its_job_as_it_was_given(place):
    submitted(place, ARRAY)
    assert start(place).wait(20) == 0
    assert json.loads((place / "left" / "words").read_text()) == ["-m", "autoseg", *ODD]


def test_jobs_are_an_array_that_is_requeued_and_warned_and_one_job_that_follows(place):
    options = SlurmOptions(at_once=4, limit=8 * 3600.0, warning=300, sbatch=("--gres=gpu:1",), before=("module load cuda",))
    said, (array, report) = submitted(place, ARRAY, options)
    assert said == "array 40, report 41\n"
    assert {"--array=0-1%4", "--requeue", "--signal=B:USR1@300", "--time=480", "--gres=gpu:1", "--parsable"} <= set(array)
    folder = place / "here and % there"
    assert f"--chdir={folder}" in array
    assert f"--output={str(folder).replace('%', '%%')}/slurm/autoseg_predict_%A_%a.txt" in array
    assert "--dependency=afterany:40" in report
    assert not any(word.startswith("--array") for word in report)
    assert (folder / "slurm").is_dir()
    assert (place / "left" / "script_1").read_text().splitlines()[1] == "module load cuda"


def test_a_report_that_needs_all_does_not_begin_where_one_failed(place):
    _, (_, report) = submitted(place, JobArray("study", (("train",),), ("study",), needs_all=True))
    assert {"--dependency=afterok:40", "--kill-on-invalid-dep=yes"} <= set(report)


def test_where_nothing_is_left_the_report_alone_is_submitted(place):
    said, (report,) = submitted(place, JobArray("study", (), ("study", "Heart"), needs_all=True))
    assert said == "report 40\n"
    assert not any(word.startswith("--dependency") for word in report)


@pytest.mark.parametrize(("status", "seen"), [(0, 0), (1, 0), (2, 2), (130, 130)])
def test_failed_cases_hold_nothing_up_and_other_faults_do(place, status, seen):
    submitted(place, ARRAY)
    assert start(place, STATUS=str(status)).wait(20) == seen
    assert not (place / "left" / "requeued").exists()


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_job_is_put_back_into_the_queue_where_it_was_warned_and_not_where_it_was_cancelled(place, number):
    submitted(place, ARRAY)
    job = start(place, SLEEP="30")
    until(place / "left" / "words")
    job.send_signal(number)
    assert job.wait(20) == 130
    requeued = place / "left" / "requeued"
    assert requeued.exists() == (number == signal.SIGUSR1)
    if requeued.exists():
        assert requeued.read_text() == "requeue 40_1\n"


def test_a_word_that_no_script_can_hold_is_refused(tmp_path):
    with pytest.raises(AutosegError, match="Rename"):
        submission(JobArray("train", (("train", "a\nb"),), ("train",), needs_all=True), SlurmOptions(), tmp_path)
