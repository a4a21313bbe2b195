"""What a search leaves behind."""

import csv
import dataclasses
import math

import pytest
import torch

from lightning_nas.data import Digits
from lightning_nas.methods import DARTS, RandomSearchWS
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces import DARTSCell
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.supernets import Scorer
from lightning_nas.tasks import ImageClassification


@pytest.fixture(scope="module")
def search():
    data = Digits(batch_size=256)
    space = DARTSCell(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3"))
    return DARTS(space, ImageClassification(), {"channels": 2, "cells": 2}, data.inputs, seed=3), data


def test_outcome_is_what_the_files_say(search, tmp_path):
    method, data = search
    before = {name: value.clone() for name, value in method.state_dict().items()}
    outcome = method.conclude(data, RunFolder(tmp_path / "new"), n_random=3)
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())

    found = load_architecture(tmp_path / "new" / "architecture.json")
    assert found.architecture == method.best()
    assert (found.method, found.seed) == ("DARTS", 3)
    child = method.space.restrict(method.best()).network(data.inputs, channels=2, cells=2, form="final")
    assert found.metrics["n_params_at_search_size"] == sum(p.numel() for p in child.parameters())
    score = Scorer.of(method, data)(method.best())
    assert found.metrics["validation_accuracy_shared_weights"] == outcome.score == score

    with open(tmp_path / "new" / "random.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["origin"] for row in rows] == ["found", "random", "random", "random"]
    for row, expected in zip(rows, [score, *outcome.random_scores], strict=True):
        architecture = method.space.from_names({choice.name: row[choice.name] for choice in method.space.choices})
        assert float(row["validation_accuracy_shared_weights"]) == expected
        assert Scorer.of(method, data)(architecture) == expected

    text = outcome.describe()
    assert f"{outcome.costs.n_params:,} parameters" in text
    assert "shared weights" in text


def test_without_random_architectures_nothing_is_scored(search, tmp_path):
    method, data = search
    outcome = method.conclude(data, RunFolder(tmp_path), n_random=0)
    assert "validation_accuracy_shared_weights" not in load_architecture(tmp_path / "architecture.json").metrics
    assert "shared weights" not in outcome.describe()
    assert not (tmp_path / "random.csv").exists()


@pytest.fixture(scope="module")
def ranking():
    data = Digits(batch_size=128)
    space = DARTSCell(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3"), sparse=True)
    few = {"n_candidates": 4, "n_batches": 2, "n_finalists": 2}
    return RandomSearchWS(space, ImageClassification(), {"channels": 2, "cells": 2}, data.inputs, seed=3, **few), data


def architectures(path, space):
    """The rows of a table and the architecture in each of them."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return rows, [space.from_names({choice.name: row[choice.name] for choice in space.choices}) for row in rows]


def test_candidates_are_the_rows_of_a_file(ranking, tmp_path):
    method, data = ranking
    chosen, candidates = method.choose(data)
    outcome = method.conclude(data, RunFolder(tmp_path), n_random=2)
    rows, found = architectures(tmp_path / "candidates.csv", method.space)
    assert list(rows[0])[:2] == ["origin", "validation_accuracy_shared_weights_some_batches"]
    assert {row["origin"] for row in rows} == {"candidate"}
    scores = [float(row["validation_accuracy_shared_weights_some_batches"]) for row in rows]
    assert list(zip(found, scores, strict=True)) == list(candidates.items())
    assert outcome.found.architecture == chosen == load_architecture(tmp_path / "architecture.json").architecture
    assert outcome.score == Scorer.of(method, data)(chosen)  # of the whole part
    assert not (tmp_path / "weights.svg").exists()


@pytest.mark.parametrize("kind", ["search", "ranking"])
def test_the_best_of_the_random_ones_is_found_as_the_method_finds(kind, request, tmp_path):
    method, data = request.getfixturevalue(kind)
    outcome = method.conclude(data, RunFolder(tmp_path), n_random=6)
    _, (_, *drawn) = architectures(tmp_path / "random.csv", method.space)
    scores = dict(zip(drawn, outcome.random_scores, strict=True))
    if kind == "search":
        expected = max(scores, key=scores.get)
    else:  # of as many as the method compares
        expected, _ = method.choose(data, candidates=drawn[: method.n_candidates])
    best = load_architecture(tmp_path / "random.json")
    assert (best.architecture, best.method, best.seed) == (expected, "random", 3)
    assert best.metrics == {"validation_accuracy_shared_weights": scores[expected]}


def test_a_method_that_looked_at_no_candidates_leaves_no_table(search, tmp_path):
    method, data = search
    method.conclude(data, RunFolder(tmp_path), n_random=0)
    assert not (tmp_path / "candidates.csv").exists()


@pytest.mark.parametrize(("mode", "worse"), [("max", 1), ("min", 3)])
def test_worse_is_counted_by_the_mode_of_the_task(search, tmp_path, monkeypatch, mode, worse):
    method, data = search
    monkeypatch.setattr(method.task, "mode", mode)
    outcome = method.conclude(data, RunFolder(tmp_path), n_random=0)
    text = dataclasses.replace(
        outcome, score=2.0, drawn=[((), score) for score in (1.0, 2.0, 3.0, 4.0, 5.0)]
    ).describe()
    expected = "accuracy 2.0000; 5 random architectures under the same weights 3.0000 ± 1.5811"
    assert f"{expected}, {worse} of 5 worse" in text


@pytest.mark.parametrize("missing", ["one", "found", "all"])
def test_scores_that_are_no_numbers_are_in_the_table_alone(search, tmp_path, monkeypatch, missing):
    method, data = search
    found, drawn = method.best(), []

    def score(evaluator, architecture):
        if architecture == found:
            return math.nan if missing != "one" else 0.5
        drawn.append(architecture)
        return math.nan if missing == "all" or len(drawn) == 1 else 0.25

    monkeypatch.setattr(Scorer, "__call__", score)
    outcome = method.conclude(data, RunFolder(tmp_path), n_random=4)
    rows, _ = architectures(tmp_path / "random.csv", method.space)
    assert [row["validation_accuracy_shared_weights"] for row in rows[1:]] == list(map(str, outcome.random_scores))
    name = "validation_accuracy_shared_weights"
    expected = {"one": {name: 0.5, f"{name}_random_mean": 0.25}, "found": {f"{name}_random_mean": 0.25}, "all": {}}
    metrics = load_architecture(tmp_path / "architecture.json").metrics
    assert {field: value for field, value in metrics.items() if name in field} == expected[missing]
    assert load_architecture(tmp_path / "random.json").metrics == ({} if missing == "all" else {name: 0.25})
    assert (tmp_path / "random.svg").exists() == (missing == "one")
    n = sum(map(math.isfinite, outcome.random_scores))
    assert f"{n} random architectures" in outcome.describe() if n else "random" not in outcome.describe()
