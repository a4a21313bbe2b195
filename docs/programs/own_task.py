"""A search with a task of my own: read a digit as a number."""

import lightning.pytorch as pl
import torch.nn.functional as F
from torchmetrics import MeanAbsoluteError, MetricCollection

from lightning_nas import DARTS, Adam, Digits, NASBench201, Task


class Number(Task):
    score, mode = "error", "min"

    def network_inputs(self, inputs):
        return {**inputs, "num_classes": 1}

    def loss(self, forward, batch, carry=None, metrics=None):
        images, labels = batch
        numbers = forward(images).squeeze(1)
        if metrics is not None:
            metrics.update(numbers, labels.float())
        return F.mse_loss(numbers / 10, labels / 10), carry

    def metrics(self, inputs, over_ranks=True):
        return MetricCollection({"error": MeanAbsoluteError(sync_on_compute=over_ranks)})


search = DARTS(NASBench201(), Number(), {"channels": 8, "cells": 1}, order="first", optimizer=Adam(0.01))
trainer = pl.Trainer(max_epochs=5)
trainer.fit(search, Digits())
print(search.space.describe(search.best()), trainer.callback_metrics)
