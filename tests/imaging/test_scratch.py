"""Large arrays lie in a file that nobody finds, small ones and those without room on the disk in memory."""

import numpy as np
import pytest

from autoseg.imaging import scratch
from autoseg.imaging.scratch import scratch_zeros


@pytest.fixture
def mapped(monkeypatch):
    """Sizes of the files that were made."""
    sizes, original = [], scratch._mapped
    monkeypatch.setattr(scratch, "_mapped", lambda n_bytes, folder: sizes.append(n_bytes) or original(n_bytes, folder))
    return sizes


def test_only_what_is_too_large_goes_to_a_file(tmp_path, monkeypatch, mapped):
    monkeypatch.setattr(scratch, "LARGEST_IN_MEMORY", 100)
    small = scratch_zeros((5, 5), folder=tmp_path)
    large = scratch_zeros((5, 6), np.float16, tmp_path), scratch_zeros((2, 3, 5), folder=tmp_path)
    assert mapped == [120]
    for array, shape, kind in zip(
        (small, *large), ((5, 5), (5, 6), (2, 3, 5)), (np.float32, np.float16, np.float32), strict=True
    ):
        assert (array.shape, array.dtype, array.any()) == (shape, kind, False)
        array[1] = 7
        assert array[1].min() == 7
        assert not array[0].any()
    assert not list(tmp_path.iterdir())


def test_without_room_on_the_disk_memory_must_do(tmp_path, monkeypatch, mapped):
    monkeypatch.setattr(scratch, "LARGEST_IN_MEMORY", 0)
    (tmp_path / "file").write_text("in the way")
    array = scratch_zeros((3, 4), folder=tmp_path / "file")
    assert mapped == [48]
    array[:] = 1
    assert array.sum() == 12
