"""Checkpoints are read as plain data, and whatever is more than that is refused by its name."""

import collections
import fractions
import io
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from autoseg.errors import ModelError
from autoseg.interop.checkpoint import PLAIN, StoredTensor, read_checkpoint, read_pickle


def saved(value, **how):
    buffer = io.BytesIO()
    torch.save(value, buffer, **how)
    return buffer.getvalue()


def plain(value):
    """With tensors loaded, to be compared."""
    if isinstance(value, StoredTensor):
        return value.load()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    "value",
    [
        {"a": [1, -5, 2**40, 0.25, True, False, None, "ü", ()], "b": (1, 2, 3, 4), 3: {}, (1, "x"): [[], [1]]},
        collections.OrderedDict([("x", 1), ("y", b"\x00\xff")]),
        {"numbers": [np.float32(0.5), np.float64(-0.1), np.int64(7), np.bool_(True), np.uint8(3)]},
        list(range(3000)),
        "x" * 300,
    ],
    ids=["containers", "ordered", "numpy", "long list", "long string"],
)
def test_plain_values_come_back_as_torch_reads_them(value, protocol):
    data = saved(value, pickle_protocol=protocol)
    assert plain(read_checkpoint(data, "it")) == torch.load(io.BytesIO(data), weights_only=False)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
)
def test_tensors_come_back_with_type_and_values(dtype):
    tensor = torch.arange(24).reshape(2, 3, 4).to(dtype)
    found = read_checkpoint(saved({"t": tensor, "empty": tensor[:, :0]}), "it")
    assert found["t"].load().dtype == dtype
    assert torch.equal(found["t"].load(), tensor)
    assert found["empty"].load().shape == (2, 0, 4)


def test_views_and_shared_tensors_come_back_each_with_memory_of_its_own():
    base = torch.arange(24.0).reshape(4, 6)
    found = read_checkpoint(saved([base, base[1:3, ::2], base.T, torch.nn.Parameter(base)]), "it")
    whole, part, turned, parameter = (tensor.load() for tensor in found)
    assert torch.equal(part, base[1:3, ::2])
    assert torch.equal(turned, base.T)
    assert torch.equal(parameter, base)
    whole[1] = 0
    assert torch.equal(part, base[1:3, ::2])


def test_the_state_of_a_network_and_its_optimizer_come_back():
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 2, 3), torch.nn.InstanceNorm3d(2, affine=True))
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(1, 1, 4, 4, 4)).sum().backward()
    optimizer.step()
    found = read_checkpoint(
        saved({"net": network.state_dict(), "opt": optimizer.state_dict(), "on": torch.device("cuda", 1)}), "it"
    )
    assert found["on"] == "cuda:1"
    assert all(torch.equal(found["net"][key].load(), value) for key, value in network.state_dict().items())
    buffers = optimizer.state_dict()["state"]
    assert all(
        torch.equal(found["opt"]["state"][k]["momentum_buffer"].load(), v["momentum_buffer"]) for k, v in buffers.items()
    )


