"""SNAS: Stochastic Neural Architecture Search (Xie, Zheng, Liu, Lin, ICLR 2019).

Every choice is a sample Z of the concrete distribution with logits ``log α``, one for each kind of cell and step, whose
temperature λ falls. Weights and alphas are trained by the same backward pass on ``L(Z) + η E[cost]``: no second level.

The cost of an edge is the sum of weights times costs of its operations; the linear form adds them up, the logarithmic
one takes the mean of the logarithms of parameters, multiply-adds and memory accesses, for an edge below one taken as
zero. Costs are those of a mean cell of each kind. There are three estimators of the gradient of the expectation
(section 2.4 and appendix): through the sample (``reparametrised``), of the weights ``softmax(log α)`` in place of a
sample (``discrete``), and by the score of the sample's density (``policy_gradient``).

Differs from the released code:
1. It trains on the weights part and keeps the architecture part for validation and for the comparison with random
   architectures. There, all training images train, and validation is on the test part. The data's
   ``architecture_share`` decides how many are kept.
2. Drop-path drops the operations of an edge one by one, and never an identity.
3. The policy gradient holds the sample fixed. There, the density is differentiated through the sample too.
4. The score of a sample is computed from the logarithms of its weights; there, weights below 1e-4 count as that.
5. Dilated convolutions of stride 2 read a quarter of their input, and are charged for what they read.
"""

import functools
from functools import partial
from typing import Any, Literal, get_args

from torch import Tensor

from lightning_nas.costs.table import CostTable
from lightning_nas.errors import SettingError
from lightning_nas.methods.differentiable import DifferentiableMethod
from lightning_nas.relaxations import GumbelSoftmax, Relaxation
from lightning_nas.spaces.base import Space
from lightning_nas.supernets.scoring import Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.optimizers import SGD, Adam, Optimizer

Cost = Literal["log", "linear"]
Estimator = Literal["reparametrised", "discrete", "policy_gradient"]

USUAL_COST_WEIGHT: dict[tuple[Estimator, Cost], float] = {
    ("reparametrised", "log"): 1e-2,
    ("reparametrised", "linear"): 1e-5,
    ("discrete", "log"): 1e-2,
    ("discrete", "linear"): 1e-4,
    ("policy_gradient", "log"): 1e-4,
    ("policy_gradient", "linear"): 1e-5,
}
"""η in the released code."""

LINEAR = (0.43 * 2, 0.43 / 4000, 0.43 / 100)
"""The weights of parameters, multiply-adds and memory accesses in the linear form (released code)."""


