"""Imports point one way; the message of a failure is the reason."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

RULES = [
    ("planners/**/*.py", {"autoseg", "torch", "scipy"}, "planners decide from numbers alone"),
    ("autoseg/imaging/*.py", {"torch", "planners", "vtk", "autoseg.data"}, "imaging is plain numpy"),
    ("autoseg/data/**/*.py", {"torch", "autoseg.training", "autoseg.inference"}, "reading data needs no network"),
    (
        "autoseg/records/*.py",
        {
            "torch",
            "autoseg.imaging",
            "autoseg.evaluation",
            "autoseg.preprocess",
            "autoseg.training",
            "autoseg.inference",
            "autoseg.page",
        },
        "a record is a value, whoever writes or reads it",
    ),
    ("autoseg/preprocess/*.py", {"torch", "autoseg.training", "autoseg.inference"}, "preparing data needs no network"),
    (
        "autoseg/reconstruct/*.py",
        {"torch", "planners", "vtk", "autoseg.inference", "autoseg.training"},
        "the way back is plain numpy",
    ),
    ("autoseg/evaluation/*.py", {"torch", "planners", "autoseg.inference"}, "anybody's masks can be scored"),
    (
        "autoseg/page/*.py",
        {"torch", "autoseg.training", "autoseg.inference", "autoseg.networks", "autoseg.reconstruct", "autoseg.pipeline"},
        "a page shows values, whoever made them",
    ),
    ("autoseg/networks/*.py", {"autoseg.data", "autoseg.training", "autoseg.imaging"}, "networks know no files"),
    ("autoseg/inference/*.py", {"autoseg.training"}, "a model works without training code"),
    ("autoseg/training/**/*.py", {"autoseg.inference", "autoseg.evaluation"}, "training ends with weights"),
    ("autoseg/interop/*.py", {"autoseg.training", "autoseg.inference", "nnunetv2"}, "a foreign model becomes plain values"),
    ("autoseg/[!cps_]*/**/*.py", {"autoseg.pipeline", "autoseg.studies"}, "parts do not know the story they are part of"),
    ("autoseg/training/settle.py", {"torch"}, "what is trained is settled from values alone"),
    ("autoseg/[!c_]*/**/*.py", {"autoseg.cli"}, "nothing imports the command line"),
]


def imported(path):
    """Every module name that a file imports, at the top or within functions."""
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) + "." if node.level else ""
            yield base + (node.module or "")
            yield from (f"{base}{node.module or ''}.{name.name}" for name in node.names)


@pytest.mark.parametrize(("pattern", "forbidden", "reason"), RULES, ids=[rule[2] for rule in RULES])
def test_imports_point_one_way(pattern, forbidden, reason):
    files = list(ROOT.glob(pattern))
    assert files, f"the rule {pattern!r} matches no file"
    for path in files:
        for module in imported(path):
            for name in forbidden:
                assert not (module + ".").startswith(name + "."), f"{path.relative_to(ROOT)}: {module}: {reason}"


def test_only_the_command_line_prints_or_reads_the_environment():
    for path in ROOT.glob("autoseg/[!c_]*/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id != "print", f"{path.relative_to(ROOT)} prints"
            if isinstance(node, ast.Attribute):
                assert node.attr not in ("environ", "getenv"), f"{path.relative_to(ROOT)} reads the environment"


def test_only_engines_start_processes():
    for path in [*ROOT.glob("autoseg/**/*.py"), *ROOT.glob("planners/**/*.py")]:
        if path.parent.name != "engines":
            found = {"subprocess", "multiprocessing"} & set(imported(path))
            assert not found, (
                f"{path.relative_to(ROOT)}: processes are started in one place, where stopping them is taken care of"
            )


def test_nothing_that_runs_code_is_loaded():
    for path in [*ROOT.glob("autoseg/**/*.py"), *ROOT.glob("planners/**/*.py")]:
        assert not {"pickle", "dill", "joblib", "marshal"} & set(imported(path)), f"{path}: files are data, never code"
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        assert "torch.load" not in calls, f"{path}: weights come as safetensors"


def test_one_module_takes_foreign_checkpoints_apart():
    readers = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("autoseg/**/*.py") if "pickletools" in imported(path)}
    assert readers == {"autoseg/interop/checkpoint.py"}, "which carries out the instructions that make plain values, no others"


def test_only_the_dicom_files_need_the_optional_dicom_packages():
    for path in ROOT.glob("autoseg/**/*.py"):
        needed = {module.partition(".")[0] for module in imported(path)} & {"pydicom", "highdicom"}
        assert not needed or path.name.startswith("dicom_"), f"{path.relative_to(ROOT)}: everything else works without {needed}"
