"""What searches share that relax choices: alphas, how gates come from them, and what is read off them."""

import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.func import functional_call

from lightning_nas.errors import SettingError
from lightning_nas.methods.base import OneShotMethod
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.relaxations import Relaxation
from lightning_nas.relaxations.logits import by_choice, drawn_logits, gradient_of, present_options
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Architecture, Gates, Space
from lightning_nas.supernets.scoring import Statistics
from lightning_nas.tasks import Task
from lightning_nas.training import checks
from lightning_nas.training.optimizers import Optimizer

Weights = Mapping[str, Tensor]
"""Weights of a network by their names."""


class DifferentiableMethod(OneShotMethod):
    """A search that learns logits of all options, ``alphas``, through gates that a relaxation makes of them.

    A subclass says when which side is trained: ``training_step``. Its gates of the weights' steps are drawn for every
    step and rank and have no gradient; :meth:`relaxed_weights` have one.

    Args:
        space: the search space; any whose network takes weights as gates.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where random architectures are scored under the shared weights in the end.
        relaxation: how the weights of a choice's options come from its alphas.
        optimizer: what trains the weights.
        alphas_optimizer: what trains the alphas.
        alphas_mean, alphas_std: the mean and deviation of the normal distribution that alphas begin with.

    Attributes:
        alphas: the logits, ``(n_choices, most options)``.
        present: which of their entries are options, booleans of the same shape.
    """

    remedy = "lower the lr of optimizer or alphas_optimizer, or set the optimizer's clip"

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None,
        inputs: dict[str, int] | None,
        seed: int,
        bn: Statistics,
        relaxation: Relaxation,
        optimizer: Optimizer,
        alphas_optimizer: Optimizer,
        alphas_mean: float = 0.0,
        alphas_std: float = 1e-3,
    ) -> None:
        super().__init__(space, task, network, inputs, seed, bn)
        if self.space.no_relaxation:
            searched = type(self.space).__name__
            raise SettingError(f"space: {self.name} cannot search {searched}; {self.space.no_relaxation}")
        self.relaxation = Relaxation.build(relaxation, "relaxation")
        self.optimizer = self.recorded("optimizer", optimizer)
        self.alphas_optimizer = self.recorded("alphas_optimizer", alphas_optimizer)
        self.alphas_mean, self.alphas_std = alphas_mean, alphas_std
        self.begin_alphas("alphas")

    def begin_alphas(self, *purpose: int | str) -> None:
        """Makes the alphas that a search of the space begins with.

        Args:
            purpose: what their seed is derived for.
        """
        choices, seed = self.space.choices, derive_seed(self.seed, *purpose)
        self.alphas = nn.Parameter(drawn_logits(choices, self.alphas_mean, self.alphas_std, seed))
        self.present: Tensor
        self.register_buffer("present", present_options(choices), persistent=False)

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        super().check(trainer, data, checkpoint)
        if self.relaxation.anneals:
            checks.check_epochs(trainer)

    # -- gates -------------------------------------------------------------------------------------------------------

    def probabilities(self) -> Tensor:
        """The weights of all options without noise, ``(n_choices, most options)``; zero where a choice has fewer."""
        return self.relaxation.expected(self.alphas, self.present)

    def gates(self) -> Gates:
        return self.by_choice(self.probabilities())

    def relaxed_weights(self, purpose: str, batch_idx: int) -> Tensor:
        """The weights of all options in a step, ``(n_choices, most options)``, with a gradient.

        Args:
            purpose: what the step trains, so that steps on different things have different noise.
            batch_idx: the number of the step in its epoch.
        """
        generator = self.generator(purpose, batch_idx)
        return self.relaxation.weights(self.alphas, self.present, generator, self.progress)

    def generator(self, purpose: str, batch_idx: int) -> torch.Generator:
        """The noise of a step, always the same for the same step; every rank has its own."""
        seed = derive_seed(self.seed, "relaxation", purpose, self.current_epoch, batch_idx, self.global_rank)
        return torch.Generator(self.device).manual_seed(seed)

    @property
    def progress(self) -> float:
        """How much of the search is done: 0 in the first epoch, 1 in the last."""
        return self.epoch / max(1, self.n_epochs - 1) if self.relaxation.anneals else 0.0

    def training_gates(self, batch_idx: int) -> Gates:
        return self.by_choice(self.relaxed_weights("weights", batch_idx).detach())

    def by_choice(self, weights: Tensor) -> Gates:
        """The rows of weights ``(n_choices, most options)`` as gates."""
        return by_choice(self.space.choices, weights)

    # -- what the search says ----------------------------------------------------------------------------------------

    def choice_weights(self) -> list[list[float]]:
        return [gate.detach().tolist() for gate in self.gates().values()]  # type: ignore[union-attr]

    def best(self) -> Architecture:
        self.check_finite("alphas", [self.alphas])
        return self.space.derive(self.choice_weights())

    @property
    def figures(self) -> list[str]:
        kinds = {choice.cell or "cell": None for choice in self.space.choices if "skip_connect" in choice.options}
        of_alphas = ["train/architecture_loss"] if "architecture" in self.trained_on else []
        return [*super().figures, "arch/entropy", *(f"arch/{kind}_skips" for kind in kinds), *of_alphas]

    # -- the alphas' step --------------------------------------------------------------------------------------------

    def step_alphas(self, batch: dict[str, Any], batch_idx: int) -> None:
        """One step of the alphas on a batch of the architecture part; their optimiser is the second."""
        _, alphas_optimizer = self.optimizers()  # type: ignore[attr-defined]
        loss, gradient = self.architecture_gradient(batch, batch_idx)
        self.apply_gradients(alphas_optimizer, [self.alphas], [gradient], self.alphas_optimizer.clip)
        self.log("train/architecture_loss", loss)

    def architecture_gradient(self, batch: dict[str, Any], batch_idx: int) -> tuple[Tensor, Tensor]:
        """Loss on the architecture batch and its gradient with respect to the alphas, at the weights as they are; no
        state of the network moves."""
        fixed = {name: weight.detach() for name, weight in self.network.named_parameters()}
        with batch_statistics(self.network):
            loss = self.loss_at(fixed, batch, "architecture", batch_idx)
        return loss.detach(), gradient_of(loss, self.alphas)

    def loss_at(self, weights: Weights, batch: dict[str, Any], stream: str, batch_idx: int) -> Tensor:
        """The loss of an architecture step at these weights of the network. All losses of a step see the same gates and
        the same dropout, and the carry of the weights' stream stays: their own step continues from it."""

        def network(*args: Any, **kwargs: Any) -> Any:
            return functional_call(self.network, dict(weights), args, kwargs)

        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            forward = partial(network, gates=self.by_choice(self.relaxed_weights("architecture", batch_idx)))
            return self.loss(forward, batch[stream], stream, advance=stream == "architecture")

    def configure_optimizers(self) -> Any:
        return self.optimized((self.optimizer, self.trained), (self.alphas_optimizer, [self.alphas]))

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self._log_skips()
        entropy = torch.special.entr(self.probabilities().detach()).sum(1).mean()
        self.log("arch/entropy", entropy, sync_dist=True)  # nats, mean over choices

    def _log_skips(self) -> None:
        """Counts identity edges, and warns where they have taken a cell over (not while alphas are about even)."""
        kept: dict[str, list[bool]] = {}  # by kind of cell, for each edge whether it is a clear skip
        skips: dict[str, int] = {}
        able = {choice.cell for choice in self.space.choices if "skip_connect" in choice.options}
        for choice, option, row in zip(self.space.choices, self.best(), self.choice_weights(), strict=True):
            kind, name = choice.cell or "cell", choice.options[option]
            if name != "none" and choice.kind == "operation" and choice.cell in able:
                skips[kind] = skips.get(kind, 0) + (name == "skip_connect")
                kept.setdefault(kind, []).append(name == "skip_connect" and row[option] > 1.5 / len(row))
        for kind, clear in kept.items():
            self.log(f"arch/{kind}_skips", float(skips[kind]), sync_dist=True)
            if 2 * sum(clear) > len(clear):
                warnings.warn(
                    f"the {kind} cell has collapsed: {sum(clear)} of its {len(clear)} edges are skip_connect, as "
                    "happens in long searches; search for fewer epochs, or see architectures.csv for earlier cells",
                    stacklevel=1,
                )
