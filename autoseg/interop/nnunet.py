"""Trained models of nnU-Net 2 as models of ours: the same masks, without its package.

A *results folder* has ``plans.json``, ``dataset.json`` and for each fold ``fold_N/checkpoint_final.pth``; nnU-Net also exports
it as a zip. ``read_nnunet`` takes either, or one fold, and returns what ``save_bundle`` stores. Nothing is unpacked and nothing
in the files is run (``checkpoint``); a model that would not give the same masks is refused (``nnunet_plans``,
``nnunet_weights``). Of a cascade the results folders of both stages are read: they lie side by side.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from autoseg.archive import read_member, safe_members
from autoseg.data.labels import LabelSchema
from autoseg.data.unlike import ChannelRanges, TrainingScans, ranges_of
from autoseg.errors import ModelError, blamed_on, shown
from autoseg.interop.checkpoint import read_checkpoint
from autoseg.interop.nnunet_plans import channel_names, label_schema, settle_configuration, translate_plan
from autoseg.interop.nnunet_postprocessing import postprocessing_rules
from autoseg.interop.nnunet_weights import from_nnunet
from autoseg.reconstruct.components import KeepLargest
from autoseg.workspace import parse_json
from planners.plan import Plan

__all__ = ["Imported", "is_nnunet", "read_nnunet"]

FINGERPRINT = "dataset_fingerprint.json"
LARGEST = 1e9  # voxels or millimetres of an edge
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")  # the first that a fold has
FOLD = re.compile(r"fold_(\d{1,3}|all)")
RULES = re.compile(r"crossval_results_folds_([0-9a-z_]+)/postprocessing\.(json|pkl)")
SIGNS = re.compile(r"(.*/)?(plans\.(json|pkl)|fold_(\d{1,3}|all)/checkpoint_\w+\.pth)|[^/]+\.(pth|model)")  # of nnU-Net
VERSION_1 = re.compile(r"(.*/)?(plans\.pkl|model_\w+\.model)")
MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True, eq=False)
class Imported:
    """A model as ``save_bundle`` takes it, and a name for it; of a cascade the fine stage, which has the coarse one."""

    name: str
    plan: Plan
    labels: LabelSchema
    channels: tuple[str, ...]
    file_ending: str
    weights: dict[str, dict[str, torch.Tensor]]
    info: dict[str, Any]
    postprocessing: tuple[KeepLargest, ...] = ()
    scans: TrainingScans | None = None
    coarse: Imported | None = None


@dataclass(frozen=True)
class _Files:
    """A results folder, wherever it lies: the names in it, how to get at one, and at the folder of another configuration."""

    name: str
    names: frozenset[str]
    get: Callable[[str], bytes | Path]
    beside: Callable[[str], _Files | None]

    def json(self, name: str) -> Any:
        """The content of a JSON file; raises ModelError where it is missing or damaged."""
        where = f"{self.name}/{name}"
        if name not in self.names:
            raise ModelError(f"{where}: is missing. Give the results folder with plans.json, dataset.json and fold_0")
        data = self.get(name)
        if isinstance(data, Path):
            data = data.read_bytes()
        content = parse_json(data[: MAX_JSON_BYTES + 1], where, ModelError)
        if not isinstance(content, dict):
            raise ModelError(f"{where}: expected an object, found a {type(content).__name__}")
        return content

    def postprocessing(self, folds: Collection[str], values: Collection[int]) -> tuple[KeepLargest, ...]:
        """The rules that cross-validation chose: of exactly these folds, or where there is one such choice only."""
        stems = sorted({name.rpartition(".")[0] for name in self.names if RULES.fullmatch(name)})
        of_these = [stem for stem in stems if stem.endswith(f"_folds_{'_'.join(sorted(folds))}/postprocessing")]
        chosen = of_these or stems
        if len(chosen) != 1:
            return ()
        name = next(name for ending in ("json", "pkl") if (name := f"{chosen[0]}.{ending}") in self.names)
        where = f"{self.name}/{name}"
        if name.endswith(".json"):
            return postprocessing_rules(self.json(name), values, where)
        data = self.get(name)
        return postprocessing_rules(data if isinstance(data, bytes) else data.read_bytes(), values, where)

    def folds(self) -> dict[str, str]:
        """Fold -> the checkpoint to take of it."""
        found: dict[str, str] = {}
        for checkpoint in CHECKPOINTS:
            for name in sorted(self.names):
                folder, _, file = name.partition("/")
                if file == checkpoint and (fold := FOLD.fullmatch(folder)):
                    found.setdefault(fold[1], name)
        return found


def is_nnunet(path: Path) -> bool:
    """Whether this is, or looks like, a results folder of nnU-Net, a fold or a zip of one, or a folder of several."""
    names = _names_in(path)
    own = "model.json" if path.is_dir() else "(.*/)?model.json"
    return any(SIGNS.fullmatch(name) for name in names) and not any(re.fullmatch(own, name) for name in names)


def _names_in(path: Path) -> list[str]:
    """The files in a zip, or in a folder and in the folders in it; the file itself where it is another one."""
    if path.is_dir():
        return [file.relative_to(path).as_posix() for pattern in ("*", "*/*") for file in path.glob(pattern)]
    try:
        return list(safe_members(path, path)) if path.suffix != ".pth" else [path.name]
    except ModelError:
        return []


def read_nnunet(path: Path) -> Imported:
    """A trained model of nnU-Net 2.

    Args:
        path: a results folder (``nnUNetTrainer__nnUNetPlans__3d_fullres``), the zip that nnU-Net exports, one ``fold_N`` of a
            results folder, or the checkpoint in it. For a cascade the folder of its second stage with that of the first beside
            it, or a folder or zip of both and no others.

    Raises:
        ModelError: no such model, a damaged one, one that holds more than plain data, or one that is not supported; it says
            which part.
    """
    if any(VERSION_1.fullmatch(name) for name in _names_in(path)):
        raise ModelError(
            f"{path}: expected a model of nnU-Net 2, with plans.json and fold_0/{CHECKPOINTS[0]}; found one of nnU-Net 1 "
            "(plans.pkl). These cannot be imported: predict with nnU-Net 1, or train again"
        )
    only = None
    if path.suffix == ".pth" and path.is_file():
        only = path.name
        path = path.parent
    fold = FOLD.fullmatch(path.resolve().name) if only or _is_fold(path) else None
    if only and not fold:
        raise ModelError(f"{path / only}: expected it in a folder such as fold_0 of a results folder, beside plans.json")
    files = _zipped(path) if path.is_file() else _in_folder(path.resolve().parent if fold else path)
    folds = files.folds()
    if fold:
        folds = {fold[1]: f"fold_{fold[1]}/{only}"} if only else {key: name for key, name in folds.items() if key == fold[1]}
    if not folds:
        others = sorted(name for name in files.names if name.endswith(".pth"))
        found = f"; found {others[0]}. Give that file to import it as it is" if others and path.is_dir() else ""
        raise ModelError(f"{path}: no trained fold in it; expected fold_0/{CHECKPOINTS[0]}, or that of another fold{found}")
    with blamed_on(path, "the files that nnU-Net 2 writes", ModelError, "Copy the model again from its source."):
        model = _read(files, folds)
        return replace(model, coarse=_coarse_stage(model, files, folds if fold else {})) if model.plan.coarse else model


def _coarse_stage(fine: Imported, files: _Files, only: Collection[str]) -> Imported:
    """The first stage of a cascade: all its folds, or ``only`` some where it has them. nnU-Net hands on what its networks
    say, so rules for final labels are left out."""
    assert fine.plan.coarse is not None
    name = fine.plan.coarse.plan
    found = files.beside(name)
    folds = found.folds() if found else {}
    if found is None or not folds:
        raise ModelError(
            f"{files.name}: {fine.plan.name} is the second stage of a cascade and reads what {name} predicted. Expected the "
            f"results folder of {name}, with a trained fold, beside it and called like it; or give a folder or zip of the two"
        )
    coarse = _read(found, {fold: folds[fold] for fold in only} if only and folds.keys() >= set(only) else folds)
    if coarse.plan.name != name or coarse.plan.coarse:
        what = f"the second stage of another cascade, {name}" if coarse.plan.coarse else coarse.plan.name
        raise ModelError(f"{found.name}: expected the first stage, {name}, of the cascade {fine.plan.name}; found {what}")
    if (coarse.channels, coarse.labels) != (fine.channels, fine.labels):
        raise ModelError(
            f"{found.name}: its channels or labels are not those of {fine.plan.name}, which reads what it predicted"
        )
    return replace(coarse, postprocessing=())


def _read(files: _Files, folds: Mapping[str, str]) -> Imported:
    plans, dataset = files.json("plans.json"), files.json("dataset.json")
    where = f"{files.name}/plans.json"
    labels = label_schema(dataset, f"{files.name}/dataset.json")
    channels = channel_names(dataset, f"{files.name}/dataset.json")
    plan: Plan | None = None
    weights, told = {}, {}
    for fold, name in folds.items():
        at = f"{files.name}/{name}"
        checkpoint = read_checkpoint(files.get(name), at)
        about = _about(checkpoint, at)
        one = translate_plan(
            plans,
            about["configuration"],
            channels=channels,
            labels=labels,
            mirror_axes=about["mirror_axes"],
            trainer=about["trainer"],
            where=where,
        )
        if plan is not None and one != plan:
            raise ModelError(f"{at}: its configuration, trainer or mirroring is not that of the other folds. Import it alone")
        plan = one
        absent = _absent(settle_configuration(plans, about["configuration"], where))
        weights[fold] = from_nnunet(plan.network, checkpoint["network_weights"], at, trainer=about["trainer"], absent=absent)
        told[fold] = {"file": name.rpartition("/")[2], "epochs": about["epochs"]}
    assert plan is not None
    ending = dataset.get("file_ending")
    if not isinstance(ending, str) or not re.fullmatch(r"(\.[A-Za-z0-9]{1,8}){1,2}", ending):
        raise ModelError(f"{files.name}/dataset.json: expected a file_ending such as .nii.gz, found {shown(ending, 40)}")
    info = {
        "imported": {
            "from": "nnU-Net 2",
            "dataset": plan.dataset,
            "configuration": plan.name,
            "trainer": about["trainer"],
            "plans": str(plans.get("plans_name", "")),
            "folds": told,
        }
    }
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", f"{plan.dataset or Path(files.name).name}_{plan.name}")
    rules = files.postprocessing(weights, labels.declared_values)
    return Imported(name, plan, labels, channels, ending, weights, info, rules, _training_scans(files, channels))


def _training_scans(files: _Files, channels: tuple[str, ...]) -> TrainingScans | None:
    """What the ``dataset_fingerprint.json`` of a results folder says of the training scans; None where there is none, or one
    that nobody can make sense of, since no mask depends on it.

    Its axes are those of nnU-Net's reader, which the plan has too, before its order of axes. Its intensities are of the
    structures alone, which a scan without labels cannot be compared with; their range is in the plan.
    """
    if FINGERPRINT not in files.names:
        return None
    found = files.json(FINGERPRINT)
    try:
        spacings, shapes = (np.array(found.get(name), float) for name in ("spacings", "shapes_after_crop"))
    except (TypeError, ValueError):
        return None
    if spacings.shape != shapes.shape or shapes.ndim != 2 or shapes.shape[1] != 3 or not len(shapes):
        return None
    if not all((one > 0).all() and (one < LARGEST).all() for one in (spacings, shapes)):
        return None
    return ranges_of(spacings.tolist(), shapes.tolist(), tuple(map(ChannelRanges, channels)))


def _about(checkpoint: Any, where: str) -> dict[str, Any]:
    """What a checkpoint says about itself: configuration, trainer, axes of mirroring, epochs."""
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("network_weights"), dict):
        raise ModelError(f"{where}: not a checkpoint of nnU-Net 2: it has no network_weights")
    arguments = checkpoint.get("init_args")
    configuration = arguments.get("configuration") if isinstance(arguments, dict) else None
    trainer, axes = checkpoint.get("trainer_name"), checkpoint.get("inference_allowed_mirroring_axes", "missing")
    if not isinstance(configuration, str) or not isinstance(trainer, str):
        raise ModelError(f"{where}: expected trainer_name and the configuration in init_args; one of them is missing")
    if axes is not None and not isinstance(axes, tuple | list):
        raise ModelError(
            f"{where}: inference_allowed_mirroring_axes is {axes if isinstance(axes, str) else 'no list of axes'}, so how "
            f"{trainer} mirrored is not known"
        )
    epochs = checkpoint.get("current_epoch")
    return {
        "configuration": configuration,
        "trainer": trainer,
        "mirror_axes": tuple(axes or ()),
        "epochs": epochs if isinstance(epochs, int) else None,
    }


def _absent(configuration: Mapping[str, Any]) -> Callable[[str], bool]:
    """Which weights a network lacks by its plans."""
    arguments = configuration.get("architecture", {}).get("arch_kwargs", {})
    no_bias = arguments.get("conv_bias") is False
    no_affine = (arguments.get("norm_op_kwargs") or {}).get("affine") is False

    def absent(name: str) -> bool:
        if re.search(r"\.norm\.(weight|bias)$", name):
            return no_affine
        return no_bias and name.endswith(".bias") and "seg_layers" not in name

    return absent


def _is_fold(path: Path) -> bool:
    return bool(FOLD.fullmatch(path.resolve().name)) and any((path / name).is_file() for name in CHECKPOINTS)


def _in_folder(path: Path) -> _Files:
    if not path.is_dir():
        raise ModelError(f"{path}: there is no such file or folder")
    several = {} if (path / "plans.json").exists() else _several(path)
    return _cascade_of(several, path) if several else _results(path, lambda name: _if_results(_named_like(path, name)))


def _several(path: Path) -> dict[str, _Files]:
    """{name: files} of the results folders in a folder."""
    found = sorted(file.parent for file in path.glob("*/plans.json"))
    return {folder.name: files for folder in found if (files := _results(folder, lambda name: None)).folds()}


def _if_results(path: Path) -> _Files | None:
    return _results(path, lambda name: None) if (path / "plans.json").is_file() else None


def _named_like(path: Path, configuration: str) -> Path:
    """The results folder of another configuration, trained in the same way."""
    path = path.resolve()
    return path.parent / f"{path.name.rpartition('__')[0]}__{configuration}"


def _results(path: Path, beside: Callable[[str], _Files | None]) -> _Files:
    found = [*path.glob("*.json"), *path.glob("fold_*/*.pth"), *path.glob("crossval_results_folds_*/postprocessing.*")]
    names = frozenset(file.relative_to(path).as_posix() for file in found if file.is_file())
    return _Files(str(path), names, lambda name: path / name, beside)


def _zipped(path: Path) -> _Files:
    """The one model of a zip; a zip can hold several configurations of a data set."""
    members = [name for name in safe_members(path, path) if not name.startswith("__MACOSX/")]
    heads = []
    for name in members:
        head = name.removesuffix("plans.json")
        if head != name and head[-1:] in ("", "/") and any(FOLD.match(other.removeprefix(head)) for other in members):
            heads.append(head)

    def files_of(head: str) -> _Files:
        names = frozenset(name.removeprefix(head) for name in members if name.startswith(head))
        where = f"{path}/{head}".rstrip("/") if len(heads) > 1 else str(path)
        return _Files(where, names, lambda name: read_member(path, head + name, path), lambda name: None)

    return _cascade_of({head.rstrip("/").rpartition("/")[2]: files_of(head) for head in heads}, path)


def _cascade_of(found: Mapping[str, _Files], path: Path) -> _Files:
    """The only one of several results folders, or of two the second stage of a cascade, where the other is its first."""
    if len(found) == 1:
        return next(iter(found.values()))
    if len(found) == 2:
        for (fine, files), (_, other) in itertools.permutations(found.items()):
            stages = files.json("plans.json").get("configurations")
            stage = stages.get(fine.rpartition("__")[2]) if isinstance(stages, dict) else None
            if isinstance(stage, dict) and stage.get("previous_stage") is not None:
                return replace(files, beside=lambda name, other=other: other)  # type: ignore[misc]
    known = ", ".join(found) or "none"
    raise ModelError(
        f"{path}: expected one results folder in it, with plans.json and fold_0, or the two of a cascade; found {len(found)} "
        f"({known}). {'Unpack it and give' if path.is_file() else 'Give'} the folder of one"
    )
