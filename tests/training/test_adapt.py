"""What a network takes over from a model of other channels, structures, widths or kernels, and which parts may stand still."""

import json
from dataclasses import replace

import pytest
import torch

from autoseg.data.labels import LabelSchema
from autoseg.errors import TrainingError
from autoseg.networks import build_network
from autoseg.training.adapt import Meaning
from autoseg.training.batch import Batch
from autoseg.training.length import Length
from autoseg.training.loop import Job, fit
from autoseg.training.losses import dice_cross_entropy
from autoseg.training.recipe import Recipe, changed
from autoseg.training.transfer import Transfer, frozen_parameters, load_matching, meaning_of
from planners.plan import CoarseLabels
from planners.records import digest, from_json, identity, to_json
from tests.helpers.models import make_plan
from tests.helpers.networks import small_unet

SPEC = small_unet(8, 16, blocks=2, out_channels=3)
SOURCE = Transfer("model", "digest", "0", "there are no validation cases")
OLD = Meaning(("CT",), ("background", "liver", "spleen"))


def model(spec=SPEC, seed=0):
    torch.manual_seed(seed)
    network = build_network(spec).eval()
    for parameter in network.parameters():  # norms and biases too differ from where they start
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    return network


def take(spec, now=OLD, *, of=SPEC, before=OLD):
    """(network of ``spec`` with what it takes over, the model, Transfer)."""
    old, new = model(of), model(spec, seed=1)
    return new, old, load_matching(new, old.state_dict(), SOURCE, before, now)


def scan(channels=1):
    torch.manual_seed(2)
    return torch.randn(1, channels, 8, 8, 8)


@torch.no_grad()
def test_a_wider_network_says_what_the_model_says_and_its_twins_part_ways():
    new, old, transfer = take(replace(SPEC, features=(16, 32)))
    torch.testing.assert_close(new(scan()), old(scan()), rtol=1e-4, atol=1e-4)
    assert transfer.new == ("scaling.mean", "scaling.std")
    assert "width 8 as 16" in str(transfer)
    reads = new.encoder.stages[1][0].conv.weight
    assert not torch.allclose(reads[:, 0], reads[:, 1]), "both are the model's first feature, and are read unequally"


@torch.no_grad()
def test_a_narrower_network_takes_features_evenly_spread_over_both_halves_of_a_concatenation():
    new, old, _ = take(replace(SPEC, features=(8, 8)), of=replace(SPEC, features=(16, 16)))
    first = "decoder.stages.0.0.conv.weight"
    torch.testing.assert_close(new.state_dict()[first], old.state_dict()[first][::2, ::2])
    assert new.state_dict()[first].shape[1] == 16


@torch.no_grad()
def test_a_new_channel_changes_nothing_at_first_and_the_old_one_is_known_by_name():
    now = Meaning(("PET", "CT"), OLD.heads)
    new, old, transfer = take(replace(SPEC, in_channels=2), now)
    both = scan(2)
    torch.testing.assert_close(new(both), old(both[:, 1:]), rtol=1e-4, atol=1e-5)
    assert "channels by name: CT; others start at zero" in transfer.adapted["encoder.stages.0.0.conv.weight"]


def test_channels_of_other_names_go_by_position_where_there_are_as_many_else_by_the_mean():
    new, old, _ = take(SPEC, Meaning(("T1",), OLD.heads))
    name = "encoder.stages.0.0.conv.weight"
    assert torch.equal(new.state_dict()[name], old.state_dict()[name])
    new, old, transfer = take(
        replace(SPEC, in_channels=3),
        Meaning(("r", "g", "b"), OLD.heads),
        of=replace(SPEC, in_channels=2),
        before=Meaning(("a", "c"), OLD.heads),
    )
    mean = old.state_dict()[name].mean(dim=1)
    for channel in range(3):
        torch.testing.assert_close(new.state_dict()[name][:, channel], mean)
    assert "the mean over a, c" in transfer.adapted[name]


def test_structures_are_known_by_name_and_others_start_anew():
    now = Meaning(OLD.channels, ("background", "kidney", "spleen", "tumour"))
    fresh = model(replace(SPEC, out_channels=4), seed=1).state_dict()
    new, old, transfer = take(replace(SPEC, out_channels=4), now)
    for name in ("decoder.heads.0.weight", "decoder.heads.0.bias"):
        found, before = new.state_dict()[name], old.state_dict()[name]
        assert torch.equal(found[[0, 2]], before[[0, 2]])
        assert torch.equal(found[[1, 3]], fresh[name][[1, 3]])
        assert transfer.adapted[name] == "heads by name: background, spleen; others start anew"


def test_heads_without_a_structure_in_common_are_left_although_their_shape_fits():
    _, _, transfer = take(SPEC, Meaning(OLD.channels, ("whole", "core", "edge")))
    assert transfer.left["decoder.heads.0.weight"] == "it belongs to other structures"


