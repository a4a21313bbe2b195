"""What a retraining promises of a user's own loaders and ordinary data modules."""

import pytest
import torch

from lightning_nas.callbacks import Interruption
from lightning_nas.tasks import ImageClassification
from lightning_nas.testing import OwnDataContract
from lightning_nas.testing.method import Stop, assert_same, final_state
from lightning_nas.testing.own_data import as_loaders
from lightning_nas.training import Retrain
from tests.helpers.methods import CASES, digits, trainer

CASE = CASES["darts-first"]


def retrain(**given):
    return Retrain("darts_v2", ImageClassification(), {"channels": 2, "cells": 2}, **given)


def handed(noise=0.0, separate=True, num_workers=0):
    return OwnDataContract().handed(CASE, noise, separate, num_workers)


def test_interrupted_and_handed_over_otherwise_is_uninterrupted(tmp_path):
    stopped = trainer(max_epochs=2, callbacks=[Stop(1, 2), Interruption(tmp_path)])
    with pytest.raises(SystemExit):
        stopped.fit(retrain(), **as_loaders(handed(0.1, num_workers=2)))
    ends = []
    for path in (tmp_path / "last.ckpt", None):
        module, run = retrain(), trainer(max_epochs=2)
        run.fit(module, datamodule=handed(0.1), ckpt_path=path)
        assert "val/accuracy" in run.callback_metrics
        ends.append(final_state(module, run))
    assert_same(*ends)


@pytest.mark.parametrize("train_on", ["all", "weights"])
def test_equal_batches_give_an_equal_training(train_on, monkeypatch):
    monkeypatch.setattr("lightning_nas.data.Digits.transform", lambda self, augment: None)
    theirs, ends, figures = handed(separate=False), [], []
    for arguments in ({"datamodule": digits()}, as_loaders(theirs)):
        module, run = retrain(train_on=train_on), trainer(max_epochs=1)
        run.fit(module, **arguments)
        ends.append(final_state(module, run))
        loader = handed().val_dataloader()
        figures += [run.validate(module, loader, verbose=False), run.test(module, loader, verbose=False)]
    assert_same(*ends)
    assert figures[0] == figures[2]
    assert figures[1] == figures[3]
    accuracy = figures[0][0]["val/accuracy"]
    assert torch.isclose(torch.tensor(accuracy), torch.tensor(figures[1][0]["test/accuracy"]))
