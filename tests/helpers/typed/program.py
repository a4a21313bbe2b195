"""A program as a user of type checkers writes it: own module and our data, own data, task, strategy and evaluator."""

from collections.abc import Callable
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric, MetricCollection

from lightning_nas import (
    DARTS,
    Architecture,
    DARTSCell,
    Digits,
    Evaluator,
    ImageClassification,
    ImageData,
    NASBench201,
    Objective,
    Proposal,
    Retrain,
    Strategy,
    Task,
    TrialSearch,
)
from lightning_nas.seeding import derive_seed


class Linear(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layer(images.flatten(1))
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Noise(ImageData):
    mean, std = (0.5,), (0.25,)

    def __init__(self) -> None:
        super().__init__(batch_size=8, num_workers=0, architecture_share=0.5, split_seed=0)
        self.inputs = {"channels": 1, "image_size": 8, "num_classes": 2}

    def load(self, test: bool) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(int(test))
        images = torch.randint(0, 256, (32, 1, 8, 8), generator=generator, dtype=torch.uint8)
        return images, images[:, 0, 0, 0].long() % 2


class Regression(Task):
    score, mode, modality = "error", "min", "images"

    def loss(
        self, forward: Callable[..., Any], batch: Any, carry: Any = None, metrics: MetricCollection | None = None
    ) -> tuple[Tensor, Any]:
        images, labels = batch
        loss = F.mse_loss(forward(images)[:, 0], labels.float())
        if metrics is not None:
            metrics.update(loss.detach(), len(labels))
        return loss, carry

    def reward(self, forward: Callable[..., Any], batch: Any, carry: Any = None) -> tuple[Tensor, Any]:
        loss, carry = self.loss(forward, batch, carry)
        return -loss, carry

    def metrics(self, inputs: dict[str, int], over_ranks: bool = True) -> MetricCollection:
        return MetricCollection({"error": MeanMetric(sync_on_compute=over_ranks)})


class Mutations(Strategy):
    def propose(self, number: int) -> Architecture | Proposal | None:
        from random import Random

        rng = Random(derive_seed(self.seed, number))
        return self.space.random(rng) if self.best is None else self.space.mutate(self.best.architecture, rng)


class Convolutions(Evaluator):
    objective = Objective("share")

    def __call__(self, proposal: Proposal, number: int) -> float:
        return sum(option > 1 for option in proposal.architecture) / len(proposal.architecture)


def main(trainer: Callable[..., pl.Trainer]) -> tuple[list[Tensor], dict[str, str], float]:
    data, module = Digits(), Linear()
    run = trainer(max_epochs=1)
    run.fit(module, data)
    predictions = run.predict(module, data)
    assert isinstance(predictions, list)
    logits = [each for each in predictions if isinstance(each, Tensor)]

    search = DARTS(DARTSCell(nodes=2), Regression(), {"channels": 2, "cells": 2}, order="first")
    trainer(max_epochs=1).fit(search, Noise())
    architecture = search.best()
    assert architecture is not None
    names: dict[str, str] = search.space.to_names(architecture)
    Retrain("darts_v2", ImageClassification(), {"channels": 4, "cells": 3})

    trials = TrialSearch(NASBench201(), Mutations(), Convolutions(), n_trials=5)
    trainer(max_epochs=1).fit(trials)
    best = trials.trials.best
    assert best is not None
    return logits, names, best.score
