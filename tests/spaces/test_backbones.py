"""The page of backbones: its table is what the code makes, and its Python runs."""

import importlib.util
import re
from pathlib import Path

import pytest

from lightning_nas import Digits, ImageClassification, Retrain
from lightning_nas.spaces.published import PUBLISHED
from lightning_nas.testing.method import quiet_trainer

DOCS = Path(__file__).parents[2] / "docs"
SPEC = importlib.util.spec_from_file_location("make_backbones", DOCS / "make_backbones.py")
make_backbones = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(make_backbones)

PAGE = (DOCS / "backbones.md").read_text(encoding="utf-8")
HEADER, _, *ROWS = [line[2:-2].split(" | ") for line in PAGE.splitlines() if line.startswith("| ")]


def test_the_table_has_a_row_for_each():
    assert tuple(HEADER) == make_backbones.COLUMNS
    assert [row[0] for row in ROWS] == [f"`{name}`" for name in make_backbones.BACKBONES]
    assert len(ROWS) == 12


FAST = ("darts_v2", "enas_micro", "enas_macro", "nas_bench_201_best", "proxyless_mobile", "spos_channels")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in make_backbones.BACKBONES]
)
def test_a_row_is_what_the_networks_are(name):
    (row,) = (row for row in ROWS if row[0] == f"`{name}`")
    assert row == make_backbones.row(name), "run python docs/make_backbones.py"
    assert row[3] == f"{PUBLISHED[name].n_params:,}"


def test_the_pages_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    retrain = Retrain("nas_bench_201_best", ImageClassification(), {"channels": 2, "cells": 1}, drop_path=0.0)
    trainer = quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(retrain, Digits(batch_size=64))
    trainer.save_checkpoint("runs/retrain-1/checkpoints/last.ckpt")
    lines = "".join(re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)).splitlines()
    # what is said of a shape behind a call becomes an assertion
    said = [re.fullmatch(r"(network[.\w]*\(.*\)|segmentation.*)  # [^({]*(\(2, [^()]*\))", line) for line in lines]
    assert sum(map(bool, said)) == 6
    lines = [f"assert {m[1]}.shape == {m[2]}" if m else line for m, line in zip(said, lines, strict=True)]
    variables = {}
    exec("\n".join(lines), variables)
    maps = variables["pyramid"](variables["images"])
    assert {name: tuple(value.shape) for name, value in maps.items()} == {
        "0": (2, 32, 40, 64),
        "1": (2, 32, 20, 32),
        "2": (2, 32, 10, 16),
    }
    assert variables["trained"].inputs["num_classes"] == 21
