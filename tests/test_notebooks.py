"""Every notebook runs from its first cell to its last, in a process of its own, and is kept without what it put out."""

import json
import os
import resource

import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers.notebooks import NOTEBOOKS, ROOT, stripped

CHECKS = {
    "1_first_search": """
        middle = sorted(accuracy[a] for a in drawn[:4])[2]
        assert middle > 0.5 and accuracy[found] > middle - 0.05  # chance: .1
        assert shared[found] < float(trainer.callback_metrics["val/supernet_accuracy"])  # as the text says
    """,
    "2_own_network": """
        assert accuracy > 0.5 and accuracy > of_worst - 0.05  # chance: .1
        assert not any(type(module).__module__.startswith("lightning_nas") for module in model.modules())
    """,
    "3_own_lightning_project": """
        assert len(search.scores) == search.space.size == 18 and search.best() == next(iter(search.scores))
        assert float(finetuned.callback_metrics["val_acc"]) > 0.8  # chance: .1
        assert not any(type(module).__module__.startswith("lightning_nas") for module in project.net.modules())
    """,
    "4_reading_a_search": """
        entropies = series("arch/entropy")[1]
        assert len(entropies) == n_epochs == 12 and entropies[-1] < entropies[0] < 1.61  # ln 5
        assert all(abs(sum(share[epoch] for share in shares.values()) - 1) < 1e-5 for epoch in range(n_epochs))
        assert max(shares["skip_connect"]) > 0.25  # as the text says
        assert history[0].architecture == search.best() == finished.best()
        assert min(trained) > 0.15 and best[-1] == max(trained)  # chance: .1
    """,
}
"""What holds at the end of each notebook, in its own names."""

LONGEST = 120.0
"""Seconds of one core that a notebook may take."""

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


@each
def test_notebook_is_stripped_and_linked(path):
    text = path.read_text(encoding="utf-8")
    assert text == stripped(text), "run python -m tests.helpers.notebooks"
    assert f"(notebooks/{path.name})" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@each
def test_notebook_runs(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    check = "\n".join(line.strip() for line in CHECKS[path.stem].splitlines())
    notebook.cells.append(nbformat.v4.new_code_cell(check))
    ours = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "IPYTHONDIR": str(tmp_path / "ipython")}
    folder = tmp_path / "empty"
    folder.mkdir()
    client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}})
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    client.execute(env=os.environ | ours)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < LONGEST


def test_what_a_run_leaves_in_a_notebook_is_stripped():
    (path, *_) = NOTEBOOKS
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    content["metadata"]["language_info"]["version"] = "3.11.9"
    for number, cell in enumerate(content["cells"]):
        cell["metadata"] = {"execution": {"shell.execute_reply": "2026"}, "tags": []}
        if cell["cell_type"] == "code":
            cell["outputs"] = [{"output_type": "stream", "name": "stdout", "text": ["1\n"]}]
            cell["execution_count"] = number
    run = json.dumps(content)
    assert run != text
    assert stripped(run) == text
