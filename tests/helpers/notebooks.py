"""Notebooks as they are kept: without outputs, and the same bytes whoever wrote them.

``python -m tests.helpers.notebooks`` brings all of ``notebooks/`` into that form.
"""

from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def stripped(text):
    """The text of a notebook with its cells alone: no outputs, no counts, nothing of the machine that it ran on.

    Raises:
        nbformat.ValidationError: where it is not a notebook of format 4.
    """
    notebook = nbformat.reads(text, as_version=4)
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat_minor = 5  # the first in which cells have names
    nbformat.validate(notebook)
    return nbformat.writes(notebook) + "\n"


if __name__ == "__main__":
    for path in NOTEBOOKS:
        path.write_text(stripped(path.read_text(encoding="utf-8")), encoding="utf-8")
