"""The files of a model: in a folder, or as members of a zip, which is read in memory and never unpacked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from autoseg.archive import read_member, safe_members
from autoseg.errors import ModelError
from autoseg.inference.bundle.record import BESIDE, COARSE, MODEL

__all__ = ["Read", "folder_members", "zip_members"]

Read = Callable[[str], bytes]  # a member of a model, by name


def folder_members(path: Path) -> tuple[dict[str, int], Read]:
    """(size of each file by name, function that reads a file), for a folder."""
    if not path.is_dir():
        raise ModelError(f"{path}: there is no such model; expected a folder or a zip with {MODEL} in it")
    within = [path / name for name in (COARSE, BESIDE) if (path / name).is_dir()]
    found = [*path.iterdir(), *(file for folder in within for file in folder.iterdir())]
    files = [file for file in found if file.suffix in (".json", ".safetensors") and file.is_file()]  # no broken link
    sizes = {file.relative_to(path).as_posix(): file.stat().st_size for file in files}
    return sizes, lambda name: (path / name).read_bytes()


def zip_members(path: Path) -> tuple[dict[str, int], Read]:
    """(size of each member by name, function that reads a member), for a zip; refuses members that no model has."""
    members = safe_members(path, path)
    heads = [name[: -len(MODEL)] for name in members if name.split("/")[-1] == MODEL and name.count("/") < 2]
    inner = ("__MACOSX/", *((f"{COARSE}/", f"{BESIDE}/") if "" in heads else ()))
    heads = [head for head in heads if head not in inner]
    if len(heads) != 1:
        raise ModelError(f"{path}: expected one {MODEL} in it, found {len(heads)}. Give the zip of one model")
    sizes = {name.removeprefix(heads[0]): size for name, size in members.items()}
    return sizes, lambda name: read_member(path, heads[0] + name, path)
