"""Retraining: what is trained on, the schedules, and that nothing is lost on the way."""

import math
import signal
from functools import partial

import lightning.pytorch as pl
import pytest
import torch

from lightning_nas.callbacks import Interruption
from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.retrain import Retrain
from lightning_nas.tasks import ImageClassification

SMALL = {"channels": 4, "cells": 3}


def trainer(**settings):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 2,
    }
    return pl.Trainer(**(quiet | settings))


def retrain(**settings):
    return Retrain("darts_v2", ImageClassification(), SMALL, **settings)


def digits(**settings):
    return Digits(**({"batch_size": 256} | settings))  # five steps an epoch of all training images


class Seen(pl.Callback):
    """Records what each step was given."""

    def __init__(self):
        self.n_images, self.probabilities, self.rates = [], [], []

    def setup(self, trainer, pl_module, stage):
        forward = pl_module.network.forward
        network = pl_module.network

        def spy(x, gates=None, drop_path=0.0):
            if network.training:
                self.n_images.append(len(x))
                self.probabilities.append(drop_path)
            return forward(x, gates, drop_path)

        network.forward = spy

    def on_train_epoch_start(self, trainer, pl_module):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_drop_path_grows_linearly_and_the_rate_falls_by_a_cosine():
    seen = Seen()
    module = retrain(drop_path=0.4, inputs=digits().inputs)
    trainer(max_epochs=4, callbacks=[seen], limit_train_batches=1).fit(module, digits())
    assert sorted(set(seen.probabilities)) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    expected = [0.025 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert seen.rates == pytest.approx(expected)


@pytest.mark.parametrize(("train_on", "steps", "validated"), [("all", 5, False), ("weights", 2, True)])
def test_what_is_trained_and_validated_on(train_on, steps, validated):
    run = trainer(max_epochs=1)
    run.fit(retrain(train_on=train_on), digits())
    assert run.global_step == steps  # 1,437 or 719 images in batches of 256
    assert ("val/accuracy" in run.callback_metrics) == validated


class Stop(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            signal.raise_signal(signal.SIGTERM)


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    module = partial(retrain, drop_path=0.5)  # random in every step
    whole = module()
    trainer(max_epochs=3, gradient_clip_val=5).fit(whole, digits())
    stopped = trainer(max_epochs=3, gradient_clip_val=5, callbacks=[Stop(), Interruption(tmp_path)])
    with pytest.raises(SystemExit):
        stopped.fit(module(), digits())
    resumed = Retrain.load_from_checkpoint(tmp_path / "last.ckpt")
    trainer(max_epochs=3, gradient_clip_val=5).fit(resumed, digits(), ckpt_path=tmp_path / "last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_the_checkpoint_holds_the_architecture_not_its_path(tmp_path):
    module = retrain()
    module.found.save(tmp_path / "architecture.json")
    from_file = Retrain(str(tmp_path / "architecture.json"), ImageClassification(), SMALL)
    run = trainer(max_epochs=1, limit_train_batches=1)
    run.fit(from_file, digits())
    run.save_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "architecture.json").unlink()
    loaded = Retrain.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.found.architecture == module.found.architecture
    for name, value in from_file.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


def test_loading_is_strict(tmp_path):
    run = trainer(max_epochs=1, limit_train_batches=1)
    run.fit(retrain(), digits())
    run.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(RuntimeError, match="size mismatch"):
        Retrain.load_from_checkpoint(tmp_path / "last.ckpt", network={"channels": 8, "cells": 3})


def test_test_reports_accuracy_and_costs():
    run, module = trainer(max_epochs=1), retrain()
    run.fit(module, digits())
    (figures,) = run.test(module, digits(), verbose=False)
    module.eval()
    images, labels = zip(*digits().test_dataloader(), strict=True)
    with torch.no_grad():
        right = (module.network(torch.cat(images)).argmax(1) == torch.cat(labels)).float().mean()
    assert figures["test/accuracy"] == pytest.approx(float(right))
    assert figures["n_params"] == sum(parameter.numel() for parameter in module.network.parameters())
    assert figures["flops"] > 0


def test_auxiliary_head_is_trained():
    module = Retrain("darts_v2", ImageClassification(auxiliary_weight=0.4), SMALL | {"auxiliary": True})
    data = digits(image_size=32, batch_size=64)
    run = trainer(max_epochs=1, limit_train_batches=2)
    run.fit(module, data)
    before = Retrain("darts_v2", ImageClassification(), SMALL | {"auxiliary": True}, data.inputs)
    for name, parameter in module.network.auxiliary.named_parameters():
        assert not torch.equal(parameter, before.network.auxiliary.get_parameter(name)), name


def test_learns_the_digits():
    run, module = trainer(max_epochs=8, gradient_clip_val=5), retrain(drop_path=0.0)
    run.fit(module, digits(batch_size=64))
    (figures,) = run.test(module, digits(), verbose=False)
    assert figures["test/accuracy"] > 0.9


@pytest.mark.parametrize(
    ("settings", "field"), [({"drop_path": 1.0}, "model.drop_path"), ({"train_on": "test"}, "model.train_on")]
)
def test_wrong_settings_are_named(settings, field):
    with pytest.raises(SettingError, match=field):
        retrain(**settings)
