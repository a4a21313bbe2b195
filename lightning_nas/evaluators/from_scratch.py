"""The plainest estimate: train the architecture's own network for a while."""

import contextlib
import datetime
import logging
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl

from lightning_nas.errors import Diverged, SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.evaluators.figures import COSTS, built, check_own_network, costs, measured
from lightning_nas.files import whole
from lightning_nas.measures import Measure
from lightning_nas.objectives import Objective
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.spaces.base import Space
from lightning_nas.specs import check_arguments
from lightning_nas.strategies.base import Proposal
from lightning_nas.tasks import Task
from lightning_nas.training.optimizers import Optimizer
from lightning_nas.training.retrain import Retrain

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class FromScratch(Evaluator):
    """Trains each architecture from new weights on the weights part, and validates it on the architecture part.

    The test part is never read. Everything random depends on the seed and the number of the trial, so a trial gives the
    same result in every process; with ``max_minutes`` it depends on the machine too. Metrics are ``val/...`` of the
    epoch that is scored, ``n_params`` (without an auxiliary head), ``flops`` of one example, and ``epochs``, those
    trained to the end. The task's score decides, unless the search is given objectives.

    The fidelity of a trial is its number of epochs. Schedules of all trials have the same horizon, ``epochs``. One that
    ends earlier leaves its state, and a trial that continues it equals one that was never paused, bit for bit. Where
    the state is gone, it is trained again from the beginning, to the same end.

    Args:
        task: what a batch costs and how it is scored.
        network: settings of the space's network by name, such as ``channels`` and ``cells``.
        epochs: the number of epochs of each training that goes on to the end.
        patience: epochs without a better score after which training ends; then, and if it trains to the end, the best
            epoch is scored. None: trains to the end and scores that.
        max_minutes: the minutes after which a training ends with its batch; None: no limit.
        retrain: settings of :class:`~lightning_nas.training.retrain.Retrain` by name, such as ``optimizer``.
        trainer: settings of Lightning's ``Trainer`` by name, such as ``precision`` and ``gradient_clip_val``.
        report: measures of the network before it is trained, whose figures are in the metrics.
    """

    def __init__(
        self,
        task: Task,
        network: dict[str, Any] | None = None,
        epochs: int = 10,
        patience: int | None = None,
        max_minutes: float | None = None,
        retrain: dict[str, Any] | None = None,
        trainer: dict[str, Any] | None = None,
        report: list[Measure] | None = None,
    ) -> None:
        if epochs < 1:
            raise SettingError(f"epochs: at least 1, got {epochs}")
        if patience is not None and patience < 1:
            raise SettingError(f"patience: at least 1, or null, got {patience}")
        if max_minutes is not None and not max_minutes > 0:
            raise SettingError(f"max_minutes: above 0, or null, got {max_minutes}")
        self.task = Task.build(task, "task")
        self.network, self.epochs, self.patience, self.max_minutes = network or {}, epochs, patience, max_minutes
        given = {"architecture", "task", "network", "inputs", "seed", "train_on"}
        checked = check_arguments(Retrain, retrain or {}, "retrain", skip=given)
        self.retrain = {
            name: value.as_dict() if hasattr(value, "as_dict") else value for name, value in checked.items()
        }
        if self.retrain.get("optimizer") is not None:
            self.retrain["optimizer"] = Optimizer.build(self.retrain["optimizer"], "retrain.optimizer").spec
        self._init_args["retrain"] = self.retrain  # with classes by their paths, which a worker needs
        self.trainer = check_arguments(pl.Trainer, trainer or {}, "trainer", skip=_OURS)
        self.measures = built(report)
        self.wants_machine_alone = any(measure.wants_machine_alone for measure in self.measures)
        self.objective = Objective(f"val/{self.task.score}", self.task.mode)
        self.fidelities = range(1, epochs + 1)

    def metric_names(self, data: "DataModule | None") -> Sequence[str] | None:
        if data is None:
            return None
        validated = [f"val/{name}" for name in ("loss", *self.task.metrics(data.inputs))]
        return [*validated, *COSTS, "epochs", *(measure.name for measure in self.measures)]

    def open(self, space: Space, data: "DataModule | None", seed: int = 0, folder: Path | None = None) -> None:
        if data is None:
            raise SettingError("evaluator: FromScratch trains networks, which needs data")
        if type(space).network is Space.network:
            raise SettingError(f"evaluator: {type(space).__name__} has no network to train")
        check_arguments(space.network, self.network, "network", skip={"inputs", "form"})
        data.prepare_data()
        check_own_network(space, data.inputs, self.task)
        self.space, self.data, self.seed, self.folder = space, data, seed, folder

    def __call__(self, proposal: Proposal, number: int) -> Evaluation:
        began = time.perf_counter()
        module = Retrain(
            ArchitectureRecord(self.space, proposal.architecture).to_dict(),
            self.task,
            self.network,
            self.data.inputs,
            derive_seed(self.seed, "trial", number if proposal.first is None else proposal.first),
            "weights",
            **self.retrain,
        )
        figures = measured(self.measures, module.network, self.data, derive_seed(self.seed, "batch"))
        fidelity = proposal.fidelity or self.epochs
        watch = _Watch(self.task, self.patience, fidelity, self._state(number) if fidelity < self.epochs else None)
        with _quiet():
            trainer = self._trainer(watch)
            try:
                _fit(trainer, module, self.data, self._state(proposal.continues))
            except Diverged:
                watch.diverged = True
        figures |= {**self._validated(watch, module), **costs(module.network), "epochs": float(watch.n_epochs)}
        return Evaluation(figures, time.perf_counter() - began)

    def _state(self, number: int | None) -> Path | None:
        """Where a trial leaves the state from which it is continued."""
        return None if number is None or self.folder is None else self.folder / f"{number}.ckpt"

    def _validated(self, watch: "_Watch", module: Retrain) -> dict[str, float]:
        """The figures of the epoch that is scored; of a training that diverged not one is a number."""
        if watch.diverged:
            return dict.fromkeys((f"val/{name}" for name in ("loss", *module.metric_names)), math.nan)
        return watch.best if self.patience else watch.last

    def _trainer(self, watch: "_Watch") -> pl.Trainer:
        return pl.Trainer(
            devices=1,
            max_epochs=self.epochs,
            max_time=None if self.max_minutes is None else datetime.timedelta(minutes=self.max_minutes),
            check_val_every_n_epoch=1 if self.patience else self.epochs,
            num_sanity_val_steps=0,
            callbacks=[watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **self.trainer,
        )


_OURS = {
    "callbacks",
    "check_val_every_n_epoch",
    "default_root_dir",
    "devices",
    "enable_checkpointing",
    "enable_model_summary",
    "enable_progress_bar",
    "fast_dev_run",
    "logger",
    "max_epochs",
    "max_steps",
    "max_time",
    "min_epochs",
    "min_steps",
    "num_nodes",
    "num_sanity_val_steps",
    "plugins",
    "profiler",
    "reload_dataloaders_every_n_epochs",
    "strategy",
    "val_check_interval",
}
"""Arguments of the trainer that are not the user's to give."""


class _Watch(pl.Callback):
    """Keeps figures of validation; ends a training that no longer gets better, or has reached its fidelity, and then
    leaves its state."""

    def __init__(self, task: Task, patience: int | None, fidelity: int, state: Path | None) -> None:
        self.task, self.patience, self.fidelity, self.state = task, patience, fidelity, state
        self.last: dict[str, float] = {}
        self.best: dict[str, float] = {}
        self.diverged = False
        self.n_epochs = 0  # trained to the end
        self.n_worse = 0

    def score(self, figures: dict[str, float]) -> float:
        return self.task.objective.score(figures[f"val/{self.task.score}"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop |= self.patience is not None and self.n_worse >= self.patience

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.last = {name: float(v) for name, v in trainer.callback_metrics.items() if name.startswith("val/")}
        self.diverged |= not math.isfinite(self.last["val/loss"])
        if not self.best or self.score(self.last) > self.score(self.best):
            self.best, self.n_worse = self.last, 0
        else:
            self.n_worse += 1
            trainer.should_stop |= self.n_worse == self.patience

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.n_epochs += 1
        trainer.should_stop |= self.n_epochs >= self.fidelity

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.state is None or self.diverged:
            return
        self.state.parent.mkdir(parents=True, exist_ok=True)
        with whole(self.state) as partial:
            trainer.save_checkpoint(partial)

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "n_epochs": self.n_epochs, "n_worse": self.n_worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.n_epochs, self.n_worse = (state_dict[name] for name in ("best", "n_epochs", "n_worse"))


def _fit(trainer: pl.Trainer, module: Retrain, data: "DataModule", state: Path | None) -> None:
    """Trains, on from a state where there is one, and validates. The data module keeps the trainer that it has, if it
    has one."""
    validation = data.evaluation("architecture")
    going_on = str(state) if state is not None and state.exists() else None
    try:
        trainer.fit(module, module.schedule(data), validation, ckpt_path=going_on, weights_only=True)
        watch = next(callback for callback in trainer.callbacks if isinstance(callback, _Watch))  # type: ignore[attr-defined]
        if not watch.last:
            trainer.validate(module, validation, verbose=False)
    except SystemExit as end:
        if isinstance(end.__context__, KeyboardInterrupt):  # Lightning leaves the process on Ctrl-C
            raise KeyboardInterrupt from None
        raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the lines that Lightning has for each training."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
