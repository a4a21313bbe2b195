"""Trainings in ``bf16-mixed`` stay finite and are near those in float32."""

import lightning.pytorch as pl
import pytest
import torch

from lightning_nas.tasks import ImageClassification
from lightning_nas.testing.method import snapshot
from lightning_nas.training.retrain import Retrain
from tests.helpers.methods import digits, made

pytestmark = pytest.mark.gpu

TOLERANCE = 0.05
"""Of the mean loss of an epoch, relative: a number of bfloat16 has eight bits."""


def retrain():
    return Retrain("darts_v2", ImageClassification(), {"channels": 4, "cells": 3}, digits().inputs)


class Losses(pl.Callback):
    """Records the loss of each step, and where the weights are."""

    def __init__(self):
        self.of_steps, self.devices, self.kinds = [], set(), set()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.of_steps.append(trainer.callback_metrics["train/loss"].item())
        self.devices |= {parameter.device.type for parameter in pl_module.parameters()}
        self.kinds |= {parameter.dtype for parameter in pl_module.parameters()}


@pytest.mark.parametrize(
    "build",
    [lambda: made("darts-first"), lambda: made("darts-second"), lambda: made("enas-darts", drop_path=0.0), retrain],
    ids=["darts-first", "darts-second", "enas", "retrain"],
)
def test_an_epoch_in_bfloat16_is_near_one_in_float32(build, device, trainer):
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16")
    means = {}
    for precision in ("32-true", "bf16-mixed"):
        module, losses = build(), Losses()
        run = trainer(max_epochs=1, precision=precision, callbacks=[losses])
        run.fit(module, digits())
        assert losses.devices == {device.type}
        assert losses.kinds == {torch.float32}  # mixed: weights and alphas themselves keep their precision
        assert len(losses.of_steps) >= 5
        assert all(value.isfinite().all() for value in snapshot(module).values())
        assert all(torch.isfinite(torch.as_tensor(value)) for value in run.callback_metrics.values())
        means[precision] = sum(losses.of_steps) / len(losses.of_steps)
    assert means["bf16-mixed"] == pytest.approx(means["32-true"], rel=TOLERANCE)
    assert means["bf16-mixed"] != means["32-true"]
