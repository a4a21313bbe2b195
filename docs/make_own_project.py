"""Puts ``programs/*.py`` into ``own_project.md``: ``python docs/make_own_project.py``.

A program stands on the page between ``<!-- program: NAME -->`` and ``<!-- end -->``, the table of their lines between
``<!-- table -->`` and ``<!-- end -->``.
"""

import ast
import re
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "own_project.md"
PROGRAMS = DOCS / "programs"
PACKAGE = "lightning_nas"
BLOCK = re.compile(r"<!-- program: (\w+) -->.*?<!-- end -->", re.DOTALL)


def package_lines(source: str) -> set[int]:
    """The numbers of the lines that name the package, or something imported from it."""
    tree = ast.parse(source)
    lines, names = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE:
            names |= {alias.asname or alias.name for alias in node.names}
            lines |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines | {node.lineno for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in names}


def table(programs: Path = PROGRAMS) -> str:
    """How many lines each program has, and how many of them name the package."""
    rows = ["| program | lines that name the package | lines in all |", "| --- | --- | --- |"]
    for path in sorted(programs.glob("*.py")):
        source = path.read_text(encoding="utf-8")
        link = f"[`{path.stem}`](../docs/programs/{path.name})"
        rows.append(f"| {link} | {len(package_lines(source))} | {len(source.splitlines())} |")
    return "\n".join(rows)


def filled(page: str, programs: Path = PROGRAMS) -> str:
    """The page with all programs as they are in the files, and the table of their lines."""

    def program(marker: re.Match[str]) -> str:
        source = (programs / f"{marker[1]}.py").read_text(encoding="utf-8")
        return f"<!-- program: {marker[1]} -->\n\n```python\n{source}```\n\n<!-- end -->"

    page = BLOCK.sub(program, page)
    return re.sub(
        r"<!-- table -->.*?<!-- end -->",
        lambda _: f"<!-- table -->\n\n{table(programs)}\n\n<!-- end -->",
        page,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
