"""Surfaces: their accuracy for balls and ellipsoids, and the time for 40 structures of a large scan.

    python benchmarks/surfaces.py [--shape 300 512 512] [--spacing 1.5 0.8 0.8] [--structures 40] [--workers 2]

Accuracy: errors of volume and area against the formula, in percent, over 40 positions and rotations of the grid: their mean
(the bias of the method), their standard deviation (the effect of the grid) and the largest. Surfaces are made from three
inputs: scores equal to the distance from the surface in mm; scores equal to the logit of the fraction of each voxel inside the
body; and label maps, which have only signs. ``counted`` is the volume of the voxels, which surfaces of label maps keep.
``area_for_volume`` compares their area with that of the same body scaled to this volume: the error of the method without that
of counting. Speed: structures with the sizes of organs, from a lung to vessels, in one label map; wall-clock and CPU seconds,
and peak memory of the process.
"""

import argparse
import json
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
from machine import about

from autoseg.imaging.geometry import Geometry
from autoseg.imaging.mesh import write_mesh
from autoseg.imaging.volume import LabelVolume
from autoseg.reconstruct.measure import measure_structures
from autoseg.reconstruct.surface import surfaces_from_labels, surfaces_from_scores

SPACINGS = ((1.0, 1.0, 1.0), (3.0, 0.8, 0.8), (5.0, 0.8, 0.8))
POSITIONS, FINE_MM = 40, 0.25  # of the grid; the step for counting the fraction of a voxel inside
FORMS = ((20, 20, 20), (6, 6, 6), (20, 14, 10))


