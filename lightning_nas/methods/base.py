"""What search methods share: explicit gradients, and the validation of a network that holds all architectures."""

import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from lightning_nas.data import DataModule, Schedule
from lightning_nas.errors import SettingError
from lightning_nas.evaluators.shared_weights import Statistics
from lightning_nas.module import Module, NetworkModule
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.spaces.base import Architecture, Gates, Space
from lightning_nas.tasks import Task


class Method(Module):
    """A search: it finds an architecture of a space.

    Attributes:
        space: the search space.
        seed: of everything random in the search.
    """

    space: Space
    seed: int

    @property
    def name(self) -> str:
        """What the search is called in files and pictures."""
        return type(self).__name__

    def best(self) -> Architecture | None:
        """The architecture that the search would return now; None where it takes a look at data to say."""
        return None

    def choice_weights(self) -> list[list[float]] | None:
        """For each choice the weight of each option, for pictures; None where the method has none."""
        return None

    def schedule(self, data: DataModule) -> Any:
        """What is trained on: what a trainer gets for training batches."""
        raise NotImplementedError


class OneShotMethod(NetworkModule, Method):
    """A search in one network that holds all architectures. A subclass owns what is learnt about architectures and says
    how gates come from it.

    It implements ``training_step`` (one call per step of its schedule, all of its updates inside), :meth:`gates` or
    ``validation_step``, :meth:`best` or :meth:`choose`, and ``configure_optimizers``, and may override
    :meth:`schedule`. All gradients come from ``torch.autograd.grad`` and are applied by :meth:`apply_gradients`, the
    one place where ranks are averaged.

    Args:
        space: the search space.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data; None: asked of the data module.
        seed: of everything random in the search.
        bn: how BatchNorm normalises where single architectures are scored under the shared weights. ``recalibrate``: by
            statistics of the architecture's own, taken on training batches; ``batch``: by the batch, as reference
            implementations do, in validation too. Recurrent cells, all of whose states share a BatchNorm, need the
            latter: averages over states are those of none.
    """

    validation_part = "architecture"
    gradient_clip: float | None = None
    remedy = "lower model.lr, or set model.gradient_clip"

    def __init__(
        self,
        space: Space,
        task: Task,
        network: dict[str, Any] | None = None,
        inputs: dict[str, int] | None = None,
        seed: int = 0,
        bn: Statistics = "recalibrate",
    ) -> None:
        super().__init__(Space.build(space), "search", Task.build(task), network, inputs, seed)
        if bn not in get_args(Statistics):
            raise SettingError(f"model.bn: {' or '.join(get_args(Statistics))}, got {bn!r}")
        self.bn = bn
        self.automatic_optimization = False

    # -- what a method defines ---------------------------------------------------------------------------------------

    def gates(self) -> Gates:
        """How the network is run for validation, as the search stands."""
        raise NotImplementedError

    def choose(self, data: DataModule) -> tuple[Architecture, dict[Architecture, float]]:
        """The architecture that the finished search returns, and the scores of the candidates that it looked at."""
        best = self.best()
        assert best is not None  # a method that does not know its best overrides this
        return best, {}

    def schedule(self, data: DataModule) -> Schedule:
        """By default a batch of weights and architecture part side by side in every step; one epoch is a pass over the
        weights part."""
        streams = {part: data.stream(part, self.seed) for part in ("weights", "architecture")}
        return Schedule(streams, len(streams["weights"]), self.position, num_workers=data.num_workers)

    # -- what it is given --------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        if stage == "fit" and str(self.trainer.precision) == "16-mixed":
            raise MisconfigurationException(
                "trainer.precision: 16-mixed scales the loss, which explicit gradients do not undo; take bf16-mixed"
            )

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
        for parameter, gradient in zip(parameters, self._reduced(parameters, gradients), strict=True):
            parameter.grad = gradient
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        if counted:
            optimizer.step()
        else:
            optimizer.optimizer.step()
        for parameter in parameters:
            parameter.grad = None

    def _reduced(self, parameters: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        if self.trainer.world_size == 1:
            return gradients
        reduce = self.trainer.strategy.reduce
        used = reduce(torch.tensor([g is not None for g in gradients], device=self.device).float(), reduce_op="sum")
        dense = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, gradients, strict=True)]
        flat = reduce(torch.cat([gradient.reshape(-1) for gradient in dense]), reduce_op="mean")
        parts = flat.split([gradient.numel() for gradient in dense])
        return [
            part.view_as(gradient) if n else None for part, gradient, n in zip(parts, dense, used.tolist(), strict=True)
        ]

    def step_weights(
        self, optimizer: LightningOptimizer, batch: Any, *gates: Gates, network: Callable[..., Any] | None = None
    ) -> None:
        """One step of the shared weights on a batch of the weights part, by the mean loss over some gates.

        What runs under none of them stays as it is. ``network`` is called in the network's place.
        """
        parameters = list(self.network.parameters())
        losses: list[Tensor] = []
        gradients: list[Tensor | None] = [None] * len(parameters)
        for number, each in enumerate(gates, start=1):  # one graph at a time
            advance = number == len(gates)
            forward = partial(network or self.network, gates=each)
            loss = self.loss(forward, batch, "weights", self.train_metrics, advance)
            new = torch.autograd.grad(loss / len(gates), parameters, allow_unused=True)
            gradients = [b if a is None else a if b is None else a + b for a, b in zip(gradients, new, strict=True)]
            losses.append(loss.detach())
        loss = torch.stack(losses).mean()
        self.apply_gradients(optimizer, parameters, gradients, self.gradient_clip, counted=True)
        self.log("train/loss", loss, prog_bar=True)
        self.log_train_metrics()

    def log_train_metrics(self) -> None:
        """Metrics of the weights' steps for the whole epoch; in every step, so that a resumed epoch has them too."""
        self.log_dict({f"train/{k}": v for k, v in self.train_metrics.items()}, on_step=False, on_epoch=True)

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.lr_schedulers().step()  # type: ignore[union-attr]

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


class SamplingMethod(OneShotMethod):
    """A search whose weights are trained on the paths of single architectures that it draws.

    In the end it compares ``n_candidates`` of them.
    """

    n_candidates: int

    def draw(self, *purpose: int | str) -> Architecture:
        """An architecture as the search draws them now, a function of the purpose and the same on all ranks."""
        raise NotImplementedError

    def choose(
        self, data: DataModule, candidates: Sequence[Architecture] | None = None
    ) -> tuple[Architecture, dict[Architecture, float]]:
        """Chooses among candidates that it draws, or in the same way among those given. The scores are of all."""
        raise NotImplementedError

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """An architecture per batch. The running averages belong to none of them, so the batch's own are taken."""
        architecture = self.draw("validation", self.current_epoch, batch_idx)
        with batch_statistics(self.network):
            self.validate_under(self.space.gates(architecture), batch)