class SNAS(DifferentiableMethod):
    """Sampled weights of operations, alphas and weights trained together, with a cost.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import DARTSCell, Digits, ImageClassification, SNAS

        data, search = Digits(), SNAS(DARTSCell(), ImageClassification(), {"channels": 4, "cells": 3})
        pl.Trainer(max_epochs=6).fit(search, data)
        print(search.space.describe(search.best()))

    Args:
        space: the search space; any whose network takes weights as gates. ``DARTSCell(kept=None)`` is the paper's.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where random architectures are scored under the shared weights in the end.
        relaxation: how the weights of a choice's options come from its alphas, a ``GumbelSoftmax``; None: at a
            temperature from 1 to .03 (released code).
        cost: the form of the cost that is added to the loss, ``log`` or ``linear``; None: architectures cost nothing.
        cost_weight: η, by which the cost is multiplied; None: the released code's for the form and the estimator.
        estimator: how the gradient of the expected cost is estimated.
        optimizer: what trains the weights; None: SGD from .025 by a cosine to .001, momentum .9, weight decay 3e-4,
            clipped at 5 (released code).
        alphas_optimizer: what trains the alphas; None: Adam with rate 3e-4, betas .5 and .999, weight decay 1e-3,
            clipped at 10 (released code).
        drop_path: the probability to drop an operation's output in every step; None: .3 (released code), or 0 where
            the space's networks have no paths to drop.
    """

    trained_on = ("weights",)
    usual_drop_path = 0.3
    adjustable = DifferentiableMethod.adjustable | {"cost", "cost_weight", "estimator", "drop_path"}

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
        relaxation: Relaxation | None = None,
        cost: Cost | None = None,
        cost_weight: float | None = None,
        estimator: Estimator = "reparametrised",
        optimizer: Optimizer | None = None,
        alphas_optimizer: Optimizer | None = None,
        drop_path: float | None = None,
    ) -> None:
        _check(cost, cost_weight, estimator, drop_path)
        super().__init__(
            space,
            task,
            network,
            inputs,
            seed,
            bn,
            relaxation or GumbelSoftmax(),
            optimizer or SGD(0.025, momentum=0.9, weight_decay=3e-4, schedule=Cosine(0.001), clip=5.0),
            alphas_optimizer or Adam(3e-4, betas=(0.5, 0.999), weight_decay=1e-3, clip=10.0),
            alphas_mean=1.0,
            alphas_std=0.01,
        )
        if not isinstance(self.relaxation, GumbelSoftmax):
            raise SettingError(f"relaxation: GumbelSoftmax, got {type(self.relaxation).__name__}")
        self.cost, self.estimator, self.drop_path = cost, estimator, drop_path
        usual = 0.0 if cost is None else USUAL_COST_WEIGHT[estimator, cost]
        self.cost_weight = usual if cost_weight is None else cost_weight

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        weights_optimizer, alphas_optimizer = self.optimizers()  # type: ignore[attr-defined]
        weights = self.relaxed_weights("weights", batch_idx)
        network = partial(self.network, drop_path=self.path_dropout) if self.path_dropout else self.network
        (gradient,) = self.step_weights(
            weights_optimizer,
            batch["weights"],
            self.by_choice(weights),
            network=network,
            parameters=[self.alphas],
            loss=None if self.cost is None else lambda _: self.cost_weight * self.cost_term(weights, batch_idx),
        )
        self.apply_gradients(alphas_optimizer, [self.alphas], [gradient], self.alphas_optimizer.clip)

    # -- the cost ----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def costs(self) -> CostTable:
        """What each option costs in the network of the search."""
        return CostTable.of(self.network).to(self.device)

    def cost_under(self, weights: Tensor) -> Tensor:
        """The cost of every place of a choice times its share, ``(n_places,)``; the sum is that of mean cells.

        Args:
            weights: the weights of all options, ``(n_choices, most options)``.
        """
        sums = self.costs.under(weights)
        if self.cost == "log":
            return sums.clamp_min(1.0).log().mean(1) * self.costs.share
        return sums @ sums.new_tensor(LINEAR) * self.costs.share

    def cost_term(self, weights: Tensor, batch_idx: int) -> Tensor:
        """A number whose gradient estimates that of the expected cost, with the step's weights of all options."""
        if self.estimator == "discrete":
            return self.cost_under(self.probabilities()).sum()
        if self.estimator == "reparametrised":
            return self.cost_under(weights).sum()
        generator, relaxation = self.generator("weights", batch_idx), self.relaxation
        assert isinstance(relaxation, GumbelSoftmax)
        drawn = relaxation.log_sample(self.alphas.detach(), self.present, generator, self.progress)
        score = relaxation.log_density(self.alphas, self.present, drawn, self.progress)
        return (score[self.costs.choice] * self.cost_under(weights).detach()).sum()

    def on_fit_start(self) -> None:
        super().on_fit_start()
        if self.cost is not None:
            self.costs  # noqa: B018  # a space whose costs are no sum is refused before the first step

    @property
    def figures(self) -> list[str]:
        return [*super().figures, *(["arch/cost"] if self.cost else [])]

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        if self.cost is not None:
            self.log("arch/cost", self.cost_under(self.probabilities().detach()).sum(), sync_dist=True)


def _check(cost: str | None, cost_weight: float | None, estimator: str, drop_path: float | None) -> None:
    if cost is not None and cost not in get_args(Cost):
        raise SettingError(f"cost: {', '.join(get_args(Cost))} or null, got {cost!r}")
    if estimator not in get_args(Estimator):
        raise SettingError(f"estimator: {', '.join(get_args(Estimator))}, got {estimator!r}")
    if cost_weight is not None and not cost_weight >= 0:
        raise SettingError(f"cost_weight: 0 or more, or null, got {cost_weight}")
    if cost is None and cost_weight is not None:
        raise SettingError("cost_weight: has no effect without cost; set cost to log or linear")
    if drop_path is not None and not 0 <= drop_path < 1:
        raise SettingError(f"drop_path: from 0 to below 1, got {drop_path}")
