"""A run that cannot be trained is refused before anything that was decided for it is shown."""

from pathlib import Path

import pytest
from torch import nn

from autoseg.cli import main
from autoseg.phantoms import write_phantoms
from autoseg.training.checkpoint import LoopState, save_checkpoint

DECIDED = "batches of"


@pytest.fixture
def train(tmp_path: Path) -> list[str]:
    """A command that trains two folds of a small data set one after the other."""
    raw = write_phantoms(tmp_path / "Dataset001_A", training=2, test=0, in_plane_mm=20)
    words = ["train", str(raw), "0-1", "--workspace", str(tmp_path / "w"), "--name", "one", "--iterations", "1"]
    return [*words, "--device", "cpu", "--set", "cpu_width=0.1"]


def test_a_later_fold_with_other_settings_refuses_the_run_before_its_first_fold_is_trained(
    train: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "w" / "runs" / "A" / "one"
    (run / "fold_1").mkdir(parents=True)
    state = LoopState(identity="of other settings", steps_expected=1, bf16=False)
    save_checkpoint(run / "fold_1" / "checkpoint.safetensors", state, nn.Linear(1, 1), {}, [])
    assert main([*train, "--explain"]) == 2
    told = "".join(capsys.readouterr())
    assert "fold_1/checkpoint.safetensors was made with other settings" in told
    assert DECIDED not in told
    assert not (run / "fold_0").exists()
    assert main([*train, "--dry-run"]) == 0, "which settings there would be can still be asked"
    assert DECIDED in capsys.readouterr().out


def test_a_run_whose_place_is_no_folder_is_refused_before_its_decisions_are_shown(
    train: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w" / "runs" / "A").mkdir(parents=True)
    (tmp_path / "w" / "runs" / "A" / "one").write_text("")
    assert main(train) == 2
    told = capsys.readouterr().err
    assert "expected a folder" in told
    assert DECIDED not in told


def test_a_run_that_needs_too_much_memory_is_refused_before_its_decisions_are_shown(
    train: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("autoseg.training.memory.memory_limit", lambda: 1000)
    assert main(train) == 2
    told = capsys.readouterr().err
    assert "at once, needs at least" in told
    assert DECIDED not in told
