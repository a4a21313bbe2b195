"""Steps of methods: ours and the textbook's, from the same weights and for the same batches.

Ours is the step of the real method in a real ``pl.Trainer``, from ``on_train_batch_start`` to ``on_train_batch_end``:
metrics, logging and the optimisers are in it, the loader is not. The textbook's is a plain loop.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities import move_data_to_device
from torch import Tensor

from benchmarks.counterparts import Counterparts
from benchmarks.measure import SIDES, Measured, Side, Stopwatch, peak_memory, recorded
from benchmarks.rows import Row
from benchmarks.training import quiet_trainer
from lightning_nas.training.module import NetworkModule

Losses = dict[str, Tensor]
Batches = dict[str, Any]


@dataclasses.dataclass
class Pair(Counterparts):
    """A step in both implementations.

    Attributes:
        ours: the method.
        step: the textbook's; from the batches and what ours is about to draw to the losses, by the names under which
            ours logs them.
    """

    ours: NetworkModule
    step: Callable[[Batches, Any], Losses]


class StepRow(Row):
    """A line whose steps are those of a method.

    Attributes:
        stream: which batches its steps read; None: both, side by side.
    """

    stream: ClassVar[str | None] = None

    def pair(self, exact: bool = False) -> Pair:
        """Both sides; ``exact``: without dropout, which either draws in its own way."""
        raise NotImplementedError

    def batches(self, dtype: torch.dtype) -> Batches:
        """A batch of each part."""
        raise NotImplementedError

    def drawn(self, method: Any, batch_idx: int) -> Any:
        """What ours draws in this step, for the textbook to do the same."""
        return None

    def time(self, rounds: int, sides: Sequence[Side] = SIDES) -> Stopwatch:
        stopwatch = Stopwatch(self.device)
        self.run(self.pair(), sides, rounds + 1, stopwatch=stopwatch)
        return stopwatch

    def memory(self, side: Side) -> float:
        return peak_memory(self.device, partial(self._steps, side))

    def _steps(self, side: Side) -> Measured:
        """Two steps of one side, with everything that they need built already."""
        pair = self.pair()
        pair.ours.to(self.device)
        pair.textbook.to(self.device)
        return lambda begin: self.run(pair, [side], 2, begin=begin)

    def gradients(self, dtype: torch.dtype) -> dict[Side, dict[str, Tensor]]:
        pair = self.pair(exact=True)
        pair.ours.to(dtype)
        pair.textbook.to(dtype)
        with recorded(pair.textbook) as textbook, recorded(pair.ours) as ours:
            losses = self.run(pair, SIDES, 1)
        found: dict[Side, dict[str, Tensor]] = {"textbook": textbook, "ours": pair.in_textbook_names(ours)}
        return {side: {n: value.cpu() for n, value in (found[side] | losses[side]).items()} for side in SIDES}

    def run(
        self,
        pair: Pair,
        sides: Sequence[Side],
        steps: int,
        stopwatch: Stopwatch | None = None,
        begin: Callable[[], None] = lambda: None,
    ) -> dict[Side, Losses]:
        """Calls ``begin``, takes steps of these sides, in turns, and returns the losses of the last."""
        batches = self.batches(next(pair.ours.parameters()).dtype)
        if "ours" not in sides:
            batches = move_data_to_device(batches, self.device)
            begin()
            for step in range(steps):
                losses = pair.step(batches, self.drawn(pair.ours, step))
            return {"textbook": losses}
        in_turns = InTurns(self, pair, sides, stopwatch or Stopwatch(self.device), begin)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = quiet_trainer(self.sizes.device, callbacks=[in_turns])
            trainer.fit(pair.ours, Repeated(batches, steps, self.stream))
        return in_turns.losses


class InTurns(pl.Callback):
    """Takes the textbook's step before each of ours, and times both; calls ``begin`` before the first."""

    def __init__(
        self, row: StepRow, pair: Pair, sides: Sequence[Side], stopwatch: Stopwatch, begin: Callable[[], None]
    ) -> None:
        self.row, self.pair, self.sides, self.stopwatch, self.begin = row, pair, sides, stopwatch, begin
        self.losses: dict[Side, Losses] = {}

    def on_fit_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.pair.textbook.to(module.device)

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if self._is_measured(batch) and not self.losses:
            self.pair.copy_weights()  # ours may have taken a step of another kind
            self.begin()
        if "textbook" in self.sides and self._is_measured(batch):
            drawn = self.row.drawn(module, batch_idx)
            with self.stopwatch("textbook"):
                self.losses["textbook"] = self.pair.step(batch, drawn)
        self.stopwatch.start()

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._is_measured(batch):
            self.stopwatch.stop("ours")
            self.losses["ours"] = {name: value.detach().clone() for name, value in trainer.logged_metrics.items()}

    def _is_measured(self, batch: Batches) -> bool:
        return self.row.stream is None or self.row.stream in batch


class Repeated(pl.LightningDataModule):
    """The same batch of each part in every step.

    Args:
        batches: by part.
        steps: of the epoch; of ``stream`` only, where one is given, and then one of the other.
    """

    num_workers = 0

    def __init__(self, batches: Batches, steps: int, stream: str | None) -> None:
        super().__init__()
        self.batches, self.steps, self.only = batches, steps, stream

    def stream(self, part: str, seed: int) -> Any:
        length = self.steps if self.only in (None, part, "weights") else 1
        return _Stream(self.batches["weights" if part == "train" else part], length)

    def train_dataloader(self) -> Any:
        return self.trainer.lightning_module.schedule(self)  # type: ignore[union-attr, operator]


class _Stream:
    def __init__(self, batch: Any, length: int) -> None:
        self.batch, self.length = batch, length

    def __len__(self) -> int:
        return self.length

    def get(self, index: int) -> Any:
        return self.batch
