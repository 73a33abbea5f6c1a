"""A bit that flips on the disk is told: nothing is trained on, continued from or scored that is not what was written."""

import json

import blosc2
import numpy as np
import pytest
import torch

from autoseg.cli import main
from autoseg.errors import AutosegError
from autoseg.imaging.geometry import Geometry
from autoseg.phantoms import write_phantoms
from autoseg.preprocess import checked, store
from autoseg.preprocess.case import PreparedCase, find_locations
from autoseg.preprocess.store import entry_of, is_whole, open_case, store_case
from autoseg.training.checkpoint import LoopState, load_checkpoint, read_state, save_checkpoint
from autoseg.workspace import read_json, write_json


def flip(path, rng):
    """Flip one bit of a file; returns what it held before."""
    before = path.read_bytes()
    after = bytearray(before)
    after[rng.integers(len(after))] ^= 1 << rng.integers(8)
    path.write_bytes(after)
    return before


def wrong_silently(paths, use, equal, *, flips, seed):
    """How many single flips neither raise an AutosegError nor leave what ``use()`` returns as it was, and how many raise."""
    rng, right = np.random.default_rng(seed), use()
    silent = told = 0
    for number in range(flips):
        path = paths[number % len(paths)]
        before = flip(path, rng)
        try:
            silent += not equal(use(), right)
        except AutosegError:
            told += 1
        path.write_bytes(before)
    return silent, told


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(store, "CHUNK", 16)
    monkeypatch.setattr(store, "BLOCK", 8)


@pytest.fixture
def folder(tmp_path, small_chunks):
    """A prepared case of 2 x 3 x 2 x 2 chunks, of which some hold one value alone."""
    rng = np.random.default_rng(0)
    codes = (rng.random((40, 30, 20)) > 0.9).astype(np.int16)
    codes[:16] = 0
    image = rng.normal(size=(2, *codes.shape)).astype(np.float32)
    image[0, :16] = 0
    prepared = PreparedCase("heart", image, codes, Geometry.from_spacing(codes.shape, (3, 1, 1)), find_locations(codes, seed=1))
    store_case(tmp_path / "heart", prepared, "abc")
    return tmp_path / "heart"


def used(folder):
    case = open_case(folder)
    locations = case.locations
    return (
        [case.image[...], case.codes[...], *(locations[code] for code in sorted(locations))],
        case.geometry,
        case.case,
        sorted(locations),
    )


def same(found, right):
    return found[1:] == right[1:] and all(np.array_equal(*pair) for pair in zip(found[0], right[0], strict=True))


@pytest.mark.parametrize(("name", "flips"), [("image.b2nd", 150), ("codes.b2nd", 100), ("sites.npy", 75), ("case.json", 75)])
def test_no_flipped_bit_of_a_prepared_case_is_trained_on(folder, name, flips):
    silent, told = wrong_silently([folder / name], lambda: used(folder), same, flips=flips, seed=3)
    assert silent == 0
    assert told > 0.9 * flips  # the others are in a blank, or in the name of the seal


