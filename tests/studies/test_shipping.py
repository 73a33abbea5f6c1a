"""The final model of a study: what is there is kept, or refused, or moved aside; never written over."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from autoseg.errors import AutosegError, ModelError
from autoseg.inference.bundle import identity_of, load_bundle, store_windows
from autoseg.inference.windows import AdaptiveWindows, Doubt
from autoseg.studies.configuration import configurations
from autoseg.studies.shipping import only_folds, ship
from tests.helpers.models import make_plan, write_model

FOUND = AdaptiveWindows(Doubt(1.0, 6.0, 0.0), 0.5, 2, 100, 400, {"ball": 0.0001})  # as `model calibrate` leaves it


def test_a_model_that_predicts_the_same_stays_with_what_was_added_to_it(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "run", make_plan(), (0, 1))
    warm = replace(bundle, temperatures=(2.0,))
    assert ship(warm, tmp_path / "final", aside=False).digest == identity_of(warm) != bundle.digest
    store_windows(tmp_path / "final", dict.fromkeys(bundle.folds, FOUND))
    before = (tmp_path / "final" / "model.json").read_bytes()
    ship(warm, tmp_path / "final", aside=False)
    assert (tmp_path / "final" / "model.json").read_bytes() == before
    with pytest.raises(ModelError, match="another model than the one that this study has decided on"):
        ship(replace(bundle, temperatures=(3.0,)), tmp_path / "final", aside=False)
    assert (tmp_path / "final" / "model.json").read_bytes() == before
    ship(replace(bundle, temperatures=(3.0,)), tmp_path / "final", aside=True)
    assert load_bundle(tmp_path / "final").temperatures == (3.0,)
    assert (tmp_path / ".final.old1" / "model.json").read_bytes() == before


def test_a_folder_that_is_no_model_stays_and_a_half_written_one_is_completed(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "run", make_plan())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match="stays as it is"):
        ship(bundle, tmp_path / "mine", aside=True)
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / "fold_0.safetensors").write_bytes(b"half")
    assert ship(bundle, tmp_path / "half", aside=False).digest == bundle.digest


def test_a_model_without_a_fold_that_was_cross_validated_is_refused(tmp_path: Path) -> None:
    bundle = write_model(tmp_path / "run", make_plan(), (0, 1, 2))
    assert list(only_folds(bundle, ("0", "2")).folds) == ["0", "2"]
    with pytest.raises(ModelError, match="has no fold 3, .*Give the command of the study again"):
        only_folds(bundle, ("0", "3"))


def test_configurations_have_names_for_people_each_its_own() -> None:
    def names(plans: tuple[str | None, ...], networks: tuple[str | None, ...]) -> list[str]:
        return [one.name for one in configurations(plans, networks, "ab12")]

    assert names((None,), (None,)) == ["default"]
    assert names((None,), ("unet", "fcn")) == ["unet", "fcn"]
    assert names(("fullres_3d", "slices_2d"), (None,)) == ["fullres_3d", "slices_2d"]
    assert names(("fullres_3d", "slices_2d"), ("unet", "/a/mine.json"))[1:3] == ["mine (fullres_3d)", "unet (slices_2d)"]
    runs = [one.run for one in configurations((None,), ("unet", None), "ab12")]
    assert runs == ["study_unet_ab12", "study_ab12"]
    with pytest.raises(AutosegError, match="two configurations are called 'unet'"):
        names((None,), ("unet", "/a/unet.json"))
