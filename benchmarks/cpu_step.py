"""Forward and backward pass in training on a CPU in float32, by memory format.

    python benchmarks/cpu_step.py [--threads N] [--repeats 11]

The U-Net and the residual U-Net at half width on noise, batch 2: all channels first; only the kernels channels last; and
everything between them channels last as well, as in training runs (``put_channels_last``). The three alternate; medians of
wall-clock seconds.
"""

import argparse
import statistics
import time
from pathlib import Path

import torch
from machine import about

from autoseg.networks import build_network
from autoseg.networks.blocks import InstanceNorm
from autoseg.networks.cpu import put_channels_last
from autoseg.room import keep_memory
from autoseg.workspace import write_json
from planners import NetworkSpec

HERE = Path(__file__).parent
PATCHES = ((40, 56, 40), (32, 48, 32))
BLOCKS = {"unet": ((2, 2, 2, 2), (2, 2, 2)), "residual_unet": ((1, 3, 4, 6), (1, 1, 1))}


def network_of(name):
    strides = ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))
    return build_network(NetworkSpec(name, 1, 3, (16, 32, 64, 128), strides, ((3, 3, 3),) * 4, *BLOCKS[name])).train()


def as_built(network):
    return network


def kernels_last(network):
    put_channels_last(network)
    for module in network.modules():
        if isinstance(module, InstanceNorm):  # PyTorch's returns its result channels first
            module.register_forward_pre_hook(lambda norm, inputs: (inputs[0].contiguous(), *inputs[1:]))
    return network


def all_last(network):
    put_channels_last(network)
    return network


def seconds(network, x):
    begin = time.perf_counter()
    network(x).square().mean().backward()
    network.zero_grad(set_to_none=True)
    return time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "cpu_step.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_memory()
    result = {"machine": about(), "threads": args.threads, "seconds": {}}
    for name in BLOCKS:
        variants = [order(network_of(name)) for order in (as_built, kernels_last, all_last)]
        for patch in PATCHES:
            x = torch.rand(2, 1, *patch)
            rounds = [[seconds(network, x) for network in variants] for _ in range(args.repeats + 2)][2:]
            first, kernels, last = map(statistics.median, zip(*rounds, strict=True))
            key = f"{name} {'x'.join(map(str, patch))}"
            result["seconds"][key] = {"channels first": first, "kernels last": kernels, "all last": last}
            print(key, *(f"{s:.3f} s ({s / first:.2f})" for s in (first, kernels, last)), sep="  ", flush=True)
    write_json(args.out, result)


if __name__ == "__main__":
    main()
