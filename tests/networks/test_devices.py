"""What is done for a device: number formats that do harm or gain nothing, convolutions by oneDNN, and that it is said."""

import copy

import pytest
import torch

from autoseg.networks import NETWORKS, build_network, cpu, devices, precision
from autoseg.networks.scores import Head
from planners import NetworkSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("strides", "patch", "thin"),
    [
        ([(1, 1, 1), (1, 2, 2)], (1, 128, 128), True),
        ([(1, 1, 1), (1, 2, 2)], (1, 64, 64), False),
        ([(1, 1, 1), (2, 2, 2)], (16, 256, 256), True),  # 8 slices of 128 x 128 below
        ([(1, 1, 1), (2, 2, 2)], (32, 128, 128), False),
        ([(1, 1, 1), (2, 2, 2)], (40, 56, 40), False),
    ],
)
def test_thin_patches_are_told_from_sound_ones(strides, patch, thin, monkeypatch):
    n = len(strides)
    spec = NetworkSpec("unet", 1, 2, (4,) * n, tuple(strides), ((3, 3, 3),) * n, (1,) * n, (1,) * (n - 1))
    monkeypatch.setattr(precision, "has_amx", lambda: True)
    assert precision.unsafe_in_bf16(spec, [patch], CPU) == thin
    assert precision.unsafe_in_bf16(spec, [(40, 56, 40), patch], CPU) == thin
    assert not precision.unsafe_in_bf16(spec, [patch], torch.device("cuda"))
    monkeypatch.setattr(precision, "has_amx", lambda: False)
    assert not precision.unsafe_in_bf16(spec, [patch], CPU)


@pytest.mark.parametrize(
    ("known", "tried"),
    [
        ({"architecture": "x86_64", "avx2": True, "avx512_bf16": False}, False),
        ({"architecture": "x86_64", "avx512_bf16": True}, True),
        ({"architecture": "aarch64"}, True),
        ({}, True),
    ],
)
def test_bfloat16_is_not_even_tried_where_it_is_imitated(known, tried, monkeypatch):
    seen = []
    network = torch.nn.Conv3d(1, 1, 1)
    network.register_forward_hook(lambda *call: seen.append(call))
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    found = precision.faster_in_bf16(network, (1, 4, 4, 4), torch.device("cpu"))
    assert bool(seen) == tried
    assert tried or not found


@pytest.mark.thorough
@pytest.mark.parametrize("kernel", [(3, 3, 3), (1, 3, 3)])
def test_onednn_computes_small_single_samples_as_torch_does(kernel, monkeypatch):
    handed, hand_over = [], torch.Tensor.to_mkldnn
    monkeypatch.setattr(torch.Tensor, "to_mkldnn", lambda x: handed.append(x.shape) or hand_over(x))
    torch.manual_seed(0)
    spec = NetworkSpec("unet", 1, 2, (4, 8), ((1, 1, 1), (2, 2, 2)), (kernel,) * 2, (2, 2), (1,))
    network = build_network(spec)
    weights, found = {name: t.clone() for name, t in network.state_dict().items()}, []
    for given in (False, True):
        if given:
            assert cpu.use_onednn(network) == 5
        for size in ((1, 1, 16, 16, 16), (2, 1, 16, 16, 16), (1, 1, 24, 64, 64)):
            torch.manual_seed(1)
            loss = network(torch.randn(size))[:, 0].square().mean()
            found.append([loss, *torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)])
    for before, after in zip(found[:3], found[3:], strict=True):
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True) if a is not None)
    assert handed
    assert all(shape[0] == 1 and shape[:4].numel() <= cpu.SMALL for shape in handed)
    assert (1, 1, 16, 16, 16) in handed  # the small one whole
    assert (1, 8, 12, 32, 32) in handed  # of the large one what is coarse
    assert {type(module) for module in network.modules() if isinstance(module, torch.nn.Conv3d)} == {torch.nn.Conv3d, Head}
    assert all(torch.equal(t, weights[name]) for name, t in network.state_dict().items())
    with torch.inference_mode():
        assert torch.allclose(network(torch.ones(1, 1, 16, 16, 16)), copy.deepcopy(network)(torch.ones(1, 1, 16, 16, 16)))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True])
def test_what_was_done_for_a_device_is_said_and_changes_no_class_and_no_weight(name, training, monkeypatch):
    monkeypatch.setattr(devices, "keep_memory", lambda: True)
    spec = NetworkSpec(name, 1, 2, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1), (1,))
    network = build_network(spec)
    kinds, weights = [type(module) for module in network.modules()], copy.deepcopy(network.state_dict())
    done = devices.prepare_for(CPU, network, spec, [(16, 16, 16)], precision="fp32", training=training)
    assert (done.device, done.precision, done.why, done.bf16) == ("cpu", "fp32", "as asked for", False)
    hooked = [module for module in network.modules() if module._forward_pre_hooks]
    assert done.onednn == len(hooked) > 0
    last = [m for m in network.modules() if isinstance(m, torch.nn.Conv3d) and not m.weight.is_contiguous()]
    assert done.channels_last == len(last)
    assert bool(last) == training == done.memory_kept
    assert kinds == [type(module) for module in network.modules()]
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_in_bfloat16_nothing_is_done_to_the_network(monkeypatch):
    monkeypatch.setattr(devices, "keep_memory", lambda: True)
    spec = NetworkSpec("unet", 1, 2, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1), (1,))
    network = build_network(spec)
    done = devices.prepare_for(CPU, network, spec, [(64, 64, 64)], precision="bf16", training=True)
    assert (done.onednn, done.channels_last, done.bf16) == (0, 0, True)
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_a_network_that_is_prepared_twice_computes_the_same():
    torch.manual_seed(0)
    spec = NetworkSpec("unet", 1, 2, (4, 8), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (1, 1), (1,))
    network, x, found = build_network(spec), torch.rand(1, 1, 16, 16, 16), []
    for _ in range(2):
        devices.prepare_for(CPU, network, spec, [(16, 16, 16)], precision="fp32")
        found.append(network(x))
    assert torch.equal(*found)


@pytest.mark.parametrize("fast", [False, True])
def test_the_faster_format_is_tried_on_the_last_patch(fast, monkeypatch):
    tried = []
    monkeypatch.setattr(precision, "faster_in_bf16", lambda network, patch, device, training: tried.append(patch) or fast)
    spec = NetworkSpec("unet", 3, 2, (4,), ((1, 1, 1),), ((3, 3, 3),), (1,), ())
    chosen = precision.choose_precision("auto", CPU, None, spec, [(8, 8, 8), (16, 16, 16)], training=False)
    assert (chosen.name == "bf16") == fast
    assert tried == [(3, 16, 16, 16)]
