from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoseg.data.intensities import _sketch
from autoseg.data.measure import _quantiles, measure_fingerprint
from autoseg.data.scan import scan_dataset
from autoseg.errors import DatasetError
from autoseg.imaging.files import read_label_volume, read_volume, write_label_volume
from autoseg.imaging.volume import LabelVolume


def draw(rng, kind, size):
    """Samples of one case; cases differ in location and width."""
    centre, width = rng.uniform(-50, 400), rng.uniform(20, 80)
    if kind == "normal":
        return rng.normal(centre, width, size)
    if kind == "skewed":
        return centre + rng.gamma(1.5, width, size)
    return np.rint(rng.normal(centre, width, size))


@pytest.mark.parametrize("kind", ["normal", "skewed", "integers"])
def test_pooled_quantiles_equal_those_of_equally_large_samples(kind):
    rng = np.random.default_rng(0)
    cases = [draw(rng, kind, size) for size in (400, 3000, 90_000, 20_000, 7000, 50_000)]
    pooled = np.concatenate([rng.choice(case, 200_000) for case in cases])
    levels = [0.005, 0.1, 0.5, 0.9, 0.995]
    ours = _quantiles([_sketch(np.sort(case)) for case in cases], levels)
    # neighbouring sketch points are 0.06 % (tails) to 0.4 % (middle) of a case apart; sampling adds as much
    assert ours == pytest.approx(np.quantile(pooled, levels), abs=0.005 * np.ptp(pooled))


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=300))
def test_quantiles_of_one_case_lie_between_its_extremes_and_rise(values):
    low, median, high = _quantiles([_sketch(np.sort(np.array(values, np.int16)))], [0.005, 0.5, 0.995])
    assert min(values) <= low <= median <= high <= max(values)


def pooled_slowly(dataset):
    """Every case resampled to the same number of foreground voxels, then plain numpy."""
    rng = np.random.default_rng(0)
    samples = []
    for case in dataset.training:
        image, label = read_volume(case.images).data[0], read_label_volume(case.label).data
        samples.append(rng.choice(image[label > 0].astype(np.float64), 100_000))
    return np.concatenate(samples)


def test_a_fingerprint_equals_the_slow_way(make_folder):
    rng = np.random.default_rng(3)
    folder = make_folder()
    for i, n in enumerate((6, 9, 20)):
        image = rng.normal(100 * i, 20 + 10 * i, (20, 24, 28))
        label = np.zeros(image.shape, np.uint8)
        label[2 : 2 + n // 2, 2:22, 2 : 2 + n] = 1
        folder.add(f"case_{i}", image=image, label=label)
    dataset = folder.read()
    stats = measure_fingerprint(dataset).channels[0]
    pooled = pooled_slowly(dataset)
    assert stats.name == "T1"
    assert stats.mean == pytest.approx(pooled.mean(), abs=0.5)
    assert stats.std == pytest.approx(pooled.std(), rel=0.01)
    ours = [stats.percentile_00_5, stats.median, stats.percentile_99_5]
    assert ours == pytest.approx(np.percentile(pooled, [0.5, 50, 99.5]), abs=3)
    assert stats.minimum == pytest.approx(pooled.min(), rel=1e-6)
    assert stats.maximum == pytest.approx(pooled.max(), rel=1e-6)


def test_a_fingerprint_names_cases_structures_and_sizes(make_folder):
    folder = make_folder(2)
    folder.json["labels"] |= {"ignore": 9}
    fingerprint = measure_fingerprint(folder.read())
    assert fingerprint.dataset == "Tiny"
    assert fingerprint.cases == ("case_1", "case_2")
    assert fingerprint.shapes == ((6, 8, 10),) * 2
    assert fingerprint.spacings_mm == ((2.0, 1.0, 1.0),) * 2
    assert fingerprint.structures == ("first", "second")
    assert fingerprint.n_labels == 4
    assert fingerprint.has_ignore
    assert not fingerprint.has_regions


def test_the_digest_follows_files_and_labels_and_nothing_else(make_folder):
    folder = make_folder(2)
    before = measure_fingerprint(folder.read())
    folder.json["reference"] = "somewhere"
    assert measure_fingerprint(folder.read()) == before
    folder.json["labels"]["third"] = 3
    assert measure_fingerprint(folder.read()).source_digest != before.source_digest
    del folder.json["labels"]["third"]
    folder.add("case_2", seed=5)
    assert measure_fingerprint(folder.read()).source_digest != before.source_digest


def empty(folder, case):
    label = read_label_volume(folder.label_path(case))
    write_label_volume(LabelVolume(np.zeros_like(label.data), label.geometry), folder.label_path(case))


def test_a_case_without_foreground_counts_for_sizes_only(make_folder):
    folder = make_folder(3)
    dataset = folder.read()
    of_two = measure_fingerprint(replace(dataset, training=dataset.training[:2]))
    empty(folder, "case_3")
    of_three = measure_fingerprint(dataset)
    assert len(of_three.shapes) == 3
    assert of_three.channels[0].mean == of_two.channels[0].mean
    assert of_three.channels[0].unit_mean != of_two.channels[0].unit_mean


def test_no_foreground_anywhere_is_refused(make_folder):
    folder = make_folder(2)
    empty(folder, "case_1")
    empty(folder, "case_2")
    with pytest.raises(DatasetError, match="found none in any case"):
        measure_fingerprint(folder.read())


def test_a_broken_case_is_refused_until_it_is_left_out(make_folder):
    folder = make_folder(3)
    folder.label_path("case_2").unlink()
    dataset = folder.read()
    scans = scan_dataset(dataset)
    with pytest.raises(DatasetError, match="expected cases without errors; found\nerror  missing-label  case_2"):
        measure_fingerprint(dataset, scans)
    rest = replace(dataset, training=tuple(case for case in dataset.training if case.id != "case_2"))
    assert measure_fingerprint(rest, scans).cases == ("case_1", "case_3")
    with pytest.raises(DatasetError, match="'case_1' and 0 more were not scanned"):
        measure_fingerprint(rest, scans[1:])
