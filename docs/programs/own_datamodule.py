"""A search with a LightningDataModule of my own, whose training images are shifted at random."""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from lightning_nas import ENAS, ImageClassification, NASBench201


class Digits(Dataset):
    def __init__(self, first, last, transform):
        self.images, self.targets = (array[first:last] for array in load_digits(return_X_y=True))
        self.transform = transform

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        return self.transform(torch.tensor(self.images[index] / 16).float().view(1, 8, 8)), int(self.targets[index])


class DigitsData(pl.LightningDataModule):
    def setup(self, stage):
        self.train, self.val = Digits(0, 1200, v2.RandomCrop(8, padding=1)), Digits(1200, 1797, v2.Identity())

    def train_dataloader(self):
        return DataLoader(self.train, batch_size=64, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, batch_size=64)


data = DigitsData()
search = ENAS(NASBench201(), ImageClassification(), {"channels": 8, "cells": 1})
trainer = pl.Trainer(max_epochs=2)
trainer.fit(search, datamodule=data)
architecture, accuracies = search.choose(data)  # the best of ten that the controller draws
print(search.space.describe(architecture), accuracies[architecture])
