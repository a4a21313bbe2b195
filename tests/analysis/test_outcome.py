"""What a search leaves behind."""

import csv

import pytest
import torch

from lightning_nas.analysis.outcome import conclude
from lightning_nas.architecture import load_architecture
from lightning_nas.data import Digits
from lightning_nas.evaluators import SharedWeights
from lightning_nas.methods import DARTS
from lightning_nas.spaces import DARTSCell
from lightning_nas.tasks import ImageClassification


@pytest.fixture(scope="module")
def search():
    data = Digits(batch_size=256)
    space = DARTSCell(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3"))
    return DARTS(space, ImageClassification(), {"channels": 2, "cells": 2}, data.inputs, seed=3), data


def test_outcome_is_what_the_files_say(search, tmp_path):
    method, data = search
    before = {name: value.clone() for name, value in method.state_dict().items()}
    outcome = conclude(method, data, tmp_path / "new", n_random=3)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())

    found = load_architecture(tmp_path / "new" / "architecture.json")
    assert found.architecture == method.best()
    assert (found.method, found.seed) == ("DARTS", 3)
    child = method.space.restrict(method.best()).network(data.inputs, channels=2, cells=2, form="final")
    assert found.metrics["n_params_at_search_size"] == sum(p.numel() for p in child.parameters())
    score = SharedWeights.of(method, data)(method.best())
    assert found.metrics["validation_accuracy_shared_weights"] == outcome.score == score

    with open(tmp_path / "new" / "random.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["origin"] for row in rows] == ["found", "random", "random", "random"]
    for row, expected in zip(rows, [score, *outcome.random_scores], strict=True):
        architecture = method.space.from_names({choice.name: row[choice.name] for choice in method.space.choices})
        assert float(row["validation_accuracy_shared_weights"]) == expected
        assert SharedWeights.of(method, data)(architecture) == expected

    text = outcome.describe()
    assert f"{outcome.costs.n_params:,} parameters" in text
    assert "shared weights" in text


def test_without_random_architectures_nothing_is_scored(search, tmp_path):
    method, data = search
    outcome = conclude(method, data, tmp_path, n_random=0)
    assert "validation_accuracy_shared_weights" not in load_architecture(tmp_path / "architecture.json").metrics
    assert "shared weights" not in outcome.describe()
    assert not (tmp_path / "random.csv").exists()
