"""A process counts the cores that are free for it, and computes with no more threads."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch

from autoseg import control_groups
from autoseg.cli import main
from autoseg.cli.common import share_cores
from autoseg.engines import CoreUse, core_use, cores, followed_cores, free_cores, kept_busy, usable_cores
from autoseg.errors import AutosegError
from autoseg.options import Runtime
from autoseg.studies.fold import Run, threads_begun_with
from autoseg.training import follow
from autoseg.training.checkpoint import LoopState, save_checkpoint


@pytest.mark.parametrize(
    ("usable", "busy", "threads"),
    [(2, 0.0, 2), (2, 0.4, 2), (2, 1.0, 1), (2, 1.9, 1), (1, 0.9, 1), (4, 1.2, 3), (16, 8.0, 8), (16, 15.7, 8), (64, 3.2, 61)],
)
def test_there_are_as_many_threads_as_free_cores_and_half_at_least(usable: int, busy: float, threads: int) -> None:
    assert free_cores(usable, busy) == threads


@pytest.fixture
def two_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two of four cores without a quota; the file that says what the cores did."""
    monkeypatch.setattr(cores, "_affinity", lambda: {1, 2})
    monkeypatch.setattr(control_groups, "GROUPS", tmp_path)
    monkeypatch.setattr(control_groups, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(cores, "STAT", tmp_path / "STAT")
    return tmp_path


def test_only_the_cores_of_this_process_count(two_cores: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores.os, "sysconf", lambda name: 100)
    lines = ("cpu 9 9 9 9 9 9 9 9 0 0", *(f"cpu{n} {1000 * n} 200 300 70000 500 60 70 80 0 0" for n in range(4)), "intr 5")
    cores.STAT.write_text("\n".join(lines))
    found = core_use()
    assert found
    assert found.worked == pytest.approx((1000 + 2000 + 2 * (200 + 300 + 60 + 70 + 80)) / 100), "neither idle nor waiting"


@pytest.mark.parametrize("text", [None, "", "cpu1 few", "cpu1 1 2"])
def test_a_system_that_does_not_say_what_its_cores_do_is_taken_for_free(two_cores: Path, text: str | None) -> None:
    if text is not None:
        cores.STAT.write_text(text)
    assert kept_busy(core_use(), core_use()) == 0


def test_others_are_what_this_process_is_not(two_cores: Path) -> None:
    before, after = CoreUse(10.0, 500.0, 3.0), CoreUse(14.0, 507.0, 6.0)
    assert kept_busy(before, after) == pytest.approx(1.0)
    assert kept_busy(before, CoreUse(14.0, 502.0, 6.0)) == 0, "clocks that tick apart"
    assert kept_busy(before, CoreUse(10.1, 500.2, 3.0)) == 0, "too short to say"
    assert kept_busy(None, after) == kept_busy(before, None) == 0


@pytest.mark.parametrize(
    ("files", "usable"),
    [
        ({}, 2),
        ({"cpu.max": "max 100000"}, 2),
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "800000 100000"}, 2),
        ({"cpu.max": "damaged"}, 2),
        ({"own": "0::/job/step", "job/cpu.max": "100000 100000", "job/step/cpu.max": "max 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 2),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"own": "3:cpu,cpuacct:/job", "cpu/job/cpu.cfs_quota_us": "90000", "cpu/job/cpu.cfs_period_us": "90000"}, 1),
    ],
)
def test_the_quota_of_a_container_limits_the_cores(two_cores: Path, files: dict[str, str], usable: int) -> None:
    for name, text in files.items():
        (two_cores / name).parent.mkdir(parents=True, exist_ok=True)
        (two_cores / name).write_text(text)
    assert usable_cores() == usable


def test_others_use_first_what_the_quota_leaves_out(two_cores: Path) -> None:
    (two_cores / "cpu.max").write_text("100000 100000")
    assert kept_busy(CoreUse(0.0, 0.0, 0.0), CoreUse(2.0, 2.0, 0.0)) == 0, "one core of two is busy, and one is ours"
    assert kept_busy(CoreUse(0.0, 0.0, 0.0), CoreUse(2.0, 3.0, 0.0)) == pytest.approx(0.5)


@pytest.mark.parametrize(("environment", "device", "threads"), [("", "cpu", 2), ("3", "cpu", 4), ("", "cuda:0,cuda:1", 4)])
def test_networks_leave_busy_cores_to_others(
    environment: str, device: str, threads: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if environment:
        monkeypatch.setenv("OMP_NUM_THREADS", environment)
    monkeypatch.setattr(cores, "_affinity", lambda: {0, 1, 2, 3})
    monkeypatch.setattr(cores, "_quota", lambda: None)
    monkeypatch.setattr("autoseg.engines.core_use", lambda: CoreUse(4.0, 10.0, 2.0))
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        with caplog.at_level(logging.INFO, "autoseg"):
            share_cores(CoreUse(0.0, 0.0, 0.0), device, "--threads")
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(usual)
    told = ["other programs keep 2.0 of 4 cores busy: networks use 2 of them (--threads sets another number)"]
    assert caplog.messages == (told if threads < 4 else [])


@pytest.mark.parametrize(
    "command",
    [
        "train A 0",
        "predict -i A -o B",
        "compare A 0",
        "study A",
        "model calibrate A --cases B",
        "demo --folder B",
    ],
)
def test_every_command_that_computes_networks_counts_the_free_cores_first(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(threads: int) -> bool:
        raise AutosegError("cores were counted")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("autoseg.networks.cpu.use_at_most", stop)
    assert main([*command.split(), "--device", "cpu"]) == 2
    assert "cores were counted" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("state", "fresh", "threads"), [(3, False, 3), (0, False, 0), (3, True, 0), (None, False, 0)])
def test_a_fold_goes_on_with_the_threads_it_began_with(tmp_path: Path, state: int | None, fresh: bool, threads: int) -> None:
    if state is not None:
        (tmp_path / "fold_1").mkdir()
        begun = LoopState("same", 9, False, threads=state)
        save_checkpoint(tmp_path / "fold_1" / "checkpoint.safetensors", begun, torch.nn.Linear(2, 2), {}, [])
    run = SimpleNamespace(folder=tmp_path, device=torch.device("cpu"), runtime=Runtime(fresh=fresh))
    assert threads_begun_with(cast(Run, run), "1") == threads


@pytest.mark.parametrize(
    ("threads", "usable", "busy", "then"),
    [
        (2, 2, 0.0, 2),
        (2, 2, 0.5, 2),
        (2, 2, 0.67, 1),
        (1, 2, 1.0, 1),
        (1, 2, 0.5, 1),
        (1, 2, 0.1, 2),
        (16, 16, 5.3, 11),
        (8, 16, 0.0, 16),
    ],
)
def test_a_run_goes_on_with_the_threads_that_clearly_find_a_core(threads: int, usable: int, busy: float, then: int) -> None:
    assert followed_cores(threads, usable, busy) == then


def test_a_training_run_makes_room_and_takes_back_what_becomes_free(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Looks at 0, 10 and 20 s: first another program works on both cores beside this one, then none does."""
    clock, used = [0.0], {0.0: CoreUse(0.0, 0.0, 0.0), 10.0: CoreUse(10.0, 20.0, 13.0), 20.0: CoreUse(20.0, 30.0, 23.0)}
    monkeypatch.setattr(follow.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(follow, "core_use", lambda: used[clock[0]])
    monkeypatch.setattr(follow, "usable_cores", lambda: 2)
    usual = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        after_step, seen = follow.FollowCores(), []
        with caplog.at_level(logging.INFO, "autoseg"):
            for clock[0] in (3.0, 9.9, 10.0, 14.0, 20.0):
                after_step()
                seen.append(torch.get_num_threads())
    finally:
        torch.set_num_threads(usual)
    assert seen == [2, 2, 1, 1, 2]
    assert caplog.messages == [
        "other programs keep 0.7 of 2 cores busy now: 1 thread instead of 2 (--threads sets a fixed number)",
        "other programs keep 0.0 of 2 cores busy now: 2 threads instead of 1 (--threads sets a fixed number)",
    ]


@pytest.mark.parametrize(("words", "follows"), [([], True), (["--threads", "1"], False)])
def test_threads_follow_the_free_cores_unless_their_number_is_asked_for(
    words: list[str], follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Runtime] = []
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("autoseg.pipeline.train", lambda *words, **named: asked.append(words[4]) or [])
    usual = torch.get_num_threads()
    try:
        assert main(["train", "A", "0", "--device", "cpu", *words]) == 0
    finally:
        torch.set_num_threads(usual)
    assert asked[0].follow == follows
