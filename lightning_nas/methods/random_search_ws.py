"""Random search with weight sharing (Li and Talwalkar, UAI 2019): the baseline of every weight-sharing method.

A step draws an architecture uniformly from the space and trains the weights on its path. In the end many architectures
are drawn, scored under the shared weights on a few batches, and the best of these on all.

Differs from the released code:
1. Architectures are uniform over the space. There, an edge that is kept may have the operation ``none``, and cells that
   many such draws give are more likely; ``DARTSCell(sparse=True)`` has these cells, each as likely as any other.
2. Candidates are scored with BatchNorm recalibrated for each; ``bn: batch`` normalises by the batch, as there.
3. What does not run is left alone by momentum and weight decay.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor

from lightning_nas.data import AnyData
from lightning_nas.errors import SettingError
from lightning_nas.methods.sampling import SamplingMethod
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.supernets.limits import Limits
from lightning_nas.supernets.scoring import Scorer, Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.optimizers import SGD, Optimizer


class RandomSearchWS(SamplingMethod):
    """Weights shared by uniformly drawn architectures, which are ranked under them in the end.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import DARTSCell, Digits, ImageClassification, RandomSearchWS

        data, network = Digits(), {"channels": 4, "cells": 3}
        search = RandomSearchWS(DARTSCell(), ImageClassification(), network, n_candidates=20)
        pl.Trainer(max_epochs=6).fit(search, data)
        architecture, scores = search.choose(data)
        print(search.space.describe(architecture), scores[architecture])

    Args:
        space: the space that is searched.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where candidates are scored: ``recalibrate`` on training images, or ``batch``.
        optimizer: what trains the weights; None: SGD from .025 by a cosine to .001, momentum .9, weight decay 3e-4,
            clipped at 5 (released code).
        n_candidates: drawn in a round of the ranking.
        n_batches: on which each candidate is scored, the same for all.
        n_finalists: the candidates of a round that are scored on the whole architecture part.
        rounds: the number of rounds of the ranking; None: one for every 10,000 steps of training.
    """

    trained_on = ("weights",)  # the architecture part is for the ranking
    adjustable = SamplingMethod.adjustable | {"n_candidates", "n_batches", "n_finalists", "rounds"}

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
        optimizer: Optimizer | None = None,
        n_candidates: int = 1000,
        n_batches: int = 10,
        n_finalists: int = 10,
        rounds: int | None = None,
    ) -> None:
        super().__init__(space, task, network, inputs, seed, bn)
        for name, value in {"n_candidates": n_candidates, "n_batches": n_batches, "n_finalists": n_finalists}.items():
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        if rounds is not None and rounds < 1:
            raise SettingError(f"rounds: at least 1, or null, got {rounds}")
        self.optimizer = self.recorded(
            "optimizer", optimizer or SGD(0.025, momentum=0.9, weight_decay=3e-4, schedule=Cosine(0.001), clip=5.0)
        )
        self.n_candidates, self.n_batches, self.n_finalists = n_candidates, n_batches, n_finalists
        self.rounds = rounds
        self.steps: Tensor
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def draw(self, *purpose: int | str) -> Architecture:
        """A uniform architecture, the same on all ranks."""
        return self.space.random(self.rng(*purpose))

    def rng(self, *purpose: int | str) -> Random:
        """What draws the architecture for a purpose."""
        return Random(derive_seed(self.seed, "architecture", *purpose))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.steps += 1

    def choose(
        self,
        data: AnyData,
        *,
        candidates: Sequence[Architecture] | None = None,
        limits: Sequence[str | Objective] | Limits = (),
    ) -> tuple[Architecture, dict[Architecture, float]]:
        """Draws candidates, scores them all on a few batches and the best of them on the whole architecture part.

        Given ``candidates``, there is one round, with these. Under limits, candidates are uniform among the
        architectures that keep them.

        Returns:
            the best finalist of all rounds, and the scores of all candidates on the few batches.
        """
        few, whole = Scorer.of(self, data, self.n_batches), Scorer.of(self, data)
        limits = Limits.of(self, limits)
        scores: dict[Architecture, float] = {}
        finalists: list[Architecture] = []
        for number in range(1 if candidates else self.rounds or max(1, int(self.steps) // 10_000)):
            drawn = candidates or [
                limits.random(self.rng("ranking", number, index)) for index in range(self.n_candidates)
            ]
            ranked = few.rank(drawn, f"Round {number + 1}")
            scores |= ranked
            finalists += list(ranked)[: self.n_finalists]
        return next(iter(whole.rank(finalists, "Finalists"))), scores

    def configure_optimizers(self) -> Any:
        return self.optimized((self.optimizer, self.trained))
