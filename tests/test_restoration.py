"""What is measured of a model that restores images."""

from types import SimpleNamespace

import numpy as np
import pytest

from autoseg.evaluation.restored import RestorationResult
from autoseg.imaging.geometry import Geometry
from autoseg.preprocess.case import PreparedCase, find_locations
from autoseg.preprocess.store import open_case, store_case
from autoseg.studies.restoration import restoration_table, validate_restoration
from autoseg.workspace import read_record


@pytest.fixture
def prepared(tmp_path):
    for n in range(3):
        axes = np.meshgrid(*[np.linspace(-1, 1, edge) for edge in (18, 20, 22)], indexing="ij")
        codes = (sum(a**2 for a in axes) < 0.5).astype(np.int16)
        image = (0.2 + 0.5 * codes + 0.1 * np.sin(5 * axes[0] + n))[None].astype(np.float32)
        case = PreparedCase(f"c{n}", image, codes, Geometry.from_spacing(codes.shape, (1, 1, 1)), find_locations(codes, seed=0))
        store_case(tmp_path / f"c{n}", case, "digest")
    return tmp_path


def test_a_model_that_does_nothing_gains_nothing(prepared, tmp_path):
    idle = SimpleNamespace(restore=lambda data, slices: data.copy())
    result = validate_restoration(idle, prepared, ("c0", "c1", "c2"), tmp_path / "restoration.json")
    assert read_record(RestorationResult, tmp_path / "restoration.json") == result
    assert len(result.rows) == 9
    for found in result.summary.values():
        assert found["skill"].mean == found["skill_roi"].mean == found["ssim_gain"].mean == 0
        assert found["mse"] == found["bar_mse"]
    assert result.rows[0].slice_axis == 2
    assert result.rows[0].ssim_window == (11, 11, 11)


def test_a_half_way_model_has_three_quarters_of_the_skill(prepared, tmp_path):
    clean = open_case(prepared / "c0").image[:]
    half = SimpleNamespace(restore=lambda data, slices: (data + clean) / 2)
    result = validate_restoration(half, prepared, ("c0", "missing"), tmp_path / "restoration.json")
    assert result.summary["blur"]["skill"].mean == pytest.approx(0.75, abs=0.02)
    assert result.summary["blur"]["skill"].interval == (None, None)
    assert list(result.failures) == ["missing"]
    table = restoration_table(result)
    assert "| thick slices | 1 | 0.0" in table
    assert "| blur, structures alone | 1 | " in table
    assert "not restored: missing: " in table
