"""SPOS: Single Path One-Shot Neural Architecture Search with Uniform Sampling (Guo et al., ECCV 2020).

Every step trains the weights on one path, drawn uniformly. In the end an evolution looks for the best path under a
limit of its cost. A candidate is scored with the weights that it inherits, after BatchNorm's statistics have been taken
anew for it on training batches.

Differs from the released code:
1. BatchNorm's statistics are plain means over the calibration batches; there, running averages of momentum .1.
2. Candidates are scored on the architecture part, a part of the training images; there, on the validation images.
3. The rate falls once an epoch; there, in every step.
4. What is scored can be found: rounds count from the random one, and there, a round more is scored and forgotten.
"""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

from lightning.pytorch import Trainer

from lightning_nas.costs.flops import Flops
from lightning_nas.data import AnyData
from lightning_nas.errors import SettingError, within
from lightning_nas.methods.sampling import SamplingMethod
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.spaces.image_layers.chain import LayerChain
from lightning_nas.supernets.evolution import Evolution
from lightning_nas.supernets.limits import Limits, parse_limit
from lightning_nas.supernets.scoring import Scorer, Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.lr_schedules import Linear
from lightning_nas.training.optimizers import SGD, Optimizer

TRIES = 500
"""How often a path is drawn again until it lies in its bin; the one after these counts as it is (released code)."""


