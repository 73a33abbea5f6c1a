"""Two commands at one place: the second waits or is refused, and nobody waits for a command that is dead."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autoseg.cli import main
from autoseg.errors import TrainingError
from autoseg.locks import prepare_lock, run_lock
from autoseg.phantoms import write_phantoms

ROOT = Path(__file__).parents[1]


def holder(folder):
    """A process that holds the run lock of a folder until it is killed."""
    code = (
        "import sys, time; from pathlib import Path; from autoseg.locks import run_lock\n"
        "with run_lock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", code, folder], stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_training_of_a_fold_is_refused_and_goes_on_once_the_first_was_killed(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("autoseg.locks.RUN_SECONDS", 0.1)
    folder = tmp_path / "runs" / "fold_0"
    with holder(folder) as process:
        try:
            with pytest.raises(TrainingError, match="another command is training this fold"), run_lock(folder):
                pass
            assert "waiting for it" in caplog.text
        finally:
            process.send_signal(signal.SIGKILL)
    with run_lock(folder):
        pass


def test_the_command_line_refuses_the_second_training_in_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("autoseg.locks.RUN_SECONDS", 0.1)
    raw = write_phantoms(tmp_path / "Dataset001_A", training=5, test=0, in_plane_mm=10)
    fold = tmp_path / "w" / "runs" / "A" / "one" / "fold_0"
    train = ["train", str(raw), "0", "--workspace", str(tmp_path / "w"), "--name", "one", "--iterations", "1"]
    with holder(fold) as process:
        try:
            assert main([*train, "--device", "cpu", "--set", "cpu_width=0.1"]) == 2
        finally:
            process.kill()
    assert "TrainingError: " in (told := capsys.readouterr().err)
    assert "another command is training this fold" in told
    assert "batches of" not in told, "what was decided is not read by anybody if nothing is trained"
    assert not fold.exists()


def test_folds_that_begin_anew_at_the_same_time_are_not_taken_from_a_running_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("autoseg.locks.RUN_SECONDS", 0.1)
    raw = write_phantoms(tmp_path / "Dataset001_A", training=5, test=0, in_plane_mm=10)
    fold = tmp_path / "w" / "runs" / "A" / "one" / "fold_1"
    fold.mkdir(parents=True)
    train = ["train", str(raw), "0-1", "--workspace", str(tmp_path / "w"), "--name", "one", "--at-once", "2", "--fresh"]
    with holder(fold) as process:
        try:
            assert main([*train, "--iterations", "1", "--device", "cpu", "--set", "cpu_width=0.1"]) == 2
        finally:
            process.kill()
    assert "another command is training this fold" in capsys.readouterr().err
    assert fold.is_dir()


def test_a_second_preparation_waits_for_the_first(tmp_path):
    raw = write_phantoms(tmp_path / "Dataset001_A", training=2, test=0, in_plane_mm=10)
    second = threading.Thread(
        target=main, args=(["plan_and_preprocess", str(raw), "--workspace", str(tmp_path / "w"), "--quiet"],)
    )
    with prepare_lock(tmp_path / "w" / "prepared" / "A"):
        second.start()
        time.sleep(1)
        assert second.is_alive()
        assert not list((tmp_path / "w" / "prepared").rglob("case.json"))
    second.join(timeout=120)
    assert len(list((tmp_path / "w" / "prepared" / "A").rglob("case.json"))) == 2


def test_a_dry_run_waits_for_nobody(tmp_path):
    raw = write_phantoms(tmp_path / "Dataset001_A", training=2, test=0, in_plane_mm=10)
    with prepare_lock(tmp_path / "w" / "prepared" / "A"):
        assert main(["plan_and_preprocess", str(raw), "--workspace", str(tmp_path / "w"), "--quiet", "--dry-run"]) == 0
