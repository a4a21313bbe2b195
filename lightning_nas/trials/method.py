"""Searches of many trials: a strategy asks for architectures, an evaluator says what each is worth."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors import Executor, Serial
from lightning_nas.files import write_whole
from lightning_nas.methods.base import Method
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.training import checks
from lightning_nas.trials.loop import TrialLoop
from lightning_nas.trials.outcome import TrialOutcome


class TrialSearch(Method):
    """Any strategy with any evaluator. A training step is a round of trials; there is one epoch.

    Every trial that has ended is a line of ``trials.jsonl`` in the run's folder. A search resumed from a checkpoint
    continues from that file, which has more than the checkpoint if the search was killed.

    Args:
        space: the space that is searched.
        strategy: what to try next.
        evaluator: what an architecture is worth.
        executor: where trials run; None: one after the other, in this process.
        seed: the seed of strategy and evaluator.
        n_trials: after how many the search ends; None: by the budget alone.
        budget: seconds of trials after which no other is begun, summed over all of them; None: no limit.
        deterministic: whether trials are asked in rounds, and told in the order of their numbers, so that the number of
            workers changes nothing. Else each is told when it ends, and no worker waits.
        round_size: trials of a round, at least as many as there are workers.
        max_failures: trials in a row that may fail before the search stops; below 1 as a share of ``n_trials``.
    """

    validation_part = None
    has_network = False
    adjustable = frozenset({"executor", "n_trials", "budget", "max_failures"})
    precisions = ("32-true",)
    precision_reason = "trials have a precision of their own, model.evaluator.trainer.precision where they train"
    refused_settings = Method.refused_settings | dict.fromkeys(
        (
            "accelerator",
            "accumulate_grad_batches",
            "benchmark",
            "check_val_every_n_epoch",
            "detect_anomaly",
            "deterministic",
            "gradient_clip_algorithm",
            "gradient_clip_val",
            "inference_mode",
            "limit_test_batches",
            "limit_val_batches",
            "max_steps",
            "min_steps",
            "num_nodes",
            "overfit_batches",
            "plugins",
            "strategy",
            "use_distributed_sampler",
            "val_check_interval",
        ),
        "a search of trials has no batches and no gradients of its own; where trials train, set it in "
        "model.evaluator.trainer",
    )
    refused_callbacks = Method.refused_callbacks | {
        "EarlyStopping": "has no epochs to follow; set model.n_trials or model.budget",
        "WeightAveraging": "has no weights to average",
        "StochasticWeightAveraging": "has no weights to average",
        "GradientAccumulationScheduler": "has no gradients to accumulate",
    }

    def __init__(
        self,
        space: Space,
        strategy: Strategy,
        evaluator: Evaluator,
        executor: Executor | None = None,
        seed: int = 0,
        n_trials: int | None = 100,
        budget: float | None = None,
        deterministic: bool = True,
        round_size: int = 1,
        max_failures: float = 10,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(self.spec["init_args"])
        self.space, self.seed = Space.build(space, "space"), seed
        workers = Executor.build(executor or Serial(), "executor")
        self.trials = TrialLoop(
            self.space,
            Strategy.build(strategy, "strategy"),
            Evaluator.build(evaluator, "evaluator"),
            workers,
            n_trials=n_trials,
            budget=budget,
            seed=seed,
            deterministic=deterministic,
            round_size=round_size,
            max_failures=max_failures,
            progress=False,  # the trainer has a bar
        )
        self.automatic_optimization = False

    def schedule(self, data: DataModule) -> "Rounds":
        return Rounds(self.trials)

    def check(self, trainer: Trainer, data: Any) -> None:
        super().check(trainer, data)
        if trainer.world_size > 1:
            raise SettingError("trainer.devices: 1; more trials at once are the executor's, executor.n_workers")
        evaluator = self.trials.evaluator
        checks.check_parts(self.space, getattr(evaluator, "task", None), None if data.is_empty else data)

    @property
    def figures(self) -> list[str]:
        return ["done", "failed", "best"]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        folder = Path(self.trainer.default_root_dir)
        self.trials.folder = None if self.trainer.fast_dev_run else folder  # type: ignore[attr-defined]
        if self.trainer.ckpt_path:
            before, here = RunFolder.of_checkpoint(self.trainer.ckpt_path).trials, RunFolder(folder).trials
            if not before.is_file():
                raise SettingError(f"ckpt_path: next to the checkpoint's folder there is no {before}")
            if before.resolve() != here.resolve():
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(here, before.read_bytes())
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.trials.open(None if data is None or data.is_empty else data)

    def on_train_start(self) -> None:
        callback: Any = self.trainer.checkpoint_callback
        if callback is not None:  # which saves after steps of an optimiser, and there is none
            self.trainer.save_checkpoint(Path(callback.dirpath) / "last.ckpt", weights_only=False)

    def training_step(self, batch: int, batch_idx: int) -> None:
        told: list[Trial] = []
        while not told and not self.trials.done and not self.trainer.received_sigterm:
            told = self.trials.step(timeout=1.0)
        best = self.trials.best
        for trial in told:
            figures = {f"trial/{name}": value for name, value in trial.metrics.items()}
            figures |= {"trial/score": trial.score if trial.done else math.nan, "trial/cost": trial.cost}
            figures |= {"trials/best": math.nan if best is None else best.score, "trials/cost": self.trials.cost}
            for logger in self.loggers:
                logger.log_metrics(figures, step=trial.number)
        shown = {"done": len(self.trials.history), "failed": self.trials.n_failed}
        self.log_dict({name: float(value) for name, value in shown.items()}, prog_bar=True, logger=False)
        if best is not None:
            self.log("best", best.score, prog_bar=True, logger=False)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.trainer.should_stop |= self.trials.done

    def on_fit_end(self) -> None:
        self.trials.close()

    def configure_callbacks(self) -> Callback:
        return CloseOnException(self.trials)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        checkpoint["loops"] = None  # how far the search had come is on file

    @property
    def name(self) -> str:
        return type(self.trials.strategy).__name__

    def best(self) -> Architecture | None:
        return None if self.trials.best is None else self.trials.best.architecture

    def conclude(self, data: DataModule, run: RunFolder, n_random: int) -> TrialOutcome:
        """Writes the architecture of the best trial, and how the search came to it.

        Raises:
            SettingError: if no trial succeeded.
        """
        outcome = TrialOutcome.of(self.trials, run, self.name, self.seed)
        outcome.write()
        return outcome

    def configure_optimizers(self) -> None:
        """Nothing is optimised by gradients here."""


class CloseOnException(Callback):
    """Ends the workers of a search that is interrupted."""

    def __init__(self, trials: TrialLoop) -> None:
        self.trials = trials

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.trials.close()


class Rounds:
    """The rounds of a search, until there is nothing left to do."""

    def __init__(self, trials: TrialLoop) -> None:
        self.trials = trials

    def __len__(self) -> int:
        """The most that there can be."""
        if self.trials.n_trials is None:
            raise TypeError("a search that ends by its budget has no length")
        return math.ceil(self.trials.n_trials / self.trials.round_size)

    def __iter__(self) -> Iterator[int]:
        number = 0
        while not self.trials.done:
            yield number
            number += 1
