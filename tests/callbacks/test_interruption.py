"""A second Ctrl-C stops at once; handlers are given back."""

import signal

import lightning.pytorch as pl
import pytest

from lightning_nas.callbacks import Interruption
from lightning_nas.data import Digits
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.retrain import Retrain


class Press(pl.Callback):
    """Presses Ctrl-C so many times in the middle of the second step."""

    def __init__(self, times):
        self.times = times
        self.finished = 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 1:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)

    def on_train_batch_end(self, *_):
        self.finished += 1


@pytest.mark.parametrize(("times", "status", "finished", "saved"), [(1, 130, 2, True), (2, 1, 1, False)])
def test_ctrl_c(times, status, finished, saved, tmp_path, capsys):
    handler, press = signal.getsignal(signal.SIGINT), Press(times)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=1,
        callbacks=[press, Interruption(tmp_path)],
    )
    try:
        with pytest.raises(SystemExit) as exit_:
            trainer.fit(Retrain("darts_v1", ImageClassification(), {"channels": 2, "cells": 1}), Digits(batch_size=256))
        assert exit_.value.code == status
        assert press.finished == finished  # the first Ctrl-C waits for the step
        assert (tmp_path / "last.ckpt").exists() == saved
        assert "again stops at once" in capsys.readouterr().err
        if times == 1:
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, handler)
