"""Masks of imported nnU-Net models against those of nnU-Net itself, on the same scans.

    python benchmarks/against_nnunet_models.py --nnunet BIN RESULTS IMAGES [RESULTS IMAGES ...]

BIN is the ``bin`` folder of an environment with nnunetv2, RESULTS a results folder (or ``fold_N`` of one), IMAGES a folder of
scans. For a cascade, RESULTS is the folder of its second stage, beside that of the first; nnU-Net runs one after the other. The
stages are also compared separately: the masks of the first stage, and the second stage with nnU-Net's masks of the first as
input of both programs. Both run on the CPU, with and without mirroring. For each model the table has, over all cases, the
lowest fraction of voxels with the same label, the lowest fraction of voxels whose probabilities agree to 0.001, and the largest
and the mean difference of probabilities. Rows are added to ``results/against_nnunet_models.json``.

nnU-Net sums logits in half precision, which leaves few digits in the corners of a volume, where the weights of windows are
tiny. With ``--float32`` it is made to sum in float32, to distinguish its rounding from differences between the programs. With
``--half-sums`` autoseg sums in half precision as well.
"""

import argparse
import os
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from machine import about

from autoseg.data.sources import find_inputs
from autoseg.imaging.files import read_label_volume
from autoseg.imaging.volume import LabelVolume, Volume
from autoseg.inference.bundle import load_bundle
from autoseg.inference.predictor import Predictor
from autoseg.options import InferenceOptions
from autoseg.pipeline import import_model
from autoseg.workspace import Workspace, read_json, write_json

IN_FLOAT32 = """
import torch
import nnunetv2.inference.predict_from_raw_data as predict
torch.half = torch.float32
function = predict.compute_gaussian.__wrapped__
function.__defaults__ = tuple(torch.float32 if value is torch.float16 else value for value in function.__defaults__)
"""
RUN = "from nnunetv2.inference.predict_from_raw_data import predict_entry_point_modelfolder as run; run()"


def theirs(python, results, folds, images, out, mirror, float32, previous=None):
    """Run nnU-Net on a folder of scans; it writes masks and probabilities. ``previous``: masks of the stage before."""
    command = [
        python,
        "-c",
        (IN_FLOAT32 if float32 else "") + RUN,
        "-i",
        images,
        "-o",
        out,
        "-m",
        results,
        "-f",
        *folds,
        "-device",
        "cpu",
        "--save_probabilities",
    ]
    command += ["-npp", "1", "-nps", "1", "--disable_progress_bar", *([] if mirror else ["--disable_tta"])]
    command += ["-prev_stage_predictions", previous] if previous else []
    roots = {f"nnUNet_{name}": str(out) for name in ("raw", "preprocessed", "results")}
    environment = {**os.environ, **roots, "nnUNet_def_n_proc": "1", "nnUNet_compile": "f"}
    environment.pop("PYTHONPATH", None)  # it belongs to our environment
    subprocess.run([str(part) for part in command], check=True, env=environment, stdout=subprocess.DEVNULL)


def compare(case, predictor, out, ending):
    """(fractions of voxels with the same label and the same probabilities, their largest and mean difference, foreground)."""
    found = predictor.predict(case.images, probabilities=True)
    mask = read_label_volume(out / f"{case.id}{ending}").data
    chances = np.load(out / f"{case.id}.npz")["probabilities"]
    apart = np.abs(chances - found.probabilities.astype(np.float32))
    same = (mask == found.labels.data).mean(), (apart.max(axis=0) <= 1e-3).mean()
    return (*same, apart.max(), apart.mean(), (mask > 0).mean())


@dataclass(frozen=True)
class Given:
    """Replaces the first stage of a cascade: it predicts the mask that it was given."""

    mask: LabelVolume

    def predict(self, volume: Volume) -> SimpleNamespace:
        """The mask, for any scan."""
        return SimpleNamespace(labels=self.mask, notes=())


def stages(cases, predictor, out, previous, ending):
    """Differences within a cascade: of the first stage, and of the second with nnU-Net's masks of the first as input."""
    coarse, same, rows = predictor.coarse, [], []
    for case in cases:
        mask = read_label_volume(previous / f"{case.id}{ending}")
        same.append((coarse.predict(case.images).labels.data == mask.data).mean())
        predictor.coarse = Given(mask)
        rows.append(compare(case, predictor, out, ending)[:3])
    predictor.coarse = coarse
    found = np.array(rows)
    return {
        "first_stage_same_labels_least": float(min(same)),
        "second_stage_alone": {
            "same_labels_least": float(found[:, 0].min()),
            "same_probabilities_least": float(found[:, 1].min()),
            "probability_difference_largest": float(found[:, 2].max()),
        },
    }


def lines(python, results, images, folder, float32, half_sums):
    """Yield a row for each way of predicting with one model."""
    bundle = replace(load_bundle(import_model(results, Workspace(folder), name="model")), postprocessing=())
    cases = find_inputs(images, channels=bundle.channels, file_ending=bundle.file_ending).cases
    top = results.parent if results.name.startswith("fold_") else results
    for mirror in (True, False):
        out, previous = folder / f"nnunet_{mirror}", None
        if bundle.coarse:
            previous = folder / f"previous_{mirror}"
            first = top.parent / f"{top.name.rpartition('__')[0]}__{bundle.coarse.plan.name}"
            theirs(python, first, sorted(bundle.coarse.folds), images, previous, mirror, float32)
        theirs(python, top, sorted(bundle.folds), images, out, mirror, float32, previous)
        predictor = Predictor(bundle, InferenceOptions(precision="fp32", mirror=mirror, half_sums=half_sums), device="cpu")
        rows = np.array([compare(case, predictor, out, bundle.file_ending) for case in cases])
        yield {
            "model": f"{bundle.plan.dataset} {top.name}",
            "images": images.name,
            "network": bundle.plan.network.name,
            "folds": sorted(bundle.folds),
            "mirrored": bool(predictor.mirror_axes),
            "nnunet_adds_in": "float32" if float32 else "float16",
            "autoseg_adds_in": "float16" if half_sums else "float32",
            "cases": len(cases),
            "same_labels_least": float(rows[:, 0].min()),
            "same_probabilities_least": float(rows[:, 1].min()),
            "probability_difference_largest": float(rows[:, 2].max()),
            "probability_difference_mean": float(rows[:, 3].mean()),
            "foreground_mean": float(rows[:, 4].mean()),
            **(stages(cases, predictor, out, previous, bundle.file_ending) if previous else {}),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", type=Path, metavar="RESULTS IMAGES")
    parser.add_argument("--nnunet", type=Path, required=True, metavar="BIN")
    parser.add_argument("--float32", action="store_true", help="have nnU-Net add up in float32")
    parser.add_argument("--half-sums", action="store_true", help="have autoseg add up in float16, as nnU-Net does")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "against_nnunet_models.json")
    args = parser.parse_args()
    stored = read_json(args.out)["models"] if args.out.is_file() else []
    for results, images in zip(args.pairs[::2], args.pairs[1::2], strict=True):
        with tempfile.TemporaryDirectory() as folder:
            for line in lines(args.nnunet / "python", results, images, Path(folder), args.float32, args.half_sums):
                print(line, flush=True)
                key = ("model", "images", "folds", "mirrored", "nnunet_adds_in", "autoseg_adds_in")
                stored = [old for old in stored if [old.get(k, "float32") for k in key] != [line[k] for k in key]] + [line]
                write_json(args.out, {"machine": about(), "models": stored})


if __name__ == "__main__":
    main()
