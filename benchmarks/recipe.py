"""The effect of each setting of the recipe: training runs of equal cost that differ in one setting, paired by validation case.

    python benchmarks/recipe.py DATA_SET --arms base,poly,half_width --steps 500 --workspace DIR

The arm ``base`` trains ``--steps`` steps. The others get as many steps as take the same time, without a restoration head. The
time of a step is measured at the start, for all arms in turn, on one core, so that other work on the machine affects all
equally. A call uses one core: start several calls with different arms at once.
"""

import argparse
import json
import logging
import time
from dataclasses import replace
from pathlib import Path

import torch
from machine import about

from autoseg.evaluation import paired_difference
from autoseg.networks import build_network
from autoseg.options import Runtime, TrainingOptions, TrainOptions
from autoseg.pipeline import plan_and_preprocess, train
from autoseg.training.length import Length
from autoseg.training.losses import deep_supervision_loss, dice_cross_entropy
from autoseg.training.recipe import Recipe, changed, patch_stage
from autoseg.training.settle import settle
from autoseg.workspace import Workspace, write_json
from planners.records import to_json

STAGE = {"until": 0.7, "scale": 0.8, "batch_factor": 1}
ARMS = {  # settings of the recipe
    "base": {},
    "full_width": {"cpu_width": 1.0},
    "quarter_width": {"cpu_width": 0.25},
    "mirrored": {"mirror": True},
    "no_warmup": {"warmup": 0.0},
    "fall_from_the_start": {"constant_until": 0.0},
    "momentum_0.9": {"momentum": 0.9},
    "momentum_0.95": {"momentum": 0.95},
    "momentum_0.975": {"momentum": 0.975},
    "momentum_0.98": {"momentum": 0.98},
    "momentum_0.99": {"momentum": 0.99},
    "patience_3": {"patience": 3},
    "no_plateau_stop": {"patience": None},
    "no_average": {"ema": False},
    "whole_patches": {"patch_curriculum": []},
    "small_patches_shorter": {"patch_curriculum": [STAGE | {"until": 0.4}]},
    "sgd": {"muon_learning_rate": 0.0},
    "kernel_rate_0.02": {"muon_learning_rate": 0.02},
    "kernel_rate_0.05": {"muon_learning_rate": 0.05},
    "attention_rate_0.005": {"attention_rate": 0.005},
    "attention_rate_0.02": {"attention_rate": 0.02},
    "rate_0.015": {"learning_rate": 0.015},
    "rate_0.03": {"learning_rate": 0.03},
    "batch_1": {"batch_size": 1},
    "batch_4": {"batch_size": 4},
    "light_augmentation": {"augmentation": "light"},
    "no_plain_end": {"augmentation_free_epochs": 0.0},
    "no_deep_supervision": {"deep_supervision": False},
    "foreground_0.67": {"foreground": 0.67},
    "cross_entropy": {"loss": "cross_entropy"},
    "restoration": {"restoration_weight": 0.1},
    "restoration_shared": {"restoration_weight": 0.1, "restoration_detach": False},
    "restoration_shared_1": {"restoration_weight": 1.0, "restoration_detach": False},
}
NETWORK_ARMS = {"unet": "unet"}  # another network, with the settings of base


def seconds_of_a_step(plan, recipe):
    """Seconds of forward and backward pass, averaged over the stages of the patch-size curriculum."""
    settled = settle(plan, replace(recipe, restoration_weight=0.0), Length(seconds=1), "cpu", 0)
    batch, network, total, before = settled.batch_size, build_network(settled.plan.network).train(), 0.0, 0.0
    for until in [*(stage.until for stage in recipe.patch_curriculum), 1.0]:
        patch, factor = patch_stage(recipe, before, plan.patch_size, plan.network.divisor)
        images, codes = (
            torch.randn(batch * factor, plan.network.in_channels, *patch),
            torch.zeros(batch * factor, *patch).short(),
        )
        best = float("inf")
        for _ in range(3):
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16):
                logits = network(images, every_scale=True)
            deep_supervision_loss(dice_cross_entropy, logits, codes).backward()
            best = min(best, time.perf_counter() - start)
        total, before = total + (until - before) * best, until
    return total


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--arms", default=",".join([*ARMS, *NETWORK_ARMS]))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "recipe.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    workspace = Workspace(args.workspace.absolute())
    planned = plan_and_preprocess(args.data_set, workspace)
    plan, arms = planned.plan, args.arms.split(",")
    recipes = {name: changed(Recipe(), ARMS.get(name, {})) for name in dict.fromkeys(["base", *arms])}
    cost, measured = {}, {}
    for name, recipe in recipes.items():  # arms with the same kind of step get the same cost
        step = (recipe.cpu_width, recipe.patch_curriculum, recipe.cpu_batch_size, recipe.batch_size)
        measured[step] = measured.get(step) or seconds_of_a_step(plan, recipe)
        cost[name] = measured[step]
    for name in arms:
        steps = round(args.steps * cost["base"] / cost[name])
        result = train(
            args.data_set,
            "0",
            workspace,
            TrainOptions(
                network=NETWORK_ARMS.get(name),
                training=TrainingOptions(
                    plan=plan.name, iterations=steps, settings=tuple(ARMS.get(name, {}).items()), seed=args.seed
                ),
                name=f"{name}_{args.steps}_{args.seed}",
            ),
            Runtime(device="cpu"),
        )[0]
        cases = {}
        for row in result.report.rows:
            cases.setdefault(row.case, []).append(row["dice"])
        dice = {case: sum(found) / len(found) for case, found in cases.items()}
        stored = json.loads(args.out.read_text()) if args.out.is_file() else {"arms": {}}
        row = {
            "steps": result.steps,
            "step_cost": cost[name] / cost["base"],
            "dice": sum(dice.values()) / len(dice),
            "cases": dice,
        }
        if result.restoration:
            found = result.restoration.summary
            row["restored"] = to_json(
                {kind: {key: found[kind][key] for key in ("ssim", "ssim_gain", "skill")} for kind in found}
            )
        stored["arms"][f"{name}, {args.steps} steps of base, seed {args.seed}"] = row
        write_json(args.out, {"machine": about(), "arms": stored["arms"]})
        of_base = stored["arms"].get(f"base, {args.steps} steps of base, seed {args.seed}")
        if of_base and name != "base":
            row |= {
                "gain": vars(paired_difference([dice[c] for c in sorted(dice)], [of_base["cases"][c] for c in sorted(dice)]))
            }
            write_json(args.out, {"machine": about(), "arms": stored["arms"]})
        print(name, {key: value for key, value in row.items() if key != "cases"}, flush=True)


if __name__ == "__main__":
    main()
