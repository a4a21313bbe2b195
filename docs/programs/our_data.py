"""A data module of lightning_nas with a model of my own."""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn

from lightning_nas import ClutteredDigits


class MyModel(pl.LightningModule):
    def __init__(self):
        super().__init__()
        convolutions = [nn.Conv2d(1, 16, 5, 2), nn.ReLU(), nn.Conv2d(16, 32, 5, 2), nn.ReLU()]
        self.network = nn.Sequential(*convolutions, nn.Flatten(), nn.LazyLinear(10))

    def forward(self, images):
        return self.network(images)

    def training_step(self, batch, batch_idx):
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def validation_step(self, batch, batch_idx):
        images, labels = batch
        self.log("accuracy", (self(images).argmax(1) == labels).float().mean())

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.003)


torch.manual_seed(0)
model, data = MyModel(), ClutteredDigits()
trainer = pl.Trainer(max_epochs=3)
trainer.fit(model, data)
(figures,) = trainer.test(model, data)
predicted = torch.cat(trainer.predict(model, data)).argmax(1)
print(figures["accuracy"], predicted[:10])
