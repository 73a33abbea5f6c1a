import pytest
import torch

from autoseg.networks import NETWORKS, build_network
from autoseg.networks.blocks import Enlargement, InstanceNorm
from autoseg.networks.cpu import put_channels_last
from autoseg.networks.scores import Head
from planners import AttentionStage, NetworkSpec

LAST = torch.channels_last_3d


@pytest.mark.thorough
@pytest.mark.parametrize("name", NETWORKS)
def test_only_the_order_in_memory_and_rounding_change(name):
    torch.manual_seed(0)
    attention = (AttentionStage(1, "slot", 1, 4),)
    spec = NetworkSpec(name, 1, 2, (8, 16), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3), (1, 3, 3)), (2, 2), (1,), attention=attention)
    network = build_network(spec)
    x = torch.randn(2, 1, 16, 16, 16)

    def results():
        scores = network(x)
        return scores, *torch.autograd.grad(scores[:, 0].square().mean(), list(network.parameters()), allow_unused=True)

    before, weights = results(), {name: t.clone() for name, t in network.state_dict().items()}
    put_channels_last(network)
    for old, new in zip(before, results(), strict=True):
        assert old is None or torch.allclose(old, new, atol=1e-5)
    assert all(torch.equal(t, weights[name]) for name, t in network.state_dict().items())
    moved = [m for m in network.modules() if isinstance(m, torch.nn.Conv3d) and not m.weight.is_contiguous()]
    assert moved
    assert all(min(m.kernel_size) > 1 and m.in_channels > 1 for m in moved)


@pytest.mark.parametrize("slope", [1.0, 0.01])
@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (1, 3, 2, 1, 1), (3, 2, 1, 4, 4)])
def test_normalisation_and_its_gradients_are_pytorch_s(shape, slope):
    torch.manual_seed(0)
    norm = InstanceNorm(shape[1]).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(shape, dtype=torch.float64).contiguous(memory_format=LAST).requires_grad_()
    wanted, found = norm(x.contiguous(), slope), norm(x, slope)
    assert found.grad_fn.name() == "_NormaliseBackward"
    assert found.is_contiguous(memory_format=LAST)
    assert torch.allclose(found, wanted)
    towards = torch.randn_like(wanted)  # channels first, as a sum or a head may send it
    for old, new in zip(*(torch.autograd.grad(y, [x, *norm.parameters()], towards) for y in (wanted, found)), strict=True):
        assert torch.allclose(old, new)


@pytest.mark.parametrize(
    ("layer", "torchs"),
    [
        (Enlargement(3, 5, (2, 1, 3)), torch.nn.ConvTranspose3d(3, 5, (2, 1, 3), (2, 1, 3))),
        (Head(3, 4), torch.nn.Conv3d(3, 4, 1)),
    ],
)
def test_layers_that_are_products_have_the_results_and_gradients_of_pytorch_s(layer, torchs):
    layer, torchs = layer.double(), torchs.double()
    torchs.load_state_dict(layer.state_dict())
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64).contiguous(memory_format=LAST).requires_grad_()
    wanted, found = torchs(x.contiguous()), layer(x)
    assert found.is_contiguous(memory_format=LAST)
    assert torch.allclose(found, wanted)
    assert torch.equal(layer(x.contiguous()), wanted)
    towards = torch.randn_like(wanted)
    of = [[x, *module.parameters()] for module in (torchs, layer)]
    gradients = [torch.autograd.grad(y, inputs, towards) for y, inputs in zip((wanted, found), of, strict=True)]
    assert all(torch.allclose(old, new) for old, new in zip(*gradients, strict=True))


def test_a_training_s_features_stay_channels_last():
    spec = NetworkSpec("unet", 1, 2, (8, 16), ((1, 1, 1), (2, 2, 2)), ((3, 3, 3),) * 2, (2, 2), (1,))
    network, given = build_network(spec), []
    put_channels_last(network)
    for norm in (m for m in network.modules() if isinstance(m, InstanceNorm)):
        norm.register_forward_hook(lambda norm, inputs, y: given.append((inputs[0], y)))
    network(torch.randn(2, 1, 16, 16, 16))
    orders = [[t.is_contiguous(memory_format=LAST) for t in pair] for pair in given]
    assert orders == [[True, True]] * 5


def test_statistics_of_many_voxels_far_from_zero_stay_exact():
    torch.manual_seed(0)
    x = (torch.randn(1, 2, 96, 96, 96) + 30).contiguous(memory_format=LAST)
    wanted = torch.nn.functional.instance_norm(x.double().contiguous()).float()
    assert torch.allclose(InstanceNorm(2)(x), wanted, atol=1e-4)


def test_other_inputs_go_the_usual_way():
    norm = InstanceNorm(3)
    x = torch.randn(2, 3, 4, 4, 4)
    assert torch.equal(norm(x), torch.nn.functional.instance_norm(x, eps=norm.eps))
    assert torch.equal(norm(x[:, :, :1, :1, :1]), x[:, :, :1, :1, :1])  # a single voxel has no spread
