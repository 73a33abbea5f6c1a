"""Preparing as a step: it travels, prepares what is not there, and knows what is."""

import pickle
from dataclasses import replace

import pytest

from autoseg.data.dataset import read_dataset
from autoseg.data.scan import scan_dataset
from autoseg.engines import LocalEngine
from autoseg.phantoms import write_phantoms
from autoseg.preprocess.cases import voxels_of
from autoseg.preprocess.step import Prepare, case_digests
from autoseg.preprocess.store import open_case
from autoseg.studies.ready import Ready
from planners import ChannelStats, Fingerprint, get_planner


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(data set, plan, scans) of three small phantoms."""
    folder = tmp_path_factory.mktemp("step")
    spec = read_dataset(write_phantoms(folder / "Dataset007_Abdomen", training=3, test=0, in_plane_mm=12))
    scans = scan_dataset(spec)
    fingerprint = Fingerprint(
        dataset="Abdomen",
        cases=tuple(scan.case for scan in scans),
        shapes=tuple(scan.shape for scan in scans),
        spacings_mm=tuple(scan.spacing_mm for scan in scans),
        channels=(ChannelStats("CT", 100.0, 99.0, 20.0, 0.0, 300.0, 10.0, 210.0),),
        structures=spec.labels.structures,
        n_labels=1 + len(spec.labels.structures),
    )
    return spec, get_planner("fullres_3d").plan(fingerprint), scans


def test_a_step_that_travelled_prepares_the_same(made, tmp_path):
    spec, plan, scans = made
    digests = case_digests(spec.labels, scans, plan)
    step = pickle.loads(pickle.dumps(Prepare(tmp_path, plan, spec.labels, digests)))  # noqa: S301 - our own bytes
    first, *others = spec.training
    assert not step.is_done(first)
    outcomes = LocalEngine(1).map(step, spec.training, name=lambda case: case.id)
    assert [(outcome.name, outcome.error) for outcome in outcomes] == [(case.id, None) for case in spec.training]
    assert all(step.is_done(case) for case in spec.training)
    assert not replace(step, digests=dict.fromkeys(digests, "other")).is_done(first)


def test_voxels_told_from_scans_are_those_of_the_prepared_cases(made, tmp_path):
    spec, plan, scans = made
    step = Prepare(tmp_path, plan, spec.labels, {scan.case: "" for scan in scans})
    LocalEngine(1).map(step, spec.training, name=lambda case: case.id)
    ready = Ready(spec, plan, scans, tmp_path)
    assert ready.voxels == voxels_of(open_case(tmp_path / case.id).shape for case in spec.training)
    assert replace(ready, dry=True).voxels == ready.voxels
