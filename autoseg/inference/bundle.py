"""A finished model: everything prediction needs and nothing that can run code.

A *bundle* on disk is a folder, or one zip of it, with ``model.json`` (plan, labels, channel names, digests of the weights,
``info``) and one ``fold_NAME.safetensors`` per fold. It needs neither the data, nor a workspace, nor the training code.
The fine stage of a cascade has its coarse stage, which is a model of its own, in the folder ``coarse``, and an ensemble of two
plans its second model in the folder ``beside``.
Weights are read when they are asked for, and are refused if they are not the bytes that ``model.json`` describes. A zip is read
in memory and never unpacked, so the names inside it cannot point anywhere.
"""

import hashlib
import re
import zipfile
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from autoseg.archive import read_member, safe_members
from autoseg.atomic import replacing
from autoseg.data.labels import LabelSchema
from autoseg.data.unlike import TrainingScans
from autoseg.errors import AutosegError, ModelError, blamed_on
from autoseg.inference.windows import AdaptiveWindows
from autoseg.locks import model_lock
from autoseg.networks import build_network
from autoseg.networks.shapes import shapes_alone
from autoseg.reconstruct.components import LabelRule
from autoseg.workspace import as_record, parse_json, unsealed, write_json
from planners.names import fault_of_name
from planners.plan import NetworkSpec, Plan
from planners.records import added, digest, schema_number, to_json

__all__ = [
    "BESIDE",
    "COARSE",
    "Bundle",
    "add_scans",
    "copy_bundle",
    "export_model",
    "identity_of",
    "load_bundle",
    "load_networks",
    "refuse_other_model",
    "save_bundle",
    "store_windows",
]

State = Mapping[str, torch.Tensor]  # of a network, by name
Read = Callable[[str], bytes]  # a member of a model, by name

MODEL = "model.json"
COARSE, BESIDE = "coarse", "beside"  # folders of a model within a model
FORMAT = "autoseg model 1"
SCHEMA = 3  # 2: what folds learned from, rules for labels; 3: scans, a coarse stage, windows, temperatures, networks
FOLD_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
MAX_JSON_BYTES = 64 * 2**20
AGAIN = "Copy the model again from where it comes from."


@dataclass(frozen=True)
class WeightFile:
    """What ``model.json`` says about the weights of one fold.

    ``learned_from`` are digests of the training cases that the fold learned from, empty where the model does not say. No
    prediction depends on it, so it is no part of the model's identity. Neither are the ``windows`` that it proposes: which ones
    a prediction computes is an option of it, and None where nobody has looked. ``network`` is None for the plan's own; in an
    ensemble folds of several networks share a plan.
    """

    fold: str
    digest: str
    bytes: int
    learned_from: tuple[str, ...] = added(2, (), counts=False)
    windows: AdaptiveWindows | None = added(3, None, counts=False)
    network: NetworkSpec | None = added(3, None)


@dataclass(frozen=True)
class ModelRecord:
    """``model.json`` without its free-form ``info``.

    ``coarse`` is the digest of the coarse stage, where the plan has one, ``beside`` that of the second model of an ensemble.
    """

    plan: Plan
    labels: LabelSchema
    channels: tuple[str, ...]
    file_ending: str
    weights: tuple[WeightFile, ...] = ()
    format: str = FORMAT
    postprocessing: tuple[LabelRule, ...] = added(2, ())
    scans: TrainingScans | None = added(3, None, counts=False)
    coarse: str = added(3, "")
    temperatures: tuple[float, ...] = added(3, ())
    beside: str = added(3, "")
    schema: int = schema_number(SCHEMA, since=2)

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"expected the format {FORMAT!r}, found {self.format!r}; a newer autoseg may read it")
        if not self.file_ending.startswith(".") or fault_of_name(f"case{self.file_ending}"):
            raise ValueError(f"file_ending must be such as .nii.gz, found {self.file_ending!r}")
        labels = self.plan.coarse.count if self.plan.coarse else 0
        more = f" and {labels} coarse labels" if labels else ""
        if labels and labels != len(self.labels.declared_values) - 1:
            raise ValueError(f"the network reads {labels} coarse labels, but there are {len(self.labels.declared_values) - 1}")
        for network in (self.plan.network, *(entry.network for entry in self.weights if entry.network)):
            if network.in_channels != len(self.channels) + labels:
                raise ValueError(f"the network takes {network.in_channels} channels, but the model names {self.channels}{more}")
            if network.out_channels != self.labels.n_heads:
                raise ValueError(f"the network has {network.out_channels} outputs, but the labels need {self.labels.n_heads}")
        expected = len(self.labels.structures) if self.labels.has_regions else 1
        if self.temperatures and (len(self.temperatures) != expected or min(self.temperatures) <= 0):
            raise ValueError(f"temperatures must be {expected} numbers above 0, or none, found {self.temperatures}")
        for entry in self.weights:
            if not FOLD_NAME.fullmatch(entry.fold):
                raise ValueError(f"a fold cannot be called {entry.fold!r}; use letters, digits, - and _")
        names = tuple(channel.name for channel in self.scans.channels) if self.scans else self.channels
        if names != self.channels:
            raise ValueError(f"the model names the channels {self.channels}, but says what {names} were like")


