"""Imports point one way; the message of a failure is the reason.

Every file belongs to a room, every room stands on a floor, and a room imports rooms of lower floors alone. Names of modules in
strings, such as those of registries, are imports too, and so is a command of autoseg that is started as a process.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.sources import tree_of

ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob("autoseg/**/*.py"), *ROOT.glob("planners/**/*.py")]

# from the ground up; a room is a package or a file of autoseg, or the package planners
FLOORS = [
    (
        {"planners", "errors", "digits", "control_groups"},
        "stands on numpy and the standard library, so that anybody can use it",
    ),
    ({"archive", "locks", "names", "options", "registry", "room"}, "knows nothing of images, files or plans"),
    ({"atomic"}, "writes files, whatever is in them"),
    ({"engines"}, "shares work, whatever it is"),
    ({"imaging", "workspace"}, "voxels and places know nothing of data sets"),
    ({"ledger", "phantoms", "plans"}, "says what is done, whatever was to be done"),
    ({"places"}, "tells our own files from others'"),
    ({"data"}, "reading data needs no network"),
    ({"evaluation", "networks", "preprocess", "reconstruct", "records", "versions"}, "can be used without the others"),
    ({"inference", "interop", "training"}, "do not know each other: a model works without the code that trained it"),
    ({"methods", "outputs", "page"}, "get values, whoever made them"),
    ({"studies"}, "parts do not know the story they are part of"),
    ({"pipeline"}, "verbs do not know who calls them"),
    ({"cli"}, "nothing imports the command line"),
]
FLOOR_OF = {room: number for number, (rooms, _) in enumerate(FLOORS) for room in rooms}
FACADES = {"autoseg/__init__.py", "autoseg/__main__.py"}  # name what lies on every floor, for callers from outside

# what a room may not import though it stands higher, or comes from elsewhere: (rooms or files, forbidden, reason)
RULES = [
    ("planners", {"torch", "scipy"}, "planners decide from numbers alone"),
    ("imaging", {"torch", "planners", "vtk"}, "imaging is plain numpy"),
    ("data preprocess records page", {"torch"}, "data, records and pages are read without a network"),
    ("records", {"autoseg.imaging"}, "a record is a value, whoever writes or reads it"),
    ("reconstruct", {"torch", "planners", "vtk", "autoseg.data"}, "the way back is plain numpy"),
    ("evaluation", {"torch", "planners"}, "anybody's masks can be scored"),
    ("page", {"autoseg.networks", "autoseg.reconstruct", "autoseg.preprocess"}, "a page shows values, whoever made them"),
    ("networks", {"autoseg.data", "autoseg.imaging"}, "networks know no files"),
    ("training", {"autoseg.evaluation", "autoseg.reconstruct"}, "training ends with weights"),
    ("interop", {"nnunetv2"}, "a foreign model becomes plain values"),
    ("autoseg/training/settle.py", {"torch"}, "what is trained is settled from values alone"),
]

# (file, room on a higher floor that it needs): why
UPWARDS = {
    ("autoseg/engines/child.py", "cli"): "a command in a process of its own is the command line that a person types",
    ("autoseg/studies/process.py", "cli"): "a network of a comparison is trained by `autoseg train`: its memory is its own",
}
STARTS_A_COMMAND = {"autoseg.engines.run_command", "autoseg.engines.processes.run_command"}


def of(path):
    return path.relative_to(ROOT).as_posix()


def room_of(module):
    """The room of a module name such as autoseg.imaging.files; "" for the facade, None for what is not ours."""
    parts = module.split(".")
    if parts[0] == "planners":
        return "planners"
    if parts[0] != "autoseg":
        return None
    return parts[1] if len(parts) > 1 else ""


def home_of(path):
    """The room that a file belongs to."""
    return room_of(".".join(path.relative_to(ROOT).with_suffix("").parts))


@cache
def imported(path):
    """Every module name that a file imports, at the top or within functions, as a statement or in a string."""
    found = set()
    package = path.relative_to(ROOT).with_suffix("").parts
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level]) + "." if node.level else ""
            if node.module != "autoseg":  # else each name is a room
                found.add(base + (node.module or ""))
            found |= {f"{base}{node.module or ''}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if name := re.fullmatch(r"((?:autoseg|planners)(?:\.[a-z_0-9]+)+)(?::\w+)?", node.value):
                found.add(name[1])
        elif isinstance(node, ast.Call) and dotted(node.func) == "runpy.run_module":
            found.add("autoseg.cli")
    return found | {"autoseg.cli" for name in found & STARTS_A_COMMAND if home_of(path) != "engines"}


def files_of(rooms):
    """Files of rooms by name, or of one file by its path."""
    return [path for path in FILES if home_of(path) in rooms.split() or of(path) == rooms]


def is_below(module, name):
    return (module + ".").startswith(name + ".")


def test_every_file_belongs_to_a_room():
    lost = {of(path) for path in FILES if of(path) not in FACADES and home_of(path) not in FLOOR_OF}
    assert lost == set(), "say in FLOORS on which floor a new room stands"


def test_imports_point_one_way():
    broken = []
    for path in FILES:
        home = home_of(path)
        for module in sorted(imported(path)) if home in FLOOR_OF else ():
            room = room_of(module)
            if room not in FLOOR_OF or room == home or (of(path), room) in UPWARDS:
                continue
            if FLOOR_OF[room] >= FLOOR_OF[home]:
                rooms, reason = FLOORS[FLOOR_OF[home]]
                where = "above" if FLOOR_OF[room] > FLOOR_OF[home] else "beside"
                broken.append(f"{of(path)} imports {module}, which stands {where} it: {', '.join(sorted(rooms))}: {reason}")
    assert not broken, "\n".join(broken)


@pytest.mark.parametrize(("rooms", "forbidden", "reason"), RULES, ids=[rule[2] for rule in RULES])
def test_rooms_stay_what_they_are(rooms, forbidden, reason):
    for path in files_of(rooms):
        for module in imported(path):
            for name in forbidden:
                assert not is_below(module, name), f"{of(path)} imports {module}: {reason}"


def test_every_way_upwards_is_one_that_is_taken():
    for (file, room), reason in UPWARDS.items():
        assert room in map(room_of, imported(ROOT / file)), f"{file} no longer needs {room} ({reason}): remove the line"


def dotted(node):
    """``a.b.c`` of such an expression; "" for any other."""
    if isinstance(node, ast.Name):
        return node.id
    before = dotted(node.value) if isinstance(node, ast.Attribute) else ""
    return f"{before}.{node.attr}" if before else ""


@cache
def calls_of(path):
    return {dotted(node.func) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)}


@cache
def attributes_of(path):
    return {dotted(node) for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}


ENVIRONMENT = {f"os.{name}" for name in ("environ", "environb", "getenv", "putenv")}
CONSOLE = {f"sys.{name}" for name in ("stdout", "stderr", "stdin", "argv")}


def test_only_the_command_line_prints_or_reads_the_environment():
    for path in FILES:
        if home_of(path) != "cli":
            assert not {"print", "input"} & calls_of(path), f"{of(path)} talks: use logging"
            used = (ENVIRONMENT | CONSOLE) & (attributes_of(path) | imported(path))
            assert not used, f"{of(path)}: {used}: what a run depends on is handed to it"


THREADS = {"threading.Thread", "threading.Timer", "concurrent.futures", "asyncio", "_thread", "torch.utils.data"}
PROCESSES = {"subprocess", "multiprocessing", "torch.multiprocessing", "pty", "runpy"}
FORKS = re.compile(r"os\.(fork|forkpty|system|popen|posix_spawnp?|spawn\w+|exec\w+)")


def test_only_engines_and_the_training_loop_start_threads():
    for path in FILES:
        if home_of(path) != "engines" and of(path) != "autoseg/training/loop.py":
            used = {name for name in imported(path) | attributes_of(path) for banned in THREADS if is_below(name, banned)}
            assert not used, f"{of(path)}: {used}: work is shared in one place, where failures and the end are taken care of"


def test_only_engines_start_processes():
    for path in FILES:
        if home_of(path) != "engines":
            used = {name for name in imported(path) for banned in PROCESSES if is_below(name, banned)}
            used |= {name for name in imported(path) | attributes_of(path) if FORKS.fullmatch(name)}
            assert not used, f"{of(path)}: {used}: processes are started in one place, where stopping them is taken care of"


def test_nothing_that_runs_code_is_loaded():
    for path in FILES:
        loaders = {"pickle", "_pickle", "cPickle", "dill", "joblib", "marshal", "cloudpickle", "shelve"} & imported(path)
        assert not loaders, f"{of(path)}: {loaders}: files are data, never code"
        assert not {"torch.load", "eval", "exec", "compile"} & calls_of(path), f"{of(path)}: weights come as safetensors"


def test_one_module_takes_foreign_checkpoints_apart():
    readers = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("autoseg/**/*.py") if "pickletools" in imported(path)}
    assert readers == {"autoseg/interop/checkpoint.py"}, "which carries out the instructions that make plain values, no others"


def test_only_the_dicom_files_need_the_optional_dicom_packages():
    for path in FILES:
        needed = {module.partition(".")[0] for module in imported(path)} & {"pydicom", "highdicom"}
        assert not needed or path.name.startswith("dicom_"), f"{of(path)}: everything else works without {needed}"


def test_only_the_engine_speaks_to_a_cluster():
    for path in FILES:
        spoken = {module.partition(".")[0] for module in imported(path)} & {"dask", "distributed"}
        assert not spoken or home_of(path) == "engines", f"{of(path)}: a verb asks for an engine, whichever it is"
