"""Every line of a docstring's arguments and attributes is understood alone."""

import ast
import re
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lightning_nas"
NODES = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def described(text):
    """The names under ``Args:`` and ``Attributes:`` of a docstring, with what is said of each."""
    for section in re.findall(r"^ *(?:Args|Attributes):\n((?:(?: {4,}.*)?\n)*)", text + "\n", re.MULTILINE):
        lines = section.rstrip().splitlines()
        if not lines:
            continue
        indent = len(lines[0]) - len(lines[0].lstrip())
        entry = ""
        for line in [*lines, " " * indent + "end: "]:
            if line.strip() and len(line) - len(line.lstrip()) == indent:
                if entry:
                    name, _, said = entry.partition(":")
                    yield name.strip(), " ".join(said.split())
                entry = ""
            if len(line) - len(line.lstrip()) < indent and line.strip():
                break
            entry += line + " "


def test_every_line_is_understood_alone():
    unclear, n_lines = [], 0
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, NODES) and (text := ast.get_docstring(node)):
                for name, said in described(text):
                    n_lines += 1
                    if said.startswith("of ") or len(said.split()) < 4:
                        unclear.append(f"{path.relative_to(PACKAGE)}: {name}: {said}")
    assert n_lines > 500
    assert not unclear, "\n".join(["", *unclear])


def test_what_is_unclear_is_found():
    text = "Does it.\n\nArgs:\n    a: of it.\n    b: the number\n        of channels of the cell.\n    c: too few.\n"
    assert dict(described(text)) == {"a": "of it.", "b": "the number of channels of the cell.", "c": "too few."}
