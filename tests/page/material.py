"""A small evaluation on disk: one case well, one with a structure missed, one of a nasty name, one not predicted."""

import numpy as np

from autoseg.imaging.files import write_label_volume, write_volume
from autoseg.imaging.geometry import Geometry
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.pipeline import evaluate
from autoseg.workspace import write_json

NASTY = "<script>alert(1)<script>&'x"
STRUCTURE = 'liver <b>"left"'


def ball(shape, centre, radius):
    """(Z, Y, X) uint8, 1 inside."""
    offsets = np.indices(shape) - np.array(centre).reshape(3, 1, 1, 1)
    return ((offsets**2).sum(axis=0) <= radius**2).astype(np.uint8)


def make_evaluation(folder):
    """Write imagesTr, labelsTr, predicted and evaluation, on a grid that runs to the head, the left and the back."""
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
    record = {
        "measurements": [{"structure": "kidney", "volume_ml": 1.54321, "touches_border": False, "area_mm2": None}],
        "notes": [f"read from {folder}/imagesTr/x.nii"],
    }
    write_json(folder / "predicted" / "case_a.json", record)
    evaluate(folder / "labelsTr", folder / "predicted", folder / "evaluation", workers=1)
    return folder
