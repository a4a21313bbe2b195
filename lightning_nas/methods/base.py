"""What search methods share: explicit gradients, and the validation of a network that holds all architectures."""

import contextlib
from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor

from lightning_nas.data import AnyData, DataModule, Schedule
from lightning_nas.errors import SettingError
from lightning_nas.methods.conclusion import conclusion
from lightning_nas.objectives import Objective
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import SearchOutcome
from lightning_nas.spaces.base import Architecture, Gates, Space
from lightning_nas.supernets.limits import Limits
from lightning_nas.supernets.scoring import Statistics
from lightning_nas.tasks import Task
from lightning_nas.training.gradients import apply_gradients
from lightning_nas.training.module import Module, NetworkModule


class Method(Module, ABC):
    """A search: it finds an architecture of a space.

    Attributes:
        space: the space that is searched.
        seed: the seed of everything random in the search.
    """

    job = "search"

    space: Space
    seed: int

    def best(self) -> Architecture | None:
        """The architecture that the search would return now; None where it takes a look at data to say."""
        return None

    def choice_weights(self) -> list[list[float]] | None:
        """For each choice the weight of each option, for pictures; None where the method has none."""
        return None

    def setup(self, stage: str) -> None:
        if stage == "test":
            raise SettingError(
                "trainer.test: a search has no trained network to test; retrain the architecture that it found "
                "(Retrain), and test that"
            )
        super().setup(stage)

    def test_step(self, *args: Any) -> None:
        """Is there for the trainer to come as far as :meth:`setup`, which says what to test instead."""


