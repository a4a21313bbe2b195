"""Searches of many trials through the trainer: what they find, what they leave, and going on after an interruption."""

import csv
import json
import math
import signal
from random import Random

import lightning.pytorch as pl
import pytest
import torch

from lightning_nas import Retrain
from lightning_nas.callbacks import Interruption
from lightning_nas.data import Digits, NoData
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import FromScratch, TabularBenchmark
from lightning_nas.executors import Processes
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces import NASBench201
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.strategies import NSGA2, AgingEvolution, RandomSearch
from lightning_nas.tasks import ImageClassification
from lightning_nas.trials import TrialSearch
from tests.helpers.optimizers import sgd

SPACE = NASBench201(operations=["skip_connect", "nor_conv_1x1", "nor_conv_3x3"])  # 729 cells


@pytest.fixture
def table(tmp_path):
    """A file with a line for each cell; the score is a sum over edges, so that the best cell is all nor_conv_3x3."""
    path, rng = tmp_path / "table.csv", Random(0)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(choice.name for choice in SPACE.choices), "accuracy", "seconds", "test"])
        for architecture in SPACE:
            names = SPACE.to_names(architecture)
            writer.writerow([*names.values(), sum(architecture), rng.uniform(5, 15), sum(architecture) + 0.5])
    return TabularBenchmark(str(path), "accuracy", ["test"], cost="seconds")


def search(evaluator, **settings):
    return TrialSearch(SPACE, **({"strategy": AgingEvolution(10, 5), "evaluator": evaluator} | settings))


def trainer(folder, callbacks=(), **settings):
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    checkpoints = pl.callbacks.ModelCheckpoint(folder / "checkpoints", filename="last")
    callbacks = [checkpoints, Interruption(folder / "checkpoints"), *callbacks]
    return pl.Trainer(max_epochs=1, default_root_dir=folder, callbacks=callbacks, **quiet, **settings)


def lines(folder):
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]


class Stop(pl.Callback):
    """Sends SIGTERM in a round."""

    def __init__(self, number):
        self.number = number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.number:
            signal.raise_signal(signal.SIGTERM)


def test_a_search_finds_the_best_and_leaves_every_trial_on_file(table, tmp_path):
    method, run = search(table, n_trials=150), trainer(tmp_path / "run")
    run.fit(method, NoData())
    assert SPACE.to_names(method.best()) == dict.fromkeys((c.name for c in SPACE.choices), "nor_conv_3x3")
    _, *trials = lines(tmp_path / "run")
    assert [trial["number"] for trial in trials] == list(range(150))
    assert all(trial["metrics"]["accuracy"] == sum(SPACE.from_names(trial["choices"])) for trial in trials)
    assert all(trial["metrics"]["test"] == trial["metrics"]["accuracy"] + 0.5 for trial in trials)

    outcome = method.conclude(None, RunFolder(tmp_path / "run"), 0)
    found = load_architecture(tmp_path / "run" / "architecture.json")
    assert (found.architecture, found.method) == (method.best(), "AgingEvolution")
    assert found.metrics == {"trial_score": 12, "trial_accuracy": 12, "trial_test": 12.5}
    assert "150" in outcome.describe()
    for name in ("architecture.svg", "trials.svg"):
        assert (tmp_path / "run" / name).stat().st_size > 0


def test_rounds_that_are_short_since_the_strategy_waits_do_not_end_the_search(table, tmp_path):
    method = search(table, strategy=NSGA2(population=4), n_trials=30, round_size=10)
    trainer(tmp_path / "run").fit(method, NoData())
    assert len(lines(tmp_path / "run")) == 1 + 30


def test_a_budget_ends_the_search(table, tmp_path):
    method = search(table, n_trials=None, budget=200.0, strategy=RandomSearch())
    trainer(tmp_path / "run").fit(method, NoData())
    costs = [trial["cost"] for trial in lines(tmp_path / "run")[1:]]
    assert sum(costs) >= 200 > sum(costs[:-1])


@pytest.mark.parametrize("number", [0, 7, 59])
def test_interrupted_and_resumed_is_uninterrupted(number, table, tmp_path):
    trainer(tmp_path / "whole").fit(search(table, n_trials=60), NoData())
    with pytest.raises(SystemExit) as exit_:
        trainer(tmp_path / "part", [Stop(number)]).fit(search(table, n_trials=60), NoData())
    assert exit_.value.code == 143
    checkpoint = tmp_path / "part" / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["hyper_parameters"]["n_trials"] == 60
    assert len(lines(tmp_path / "part")) < 1 + 60 or number == 59
    resumed = TrialSearch.load_from_checkpoint(checkpoint)
    trainer(tmp_path / "rest").fit(resumed, NoData(), ckpt_path=checkpoint)
    assert lines(tmp_path / "rest") == lines(tmp_path / "whole")


