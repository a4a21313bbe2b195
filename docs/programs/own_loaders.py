"""A search, and a retraining of what it finds, with DataLoaders of my own."""

import lightning.pytorch as pl
import torch
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset, random_split

from lightning_nas import DARTS, ArchitectureRecord, ImageClassification, NASBench201, Retrain

pixels, labels = load_digits(return_X_y=True)
digits = TensorDataset(torch.tensor(pixels / 16).float().view(-1, 1, 8, 8), torch.tensor(labels))
train_set, test_set = random_split(digits, [0.8, 0.2], torch.Generator().manual_seed(0))
train_loader = DataLoader(train_set, batch_size=32, shuffle=True)
test_loader = DataLoader(test_set, batch_size=256)

search = DARTS(NASBench201(), ImageClassification(), {"channels": 8, "cells": 1}, order="first")
pl.Trainer(max_epochs=1).fit(search, train_loader)  # half of the images judge architectures
print(search.space.describe(search.best()))

found = ArchitectureRecord(search.space, search.best())
retrain = Retrain(found, ImageClassification(), {"channels": 8, "cells": 1})
trainer = pl.Trainer(max_epochs=3)
trainer.fit(retrain, train_loader)
(figures,) = trainer.test(retrain, test_loader)
print(figures["test/accuracy"])
