"""Stopping between steps, with everything saved."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from lightning_nas.runs.folder import CHECKPOINT


class Interruption(Callback):
    """Ctrl-C and SIGTERM end a training between two steps and leave ``last.ckpt``, from which it resumes exactly.

    Lightning already waits for the end of the step on SIGTERM, so Ctrl-C is turned into one. A second Ctrl-C stops at
    once, with the checkpoint of the last epoch.

    Args:
        folder: the folder where ``last.ckpt`` is written.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / CHECKPOINT
        self.by_keyboard = False
        self._before: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # the trainer has noted the handlers by now, and gives them back in the end
        self._before = signal.getsignal(signal.SIGINT)
        self._process = os.getpid()
        signal.signal(signal.SIGINT, self._on_keyboard)

    def _on_keyboard(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a terminal tells the data loader's workers too, who have this handler
            return
        if self.by_keyboard:
            signal.signal(signal.SIGINT, self._before)
            raise KeyboardInterrupt
        self.by_keyboard = True
        print("\nStopping after this step; Ctrl-C again stops at once.", file=sys.stderr, flush=True)
        signal.raise_signal(signal.SIGTERM)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            exception.code = 130 if self.by_keyboard else 143  # the process's exit status
            trainer.save_checkpoint(self.path)
            rank_zero_info(f"Interrupted. Continue with --ckpt_path {self.path}")
