"""Relaxed choices in a user's own Lightning project: DARTS of first order (Liu, Simonyan, Yang, ICLR 2019) with the
softmax, the sampling of SNAS or GDAS with other relaxations.

Before each step of the user's own optimiser the alphas take one, downhill on the loss that the user's ``training_step``
returns for a batch of the validation data. Then the user's step runs under the weights that the alphas give.

Differs from the paper:
1. Alphas learn on the validation data and weights on all training data, so that the user's training set, its order and
   its augmentation stay as they are; there, on two halves of the training set. Alphas are few numbers, but what is
   validated is no longer unseen: a test set says what the result is worth.
2. An architecture step leaves BatchNorm's running averages alone.
"""

from collections.abc import Iterator
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from lightning_nas.callbacks import own_steps
from lightning_nas.callbacks.own_search import OwnSearch
from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.relaxations import Relaxation, Softmax
from lightning_nas.relaxations.logits import by_choice, drawn_logits, gradient_of, present_options
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Gates
from lightning_nas.training import checks
from lightning_nas.training.gradients import apply_gradients
from lightning_nas.training.optimizers import Adam, Optimizer


class RelaxedSearch(OwnSearch):
    """Searches the choices in your own module while your trainer fits it: all options run, each with a weight that is
    learnt on your validation data.

    Where your module takes its steps by itself (manual optimisation), alphas go downhill on the loss that its
    ``validation_step`` returns, since its ``training_step`` would move the weights.

    Args:
        relaxation: how the weights of a choice's options come from its alphas; None: :class:`Softmax` (DARTS).
            ``GumbelSoftmax()`` samples as SNAS does, ``StraightThroughGumbel()`` as GDAS.
        network: the attribute of the module that holds the network with the choices, ``net`` or ``model.encoder``;
            None: the attribute that all choices are in, or the module itself where they stand in several.
        alphas_optimizer: what trains the alphas; None: Adam with rate 3e-4, betas .5 and .999, weight decay 1e-3
            (released code of DARTS).
        n_calibration: training batches on which BatchNorm's running averages are taken for the network that is found.
        seed: the seed of everything random in the search.

    Attributes:
        space: the space of the choices, from the start of the fit on.
        alphas: the logits, ``(n_choices, most options)``, from the start of the fit on.

    Raises:
        SettingError: when the fit begins, if the module has no choices, or one that weights cannot mix
            (``ValueChoice``; :class:`PathSearch` searches these), or is compiled, the trainer does not validate, or
            its strategy or precision cannot be used.

    Example::

        import lightning.pytorch as pl
        import torch
        from torch import nn
        from torch.utils.data import DataLoader, TensorDataset
        from lightning_nas import Adam, LayerChoice, RelaxedSearch

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
        project, search = Project(), RelaxedSearch(alphas_optimizer=Adam(0.1))
        pl.Trainer(max_epochs=1, callbacks=[search]).fit(project, loader, loader)
        project.net = search.freeze()
    """

    def __init__(
        self,
        relaxation: Relaxation | None = None,
        network: str | None = None,
        alphas_optimizer: Optimizer | None = None,
        n_calibration: int = 8,
        seed: int = 0,
    ) -> None:
        super().__init__(network, seed, n_calibration)
        self.relaxation = Relaxation.build(relaxation or Softmax(), "relaxation")
        self.alphas_optimizer = Optimizer.build(
            alphas_optimizer or Adam(3e-4, betas=(0.5, 0.999), weight_decay=1e-3), "alphas_optimizer"
        )
        self.n_steps = 0

    @property
    def runs_all(self) -> bool:
        return isinstance(self.relaxation, Softmax)  # others draw, or come to weights of zero

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        if self.space.no_relaxation:
            raise SettingError(f"network: {self.space.no_relaxation}; PathSearch can search them")
        if trainer.precision == "16-mixed":
            raise SettingError("trainer.precision: 32-true or bf16-mixed; 16-mixed does not scale the loss of alphas")
        if self.relaxation.anneals or self.alphas_optimizer.schedule is not None:
            checks.check_epochs(trainer)
        choices, seed = self.space.choices, derive_seed(self.seed, "alphas")
        self.alphas = nn.Parameter(drawn_logits(choices, 0.0, 1e-3, seed).to(module.device))
        self.present = present_options(choices).to(module.device)
        self.optimizer = self.alphas_optimizer.make([self.alphas])
        self.scheduler = self.alphas_optimizer.make_scheduler(self.optimizer, lambda: trainer.max_epochs or 1)
        self.n_steps = self._loaded.get("n_steps", 0)
        if self._loaded:
            self.alphas.data.copy_(self._loaded["alphas"])
            self.optimizer.load_state_dict(self._loaded["optimizer"])
            self.scheduler.load_state_dict(self._loaded["scheduler"])
        self._batches: Iterator[Any] | None = None

    # -- gates -------------------------------------------------------------------------------------------------------

    def probabilities(self) -> Tensor:
        """The weights of all options without noise, ``(n_choices, most options)``; zero where a choice has fewer."""
        return self.relaxation.expected(self.alphas, self.present).detach()

    def evaluation_gates(self, batch_idx: int) -> Gates:
        return by_choice(self.space.choices, self.probabilities())

    def relaxed_gates(self, trainer: Trainer, purpose: str, batch_idx: int) -> Tensor:
        """The weights of all options in a step, ``(n_choices, most options)``, with a gradient.

        Args:
            trainer: the trainer, which knows epoch and rank.
            purpose: what the step trains, so that steps on different things have different noise.
            batch_idx: the number of the step in its epoch.
        """
        epoch = trainer.current_epoch
        seed = derive_seed(self.seed, "relaxation", purpose, epoch, batch_idx, trainer.global_rank)
        generator = torch.Generator(self.alphas.device).manual_seed(seed)
        progress = epoch / max(1, (trainer.max_epochs or 1) - 1) if self.relaxation.anneals else 0.0
        return self.relaxation.weights(self.alphas, self.present, generator, progress)

    # -- steps -------------------------------------------------------------------------------------------------------

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.step_alphas(trainer, pl_module, batch_idx)
        weights = self.relaxed_gates(trainer, "weights", batch_idx).detach()
        self.run(by_choice(self.space.choices, weights))

    def step_alphas(self, trainer: Trainer, module: LightningModule, batch_idx: int) -> None:
        """One step of the alphas on the next batch of the validation data."""
        if self._batches is None:
            seed = derive_seed(self.seed, "architecture batches")
            self._batches = own_steps.held_out_batches(trainer, self.n_steps, seed)
        batch = next(self._batches)
        self.run(by_choice(self.space.choices, self.relaxed_gates(trainer, "architecture", batch_idx)))
        with batch_statistics(self._norms):
            returned = own_steps.run_step(trainer, module, batch, batch_idx)
        loss = own_steps.loss_of(returned, own_steps.loss_method(module).__name__)
        gradient = gradient_of(loss, self.alphas)
        apply_gradients(trainer, self.optimizer.step, [self.alphas], [gradient], self.alphas_optimizer.clip)
        self.n_steps += 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.scheduler.step()
        weights = self.probabilities()
        figures = {"arch/entropy": torch.special.entr(weights).sum(1).mean()}  # nats, mean over choices
        for choice, row in zip(self.space.choices, weights, strict=True):
            shares = zip(choice.options, row[: len(choice.options)], strict=True)
            figures |= {f"arch/{choice.name}/{option}": share for option, share in shares}
        pl_module.log_dict(figures, sync_dist=True)

    def best(self) -> Architecture:
        """The best architecture by the alphas as they are.

        Raises:
            SettingError: if they are not finite.
        """
        rows = by_choice(self.space.choices, self.probabilities()).values()
        if not bool(torch.isfinite(self.alphas).all()):
            raise SettingError("alphas: no longer finite; lower the lr of alphas_optimizer, or set its clip")
        return self.space.derive([row.tolist() for row in rows])  # type: ignore[union-attr]

    def state_dict(self) -> dict[str, Any]:
        if not hasattr(self, "alphas"):
            return super().state_dict()
        return super().state_dict() | {
            "alphas": self.alphas.detach().clone(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "n_steps": self.n_steps,
        }
