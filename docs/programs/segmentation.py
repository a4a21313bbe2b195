"""A search for masks, a class for each pixel, with DataLoaders of my own."""

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas import DARTS, Adam, NASBench201, Segmentation

torch.manual_seed(0)
masks = torch.zeros(640, 16, 16, dtype=torch.long)
for mask, (row, column) in zip(masks, torch.randint(0, 11, (640, 2)), strict=True):
    mask[row : row + 6, column : column + 6] = 1
loader = DataLoader(TensorDataset(0.5 * torch.rand(640, 1, 16, 16) + 0.5 * masks[:, None], masks), batch_size=32)
inputs = {"channels": 1, "image_size": 16, "num_classes": 2}
network = {"channels": 8, "cells": 1}
search = DARTS(NASBench201(), Segmentation(), network, inputs, order="first", optimizer=Adam(0.01))
trainer = pl.Trainer(max_epochs=5)
trainer.fit(search, loader)
print(search.space.describe(search.best()), trainer.callback_metrics["val/supernet_iou"])
