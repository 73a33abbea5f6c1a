"""Volumes on cubic voxels beside the labels: restored by the network, and interpolated without it."""

from autoseg.imaging import nifti
from autoseg.imaging.files import read_volume
from autoseg.imaging.resample import resample_image
from autoseg.inference.cohort import Exporter
from autoseg.preprocess.case import scanner_units, spacing_of
from autoseg.reconstruct.native import image_to_native

__all__ = ["isotropic_exporters"]

THICKER = 1.5  # times as thick, and slices count as thick


def isotropic_exporters(predictor, folder, spacing_mm):
    """An Exporter of ``CASE_iso_cubic.nii.gz``, the scan by cubic splines, and ``CASE_iso.nii.gz``, restored by the network.

    Both cover the box of the scan, in its units, and say in their headers that they are derived. A model without a restoration
    head gives the first alone, and ``CASE.json`` says so. Where the network sees nothing the restored volume is the other
    one; intensities beyond the range that the network sees end there. What lies between slices is restored on the network's
    grid: where that grid is as coarse as the scan, nothing was learned of it, and ``CASE.json`` says that too.

    Args:
        predictor: the Predictor that the cases are predicted with.
        folder: of the predictions.
        spacing_mm: edge of the voxels, 0 for the finest spacing of each scan; None for no such files, and no Exporter.
    """

    def write(case, prediction, prepared, logits):
        volume = read_volume(case.images, resample=predictor.resample_channels)
        grid = volume.geometry.isotropic(spacing_mm)
        cubic = resample_image(volume.data, volume.geometry, grid, (3, 3, 3))
        files, restored = [folder / f"{case.id}_iso_cubic.nii.gz"], None
        note = "the model was trained without restoration_weight and does not restore images"
        nifti.write(files[0], _channels(cubic), grid, description="derived: scan on cubic voxels by splines")
        if predictor.restores:
            plan = predictor.bundle.plan
            slices = _slices(spacing_of(volume.geometry, plan), prepared.grid.spacing_mm)
            image = scanner_units(predictor.restore(prepared.data, slices), volume, plan)
            files.append(folder / f"{case.id}_iso.nii.gz")
            restored, note = files[-1].name, _unlearned(slices, prepared.grid.spacing_mm)
            image = image_to_native(image, prepared.grid, cubic, grid)
            nifti.write(files[-1], _channels(image), grid, description="derived: restored by a network, on cubic voxels")
        about = {
            "derived": True,
            "spacing_mm": grid.spacing_mm,
            "interpolated": files[0].name,
            "restored": restored,
            "note": note,
        }
        return files, {"isotropic": about}

    suffixes = ("_iso_cubic.nii.gz", "_iso.nii.gz")
    return [] if spacing_mm is None else [Exporter("isotropic", suffixes, write, {"spacing_mm": spacing_mm})]


def _slices(native_mm, grid_mm):
    """How many voxels of the network's grid a slice of the scan is thick along (z, y, x), beside what all its axes have."""
    voxels = [max(1.0, native / mm) for native, mm in zip(native_mm, grid_mm, strict=True)]
    return [count / min(voxels) for count in voxels]


def _unlearned(slices, grid_mm):
    """A sentence where the network's own grid has slices and the scan's are no thicker; else empty."""
    if max(slices) > THICKER or max(grid_mm) < THICKER * min(grid_mm):
        return ""
    return (
        f"slices are no thicker than those the model learned from ({max(grid_mm):.3g} mm): it takes away noise and blur, and "
        "between the slices the restored volume is interpolated"
    )


def _channels(data):
    """(Z, Y, X) of one channel, as viewers like it; several stay (C, Z, Y, X)."""
    return data[0] if len(data) == 1 else data