def test_a_killed_search_goes_on_from_its_first_checkpoint(table, tmp_path):
    """What a kill leaves: the checkpoint of the start, and all trials but the one that ran."""
    trainer(tmp_path / "run").fit(search(table, n_trials=30), NoData())
    checkpoint, log = tmp_path / "run" / "checkpoints" / "last.ckpt", tmp_path / "run" / "trials.jsonl"
    whole = log.read_text().splitlines(keepends=True)
    log.write_text("".join(whole[:20]) + whole[20][:30])
    trainer(tmp_path / "rest").fit(search(table, n_trials=30), NoData(), ckpt_path=checkpoint)
    assert (tmp_path / "rest" / "trials.jsonl").read_text().splitlines(keepends=True) == whole


def test_more_trials_are_added_to_a_finished_search(table, tmp_path):
    trainer(tmp_path / "run").fit(search(table, n_trials=20), NoData())
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    trainer(tmp_path / "more").fit(search(table, n_trials=30), NoData(), ckpt_path=checkpoint)
    assert lines(tmp_path / "more")[:21] == lines(tmp_path / "run")
    assert len(lines(tmp_path / "more")) == 1 + 30


def test_a_checkpoint_without_trials_is_refused(table, tmp_path):
    trainer(tmp_path / "run").fit(search(table, n_trials=2), NoData())
    (tmp_path / "run" / "trials.jsonl").unlink()
    with pytest.raises(SettingError, match=r"ckpt_path.*trials\.jsonl"):
        trainer(tmp_path / "rest").fit(
            search(table), NoData(), ckpt_path=tmp_path / "run" / "checkpoints" / "last.ckpt"
        )


def test_fast_dev_run_leaves_nothing(table, tmp_path):
    method = search(table)
    pl.Trainer(fast_dev_run=True, accelerator="cpu", default_root_dir=tmp_path / "run").fit(method, NoData())
    assert len(method.trials.history) == 1
    assert not list(tmp_path.rglob("trials.jsonl"))


def test_two_devices_are_refused(table):
    method = search(table)
    method.trainer = pl.Trainer(accelerator="cpu", devices=2, strategy="ddp", logger=False)
    with pytest.raises(SettingError, match=r"n_workers"):
        method.setup("fit")


def from_scratch():
    retrain = {"optimizer": sgd(Retrain, lr=0.1), "drop_path": 0.0}
    return FromScratch(ImageClassification(), {"channels": 2, "cells": 1}, epochs=1, retrain=retrain)


def test_networks_are_trained_inside_the_trainers_steps_and_workers_change_nothing(tmp_path):
    trainer(tmp_path / "one").fit(search(from_scratch(), n_trials=4, round_size=2), Digits())
    two = search(from_scratch(), n_trials=4, round_size=2, executor=Processes(2))
    trainer(tmp_path / "two").fit(two, Digits())

    def figures(folder):
        trials = sorted(lines(folder)[1:], key=lambda trial: trial["number"])
        return [(trial["choices"], trial["metrics"]) for trial in trials]

    assert figures(tmp_path / "one") == figures(tmp_path / "two")
    assert len({metrics["val/accuracy"] for _, metrics in figures(tmp_path / "one")}) > 1
    assert not two.trials.executor._workers  # all gone


def test_data_are_asked_for_where_they_are_needed(tmp_path):
    with pytest.raises(SettingError, match="data"):
        trainer(tmp_path).fit(search(from_scratch(), n_trials=1), NoData())


def test_a_search_of_failures_says_why(tmp_path, table):
    method = search(table, n_trials=3, max_failures=5)
    table.path = tmp_path / "empty.csv"
    table.path.write_text(",".join([*(c.name for c in SPACE.choices), "accuracy", "seconds", "test"]) + "\n")
    with pytest.raises(SettingError, match="none of 3 trials succeeded"):
        trainer(tmp_path / "run").fit(method, NoData())
    assert math.isinf(method.trials.history[0].score)
    with pytest.raises(SettingError, match="none of 3 trials succeeded"):
        method.conclude(None, RunFolder(tmp_path / "out"), 0)
    assert not (tmp_path / "out").exists()
