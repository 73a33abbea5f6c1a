import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry
from autoseg.preprocess.case import PreparedCase, find_locations
from autoseg.preprocess.store import entry_of, loaded, open_case, store_case
from autoseg.training.sampling import read_block


@pytest.fixture
def prepared():
    rng = np.random.default_rng(0)
    codes = (rng.random((40, 50, 60)) > 0.99).astype(np.int16)
    geometry = Geometry.from_spacing(codes.shape, (3, 1, 1)).flipped([0])
    return PreparedCase("heart_1", rng.random((2, 40, 50, 60), np.float32), codes, geometry, find_locations(codes, seed=1))


def test_what_was_stored_comes_back(tmp_path, prepared):
    store_case(tmp_path / "c", prepared, "abc")
    case = open_case(tmp_path / "c")
    assert case.case == "heart_1"
    assert case.geometry == prepared.geometry
    assert np.array_equal(case.image[:], prepared.image)
    assert np.array_equal(case.codes[5:9, 1:3], prepared.codes[5:9, 1:3])
    assert case.locations.keys() == prepared.locations.keys()
    assert np.array_equal(case.locations[1], prepared.locations[1])


def test_a_case_tells_what_it_was_made_from_unless_it_is_damaged(tmp_path, prepared):
    assert entry_of(tmp_path / "c") is None
    store_case(tmp_path / "c", prepared, "abc")
    assert entry_of(tmp_path / "c").identity == "abc"
    (tmp_path / "c" / "case.json").write_text("{")
    assert entry_of(tmp_path / "c") is None


def test_a_damaged_case_says_how_to_make_it_again(tmp_path, prepared):
    store_case(tmp_path / "c", prepared, "abc")
    path = tmp_path / "c" / "image.b2nd"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AutosegError, match="autoseg plan_and_preprocess"):
        open_case(tmp_path / "c").image  # noqa: B018


def test_a_case_without_structures_has_no_sites(tmp_path, prepared):
    empty = np.zeros_like(prepared.codes)
    store_case(tmp_path / "c", replace(prepared, codes=empty, locations=find_locations(empty, seed=1)), "abc")
    assert open_case(tmp_path / "c").locations == {}


@pytest.mark.thorough
def test_many_cases_need_few_open_files(tmp_path, prepared):
    small = replace(prepared, image=prepared.image[:, :4, :4, :4], codes=prepared.codes[:4, :4, :4], locations={})
    for number in range(150):
        store_case(tmp_path / str(number), small, "abc")
    program = (
        "from pathlib import Path; from autoseg.preprocess.store import KEPT_OPEN, open_case\n"
        "cases = [open_case(folder) for folder in Path('.').iterdir()]\n"
        "assert all(case.codes[:].shape == (4, 4, 4) and case.image[:].shape == (2, 4, 4, 4) for case in cases)\n"
        "print(KEPT_OPEN)"
    )
    told = ["bash", "-c", 'ulimit -n 220; exec "$0" -c "$1"', sys.executable, program]
    source = str(Path(__file__).parents[2])
    done = subprocess.run(told, cwd=tmp_path, env={**os.environ, "PYTHONPATH": source}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 55


def test_sites_cover_small_structures_and_are_bounded_for_large_ones():
    codes = np.zeros((60, 60, 60), np.int16)
    codes[:40] = 1
    codes[50, 50, 50] = 2
    locations = find_locations(codes, seed=0)
    assert locations[2].tolist() == [[50, 50, 50]]
    assert len(locations[1]) == 10_000
    assert (codes[tuple(locations[1].T)] == 1).all()
    assert len(np.unique(locations[1], axis=0)) == 10_000


def test_cases_are_kept_in_memory_where_they_fit(tmp_path, prepared):
    for name in "ab":
        store_case(tmp_path / name, prepared, "abc")
    stored = [open_case(tmp_path / name) for name in "ab"]
    size = 2 * (prepared.image.nbytes + prepared.codes.nbytes)
    assert loaded(stored, size - 1) is stored
    for case, source in zip(loaded(stored, size), stored, strict=True):
        assert isinstance(case.image, np.ndarray)
        assert isinstance(case.codes, np.ndarray)
        assert (case.case, case.shape) == (source.case, source.shape)
        for block in zip(*(read_block(c, (2, 3, 50), (8, 9, 30), (0.25, 0.5)) for c in (case, source)), strict=True):
            assert np.array_equal(*block)
        assert all(np.array_equal(case.locations[code], voxels) for code, voxels in source.locations.items())
