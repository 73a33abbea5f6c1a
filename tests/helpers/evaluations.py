"""A small evaluation on disk: one good case, one with a missed structure, one with a hostile name, one not predicted."""

import numpy as np

from autoseg.data.labels import LabelSchema
from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.options import ReconstructOptions, Runtime, SurfaceOptions
from autoseg.page import Page, PageCase, write_page
from autoseg.page.scene import Scene
from autoseg.pipeline import evaluate, reconstruct
from autoseg.workspace import write_json

ONE_WORKER = Runtime(workers=1)
NASTY = "<script>alert(1)<script>&'x"
ONE = LabelSchema(("thing",), ((1,),), False, (1,))
STRUCTURE = 'liver <b>"left"'
DOUBTFUL = {  # record of a prediction: the scan is unlike the training scans, and the folds disagree
    "measurements": [
        {"structure": STRUCTURE, "volume_ml": 1.05, "fold_agreement": 0.95},
        {"structure": "kidney", "volume_ml": 0.0, "fold_agreement": 0.31},
    ],
    "unlike": [{"quantity": "spacing along z", "found": 5.0, "low": 1.0, "high": 2.5, "unit": "mm"}],
    "borders": [
        {"first": STRUCTURE, "second": "kidney", "faces": 12, "gap_mean_mm": 0.21, "gap_p95_mm": 0.4, "gap_max_mm": 0.62}
        | {"gap_mm3": 1.5, "overlap_mm3": 0.25}
    ],
}


def ball(shape, centre, radius):
    """(Z, Y, X) uint8, 1 inside."""
    offsets = np.indices(shape) - np.array(centre).reshape(3, 1, 1, 1)
    return ((offsets**2).sum(axis=0) <= radius**2).astype(np.uint8)


def make_evaluation(folder):
    """Write imagesTr, labelsTr, predicted with surfaces, and evaluation, on a grid whose axes point to head, left and back."""
    rng = np.random.default_rng(0)
    grid = Geometry.from_spacing((20, 24, 28), (2.0, 1.0, 1.0)).transposed((0, 2, 1)).flipped((1, 2))
    liver, kidney = ball(grid.shape, (8, 14, 12), 5), ball(grid.shape, (15, 8, 16), 4)
    truth = np.where(liver, 1, 2 * kidney).astype(np.uint8)
    guesses = {
        "case_a": truth,
        "case_b": np.roll(liver, 2, 1),
        NASTY: np.where(np.roll(liver, 1, 1), 1, 2 * kidney).astype(np.uint8),
    }
    for case in (*guesses, "case_c"):
        scan = rng.normal(100, 10, grid.shape).astype(np.float32) + 300 * (truth > 0)
        write_volume(Volume(scan[None], grid), folder / "imagesTr" / f"{case}_0000.nii.gz")
        write_label_volume(LabelVolume(truth, grid), folder / "labelsTr" / f"{case}.nii.gz")
    for case, guess in guesses.items():
        write_label_volume(LabelVolume(guess, grid), folder / "predicted" / f"{case}.nii.gz")
    write_json(folder / "predicted" / "dataset.json", {"labels": {"background": 0, STRUCTURE: 1, "kidney": 2}})
    reconstruct(folder / "predicted", folder / "reconstructed", ReconstructOptions(SurfaceOptions(("stl",))), ONE_WORKER)
    for surfaces in folder.glob("reconstructed/*_surfaces"):
        surfaces.rename(folder / "predicted" / surfaces.name)
    record = {
        "measurements": [{"structure": "kidney", "volume_ml": 1.54321, "touches_border": False, "area_mm2": None}],
        "notes": [f"read from {folder}/imagesTr/x.nii"],
    }
    write_json(folder / "predicted" / "case_a.json", record)
    write_json(folder / "predicted" / "case_b.json", DOUBTFUL)
    evaluate(folder / "labelsTr", folder / "predicted", folder / "evaluation", runtime=ONE_WORKER)
    return folder


def write_noisy_page(path, monkeypatch, n_cases=60):
    """Write a report whose cases all show the same scan of noise; returns what ``write_page`` returns."""
    rng, shape = np.random.default_rng(0), (240, 250, 260)
    scan, mask = rng.integers(0, 256, shape, np.uint8), np.zeros(shape, np.uint8)
    mask[20:220, 20:230, 20:240] = 1
    scene = Scene(scan, mask, np.roll(mask, 1, 2), Geometry.from_spacing(shape, (1.0, 1.0, 1.0)))
    for module in ("page", "panel"):
        monkeypatch.setattr(f"autoseg.page.{module}.try_scene", lambda case: (scene, ""))
    cases = tuple(PageCase(f"case_{number:02}") for number in range(n_cases))
    return write_page(Page("Sixty", labels=ONE, cases=cases), path, workers=2)
