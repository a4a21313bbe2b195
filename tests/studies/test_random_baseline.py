"""The study against random: its arithmetic, and that an interrupted one continues where it stopped."""

import csv

import pytest
import yaml
from scipy.stats import ttest_rel

from lightning_nas.cli.main import main
from lightning_nas.errors import SettingError
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.studies import random_baseline as study
from lightning_nas.studies.random_baseline import RANDOM, SHARED, Comparison, compare_with_random

DIGITS = {"channels": 1, "image_size": 8, "num_classes": 10}
SEARCH = {
    "model": {
        "class_path": "DARTS",
        "init_args": {
            "order": "first",
            "space": {"class_path": "DARTSCell", "init_args": {"nodes": 2}},
            "task": "ImageClassification",
            "network": {"channels": 2, "cells": 2},
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 256}},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
    "architecture_logger": {"n_random": 1},
}
RETRAIN = {
    "model": {
        "class_path": "Retrain",
        "init_args": {
            "architecture": "darts_v2",
            "task": "ImageClassification",
            "network": {"channels": 2, "cells": 2},
        },
    },
    "data": {"class_path": "Digits", "init_args": {"batch_size": 256}},
    "trainer": {"max_epochs": 1, "accelerator": "cpu"},
}


@pytest.fixture
def configs(tmp_path):
    other = SEARCH | {"trainer": {"max_epochs": 2, "accelerator": "cpu"}}
    paths = tmp_path / "search.yaml", tmp_path / "other.yaml", tmp_path / "retrain.yaml"
    for path, content in zip(paths, (SEARCH, other, RETRAIN), strict=True):
        path.write_text(yaml.safe_dump(content))
    return [str(path) for path in paths]


def test_table_is_the_arithmetic_of_the_pairs(tmp_path):
    found, drawn = [0.9, 0.8, 0.7], [0.85, 0.8, 0.5]
    text = Comparison({"darts": found, "random": drawn}, tmp_path).describe()
    assert "0.8000 ± 0.1000" in text
    assert "0.7167 ± 0.1893" in text
    assert "0.0833 ± 0.1041" in text
    assert f"p = {ttest_rel(found, drawn).pvalue:.3f}" in text


@pytest.mark.slow
def test_interrupted_study_goes_on_and_gives_the_same(configs, tmp_path, monkeypatch):
    search, other, retraining = configs
    whole = compare_with_random(search, [other], retraining, 1, tmp_path / "whole", main)
    assert list(whole.scores) == ["search", SHARED, "other", RANDOM]
    rows = list(csv.DictReader((tmp_path / "whole" / "study.csv").open()))
    place = tmp_path / "whole" / "seed-0"
    files = {origin: load_architecture(place / f"{origin}.json") for origin in whole.scores}
    assert files["search"].method == "DARTS"
    assert files["search"].seed == files["other"].seed == 0
    assert files[SHARED].architecture == load_architecture(place / "darts-1" / "random.json").architecture
    assert [row["origin"] for row in rows] == list(files)
    for row in rows:
        found = files[row["origin"]]
        child = found.space.restrict(found.architecture).network(DIGITS, form="final", channels=2, cells=2)
        assert float(row["n_params"]) == sum(parameter.numel() for parameter in child.parameters())

    folder, retrain, calls = tmp_path / "stopped", study._Runs.retrain, []

    def stop_in_the_third(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return retrain(self, *arguments)

    monkeypatch.setattr(study._Runs, "retrain", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        compare_with_random(search, [other], retraining, 1, folder, main)
    with open(folder / "study.csv") as file:
        assert [(row["seed"], row["origin"]) for row in csv.DictReader(file)] == [("0", "search"), ("0", SHARED)]

    resumed = compare_with_random(search, [other], retraining, 1, folder, main)
    assert len(calls) == 5  # two of four rows were there, the third was begun again
    assert resumed.scores == whole.scores


def test_two_searches_of_one_name_are_refused(configs, tmp_path):
    search, _, retraining = configs
    with pytest.raises(SettingError, match="--others"):
        compare_with_random(search, [search], retraining, 2, tmp_path / "study", main)
    assert not (tmp_path / "study").exists()