@dataclass(frozen=True, eq=False)
class Bundle:
    """A model in memory, its weights still on disk.

    Attributes:
        plan: how scans are prepared and which network it is.
        labels: what the outputs mean.
        channels: image channels in order.
        file_ending: of the training data, such as ``.nii.gz``.
        folds: fold name -> function without arguments that returns the state dict, checked.
        learned_from: fold name -> digests of the training cases that it learned from; empty where the model does not say.
        windows: fold name -> AdaptiveWindows, of the folds for which somebody has looked for them.
        info: versions, provenance, validation scores; plain JSON.
        digest: sixteen hexadecimal digits of all that predictions depend on, weights included: the identity of the model.
        name: where it was loaded from, for messages.
        postprocessing: rules for the final labels, in order.
        scans: what the training scans were like; None where the model does not say.
        coarse: the coarse stage of a cascade, whose labels this model reads; else None.
        temperatures: what logits are divided by before they become probabilities: one, or one for each region; () for 1.
        networks: fold name -> its network, of folds that have not the plan's.
        beside: a model of another plan, with the same labels and channels, whose logits are averaged with these on the grid of
            the scan; else None.
        digest_with: the digest that the model would have with some of its folds alone: what a prediction by these depends on.
    """

    plan: Plan
    labels: LabelSchema
    channels: tuple[str, ...]
    file_ending: str
    folds: Mapping[str, Callable[[], State]]
    learned_from: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    windows: Mapping[str, AdaptiveWindows] = field(default_factory=dict)
    info: dict[str, Any] = field(default_factory=dict)
    digest: str = ""
    name: str = "model"
    postprocessing: tuple[LabelRule, ...] = ()
    scans: TrainingScans | None = None
    coarse: "Bundle | None" = None
    temperatures: tuple[float, ...] = ()
    networks: Mapping[str, NetworkSpec] = field(default_factory=dict)
    beside: "Bundle | None" = None
    digest_with: Callable[[Collection[str]], str] = lambda folds: ""

    @property
    def stages(self) -> "Mapping[str, Bundle]":
        """Folder within the model -> each model in it, itself first."""
        found = {"": self, f"{COARSE}/": self.coarse, f"{BESIDE}/": self.beside}
        return {folder: stage for folder, stage in found.items() if stage is not None}

    def network_of(self, fold: str) -> NetworkSpec:
        """The network whose weights a fold has."""
        return self.networks.get(fold, self.plan.network)


def save_bundle(
    folder: str | Path,
    *,
    plan: Plan,
    labels: LabelSchema,
    channels: Iterable[str],
    weights: Mapping[Any, State],
    learned_from: Mapping[Any, Iterable[str]] | None = None,
    info: dict[str, Any] | None = None,
    file_ending: str = ".nii.gz",
    postprocessing: Iterable[LabelRule] = (),
) -> Bundle:
    """Write a model, or add folds to one; each file appears whole or not at all.

    Folds that the folder has already are kept, those named again are replaced. ``info`` is merged into the stored one,
    dictionaries within it too. Processes that add to one folder at the same moment wait for each other.

    Args:
        folder: created where it is missing. Where the plan has ``coarse`` labels the coarse stage was saved before, into the
            folder ``COARSE`` in it.
        plan, labels, channels, file_ending, postprocessing: as in ``Bundle``.
        weights: fold name (or number) -> state dict of ``build_network(plan.network)``.
        learned_from: fold name (or number), of ``weights`` -> digests of the training cases that it learned from.
        info: JSON values.

    Returns:
        The Bundle, loaded from the folder.

    Raises:
        ModelError: the folder holds a model with another plan, labels, channels, file ending or postprocessing, or stays
            locked; its coarse stage is missing, or of other scans or labels.
    """
    folder, states = Path(folder), {str(fold): state for fold, state in weights.items()}
    cases = {str(fold): tuple(digests) for fold, digests in (learned_from or {}).items()}
    record = _checked_record(plan, labels, channels, file_ending, states, folder, postprocessing)
    for fold in sorted(cases.keys() - states.keys()):
        raise ModelError(f"{folder}: it is told what fold {fold!r} learned from, but has no weights of it to save")
    return _add_folds(folder, record, states, cases, info or {})