@torch.no_grad()
def test_kernels_of_slices_lie_in_the_middle_of_those_of_volumes_and_back():
    flat = replace(SPEC, kernels=((1, 3, 3), (3, 3, 3)))
    new, old, transfer = take(SPEC, of=flat)
    name = "encoder.stages.0.0.conv.weight"
    found, before = new.state_dict()[name], old.state_dict()[name]
    assert torch.equal(found[:, :, 1], before[:, :, 0])
    assert not found[:, :, [0, 2]].any()
    torch.testing.assert_close(new(scan()), old(scan()), rtol=1e-4, atol=1e-5)
    assert "kernels of 1 x 3 x 3" in transfer.adapted[name]
    new, old, _ = take(flat, of=SPEC)
    torch.testing.assert_close(new.state_dict()[name][:, :, 0], old.state_dict()[name].sum(dim=2))


def test_equal_networks_take_all_unchanged():
    _, old, transfer = take(SPEC)
    assert transfer.adapted == {}
    assert len(transfer.taken) == len(old.state_dict()) - 2


def test_a_transfer_with_adapted_tensors_is_a_record_and_older_ones_open():
    transfer = replace(SOURCE, adapted={"a": "width 2 as 4"})
    assert from_json(Transfer, to_json(transfer)) == transfer
    older = {key: value for key, value in to_json(transfer).items() if key != "adapted"}
    assert from_json(Transfer, older).adapted == {}


def test_the_meaning_of_a_plan_names_image_and_coarse_channels_and_heads():
    labels = LabelSchema(("a", "b"), ((1,), (2,)), False, (1, 2))
    plan = make_plan()
    assert meaning_of(plan, labels) == Meaning(("MRI",), ("background", "a", "b"))
    network = replace(plan.network, in_channels=3, input_mean=(0.5, 0, 0), input_std=(0.25, 1, 1))
    cascade = replace(plan, network=network, coarse=CoarseLabels("lowres_3d", 2))
    assert meaning_of(cascade, labels).channels == ("MRI", "coarse label 1", "coarse label 2")
    regions = LabelSchema(("a", "b"), ((1, 2), (2,)), True, (1, 2))
    assert meaning_of(plan, regions).heads == ("a", "b")


def train(tmp_path, recipe, network, frozen, steps=4):
    torch.manual_seed(3)
    batch = Batch(torch.randn(1, 1, 8, 8, 8), torch.randint(0, 3, (1, 8, 8, 8)))
    states = []

    def make(step, fraction, left):
        states.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return batch

    from types import SimpleNamespace

    job = Job(
        recipe=recipe,
        length=Length(steps=steps),
        loss=dice_cross_entropy,
        score=lambda results: {"x": float(len(list(results)))},
        device=torch.device("cpu"),
        identity="it",
        checkpoint=tmp_path / "checkpoint.safetensors",
        prepare=lambda network, precision: SimpleNamespace(bf16=False),
        frozen=frozen,
    )
    return fit(network, make, [batch], job)


@pytest.mark.parametrize("until", [0.5, 1.0])
def test_frozen_parts_stand_still_until_their_step_and_the_others_learn(tmp_path, until):
    network = model().train()
    recipe = Recipe(batch_size=1, freeze=("encoder",), freeze_until=until, validations=1, ema=False, warmup=0.0)
    frozen = frozen_parameters(network, recipe.freeze, None)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    moved = train(tmp_path, recipe, network, frozen).weights
    changed_parts = {name.split(".")[0] for name in before if not torch.equal(before[name], moved[name])}
    assert changed_parts == ({"decoder"} if until == 1 else {"decoder", "encoder"})


def test_what_is_to_stand_still_is_named_by_its_beginning_or_is_all_that_was_taken():
    network, _, transfer = take(replace(SPEC, out_channels=2), Meaning(OLD.channels, ("background", "tumour")))
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    chosen = {names[id(p)] for p in frozen_parameters(network, ("taken",), transfer)}
    assert chosen == {name for name in names.values() if "heads" not in name}
    first = {names[id(p)] for p in frozen_parameters(network, ("encoder.stages.0",), None)}
    assert first == {name for name in names.values() if name.startswith("encoder.stages.0.")}
    for freeze, message in (
        (("encode",), "no weight's name begins with 'encode'. There are: encoder, decoder"),
        (("taken",), "--from"),
        (("encoder", "decoder"), "no part of the network is left"),
    ):
        with pytest.raises(TrainingError, match=message):
            frozen_parameters(network, freeze, None)


def test_recipes_without_frozen_parts_are_what_they_were():
    assert "freeze" not in identity(Recipe())
    assert digest(Recipe()) != digest(Recipe(freeze=("encoder",)))
    assert changed(Recipe(), {"freeze": json.loads('["encoder"]'), "freeze_until": 0.25}).freeze == ("encoder",)
    with pytest.raises(TrainingError, match="freeze_until"):
        changed(Recipe(), {"freeze_until": 0})
