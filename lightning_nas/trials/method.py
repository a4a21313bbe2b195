"""Searches of many trials: a strategy asks for architectures, an evaluator says what each is worth."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_nas.data import DataModule
from lightning_nas.errors import SettingError, within
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors import Executor, Serial
from lightning_nas.methods.base import Method
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.strategies.fronts import hypervolume
from lightning_nas.training import checks
from lightning_nas.trials.front import Front, check_reference
from lightning_nas.trials.loop import TrialLoop
from lightning_nas.trials.outcome import TrialOutcome


class TrialSearch(Method):
    """Any strategy with any evaluator. A training step is a round of trials; there is one epoch.

    Example::

        import lightning.pytorch as pl
        from lightning_nas import AgingEvolution, NASBench201, SynFlow, TrialSearch, ZeroCost

        evaluator = ZeroCost(SynFlow(), {"channels": 4, "cells": 1})
        search = TrialSearch(NASBench201(), AgingEvolution(population=10, sample=3), evaluator, n_trials=40)
        pl.Trainer(max_epochs=1).fit(search)  # and data, for an evaluator that reads some
        print(search.space.describe(search.best()), search.trials.best.score)

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
        retry_failed: whether a search that continues first runs the trials again that failed, or had not enough memory:
            for when the reason is mended.
        reuse: whether an architecture that is asked for again has the result that it had, at no cost, and is not
            evaluated again. For evaluations that give the same every time; FromScratch's differ by their seeds.
        objectives: what is wanted, such as ``max val/accuracy`` and ``min n_params``, and limits that must hold, such
            as ``flops <= 3e8``; of several the search leaves the front. A strategy of one objective is guided by the
            first that is wanted. Where none is wanted, that is the evaluator's own; None: it alone.
        try_first: architectures that are tried before the strategy is asked: paths of ``architecture.json``, or names
            of published ones.
        known: the path of another search's ``trials.jsonl``, whose results the strategy is told before its first
            trial. They are no trials of this search, and cost nothing.
        reference: a value for each objective that is wanted, as bad as could be, from which the hypervolume of the
            front is measured; None: the worst values of all trials, in the end.
        keep_states: whether the states stay from which trials were, or could have been, continued.
    """

    validation_part = None
    has_network = False
    adjustable = frozenset(
        {"executor", "n_trials", "budget", "max_failures", "retry_failed", "reuse", "reference", "keep_states"}
    )
    # trials on file and new ones have to be comparable, so nothing may change in what they are asked and scored by
    frozen: ClassVar[dict[str, frozenset[str]]] = {
        "strategy": frozenset(),
        "evaluator": frozenset(),
        "data": frozenset({"num_workers"}),
    }
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
        "LearningRateMonitor": "has no learning rate to follow",
        "SpikeDetection": "has no loss to follow",
        "ThroughputMonitor": "has no batches to count",
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
        retry_failed: bool = False,
        reuse: bool = False,
        objectives: list[str] | None = None,
        try_first: list[str | dict[str, Any]] | None = None,
        known: str | None = None,
        reference: list[float] | None = None,
        keep_states: bool = False,
    ) -> None:
        super().__init__()
        self.space, self.seed, self.reference = Space.build(space, "space"), seed, reference
        if try_first is not None:  # the checkpoint holds the content, not paths
            with within("try_first"):
                self._init_args["try_first"] = [load_architecture(each).to_dict() for each in try_first]
        evaluator = Evaluator.build(evaluator, "evaluator")
        self._init_args["evaluator"] = evaluator  # which has found the classes in its settings, and has their paths
        self.save_hyperparameters(self.spec["init_args"])
        workers = Executor.build(executor or Serial(), "executor")
        self.trials = TrialLoop(
            self.space,
            Strategy.build(strategy, "strategy"),
            evaluator,
            workers,
            n_trials=n_trials,
            budget=budget,
            seed=seed,
            deterministic=deterministic,
            round_size=round_size,
            max_failures=max_failures,
            progress=False,  # the trainer has a bar
            retry_failed=retry_failed,
            reuse=reuse,
            objectives=objectives,
            try_first=self._init_args["try_first"],
            known=known,
            keep_states=keep_states,
        )
        self.automatic_optimization = False

    def schedule(self, data: DataModule) -> "Rounds":
        return self.train_dataloader()

    def train_dataloader(self) -> "Rounds":
        """The rounds, for a trainer that is given no data: an evaluator may need none."""
        return Rounds(self.trials, self._stand_at)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses, since the trials' networks are not kept.

        Raises:
            SettingError: saying what builds the network that was found.
        """
        raise SettingError(
            "a search of trials has no network to call; build search.space.restrict(search.best()).network(inputs, "
            "form='final'), or retrain what it found (Retrain)"
        )

    def _stand_at(self, number: int, length: int) -> None:
        """Has the trainer, and its bar, count rounds from this one on."""
        if self.trainer.num_training_batches == length:  # else the user limits the rounds of this run
            progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.current
            progress.ready = progress.started = progress.processed = progress.completed = number

    def check(self, trainer: Trainer, data: Any, checkpoint: str | Path | None = None) -> None:
        super().check(trainer, data, checkpoint)
        if trainer.world_size > 1:
            raise SettingError("trainer.devices: 1; more trials at once are the executor's, executor.n_workers")
        evaluator = self.trials.evaluator
        data = None if data is None or data.is_empty else data
        checks.check_parts(self.space, getattr(evaluator, "task", None), data)
        self.trials.folder = None if trainer.fast_dev_run else Path(trainer.default_root_dir)  # type: ignore[attr-defined]
        if data is not None:
            data.prepare_data()
        self.trials.check(data, log_before(trainer, checkpoint))
        check_reference(self.reference, self.trials.objectives)

    @property
    def figures(self) -> list[str]:
        return ["done", "failed", "best"]

    def on_fit_start(self) -> None:
        data = self.data
        self.trials.open(
            None if data is None or data.is_empty else data, log_before(self.trainer, self.trainer.ckpt_path)
        )

    def on_train_start(self) -> None:
        run: Any = self.trainer
        if run.checkpoint_callback is not None and not run.fast_dev_run:  # it saves after an optimiser's steps: never
            run.save_checkpoint(RunFolder(run.default_root_dir).checkpoint, weights_only=False)

    def training_step(self, batch: int, batch_idx: int) -> None:
        told: list[Trial] = []
        while not told and not self.trials.done and not self.trainer.received_sigterm:
            told = self.trials.step(timeout=1.0)
        best, objectives = self.trials.best, self.trials.objectives
        for trial in told:
            figures = {f"trial/{name}": value for name, value in trial.metrics.items()}
            figures |= {"trial/score": trial.score if trial.done else math.nan, "trial/cost": trial.cost}
            figures |= {"trials/best": math.nan if best is None else best.score, "trials/cost": self.trials.cost}
            if self.reference is not None and (front := Front.of(self.trials.history, objectives, self.reference)):
                figures["trials/hypervolume"] = hypervolume(front.trials, front.reference)
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
        if self.trials.done:
            self.trials.result()

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
        outcome = TrialOutcome.of(self.trials, run, self.name, self.seed, self.reference)
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


