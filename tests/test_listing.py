"""What there is to choose from, said completely: networks, the recipe, the completion of a shell."""

import dataclasses
import json
import subprocess
from importlib.metadata import EntryPoint

import pytest

from autoseg import registry
from autoseg.cli import VERBS, main
from autoseg.networks import NETWORKS
from autoseg.networks.listing import networks, reference_plan
from autoseg.phantoms import write_phantoms
from autoseg.training.recipe import RECIPES, Recipe
from planners import count_parameters, with_network
from planners.records import to_json


def broken_entry(monkeypatch):
    entry = EntryPoint("guest_net", "no_such_module:build", "autoseg.network.v1")
    monkeypatch.setattr(registry, "_brought", lambda group: {"guest_net": (entry,)} if group == NETWORKS.group else {})


def test_every_network_is_listed_with_its_size_and_a_line(monkeypatch, capsys):
    broken_entry(monkeypatch)
    assert main(["networks", "--list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(found) == list(NETWORKS)
    assert "guest_net" in found
    for name, one in found.items():
        if name == "guest_net":
            assert one["parameters"] is None
            assert "no_such_module" in one["fault"]
            assert one["package"]
        else:
            assert one["parameters"] > 1e6, name
            assert len(one["meaning"]) > 10, name
            assert not one["package"], name


def test_sizes_are_those_that_the_planner_counts_by_arithmetic():
    plan = reference_plan()
    listed = {one.name: one.parameters for one in networks().networks}
    for name in ("unet", "residual_unet"):
        assert listed[name] == count_parameters(with_network(plan, name).network)


def shown(capsys, *arguments):
    assert main(["recipe", "--show", "--json", *arguments]) == 0
    found = json.loads(capsys.readouterr().out)
    return found, {one["name"]: one for one in found["settings"]}


def test_every_setting_says_what_it_is_and_where_it_comes_from(tmp_path, capsys):
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"kernel_rate": 0.01, "ema": False}))  # the first by its name of earlier versions
    _, rows = shown(capsys, "--recipe", str(file), "--set", "ema=true", "--set", "checks=9")
    assert list(rows) == [one.name for one in dataclasses.fields(Recipe)]
    assert all(row["meaning"] for row in rows.values())
    sources = {name: row["source"] for name, row in rows.items() if row["source"] != "recipe autoseg"}
    assert sources == {"name": "mine.json", "muon_learning_rate": "mine.json", "ema": "--set", "validations": "--set"}
    assert (rows["muon_learning_rate"]["value"], rows["ema"]["value"], rows["validations"]["value"]) == (0.01, True, 9)
    for name in RECIPES:
        _, rows = shown(capsys, "--recipe", name)
        assert {key: row["value"] for key, row in rows.items()} == {
            one.name: to_json(getattr(RECIPES[name], one.name)) for one in dataclasses.fields(Recipe)
        }
        assert {row["source"] for row in rows.values()} == {f"recipe {name}"}


def test_the_options_of_every_augmentation_are_told_with_their_defaults(capsys):
    found, _ = shown(capsys, "--set", "augmentation=light")
    steps = {one["transform"]: one for one in found["augmentation"]}
    assert steps["noise"] == {"transform": "noise", "probability": 0.1, "options": {"sigma": [0.0, 0.1]}}
    assert steps["gamma"]["options"]["invert"] is False  # a default of the transform, which the preset does not name
    assert "Dice" in found["loss"]


@pytest.mark.thorough
def test_with_a_data_set_no_value_is_left_to_guess(tmp_path, capsys):
    write_phantoms(tmp_path / "Dataset001_A", training=5, test=0)
    workspace = tmp_path / "workspace"
    more = [str(tmp_path / "Dataset001_A"), "--workspace", str(workspace), "--iterations", "4000", "--device", "cpu"]
    found, rows = shown(capsys, *more, "--network", "unet")
    training = found["training"]
    assert rows["batch_size"]["settled"] == training["patches"][-1]["batch_size"] == 2
    assert rows["momentum"]["settled"] == 0.95  # 1 - 200 / 4000
    assert rows["mirror"]["settled"] is not None
    assert rows["bf16"]["settled"] == "probe"
    assert training["plan"]["network"]["name"] == "unet"
    assert not workspace.exists()
    assert main(["recipe", "--show", *more]) == 0
    text = capsys.readouterr().out
    assert "because" in text
    assert "batch_size" in text
    assert "0.95" in text


@pytest.mark.parametrize(("verb", "flag"), [("recipe", "--show"), ("networks", "--list")])
def test_a_listing_needs_no_flag(verb, flag, capsys):
    assert main([verb]) == 0
    listed = capsys.readouterr().out
    assert main([verb, flag]) == 0
    assert capsys.readouterr().out == listed


def test_a_shell_completes_verbs_options_and_choices(capsys):
    pytest.importorskip("shtab")
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    for words, expected in ((["pre"], "predict"), (["predict", "--no-m"], "--no-mirror"), (["completion", "z"], "zsh")):
        line = " ".join(f"'{word}'" for word in ["autoseg", *words])
        code = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words)}; _shtab_autoseg; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        assert expected in done.stdout.split(), (words, done.stdout)
    assert all(verb in script for verb in VERBS)
    assert main(["completion", "zsh"]) == 0
    assert "#compdef autoseg" in capsys.readouterr().out


def test_without_the_package_completion_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "pip install shtab" in capsys.readouterr().err


def test_what_a_model_is_is_told_in_lines_without_its_recipe():
    from autoseg.cli.model import _lines

    fold = {"steps": 300, "length": {"steps": 300, "seconds": None}, "recipe": {"loss": "dice"}}
    about = {"structures": ["liver", "a\x1b[2J"], "windows": {}, "info": {"folds": {"0": fold}, "run": ""}}
    told = ["structures: liver, 'a\\x1b[2J'", "info:", "  folds:", "    0: steps 300, length steps 300"]
    assert list(_lines(about)) == told
