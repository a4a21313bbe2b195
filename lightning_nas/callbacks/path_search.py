"""Single paths in a user's own Lightning project (Guo et al., ECCV 2020).

Every batch trains the weights of one architecture, drawn by the prior of the space, the same on all ranks. When the
training is done, candidates are compared as the user's own validation judges them, each with running averages of
BatchNorm of its own: random ones, or those of an evolution.

Differs from the paper:
1. BatchNorm's statistics are plain means over the calibration batches, averaged over ranks.
2. The best is chosen on the user's validation data.
"""

import math
from collections.abc import Mapping
from random import Random
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_nas.callbacks import own_steps
from lightning_nas.callbacks.own_search import OwnSearch
from lightning_nas.errors import SettingError
from lightning_nas.objectives import Mode, Objective
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Gates
from lightning_nas.supernets.evolution import Evolution


class PathSearch(OwnSearch):
    """Searches the choices in your own module while your trainer fits it: an architecture in every batch, and in the
    end the best of several by your own validation.

    What is validated during the fit are drawn architectures, one for each batch and the same ones in every epoch,
    normalised by the batch; so ``EarlyStopping`` and ``ModelCheckpoint`` follow how well an average one does.

    Args:
        monitor: the figure that candidates are compared by, as your ``validation_step`` logs it: ``val_acc``.
        mode: ``max`` if a higher figure is better, ``min`` if a lower one is.
        network: the attribute of the module that holds the network with the choices, ``net`` or ``model.encoder``;
            None: the attribute that all choices are in, or the module itself where they stand in several.
        rounds: the number of rounds of an evolution, the first random one included; 1: the best of random ones.
        population: the number of candidates in a round, half of them mutants and half crossovers of the best fifth of
            those before (paper: 50).
        n_calibration: training batches on which BatchNorm's running averages are taken for each candidate, the same for
            all.
        seed: the seed of everything random in the search.

    Attributes:
        space: the space of the choices, from the start of the fit on.
        scores: the figures of all candidates, the best first, once the fit is done.

    Raises:
        SettingError: when the fit begins, if the module has no choices or is compiled, the trainer does not validate,
            or its strategy cannot run another part of the network in every batch.

    Example::

        import lightning.pytorch as pl
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        from lightning_nas import LayerChoice, PathSearch

        class Project(pl.LightningModule):
            def __init__(self):
                super().__init__()
                self.net = nn.Sequential(LayerChoice([nn.Linear(8, 8), nn.Identity()]), nn.Linear(8, 2))

            def training_step(self, batch, batch_idx):
                return nn.functional.cross_entropy(self.net(batch[0]), batch[1])

            def validation_step(self, batch, batch_idx):
                self.log("val_loss", self.training_step(batch, batch_idx))

            def configure_optimizers(self):
                return torch.optim.SGD(self.parameters(), 0.1)

        loader = DataLoader(TensorDataset(torch.randn(64, 8), torch.randint(2, (64,))), 16)
        project, search = Project(), PathSearch("val_loss", "min")
        pl.Trainer(max_epochs=1, callbacks=[search]).fit(project, loader, loader)
        project.net = search.freeze()
    """

    def __init__(
        self,
        monitor: str,
        mode: Mode = "max",
        network: str | None = None,
        rounds: int = 1,
        population: int = 20,
        n_calibration: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(network, seed, n_calibration)
        for name, value in {"rounds": rounds, "population": population}.items():
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        self.objective = Objective(monitor, mode)
        self.rounds, self.population = rounds, population
        self.scores: dict[Architecture, float] = {}

    runs_all = False

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        self.scores = {}

    def draw(self, *purpose: int | str) -> Architecture:
        """An architecture, a function of the seed and the purpose."""
        return self.space.random(Random(derive_seed(self.seed, "architecture", *purpose)))

    def evaluation_gates(self, batch_idx: int) -> Gates:
        return self.space.gates(self.draw("validation", batch_idx))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.run(self.space.gates(self.draw("training", trainer.current_epoch, batch_idx)))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":  # the running averages belong to none of the architectures
            self._validation.enter_context(batch_statistics(self._norms))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._monitored(dict.fromkeys(trainer.callback_metrics, 0.0))

    # -- what is chosen ----------------------------------------------------------------------------------------------

    def choose(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        half, fifth = self.population // 2, max(1, self.population // 5)
        drawn, n = self.space.random, self.population
        evolution = Evolution(self.space, self.seed, drawn, population=n, parents=fifth, mutants=half, crossovers=half)

        def score(architecture: Architecture) -> float:
            with self.calibrated(trainer, module, architecture):
                value = self._monitored(own_steps.validated(trainer))
            return float(trainer.strategy.reduce(torch.tensor(value, device=module.device), reduce_op="mean"))

        self.scores = evolution.run(self.rounds, score, self._best_first, trainer.progress_bar_callback is not None)
        return {self.objective.metric: next(iter(self.scores.values())), "n_candidates": float(len(self.scores))}

    def _monitored(self, figures: Mapping[str, float]) -> float:
        if self.objective.metric not in figures:
            raise SettingError(
                f"monitor: a figure that validation_step logs, got {self.objective.metric!r}; there are "
                f"{', '.join(figures) or 'none'}"
            )
        return figures[self.objective.metric]

    def _best_first(self, scores: Mapping[Architecture, float]) -> dict[Architecture, float]:
        return dict(sorted(scores.items(), key=lambda row: (math.isnan(row[1]), -self.objective.score(row[1]))))

    def best(self) -> Architecture:
        """The best of the candidates.

        Raises:
            SettingError: if none have been compared, as in a fit that has not come to its end.
        """
        if not self.scores:
            raise SettingError("best: candidates are compared at the end of a fit, and there are none yet")
        return next(iter(self.scores))
