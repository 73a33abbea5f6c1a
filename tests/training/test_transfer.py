"""Which weights of a model a fold may start with, and what it takes over."""

from dataclasses import replace

import pytest
import torch

from autoseg.errors import TrainingError
from autoseg.networks import build_network
from autoseg.training.transfer import OLD_INTENSITIES, Transfer, choose_fold, load_matching
from planners.records import from_json, to_json
from tests.helpers.networks import small_unet

SPEC = small_unet(4, 8, input_mean=(0.5,), input_std=(0.25,))
SOURCE = Transfer("model", "digest", "0", "there are no validation cases")
FOLDS = {"0": ("b", "c", "d"), "1": ("a", "c", "d"), "2": ("a", "b", "d")}  # of cases a, b, c, d


def test_a_fold_starts_from_the_same_fold_which_saw_none_of_its_validation_cases():
    for fold, held_back in (("0", "a"), ("1", "b"), ("2", "c")):
        chosen, why = choose_fold("model", FOLDS, fold, {"case": held_back})
        assert chosen == fold
        assert "from no validation case" in why


def test_a_fold_starts_from_another_one_where_that_saw_less():
    assert choose_fold("model", FOLDS, "7", {"case": "b"})[0] == "1"
    assert choose_fold("model", FOLDS, "1", {"case": "c"})[0] == "2"  # the folds were drawn anew


def test_any_fold_of_a_model_of_other_cases_will_do():
    assert choose_fold("model", {"all": ("x", "y")}, "3", {"case": "a"})[0] == "all"
    assert choose_fold("model", FOLDS, "1", {"case": "z"})[0] == "1"


def test_weights_that_saw_a_validation_case_are_refused_with_the_case_and_the_remedy():
    with pytest.raises(TrainingError, match=r"fold 1 cannot start from model.*hippo_2.*same fold 1.*fold all"):
        choose_fold("model", {"0": ("b", "c")}, "1", {"hippo_1": "a", "hippo_2": "b"})


def test_a_model_that_does_not_say_what_it_learned_from_starts_only_a_fold_that_holds_nothing_back():
    with pytest.raises(TrainingError, match=r"does not say which cases its fold 0 learned from.*Repeat the command"):
        choose_fold("model", {"0": (), "1": ("b",)}, "0", {"case": "b"})
    assert choose_fold("model", {"0": ()}, "all", {}) == ("0", "there are no validation cases")
    assert choose_fold("model", {"0": (), "1": ("a",)}, "0", {"case": "b"})[0] == "1"


def test_all_that_fits_is_taken_but_not_the_constants_of_the_old_data():
    torch.manual_seed(0)
    old, new = build_network(SPEC), build_network(replace(SPEC, input_mean=(0.1,), input_std=(0.9,)))
    transfer = load_matching(new, old.state_dict(), SOURCE)
    assert transfer.left == {"scaling.mean": OLD_INTENSITIES, "scaling.std": OLD_INTENSITIES}
    assert transfer.new == ("scaling.mean", "scaling.std")
    assert new.state_dict()["scaling.mean"].item() == pytest.approx(0.1)
    assert new.state_dict()["scaling.std"].item() == pytest.approx(0.9)
    assert len(transfer.taken) == len(old.state_dict()) - 2
    assert all(torch.equal(new.state_dict()[name], old.state_dict()[name]) for name in transfer.taken)


def test_tensors_of_another_shape_or_name_are_left_each_with_its_reason():
    torch.manual_seed(0)
    old, new = build_network(replace(SPEC, out_channels=3)), build_network(replace(SPEC, restoration=True))
    before = {name: tensor.clone() for name, tensor in new.state_dict().items()}
    transfer = load_matching(new, {**old.state_dict(), "extra": torch.zeros(1)}, SOURCE)
    assert transfer.left["extra"] == "this network has no such tensor"
    shapes = [name for name, why in transfer.left.items() if "its shape differs" in why]
    assert shapes
    assert all("heads" in name for name in shapes)
    assert set(transfer.new) == set(new.state_dict()) - set(transfer.taken)
    assert all(torch.equal(new.state_dict()[name], before[name]) for name in transfer.new)
    assert f"{len(transfer.taken)} of {len(before)} tensors" in str(transfer)
    assert "its shape differs" in str(transfer)


def test_a_model_of_which_nothing_fits_is_refused():
    with pytest.raises(TrainingError, match="none of the model's weights fits"):
        load_matching(build_network(SPEC), {"something": torch.zeros(3)}, SOURCE)


def test_a_transfer_is_a_record():
    transfer = replace(SOURCE, taken=("a",), left={"b": "why"}, new=("c",))
    assert from_json(Transfer, to_json(transfer)) == transfer
