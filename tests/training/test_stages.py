"""A fit in stages: what changes at a boundary, what stays, and that a checkpoint of any stage loads alone."""

import math

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, EMAWeightAveraging

from lightning_nas.errors import SettingError
from lightning_nas.methods import DARTS
from lightning_nas.tasks import ImageClassification
from lightning_nas.testing import MethodCase, MethodContract
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.optimizers import SGD
from lightning_nas.training.stages import Stage, Staged
from tests.helpers.methods import NETWORKS, digits, space, trainer


class Deeper(Staged, DARTS):
    """A search in networks of one, two and three cells, whose alphas go on."""

    def __init__(self, space, task, network=None, inputs=None, seed=0, epochs=(1, 1, 1)):
        optimizer = SGD(0.025, momentum=0.9, schedule=Cosine())
        super().__init__(space, task, network, inputs, seed, order="first", optimizer=optimizer)
        self.in_stages([Stage(n, {"cells": number}) for number, n in enumerate(epochs, start=1)])


def deeper(**given):
    return Deeper(space(), ImageClassification(), {"channels": 2}, **given)


class TestStaged(MethodContract):
    cases = {"deeper": MethodCase(deeper, digits, thorough=True)}  # noqa: RUF012


class Watch(pl.Callback):
    """What there is in every step, before it is taken."""

    def __init__(self):
        self.rates, self.momenta, self.cells, self.weights = [], [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        (optimizer, _), network = trainer.optimizers, pl_module.network
        assert [id(p) for p in network.parameters()] == [id(p) for p in optimizer.param_groups[0]["params"]]
        self.cells.append(len(network.cells))
        self.rates.append(optimizer.param_groups[0]["lr"])
        self.momenta.append(len(optimizer.state))
        self.weights.append(network.stem[0].weight.detach().clone())


def test_every_stage_begins_with_new_weights_optimisers_and_rates():
    watch = Watch()
    method, run = deeper(epochs=(1, 2, 1)), trainer(max_epochs=4, callbacks=[watch])
    run.fit(method, digits())
    assert watch.cells == [1] * 5 + [2] * 10 + [3] * 5
    assert run.global_step == 20
    half = 0.025 * (1 + math.cos(math.pi / 2)) / 2
    assert watch.rates == pytest.approx([0.025] * 10 + [half] * 5 + [0.025] * 5)
    assert [n == 0 for n in watch.momenta] == [k in (0, 5, 15) for k in range(20)]
    begun = [watch.weights[k] for k in (0, 5, 15)]
    assert not any(torch.equal(a, b) for a, b in zip(begun, [*begun[1:], begun[0]], strict=True))
    again = deeper(epochs=(1, 2, 1), inputs=digits().inputs)
    again.enter(2, again.space)
    assert torch.equal(again.network.stem[0].weight, begun[2])  # a function of the seed and the stage


def test_the_stage_is_a_figure():
    stages = []

    class Follow(pl.Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            stages.append(pl_module.stage + 1)
            assert set(pl_module.figures) >= {"train/stage"}

    run = trainer(max_epochs=3, callbacks=[Follow()])
    run.fit(deeper(), digits())
    assert stages == [1, 2, 3]
    assert float(run.callback_metrics["train/stage"]) == 3


@pytest.mark.parametrize("max_epochs", [2, 4, None])
def test_the_trainer_has_the_epochs_of_the_stages(max_epochs):
    with pytest.raises(SettingError, match=r"trainer\.max_epochs: 3, which is 1 \+ 1 \+ 1 epochs of the stages, got"):
        trainer(max_epochs=max_epochs).fit(deeper(), digits())
    run = trainer(fast_dev_run=True)
    run.fit(deeper(), digits())
    assert run.global_step == 1


@pytest.mark.parametrize("callback", [EMAWeightAveraging(), EarlyStopping("train/loss")])
def test_callbacks_that_know_one_network_are_refused(callback):
    with pytest.raises(SettingError, match=type(callback).__name__):
        trainer(max_epochs=3, callbacks=[callback]).fit(deeper(), digits())


def test_what_a_stage_has_of_its_own_is_checked():
    with pytest.raises(SettingError, match="epochs: at least 1 in every stage, got 0"):
        deeper(epochs=(1, 0))
    method = deeper()
    with pytest.raises(SettingError, match=r"stages\.depth: no such setting"):
        method.in_stages([Stage(1, {"depth": 3})])
    assert method.network_settings == {**NETWORKS[type(method.space)], "cells": 1}


def test_half_precision_goes_on_in_the_next_stage():
    run = trainer(max_epochs=2, precision="bf16-mixed", limit_train_batches=1, limit_val_batches=1)
    method = deeper(epochs=(1, 1))
    run.fit(method, digits())
    weights = [p for p in method.network.parameters() if p.dim() == 4]
    assert len(method.network.cells) == 2
    assert all(p.dtype == torch.float32 and p.is_contiguous(memory_format=torch.channels_last) for p in weights)