def copy_bundle(bundle: Bundle, folder: str | Path) -> Bundle:
    """Write a Bundle as it is in memory, such as one with other rules or temperatures than that of which its weights are.

    Raises:
        ModelError: as ``save_bundle``.
    """
    folder = Path(folder)
    states = {fold: load() for fold, load in bundle.folds.items()}
    record = _record_of(bundle, folder)
    if bundle.coarse:
        copy_bundle(bundle.coarse, folder / COARSE)
    if bundle.beside:
        record = replace(record, beside=copy_bundle(bundle.beside, folder / BESIDE).digest)
    copied = _add_folds(folder, record, states, bundle.learned_from, bundle.info, bundle.networks)
    return store_windows(folder, bundle.windows) if bundle.windows else copied


def identity_of(bundle: Bundle) -> str:
    """The digest that a Bundle will have once it is written as it is in memory."""
    files = [_weight_file(fold, _as_bytes(bundle.folds[fold]()), (), bundle.networks) for fold in sorted(bundle.folds)]
    coarse, beside = (identity_of(stage) if stage else "" for stage in (bundle.coarse, bundle.beside))
    return digest(replace(_record_of(bundle, Path(bundle.name)), weights=tuple(files), coarse=coarse, beside=beside))


def _record_of(bundle: Bundle, folder: Path) -> ModelRecord:
    """What ``model.json`` will say of a Bundle, but for its weights and the models within it."""
    if bundle.beside:
        _refuse_unlike(bundle, bundle.beside, folder)
    rules = bundle.postprocessing
    record = _checked_record(bundle.plan, bundle.labels, bundle.channels, bundle.file_ending, bundle.folds, folder, rules)
    try:
        return replace(record, temperatures=bundle.temperatures, scans=bundle.scans)
    except ValueError as fault:
        raise ModelError(f"{folder}: {fault}") from fault


def _as_bytes(state: State) -> bytes:
    return safetensors.torch.save({key: value.detach().cpu().clone().contiguous() for key, value in state.items()})


def _weight_file(fold: str, data: bytes, cases: tuple[str, ...], networks: Mapping[str, NetworkSpec]) -> WeightFile:
    return WeightFile(fold, _bytes_digest(data), len(data), cases, network=networks.get(fold))


def _add_folds(
    folder: Path,
    record: ModelRecord,
    states: Mapping[str, State],
    cases: Mapping[str, tuple[str, ...]],
    info: dict[str, Any],
    networks: Mapping[str, NetworkSpec] | None = None,
) -> Bundle:
    """Write the weights of folds and the record of the model, with what the folder has already."""
    with _lock(folder):
        record, stored_info = _stored_like(record, folder)
        if record.plan.coarse:
            record = replace(record, coarse=_coarse_stage(record, load_bundle(folder / COARSE), folder).digest)
        entries = {entry.fold: entry for entry in record.weights}
        for fold, state in states.items():
            data = _as_bytes(state)
            entry = _weight_file(fold, data, cases.get(fold, ()), networks or {})
            earlier = entries.get(fold, entry)
            entries[fold] = replace(entry, windows=earlier.windows) if earlier.digest == entry.digest else entry
            with replacing(folder / _weight_name(fold)) as draft:
                draft.write_bytes(data)
        record = replace(record, weights=tuple(entries[fold] for fold in sorted(entries)))
        write_json(folder / MODEL, {**to_json(record), "info": _merged(stored_info, info)}, seal=True)
        return load_bundle(folder)


def _lock(folder: Path) -> AbstractContextManager[None]:
    """The lock lies beside a model; that of a model within it is the lock of the model it is in."""
    return model_lock(folder.parent if folder.name in (COARSE, BESIDE) else folder)


