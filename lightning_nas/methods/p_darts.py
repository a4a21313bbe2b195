"""P-DARTS: Progressive Differentiable Architecture Search (Chen, Xie, Wu, Tian, ICCV 2019).

The search network grows deeper in stages, and every edge loses its weakest operations from stage to stage. Each stage
has new weights and new alphas; its first epochs train weights alone, the others first move the alphas on a batch of the
architecture part, then the weights. Values that identities pass on are dropped, ever fewer of them, and a normal cell
that is found has few skips.

Differs from the released code:
1. An architecture step leaves BatchNorm's running averages alone.
2. Pools and their BatchNorm are computed once per state (the same numbers).
3. The last, smaller batch of a pass is left out.
4. The search returns the cell with at most ``max_skips`` skips; there, cells with every number of skips are printed.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from lightning_nas.errors import SettingError
from lightning_nas.methods.differentiable import DifferentiableMethod
from lightning_nas.relaxations import Softmax
from lightning_nas.spaces.base import Architecture, Network, Space
from lightning_nas.supernets.limits import Limits
from lightning_nas.supernets.scoring import Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.optimizers import SGD, Adam, Optimizer
from lightning_nas.training.stages import Stage, Staged

Derive = Callable[[Sequence[Sequence[float]]], Architecture]
"""Finds the best architecture for weights of all options."""


class PDARTS(Staged, DifferentiableMethod):
    """A differentiable search in stages of growing depth, with fewer operations on every edge from stage to stage.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import DARTSCell, Digits, ImageClassification, PDARTS

        stages = [{"cells": 2}, {"cells": 3}, {"cells": 4}]
        search = PDARTS(DARTSCell(), ImageClassification(), {"channels": 4}, stages=stages, epochs=1, warmup_epochs=0)
        pl.Trainer(max_epochs=3).fit(search, Digits())
        print(search.space.describe(search.best()))

    Args:
        space: the search space; any whose network takes weights as gates.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name that all stages share, such as ``channels``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where random architectures are scored under the shared weights in the end.
        stages: for each stage the settings of its network that the stages do not share; None: 5, 11 and 17 ``cells``
            (paper).
        operations: for each stage but the first, how many operations an edge has; they are the strongest of the stage
            before (paper: 5 and 3 of 8).
        skip_dropout: for each stage the probability with which a value that an identity passes on is dropped at the
            start; it falls from epoch to epoch (paper: 0, .4 and .7; on the released code's page .1, .4 and .7).
        epochs: the number of epochs of each stage (paper: 25). The trainer's ``max_epochs`` are those of all stages.
        warmup_epochs: the epochs at the start of each stage in which only weights are trained (paper: 10).
        max_skips: the largest number of skips in the normal cell that is found; None: no limit (paper: 2).
        optimizer: what trains the weights; None: SGD from .025 by a cosine to 0, momentum .9, weight decay 3e-4,
            clipped at 5 (released code).
        alphas_optimizer: what trains the alphas; None: Adam with rate 6e-4, betas .5 and .999, weight decay 1e-3,
            clipped at 5 (released code).
    """

    skip_dropout: Sequence[float] = ()
    adjustable = DifferentiableMethod.adjustable | {"skip_dropout", "warmup_epochs", "max_skips"}

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
        stages: Sequence[dict[str, Any]] | None = None,
        operations: Sequence[int] = (5, 3),
        skip_dropout: Sequence[float] = (0.0, 0.4, 0.7),
        epochs: int = 25,
        warmup_epochs: int = 10,
        max_skips: int | None = 2,
        optimizer: Optimizer | None = None,
        alphas_optimizer: Optimizer | None = None,
    ) -> None:
        optimizer = optimizer or SGD(0.025, momentum=0.9, weight_decay=3e-4, schedule=Cosine(), clip=5.0)
        alphas_optimizer = alphas_optimizer or Adam(6e-4, betas=(0.5, 0.999), weight_decay=1e-3, clip=5.0)
        super().__init__(space, task, network, inputs, seed, bn, Softmax(), optimizer, alphas_optimizer)
        stages = [{"cells": cells} for cells in (5, 11, 17)] if stages is None else stages
        choices = [choice for choice in self.space.choices if choice.kind == "operation"]
        numbers = [max((len(choice.options) for choice in choices), default=0), *operations]
        if len(operations) != len(stages) - 1 or numbers != sorted(set(numbers), reverse=True) or numbers[-1] < 2:
            raise SettingError(
                f"operations: a number for each of the {len(stages)} stages but the first, falling, 2 or more, and "
                f"less than the {numbers[0]} of the space; got {list(operations)}"
            )
        if len(skip_dropout) != len(stages) or not all(0 <= probability < 1 for probability in skip_dropout):
            raise SettingError(
                f"skip_dropout: for each of the {len(stages)} stages a probability from 0 to below 1, got "
                f"{list(skip_dropout)}"
            )
        if not 0 <= warmup_epochs < epochs:
            raise SettingError(f"warmup_epochs: from 0 to below epochs ({epochs}), got {warmup_epochs}")
        if max_skips is not None and max_skips < 0:
            raise SettingError(f"max_skips: 0 or more, or null, got {max_skips}")
        self.operations, self.skip_dropout = operations, skip_dropout
        self.warmup_epochs, self.max_skips = warmup_epochs, max_skips
        self.in_stages([Stage(epochs, settings) for settings in stages])

    # -- stages ------------------------------------------------------------------------------------------------------

    def enter(self, number: int, space: Space) -> None:
        super().enter(number, space)
        self.begin_alphas("alphas", *([number] if number else []))
        self.register_buffer("present", self.present)  # persistent, since ``none`` may be gone

    def next_stage(self) -> None:
        """Enters the next stage with the strongest operations of every edge.

        An edge can be left out of any cell, so ``none`` stays an option of the space; where it is among the operations
        that are dropped, it has no weight from now on.
        """
        strongest = self.strongest(self.operations[self.stage])
        whole = {choice.name: choice.options for choice in self.space.choices}
        kept = {name: [o for o in whole[name] if o in options or o == "none"] for name, options in strongest.items()}
        self.enter(self.stage + 1, self.space.restrict(kept))
        for row, choice in zip(self.present, self.space.choices, strict=True):
            for index, option in enumerate(choice.options):
                row[index] = option in strongest.get(choice.name, choice.options)

    def strongest(self, number: int) -> dict[str, list[str]]:
        """For each choice of an operation the options with the largest weights.

        Args:
            number: the number of options that each choice keeps.
        """
        logits = self.alphas.detach().masked_fill(~self.present, -torch.inf)
        strongest = {}
        for choice, row, present in zip(self.space.choices, logits, self.present.sum(1).tolist(), strict=True):
            if choice.kind == "operation":
                ranked = row.argsort(descending=True, stable=True).tolist()
                strongest[choice.name] = [choice.options[o] for o in ranked[: min(number, present)]]
        return strongest

    # -- steps -------------------------------------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        if self.epoch >= self.warmup_epochs:
            self.step_alphas(batch, batch_idx)
        super().training_step(batch, batch_idx)

    def loss(self, forward: Callable[..., Any], *args: Any, **settings: Any) -> Tensor:
        """The task's loss, of a network that drops values which identities pass on as often as the epoch says."""
        dropout = skip_dropout_at(self.skip_dropout[self.stage], self.epoch, self.n_epochs, self.warmup_epochs)
        if dropout and self.network.training:
            forward = partial(forward, skip_dropout=dropout)
        return super().loss(forward, *args, **settings)

    def new_network(self, inputs: dict[str, int]) -> Network:
        network = super().new_network(inputs)
        if any(self.skip_dropout) and "skip_dropout" not in inspect.signature(network.forward).parameters:
            none = ", ".join("0" for _ in self.skip_dropout)
            raise SettingError(
                f"skip_dropout: networks of {type(self.space).__name__} drop nothing of a skip; set it to [{none}]"
            )
        return network

    # -- what the search says ----------------------------------------------------------------------------------------

    def best(self) -> Architecture:
        self.check_finite("alphas", [self.alphas])
        return self._derived(self.space.derive)

    def best_within(self, limits: Limits) -> Architecture:
        return self._derived(partial(self.space.derive, cheapest=limits.cheapest))

    def _derived(self, derive: Derive) -> Architecture:
        if self.max_skips is None:
            return derive(self.choice_weights())
        return derive_with_few_skips(self.space, self.choice_weights(), self.max_skips, derive)


def skip_dropout_at(probability: float, epoch: int, n_epochs: int, warmup_epochs: int) -> float:
    """The probability to drop a value in an epoch: ``p (E − e − 1) / E`` while weights alone are trained, and
    ``p exp(−.2 (e − w))`` then (released code).

    Args:
        probability: the probability p of the stage.
        epoch: the epoch e of the stage, from 0.
        n_epochs: the number E of epochs of the stage.
        warmup_epochs: the number w of epochs in which weights alone are trained.
    """
    if epoch < warmup_epochs:
        return probability * (n_epochs - epoch - 1) / n_epochs
    return probability * math.exp(-0.2 * (epoch - warmup_epochs))


def derive_with_few_skips(
    space: Space, weights: Sequence[Sequence[float]], max_skips: int, derive: Derive | None = None
) -> Architecture:
    """The architecture that the space derives from weights, with few skips in its cells but the reductions.

    While there are more, the kept skip of the smallest weight loses it, and all operations and edges are chosen again.

    Args:
        space: the space that derives.
        weights: for each choice the weight of each option.
        max_skips: the largest number of skips; there are more where a choice has no other operation, or none that what
            derives allows.
        derive: finds the best architecture for weights; None: as the space derives.
    """
    scores = [list(row) for row in weights]
    while True:
        architecture = (derive or space.derive)(scores)
        skips = [
            (scores[k][option], k, option)
            for k, (choice, option) in enumerate(zip(space.choices, architecture, strict=True))
            if choice.options[option] == "skip_connect" and choice.cell != "reduce"
        ]
        weakest, k, option = min((skip for skip in skips if skip[0] > 0), default=(0.0, 0, 0))
        if len(skips) <= max_skips or not weakest:
            return architecture
        scores[k][option] = 0.0
