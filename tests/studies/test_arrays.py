"""What ``autoseg slurm`` finds left of a command."""

import re

import pytest

from autoseg.cli import main
from autoseg.inference.cohort import MADE_BY
from autoseg.ledger import Ledger
from autoseg.phantoms import write_phantoms
from tests.helpers.models import make_plan, write_model, write_scans


def printed(capsys, *words):
    assert main(["slurm", *map(str, words)]) == 0
    text = capsys.readouterr().out
    return re.findall(r"^  \d+\) words=\((.*)\) ;;$", text, re.MULTILINE), re.findall(r"^words=\((.*)\)$", text, re.MULTILINE)


def test_shards_whose_cases_are_all_done_are_left_out(tmp_path, capsys):
    model = tmp_path / "model"
    write_model(model, make_plan())
    scans = write_scans(tmp_path / "scans of today", 3)
    names = sorted({path.name.removesuffix("_0000.nii.gz") for path in scans.iterdir()})
    words = ("--shards", "2", "--", "predict", "-i", scans, "-o", tmp_path / "out", "-m", model, "--workspace", tmp_path)
    jobs, (report,) = printed(capsys, *words)
    assert len(jobs) == min(2, len(names))
    assert jobs[0] == f"{report} --shard 0/2"
    assert f"'{scans}'" in report
    ledger = Ledger(tmp_path / "out", MADE_BY)
    for name in names[::2]:
        ledger.begin(name, {}, {}, {})
        ledger.finish(name, {}, [], {}, {})
    assert printed(capsys, *words)[0] == jobs[1:]


@pytest.mark.thorough
def test_a_study_and_a_training_are_a_job_for_each_fold_and_nothing_is_written(tmp_path, capsys):
    raw = write_phantoms(tmp_path / "Dataset001_P", training=4, test=0, in_plane_mm=10)
    shared = ("--folds", "0-1", "--networks", "unet,fcn", "--iterations", "3", "--set", "cpu_width=0.1", "--device", "cuda")
    jobs, (report,) = printed(capsys, "--", "study", raw, *shared, "--workspace", tmp_path / "w")
    assert [re.match(r"train \S+ (\d) .*--name study_(\w+)_\w{8} ", job).groups() for job in jobs] == [
        (fold, network) for network in ("unet", "fcn") for fold in "01"
    ]
    assert all("--device cuda" in job and "--set cpu_width=0.1" in job for job in jobs)
    assert report.startswith(f"study {raw} --folds 0-1")
    words = ("train", raw, "0,1", "--seed", "0", "--iterations", "3", "--device", "cpu", "--workspace", tmp_path / "w")
    jobs, (report,) = printed(capsys, "--", *words)
    assert jobs == [report.replace(f"{raw} 0,1", f"{raw} {fold}") for fold in "01"]
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--", "evaluate"], "one of train, study, predict"),
        ([], "one of train, study, predict"),
        (["--", "train", "x", "0", "--fresh"], "would begin again"),
        (["--", "predict", "-i", "x", "-o", "y", "--watch"], "runs until somebody stops it"),
        (["--", "train", "x", "0"], "Give --device cuda or --device cpu"),
    ],
)
def test_a_command_that_cannot_be_shared_is_refused(words, sentence, capsys):
    assert main(["slurm", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_a_job_that_is_started_again_does_not_begin_anew(monkeypatch):
    from autoseg.cli.train import _is_restart

    assert not _is_restart()
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert _is_restart()
