"""What an installed package brings by entry points is used: one of each kind, from raw scans to scored surfaces.

The package is built by hand: a module and the ``dist-info`` folder that an installer would write, on the path of a process.
"""

from __future__ import annotations

import csv
import importlib
import json
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import autoseg
from autoseg import registry
from autoseg.errors import AutosegError
from autoseg.phantoms import write_phantoms
from autoseg.registry import Later, Registry
from tests.helpers import dicom as draw

ROOT = Path(__file__).parents[2]
BROUGHT = {
    "network": "guest_net",
    "planner": "guest_plan",
    "layout": "guest_layout",
    "loss": "guest_loss",
    "augmentation": "guest_twist",
    "augmentation_preset": "guest_preset",
    "normalization": "guest_scheme",
    "metric": "guest_voxels",
    "file_format": ".guest",
    "surface_format": "gst",
    "dicom_result": "guestdicom",
    "recipe": "guest_recipe",
    "output": "guest_output",
    "listener": "guest_listener",
}
MODULE = '''
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

USED = set()


def used(kind):
    USED.add(kind)


def guest_net(spec, ends):
    from autoseg.networks.unet import build_unet
    used("network")
    return build_unet(spec, ends)


def guest_plan(fingerprint, budget, preset):
    from planners.fullres import plan_fullres
    used("planner")
    plan = plan_fullres(fingerprint, budget, preset)
    schemes = tuple(replace(how, scheme="guest_scheme") for how in plan.normalization)
    network = replace(plan.network, features=tuple(min(8, n) for n in plan.network.features), attention=())
    return replace(plan, name="guest_plan", normalization=schemes, network=network)


def guest_layout(source):
    from autoseg.data.layouts.folders import find
    used("layout")
    return find(source / "imagesTr", labels=source / "labelsTr", channels=["MR"])


def guest_loss(logits, codes, *, batch_dice=False, regions=()):
    from autoseg.training.losses import dice_cross_entropy
    used("loss")
    return dice_cross_entropy(logits, codes, batch_dice=batch_dice, regions=regions)


def sample(rng, setting):
    return {"shift": float(rng.uniform(-0.1, 0.1))}


def apply(image, codes, shift):
    used("augmentation")
    return image + shift, codes


def guest_scheme(channel, inside, how):
    used("normalization")
    return (channel / 1000).astype(np.float32)


def guest_voxels(reference, predicted, spacing_mm):
    used("metric")
    return int(predicted.sum())


class guest_format:
    """Voxels and their grid in one npz."""

    @staticmethod
    def read(path):
        from autoseg.imaging.raw import digest_of
        data, geometry = guest_format._open(path)
        return data, geometry, (), digest_of(path.read_bytes())

    @staticmethod
    def read_geometry(path):
        return guest_format._open(path)[1]

    @staticmethod
    def write(path, array, geometry, like=None, description=""):
        used("file_format")
        data = array if array.ndim == 4 else array[None]
        with open(path, "wb") as file:
            np.savez(file, data=data, affine=geometry.affine)

    @staticmethod
    def _open(path):
        from autoseg.imaging.geometry import Geometry
        with np.load(path, allow_pickle=False) as stored:
            return stored["data"], Geometry.from_affine(stored["data"].shape[1:], stored["affine"])


def write_surface(mesh, coordinates, colour):
    return b"".join((len(mesh.vertices_mm).to_bytes(8, "little"), mesh.vertices_in(coordinates).astype("<f8").tobytes(),
                     mesh.faces.astype("<i4").tobytes()))


def read_surface(path, name):
    used("surface_format")
    raw = path.read_bytes()
    end = 8 + 24 * int.from_bytes(raw[:8], "little")
    return np.frombuffer(raw[8:end], "<f8").reshape(-1, 3), np.frombuffer(raw[end:], "<i4").reshape(-1, 3)


def guest_dicom(path, series, labels, *, structures, model, version):
    used("dicom_result")
    path.write_text(",".join(structures))


def guest_listener(folder, record):
    used("listener")
    with (folder / "guest.jsonl").open("a") as file:
        print(record["step"], record["validation_loss"], file=file)


class GuestOutput:
    """Counts the voxels of the final labels."""

    name, suffixes, identity = "guest_output", ("_guest.txt",), {"export": {"guest_output": {}}}

    def check(self, model):
        assert model.labels.structures

    def write(self, case, found, folder):
        from autoseg.inference.output import Written
        used("output")
        path = folder / f"{case.id}_guest.txt"
        path.write_text(str(int((found.labels.data > 0).sum())))
        return Written((path,), {"guest_output": 1})


def make_output(options, ending):
    return GuestOutput() if "guest_output" in options.write else None


def __getattr__(name):
    """What takes imports of autoseg is made when it is asked for."""
    if name == "twist":
        from autoseg.training.augment import Transform
        return Transform(sample, apply)
    if name == "preset":
        from autoseg.training.augment.presets import Augmentation, step
        used("augmentation_preset")
        return Augmentation((step("guest_twist", 1.0),))
    if name == "surface":
        from autoseg.imaging.surface_formats import SurfaceFormat
        return SurfaceFormat(write_surface, read_surface)
    if name == "recipe":
        from autoseg.training.recipe import Recipe
        used("recipe")
        short = {"validations": 1, "augmentation_free_epochs": 0.0, "mirror": False}
        return Recipe(name="guest", loss="guest_loss", augmentation="guest_preset", **short)
    raise AttributeError(name)
'''
OBJECTS = {
    "layout": "guest_layout",
    "augmentation": "twist",
    "augmentation_preset": "preset",
    "normalization": "guest_scheme",
    "metric": "guest_voxels",
    "file_format": "guest_format",
    "surface_format": "surface",
    "dicom_result": "guest_dicom",
    "recipe": "recipe",
    "output": "make_output",
}
STORY = """
import json, sys
from pathlib import Path
from autoseg.cli import main
from autoseg.imaging.files import read_volume, read_label_volume, write_volume, write_label_volume

source, place = Path(sys.argv[1]), Path(sys.argv[2])
space = ["--workspace", str(place / "workspace"), "--quiet"]

def call(*words):
    if status := main([*map(str, words), *space]):
        sys.exit(f"{words} ended with status {status}")

call("convert", "guest_layout", source, place / "Dataset012_Guest")
call("plan_and_preprocess", place / "Dataset012_Guest", "--no-preprocess")  # the training makes the plan that it lacks
call("train", "Guest", 0, "--plan", "guest_plan", "--network", "guest_net", "--recipe", "guest_recipe", "--iterations", 60,
     "--device", "cpu", "--name", "run", "--set", "cpu_width=1")
for kind, read, write in (("imagesTs", read_volume, write_volume), ("labelsTs", read_label_volume, write_label_volume)):
    for path in (source / kind).iterdir():
        (place / kind).mkdir(exist_ok=True)
        write(read(path), place / kind / path.name.replace(".nii.gz", ".guest"))
call("predict", "-i", place / "imagesTs", "-o", place / "out", "--device", "cpu", "--surfaces", "gst",
     "--reference", place / "labelsTs")
call("predict", "-i", place / "dicom", "-o", place / "dicom_out", "--device", "cpu", "--write", "guestdicom,guest_output")
call("report", place / "out")
import guest
print(json.dumps(sorted(guest.USED)))
"""


