"""The blocks against slow formulas, and the self-attention U-Net against its backbone."""

import math
from dataclasses import replace

import pytest
import torch

from autoseg.networks import attention_blocks, attention_maps, build_network, close_gates, slot_blocks
from autoseg.networks.attention import FullAttention, SlotAttention, rotary_angles
from planners.plan import AttentionStage
from tests.helpers.networks import small_unet

SPEC = small_unet(
    4, 8, 16, name="self_attention_unet", attention=(AttentionStage(1, "slot", 2, 5), AttentionStage(2, "full", 2))
)
FLAT = replace(SPEC, strides=((1, 1, 1), (1, 2, 2), (1, 2, 2)), kernels=((1, 3, 3),) * 3)
GRID = (3, 4, 5)


def block_of(kind):
    """A block of 16 channels and 2 heads whose parameters have left their starting values."""
    torch.manual_seed(0)
    block = SlotAttention(16, 2, 5) if kind == "slot" else FullAttention(16, 2, (0, 1, 2))
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return block


def opened(spec):
    torch.manual_seed(0)
    network = build_network(spec)
    for name, parameter in network.named_parameters():
        if name.endswith("gate"):
            torch.nn.init.normal_(parameter)
    return network


def unit(vector):
    """A vector whose root mean square is one."""
    return vector / math.sqrt((vector**2).mean().item() + 1e-6)


def softened(scores):
    powers = [math.exp(score - max(scores)) for score in scores]
    return [power / sum(powers) for power in powers]


def mixed(weights, vectors):
    return sum(weight * vector for weight, vector in zip(weights, vectors, strict=True))


def tokens_of(block, x):
    """For each head the unit queries, keys and values of all voxels, as lists of vectors."""
    inner, d = len(x) // 2, len(x) // 2 // block.heads
    voxels = [block.project.weight @ x.flatten(1)[:, n] for n in range(x[0].numel())]
    for head in range(block.heads):
        q, k, v = ([voxel[part * inner + head * d :][:d] for voxel in voxels] for part in range(3))
        yield [unit(a) for a in q], [unit(a) for a in k], [unit(a) for a in v]


def slowly(block, x):
    """What the block does to (C, z, y, x), voxel by voxel and head by head in float64."""
    heads = []
    for head, (q, k, v) in enumerate(tokens_of(block, x)):
        root = math.sqrt(len(q[0]))
        if isinstance(block, SlotAttention):
            seen = [softened([(slot @ key).item() / root for key in k]) for slot in block.slots[head]]
            told = [block.describe.weight @ mixed(weights, v) for weights in seen]
            k, v = [unit(two[: len(q[0])]) for two in told], [two[len(q[0]) :] for two in told]
        else:
            q = [turned(a * block.scale, n, x.shape[1:]) for n, a in enumerate(q)]
            k = [turned(a, n, x.shape[1:]) for n, a in enumerate(k)]
        scale = block.scale if isinstance(block, SlotAttention) else 1
        heads.append([mixed(softened([(a @ (b * scale)).item() / root for b in k]), v) for a in q])
    out = x.clone().flatten(1)
    for n in range(out.shape[1]):
        out[:, n] += block.gate * (block.merge.weight @ torch.cat([head[n] for head in heads]))
    return out.reshape(x.shape)


def turned(vector, n, grid):
    """A vector rotated by its place (RoPE): pairs of channels i and i + half, of which each axis has an equal share."""
    vector, half = vector.clone(), len(vector) // 2
    share = half // 3
    place = torch.unravel_index(torch.tensor(n), grid)
    for axis in range(3):
        for i in range(share):
            pair = half - 3 * share + axis * share + i
            angle = place[axis].item() * 100 ** (-i / share)
            a, b = vector[pair].item(), vector[pair + half].item()
            vector[pair] = a * math.cos(angle) - b * math.sin(angle)
            vector[pair + half] = a * math.sin(angle) + b * math.cos(angle)
    return vector