def add_scans(folder: str | Path, scans: TrainingScans | None) -> Bundle:
    """Say in a saved model what its training scans were like; None leaves it as it is. No prediction depends on it, so the
    digest stays.

    Raises:
        ModelError: no model there, or one of other channels.
    """
    folder = Path(folder)
    with _lock(folder):
        record, info = _parse_model((folder / MODEL).read_bytes(), folder / MODEL)
        if scans is not None and record.scans != scans:
            try:
                record = replace(record, scans=scans)
            except ValueError as fault:
                raise ModelError(f"{folder}: {fault}") from fault
            write_json(folder / MODEL, {**to_json(record), "info": info}, seal=True)
        return load_bundle(folder)


def store_windows(folder: str | Path, windows: Mapping[str, AdaptiveWindows]) -> Bundle:
    """Write into a model which windows its folds need; nothing else changes. Returns the Bundle, loaded from the folder.

    Args:
        folder: of a model.
        windows: fold name -> AdaptiveWindows; what other folds have stays.

    Raises:
        ModelError: no model there.
    """
    folder = Path(folder)
    load_bundle(folder)
    with _lock(folder):
        record, info = _parse_model((folder / MODEL).read_bytes(), folder / MODEL)
        entries = [replace(entry, windows=windows.get(entry.fold, entry.windows)) for entry in record.weights]
        write_json(folder / MODEL, {**to_json(replace(record, weights=tuple(entries))), "info": info}, seal=True)
        return load_bundle(folder)


def refuse_other_model(
    folder: str | Path, *, plan: Plan, labels: LabelSchema, channels: Iterable[str], file_ending: str = ".nii.gz"
) -> None:
    """Raise the ModelError that ``save_bundle`` would, before hours go into weights that the folder cannot take.

    It may be of another plan, or the plan of a network that does not fit these labels and channels.
    """
    folder = Path(folder)
    _stored_like(_checked_record(plan, labels, channels, file_ending, (), folder), folder)


def load_bundle(path: str | Path) -> Bundle:
    """Open a model: a folder, or a zip of one (as ``export_model`` writes it, or with one folder around it).

    Raises:
        ModelError: no model there, a damaged or foreign ``model.json``, a file of weights missing or of the wrong size.
            A loader in ``folds`` raises it where the bytes are not the ones that were saved.
    """
    path = Path(path)
    sizes, read = _zip_members(path) if path.is_file() else _folder_members(path)
    return _load(sizes, read, path)


def _load(sizes: Mapping[str, int], read: Read, path: Path, folder: str = "") -> Bundle:
    """The model whose members begin with ``folder``."""
    where = f"{path}/{folder}".rstrip("/")
    model = f"{folder}{MODEL}"
    if model not in sizes:
        raise ModelError(f"{where}: no {MODEL} in it, so this is not a model. Give the folder of a model, or its zip")
    if sizes[model] > MAX_JSON_BYTES:
        raise ModelError(f"{where}: {MODEL} has {sizes[model]} bytes, more than the {MAX_JSON_BYTES} that are allowed")
    record, info = _parse_model(read(model), f"{where}/{MODEL}")
    for entry in record.weights:
        found = sizes.get(f"{folder}{_weight_name(entry.fold)}")
        if found != entry.bytes:
            there = "no such file" if found is None else f"{found} bytes"
            raise ModelError(f"{where}: {_weight_name(entry.fold)}: expected {entry.bytes} bytes, found {there}. {AGAIN}")
    coarse = None
    if record.plan.coarse:
        coarse = _coarse_stage(record, _load(sizes, read, path, f"{folder}{COARSE}/"), Path(where))
        if coarse.digest != record.coarse:
            raise ModelError(
                f"{where}: its coarse stage is not the one that was saved with it\n  expected digest {record.coarse}\n"
                f"  found digest    {coarse.digest}\n{AGAIN}"
            )
    beside = _load(sizes, read, path, f"{folder}{BESIDE}/") if record.beside else None
    if beside and (folder or beside.digest != record.beside):
        raise ModelError(f"{where}: its second model is not the one that was saved with it. {AGAIN}")
    loaded = Bundle(
        plan=record.plan,
        labels=record.labels,
        channels=record.channels,
        file_ending=record.file_ending,
        folds={entry.fold: partial(_load_weights, read, folder, entry, path) for entry in record.weights},
        learned_from={entry.fold: entry.learned_from for entry in record.weights},
        windows={entry.fold: entry.windows for entry in record.weights if entry.windows is not None},
        info=info,
        digest=digest(record),
        name=where,
        postprocessing=record.postprocessing,
        scans=record.scans,
        coarse=coarse,
        temperatures=record.temperatures,
        networks={entry.fold: entry.network for entry in record.weights if entry.network},
        beside=beside,
        digest_with=partial(_digest_with, record),
    )
    if beside:
        _refuse_unlike(loaded, beside, Path(where))
    return loaded


