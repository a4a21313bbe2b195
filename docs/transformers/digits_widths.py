"""A vision transformer of my own on digits: how wide, how many heads, how deep?"""

import lightning.pytorch as pl
import torch
from torch import nn

from lightning_nas import SPOS, Adam, ArchitectureRecord, Digits, ImageClassification, Retrain, Space, ValueChoice


class VisionTransformer(nn.Module):
    def __init__(self, channels=1, image_size=8, num_classes=10):
        super().__init__()
        self.width, heads = ValueChoice([16, 32, 48], "width"), ValueChoice([2, 4], "heads")
        self.patches = nn.Conv2d(channels, self.width, 2, stride=2)
        self.places = nn.Parameter(torch.randn((image_size // 2) ** 2, self.width) / 50)
        feed_forward = ValueChoice([32, 64, 128], "feed_forward")
        block = nn.TransformerEncoderLayer(self.width, heads, feed_forward, 0.0, batch_first=True, norm_first=True)
        depth = ValueChoice([1, 2, 3], "depth")
        self.blocks = nn.TransformerEncoder(block, depth, nn.LayerNorm(self.width), enable_nested_tensor=False)
        self.classify = nn.Linear(self.width, num_classes)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)  # (N, patches, width)
        return self.classify(self.blocks(tokens + self.places[:, : self.width]).mean(1))


data, task, space = Digits(), ImageClassification(), Space.of(VisionTransformer)
budget = {"rounds": 4, "population": 20, "n_parents": 5, "n_mutants": 10, "n_crossovers": 10}
search = SPOS(space, task, optimizer=Adam(0.002), **budget)
pl.Trainer(max_epochs=20).fit(search, data)
architecture, accuracies = search.choose(data)
print(space.describe(architecture), accuracies[architecture])

found = ArchitectureRecord(space, architecture)
retrain, trainer = Retrain(found, task, optimizer=Adam(0.002), drop_path=0.0), pl.Trainer(max_epochs=20)
trainer.fit(retrain, data)
(figures,) = trainer.test(retrain, data)
