"""Imports go down only: the rooms stand in an order, which the architecture page tells, and no files in a circle."""

import ast
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lightning_nas"
PAGE = (PACKAGE / "README.md").read_text(encoding="utf-8")
ROOMS = re.findall(r"^([a-z_]+)/? ", PAGE.partition("## The rooms")[2].split("```")[1], re.MULTILINE)
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Every file of the package by the name of its module."""
TOP = {"lightning_nas", "lightning_nas.__main__"}
"""The package itself, whose public names anybody may ask for, and its entry."""


def imported(module):
    """The modules of the package that a module imports, inside functions too, and for type checkers alone."""
    for node in ast.walk(ast.parse(FILES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in FILES else node.module
                for alias in node.names
            ]
        else:
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{module}: imports are absolute"
            continue
        yield from (name for name in names if name.split(".")[0] == "lightning_nas")


def room(module):
    return module.split(".")[1]


IMPORTS = [(module, name) for module in FILES if module not in TOP for name in imported(module) if name not in TOP]


def test_the_page_lists_every_room_once():
    there = {room(module) for module in FILES if module not in TOP}
    assert len(ROOMS) == len(set(ROOMS))
    assert set(ROOMS) == there


def test_imports_go_down():
    assert len(IMPORTS) > 300
    up = [f"{module} imports {name}" for module, name in IMPORTS if ROOMS.index(room(name)) > ROOMS.index(room(module))]
    assert not up


def test_no_files_stand_in_a_circle():
    # a package's own names come from its files, so the package stands for whatever it imports itself
    graph = {module: {name for m, name in IMPORTS if m == module} for module in FILES}
    done, path = set(), []

    def visit(module):
        if module in path:
            pytest.fail(" imports ".join([*path[path.index(module) :], module]))
        if module in done or module not in graph:
            return
        path.append(module)
        for name in sorted(graph[module]):
            visit(name)
        path.pop()
        done.add(module)

    for module in FILES:
        visit(module)
