"""Puts the tables of ``results/*.csv`` into ``results.md``: ``python docs/make_results.py``.

A table stands between ``<!-- table: NAME -->`` and ``<!-- end -->``. The first columns of its file, ``data``,
``budget``, ``seeds`` and ``device``, say how the figures came about and become the line below the table.
"""

import csv
import re
from pathlib import Path

PAGE = Path(__file__).parent / "results.md"
RESULTS = Path(__file__).parent.parent / "results"
ORIGIN = ("data", "budget", "seeds", "device")


def table(path: Path) -> str:
    """The table of a file, and the line that says how its figures came about."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = [name for name in rows[0] if name not in ORIGIN]
    origin = {name: "; ".join(dict.fromkeys(row[name] for row in rows if row[name])) for name in ORIGIN}
    lines = [shown, ["---"] * len(shown), *([row[name] for name in shown] for row in rows)]
    said = ". ".join(f"{name.capitalize()}: {value}" for name, value in origin.items() if value)
    return "\n".join(["| " + " | ".join(line) + " |" for line in lines] + ["", f"{said}."])


def filled(page: str, results: Path = RESULTS) -> str:
    """The page with all of its tables as they are in the files."""

    def between(marker: re.Match[str]) -> str:
        return f"<!-- table: {marker[1]} -->\n\n{table(results / f'{marker[1]}.csv')}\n\n<!-- end -->"

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", between, page, flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
