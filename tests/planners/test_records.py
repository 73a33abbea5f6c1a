from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from planners import Budget, Plan, RecordError, digest, from_json, get_planner, to_json
from planners.records import OPTIONAL, REST, called


@dataclass(frozen=True)
class Point:
    x: float
    tags: tuple[str, ...] = ()
    pair: tuple[int, int] = (0, 0)
    weight: float | None = None
    visible: bool = True

    def __post_init__(self):
        if self.x < 0:
            raise ValueError("x must not be negative")


@dataclass(frozen=True)
class Line:
    points: tuple[Point, ...]


def test_a_record_survives_json():
    line = Line((Point(1.5, ("a", "b"), (3, 4), 2.0, False), Point(0.0)))
    assert from_json(Line, to_json(line)) == line


def test_whole_numbers_are_fine_where_a_float_is_expected():
    assert isinstance(from_json(Point, {"x": 1}).x, float)


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        ({"points": [{"x": 1.0}, {"x": 1.0, "y": 2}]}, r"plan\.json\.points\[1\]", "unknown field 'y'"),
        ({"points": [{}]}, r"plan\.json\.points\[0\]", "'x' is missing"),
        ({"points": [{"x": "1"}]}, r"plan\.json\.points\[0\]\.x", "expected float, found '1'"),
        ({"points": [{"x": True}]}, r"points\[0\]\.x", "expected float"),
        ({"points": [{"x": 1, "pair": [1]}]}, r"points\[0\]\.pair", "expected 2 entries, found 1"),
        ({"points": [{"x": 1, "pair": [1, 2.5]}]}, r"points\[0\]\.pair\[1\]", "expected int, found 2.5"),
        ({"points": [{"x": 1, "visible": 1}]}, r"points\[0\]\.visible", "expected bool"),
        ({"points": [{"x": -1}]}, r"points\[0\]", "x must not be negative"),
        ({"points": 3}, r"plan\.json\.points", "expected a list"),
        ([], r"plan\.json", "expected an object"),
    ],
)
def test_an_error_says_where_and_what(data, where, what):
    with pytest.raises(RecordError, match=f"{where}.*{what}"):
        from_json(Line, data, "plan.json")


def test_to_json_gives_a_copy_that_is_safe_to_change():
    point = Point(1.0, ("a",))
    to_json(point)["tags"].append("b")
    assert point.tags == ("a",)


def test_the_digest_changes_with_any_field():
    point = Point(1.0, ("a",))
    assert digest(point) == digest(Point(1.0, ("a",)))
    assert len({digest(point), digest(replace(point, x=2.0)), digest(replace(point, tags=("b",)))}) == 3


def test_a_plan_edited_into_nonsense_is_refused(hippocampus):
    data = to_json(get_planner("fullres_3d").plan(hippocampus, Budget()))
    assert from_json(Plan, data).patch_size == (40, 56, 40)
    data["patch_size"][1] = 57
    with pytest.raises(RecordError, match=r"patch_size: .*\(8, 8, 8\).*\(40, 57, 40\).*Use \(40, 56, 40\)"):
        from_json(Plan, data, "fullres_3d.json")


@dataclass(frozen=True)
class Result:
    origin: str = field(metadata=called("from"))
    means: dict[str, Point] = field(default_factory=dict)
    note: str = field(default="", metadata=OPTIONAL)
    free: Any = None
    others: dict[str, Any] = field(default_factory=dict, metadata=REST)


def test_a_field_may_have_another_name_in_the_file_and_be_left_out_while_it_says_nothing():
    data = {"from": "here", "means": {"a": to_json(Point(1.0))}, "free": [1, {"b": 2}]}
    result = Result("here", {"a": Point(1.0)}, free=[1, {"b": 2}])
    assert to_json(result) == data
    assert from_json(Result, data) == result
    assert to_json(replace(result, note="x"))["note"] == "x"


def test_what_a_record_does_not_know_is_kept_where_it_has_room_for_it():
    data = {"from": "here", "means": {}, "free": None, "others": 1, "colour": "blue"}
    assert from_json(Result, data).others == {"others": 1, "colour": "blue"}
    assert to_json(from_json(Result, data)) == data


def test_unknown_fields_are_passed_over_only_where_that_is_asked_for():
    data = {"points": [{"x": 1.0, "y": 2}]}
    assert from_json(Line, data, strict=False) == Line((Point(1.0),))
    with pytest.raises(RecordError, match="unknown field 'y'"):
        from_json(Line, data)


def test_a_dictionary_of_records_says_where_its_fault_is():
    with pytest.raises(RecordError, match=r"r\.means\.a\.x: expected float"):
        from_json(Result, {"from": "", "means": {"a": {"x": "1"}}}, "r")
    with pytest.raises(RecordError, match=r"r\.means: expected an object"):
        from_json(Result, {"from": "", "means": []}, "r")
