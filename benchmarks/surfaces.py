"""Surfaces: how near they come to balls and ellipsoids, and how long 40 structures of a large scan take.

    python benchmarks/surfaces.py [--shape 300 512 512] [--spacing 1.5 0.8 0.8] [--structures 40] [--workers 2]

Accuracy: the largest error in percent of volume and area over eight positions and turns of the grid, against the formula.
From scores the network's logit is the distance to the surface over 1 mm; from labels only its sign is known. ``counted`` is
the error of the voxels' own volume, which surfaces of label maps keep. Speed: structures of the sizes of organs, from a lung
down to vessels, in one label map; seconds on the wall and of the processor, and the most memory that the process ever held.
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
FORMS = ((20, 20, 20), (6, 6, 6), (20, 14, 10))


def distances(half, spacing, rng):
    """(first-order distance to an ellipsoid's surface, positive inside; grid), turned and placed at random."""
    half = np.array(half, float)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    shape = [int(np.ceil(2 * (half.max() + 1) / s)) + 4 for s in spacing]
    geometry = Geometry.from_affine(shape, np.column_stack([turn * spacing, np.zeros(3)]))
    middle = geometry.to_world([[(n - 1) / 2 for n in shape] + rng.uniform(-0.5, 0.5, 3)])[0]
    points = geometry.to_world(np.indices(shape).reshape(3, -1).T) - middle
    level, slope = np.linalg.norm(points / half, axis=1), np.linalg.norm(points / half**2, axis=1)
    return (level * (1 - level) / slope).reshape(shape).astype(np.float32), geometry


def truth(half):
    """(volume, area) of an ellipsoid; the area by integration over 2000 x 2000 directions."""
    a, b, c = half
    theta = (np.arange(2000)[:, None] + 0.5) * np.pi / 2000
    phi = (np.arange(2000) + 0.5) * np.pi / 1000
    across = (b * c * np.cos(phi)) ** 2 + (a * c * np.sin(phi)) ** 2
    area = np.sin(theta) * np.sqrt(np.sin(theta) ** 2 * across + (a * b * np.cos(theta)) ** 2)
    return 4 / 3 * np.pi * a * b * c, float(area.sum() * np.pi / 2000 * np.pi / 1000)


def accuracy(half, spacing):
    """Largest errors in percent: of the counted voxels, and of (volume, area) of the surfaces from scores and labels."""
    volume, area = truth(half)
    rows = []
    for seed in range(8):
        distance, geometry = distances(half, spacing, np.random.default_rng(seed))
        inside = distance > 0
        logits = np.stack([np.zeros_like(distance), distance])
        meshes = [
            surfaces_from_scores(logits, geometry, ["it"], workers=1)[0],
            surfaces_from_labels(LabelVolume(inside.astype(np.uint8), geometry), {"it": (1,)}, workers=1)[0],
        ]
        assert all(mesh.is_watertight and mesh.euler_number == 2 and mesh.volume_mm3 > 0 for mesh in meshes)
        errors = [value / true - 1 for mesh in meshes for value, true in ((mesh.volume_mm3, volume), (mesh.area_mm2, area))]
        rows.append([np.count_nonzero(inside) * np.prod(spacing) / volume - 1, *errors])
    worst = np.abs(100 * np.array(rows)).max(axis=0).round(2).tolist()
    names = ("counted", "scores_volume", "scores_area", "labels_volume", "labels_area")
    return {"half_axes_mm": half, "spacing_mm": spacing, **dict(zip(names, worst, strict=True))}


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
