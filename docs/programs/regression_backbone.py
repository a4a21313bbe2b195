"""A published network as the backbone of a regression: how many dots are there?"""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_nas import load_architecture


def dots(n):
    share = torch.rand(n, 1, 1, 1)
    images = 0.5 * torch.rand(n, 3, 16, 16) + 0.5 * (torch.rand(n, 1, 16, 16) < share)
    return TensorDataset(images, share.flatten())


class HowMany(pl.LightningModule):
    def __init__(self):
        super().__init__()
        inputs = {"channels": 3, "image_size": 16, "num_classes": 0}  # no classifier
        self.backbone = load_architecture("nas_bench_201_best").network(inputs, channels=8, cells=1)
        self.head = nn.Linear(self.backbone.num_features, 1)

    def training_step(self, batch, batch_idx):
        images, share = batch
        error = F.l1_loss(self.head(self.backbone(images)).squeeze(1), share)
        self.log("error", error)
        return error

    test_step = training_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.01)


pl.seed_everything(0)
model, trainer = HowMany(), pl.Trainer(max_epochs=4)
trainer.fit(model, DataLoader(dots(1024), batch_size=32, shuffle=True))
print(trainer.test(model, DataLoader(dots(256), batch_size=32)))
