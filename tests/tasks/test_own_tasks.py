"""Tasks as strangers write them: a loss, metrics and which of them decides."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanSquaredError, MetricCollection
from torchmetrics.classification import MultilabelAccuracy

from lightning_nas import DARTS, ENAS, Adam, NASBench201, Task
from lightning_nas.testing.method import quiet_trainer

N = 256


class Quadrants(Task):
    score, mode = "accuracy", "max"

    def loss(self, forward, batch, carry=None, metrics=None):
        images, labels = batch
        logits = forward(images)
        if metrics is not None:
            metrics.update(logits.detach().sigmoid(), labels)
        return F.binary_cross_entropy_with_logits(logits, labels.float()), carry

    def metrics(self, inputs, over_ranks=True):
        accuracy = MultilabelAccuracy(inputs["num_classes"], sync_on_compute=over_ranks)
        return MetricCollection({"accuracy": accuracy})


class Brightness(Task):
    score, mode = "error", "min"

    def loss(self, forward, batch, carry=None, metrics=None):
        images, brightness = batch
        values = forward(images)
        if metrics is not None:
            metrics.update(values.detach(), brightness)
        return F.mse_loss(values, brightness), carry

    def metrics(self, inputs, over_ranks=True):
        return MetricCollection({"error": MeanSquaredError(num_outputs=1, sync_on_compute=over_ranks)})


def quadrants():
    """Images ``(N, 1, 8, 8)`` and which of their quadrants are bright ``(N, 4)``, each every second time."""
    generator = torch.Generator().manual_seed(0)
    bright = torch.rand(N, 4, generator=generator) < 0.5
    images = torch.rand(N, 1, 8, 8, generator=generator)
    images += bright.float().view(N, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3)
    return images, bright.long()


def loader(images, targets):
    return DataLoader(TensorDataset(images, targets), batch_size=16, shuffle=True)


INPUTS = {"channels": 1, "image_size": 8, "num_classes": 4}
NETWORK = {"channels": 8, "cells": 1}
SPACE = NASBench201(["none", "skip_connect", "nor_conv_3x3"])


def test_several_labels():
    images, bright = quadrants()
    search = DARTS(SPACE, Quadrants(), NETWORK, INPUTS, order="first", optimizer=Adam(0.02))
    trainer = quiet_trainer(max_epochs=6)
    trainer.fit(search, loader(images, bright), loader(images, bright))
    assert trainer.callback_metrics["val/supernet_accuracy"] > 0.75  # of chance: .5


def test_a_number_and_a_controller_that_is_paid_minus_the_loss():
    images, bright = quadrants()
    share = bright.float().mean(1, keepdim=True)
    inputs = INPUTS | {"num_classes": 1}
    search = ENAS(SPACE, Brightness(), NETWORK, inputs, controller_steps=4, samples_per_step=4, optimizer=Adam(0.02))
    trainer = quiet_trainer(max_epochs=8)
    trainer.fit(search, loader(images, share), loader(images, share))
    of_the_mean = share.var().item()
    assert trainer.callback_metrics["val/supernet_error"] < 0.6 * of_the_mean
    assert -of_the_mean < trainer.callback_metrics["controller/reward"] < 0


def test_what_is_lacking_is_named():
    class Nothing(Task):
        score, mode = "accuracy", "max"

    with pytest.raises(TypeError, match=r"abstract methods '?loss'?, '?metrics"):
        Nothing()
