"""Self-attention by plain matrix products and softmax, against torch's scaled-dot-product attention.

    python benchmarks/attention.py [--repeats 15] [--out benchmarks/results/attention.json]

One step, forward and backward, of each block that the planner chooses for two data sets, at half width, as in training on a
CPU: brain scans of 40x56x40 and a heart in 10 thick slices of 256x256, batch 2. The variants alternate; results are medians of
CPU time on one thread. All variants compute the softmax in float32: torch's kernel for CPUs always does, and ``softmax`` of
``autoseg.networks.attention`` requests it.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from machine import about
from torch.nn import functional

from autoseg.networks.attention import FullAttention, SlotAttention, rms_normalise, rotary_angles, rotate, softmax

HERE = Path(__file__).parent
# block, width, heads, grid of the stage
BLOCKS = {
    "brain, stage 1": ("slot", 32, 1, (20, 28, 20)),
    "brain, stage 2": ("slot", 64, 1, (10, 14, 10)),
    "brain, stage 3": ("full", 128, 2, (5, 7, 5)),
    "heart, stage 2": ("slot", 64, 1, (10, 64, 64)),
    "heart, stage 3": ("slot", 128, 2, (5, 32, 32)),
    "heart, stage 4": ("full", 160, 2, (5, 16, 16)),
}
SLOTS, BATCH = 32, 2


def rows(*maps):
    """Contiguous (B, heads, N, d), as torch's kernel requires."""
    return [tensor.transpose(2, 3).contiguous() for tensor in maps]


def slot_by_torch(block, q, k, v, grid):
    """``SlotAttention.attend`` with both steps by ``scaled_dot_product_attention``."""
    q, k, v = rows(q, k, v)
    slots = block.slots.expand(len(q), -1, -1, -1).to(q.dtype)
    keys, values = block.describe(functional.scaled_dot_product_attention(slots, k, v)).chunk(2, 3)
    keys = rms_normalise(keys) * block.scale
    return functional.scaled_dot_product_attention(q, keys.to(q.dtype), values).transpose(2, 3)


def slot_read_by_torch(block, q, k, v, grid):
    """The same with plain products for the step from voxels to slots, and torch's kernel from slots to voxels."""
    keys, values = block.describe(block.weights(k) @ v.transpose(2, 3)).chunk(2, 3)
    (q,) = rows(q)
    keys = rms_normalise(keys) * block.scale
    return functional.scaled_dot_product_attention(q, keys.to(q.dtype), values).transpose(2, 3)


def full_by_products(block, q, k, v, grid):
    """``FullAttention.attend`` with its N x N weights written out."""
    angles = rotary_angles(grid, block.axes, block.d // 2)
    cos, sin = angles.cos().to(q.dtype), angles.sin().to(q.dtype)
    q, k = rotate(q * (block.scale[:, None] * block.d**-0.5).to(q.dtype), cos, sin), rotate(k, cos, sin)
    return v @ softmax(k.transpose(2, 3) @ q, 2)


VARIANTS = {
    "slot": {"products": SlotAttention.attend, "torch": slot_by_torch, "torch, reading only": slot_read_by_torch},
    "full": {"products": full_by_products, "torch": FullAttention.attend},
}


def step(block, attend, x, bf16):
    """Output of the block with this ``attend``, and the CPU seconds of forward and backward."""
    block.attend = attend.__get__(block)
    block.zero_grad()
    begin = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y = block(x)
    y.float().square().sum().backward()
    return y.detach().float(), time.process_time() - begin


def measure(kind, width, heads, grid, bf16, repeats):
    """{variant: median of CPU milliseconds}; the variants' outputs are compared at the first step."""
    torch.manual_seed(0)
    block = SlotAttention(width, heads, SLOTS) if kind == "slot" else FullAttention(width, heads, (0, 1, 2))
    torch.nn.init.normal_(block.gate)
    x = torch.randn(BATCH, width, *grid, dtype=torch.bfloat16 if bf16 else torch.float32, requires_grad=True)
    seconds = {name: [] for name in VARIANTS[kind]}
    expected = step(block, VARIANTS[kind]["products"], x, bf16)[0]
    for attend in VARIANTS[kind].values():
        near = 0.05 if bf16 else 1e-4
        torch.testing.assert_close(step(block, attend, x, bf16)[0], expected, rtol=near, atol=near)
    for _ in range(repeats):
        for name, attend in VARIANTS[kind].items():
            seconds[name].append(step(block, attend, x, bf16)[1])
    return {name: round(1e3 * statistics.median(times), 2) for name, times in seconds.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "attention.json")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = {**about(), "unit": "ms of CPU time, forward and backward", "batch": BATCH, "blocks": {}}
    for name, (kind, width, heads, grid) in BLOCKS.items():
        for bf16 in (False, True):
            label = f"{name}, {kind}, {'bfloat16' if bf16 else 'float32'}"
            found["blocks"][label] = times = measure(kind, width, heads, grid, bf16, args.repeats)
            ratios = ", ".join(f"{variant} {t} ms ({t / times['products']:.2f})" for variant, t in times.items())
            print(f"{label}: {ratios}", flush=True)
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