class SPOS(SamplingMethod):
    """Weights shared by uniform paths, among which an evolution chooses in the end.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import Digits, ImageClassification, NASBench201, SPOS

        data, search = Digits(), SPOS(NASBench201(), ImageClassification(), {"channels": 4, "cells": 1}, rounds=4)
        pl.Trainer(max_epochs=6).fit(search, data)
        architecture, scores = search.choose(data)
        print(search.space.describe(architecture), scores[architecture])

    With ``n_mutants`` and ``n_crossovers`` 0 it chooses among as many random paths under the same limit.

    Args:
        space: the space that is searched; ``ShuffleBlocks`` is the paper's.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``dropout``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where candidates are scored: ``recalibrate`` on training images, or ``batch``.
        optimizer: what trains the weights; None: SGD from .5 by a straight line to 0, momentum .9, weight decay 4e-5
            but for biases and what BatchNorm learns (released code).
        bins: edges of intervals of multiply-adds, in ascending order. For each step an interval is drawn, then a path
            of those that lie in it (released code 290e6, 300e6, … 360e6). None: every path is drawn as often.
        limit: what a candidate may cost at the search's own width, ``multiply_adds <= 330e6`` (paper), or one of
            ``flops``, of which a multiply-add is two, or of ``n_params``. None: anything.
        rounds: the number of rounds of the evolution, the first random one included.
        population: the number of candidates in a round.
        n_parents: the number of the best candidates of all rounds before that have children.
        n_mutants: children in a round that are like a parent, but with some choices drawn again.
        n_crossovers: children in a round that take each choice from one of two parents.
        mutation: the probability with which a choice of a mutant is drawn again.
        n_batches: batches of the architecture part on which candidates are scored, the same for all (released code 40
            of 200 images).
        n_calibration: training batches on which BatchNorm's statistics are taken for each candidate, the same for all
            (released code 200 of 128 images).
    """

    trained_on = ("weights",)  # the architecture part is for the evolution
    adjustable = SamplingMethod.adjustable | {
        "limit",
        "rounds",
        "population",
        "n_parents",
        "n_mutants",
        "n_crossovers",
        "mutation",
        "n_batches",
        "n_calibration",
    }

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
        optimizer: Optimizer | None = None,
        bins: Sequence[float] | None = None,
        limit: str | None = None,
        rounds: int = 20,
        population: int = 50,
        n_parents: int = 10,
        n_mutants: int = 25,
        n_crossovers: int = 25,
        mutation: float = 0.1,
        n_batches: int = 40,
        n_calibration: int = 200,
    ) -> None:
        super().__init__(space, task, network, inputs, seed, bn)
        counts = {"rounds": rounds, "population": population, "n_parents": n_parents}
        for name, value in (counts | {"n_batches": n_batches, "n_calibration": n_calibration}).items():
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        if min(n_mutants, n_crossovers) < 0 or n_mutants + n_crossovers > population:
            raise SettingError(
                f"n_mutants, n_crossovers: 0 or more, and together at most population ({population}), got {n_mutants} "
                f"and {n_crossovers}"
            )
        if not 0 <= mutation <= 1:
            raise SettingError(f"mutation: from 0 to 1, got {mutation}")
        self.optimizer = self.recorded(
            "optimizer", optimizer or SGD(0.5, 0.9, weight_decay=4e-5, schedule=Linear(), decay_vectors=False)
        )
        self.bins = None if bins is None else _intervals(bins, self.space)
        with within("limit"):
            self.limits = [] if limit is None else [parse_limit(limit)]
        self.rounds, self.population, self.n_parents = rounds, population, n_parents
        self.n_mutants, self.n_crossovers, self.mutation = n_mutants, n_crossovers, mutation
        self.n_batches, self.n_calibration = n_batches, n_calibration

    @property
    def n_candidates(self) -> int:  # type: ignore[override]  # it follows from other settings
        return self.rounds * self.population

    def configure_optimizers(self) -> Any:
        return self.optimized((self.optimizer, self.network.parameters()))

    # -- what is drawn -----------------------------------------------------------------------------------------------

    @functools.cached_property
    def flops(self) -> Flops:
        """The FLOPs of architectures at the search's own width, once it is known what the network is built for."""
        return Flops(self.space, self.task.network_inputs(self.hparams["inputs"]), **self.network_settings)

    def draw(self, *purpose: int | str) -> Architecture:
        """A path as the weights are trained on, the same on all ranks."""
        rng = Random(derive_seed(self.seed, "architecture", *purpose))
        if self.bins is not None:
            least, most = rng.choice(self.bins)
            for _ in range(TRIES):
                path = self.space.random(rng)
                if least <= self.flops(path) / 2 <= most:
                    return path
        return self.space.random(rng)

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        super().check(trainer, data, checkpoint)
        if not self.limits and self.bins is None:
            return
        self.hparams["inputs"] = self.foreseen_inputs(data)
        rng = Random(derive_seed(self.seed, "limit"))
        inputs = self.task.network_inputs(self.hparams["inputs"])
        Limits(self.limits, self.space, inputs, self.network_settings, self.seed, "limit").random(rng)
        if self.bins is not None:
            drawn = [self.flops(self.space.random(rng)) / 2 for _ in range(TRIES)]
            if not any(least <= flops <= most for least, most in self.bins for flops in drawn):
                raise SettingError(
                    f"bins: some of the multiply-adds that paths have, about {min(drawn):.3g} to {max(drawn):.3g}; got "
                    f"{self.bins[0][0]:.3g} to {self.bins[-1][1]:.3g}"
                )

    # -- what is chosen ----------------------------------------------------------------------------------------------

    def choose(
        self,
        data: AnyData,
        *,
        candidates: Sequence[Architecture] | None = None,
        limits: Sequence[str | Objective] | Limits = (),
    ) -> tuple[Architecture, dict[Architecture, float]]:
        """The best that the evolution finds, or the best of ``candidates``, and the scores of all that were scored.

        Ctrl-C ends the evolution with what it has found.
        """
        scorer, limits = Scorer.of(self, data, self.n_batches, self.n_calibration), Limits.of(self, limits)
        scores = self._evolve(scorer, limits) if candidates is None else scorer.rank(candidates, "Candidates")
        return next(iter(scores)), scores

    def _evolve(self, scorer: Scorer, limits: Limits) -> dict[Architecture, float]:
        evolution = Evolution(
            self.space,
            self.seed,
            limits.random,
            limits.keeps,
            self.population,
            self.n_parents,
            self.n_mutants,
            self.n_crossovers,
            self.mutation,
        )
        return evolution.run(self.rounds, scorer, scorer.best_first, scorer.progress)


def _intervals(bins: Sequence[float], space: Space) -> list[tuple[float, float]]:
    intervals = list(itertools.pairwise(bins))
    if not intervals or not all(0 <= least < most for least, most in intervals):
        raise SettingError(f"bins: two or more multiply-adds, in ascending order, or null; got {list(bins)}")
    if not isinstance(space, LayerChain):
        raise SettingError(f"bins: null, since {type(space).__name__} is no chain of layers, whose FLOPs are a sum")
    return intervals