@pytest.mark.thorough
def test_slot_attention_equals_its_definition():
    block, x = block_of("slot").double(), torch.randn(16, *GRID, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(block(x[None])[0], slowly(block, x), rtol=1e-5, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.parametrize("width", [24, 56])  # three pairs of channels, one for each axis; seven, one of them without
def test_full_attention_equals_its_definition(width):
    torch.manual_seed(0)
    block, x = FullAttention(width, 2, (0, 1, 2)).double(), torch.randn(width, *GRID, dtype=torch.float64)
    with torch.no_grad():
        block.gate.normal_()
        block.scale.normal_()
        torch.testing.assert_close(block(x[None])[0], slowly(block, x), rtol=1e-6, atol=1e-6)


def test_full_attention_without_positions_and_scale_is_torchs():
    """With unit queries and keys handed to both, ``scaled_dot_product_attention`` is a softmax over all voxels."""
    block = FullAttention(16, 2, ())
    x = torch.randn(2, 16, *GRID)
    q, k, v = block.heads_of(x)
    weights = torch.softmax(q.transpose(2, 3) @ k / math.sqrt(4), dim=-1)
    torch.testing.assert_close(block.attend(q, k, v, GRID), v @ weights.transpose(2, 3), rtol=1e-4, atol=1e-5)


def test_positions_are_relative_and_follow_the_axes_of_the_plan():
    angles = rotary_angles((1, 4, 6), (1, 2), pairs=5)
    assert angles.shape == (5, 24)
    assert not angles[0].any()  # two pairs for each axis, one left
    assert angles[1].reshape(4, 6)[:, 0].tolist() == [0, 1, 2, 3]
    assert angles[3].reshape(4, 6)[0].tolist() == [0, 1, 2, 3, 4, 5]
    torch.testing.assert_close(angles[2], angles[1] / 10)
    assert not rotary_angles((2, 2, 2), (), pairs=4).any()


@pytest.mark.parametrize("kind", ["slot", "full"])
def test_every_voxel_of_a_block_depends_on_every_other(kind):
    x = torch.randn(1, 16, *GRID, requires_grad=True)
    block_of(kind)(x)[0, :, 0, 0, 0].sum().backward()
    assert (x.grad != 0).any(dim=1).all()


@pytest.mark.parametrize("spec", [SPEC, FLAT], ids=["3d", "2d"])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("backbone", ["plain", "residual"])
def test_a_fresh_network_is_its_backbone_to_the_bit(spec, backbone, autocast):
    spec = replace(spec, backbone=backbone)
    torch.manual_seed(0)
    network = build_network(spec)
    torch.manual_seed(0)
    plain = build_network(replace(spec, name={"plain": "unet", "residual": "residual_unet"}[backbone]))
    assert plain.state_dict().keys() < network.state_dict().keys()
    x = torch.randn(2, 1, 1 if spec is FLAT else 8, 16, 12)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        for ours, theirs in zip(network(x, every_scale=True), plain(x, every_scale=True), strict=True):
            assert torch.equal(ours, theirs)
            assert ours.dtype == theirs.dtype


@pytest.mark.parametrize("spec", [SPEC, FLAT], ids=["3d", "2d"])
@pytest.mark.parametrize("kind", ["slot", "full"])
def test_open_gates_let_a_voxel_see_beyond_the_reach_of_convolutions(kind, spec):
    """Along a long axis, with normalisation, which also mixes the whole grid, held to what it was."""
    entry = AttentionStage(1, kind, 2, 5 if kind == "slot" else 0)
    network = opened(replace(spec, attention=(entry,), features=(4, 8), strides=spec.strides[:2], kernels=spec.kernels[:2],
                             encoder_blocks=(1, 1), decoder_blocks=(1,)))  # fmt: skip
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm3d):
            module.forward = lambda x, slope=1.0: x
    x = torch.randn(1, 1, 1 if spec is FLAT else 4, 4, 80, requires_grad=True)

    def seen():
        (gradient,) = torch.autograd.grad(network(x)[0, :, 0, 0, 0].sum(), x)
        return gradient[0, 0, :, :, -1].any().item()

    assert seen()
    close_gates(network)
    assert not seen()


def test_closed_gates_give_the_backbone():
    network = opened(SPEC)
    plain = build_network(replace(SPEC, name="unet"))
    plain.load_state_dict({name: t for name, t in network.state_dict().items() if name in plain.state_dict()})
    x = torch.randn(1, 1, 8, 8, 8)
    assert not torch.equal(network(x), plain(x))
    assert close_gates(network) is None
    assert torch.equal(network(x), plain(x))


@pytest.mark.thorough
def test_the_gate_learns_first_and_then_what_it_let_through():
    torch.manual_seed(0)
    network = build_network(SPEC)
    parameters = dict(network.named_parameters())
    inside = [name for name in parameters if name.rsplit(".", 1)[0].split(".")[-1] in ("project", "merge", "describe")]
    inside += [name for name in parameters if name.endswith((".slots", ".scale"))]
    gates = [name for name in parameters if name.endswith(".gate")]
    assert len(gates) == 2
    assert len(inside) == 2 + 2 + 1 + 1 + 2
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for moved in (gates, gates + inside):
        optimizer.zero_grad()
        network(torch.randn(2, 1, 8, 8, 8)).square().mean().backward()
        assert all(parameters[name].grad.any() for name in moved)
        if moved == gates:
            assert not any(parameters[name].grad.any() for name in inside)
        optimizer.step()


@pytest.mark.parametrize("shape", [(4, 4, 4), (12, 8, 20), (16, 4, 4)])
def test_any_patch_will_do(shape):
    network = opened(SPEC)
    assert network(torch.randn(1, 1, *shape)).shape == (1, 2, *shape)


def test_bfloat16_stays_finite_with_large_features_and_near_float32():
    network = opened(SPEC)
    x = torch.randn(1, 1, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x).float()
        assert block_of("slot")(1e4 * torch.randn(1, 16, *GRID)).isfinite().all()
        assert block_of("full")(1e4 * torch.randn(1, 16, *GRID)).isfinite().all()
    assert (rounded - network(x)).abs().max() < 0.1 * network(x).abs().max()


def test_a_grid_of_one_voxel_and_of_zeros_is_fine():
    for kind in ("slot", "full"):
        assert block_of(kind)(torch.zeros(1, 16, 1, 1, 1)).isfinite().all()


def test_blocks_are_found_where_the_network_has_them():
    assert [type(block).__name__ for block in attention_blocks(build_network(SPEC))] == ["SlotAttention", "FullAttention"]
    assert not attention_blocks(build_network(replace(SPEC, name="unet")))


@pytest.mark.parametrize("backbone", ["plain", "residual"])
def test_maps_say_where_each_slot_looks(backbone):
    network = opened(replace(SPEC, backbone=backbone)).eval()
    x = torch.randn(2, 1, 8, 8, 12)
    seen = []
    (block,) = slot_blocks(network).values()
    hook = block.register_forward_pre_hook(lambda block, inputs: seen.append(block.maps(*inputs)))
    before = network(x)
    hook.remove()
    maps = attention_maps(network, x)
    assert list(maps) == [1]
    assert torch.equal(maps[1], seen[0])
    assert maps[1].shape == (2, 2 * 5, 4, 4, 6)
    assert maps[1].min() > 0
    torch.testing.assert_close(maps[1].sum((2, 3, 4)), torch.ones(2, 10))
    assert torch.equal(network(x), before)
    assert attention_maps(build_network(replace(SPEC, name="segnet")), x) == {}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"stage": 3, "kind": "full", "heads": 1}, "attention at stage 3, but there are 3"),
        ({"stage": 2, "kind": "full", "heads": 3}, "16 features cannot be shared among 3 heads: expected a multiple of 12"),
        ({"stage": 2, "kind": "axial", "heads": 2}, "slot or full"),
        ({"stage": 2, "kind": "slot", "heads": 2}, "slots where"),
        ({"stage": 2, "kind": "full", "heads": 2, "slots": 4}, "slots where"),
    ],
)
def test_attention_that_cannot_be_built_is_refused(entry, message):
    with pytest.raises(ValueError, match=message):
        replace(SPEC, attention=(AttentionStage(**entry),))


def test_two_blocks_at_a_stage_are_refused():
    with pytest.raises(ValueError, match="each once"):
        replace(SPEC, attention=(AttentionStage(1, "full", 2), AttentionStage(1, "slot", 2, 4)))
