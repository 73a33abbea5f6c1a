#!/usr/bin/env bash
# VTK 9.7.2 and PyVista 0.49.1: surfaces of vtkSurfaceNets3D lose two thirds of a thin vessel's volume, and a third of one that
# is five voxels wide.
#
# Input: straight vessels of 3, 5, 7 and 11 voxels in diameter and 52 voxels in length, and a lesion of 3 x 3 x 3 voxels, as
# labels.
# Expected: about the volume of the voxels, since the filter is made for labels and its smoothing is constrained; a loss of some
# percent.
# Found: 31, 65, 79 and 90 % of it. vtkDiscreteFlyingEdges3D followed by a windowed sinc filter keeps 82, 96, 99 and 100 %. Of
# the 27 voxels of the lesion contour_labels of PyVista, which calls the filter, leaves a surface around 1.9. Smoothing is on
# from the start, with a constraint scale of 2. Diameters, volumes and stenoses measured on the surface are wrong, most where
# the vessel is thinnest.
# Use: SetSmoothing(False) and another smoothing, or a smaller SetConstraintScale; measure voxels. autoseg scales what it
# smooths back to the volume of the voxels.
# Fails as soon as the thinnest vessel has 60 % of its volume.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vtk==9.7.2 pyvista==0.49.1 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import pyvista
import vtk
from vtk.util.numpy_support import numpy_to_vtk


def volume(made):
    triangles, measured = vtk.vtkTriangleFilter(), vtk.vtkMassProperties()
    triangles.SetInputConnection(made.GetOutputPort())
    measured.SetInputConnection(triangles.GetOutputPort())
    measured.Update()
    return measured.GetVolume()


def surface(name, image, smoothing=None):
    made = getattr(vtk, name)()
    made.SetInputData(image)
    made.SetValue(0, 1)
    if smoothing is not None:
        made.SetSmoothing(smoothing)
    made.Update()
    return made


found = []
for radius in (1, 2, 3, 5):
    z, y, x = np.indices((60, 24, 24))
    mask = ((y - 12) ** 2 + (x - 12) ** 2 <= radius**2) & (z > 3) & (z < 56)
    image = vtk.vtkImageData()
    image.SetDimensions(24, 24, 60)
    image.GetPointData().SetScalars(numpy_to_vtk(mask.ravel().astype(np.uint8), deep=True))
    flying, sinc = surface("vtkDiscreteFlyingEdges3D", image), vtk.vtkWindowedSincPolyDataFilter()
    sinc.SetInputConnection(flying.GetOutputPort())
    sinc.SetNumberOfIterations(20)
    sinc.SetPassBand(0.01)
    sinc.NormalizeCoordinatesOn()
    sinc.Update()
    voxels = np.count_nonzero(mask)
    nets, unsmoothed_nets = surface("vtkSurfaceNets3D", image), surface("vtkSurfaceNets3D", image, False)
    found.append(volume(nets) / voxels)
    unsmoothed, other = volume(unsmoothed_nets) / voxels, volume(sinc) / voxels
    print(f"{2 * radius + 1} voxels wide: {found[-1]:.0%} of {voxels} voxels, {unsmoothed:.0%} without smoothing; sinc {other:.0%}")
    assert 0.95 < unsmoothed < 1.05
    assert other > 0.8
labels = pyvista.ImageData(dimensions=(20, 20, 20))
lesion = np.zeros((20, 20, 20), np.uint8)
lesion[9:12, 9:12, 9:12] = 1
labels["labels"] = lesion.ravel()
lesions = [labels.contour_labels(smoothing=on, scalars="labels").triangulate().volume for on in (True, False)]
print(f"PyVista: {lesions[0]:.1f} of 27 voxels, {lesions[1]:.1f} without smoothing")
assert abs(lesions[1] - 27) < 0.1
assert lesions[0] < 10, "the behaviour has changed"
assert found[0] < 0.6 and found[1] < 0.8 and found[3] > 0.85, "the behaviour has changed"
PYTHON
