"""What a fold is trained with on the machine at hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from autoseg.data.labels import LabelSchema
from autoseg.errors import TrainingError
from autoseg.imaging.geometry import Geometry
from autoseg.networks import Scores, precision
from autoseg.networks.precision import choose_precision
from autoseg.preprocess.case import find_locations
from autoseg.preprocess.store import LoadedCase
from autoseg.training import fold
from autoseg.training.fold import FoldTask, patch_dice, train_fold
from autoseg.training.loop import Fitted, Length
from autoseg.training.recipe import PatchStage, Recipe
from planners import NetworkSpec

CPU = torch.device("cpu")
FLAT = NetworkSpec("unet", 1, 2, (4, 4), ((1, 1, 1), (1, 2, 2)), ((3, 3, 3),) * 2, (1, 1), (1,))


@pytest.mark.parametrize("asked", ["auto", "bf16"])
def test_no_patch_of_a_training_is_thin_in_bfloat16_where_that_harms_whatever_was_asked_for(asked, monkeypatch):
    monkeypatch.setattr(precision, "has_amx", lambda: True)
    monkeypatch.setattr(precision, "faster_in_bf16", lambda *args, **named: True)

    def choose(device, network, spec, patches, *, precision, training):
        return choose_precision(precision, device, network, spec, patches, training=training)

    monkeypatch.setattr(fold, "prepare_for", choose)

    def chosen(recipe, size):
        plan = SimpleNamespace(network=FLAT, patch_size=size)
        return fold._prepare(SimpleNamespace(plan=plan, recipe=recipe), CPU, None, asked)

    recipe, thin, sound = Recipe(patch_curriculum=()), (8, 128, 128), (16, 128, 128)
    assert chosen(recipe, thin).name == "fp32"
    assert "beyond its memory" in chosen(recipe, thin).why
    assert chosen(recipe, sound).name == "bf16"
    smaller_at_first = replace(recipe, patch_curriculum=(PatchStage(0.4, 0.8, 1),))  # 13 slices at first
    assert chosen(smaller_at_first, sound).name == "fp32"
    monkeypatch.setattr(precision, "has_amx", lambda: False)
    assert chosen(smaller_at_first, thin).name == "bf16"


@pytest.mark.parametrize("regions", [False, True])
def test_patches_whose_logits_are_lazy_have_the_same_dice(regions, monkeypatch):
    monkeypatch.setattr("autoseg.training.losses.SLAB", 200)
    labels = LabelSchema(tuple("abcd"), ((1, 2), (2,), (3,), (4,)), True, (1, 2, 3, 4))
    labels = labels if regions else LabelSchema(tuple("abc"), ((1,), (2,), (3,)), False, (1, 2, 3))
    torch.manual_seed(0)
    results = [
        (
            Scores(torch.randn(1, 2, 4, 5, 6), torch.randn(4, 2, 1, 1, 1), torch.zeros(4)),
            torch.randint(-1, 4, (1, 4, 5, 6)),
            None,
        )
        for _ in range(2)
    ]
    expected = patch_dice([(scores.logits(), codes, None) for scores, codes, _ in results], labels)
    assert patch_dice(results, labels) == expected
    assert sum(value is not None and 0 < value < 1 for value in expected.values()) >= 3


def test_the_final_phase_holds_the_voxels_of_the_cases_no_more_than_twelve_times(plan, tmp_path, monkeypatch):
    given = []
    monkeypatch.setattr(fold, "open_case", lambda folder: SimpleNamespace(shape=plan.patch_size))
    monkeypatch.setattr(fold, "make_batch", lambda *args: args)
    monkeypatch.setattr(fold, "fit", lambda network, batch, *args, **named: given.append(batch) or Fitted(None, {}, None))
    labels = LabelSchema(("blob",), ((1,),), False, (1,))
    recipe = Recipe(batch_size=2, patch_curriculum=(), bf16=False, validations=25)
    task = FoldTask(plan, labels, recipe, Length(steps=1), 0, tuple("abcdefgh"), ("i",), "")  # an epoch is four steps
    train_fold(task, prepared=tmp_path, folder=tmp_path, device=CPU)
    for steps, begins in ((100, 70), (1000, 953)):
        plain = [given[0](i, i / steps, steps - i)[7] for i in range(steps)]
        assert plain == [i >= begins for i in range(steps)]


@pytest.mark.thorough
def test_a_training_whose_loss_is_not_a_number_names_the_cases_of_the_batch(plan, tmp_path, monkeypatch):
    def case(folder):
        image = np.random.default_rng(0).random((1, 16, 16, 16), np.float32)
        image[:] = np.nan if folder.name == "broken" else image
        codes = np.zeros((16, 16, 16), np.int16)
        codes[4:9, 4:9, 4:9] = 1
        return LoadedCase(
            folder.name, Geometry.from_spacing(codes.shape, (1, 1, 1)), image, codes, find_locations(codes, seed=0)
        )

    monkeypatch.setattr(fold, "open_case", case)
    small = replace(plan, network=FLAT, patch_size=(16, 16, 16), mirror_axes=())
    labels, recipe = (
        LabelSchema(("blob",), ((1,),), False, (1,)),
        Recipe(batch_size=1, patch_curriculum=(), bf16=False, validations=25, validation_patches=1),
    )
    task = FoldTask(small, labels, recipe, Length(steps=40), 0, ("sound", "broken"), ("sound",), "")
    with pytest.raises(TrainingError, match=r"(?s)step \d+: the loss is nan.*\nThe batch of that step: broken$"):
        train_fold(task, prepared=tmp_path, folder=tmp_path, device=CPU)
