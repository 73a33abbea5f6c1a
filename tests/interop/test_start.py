"""A model that came from nnU-Net is a start of a training like any other."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.inference.bundle import load_bundle
from autoseg.networks import build_network
from autoseg.pipeline.importing import import_model
from autoseg.studies.starting import learned_from, start_of
from autoseg.training.adapt import Meaning
from autoseg.training.transfer import load_matching
from autoseg.workspace import Workspace

_spec = importlib.util.spec_from_file_location("material", Path(__file__).with_name("material.py"))
material = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(material)

IMAGES = {"case": "a digest"}


@pytest.fixture
def bundle(tmp_path):
    spec = material.spec_of()
    material.write_results(tmp_path / "nnunet", spec, material.configuration_of(spec))
    return load_bundle(import_model(tmp_path / "nnunet", Workspace(tmp_path / "ws")))


def test_it_starts_a_fold_with_validation_cases_only_where_somebody_vouches_for_it(bundle):
    assert start_of(bundle, "all", (), IMAGES).source.fold == "0"
    with pytest.raises(TrainingError, match="--unseen"):
        start_of(bundle, "0", ("case",), IMAGES)
    start = start_of(bundle, "0", ("case",), IMAGES, unseen=True)
    assert "by --unseen" in start.source.why
    assert learned_from(("case",), IMAGES, start) == (), "what it learned from is still not known"


def test_its_weights_go_into_another_network_of_other_labels_and_channels(bundle):
    start = start_of(bundle, "all", (), IMAGES)
    assert start.meaning == Meaning(("MRI0",), ("background", "left", "right"))
    network = build_network(replace(bundle.plan.network, in_channels=2, out_channels=4, input_mean=(), input_std=()))
    now = Meaning(("MRI0", "PET"), ("background", "left", "middle", "right"))
    transfer = load_matching(network, start.load(), start.source, start.meaning, now)
    assert transfer.new == ("scaling.mean", "scaling.std")
    assert {"channels by name: MRI0; others start at zero", "heads by name: background, left, right; others start anew"} == set(
        transfer.adapted.values()
    )
    first, old = network.state_dict()["encoder.stages.0.0.conv.weight"], start.load()["encoder.stages.0.0.conv.weight"]
    assert torch.equal(first[:, :1], old)
    assert not first[:, 1].any()
