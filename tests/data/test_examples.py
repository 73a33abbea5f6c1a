"""Each file in dataset_json_examples describes a folder that read_dataset understands."""

import json
from pathlib import Path

import pytest

from autoseg.data.dataset import read_dataset
from autoseg.data.labels import read_labels
from autoseg.data.layouts import acdc, brats, lits

EXAMPLES = Path(__file__).parents[2] / "dataset_json_examples"


@pytest.fixture
def read_example(tmp_path):
    """The DatasetSpec of an example whose files exist, empty."""

    def read(name):
        description = json.loads((EXAMPLES / name).read_text())
        listed = [*description.get("dataset", {}).values(), *description.get("test", {}).values()]
        files = [path for case in listed for path in (*case["images"], case.get("label")) if path] or [
            path
            for case in ("case_1", "case_2")
            for path in (
                *(f"imagesTr/{case}_{int(n):04d}{description['file_ending']}" for n in description["channel_names"]),
                f"labelsTr/{case}{description['file_ending']}",
            )
        ]
        folder = tmp_path / "set"
        folder.mkdir(exist_ok=True)
        for path in files:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).touch()
        (folder / "dataset.json").write_text(json.dumps(description))
        return read_dataset(folder)

    return read


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.json")))
def test_every_example_is_understood_with_all_its_files(name, read_example):
    dataset = read_example(name)
    assert len(dataset.training) == dataset.num_training
    assert all(path.is_file() for case in dataset.training for path in (*case.images, case.label))
    assert f"]({name})" in (EXAMPLES / "README.md").read_text()


def test_the_examples_show_what_they_are_named_for(read_example):
    assert len(read_example("mri_multi_channel.json").training[0].images) == 2
    assert read_example("regions.json").labels.has_regions
    assert read_example("ignore_label.json").labels.ignore == 3
    assert read_example("gaps_in_values.json").labels.declared_values == (0, 1, 2, 4)
    overlap = read_example("overlap.json").labels
    assert set(overlap.values[0]) & set(overlap.values[1]) == {3}
    assert [case.label for case in read_example("acdc.json").test] == [None]
    assert [case.patient for case in read_example("listed_files.json").training] == ["anna", "anna", "bert"]


@pytest.mark.parametrize("name", ["acdc", "brats", "lits"])
def test_the_published_meaning_is_what_convert_writes(name, read_example):
    labels = read_example(f"{name}.json").labels
    if name == "acdc":
        written = acdc.STRUCTURES
        assert dict(zip((value for (value,) in labels.values), labels.structures, strict=True)) == written
    else:
        values = {0, *labels.declared_values}
        describe = brats.describe_labels if name == "brats" else lits.describe_labels
        description, findings = describe({"case": values})
        assert read_labels(description["labels"], description["regions_class_order"]) == labels
        assert findings == []
