"""A search inside a user's own Lightning project: what both of its kinds share.

While a trainer fits the user's module, one architecture or a mixture of them runs in every batch. Which one is said by
a context variable, from the start of a batch to its end: for every call in ``training_step`` or ``validation_step``,
for both kinds of optimisation, and for the backward pass. Between batches, in hooks of the user's, the network runs as
it is validated. The end of the fit, by an exception too, takes everything back.
"""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import nn

from lightning_nas.callbacks import own_steps
from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import recalibrated
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import finite
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.spaces.base import Architecture, Gates, Space
from lightning_nas.spaces.own.choices import OwnChoice
from lightning_nas.spaces.own.freeze import freeze
from lightning_nas.spaces.own.network import OwnNetwork
from lightning_nas.spaces.own.running import Running
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.spaces.own.values import values_in


class OwnSearch(Callback, ABC):
    """Searches the choices in a user's module while the user's trainer fits it.

    Args:
        network: the attribute of the module that holds the network with the choices, ``net`` or ``model.encoder``;
            None: the attribute that all choices are in, or the module itself where they stand in several.
        seed: the seed of everything random in the search.
        n_calibration: training batches on which BatchNorm's running averages are taken for a single architecture, the
            same for all; those of the fit mix many architectures.

    Attributes:
        space: the space of the choices, from the start of the fit on.
    """

    space: OwnSpace

    def __init__(self, network: str | None, seed: int, n_calibration: int) -> None:
        if n_calibration < 1:
            raise SettingError(f"n_calibration: at least 1, got {n_calibration}")
        self.network, self.seed, self.n_calibration = network, seed, n_calibration
        self._fit, self._batch, self._validation = (contextlib.ExitStack() for _ in range(3))
        self._loaded: dict[str, Any] = {}
        self._frozen: nn.Module | None = None

    # -- what a kind of search says ----------------------------------------------------------------------------------

    @abstractmethod
    def best(self) -> Architecture:
        """The architecture that the search would return now."""
        raise NotImplementedError

    @abstractmethod
    def evaluation_gates(self, batch_idx: int) -> Gates:
        """How the network is run for validation, as the search stands.

        Args:
            batch_idx: the number of the validation batch.
        """
        raise NotImplementedError

    @property
    @abstractmethod
    def runs_all(self) -> bool:
        """Whether all weights of the network take part in every step."""
        raise NotImplementedError

    def begin(self, trainer: Trainer, module: LightningModule) -> None:
        """Begins the search in a fit that begins, with the state that a checkpoint brought, if it did."""

    def choose(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        """Makes the choice when the training is done, and says the figures of what was chosen, by name."""
        return {}

    # -- the fit -----------------------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._leave()  # of a fit that was killed
        self._folder = Path(trainer.log_dir or trainer.default_root_dir)  # asking involves all ranks
        self.space = OwnSpace(_holding_choices(pl_module, self.network))
        self._check(trainer, pl_module)
        self._own: OwnNetwork = self._fit.enter_context(self.space.in_place())
        self._norms = own_steps.trained_norms(pl_module)
        self._frozen = None
        self.begin(trainer, pl_module)
        self._loaded = {}
        self.run(self.evaluation_gates(0))

    def run(self, gates: Gates) -> None:
        """Has the user's network run under the gates from now on."""
        self._batch.close()
        self._batch.enter_context(Running(self.space, gates).active())

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._norms = own_steps.trained_norms(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.run(self.evaluation_gates(0))

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if trainer.state.fn == "fit":
            self.run(self.evaluation_gates(batch_idx))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit":
            self._validation.close()
            self.run(self.evaluation_gates(0))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        figures = self.choose(trainer, pl_module)
        best = self.best()
        with self.calibrated(trainer, pl_module, best), own_steps.set_aside(pl_module):
            self._norms.train()  # as they were in the fit
            self._frozen = freeze(self._own, best)
        for logger in trainer.loggers:
            logger.log_metrics({f"arch/{name}": value for name, value in figures.items()}, trainer.global_step)
        if trainer.is_global_zero:
            said = "".join(f"; {name} {value:.4g}" for name, value in figures.items())
            print(f"\n{type(self).__name__} found {self.space.describe(best)}{said}")
            space = _of_class(self.space)
            if space is not None and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                found = ArchitectureRecord(space, best, finite(figures), type(self).__name__, self.seed)
                found.save(RunFolder(self._folder).architecture)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit":
            self._leave()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._leave()

    def _leave(self) -> None:
        """Leaves the user's module as it was, but for the weights."""
        for stack in (self._validation, self._batch, self._fit):
            stack.close()

    # -- single architectures ----------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def calibrated(self, trainer: Trainer, module: LightningModule, architecture: Architecture) -> Iterator[None]:
        """Inside, one architecture runs, with BatchNorm's running averages of its own, those of all ranks.

        Args:
            trainer: the trainer of the user, which has trained.
            module: the module of the user.
            architecture: the architecture that runs.
        """
        batches: Sequence[Any] = ()
        if len(self._norms):
            seed = derive_seed(self.seed, "calibration")
            batches = own_steps.training_batches(trainer, self.n_calibration, seed)
        numbers = iter(range(len(batches)))
        self.run(self.space.gates(architecture))
        with recalibrated(
            self._norms, lambda batch: own_steps.run_step(trainer, module, batch, next(numbers)), batches
        ):
            for norm in self._norms:
                for name in ("running_mean", "running_var"):
                    getattr(norm, name).copy_(trainer.strategy.reduce(getattr(norm, name), reduce_op="mean"))
            yield
        self.run(self.evaluation_gates(0))

    def freeze(self) -> nn.Module:
        """The network of the best architecture as an ordinary module with the weights of the search, which can take the
        place of the one with choices: ``module.net = search.freeze()``. Each call makes a copy.

        Raises:
            SettingError: if no fit has come to its end.
        """
        if self._frozen is None:
            raise SettingError("freeze: a network that was searched; let trainer.fit come to its end first")
        like = next(self._own.parameters(), torch.empty(0))  # which the trainer may have moved since
        return copy.deepcopy(self._frozen).to(like.device)

    # -- state -------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        return {"seed": self.seed, "choices": self.space.all_choices if hasattr(self, "space") else []}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["seed"] != self.seed:
            raise SettingError(f"seed: {state_dict['seed']} as in the checkpoint, got {self.seed}")
        self._loaded = state_dict

    # -- what is refused ---------------------------------------------------------------------------------------------

    def _check(self, trainer: Trainer, module: LightningModule) -> None:
        """Refuses a project that the search cannot run in.

        Raises:
            SettingError: naming what cannot be used, and what can.
        """
        name = type(self).__name__
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        known = self._loaded.get("choices")
        if known and known != self.space.all_choices:
            raise SettingError("network: the choices that the checkpoint has; there are others in it now")
        if sum(isinstance(callback, OwnSearch) for callback in callbacks) > 1:
            raise SettingError("trainer.callbacks: one search at a time; what is found together is one network")
        if getattr(module, "_compiler_ctx", None) or any(map(_is_compiled, module.modules())):
            raise SettingError("network: one that is not compiled, since other parts of it run in every batch")
        if is_param_in_hook_signature(module.training_step, "dataloader_iter", explicit=True):
            raise SettingError(f"training_step: one that is handed its batch, for {name}, and not dataloader_iter")
        if not trainer.enable_validation:
            raise SettingError(f"data: {name} chooses on validation data; it needs a loader, and a validation_step")
        self._check_strategy(trainer)

    def _check_strategy(self, trainer: Trainer) -> None:
        strategy = trainer.strategy
        if isinstance(strategy, SingleDeviceStrategy):
            return
        if not isinstance(strategy, DDPStrategy) or strategy._start_method != "popen":
            name = type(strategy).__name__  # processes that are forked or spawned keep what they find to themselves
            raise SettingError(f"trainer.strategy: auto, or ddp by processes of their own (torchrun), got {name}")
        if strategy._ddp_kwargs.get("static_graph"):
            raise SettingError("trainer.strategy: ddp without static_graph, since other parts run in every batch")
        if not (self.runs_all or strategy._ddp_kwargs.get("find_unused_parameters")):
            raise SettingError("trainer.strategy: ddp_find_unused_parameters_true, since a batch leaves weights unused")


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def _holding_choices(module: LightningModule, path: str | None) -> nn.Module:
    """The network with the choices in a user's module."""
    if path is not None:
        try:
            return module.get_submodule(path)
        except AttributeError as error:
            name = type(module).__name__
            raise SettingError(f"network: an attribute of {name} that is a module, got {path!r}") from error
    own = [child for child in module.children() if any(map(_chooses, child.modules()))]
    here = len(own) != 1 or isinstance(own[0], OwnChoice) or _chooses(module)
    return module if here else own[0]


def _chooses(module: nn.Module) -> bool:
    """Whether a module itself is a choice, or keeps a number that is chosen."""
    return isinstance(module, OwnChoice) or any(values_in(held) for held in vars(module).values())


def _of_class(space: OwnSpace) -> Space | None:
    """The space as a file can name it, by the class of its network; None where that wants arguments, or has other
    choices."""
    try:
        named = OwnSpace(space.source.network_class)
    except Exception:  # whatever a user's constructor raises
        return None
    return named if named.choices == space.choices else None
