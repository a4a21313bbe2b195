"""A retrained network as the backbone for three labels of each digit: is it even, prime, above four?"""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torchmetrics.classification import MultilabelAccuracy

from lightning_nas import Digits, ImageClassification, Retrain, load_network

TRAITS = torch.tensor([[n % 2 == 0, n in (2, 3, 5, 7), n > 4] for n in range(10)]).float()


class Traits(pl.LightningModule):
    def __init__(self, checkpoint):
        super().__init__()
        self.network = load_network(checkpoint, num_classes=3)
        self.accuracy = MultilabelAccuracy(num_labels=3)

    def training_step(self, batch, batch_idx):
        images, digits = batch
        return F.binary_cross_entropy_with_logits(self.network(images), TRAITS.to(images.device)[digits])

    def test_step(self, batch, batch_idx):
        images, digits = batch
        self.accuracy(self.network(images), TRAITS.to(images.device)[digits])
        self.log("accuracy", self.accuracy)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.003)


trainer = pl.Trainer(max_epochs=2)
trainer.fit(Retrain("nas_bench_201_best", ImageClassification(), {"channels": 16, "cells": 1}), Digits())

torch.manual_seed(0)
model = Traits(trainer.checkpoint_callback.best_model_path)
trainer = pl.Trainer(max_epochs=2)
trainer.fit(model, Digits())
print(trainer.test(model, Digits()))
