"""The page of exported networks: its table has every space and is what the code makes, and its Python runs."""

import importlib.util
import re
from pathlib import Path

import pytest

from lightning_nas import ImageClassification, Retrain, Space
from lightning_nas.spaces import PUBLISHED
from lightning_nas.testing.method import quiet_trainer

DOCS = Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("make_export", DOCS / "make_export.py")
make_export = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_export)

PAGE = (DOCS / "export.md").read_text(encoding="utf-8")
HEADER, _, *ROWS = [line[2:-2].split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]


def test_the_table_has_a_row_for_every_space_that_has_a_published_network():
    assert tuple(HEADER) == make_export.COLUMNS
    assert [row[0] for row in ROWS] == [f"`{name}`" for name in make_export.NETWORKS]
    published = {type(each.build()[0]) for each in PUBLISHED.values()}
    networks = {f"`{cls.__name__}`" for cls in published if cls.network is not Space.network}
    assert networks
    assert not networks - {row[1] for row in ROWS}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_files_compute_what_networks_do(row):
    assert int(row[4]) >= 18
    assert float(row[6]) < 1e-5
    assert float(row[8]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nas_bench_201_best", "spos_channels", "enas_ptb"])
def test_a_row_is_what_is_written(name):
    pytest.importorskip("onnxruntime", reason="needs the extra export")
    (row,) = (row for row in ROWS if row[0] == f"`{name}`")
    now = make_export.row(name)
    assert now[:5] == row[:5], "run python docs/make_export.py"
    assert [float(now[k]) for k in (5, 7)] == pytest.approx([float(row[k]) for k in (5, 7)], rel=0.05)
    assert all(float(now[k]) < 1e-5 for k in (6, 8))  # their last digits are those of the machine


@pytest.mark.slow
def test_the_pages_python_runs(tmp_path, monkeypatch):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    monkeypatch.chdir(tmp_path)
    inputs = {"channels": 3, "image_size": 32, "num_classes": 10}
    retrain = Retrain("nas_bench_201_best", ImageClassification(), {"channels": 2, "cells": 1}, inputs, drop_path=0.0)
    path = Path("runs/retrain-1/checkpoints/last.ckpt")
    path.parent.mkdir(parents=True)
    trainer = quiet_trainer(max_epochs=0)
    trainer.strategy.connect(retrain)
    trainer.save_checkpoint(path)
    files, python = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    variables = {}
    exec(python, variables)
    assert variables["exported"].relative < 1e-5
    make_export.export_network(variables["network"], "network.pt2")
    exec(files, variables)
    assert variables["logits"].shape == (5, 10)
    read = [each.name for each in onnxruntime.InferenceSession("own.onnx").get_inputs()]
    assert read == ["input"]
