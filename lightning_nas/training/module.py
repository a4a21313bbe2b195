"""What a search and a retraining share: plain hyper-parameters, a network that fits the data, seeded steps, carries."""

import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MetricCollection

from lightning_nas.data import AnyData, DataModule, OwnData, Scheduled, Stream, Window, as_data
from lightning_nas.errors import Diverged, SettingError
from lightning_nas.lazy import root
from lightning_nas.operations import own_operations
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import Outcome
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.base import Network, Space
from lightning_nas.spaces.own.space import OwnSpace
from lightning_nas.specs import Configurable, check_arguments, class_path
from lightning_nas.tasks import Carry, Task
from lightning_nas.training import checks
from lightning_nas.training.drop_path import DropPathSchedule, drop_path_at
from lightning_nas.training.optimizers import Optimizer
from lightning_nas.training.own_data import adopted, handed, try_batches
from lightning_nas.training.teachers import Teachers


class Module(Configurable, Scheduled, LightningModule):
    """A ``LightningModule`` whose hyper-parameters are plain values, so that a checkpoint loads with
    ``weights_only=True`` and rebuilds it."""

    job: ClassVar[Literal["search", "retrain"]] = "retrain"
    """What kind of run it makes, for W&B."""

    derivable: ClassVar[bool] = False
    """Whether its checkpoint has an architecture to derive."""

    has_network: ClassVar[bool] = True
    """Whether it has layers, which can be summarised and validated."""

    precisions: ClassVar[tuple[str, ...]] = ()
    """The trainer's precisions in which it can be computed, and in ``precision_reason`` why no other; empty: all."""

    precision_reason: ClassVar[str] = ""

    refused_settings: ClassVar[dict[str, str]] = {
        "barebones": "it keeps no checkpoint and no figure; leave it out, or use the trainer from Python",
        "sync_batchnorm": "networks weight what BatchNorm puts out, which PyTorch's synchronised one cannot; leave it "
        "out, and every device normalises by its own batch",
    }
    """By the name of a setting of the trainer why it has no effect here, or a wrong one, and what to use instead."""

    refused_callbacks: ClassVar[dict[str, str]] = {
        "BatchSizeFinder": "trains on batches of other sizes than data.batch_size, by which the data are divided; set "
        "data.batch_size",
        "LearningRateFinder": "sets a rate that the optimizer's schedule does not know of; set the optimizer's lr",
        "BaseFinetuning": "freezes layers of a trained network, and here all begin untrained; leave it out",
        "StochasticWeightAveraging": "copies the network before it is built for the data, and so averages nothing; use "
        "EMAWeightAveraging",
        "OwnSearch": "searches in a LightningModule of your own, from Python; here the method is what searches",
        "ModelPruning": "looks for layers before the network is built for the data; prune the trained network instead",
    }
    """By the name of a callback of Lightning what it would do wrong here, and what to use instead."""

    frozen: ClassVar[dict[str, frozenset[str]]] = {}
    """By the name of an argument, or ``data``, what alone may change in that object where a run continues, whatever
    its class declares."""

    @property
    def name(self) -> str:
        """What the run is called in files and pictures."""
        return type(self).__name__

    @property
    def run_name(self) -> str:
        """What its run's folder is called, before the number."""
        return self.name.lower()

    @property
    def figures(self) -> list[str]:
        """The names of the figures that it logs, which callbacks can follow. A subclass adds its own."""
        return []

    @property
    def fits(self) -> bool:
        """Whether a trainer trains it, rather than testing it, and it is not loaded alone."""
        return self._trainer is not None and self._trainer.state.fn == "fit"

    @property
    def draws_bars(self) -> bool:
        """Whether what takes long draws a bar: as the trainer does; without a trainer, it does."""
        return self._trainer is None or self._trainer.progress_bar_callback is not None

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        """Refuses a trainer and data with which a run would go wrong, before it begins.

        Args:
            trainer: the trainer of the run.
            data: the data module; None: there is none.
            checkpoint: the path of the checkpoint from which the run continues; None: it begins.

        Raises:
            SettingError: naming the setting and what to use instead.
        """
        names = ("accumulate_grad_batches", "gradient_clip_val", "gradient_clip_algorithm", "overfit_batches")
        checks.check_trainer_settings({name: getattr(trainer, name) for name in names}, self.refused_settings)
        checks.check_trains(trainer)
        checks.check_precision(str(trainer.precision), self.precisions, self.precision_reason)
        checks.check_callbacks(trainer.callbacks, self.refused_callbacks)  # type: ignore[attr-defined]
        checks.check_monitored(trainer.callbacks, self.figures)  # type: ignore[attr-defined]

    _own_data: OwnData | None = None
    """What was made of a user's own data for the last fit, which was handed ``_handed``."""

    _handed: tuple[Any, ...] = ()

    _evaluated: OwnData | None = None
    """What was made of a user's own data that it is validated or tested on."""

    @property
    def data(self) -> Any:
        """The data of the run: the trainer's data module, or what was made of a user's own; None: there are none."""
        given = None if self._trainer is None else self.trainer.datamodule  # type: ignore[attr-defined]
        evaluates = self._trainer is not None and self.trainer.state.fn in ("validate", "test", "predict")
        own = self._evaluated if evaluates else self._own_data
        return given if own is None else own

    def data_of(self, data: AnyData) -> DataModule:
        """The data module of what is handed over; that of the last fit where this is what was fitted on, so that its
        parts are the same."""
        parts = data if isinstance(data, tuple) else (data,)
        fitted = self._own_data is not None and all(any(part is each for each in self._handed) for part in parts)
        return self._own_data if fitted and self._own_data is not None else as_data(data)

    def _adopt(self) -> None:
        """Has the trainer's loops draw from streams of what it was handed, where that is a user's own."""
        own = adopted(self.trainer, self.hparams.get("inputs"))
        if self.trainer.state.fn == "fit":
            self._own_data, self._handed = own, handed(self.trainer)
        else:
            self._evaluated = own

    def setup(self, stage: str) -> None:
        self._adopt()
        if stage == "fit":
            self.check(self.trainer, self.data, self.trainer.ckpt_path)

    def conclude(self, data: DataModule, run: RunFolder, n_random: int) -> Outcome:
        """Writes what the finished run leaves behind, and returns it.

        Args:
            data: the data module that it was trained on.
            run: the folder where it writes.
            n_random: how many random architectures a search in shared weights is compared with.
        """
        raise NotImplementedError

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        ours: dict[str, Any] = {"class_path": class_path(type(self)), "version": root().__version__}
        data = self.data if self._own_data is None else self._own_data  # it may have been validated since
        if isinstance(data, DataModule):
            ours |= {"data": data.spec, "sizes": data.sizes()}
        operations = own_operations(dict(self.hparams))
        if operations:
            ours["operations"] = {name: build.__module__ for name, build in operations.items()}
        checkpoint.setdefault("lightning_nas", {}).update(ours)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of another run: one whose settings differ in what cannot change.

        Raises:
            SettingError: naming the setting, and both values.
        """
        ours = checkpoint["lightning_nas"]
        before = {"class_path": ours["class_path"], "init_args": checkpoint["hyper_parameters"]}
        checks.check_continued(before, {"class_path": class_path(type(self)), "init_args": dict(self.hparams)}, "")
        if not self.fits:
            return
        data = self.data
        if isinstance(data, DataModule) and "data" in ours:
            checks.check_continued(ours["data"], data.spec, "data", only=self.frozen.get("data"))
            checks.check_sizes(ours.get("sizes", {}), data)


class NetworkModule(Module):
    """A module around one network, whose weights are trained by SGD.

    The network is built when the data are known: at once if ``inputs`` are given, else from the trainer's data module.
    A subclass sets ``optimizer``.

    Args:
        space: whose network is built.
        form: the form of the network, ``search`` or ``final``.
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        inputs: what the network must know of the data, e.g. ``{channels: 3, image_size: 32, num_classes: 10}``.
        seed: everything random in a step is seeded from it, the epoch and the step.
    """

    precisions: ClassVar[tuple[str, ...]] = ("32-true", "16-mixed", "bf16-mixed", "bf16-true", "64-true")
    precision_reason = "in true halves gradients vanish"

    network: Network
    optimizer: Optimizer
    _has_been_tried = False
    _settings: Sequence[Optimizer] = ()
    metric_names: Sequence[str] = ()
    """The names of the task's metrics, which depend on the data."""

    drop_path: float | None = 0.0
    usual_drop_path: ClassVar[float] = 0.0
    """What None means as ``drop_path``, where the network has paths to drop."""

    drop_path_schedule: DropPathSchedule = "scheduled"
    remedy: ClassVar[str] = "lower the optimizer's lr, or set its clip"
    """What helps where a training diverges."""

    def __init__(
        self,
        space: Space,
        form: str,
        task: Task,
        network: dict[str, Any] | None,
        inputs: dict[str, int] | None,
        seed: int,
    ) -> None:
        super().__init__()
        self.space = space
        self.form = form
        self.task = task
        self.network_settings = check_arguments(space.network, network or {}, "network", skip={"inputs", "form"})
        self.seed = seed
        self.carries: dict[str, Carry] = {}
        self.task_modules = nn.ModuleDict()
        self.teachers = Teachers()
        self.save_hyperparameters(self.spec["init_args"])
        if inputs is not None:
            self.build_network(inputs)

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        checks.check_parts(self.space, self.task, data)
        self.trainer = trainer  # whose limits decide which figures there will be
        follows = checks.monitoring(trainer.callbacks)  # type: ignore[attr-defined]
        if follows and not self.metric_names and isinstance(data, DataModule):
            self.metric_names = [str(name) for name in self.task.metrics(self.foreseen_inputs(data))]
        super().check(trainer, data, checkpoint)
        optimizers = [held for held in vars(self).values() if isinstance(held, Optimizer)]
        if self.drop_path != 0.0 or any(optimizer.schedule is not None for optimizer in optimizers):
            checks.check_epochs(trainer)  # which they follow
        if isinstance(self.space, OwnSpace) and not self._has_been_tried:  # nobody else has
            network = self.network if hasattr(self, "network") else self.new_network(self.foreseen_inputs(data))
            checks.check_network(network, self.task)
            self._has_been_tried = True
        if self.task.teachers and not self.teachers:
            self.teachers.load(self.task.teachers, self.task.network_inputs(self.foreseen_inputs(data)))
            if checkpoint is not None:
                saved = torch.load(checkpoint, weights_only=True, map_location="cpu")["lightning_nas"]
                self.teachers.check_same(saved.get("teachers", {}))

    def setup(self, stage: str) -> None:
        super().setup(stage)
        data = self.data
        if hasattr(self, "network") and isinstance(data, DataModule):
            checks.check_inputs(self.hparams["inputs"], data, self.space)

    @property
    def run_name(self) -> str:
        return super().run_name if self.space.modality == "images" else f"{super().run_name}_{self.space.modality}"

    @property
    def figures(self) -> list[str]:
        return [f"train/{name}" for name in ("loss", *self.metric_names)]

    @property
    def validates(self) -> bool:
        """Whether the trainer will validate."""
        has_part = getattr(self, "validation_part", None) is not None
        return has_part and self.trainer.limit_val_batches != 0

    def val_dataloader(self) -> Any:
        """What it is validated on where the trainer was handed nothing for that: a part of what it is trained on."""
        if self.trainer.state.fn == "validate":
            raise SettingError("data: there is nothing to validate on; hand over a DataLoader or a data module")
        return []

    def configure_model(self) -> None:
        if not hasattr(self, "network"):
            if not isinstance(self.data, DataModule):  # a callback may ask for the network before ``setup``
                self._adopt()
            self.build_network(self.inputs_for(self.data))
        if self.fits and not self.teachers:  # which nothing else asks
            self.teachers.load(self.task.teachers, self.network.inputs)

    def inputs_for(self, data: Any) -> dict[str, int]:
        """What the network is, or will be, built for: its own setting, or else what the data say.

        Args:
            data: the data module, whose files are there; None: there is none.

        Raises:
            SettingError: if neither says it.
        """
        inputs: dict[str, int] | None = self.hparams["inputs"]
        if inputs is None:
            inputs = getattr(data, "inputs", None)
            if isinstance(data, OwnData):
                data.check_told(
                    name for name in self.space.usual_inputs if name not in self.task.network_inputs(data.inputs)
                )
        if inputs is None:
            why = "there are no data to tell them" if data is None else "the data module does not tell them"
            raise SettingError(
                f"inputs: {why}; hand over data that do, or pass the network's inputs, "
                "e.g. inputs={'channels': 3, 'image_size': 32, 'num_classes': 10}"
            )
        return inputs

    def foreseen_inputs(self, data: Any) -> dict[str, int]:
        """What the network will be built for, before the run begins: the files that say it may not be there yet."""
        if isinstance(data, DataModule):
            data.prepare_data()
        return self.inputs_for(data)

    def build_network(self, inputs: dict[str, int]) -> None:
        """Builds the network, the task's modules and the metrics for data of this kind."""
        self.hparams["inputs"] = dict(inputs)
        self.network = self.new_network(inputs)
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(self.seed, "modules of the task"))
            self.task_modules.update(self.task.modules(self.network.inputs))
        # persistent: a resumed epoch reports the mean over all of its batches
        self.train_metrics = self.task.metrics(inputs)
        self.train_metrics.persistent(True)
        self.metric_names = [str(name) for name in self.train_metrics]
        self.val_metrics = self.task.metrics(inputs)
        self.test_metrics = self.task.metrics(inputs)

    def new_network(self, inputs: dict[str, int]) -> Network:
        """A network of the space with new weights, for data of this kind.

        Raises:
            SettingError: if it has no paths to drop, and some should be.
        """
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(derive_seed(self.seed, *self.weights_purpose))
            network = self.space.network(self.task.network_inputs(inputs), form=self.form, **self.network_settings)
        if self.drop_path and not _has_paths(network):
            raise SettingError(f"drop_path: networks of {type(self.space).__name__} have no paths to drop; set it to 0")
        return network

    def check_built(self) -> None:
        """Refuses to run a network that is not there yet.

        Raises:
            SettingError: saying what builds it.
        """
        if not hasattr(self, "network"):
            raise SettingError("inputs: the network is built for the data; pass inputs=data.inputs, or fit first")

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the network says, with its own arguments: logits of images ``(N, C, H, W)``, and of text a
        ``LanguageOutput``."""
        self.check_built()
        return self.network(*args, **kwargs)

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        """The logits of a batch; a window of text is read on from the one before it. Labels are passed over."""
        if isinstance(batch, Window):
            out = self(batch.tokens, carry=self.carries.get("predict"), first=batch.first)
            self.carries["predict"] = out.carry
            return out.logits
        return self(batch[0] if isinstance(batch, (tuple, list)) else batch)

    def on_predict_epoch_start(self) -> None:
        self.carries.pop("predict", None)

    def on_predict_epoch_end(self) -> None:
        self.carries.pop("predict", None)  # it belongs to no checkpoint

    @property
    def weights_purpose(self) -> tuple[int | str, ...]:
        """What the seed of new weights is derived for."""
        return ("weights",)

    def recorded(self, name: str, optimizer: Optimizer) -> Optimizer:
        """Builds an optimiser from its spec, and records it under the argument's name, so that a checkpoint and
        ``config.yaml`` have its rate even where it is the default."""
        built = Optimizer.build(optimizer, name)
        self.record(name, built)
        return built

    def record(self, name: str, built: Configurable) -> None:
        """Records an object under the argument's name, so that a checkpoint and ``config.yaml`` have its settings even
        where it is the default."""
        self._init_args[name] = self.hparams[name] = built.spec

    @property
    def n_epochs(self) -> int:
        """Of the whole training, over which rates and probabilities change.

        Raises:
            SettingError: if the trainer has no ``max_epochs``.
        """
        checks.check_epochs(self.trainer)
        return self.trainer.max_epochs or 1000  # Lightning's own default, which it has once it trains

    @property
    def epoch(self) -> int:
        """The current one of the :attr:`n_epochs`, from 0."""
        return self.current_epoch

    def position(self) -> tuple[int, int]:
        """Epoch and step that come next, by which batches are numbered. With ``overfit_batches`` those of the
        first epoch come again in every one."""
        loop: Any = self.trainer.fit_loop
        epoch = 0 if self.trainer.overfit_batches else loop.epoch_progress.current.processed  # type: ignore[attr-defined]
        return epoch, loop.epoch_loop.batch_progress.current.ready

    def stream(self, data: DataModule, part: str) -> Stream:
        """The training batches of a part, as the task reads them."""
        return data.stream(part, self.seed, **self.reads)

    @property
    def reads(self) -> dict[str, Any]:
        return self.task.reads

    # -- steps ---------------------------------------------------------------------------------------------------------

    @property
    def trained(self) -> list[nn.Parameter]:
        """What a step of the weights trains: the network's parameters, and those of the task's modules."""
        return [*self.network.parameters(), *(p for p in self.task_modules.parameters() if p.requires_grad)]

    def loss(
        self,
        forward: Callable[..., Any],
        batch: Any,
        stream: str,
        metrics: MetricCollection | None = None,
        advance: bool = False,
    ) -> Tensor:
        """The task's loss of a network with the gates already in it; ``advance`` keeps the carry for the stream's next
        batch. Every stream has a carry of its own, so hidden states of different texts never mix."""
        asked: dict[str, Any] = {**self.task_modules, **(self.teachers if self.network.training else {})}
        loss, carry = self.task.loss(forward, batch, self.carries.get(stream), metrics, **asked)
        if advance:
            self.carries[stream] = carry
        return loss

    def as_one(self) -> Callable[..., Any]:
        """The network as one architecture runs in it."""
        return self.network

    @property
    def path_dropout(self) -> float:
        """The probability to drop a path, where none is set the usual one of networks that have paths."""
        usual = self.usual_drop_path if self.drop_path is None and _has_paths(self.network) else 0.0
        return usual if self.drop_path is None else self.drop_path

    def dropping_paths(self, share_of_epoch: float) -> Callable[..., Any]:
        """The network with drop-path as it is now, where so much of the current epoch is done."""
        probability = self.path_dropout
        if not probability:
            return self.network  # which may have no paths to drop
        epoch = self.epoch + share_of_epoch
        return partial(self.network, drop_path=drop_path_at(probability, self.drop_path_schedule, epoch, self.n_epochs))

    def on_train_start(self) -> None:
        if self.trainer.ckpt_path and self._settings:
            optimizers = self.trainer.optimizers
            for settings, optimizer, scheduler in zip(self._settings, optimizers, self.schedulers(), strict=True):
                settings.take_effect(optimizer, scheduler)

    def on_fit_start(self) -> None:
        self.carries = move_data_to_device(self.carries, self.device)  # those of a checkpoint lie on the CPU
        self.teachers.move_to(self.network)
        if isinstance(self.data, OwnData):
            try_batches(self, self.data)

    def on_train_epoch_start(self) -> None:
        self.train_metrics.reset()  # a checkpoint from the end of an epoch holds that epoch's

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        torch.manual_seed(derive_seed(self.seed, "step", self.current_epoch, batch_idx, self.global_rank))
        scale = self.task.lr_scale(batch["weights"], self.network.inputs) if "weights" in batch else None
        if scale is not None:
            scheduler = self.schedulers()[0]
            for group, lr in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr(), strict=True):
                group["lr"] = lr * scale

    def on_train_epoch_end(self) -> None:
        self.check_finite("weights", self.parameters())

    def check_finite(self, what: str, values: Iterable[Tensor]) -> None:
        """Raises ``Diverged`` if not all values are finite."""
        if not all(value.isfinite().all() for value in values):
            saved = getattr(self.trainer.checkpoint_callback, "best_model_path", "")  # of an epoch before
            further = f", and continue with --ckpt_path {saved}" if saved else ""
            raise Diverged(f"the training has diverged, its {what} are not finite; {self.remedy}{further}")

    def on_validation_epoch_start(self) -> None:
        self.carries.pop("validation", None)

    def optimized(
        self, *sides: tuple[Optimizer, Iterable[Tensor]]
    ) -> tuple[list[torch.optim.Optimizer], list[LambdaLR]]:
        """Optimisers of parameters, and what changes their rates; the network's weights come first."""
        self._settings = [settings for settings, _ in sides]
        optimizers = [settings.make(parameters) for settings, parameters in sides]
        schedulers = [
            settings.make_scheduler(optimizer, lambda: self.n_epochs)
            for (settings, _), optimizer in zip(sides, optimizers, strict=True)
        ]
        return optimizers, schedulers

    def schedulers(self) -> list[Any]:
        """What changes the rates of the optimisers, in their order."""
        schedulers = self.lr_schedulers()
        return schedulers if isinstance(schedulers, list) else [schedulers]

    # -- checkpoints -------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["carries"] = self.carries
        if isinstance(self.space, OwnSpace):  # whose file may change meanwhile
            checkpoint["lightning_nas"]["choices"] = self.space.all_choices
        if self.teachers:
            checkpoint["lightning_nas"]["teachers"] = self.teachers.fingerprints

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        if isinstance(self.space, OwnSpace):
            checks.check_choices(checkpoint["lightning_nas"]["choices"], self.space.all_choices)
        if self.teachers:  # a run continues
            self.teachers.check_same(checkpoint["lightning_nas"].get("teachers", {}))
        self.carries = checkpoint["carries"]


def _has_paths(network: Network) -> bool:
    return "drop_path" in inspect.signature(network.forward).parameters
