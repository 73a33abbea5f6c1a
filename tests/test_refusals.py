"""Each refusal names the file and what to do, whichever command meets it; the other cases go on."""

import re

import pytest
from PIL import Image

from autoseg.cli import main
from tests.helpers.bad_input import INPUTS, UNREADABLE, WRONG_LABELS, sound_image, sound_label


@pytest.fixture(params=UNREADABLE)
def study(request, tmp_path):
    """A data set of which image b and label c cannot be read, and what is to be said."""
    ending, spoil, said, remedy = UNREADABLE[request.param]
    folder = tmp_path / "Dataset001_Study"
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    (folder / "dataset.json").write_text(
        f'{{"channel_names": {{"0": "MR"}}, "labels": {{"background": 0, "thing": 7}}, "file_ending": "{ending}"}}'
    )
    for case in "abc":
        (spoil if case == "b" else sound_image)(folder / "imagesTr" / f"{case}_0000{ending}")
        (spoil if case == "c" else sound_label)(folder / "labelsTr" / f"{case}{ending}")
    return folder, ending, said, remedy


def test_verify_and_convert_name_each_file_with_its_own_remedy(study, tmp_path, capsys):
    folder, ending, said, remedy = study
    options = ["--workspace", str(tmp_path / "workspace"), "--quiet"]
    calls = {
        1: ["verify", str(folder)],
        2: ["convert", "folders", str(folder / "imagesTr"), str(tmp_path / "out"), "--labels", str(folder / "labelsTr")],
    }
    for status, call in calls.items():
        assert main([*call, *options]) == status
        table = "".join(capsys.readouterr())
        (paragraph,) = re.findall(r"^error +unreadable-file.*?\n +->[^\n]*", table, re.MULTILINE | re.DOTALL)
        assert f"b_0000{ending}" in paragraph
        assert f"c{ending}" in paragraph
        assert said in paragraph
        assert remedy in paragraph.rpartition("->")[2]
        assert paragraph.count(" export the file again") <= 1
        assert "Traceback" not in table
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("study", ["cut", "MetaImage bent", "see-through"], indirect=True)
def test_a_map_that_cannot_be_read_is_named_where_maps_are_worked_on_and_the_others_go_on(study, tmp_path, capsys):
    folder, ending, said, remedy = study
    for case in "ab":  # c alone is bad
        sound_label(folder / "labelsTr" / f"{case}{ending}")
    options = ["-o", str(tmp_path / "out"), "--quiet"]
    (folder / "dataset.json").unlink()  # what the values are called is found in those that can be read
    for call, good in (
        (["reconstruct", "-i", str(folder / "labelsTr"), "--surfaces", "none"], "2 label maps reconstructed"),
        (["evaluate", "--reference", str(folder / "labelsTr"), "--predicted", str(folder / "labelsTr")], "2 cases scored"),
    ):
        assert main([*call, *options]) == 1
        lines = capsys.readouterr().out
        assert good in lines
        (line,) = [line for line in lines.splitlines() if re.match(r"(failed:|-) c: ", line)]
        assert f"c{ending}" in line
        assert said in line
        assert remedy in line


@pytest.mark.parametrize("name", WRONG_LABELS)
def test_labels_that_are_none_are_named(tmp_path, name, capsys):
    ending, spoil, said, remedy = WRONG_LABELS[name]
    (tmp_path / "maps").mkdir()
    sound_label(tmp_path / "maps" / f"a{'.png' if ending == '.jpg' else ending}")
    spoil(tmp_path / "maps" / f"c{ending}")
    assert main(["reconstruct", "-i", str(tmp_path / "maps"), "-o", str(tmp_path / "out"), "--surfaces", "none"]) == 1
    output = capsys.readouterr().out
    (line,) = [line for line in output.splitlines() if line.startswith("failed: c: ")]
    assert "1 label map reconstructed" in output
    assert f"c{ending}" in line
    assert said in line
    assert remedy in line


@pytest.mark.parametrize("mode", ["P", "RGB"])
def test_convert_reads_the_labels_of_pictures_as_verify_does(tmp_path, mode):
    for part in ("scans", "labels"):
        (tmp_path / part).mkdir()
    sound_image(tmp_path / "scans" / "a.png")
    sound_label(tmp_path / "labels" / "a.png")
    Image.open(tmp_path / "labels" / "a.png").convert(mode).save(tmp_path / "labels" / "a.png")
    call = ["convert", "folders", str(tmp_path / "scans"), str(tmp_path / "out"), "--labels", str(tmp_path / "labels")]
    assert main([*call, "--quiet"]) == 0
    assert main(["verify", str(tmp_path / "out"), "--workspace", str(tmp_path / "workspace"), "--quiet"]) == 0


@pytest.mark.parametrize("layout", ["acdc", "bids", "brats", "lits", "msd", "folders"])
def test_a_source_that_is_not_there_or_of_another_kind_is_named_with_a_remedy(tmp_path, layout, capsys):
    (tmp_path / "empty").mkdir()
    for source in (tmp_path / "gone", tmp_path / "empty"):
        assert main(["convert", layout, str(source), str(tmp_path / "out"), "--quiet"]) == 2
        message = capsys.readouterr().err
        assert str(source) in message
        assert re.search(r"(Correct|Choose|Give|Say) ", message)
        assert "Traceback" not in message


@pytest.mark.parametrize("name", INPUTS)
def test_a_command_that_meets_something_broken_says_where_what_and_the_way_out(tmp_path, name, capsys):
    bad = INPUTS[name]
    words = bad.make(tmp_path)
    where = [] if "--workspace" in words else ["--workspace", str(tmp_path / "w")]
    assert main([*words, *where, "--quiet"]) == bad.status
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    for part in (bad.where, bad.expected, bad.found, bad.remedy):
        assert part in said
