"""A search with an operation of my own among the candidates."""

import lightning.pytorch as pl
from torch import nn

from lightning_nas import DARTS, Adam, Digits, ImageClassification, NASBench201, register_operation


@register_operation("gelu_conv")
def gelu_conv(channels, stride, affine):
    return nn.Sequential(
        nn.GELU(), nn.Conv2d(channels, channels, 3, stride, 1), nn.BatchNorm2d(channels, affine=affine)
    )


space = NASBench201(["none", "skip_connect", "gelu_conv"])
search = DARTS(space, ImageClassification(), {"channels": 8, "cells": 1}, order="first", optimizer=Adam(0.01))
(trainer := pl.Trainer(max_epochs=3)).fit(search, Digits())
print(space.describe(search.best()), trainer.callback_metrics["val/supernet_accuracy"])
