"""The cost of a training step on a GPU, and whether batches are made fast enough.

    python benchmarks/gpu_step.py DATA_SET --workspace DIR [--device cuda]

DATA_SET is prepared if necessary. Measured are the parts of a step with the plan's network, batch size and patch (forward and
backward pass, with kernels contiguous and channels last, reading of the loss, optimisers, averaged weights), batches per second
by number of threads, and the steps of a whole training run. Times are medians in seconds, with the device synchronised.
"""

import argparse
import logging
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from machine import about

from autoseg.data.dataset import read_dataset
from autoseg.networks import build_network
from autoseg.networks.devices import choose_device
from autoseg.options import Runtime
from autoseg.preprocess.store import open_case
from autoseg.studies.ready import ready_to_train
from autoseg.training.batches import make_batch
from autoseg.training.fold import FoldTask, train_fold
from autoseg.training.length import Length
from autoseg.training.loop import _average, _begin_thread, _loss
from autoseg.training.losses import LOSSES
from autoseg.training.optimizers import build_optimizers, descend
from autoseg.training.passes import Passes
from autoseg.training.recipe import RECIPES
from autoseg.training.settle import settle
from autoseg.workspace import Workspace, write_json

HERE = Path(__file__).parent


def seconds(run, device, repeats=11, warm=3):
    """Median seconds of ``run()``, including the work of the device."""
    taken = []
    for i in range(warm + repeats):
        if device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if i >= warm:
            taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def kernel_seconds(run, device):
    """(seconds that the device computes in ``run()``, number of kernels launched); (None, None) on a CPU."""
    if device.type != "cuda":
        return None, None
    run()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        run()
        torch.cuda.synchronize()
    events = [e for e in profile.events() if e.device_type == torch.profiler.DeviceType.CUDA]
    return sum(e.device_time for e in events) / 1e6, len(events)


def step_costs(network, batch, recipe, loss, device):
    """{part of a step: seconds}."""
    optimizers = build_optimizers(network, recipe)
    averaged = {name: t.detach().clone() for name, t in network.state_dict().items()}
    ready, job = batch.to(device), SimpleNamespace(recipe=recipe, device=device, loss=loss)
    bf16 = device.type == "cuda"
    passes = Passes(lambda one, weight: _loss(network, one, weight, job, bf16), list(network.parameters()), device)

    def step(same):
        total = passes(ready, 0.0) if same else passes._pass(ready, 0.0)
        descend(optimizers, recipe, 0.0)
        _average(averaged, network, 0.99)
        return total

    found = {"step": seconds(lambda: step(False), device), "passes": seconds(lambda: passes._pass(ready, 0.0), device)}
    found["device busy"], found["kernels"] = kernel_seconds(lambda: step(False), device)
    found["passes, recorded"] = seconds(lambda: passes(ready, 0.0), device, warm=6)
    gradients = [(p, p.grad) for p in network.parameters()]

    def descend_again():
        for p, gradient in gradients:
            p.grad = gradient
        descend(optimizers, recipe, 0.0)

    found["optimisers"] = seconds(descend_again, device)
    if "kernels" in optimizers:
        for p, gradient in gradients:
            p.grad = gradient
        found["Muon"] = seconds(optimizers["kernels"].step, device)
    found["averages"] = seconds(lambda: _average(averaged, network, 0.99), device)

    def steps(count=20):
        before = None
        for _ in range(count):
            now = step(True)
            if before is not None:
                before.item()
            before = now

    found["step, recorded, loss read one step later"] = seconds(steps, device, 3, 1) / 20
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_set", type=Path)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=12.0, help="of each training")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gpu_step.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    workspace, device = Workspace(args.workspace.absolute()), choose_device(args.device)
    spec = read_dataset(args.data_set)
    ready = ready_to_train(spec, workspace, "fullres_3d", Runtime())
    training = settle(ready.plan, RECIPES["autoseg"], Length(seconds=args.seconds), device.type, ready.voxels)
    plan, recipe = training.plan, training.recipe
    prepared = workspace.prepared(spec.name, plan.name)
    names = tuple(case.id for case in spec.training)
    cases = [open_case(prepared / name) for name in names]
    batch = partial(make_batch, cases, plan, recipe, spec.labels, 0)
    loss = partial(LOSSES[recipe.loss], batch_dice=plan.batch_dice)
    result = {
        "machine": about(),
        "data_set": spec.name,
        "batch": [recipe.batch_size, *plan.patch_size],
        "network": plan.network.name,
    }
    torch.backends.cudnn.benchmark = True
    result["step"] = {}
    for order in (torch.contiguous_format, torch.channels_last_3d):
        network = build_network(plan.network).to(device).train()
        for parameter in (p for p in network.parameters() if p.ndim == 5):
            parameter.data = parameter.data.to(memory_format=order)
        first = batch(0, 1.0)
        first = replace(first, images=first.images.to(memory_format=order))
        result["step"][str(order)] = found = step_costs(network, first, recipe, loss, device)
        print(order, {k: round(v, 5) if v else v for k, v in found.items()}, flush=True)
    result["batches_a_second"] = {}
    for where in dict.fromkeys(("cpu", device.type)):
        make = partial(batch, fraction=1.0, device=where)
        for threads in args.threads:
            with ThreadPoolExecutor(threads, initializer=_begin_thread, initargs=(device,)) as pool:
                list(pool.map(make, range(50)))  # opens files
                begin, count = time.perf_counter(), 20 * threads
                list(pool.map(make, range(count)))
                rate = result["batches_a_second"][f"{where}, {threads} threads"] = count / (time.perf_counter() - begin)
            print(where, threads, "threads", round(rate, 1), "batches a second", flush=True)
    task = FoldTask(
        plan=plan,
        labels=spec.labels,
        recipe=replace(recipe, patch_curriculum=()),
        length=Length(seconds=args.seconds),
        seed=0,
        training=names[8:],
        validation=names[:8],
        prepared_digest="",
    )
    with tempfile.TemporaryDirectory() as folder:
        trained = train_fold(task, prepared=prepared, folder=Path(folder), device=device)
    result["training"] = {"steps": trained.state.step, "seconds": trained.state.seconds}
    print(result["training"])
    write_json(args.out, result)


if __name__ == "__main__":
    main()