class Harmless:
    """Would say so if it were ever made or called."""

    made = []

    def __init__(self):
        Harmless.made.append(self)

    def __reduce__(self):
        return Harmless, ()


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (fractions.Fraction(1, 3), "fractions.Fraction"),
        (Harmless, "Harmless"),
        (Harmless(), "Harmless"),
        (np.arange(3), "_reconstruct"),
        (print, "print"),
        (torch.nn.Linear(1, 1), "torch.nn"),
        (torch.float32, "torch.float32"),
        ({1, 2}, "set|EMPTY_SET"),
        (1 + 2j, "complex"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_anything_but_plain_data_is_refused_by_name_and_never_made(value, named, protocol):
    data = saved({"x": value}, pickle_protocol=protocol)
    Harmless.made.clear()
    with pytest.raises(ModelError, match=f"it: holds .*({named}).*refused"):
        read_checkpoint(data, "it")
    assert not Harmless.made


@pytest.mark.parametrize(
    ("program", "named"),
    [
        (b"\x80\x02cbuiltins\nlen\n]\x85R.", "builtins.len"),
        (b"\x80\x04\x8c\x08builtins\x8c\x03len\x93]\x85R.", "builtins.len"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "a call of torch.FloatStorage"),
        (b"\x80\x02](}b.", "attributes of list"),
        (b"\x80\x02ccollections\nOrderedDict\n}b.", "attributes of Known"),
        (b"(lp0\nI1\na.", "the instruction PUT"),
        (b"(ibuiltins\nlen\n.", "the instruction INST"),
        (b"(cbuiltins\nlen\no.", "builtins.len"),
        (b"\x80\x02\x82\x01.", "the instruction EXT1"),
        (b"\x80\x02K\x01Q.", "the instruction BINPERSID"),
        (b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00x.", "the instruction BYTEARRAY8"),
    ],
)
def test_instructions_that_plain_values_do_not_need_are_refused(program, named):
    with pytest.raises(ModelError, match=f"it: holds {named}, which is not plain data"):
        read_pickle(program, "it", PLAIN | {"torch.FloatStorage": None})


@pytest.mark.parametrize(
    "program",
    [
        b"",
        b".",
        b"garbage",
        b"\x80\x02",
        b"\x80\x02]",
        b"\x80\x02\x85.",
        b"\x80\x02e.",
        b"\x80\x02}]K\x01s.",
        b"\x80\x02]e.",
        b"\x80\x02h\x07.",
    ],
)
def test_damaged_pickles_are_refused(program):
    with pytest.raises(ModelError, match="it: (damaged|not|holds)"):
        read_pickle(program, "it", PLAIN)


def test_keys_whose_hash_would_take_for_ever_are_refused():
    doubled = b"".join(b"q" + bytes([depth]) + b"h" + bytes([depth]) + b"\x86" for depth in range(60))  # t = (t, t), 60 times
    with pytest.raises(ModelError, match="a tuple within a key"):
        read_pickle(b"\x80\x02)" + doubled + b"q\xff0}h\xffK\x01s.", "it", PLAIN)


def rebuilt(data, **members):
    """A torch zip with some members replaced, or left out where None."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            short = info.filename.split("/", 1)[1]
            content = members.get(short.replace("/", "_").replace(".", "_"), old.read(info))
            if content is not None:
                new.writestr(info.filename, content)
    return out.getvalue()


def test_tensors_that_reach_beyond_their_numbers_are_refused():
    data = saved([torch.zeros(8)])
    for change in ({"data_0": b"\0" * 16}, {"data_0": None}):
        with pytest.raises(ModelError, match="missing or incomplete"):
            read_checkpoint(rebuilt(data, **change), "it")
    small = saved([torch.zeros(8)])
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
        program = archive.read(name)
    assert program.count(b"K\x08") == 2  # how many numbers are stored, and the shape
    longer = program[::-1].replace(b"\x08K", b"\x09K", 1)[::-1]
    with pytest.raises(ModelError, match="reaches beyond its 8 numbers"):
        read_checkpoint(rebuilt(small, data_pkl=longer), "it")


def test_files_that_are_no_checkpoint_are_refused_with_a_sentence():
    whole = saved({"a": torch.zeros(100)})
    legacy = saved({"a": 1}, _use_new_zipfile_serialization=False)
    empty = io.BytesIO()
    zipfile.ZipFile(empty, "w").close()
    for data in (b"", b"hello", whole[: len(whole) // 2], legacy, empty.getvalue(), pickle.dumps([1])):
        with pytest.raises(ModelError, match="^it: "):
            read_checkpoint(data, "it")


def test_a_damaged_byte_in_the_numbers_is_noticed():
    data = saved({"a": torch.full((1000,), 1.5)})
    at = data.index(struct.pack("<f", 1.5) * 10)
    found = read_checkpoint(data[:at] + b"\1" + data[at + 1 :], "it")
    with pytest.raises(ModelError, match="it: 0: expected a whole member of the archive, found: Bad CRC-32"):
        found["a"].load()


def test_big_endian_files_are_refused():
    with pytest.raises(ModelError, match="big-endian"):
        read_checkpoint(rebuilt(saved([torch.zeros(2)]), byteorder=b"big"), "it")


def test_a_name_in_a_message_is_short_and_printable():
    with pytest.raises(ModelError) as refused:
        read_pickle(b"\x80\x02c" + b"m" * 5000 + b"\n\x1b[31mx\n.", "it", PLAIN)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400
