"""Puts ``programs/*.py`` into ``own_project.md``: ``python docs/make_own_project.py``.

A program stands on the page between ``<!-- program: NAME -->`` and ``<!-- end -->``, the table of their lines between
``<!-- table -->`` and ``<!-- end -->``. In the same way ``transformers/*.py`` stand in ``own_transformers.md``, with
the figures of ``measure_transformers.py``.
"""

import ast
import csv
import itertools
import re
from operator import itemgetter
from pathlib import Path

DOCS = Path(__file__).parent
PAGE = DOCS / "own_project.md"
PROGRAMS = DOCS / "programs"
TRANSFORMERS_PAGE = DOCS / "own_transformers.md"
TRANSFORMERS = DOCS / "transformers"
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


def figures(folder: Path = TRANSFORMERS) -> str:
    """What ``measure_transformers.py`` has measured: a row for each architecture, with the figures of its seeds."""
    rows = ["| program | | architecture | test part | parameters | FLOPs |", "| --- | --- | --- | --- | --- | --- |"]
    for path in sorted(folder.glob("*.csv")):
        with open(path, encoding="utf-8", newline="") as file:
            for (of, architecture), seeds in itertools.groupby(csv.DictReader(file), itemgetter("of", "architecture")):
                each = list(seeds)
                (metric,) = [name for name in each[0] if name.startswith("test/")]
                digits = 3 if metric == "test/accuracy" else 1
                values = ", ".join(f"{float(row[metric]):.{digits}f}" for row in each)
                costs = " | ".join(f"{float(each[0][name]):,.0f}" for name in ("n_params", "flops"))
                figure = f"{metric.removeprefix('test/')} {values}"
                rows.append(f"| `{path.stem}` | {of} | {architecture} | {figure} | {costs} |")
    return "\n".join(rows)


def of_transformers(page: str) -> str:
    """The page of transformers with its programs and figures as they are in the files."""
    page = filled(page, TRANSFORMERS)
    block = re.compile(r"<!-- figures -->.*?<!-- end -->", re.DOTALL)
    return block.sub(lambda _: f"<!-- figures -->\n\n{figures()}\n\n<!-- end -->", page)


if __name__ == "__main__":
    TRANSFORMERS_PAGE.write_text(of_transformers(TRANSFORMERS_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
