"""The methods that the shared contracts cover. A new method is covered by being listed here."""

import lightning.pytorch as pl
import torch

from lightning_nas.data import Digits, ImageData
from lightning_nas.methods import DARTS
from lightning_nas.spaces import DARTSCell
from lightning_nas.tasks import ImageClassification

SMALL = {"network": {"channels": 2, "cells": 2}}


def space(operations=("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")):
    return DARTSCell(nodes=2, operations=operations)


METHODS = {
    "darts-first": lambda **given: DARTS(given.pop("space", space()), ImageClassification(), order="first", **given),
    "darts-second": lambda **given: DARTS(given.pop("space", space()), ImageClassification(), **given),
    "darts-exact-warmup": lambda **given: DARTS(
        given.pop("space", space()), ImageClassification(), order="exact", warmup_epochs=1, **given
    ),
}
"""Name to a function that builds the method; settings given override."""

ONE_SHOT = {"darts-first": {"order": "first"}, "darts-second": {"order": "finite_difference"}}


class Planted(ImageData):
    """Two classes that only an operation with a wide receptive field tells apart: the right half of random pixels
    repeats the left half, or its negative."""

    mean, std = (0.5,), (0.5,)

    def __init__(self, batch_size=64):
        super().__init__(batch_size, num_workers=0, architecture_share=0.5, split_seed=0)
        self.inputs = {"channels": 1, "image_size": 8, "num_classes": 2}

    def load(self, test):
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 2, (1024, 1, 8, 8), generator=generator)
        labels = torch.randint(0, 2, (1024,), generator=generator)
        images[..., 4:] = (images[..., :4] + labels.view(-1, 1, 1, 1)) % 2
        return (images * 255).byte(), labels


def digits(num_workers=0):
    return Digits(batch_size=128, num_workers=num_workers)  # five steps an epoch


def trainer(**settings):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 2,
    }
    return pl.Trainer(**(quiet | settings))
