"""A search for masks, one label for each pixel, with a task and DataLoaders of my own."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassJaccardIndex

from lightning_nas import DARTS, Adam, NASBench201, Task


class Masks(Task):
    score, mode, modality = "iou", "max", "images"

    def network_inputs(self, inputs):
        return {**inputs, "dense": 1}  # logits for every pixel

    def loss(self, forward, batch, carry=None, metrics=None):
        logits = forward(batch[0])
        if metrics is not None:
            metrics.update(logits.detach(), batch[1])
        return F.cross_entropy(logits, batch[1]), carry

    def metrics(self, inputs, over_ranks=True):
        return MetricCollection({"iou": MulticlassJaccardIndex(inputs["num_classes"], sync_on_compute=over_ranks)})


torch.manual_seed(0)
masks = torch.zeros(640, 16, 16, dtype=torch.long)
for mask, (row, column) in zip(masks, torch.randint(0, 11, (640, 2)), strict=True):
    mask[row : row + 6, column : column + 6] = 1
loader = DataLoader(TensorDataset(0.5 * torch.rand(640, 1, 16, 16) + 0.5 * masks[:, None], masks), batch_size=32)
inputs = {"channels": 1, "image_size": 16, "num_classes": 2}
search = DARTS(NASBench201(), Masks(), {"channels": 8, "cells": 1}, inputs, order="first", optimizer=Adam(0.01))
(trainer := pl.Trainer(max_epochs=5)).fit(search, loader)
print(search.space.describe(search.best()), trainer.callback_metrics["val/supernet_iou"])
