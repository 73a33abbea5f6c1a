"""Syntax trees of source files, parsed once per process, for tests that inspect code."""

import ast
from functools import cache
from pathlib import Path


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All nodes of the tree, in the order of ``ast.walk``."""
    return tuple(ast.walk(tree_of(path)))