def distances(half, spacing, rng):
    """(first-order distance to the surface of an ellipsoid, positive inside; fraction of each voxel inside; random grid)."""
    half = np.array(half, float)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    shape = [int(np.ceil(2 * (half.max() + 1) / s)) + 4 for s in spacing]
    geometry = Geometry.from_affine(shape, np.column_stack([turn * spacing, np.zeros(3)]))
    middle = geometry.to_world([[(n - 1) / 2 for n in shape] + rng.uniform(-0.5, 0.5, 3)])[0]

    def distance(index):
        points = geometry.to_world(index) - middle
        level, slope = np.linalg.norm(points / half, axis=1), np.linalg.norm(points / half**2, axis=1)
        return level * (1 - level) / slope

    index = np.indices(shape).reshape(3, -1).T
    found = distance(index)
    share = (found > 0).astype(np.float32)
    steps = [round(s / FINE_MM) for s in spacing]
    offsets = (np.indices(steps).reshape(3, -1).T + 0.5) / steps - 0.5
    near = np.flatnonzero(np.abs(found) < np.linalg.norm(spacing))
    for part in np.array_split(near, len(near) // 1000 + 1):
        inside = distance((index[part, None] + offsets).reshape(-1, 3)) > 0
        share[part] = inside.reshape(len(part), -1).mean(axis=1)
    return found.reshape(shape).astype(np.float32), share.reshape(shape), geometry


def truth(half):
    """(volume, area) of an ellipsoid; the area by integration over 2000 x 2000 directions."""
    a, b, c = half
    theta = (np.arange(2000)[:, None] + 0.5) * np.pi / 2000
    phi = (np.arange(2000) + 0.5) * np.pi / 1000
    across = (b * c * np.cos(phi)) ** 2 + (a * c * np.sin(phi)) ** 2
    area = np.sin(theta) * np.sqrt(np.sin(theta) ** 2 * across + (a * b * np.cos(theta)) ** 2)
    return 4 / 3 * np.pi * a * b * c, float(area.sum() * np.pi / 2000 * np.pi / 1000)


def accuracy(half, spacing):
    """Mean, standard deviation and maximum of errors in percent: of counting voxels, and of volume and area by input."""
    volume, area = truth(half)
    rows = []
    for seed in range(POSITIONS):
        distance, share, geometry = distances(half, spacing, np.random.default_rng(seed))
        share = share.clip(0.005, 0.995)
        fields = {"distances": distance, "averages": np.log(share / (1 - share))}
        meshes = {
            name: surfaces_from_scores(np.stack([np.zeros_like(field), field]), geometry, ["it"], workers=1)[0]
            for name, field in fields.items()
        }
        inside = LabelVolume((distance > 0).astype(np.uint8), geometry)
        meshes["labels"] = surfaces_from_labels(inside, {"it": (1,)}, workers=1)[0]
        assert all(mesh.is_watertight and mesh.euler_number == 2 and mesh.volume_mm3 > 0 for mesh in meshes.values())
        row = {"counted": np.count_nonzero(inside.data) * np.prod(spacing) / volume - 1}
        for name, mesh in meshes.items():
            row |= {f"{name}_volume": mesh.volume_mm3 / volume - 1, f"{name}_area": mesh.area_mm2 / area - 1}
        row["labels_area_for_volume"] = (1 + row["labels_area"]) / (1 + row["counted"]) ** (2 / 3) - 1
        rows.append(row)
    errors = {name: 100 * np.array([row[name] for row in rows]) for name in rows[0]}
    found = {
        name: {"mean": round(e.mean(), 2), "spread": round(e.std(), 2), "worst": round(np.abs(e).max(), 2)}
        for name, e in errors.items()
    }
    return {"half_axes_mm": half, "spacing_mm": spacing, **found}


def scan(shape, spacing, n):
    """A label map with n ellipsoids, half axes from 110 mm (a lung) to 6 mm, with bumps."""
    rng = np.random.default_rng(0)
    data, size = np.zeros(shape, np.uint8), np.array(shape) * spacing
    for value in range(1, n + 1):
        half = np.array([1.0, rng.uniform(0.5, 1), rng.uniform(0.5, 1)]) * (110 * (6 / 110) ** ((value - 1) / (n - 1)))
        half = np.minimum(half, 0.4 * size)
        middle = rng.uniform(half, size - half)
        lower, upper = (np.clip((middle + sign * half) / spacing, 0, shape).astype(int) for sign in (-1, 1))
        axes = [(np.arange(a, b) * s - m) / h for a, b, s, m, h in zip(lower, upper, spacing, middle, half, strict=True)]
        z, y, x = np.ix_(*axes)
        part = data[tuple(slice(a, b) for a, b in zip(lower, upper, strict=True))]
        part[z**2 + y**2 + x**2 < 1 - 0.1 * (1 + np.sin(9 * x + 4 * y) * np.sin(8 * z))] = value
    return LabelVolume(data, Geometry.from_spacing(shape, spacing))


def speed(options):
    labels = scan(tuple(options.shape), tuple(options.spacing), options.structures)
    groups = {f"structure {value}": (value,) for value in range(1, options.structures + 1)}
    steps = {}

    def step(name, function):
        wall, cpu = time.perf_counter(), time.process_time()
        result = function()
        steps[name] = {"wall_s": round(time.perf_counter() - wall, 2), "cpu_s": round(time.process_time() - cpu, 2)}
        print(f"{name:10} {steps[name]}")
        return result

    meshes = step("surfaces", lambda: surfaces_from_labels(labels, groups, workers=options.workers))
    with tempfile.TemporaryDirectory() as folder:
        step("stl files", lambda: [write_mesh(m, Path(folder) / f"{i}.stl") for i, m in enumerate(meshes) if m])
    step("measures", lambda: measure_structures(labels, groups, meshes=meshes, workers=options.workers))
    there = [mesh for mesh in meshes if mesh is not None]
    return {
        "shape": options.shape,
        "spacing_mm": options.spacing,
        "structures": len(there),
        "labelled_share": round(float((labels.data > 0).mean()), 3),
        "triangles": sum(len(mesh.faces) for mesh in there),
        "watertight": sum(mesh.is_watertight for mesh in there),
        "workers": options.workers,
        "steps": steps,
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", type=int, nargs=3, default=[300, 512, 512])
    parser.add_argument("--spacing", type=float, nargs=3, default=[1.5, 0.8, 0.8])
    parser.add_argument("--structures", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "surfaces.json")
    options = parser.parse_args()
    record = {"machine": about(), "speed": speed(options), "accuracy": []}
    print(json.dumps(record["speed"]))
    for half in FORMS:
        for spacing in SPACINGS:
            record["accuracy"].append(accuracy(half, spacing))
            print(json.dumps(record["accuracy"][-1]))
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
