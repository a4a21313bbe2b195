"""GDAS: Searching for a Robust Neural Architecture in Four GPU Hours (Dong, Yang, CVPR 2019).

In every step each choice is drawn anew from the softmax of its alphas, and only the drawn operation runs. A step first
trains the network's weights on a batch of the weights part, then the alphas on a batch of the architecture part, with
the gradient of ``softmax((log softmax(α) + G) / τ)``. So a step costs as much as one architecture, not as all.

Differs from the released code:
1. The gradient is that of the paper's equations alone. The code adds the weights of the operations that are not drawn
   to a node as numbers, zeros whose gradient is not zero.
2. No sample is drawn again: the noise is always finite.
3. ``α`` stands for ``log softmax(α)``, which gives the same samples and the same gradient.
4. An architecture step leaves BatchNorm's running averages alone. Validation runs the architecture that the search
   would return, by the batch's statistics; there, one that is drawn.
"""

from typing import Any

from lightning_nas.methods.differentiable import DifferentiableMethod
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.relaxations import Relaxation, StraightThroughGumbel
from lightning_nas.spaces.base import Space
from lightning_nas.supernets.scoring import Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.optimizers import SGD, Adam, Optimizer


class GDAS(DifferentiableMethod):
    """One drawn operation per choice runs, weights and alphas trained in turn.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import DARTSCell, Digits, GDAS, ImageClassification

        data, search = Digits(), GDAS(DARTSCell(), ImageClassification(), {"channels": 4, "cells": 3})
        pl.Trainer(max_epochs=6).fit(search, data)
        print(search.space.describe(search.best()))

    Args:
        space: the search space; any whose network takes weights as gates.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where random architectures are scored under the shared weights in the end.
        relaxation: how the weights of a choice's options come from its alphas; None:
            :class:`~lightning_nas.relaxations.StraightThroughGumbel` at a temperature from 10 to .1 (paper).
        optimizer: what trains the weights; None: SGD with Nesterov's momentum .9 from .025 by a cosine to .001, weight
            decay 5e-4, clipped at 5 (released code).
        alphas_optimizer: what trains the alphas; None: Adam with rate 3e-4, betas .5 and .999, weight decay 1e-3
            (released code).
    """

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
        relaxation: Relaxation | None = None,
        optimizer: Optimizer | None = None,
        alphas_optimizer: Optimizer | None = None,
    ) -> None:
        usual = SGD(0.025, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule=Cosine(0.001), clip=5.0)
        super().__init__(
            space,
            task,
            network,
            inputs,
            seed,
            bn,
            relaxation or StraightThroughGumbel(),
            optimizer or usual,
            alphas_optimizer or Adam(3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
        )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        super().training_step(batch, batch_idx)
        self.step_alphas(batch, batch_idx)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with batch_statistics(self.network):  # the running averages belong to no single path
            self.validate_under(self.space.gates(self.best()), batch)