class OneShotMethod(NetworkModule, Method):
    """A search in one network that holds all architectures. A subclass owns what is learnt about architectures and says
    how gates come from it.

    It implements :meth:`training_gates`, :meth:`gates` or ``validation_step``, :meth:`best` or :meth:`choose`, and
    ``configure_optimizers``. It overrides :meth:`training_step` (one call per step of its schedule, all of its updates
    inside) where more than the weights are trained, and may override :meth:`schedule`. All gradients come from
    ``torch.autograd.grad`` and are applied by :meth:`apply_gradients`, the one place where ranks are averaged.

    Args:
        space: the space that is searched.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: the seed of everything random in the search.
        bn: how BatchNorm normalises where single architectures are scored under the shared weights. ``recalibrate``: by
            statistics of the architecture's own, taken on training batches; ``batch``: by the batch, as reference
            implementations do, in validation too. Recurrent cells, all of whose states share a BatchNorm, need the
            latter: averages over states are those of none.
    """

    derivable: ClassVar[bool] = True
    trained_on: ClassVar[tuple[str, ...]] = ("weights", "architecture")
    """The parts of the data whose batches lie side by side in every step."""

    validation_part = "architecture"
    adjustable = frozenset({"bn"})
    precisions = ("32-true", "bf16-mixed")
    precision_reason = (
        "16-mixed scales the loss, which explicit gradients do not undo, and parameters of 16 bits lose small steps"
    )
    refused_settings = NetworkModule.refused_settings | {
        "accumulate_grad_batches": "a search takes its steps by itself; set a larger data.batch_size",
        "gradient_clip_val": "a search clips by itself; set model.optimizer.clip",
        "gradient_clip_algorithm": "a search clips by itself, by the norm; set model.optimizer.clip",
    }
    refused_callbacks = NetworkModule.refused_callbacks | {
        "GradientAccumulationScheduler": "has no effect on a search, which takes its steps by itself; set a larger "
        "data.batch_size",
        "WeightAveraging": "averages the weights of all steps alike, the first ones too; use EMAWeightAveraging",
        "EMAWeightAveraging": "",
        "NonMonotoneAveraging": "follows val/loss, which a search does not have; use EMAWeightAveraging",
        "SpikeDetection": "reads the loss that a training step returns, and a search returns none; leave it out",
    }

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
    ) -> None:
        super().__init__(Space.build(space, "space"), "search", Task.build(task, "task"), network, inputs, seed)
        if bn not in get_args(Statistics):
            raise SettingError(f"bn: {' or '.join(get_args(Statistics))}, got {bn!r}")
        self.bn = bn
        self.automatic_optimization = False

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        super().check(trainer, data, checkpoint)
        if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
            name = type(trainer.strategy).__name__
            raise SettingError(
                f"trainer.strategy: auto or ddp, got {name}; a search takes gradients of whole parameters by itself"
            )

    # -- what a method defines ---------------------------------------------------------------------------------------

    def training_gates(self, batch_idx: int) -> Gates | Sequence[Gates]:
        """How the network is run in a step of the weights, a function of seed, epoch, step and rank.

        Args:
            batch_idx: the number of the step in its epoch.

        Returns:
            gates, or several: then the step goes by the mean of their losses.
        """
        raise NotImplementedError

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """A step of the weights on the batch of the weights part; the network's optimiser is the first."""
        optimizers = self.optimizers()
        optimizer = optimizers[0] if isinstance(optimizers, list) else optimizers
        gates = self.training_gates(batch_idx)
        network = self.dropping_paths(batch_idx / self.trainer.num_training_batches)
        several = [gates] if isinstance(gates, Mapping) else gates
        self.step_weights(optimizer, batch["weights"], *several, network=network)

    def gates(self) -> Gates:
        """How the network is run for validation, as the search stands."""
        raise NotImplementedError

    limits: Sequence[str | Objective] = ()
    """Limits that its settings set to what it finds."""

    def choose(
        self, data: AnyData, *, limits: Sequence[str | Objective] | Limits = ()
    ) -> tuple[Architecture, dict[Architecture, float]]:
        """The architecture that the finished search returns, and the scores of the candidates that it looked at.

        Args:
            data: what the search was fitted on.
            limits: what the final network may cost, such as ``["n_params <= 2e6"]``
                (:class:`~lightning_nas.supernets.limits.Limits`).
        """
        best, limits = self.best(), Limits.of(self, limits)
        assert best is not None  # a method that does not know its best overrides this
        return self.best_within(limits) if limits else best, {}

    def best_within(self, limits: Limits) -> Architecture:
        """The architecture that the search would return now of those that keep limits: that with the highest total
        weight, exactly where what is limited is a sum over choices or nodes (:meth:`Limits.cheapest`)."""
        weights = self.choice_weights()
        if weights is None:
            raise SettingError(f"limits: {self.name} says of no other architecture than its best how good it is")
        return self.space.derive(weights, limits.cheapest)

    def conclude(
        self, data: DataModule, run: RunFolder, n_random: int, limits: Sequence[str | Objective] | Limits = ()
    ) -> SearchOutcome:
        """Takes the best architecture, compares it with random ones under the same shared weights, and writes files.

        Args:
            data: the data module that it was trained on.
            run: the folder where it writes.
            n_random: how many random architectures it is compared with, which keep the limits too.
            limits: what the final network may cost, as :meth:`choose` takes it.
        """
        outcome = conclusion(self, data, run, n_random, Limits.of(self, limits))
        outcome.write()
        return outcome

    def as_one(self) -> Callable[..., Any]:
        return partial(self.network, gates=self.space.gates(self.space.random(Random(0))))

    def best_of(
        self, data: DataModule, drawn: Sequence[Architecture], scores: dict[Architecture, float]
    ) -> Architecture:
        """The best of random architectures, given their scores, best first."""
        return next(a for a in scores if a in drawn)

    def schedule(self, data: DataModule) -> Schedule:
        """By default a batch of each part in ``trained_on`` in every step; an epoch is a pass over the weights part."""
        streams = {part: self.stream(data, part) for part in self.trained_on}
        return Schedule(streams, len(streams["weights"]), self.position, num_workers=data.num_workers)

    # -- what it is given --------------------------------------------------------------------------------------------

    @property
    def figures(self) -> list[str]:
        validated = [f"val/supernet_{name}" for name in ("loss", *self.metric_names)] if self.validates else []
        return [*super().figures, *validated]

    def apply_gradients(
        self,
        optimizer: LightningOptimizer,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor | None],
        clip: float | None = None,
        counted: bool = False,
    ) -> None:
        """Averages gradients over ranks, clips them together to the norm ``clip`` and takes a step.

        A parameter whose gradient is None on every rank is left alone, weight decay and momentum included. Just
        ``counted`` steps advance the trainer's global step, so that it counts batches.
        """
        step = optimizer.step if counted else optimizer.optimizer.step
        apply_gradients(self.trainer, step, parameters, gradients, clip)

    def step_weights(
        self,
        optimizer: LightningOptimizer,
        batch: Any,
        *gates: Gates,
        network: Callable[..., Any] | None = None,
        parameters: Sequence[Tensor] = (),
        loss: Callable[[Gates], Tensor] | None = None,
    ) -> list[Tensor | None]:
        """One step of the shared weights on a batch of the weights part, by the mean loss over some gates.

        What runs under none of them stays as it is.

        Args:
            optimizer: the optimiser of the network's weights.
            batch: a batch of the weights part.
            gates: how the network is run, each time by itself.
            network: what is called in the network's place, with the same arguments; None: the network.
            parameters: further parameters, such as alphas, of which only the gradients are wanted.
            loss: a term that is added to the task's loss under some gates; None: there is none.

        Returns:
            the gradients of ``parameters`` for :meth:`apply_gradients`; None where there is none.
        """
        weights = self.trained
        wanted = [*weights, *parameters]
        losses: list[Tensor] = []
        gradients: list[Tensor | None] = [None] * len(wanted)
        for number, each in enumerate(gates, start=1):  # one graph at a time
            advance = number == len(gates)
            forward = partial(network or self.network, gates=each)
            of_task = self.loss(forward, batch, "weights", self.train_metrics, advance)
            total = of_task if loss is None else of_task + loss(each)
            new = torch.autograd.grad(total / len(gates), wanted, allow_unused=True)
            gradients = [b if a is None else a if b is None else a + b for a, b in zip(gradients, new, strict=True)]
            losses.append(of_task.detach())
        self.apply_gradients(optimizer, weights, gradients[: len(weights)], self.optimizer.clip, counted=True)
        self.log("train/loss", torch.stack(losses).mean(), prog_bar=True)
        self.log_train_metrics()
        return gradients[len(weights) :]

    def log_train_metrics(self) -> None:
        """Metrics of the weights' steps for the whole epoch; in every step, so that a resumed epoch has them too."""
        self.log_dict({f"train/{k}": v for k, v in self.train_metrics.items()}, on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        for scheduler in self.schedulers():
            scheduler.step()

    # -- the search network, used as it stands -----------------------------------------------------------------------

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network of the best architecture says under the shared weights, with the network's own arguments;
        BatchNorm normalises by the batch. It is a look at the search: who wants predictions retrains.

        Raises:
            SettingError: if it takes data to say which architecture is the best, or there is no network yet.
        """
        self.check_built()
        with batch_statistics(self.network):
            return super().forward(*args, gates=self.space.gates(self.known_best()), **kwargs)

    def known_best(self) -> Architecture:
        """The best architecture, where it takes no data to say it.

        Raises:
            SettingError: if it does, saying how the network is run.
        """
        best = self.best()
        if best is None:
            raise SettingError(
                f"{type(self).__name__} knows its best architecture after choose(data) alone; call "
                "search.network(x, gates=search.space.gates(architecture)), or retrain it (Retrain)"
            )
        return best

    def on_predict_start(self) -> None:
        self.known_best()

    # -- validation of the search network ----------------------------------------------------------------------------

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with batch_statistics(self.network) if self.bn == "batch" else contextlib.nullcontext():
            self.validate_under(self.gates(), batch)

    def validate_under(self, gates: Gates, batch: Any) -> None:
        """Logs loss and metrics of the search network on a validation batch."""
        # "supernet": these are figures of the shared weights under some gates, not of a trained architecture
        loss = self.loss(partial(self.network, gates=gates), batch, "validation", self.val_metrics, advance=True)
        self.log("val/supernet_loss", loss, sync_dist=True)
        self.log_dict({f"val/supernet_{name}": metric for name, metric in self.val_metrics.items()}, prog_bar=True)
