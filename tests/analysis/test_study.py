"""The study against random: its arithmetic, and that an interrupted one goes on where it stopped."""

import csv

import pytest
import yaml
from scipy.stats import ttest_rel

from lightning_nas.analysis import study
from lightning_nas.analysis.study import Comparison, compare_with_random

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
    "architecture_logger": {"n_random": 0},
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
    paths = tmp_path / "search.yaml", tmp_path / "retrain.yaml"
    for path, content in zip(paths, (SEARCH, RETRAIN), strict=True):
        path.write_text(yaml.safe_dump(content))
    return [str(path) for path in paths]


def test_table_is_the_arithmetic_of_the_pairs(tmp_path):
    found, drawn = [0.9, 0.8, 0.7], [0.85, 0.8, 0.5]
    text = Comparison(found, drawn, tmp_path).describe()
    assert "0.8000 ± 0.1000" in text
    assert "0.7167 ± 0.1893" in text
    assert "0.0833 ± 0.1041" in text
    assert f"p = {ttest_rel(found, drawn).pvalue:.3f}" in text


def test_interrupted_study_goes_on_and_gives_the_same(configs, tmp_path, monkeypatch):
    whole = compare_with_random(*configs, 2, tmp_path / "whole")

    folder, retrain, calls = tmp_path / "stopped", study._Runs.retrain, []

    def stop_in_the_third(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return retrain(self, *arguments)

    monkeypatch.setattr(study._Runs, "retrain", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        compare_with_random(*configs, 2, folder)
    with open(folder / "study.csv") as file:
        assert [(row["seed"], row["architecture"]) for row in csv.DictReader(file)] == [
            ("0", "search"),
            ("0", "random"),
        ]

    resumed = compare_with_random(*configs, 2, folder)
    assert len(calls) == 5  # two rows were there, the third was begun again
    assert (resumed.found, resumed.drawn) == (whole.found, whole.drawn)