def test_no_flipped_bit_of_a_checkpoint_is_continued_from(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    torch.manual_seed(0)
    network = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    network(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    averaged = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    save_checkpoint(path, LoopState("same", 100, False, step=7, smoothed=0.25), network, averaged, [optimizer])

    def use():
        fresh = torch.nn.Linear(5, 3)
        again = torch.optim.SGD(fresh.parameters(), 0.1, momentum=0.9)
        state, mean = load_checkpoint(path, fresh, [again])
        remembered = [again.state[parameter]["momentum_buffer"] for parameter in fresh.parameters()]
        return [*fresh.state_dict().values(), *(mean[name] for name in sorted(mean)), *remembered], state, read_state(path)

    def equal(found, right):
        return found[1:] == right[1:] and all(torch.equal(*pair) for pair in zip(found[0], right[0], strict=True))

    silent, told = wrong_silently([path], use, equal, flips=125, seed=4)
    assert silent == 0
    assert told > 75


def test_no_flipped_bit_of_a_record_is_believed(tmp_path):
    path = tmp_path / "splits.json"
    write_json(path, {"folds": [{"train": ["a_01", "a_02"], "val": ["a_03"]}], "loss": 0.1 + 0.2, "none": None}, seal=True)

    def equal(found, right):  # a flip in the name of the seal leaves one more key, and all others as they were
        return {name: found.get(name) for name in right} == right

    silent, told = wrong_silently([path], lambda: read_json(path), equal, flips=75, seed=5)
    assert silent == 0
    assert told > 40


def test_a_part_is_read_where_another_part_is_damaged(folder):
    whole = open_case(folder).image[...]
    sums = next(one for one in read_json(folder / "case.json")["files"] if one["name"] == "image.b2nd")
    offset, length, _ = sums["chunks"][-1]
    content = bytearray((folder / "image.b2nd").read_bytes())
    content[offset + length // 2] ^= 4
    (folder / "image.b2nd").write_bytes(content)
    image = open_case(folder).image
    backwards = (np.s_[-1, 39:32:-1, :16],) if not blosc2.__version__.startswith("3.") else ()  # it cannot yet
    for part in (np.s_[0], np.s_[:, :16], np.s_[1, 5:30, ..., 3], np.s_[..., 0:16, 0:20], *backwards):
        assert np.array_equal(image[part], whole[part])
    for part in (np.s_[...], np.s_[1], np.s_[:, 35, 25], np.s_[-1, :, -1, -1], np.s_[..., 10:]):
        with pytest.raises(AutosegError, match="chunk 23 of image.b2nd is not what was written"):
            image[part]


def test_what_was_found_sound_is_not_looked_at_again(folder, monkeypatch):
    looked, plain = [], checked.zlib.crc32
    monkeypatch.setattr(checked.zlib, "crc32", lambda data, *more: looked.append(len(data)) or plain(data, *more))
    image = open_case(folder).image
    image[...]
    once = sum(looked)
    assert once >= 0.99 * (folder / "image.b2nd").stat().st_size
    for _ in range(5):
        open_case(folder).image[...]
        image[:, 3:9]
    assert sum(looked) == once


def test_a_file_that_is_replaced_while_it_is_open_is_read_anew(folder):
    case = open_case(folder)
    case.image[...]
    content = bytearray((folder / "image.b2nd").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "image.b2nd").write_bytes(content)
    with pytest.raises(AutosegError, match="plan_and_preprocess"):
        case.image[...]


def test_a_case_of_a_version_without_sums_is_read_as_it_is(folder):
    right = used(folder)
    record = json.loads((folder / "case.json").read_text())
    del record["seal"], record["files"]
    (folder / "case.json").write_text(json.dumps(record))
    assert entry_of(folder).identity == "abc"
    assert is_whole(folder)
    assert same(used(folder), right)
    (folder / "image.b2nd").write_bytes((folder / "image.b2nd").read_bytes()[:300])
    assert not is_whole(folder)


def test_planning_again_prepares_a_damaged_case_anew_and_a_training_refuses_it(tmp_path, capsys, caplog):
    raw = write_phantoms(tmp_path / "Dataset001_A", training=5, test=0, in_plane_mm=10)
    where = ["--workspace", str(tmp_path / "w"), "--quiet"]
    assert main(["plan_and_preprocess", str(raw), *where]) == 0
    (fold,) = (tmp_path / "w" / "prepared" / "A").iterdir()
    damaged = sorted(path.parent for path in fold.glob("*/case.json"))[2]
    sound = {path.name: path.read_bytes() for path in damaged.iterdir()}
    content = bytearray(sound["image.b2nd"])
    content[len(content) // 2] ^= 16
    (damaged / "image.b2nd").write_bytes(content)
    train = [
        "train",
        str(raw),
        "all",
        "--iterations",
        "3",
        "--device",
        "cpu",
        "--set",
        "cpu_width=0.1",
        "--set",
        "batch_size=4",
    ]
    capsys.readouterr()
    assert main([*train, *where]) == 2
    told = capsys.readouterr().err
    assert damaged.name in told
    assert "autoseg plan_and_preprocess" in told
    assert main(["plan_and_preprocess", str(raw), *where]) == 0
    assert f"{damaged.name}: the prepared case was damaged and is prepared again" in caplog.text
    assert "prepared 1 case, 4 were ready" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in damaged.iterdir()} == sound
