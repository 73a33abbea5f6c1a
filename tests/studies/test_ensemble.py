"""Two networks of one plan as one model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from autoseg.inference.bundle import copy_bundle, load_bundle
from autoseg.inference.predictor import Predictor
from autoseg.options import InferenceOptions
from autoseg.studies.ensemble import ensemble_of, share_a_grid
from tests.helpers.models import ball_volume, make_plan, write_model


def test_an_ensemble_averages_the_logits_of_both_networks(tmp_path: Path) -> None:
    plan = make_plan()
    wide = replace(plan, network=replace(plan.network, features=(6, 12)), name="wide")
    one, other = write_model(tmp_path / "one", plan, (0, 1)), write_model(tmp_path / "other", wide, (2, 3))
    other = replace(other, folds={"0": other.folds["2"], "1": other.folds["3"]})  # of other weights than the first one's
    assert share_a_grid(one.plan, other.plan)
    assert not share_a_grid(one.plan, replace(other.plan, spacing_mm=(1.0, 1.0, 2.0)))
    both = copy_bundle(ensemble_of(one, other), tmp_path / "both")
    assert list(both.folds) == ["0", "0b", "1", "1b"]
    assert both.network_of("0b") == wide.network
    assert both.network_of("0") == plan.network
    volume, _ = ball_volume()
    how = InferenceOptions(precision="fp32", mirror=False)

    def logits(model: object, folds: tuple[str, ...]) -> np.ndarray:
        predictor = Predictor(model, replace(how, folds=folds), device="cpu")  # type: ignore[arg-type]
        return np.asarray(predictor.infer(predictor.prepare(volume)).logits)

    found = logits(load_bundle(tmp_path / "both"), ("0", "0b"))
    expected = (logits(one, ("0",)) + logits(other, ("0",))) / 2
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_of_one_network_has_the_digest_that_it_had(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "model", make_plan())
    assert copy_bundle(bundle, tmp_path / "copy").digest == bundle.digest
    assert bundle.networks == {}
