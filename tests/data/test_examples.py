"""Each file in dataset_json_examples describes a folder that read_dataset understands."""

import json
from pathlib import Path

import pytest

from autoseg.data.dataset import read_dataset

EXAMPLES = Path(__file__).parents[2] / "dataset_json_examples"


@pytest.fixture
def read_example(tmp_path):
    """The DatasetSpec of an example whose files exist, empty."""

    def read(name):
        description = json.loads((EXAMPLES / name).read_text())
        files = [path for case in description.get("dataset", {}).values() for path in (*case["images"], case["label"])] or [
            path
            for case in ("case_1", "case_2")
            for path in (
                *(f"imagesTr/{case}_{int(n):04d}{description['file_ending']}" for n in description["channel_names"]),
                f"labelsTr/{case}{description['file_ending']}",
            )
        ]
        for path in files:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        (tmp_path / "dataset.json").write_text(json.dumps(description))
        return read_dataset(tmp_path)

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
    assert [case.patient for case in read_example("listed_files.json").training] == ["anna", "anna", "bert"]
