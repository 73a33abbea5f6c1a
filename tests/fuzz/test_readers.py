"""Whatever a file holds, its reader returns or says in our own words why not, and soon."""

from __future__ import annotations

import contextlib
import json
import os
import time
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz import by_chance, faults
from tests.fuzz.by_chance import changes
from tests.fuzz.faults import LONGEST_S
from tests.fuzz.mutations import Change, changed
from tests.fuzz.targets import TARGETS, read_all

FEW = {True: 12, False: 3}  # by whether a reader is quick; ``by_chance`` tries more


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@pytest.mark.parametrize("name", TARGETS)
def test_what_a_sound_file_holds_is_read(name: str, place: Path) -> None:
    target, folder = TARGETS[name], place / f"sound-{name}" / "Dataset001_X"
    folder.mkdir(parents=True)
    target.around(folder)
    for seed in target.seeds():
        path = target.write(folder, seed)
        assert len(read_all(target, path)) < len(target.reads)


@pytest.mark.parametrize("name", TARGETS)
def test_only_our_own_errors_come_out_of_a_reader(name: str, place: Path) -> None:
    target, folder = TARGETS[name], place / name / "Dataset001_X"
    folder.mkdir(parents=True)
    target.around(folder)
    seeds = target.seeds()

    @settings(
        max_examples=FEW[target.is_quick],
        deadline=1000 * LONGEST_S,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.sampled_from(seeds), st.lists(changes, min_size=1, max_size=4))
    def read(seed: bytes, these: list[Change]) -> None:
        path = target.write(folder, changed(seed, these))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of libraries about odd values
            read_all(target, path)

    read()


def test_fuzzing_keeps_what_it_finds_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path) -> None:
        if len(path.read_bytes()) % 2:
            raise KeyError("foreign")
        if len(path.read_bytes()) % 3 == 0:
            bytearray(3 << 30)  # more memory than a reader may take

    target = replace(TARGETS["gzip"], seeds=lambda: [b"123456"], reads=(fails,), around=lambda folder: None)
    monkeypatch.setitem(TARGETS, "odd", replace(target, file="a.bin", packed=bytes))
    monkeypatch.setattr(by_chance, "PLACE", tmp_path / "kept")
    (tmp_path / "in").mkdir()
    result = by_chance.run_reader("odd", tmp_path / "in", examples=60, seconds=60)
    assert result["examples"] == 60
    told = [(tmp_path / "kept" / "odd" / f"{name}.txt").read_text().splitlines()[-1] for name in result["found"]]
    assert {text.split(":")[0] for text in told} == {"KeyError", "MemoryError"}


def test_the_record_of_fuzzing_has_the_last_run_of_each_reader(tmp_path: Path) -> None:
    record = tmp_path / "fuzzing.json"
    for examples, found in ((10, ["fault-0"]), (20, [])):
        faults.store("hypothesis", {"reader": "a", "examples": examples, "found": found}, record)
        faults.store("hypothesis", {"reader": "b", "examples": 5, "found": []}, record)
        assert faults.is_done("hypothesis", "a", "examples", 10, record) == (not found)
    assert sorted(line["examples"] for line in json.loads(record.read_text())["hypothesis"]) == [5, 20]
    assert os.listdir(tmp_path) == ["fuzzing.json"]


def test_a_reader_that_takes_too_long_is_told_even_where_it_catches_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "LONGEST_S", 0.02)

    def spin() -> None:
        with contextlib.suppress(OSError):
            while True:
                pass

    with pytest.raises(TimeoutError, match="more than"), faults.time_limit():
        spin()
    with faults.time_limit():
        time.sleep(0.04)  # a machine that stands still does not count
