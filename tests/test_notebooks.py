"""Every notebook runs from its first cell to its last, with one epoch."""

import json
from pathlib import Path

import pytest

LEAVES = {"2_own_network": "net.pt", "darts_on_digits": "architecture.json", "own_project": "trials.jsonl"}
NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[pytest.mark.slow] * (p.stem == "own_project")) for p in NOTEBOOKS],  # the programs are fast
    ids=[p.stem for p in NOTEBOOKS],
)
def test_notebook_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for cell in json.loads(path.read_text())["cells"]:
        if cell["cell_type"] == "code":
            source = "".join(cell["source"])
            exec("EPOCHS = 1" if source.startswith("EPOCHS") else source, names)
    assert (tmp_path / LEAVES[path.stem]).exists()