def _digest_with(record: ModelRecord, folds: Collection[str]) -> str:
    return digest(replace(record, weights=tuple(entry for entry in record.weights if entry.fold in folds)))


def _refuse_unlike(one: Bundle, beside: Bundle, where: Path) -> None:
    """Raise ModelError where two models cannot be averaged: of other scans or labels, or themselves of several plans."""
    if one.coarse or beside.coarse or beside.beside:
        raise ModelError(f"{where}: an ensemble is of two models of one plan each; a cascade cannot be part of it")
    for name, expected, found in (
        ("channels", one.channels, beside.channels),
        ("labels", one.labels, beside.labels),
        ("folds", sorted(one.folds), sorted(beside.folds)),
    ):
        if expected != found:
            raise ModelError(f"{where}: its second model has other {name}\n  expected {expected}\n  found    {found}")


def _coarse_stage(record: ModelRecord, coarse: Bundle, where: Path) -> Bundle:
    """The coarse stage of a model, if it can be that: of the same scans, with the same labels, and the first of two."""
    assert record.plan.coarse is not None
    if coarse.coarse:
        raise ModelError(f"{where}: a coarse stage with a coarse stage of its own; cascades have two")
    for name, expected, found in (
        ("channels", record.channels, coarse.channels),
        ("labels", record.labels, coarse.labels),
        ("plan", record.plan.coarse.plan, coarse.plan.name),
    ):
        if expected != found:
            raise ModelError(f"{where}: its coarse stage has other {name}\n  expected {expected}\n  found    {found}")
    return coarse


def load_networks(
    bundle: Bundle, folds: Iterable[str | int] | None = None, *, lazy_logits: bool = False
) -> dict[str, torch.nn.Module]:
    """The networks of a model, ready to predict on the CPU.

    Args:
        bundle: the Bundle.
        folds: names (or numbers) of folds; None for all of them.
        lazy_logits: as ``build_network`` takes it.

    Returns:
        Fold name -> nn.Module in evaluation mode, in the order asked for.

    Raises:
        ModelError: a fold that the model lacks, weights that are damaged or do not fit, a network that is not known here.
    """
    names = list(bundle.folds) if folds is None else [str(fold) for fold in folds]
    missing = [name for name in names if name not in bundle.folds]
    if missing or not names:
        wanted = f"no fold {missing[0]!r}" if missing else "no fold to predict with"
        raise ModelError(f"{bundle.name}: {wanted}. The model has: {', '.join(bundle.folds) or 'none'}")
    return {name: _load_network(bundle, name, lazy_logits) for name in names}


def export_model(folder: str | Path, zip_path: str | Path) -> Path:
    """Write a model as one zip; ``load_bundle`` reads it as it is. Weights are checked first. Returns the path.

    Equal models make equal files: members are stored uncompressed, in order, without times.
    """
    bundle = load_bundle(folder)
    for stage in bundle.stages.values():
        for load in stage.folds.values():
            load()
    zip_path = Path(zip_path)
    with replacing(zip_path) as draft, zipfile.ZipFile(draft, "w") as archive:
        for within, stage in bundle.stages.items():
            for name in (MODEL, *(_weight_name(fold) for fold in stage.folds)):
                archive.writestr(zipfile.ZipInfo(within + name), (Path(folder) / within / name).read_bytes())
    return zip_path


def _load_network(bundle: Bundle, fold: str, lazy_logits: bool) -> torch.nn.Module:
    state = bundle.folds[fold]()
    with blamed_on(f"{bundle.name}: {_weight_name(fold)}", "weights that fit its plan", ModelError, AGAIN):
        # without memory, which a damaged plan may ask for without end
        with suppress(NotImplementedError), shapes_alone():
            _built(bundle, fold, lazy_logits).load_state_dict(state, assign=True)
        network = _built(bundle, fold, lazy_logits)
        network.load_state_dict(state)
    return network.eval()


