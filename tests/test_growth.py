"""Records get new fields, and what is on disk keeps its identity: shown on the model and the plan of an earlier version."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, fields, is_dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from autoseg.cli import main
from autoseg.data.labels import LabelSchema
from autoseg.errors import AutosegError, ModelError
from autoseg.inference.bundle import ModelRecord, WeightFile, load_bundle
from autoseg.training.recipe import Recipe
from autoseg.workspace import read_record
from planners import NetworkSpec, Plan
from planners.records import added, digest, from_json, identity, schema_number, to_json

GOLDEN = Path(__file__).parent / "golden" / "v0.1"
MODEL = GOLDEN / "workspace" / "models" / "Golden_small"
GROWN: dict[type[Any], Any] = {
    kind: make_dataclass(kind.__name__, [("later", tuple[str, ...], added(2, ()))], bases=(kind,), frozen=True)
    for kind in (ModelRecord, WeightFile, Plan, NetworkSpec, LabelSchema, Recipe)
}


def model_of_the_day() -> ModelRecord:
    content = json.loads((MODEL / "model.json").read_text())
    del content["info"]
    return from_json(ModelRecord, content)


def grown(record: Any) -> Any:
    """The record with the later field in itself and in everything it is made of."""
    if isinstance(record, tuple):
        return tuple(grown(item) for item in record)
    if not is_dataclass(record):
        return record
    kind = GROWN.get(type(record), type(record))
    return kind(**{field.name: grown(getattr(record, field.name)) for field in fields(record)})


MODEL_OF_THE_DAY = model_of_the_day()
RECORDS: dict[str, Any] = {
    "model": MODEL_OF_THE_DAY,
    "weights": MODEL_OF_THE_DAY.weights[0],
    "plan": MODEL_OF_THE_DAY.plan,
    "network": MODEL_OF_THE_DAY.plan.network,
    "labels": MODEL_OF_THE_DAY.labels,
    "recipe": Recipe(),
}


def test_a_model_keeps_its_digest_when_all_its_records_grow() -> None:
    told = json.loads((GOLDEN / "expected.json").read_text())
    larger = grown(MODEL_OF_THE_DAY)
    assert larger.later == larger.plan.later == larger.plan.network.later == larger.labels.later == ()
    assert digest(larger) == digest(MODEL_OF_THE_DAY) == told["model"]
    assert digest([larger.plan, {"plan": larger.plan}]) == digest([MODEL_OF_THE_DAY.plan, {"plan": MODEL_OF_THE_DAY.plan}])


@pytest.mark.parametrize("name", RECORDS)
def test_a_later_field_counts_only_where_it_says_something(name: str) -> None:
    larger = grown(RECORDS[name])
    assert digest(larger) == digest(RECORDS[name])
    assert digest(replace(larger, later=("something",))) != digest(RECORDS[name])
    assert to_json(larger)["later"] == []  # a file is complete


@pytest.mark.parametrize("name", RECORDS)
def test_a_file_without_the_later_field_opens_with_its_default(name: str) -> None:
    record = RECORDS[name]
    kind = GROWN[type(record)]
    larger = kind(**{field.name: getattr(record, field.name) for field in fields(record)})
    for written in (record, larger):
        assert from_json(kind, json.loads(json.dumps(to_json(written)))) == larger


@dataclass(frozen=True)
class First:
    size: int
    schema: int = schema_number(1)


@dataclass(frozen=True)
class Second:
    size: int
    shape: str = added(2, "round")
    remark: str = added(2, "", counts=False)
    schema: int = schema_number(2)


def test_the_number_of_a_schema_is_no_part_of_the_identity() -> None:
    assert identity(First(3)) == identity(Second(3)) == {"size": 3, "schema": 1}
    assert identity(Second(3, "flat")) == {"size": 3, "shape": "flat", "schema": 1}
    assert from_json(Second, to_json(First(3))) == Second(3)
    assert to_json(from_json(Second, to_json(First(3))))["schema"] == 2  # as it is written from now on


def test_a_field_that_nothing_depends_on_never_counts() -> None:
    assert digest(Second(3, remark="by hand")) == digest(Second(3)) != digest(Second(3, "flat"))
    assert Second(3, remark="by hand") != Second(3)


def test_a_file_of_a_newer_schema_is_refused_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = {**to_json(MODEL_OF_THE_DAY.plan), "schema": 7, "unheard_of": 1}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(AutosegError, match=r"plan\.json\.schema: written in schema 7 by a newer version, .* reads up to 3"):
        read_record(Plan, tmp_path / "plan.json")
    shutil.copytree(MODEL, tmp_path / "model")
    content = json.loads((MODEL / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps({**content, "schema": 7, "unheard_of": 1}))
    with pytest.raises(ModelError, match=r"model\.json\.schema: written in schema 7 by a newer version"):
        load_bundle(tmp_path / "model")
    assert main(["model", "info", str(tmp_path / "model"), "--workspace", str(tmp_path)]) == 2
    assert "newer version" in capsys.readouterr().err
    content["plan"]["schema"] = "two"
    (tmp_path / "model" / "model.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"plan\.schema: expected int, found 'two'"):
        load_bundle(tmp_path / "model")


def test_an_unknown_field_of_a_known_schema_is_still_a_mistake(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(json.dumps({**to_json(MODEL_OF_THE_DAY.plan), "bach_size": 1}))
    with pytest.raises(AutosegError, match="unknown field 'bach_size'"):
        read_record(Plan, tmp_path / "plan.json")
