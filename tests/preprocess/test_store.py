import resource
from dataclasses import replace

import numpy as np
import pytest

from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry
from autoseg.preprocess.case import PreparedCase, find_sites
from autoseg.preprocess.store import is_stored, open_case, store_case


@pytest.fixture
def prepared():
    rng = np.random.default_rng(0)
    codes = (rng.random((40, 50, 60)) > 0.99).astype(np.int16)
    geometry = Geometry.from_spacing(codes.shape, (3, 1, 1)).flipped([0])
    return PreparedCase("heart_1", rng.random((2, 40, 50, 60), np.float32), codes, geometry, find_sites(codes, seed=1))


def test_what_was_stored_comes_back(tmp_path, prepared):
    store_case(tmp_path / "c", prepared, "abc")
    case = open_case(tmp_path / "c")
    assert case.case == "heart_1"
    assert case.geometry == prepared.geometry
    assert np.array_equal(case.image[:], prepared.image)
    assert np.array_equal(case.codes[5:9, 1:3], prepared.codes[5:9, 1:3])
    assert case.sites.keys() == prepared.sites.keys()
    assert np.array_equal(case.sites[1], prepared.sites[1])


def test_a_case_counts_only_when_whole_and_of_the_same_inputs(tmp_path, prepared):
    assert not is_stored(tmp_path / "c", "abc")
    store_case(tmp_path / "c", prepared, "abc")
    assert is_stored(tmp_path / "c", "abc")
    assert not is_stored(tmp_path / "c", "other")
    (tmp_path / "c" / "case.json").write_text("{")
    assert not is_stored(tmp_path / "c", "abc")


def test_a_damaged_case_says_how_to_make_it_again(tmp_path, prepared):
    store_case(tmp_path / "c", prepared, "abc")
    path = tmp_path / "c" / "image.b2nd"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(AutosegError, match="autoseg plan_and_preprocess"):
        open_case(tmp_path / "c").image  # noqa: B018


def test_a_case_without_structures_has_no_sites(tmp_path, prepared):
    empty = np.zeros_like(prepared.codes)
    store_case(tmp_path / "c", replace(prepared, codes=empty, sites=find_sites(empty, seed=1)), "abc")
    assert open_case(tmp_path / "c").sites == {}


def test_many_cases_need_few_open_files(tmp_path, prepared):
    small = replace(prepared, image=prepared.image[:, :4, :4, :4], codes=prepared.codes[:4, :4, :4], sites={})
    for number in range(150):
        store_case(tmp_path / str(number), small, "abc")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (220, limit[1]))
    try:
        assert all(open_case(tmp_path / str(number)).codes[:].shape == (4, 4, 4) for number in range(150))
        assert all(open_case(tmp_path / str(number)).image[:].shape == (2, 4, 4, 4) for number in range(150))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_sites_cover_small_structures_and_are_bounded_for_large_ones():
    codes = np.zeros((60, 60, 60), np.int16)
    codes[:40] = 1
    codes[50, 50, 50] = 2
    sites = find_sites(codes, seed=0)
    assert sites[2].tolist() == [[50, 50, 50]]
    assert len(sites[1]) == 10_000
    assert (codes[tuple(sites[1].T)] == 1).all()
    assert len(np.unique(sites[1], axis=0)) == 10_000
