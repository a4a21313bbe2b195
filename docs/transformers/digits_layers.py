"""Attention or convolution? A choice in each of three blocks of a network of my own, by gradients."""

import lightning.pytorch as pl
from torch import nn

from lightning_nas import DARTS, Adam, ArchitectureRecord, Digits, ImageClassification, LayerChoice, Retrain, Space


class Attention(nn.MultiheadAttention):
    def forward(self, maps):  # (N, channels, rows, columns)
        x = maps.flatten(2).transpose(1, 2)
        return super().forward(x, x, x, need_weights=False)[0].transpose(1, 2).view_as(maps)


class Mixed(nn.Module):
    def __init__(self, channels=1, num_classes=10, width=24):
        super().__init__()
        self.patches = nn.Conv2d(channels, width, 2, stride=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.blocks = nn.ModuleList(self.block(width) for _ in range(3))
        self.classify = nn.Linear(width, num_classes)

    def block(self, width):
        convolution = nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width), nn.Conv2d(width, width, 1))
        return LayerChoice({"attention": Attention(width, 4, batch_first=True), "convolution": convolution})

    def forward(self, images):
        x = self.patches(images)
        for norm, block in zip(self.norms, self.blocks, strict=True):
            x = x + nn.functional.gelu(block(norm(x)))
        return self.classify(x.mean((2, 3)))


data, task, space = Digits(), ImageClassification(), Space.of(Mixed)
search = DARTS(space, task, order="first", optimizer=Adam(0.003), alphas_optimizer=Adam(0.003))
pl.Trainer(max_epochs=15).fit(search, data)
found = ArchitectureRecord(space, search.best())
retrain, trainer = Retrain(found, task, optimizer=Adam(0.003), drop_path=0.0), pl.Trainer(max_epochs=15)
trainer.fit(retrain, data)
print(space.describe(search.best()), trainer.test(retrain, data))