def install(folder: Path, distribution: str, module: str, text: str, entries: dict[str, dict[str, str]]) -> Path:
    """What an installer leaves of a small package: its module, and the folder that describes it."""
    about = folder / f"{distribution.replace('-', '_')}-1.5.dist-info"
    about.mkdir(parents=True)
    (folder / f"{module}.py").write_text(text)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in found.items()) for group, found in entries.items()
    )
    (about / "entry_points.txt").write_text("\n".join(groups))
    return folder


def run(folder: Path, *words: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which finds the package in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    start = [sys.executable, "-c", script] if script else [sys.executable, "-m", "autoseg"]
    return subprocess.run([*start, *words], env=environment, capture_output=True, text=True)  # noqa: S603


def registries() -> dict[str, Registry[Any]]:
    """Every Registry of the package by its group."""
    found: dict[str, Registry[Any]] = {}
    for about in pkgutil.walk_packages(autoseg.__path__, "autoseg."):
        if about.name != "autoseg.__main__":
            values = vars(importlib.import_module(about.name)).values()
            found |= {value.group: value for value in values if isinstance(value, Registry)}
    return found


def test_every_registry_has_a_guest_in_this_test_and_a_group_that_packaging_allows() -> None:
    groups = registries()
    assert {f"autoseg.{kind}.v1" for kind in BROUGHT} == {*groups, "autoseg.planner.v1"}
    assert all(part.isidentifier() for group in groups for part in group.split("."))


def test_one_of_each_kind_is_used(tmp_path: Path) -> None:
    entries = {f"autoseg.{kind}.v1": {name: f"guest:{OBJECTS.get(kind, name)}"} for kind, name in BROUGHT.items()}
    site = install(tmp_path / "site", "autoseg-guest", "guest", MODULE, entries)
    source = write_phantoms(tmp_path / "source", training=5, test=1, in_plane_mm=8)
    draw.write_series(tmp_path / "dicom" / "series", draw.random_values((8, 12, 16)), spacing_mm=(8.0, 8.0, 8.0))
    done = run(site, str(source), str(tmp_path), script=STORY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(json.loads(done.stdout.splitlines()[-1])) == set(BROUGHT)
    out = tmp_path / "out"
    assert (out / "phantom_005.guest").is_file()
    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(float(row["guest_voxels"]) for row in rows) > 0
    surfaces = [path.name for path in (out / "phantom_005_surfaces").glob("*.gst")]
    assert surfaces
    assert [row for row in rows if row["surface_assd_mm"]]
    assert len((tmp_path / "dicom_out" / "series_s7_guestdicom.dcm").read_text().split(",")) == 4
    assert "series_s7_guest.txt" in json.loads((tmp_path / "dicom_out" / "series_s7.json").read_text())["outputs"]
    fold = tmp_path / "workspace" / "runs" / "Guest" / "run" / "fold_0"
    checks = [json.loads(line) for line in (fold / "history.jsonl").read_text().splitlines()]
    heard = [f"{check['step']} {check['validation_loss']}" for check in checks]
    assert (fold / "guest.jsonl").read_text().splitlines() == heard
    model = json.loads((tmp_path / "workspace" / "models" / "Guest_run" / "model.json").read_text())
    assert (model["plan"]["planner"], model["plan"]["network"]["name"]) == ("fullres_3d", "guest_net")
    assert '"guest_voxels"' in (tmp_path / "workspace/runs/Guest/run/fold_0/validation/metrics.json").read_text()


def test_help_lists_what_packages_bring_and_imports_none_of_it(tmp_path: Path) -> None:
    entries = {f"autoseg.{kind}.v1": {name: "guest:any"} for kind, name in BROUGHT.items()}
    site = install(tmp_path, "autoseg-guest", "guest", "raise SystemExit('imported')", entries)
    assert run(site, "--help").returncode == 0
    for verb, kind in (("convert", "layout"), *(("predict", kind) for kind in ("surface_format", "dicom_result", "output"))):
        done = run(site, verb, "--help")
        assert done.returncode == 0, done.stderr
        assert BROUGHT[kind] in done.stdout


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_is_named_where_it_is_used_and_harms_nothing_else(tmp_path: Path) -> None:
    kinds = ("file_format", "surface_format", "layout", "planner", "network", "loss", "dicom_result", "metric")
    entries = {f"autoseg.{kind}.v1": {BROUGHT[kind]: "broken:thing"} for kind in kinds}
    site = install(tmp_path / "site", "autoseg-broken", "broken", "import a_module_that_nobody_has\n", entries)
    raw = str(write_phantoms(tmp_path / "Dataset012_Guest", training=5, test=1, in_plane_mm=8))
    space = ["--workspace", str(tmp_path / "workspace"), "--quiet"]
    assert run(site, "plan_and_preprocess", raw, *space).returncode == 0
    for words in (
        ["plan_and_preprocess", raw, "--planner", "guest_plan"],
        ["convert", "guest_layout", raw, str(tmp_path / "new")],
        ["train", raw, "0", "--network", "guest_net", "--iterations", "1"],
        ["train", raw, "0", "--set", "loss=guest_loss", "--iterations", "1"],
        ["reconstruct", "-i", f"{raw}/labelsTs", "-o", str(tmp_path / "out"), "--surfaces", "gst"],
        ["evaluate", "--reference", f"{raw}/labelsTs", "--predicted", f"{raw}/labelsTs", "-o", str(tmp_path / "out")],
    ):
        done = run(site, *words, *space)
        assert done.returncode == 2, (words, done.stderr)
        assert "autoseg-broken" in done.stderr
        assert "ModuleNotFoundError: No module named 'a_module_that_nobody_has'" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry[Any]]:
    """A registry of a kind that two packages add to."""
    names = {"one": ("green", "red", "white"), "two": ("green", "grey")}
    for package, brought in names.items():
        entries = {"autoseg.a_colour.v1": {name: f"paint_{package}:{name}" for name in brought}}
        text = "green, red, white = 'green', 'the other red', 'white'\n"
        site = install(tmp_path / package, f"paint-{package}", f"paint_{package}", text, entries)
        monkeypatch.syspath_prepend(str(site))
    caches = (registry._brought, registry._installed)
    for cached in caches:
        cached.cache_clear()
    yield Registry("a colour", {"red": "red", "where": Later("os.path:sep")})
    for cached in caches:
        cached.cache_clear()


def test_a_registry_is_its_own_names_and_then_those_of_packages(colours: Registry[Any]) -> None:
    assert set(colours.names()) == set(colours) == {"red", "where", "green", "grey", "white"}
    assert colours.names()[:2] == ("red", "where")
    assert len(colours) == 5
    assert "white" in colours
    assert (colours["red"], colours["white"], colours["where"]) == ("red", "white", os.sep)
    assert colours.get("blue") is None
    with pytest.raises(AutosegError, match=r"no a colour called 'whit'\. Did you mean 'white'\? Known: green, grey, red"):
        colours["whit"]
    with pytest.raises(AutosegError, match="exists already"):
        colours.add("white", "snow")


def test_what_two_packages_bring_or_one_lacks_is_refused_with_their_names(colours: Registry[Any]) -> None:
    with pytest.raises(AutosegError, match=r"'green' is brought by paint-\w+ 1\.5 and by paint-\w+ 1\.5\. Uninstall one"):
        colours["green"]
    with pytest.raises(AutosegError, match=r"'grey' of the installed package paint-two 1\.5 cannot be loaded: AttributeError"):
        colours["grey"]
