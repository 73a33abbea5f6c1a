"""The trees of source files, parsed once a process, for tests that look at code."""

import ast
from functools import cache
from pathlib import Path


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def nodes_of(path: Path) -> tuple[ast.AST, ...]:
    """All of the tree, as ``ast.walk`` finds them."""
    return tuple(ast.walk(tree_of(path)))
