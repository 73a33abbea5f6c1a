"""Wrong calls: a clear sentence, status 2, nothing written, no traceback."""

import gc
import subprocess
import sys
import time

import pytest

from autoseg.cli import VERBS, main
from autoseg.options.parsing import duration
from autoseg.phantoms import write_phantoms


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)])
def test_help_is_quick_and_needs_no_torch(arguments):
    code = (
        "import sys\nfrom autoseg.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    assert not end.code\nassert not {'torch', 'numpy', 'scipy'} & set(sys.modules), 'a slow import'\n"
        "assert len(sys.argv) > 2 or not {'autoseg.options', 'autoseg.engines'} & set(sys.modules), 'of verbs alone'"
    )
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - start)
    assert best < 0.5


def test_the_program_ends_without_a_search_for_garbage(monkeypatch):
    monkeypatch.setattr("sys.argv", ["autoseg"])
    try:
        main()
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()


@pytest.mark.thorough
def test_verbs_without_a_network_do_not_wait_for_torch(tmp_path):
    folder = write_phantoms(tmp_path / "Dataset001_P", training=3, test=0, in_plane_mm=8)
    labels = folder / "labelsTr"
    calls = [
        ["verify", folder],
        ["plan_and_preprocess", folder],
        ["evaluate", "--reference", labels, "--predicted", labels, "-o", tmp_path / "scores"],
        ["reconstruct", "-i", labels, "-o", tmp_path / "surfaces"],
        ["convert", "folders", folder / "imagesTr", tmp_path / "Dataset002_Q", "--labels", labels],
    ]
    workspace = ["--workspace", tmp_path / "w"]
    words = [[str(word) for word in (call if call[0] == "convert" else call + workspace)] for call in calls]
    code = "import sys\nfrom autoseg.cli import main\n" + "".join(f"assert main({call}) == 0\n" for call in words)
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_without_a_verb_the_help_is_shown(capsys):
    assert main([]) == 2
    assert "plan_and_preprocess" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["verify", "Nowhere"], "neither a folder nor a data set"),
        (["plan_and_preprocess", "Nowhere"], "plan_and_preprocess PATH"),
        (["train", "Nowhere", "0"], "neither a folder nor a data set"),
        (["train", "Nowhere", "0", "--set", "lr=3"], "settings of a recipe are"),
        (["train", "Nowhere", "0", "--recipe", "best"], "no recipe called 'best'"),
        (["train", "Nowhere", "0", "--network", "plain_net"], "no network called 'plain_net'"),
        (["train", "Nowhere", "0", "--device", "cuda:7"], "not available on this machine"),
        (["predict", "-i", "x.nii.gz", "-o", "out"], "has no model. Train one"),
        (["predict", "-i", "x.nii.gz", "-o", "out", "-m", "gone"], "neither a model folder or zip"),
        (["evaluate", "--reference", "a", "--predicted", "b", "-o", "c"], "there is no such folder"),
        (["reconstruct", "-i", "gone", "-o", "out"], "there is no such folder"),
        (["reconstruct", "-i", ".", "-o", "out", "--surfaces", "stil"], "no surface format called 'stil'"),
        (["predict", "-i", "x.nii.gz", "-o", "out", "--surfaces", "stl", "--decimate", "2"], "fraction of triangles"),
        (["compare", "Nowhere", "0"], "neither a folder nor a data set"),
        (["compare", "Nowhere", "0", "--networks", "unet,net"], "no network called 'net'"),
        (["model", "info", "gone"], "neither a model folder or zip"),
    ],
)
def test_a_wrong_call_says_what_is_wrong(tmp_path, monkeypatch, capsys, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    text = capsys.readouterr().err
    assert sentence in text
    assert "Traceback" not in text
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_with_errors_is_refused_with_all_of_them_and_nothing_is_written(tmp_path, capsys):
    raw = write_phantoms(tmp_path / "Dataset001_P", training=4, test=0, in_plane_mm=8)
    (raw / "labelsTr" / "phantom_001.nii.gz").unlink()
    broken = raw / "imagesTr" / "phantom_002_0000.nii.gz"
    broken.write_bytes(broken.read_bytes()[:500])
    workspace = ["--workspace", str(tmp_path / "w"), "--quiet"]
    assert main(["plan_and_preprocess", str(raw), *workspace]) == 2
    text = capsys.readouterr().err
    assert "2 errors" in text
    assert "phantom_001" in text
    assert "phantom_002" in text
    assert not (tmp_path / "w").exists()
    assert main(["verify", str(raw), *workspace, "--json", str(tmp_path / "findings.json")]) == 1
    assert "unreadable-file" in (tmp_path / "findings.json").read_text()


def test_a_dry_run_writes_nothing(tmp_path, capsys):
    raw = write_phantoms(tmp_path / "Dataset001_P", training=4, test=0, in_plane_mm=8)
    assert main(["plan_and_preprocess", str(raw), "--workspace", str(tmp_path / "w"), "--dry-run", "--explain", "--quiet"]) == 0
    assert "because" in capsys.readouterr().out
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize("fold", ["5", "x", "0,9", "-1"])
def test_a_fold_that_does_not_exist_is_refused(tmp_path, capsys, fold):
    raw = write_phantoms(tmp_path / "Dataset001_P", training=5, test=0, in_plane_mm=10)
    arguments = ["train", str(raw), "--workspace", str(tmp_path / "w"), "--quiet", "--iterations", "1", "--", fold]
    assert main(arguments) == 2
    assert "expected a number from 0 to 4" in capsys.readouterr().err
    assert not (tmp_path / "w" / "runs").exists()


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("20m", 1200), ("1.5h", 5400), ("2d", 172800)])
def test_times_have_units(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["20", "m", "0m", "-5m", "5 minutes"])
def test_times_without_units_are_refused(tmp_path, text):
    with pytest.raises(SystemExit) as end:
        main(["train", "x", "0", f"--time={text}"])
    assert end.value.code == 2


@pytest.mark.parametrize("verb", ["predict", "reconstruct"])
@pytest.mark.parametrize("edge", ["-2", "0", "nan", "inf", "fine"])
def test_cubic_voxels_have_an_edge(verb, edge, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main([verb, "-i", ".", "-o", "out", f"--isotropic={edge}"])
    assert end.value.code == 2
    assert "expected the edge of a voxel in mm" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
