from pathlib import Path

import numpy as np
import pytest
import trimesh

from autoseg.errors import AutosegError
from autoseg.imaging.colours import structure_colours
from autoseg.imaging.mesh import SURFACE_FORMATS, SurfaceMesh, file_names, meshes_in_scene, read_mesh, write_mesh, write_scene

EARLIER = Path(__file__).parents[1] / "golden" / "v0.1" / "reconstructed" / "phantom_005_surfaces"

CUBE = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
CUBE_FACES = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4]]
CUBE_FACES = np.array([*CUBE_FACES, [1, 5, 7], [1, 7, 3]], np.int32)
LOWER, UPPER = np.array([-30.0, 4.0, 100.0]), np.array([-10.0, 9.0, 150.0])  # RAS+


def box(structure="left kidney", faces=CUBE_FACES):
    return SurfaceMesh(LOWER + CUBE * (UPPER - LOWER), faces, structure)


def vtk_bounds(path):
    """(lower, upper) as VTK reads them."""
    vtk = pytest.importorskip("vtk")
    readers = {".stl": vtk.vtkSTLReader, ".ply": vtk.vtkPLYReader, ".obj": vtk.vtkOBJReader, ".vtp": vtk.vtkXMLPolyDataReader}
    reader = readers[path.suffix]()
    reader.SetFileName(str(path))
    reader.Update()
    assert reader.GetOutput().GetNumberOfPolys() == 12
    bounds = np.array(reader.GetOutput().GetBounds()).reshape(3, 2)
    return bounds[:, 0], bounds[:, 1]


def test_numbers_of_a_box_are_those_of_the_formula():
    mesh = box()
    assert mesh.volume_mm3 == pytest.approx(20 * 5 * 50)
    assert mesh.area_mm2 == pytest.approx(2 * (20 * 5 + 20 * 50 + 5 * 50))
    assert mesh.is_watertight
    assert mesh.euler_number == 2
    moved = mesh.moved_outward(3.0)
    assert (moved.vertices_mm.min(axis=0) < LOWER).all()
    assert (moved.vertices_mm.max(axis=0) > UPPER).all()


def test_holes_and_wrong_winding_are_seen():
    assert not box(faces=CUBE_FACES[1:]).is_watertight
    turned = CUBE_FACES.copy()
    turned[0] = turned[0, ::-1]
    assert not box(faces=turned).is_watertight
    assert box(faces=CUBE_FACES[:, ::-1]).volume_mm3 == pytest.approx(-5000)


@pytest.mark.thorough
@pytest.mark.parametrize("ending", ["stl", "ply", "obj", "vtp"])
@pytest.mark.parametrize(("coordinates", "sign"), [("lps", (-1, -1, 1)), ("ras", (1, 1, 1))])
def test_another_library_reads_the_same_box_at_the_same_place(tmp_path, ending, coordinates, sign):
    path = tmp_path / f"kidney.{ending}"
    write_mesh(box(), path, coordinates=coordinates)
    expected = np.sort([LOWER * sign, UPPER * sign], axis=0)
    np.testing.assert_allclose(vtk_bounds(path), expected, atol=1e-4)
    said = b"76 80 83 0" if (ending, coordinates) == ("vtp", "lps") else f"SPACE={coordinates.upper()}".encode()
    assert said in path.read_bytes()
    if ending != "vtp":
        read = trimesh.load(path)
        np.testing.assert_allclose(read.bounds, expected, atol=1e-4)
        assert read.is_watertight
        assert read.volume == pytest.approx(5000)  # wound outward


def test_a_scene_has_names_colours_metres_and_the_head_up(tmp_path):
    other = SurfaceMesh(box().vertices_mm + 100, CUBE_FACES, "left  kidney")
    write_scene([box(), None, other], tmp_path / "scene.glb")
    scene = trimesh.load(tmp_path / "scene.glb")
    assert set(scene.geometry) == {"left_kidney", "left_kidney_2"}
    assert scene.metadata["SPACE"] == "LPS"
    shape = scene.geometry["left_kidney_2"]
    np.testing.assert_array_equal(shape.visual.material.baseColorFactor[:3], structure_colours("abc")[2])
    assert shape.bounds[1, 1] == pytest.approx(0.250)  # also for readers that ignore the transforms of nodes
    lower, upper = scene.bounds
    assert upper[1] == pytest.approx(0.250)  # the top of the second box
    assert (lower[0], upper[0]) == (pytest.approx(-0.090), pytest.approx(0.030))
    assert scene.volume > 0


