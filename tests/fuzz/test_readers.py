"""Whatever a file holds, its reader returns or says in our own words why not, and soon."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.mutations import Change, changed
from tests.fuzz.targets import TARGETS, read_all

NIGHTLY = os.environ.get("AUTOSEG_FUZZ") == "nightly"
EXAMPLES = int(os.environ.get("AUTOSEG_FUZZ_EXAMPLES", "10000"))  # a reader, nightly
FEW = {True: 12, False: 3}  # by whether a reader is quick
LONGEST_MS = 20_000  # of one example, on a machine that does much else beside

changes = st.builds(Change, st.integers(0, 63), st.integers(0, (1 << 20) - 1), st.integers(0, (1 << 16) - 1), st.booleans())


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


@pytest.mark.timeout(0 if NIGHTLY else 600)
@pytest.mark.parametrize("name", TARGETS)
def test_only_our_own_errors_come_out_of_a_reader(name: str, place: Path) -> None:
    target, folder = TARGETS[name], place / name / "Dataset001_X"
    folder.mkdir(parents=True)
    target.around(folder)
    seeds = target.seeds()

    @settings(
        max_examples=EXAMPLES if NIGHTLY else FEW[target.is_quick],
        deadline=LONGEST_MS,
        derandomize=not NIGHTLY,
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
