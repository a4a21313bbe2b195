"""A published network as the backbone of a regression: where is the square?"""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas import load_architecture


def squares(n):
    corners, images = torch.randint(0, 24, (n, 2)), 0.3 * torch.rand(n, 3, 32, 32)
    for image, (row, column) in zip(images, corners, strict=True):
        image[:, row : row + 8, column : column + 8] += 0.7
    return TensorDataset(images, corners / 24)


class WhereIsIt(pl.LightningModule):
    def __init__(self):
        super().__init__()
        found = load_architecture("darts_v2")
        inputs = {"channels": 3, "image_size": 32, "num_classes": 2}
        space = found.space.restrict(found.architecture)
        self.network = space.network(inputs, form="final", channels=8, cells=3)

    def training_step(self, batch, batch_idx):
        images, corners = batch
        return F.mse_loss(self.network(images), corners)

    def test_step(self, batch, batch_idx):
        images, corners = batch
        self.log("error", (self.network(images) - corners).abs().mean())

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)