@pytest.mark.parametrize("ending", list(SURFACE_FORMATS))
def test_a_surface_appears_whole_or_not_at_all(tmp_path, ending, monkeypatch):
    write_mesh(box("Leber — große\nZyste"), tmp_path / f"a.{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{ending}"]
    monkeypatch.setitem(SURFACE_FORMATS, ending, SURFACE_FORMATS[ending]._replace(write=lambda *_: 1 / 0))
    with pytest.raises(ZeroDivisionError):
        write_mesh(box(), tmp_path / f"b.{ending}")
    assert [path.name for path in tmp_path.iterdir()] == [f"a.{ending}"]


def test_wrong_names_say_what_there_is(tmp_path):
    with pytest.raises(AutosegError, match=r"no surface format called 'stil'.*'stl'"):
        write_mesh(box(), tmp_path / "a.stil")
    with pytest.raises(AutosegError, match="expected lps or ras"):
        write_mesh(box(), tmp_path / "a.stl", coordinates="mni")
    assert list(tmp_path.iterdir()) == []


def test_file_names_are_plain_and_different():
    assert file_names(["liver", "Liver", "a/b: c", "../x", "", "große Zyste"]) == [
        "liver",
        "Liver_2",
        "a_b_c",
        "x",
        "structure",
        "große_Zyste",
    ]
    assert len({name.lower() for name in file_names(["a", "a", "a_2", "A"])}) == 4


@pytest.mark.parametrize("coordinates", ["lps", "ras"])
@pytest.mark.parametrize("ending", list(SURFACE_FORMATS))
def test_files_are_read_as_they_were_written(tmp_path, ending, coordinates):
    path = tmp_path / f"a.{ending}"
    write_mesh(box(), path, coordinates=coordinates)
    mesh = read_mesh(path, "left kidney", coordinates=coordinates, name="left_kidney")
    np.testing.assert_allclose(mesh.vertices_mm[mesh.faces], box().vertices_mm[box().faces], atol=1e-4)
    assert mesh.volume_mm3 == pytest.approx(5000, rel=1e-4)


def test_a_surface_is_found_in_a_scene(tmp_path):
    moved = SurfaceMesh(box().vertices_mm + 50, CUBE_FACES, "left/kidney")
    write_scene([box(), None, moved], tmp_path / "scene.glb")
    mesh = read_mesh(
        tmp_path / "scene.glb", "left/kidney", coordinates="lps", name=file_names(["left kidney", "left/kidney"])[1]
    )
    np.testing.assert_allclose(mesh.vertices_mm.min(axis=0), LOWER + 50, atol=1e-4)


@pytest.mark.parametrize("coordinates", ["lps", "ras"])
def test_a_scene_is_the_same_for_vtk_whatever_coordinates_are_asked_for(tmp_path, coordinates):
    vtk = pytest.importorskip("vtk")
    write_scene([box()], tmp_path / "scene.glb", coordinates=coordinates)
    reader = vtk.vtkGLTFReader()
    reader.SetFileName(str(tmp_path / "scene.glb"))
    reader.Update()
    bounds = np.zeros(6)
    reader.GetOutput().GetBounds(bounds)
    left, head, back = [10, 30], [100, 150], [-9, -4]  # LPS mm
    np.testing.assert_allclose(bounds, np.array([*left, *head, -back[1], -back[0]]) / 1000, atol=1e-7)


def test_an_earlier_scene_whose_node_scales_lies_where_its_other_files_do():
    meshes = meshes_in_scene(EARLIER / "scene.glb")
    assert len(meshes) == 4
    for name, (vertices, faces) in meshes.items():
        other = trimesh.load(EARLIER / f"{name}.ply", process=False)
        np.testing.assert_allclose(vertices[faces], other.vertices[other.faces], atol=1e-3)