def _built(bundle: Bundle, fold: str, lazy_logits: bool) -> torch.nn.Module:
    try:
        return build_network(bundle.network_of(fold), lazy_logits=lazy_logits)
    except AutosegError as fault:
        raise ModelError(f"{bundle.name}: the network {bundle.network_of(fold).name!r} cannot be built: {fault}") from fault


def _load_weights(read: Read, folder: str, entry: WeightFile, path: Path) -> State:
    name = f"{folder}{_weight_name(entry.fold)}"
    data = read(name)
    found = _bytes_digest(data)
    if found != entry.digest:
        raise ModelError(
            f"{path}: {name} is not the file that was saved\n  expected digest {entry.digest}\n  found digest    {found}\n"
            "Copy the model again from where it comes from."
        )
    with blamed_on(f"{path}: {name}", "a safetensors file", ModelError, AGAIN):
        return safetensors.torch.load(data)


def _parse_model(data: bytes, where: str | Path) -> tuple[ModelRecord, dict[str, Any]]:
    """(ModelRecord, info) from the bytes of a model.json."""
    try:
        content = unsealed(parse_json(data, where), where)
    except AutosegError as fault:
        raise ModelError(str(fault)) from fault
    if not isinstance(content, dict) or not isinstance(info := content.pop("info", {}), dict):
        raise ModelError(f"{where}: expected an object, and an object as its 'info'")
    return as_record(ModelRecord, content, where, error=ModelError, remedy=AGAIN), info


def _checked_record(
    plan: Plan,
    labels: LabelSchema,
    channels: Iterable[str],
    file_ending: str,
    weights: Iterable[str],
    folder: Path,
    postprocessing: Iterable[LabelRule] = (),
) -> ModelRecord:
    try:
        record = ModelRecord(plan, labels, tuple(channels), file_ending, postprocessing=tuple(postprocessing))
        replace(record, weights=tuple(WeightFile(fold, "", 0) for fold in weights))
    except ValueError as fault:
        raise ModelError(f"{folder}: {fault}") from fault
    return record


def _stored_like(new: ModelRecord, folder: Path) -> tuple[ModelRecord, dict[str, Any]]:
    """(ModelRecord, info) that the folder holds, refused where they are of another model; (new, {}) where there is none."""
    if not (folder / MODEL).is_file():
        return new, {}
    stored, info = _parse_model((folder / MODEL).read_bytes(), folder / MODEL)
    for name in ("plan", "labels", "channels", "file_ending", "postprocessing", "temperatures", "beside"):
        if getattr(stored, name) != getattr(new, name):
            raise ModelError(
                f"{folder}: holds a model with another {name}\n"
                f"  stored {digest({name: getattr(stored, name)})}, new {digest({name: getattr(new, name)})} (digests)\n"
                "All folds of a model share them. Save into another folder."
            )
    return stored, info


def _folder_members(path: Path) -> tuple[dict[str, int], Read]:
    """(size of each file by name, function that reads one) of a folder."""
    if not path.is_dir():
        raise ModelError(f"{path}: there is no such model; expected a folder or a zip with {MODEL} in it")
    within = [path / name for name in (COARSE, BESIDE) if (path / name).is_dir()]
    found = [*path.iterdir(), *(file for folder in within for file in folder.iterdir())]
    files = [file for file in found if file.suffix in (".json", ".safetensors") and file.is_file()]  # no link to nowhere
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    return sizes, lambda name: (path / name).read_bytes()


def _zip_members(path: Path) -> tuple[dict[str, int], Read]:
    """(size of each member by name, function that reads one) of a zip, after refusing what no model contains."""
    members = safe_members(path, path)
    heads = [name[: -len(MODEL)] for name in members if name.split("/")[-1] == MODEL and name.count("/") < 2]
    inner = ("__MACOSX/", *((f"{COARSE}/", f"{BESIDE}/") if "" in heads else ()))
    heads = [head for head in heads if head not in inner]
    if len(heads) != 1:
        raise ModelError(f"{path}: expected one {MODEL} in it, found {len(heads)}. Give the zip of one model")
    sizes = {name.removeprefix(heads[0]): size for name, size in members.items()}
    return sizes, lambda name: read_member(path, heads[0] + name, path)


def _weight_name(fold: str) -> str:
    return f"fold_{fold}.safetensors"


def _bytes_digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(old[key], new[key]) for key in new if isinstance(old.get(key), dict) and isinstance(new[key], dict)}
    return {**old, **new, **both}
