#!/usr/bin/env bash
# VTK 9.7.2 shows an oblique NRRD straight: vtkNrrdReader keeps origin and voxel size, and drops the directions.
#
# Input: 12 x 3 x 2 voxels of 2 x 3 x 4 mm at (10, 20, 30) mm, turned by 30 degrees about z, written by SimpleITK 2.5.7, which reads
# its own file back so. (A second surprise: a first axis of 9 voxels or fewer is taken for the components of one voxel. A third: of
# a file with several components in each voxel, as of segments in layers, only one slice is read.)
#
# Seen:
#   voxel (1, 0, 0) at (12, 20, 30) mm in VTK, at (11.732, 21, 30) mm in SimpleITK
#   9 x 3 x 2 voxels: VTK has 3 x 2 x 1 voxels of 9 components
#   12 x 3 x 2 voxels of two components: VTK has 12 x 3 x 1 voxels
# What to use: SimpleITK, or surfaces, which VTK places right.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check vtk==9.7.2 SimpleITK==2.5.7 numpy==2.2.6
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import numpy as np
import SimpleITK
import vtk

turn = np.radians(30)
seen = {}
for columns in (12, 9):
    image = SimpleITK.GetImageFromArray(np.zeros((2, 3, columns), np.int16))
    image.SetSpacing((2, 3, 4))
    image.SetOrigin((10, 20, 30))
    image.SetDirection([np.cos(turn), -np.sin(turn), 0, np.sin(turn), np.cos(turn), 0, 0, 0, 1])
    SimpleITK.WriteImage(image, "a.nrrd")
    reader = vtk.vtkNrrdReader()
    reader.SetFileName("a.nrrd")
    reader.Update()
    found, place = reader.GetOutput(), np.zeros(3)
    found.TransformIndexToPhysicalPoint([1, 0, 0], place)
    right = SimpleITK.ReadImage("a.nrrd").TransformIndexToPhysicalPoint((1, 0, 0))
    seen[columns] = found.GetDimensions(), found.GetNumberOfScalarComponents(), place.tolist()
    print(f"{columns} columns: VTK {seen[columns]}, SimpleITK has voxel (1, 0, 0) at {np.round(right, 3).tolist()}")
    assert np.allclose(right, (10 + 2 * np.cos(turn), 20 + 2 * np.sin(turn), 30))
assert seen[12] == ((12, 3, 2), 1, [12, 20, 30]), "the behaviour has changed"
assert seen[9][:2] == ((3, 2, 1), 9), "the behaviour has changed"
SimpleITK.WriteImage(SimpleITK.GetImageFromArray(np.zeros((2, 3, 12, 2), np.int16), isVector=True), "b.nrrd")
assert SimpleITK.ReadImage("b.nrrd").GetSize() == (12, 3, 2)
reader = vtk.vtkNrrdReader()
reader.SetFileName("b.nrrd")
reader.Update()
layered = reader.GetOutput().GetDimensions()
print(f"two components: VTK has {layered} voxels")
assert layered == (12, 3, 1), "the behaviour has changed"
PYTHON