def log_before(trainer: Trainer, checkpoint: str | Path | None) -> Path | None:
    """The ``trials.jsonl`` of the run from whose checkpoint a search continues; None: it is a new one.

    Raises:
        SettingError: if there is none beside the checkpoint.
    """
    if checkpoint is None or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    log = RunFolder.of_checkpoint(checkpoint).trials
    if not log.is_file():
        raise SettingError(
            f"ckpt_path: next to the checkpoint's folder there is no {log}, which has the trials; put it there, or "
            "begin a new search without --ckpt_path"
        )
    return log


class Rounds:
    """The rounds of a search, until there is nothing left to do.

    Args:
        trials: the search, which is open before the first round is taken.
        stand_at: is told where the search stands, and how many rounds there are at most, if there is a most.
    """

    def __init__(self, trials: TrialLoop, stand_at: Callable[[int, int], None] = lambda number, length: None) -> None:
        self.trials, self.stand_at = trials, stand_at
        self.first = math.ceil(len(trials.history) / trials.round_size)
        self.length: int | None = None
        if trials.n_trials is not None and (trials.round_size == 1 or not trials.strategy.waits):
            retries = min(len(trials.again), 1) if trials.deterministic else len(trials.again)
            left = max(0, trials.n_trials - len(trials.history))
            self.length = self.first + retries + math.ceil(left / trials.round_size)

    def __len__(self) -> int:
        """The most that there can be."""
        if self.length is None:
            raise TypeError("a search that ends by its budget, or whose rounds may be short, has no length")
        return self.length

    def __iter__(self) -> Iterator[int]:
        if self.length is not None:
            self.stand_at(self.first, self.length)
        number = self.first
        while not self.trials.done:
            yield number
            number += 1
