"""Averaged SGD: when it begins, and what is averaged."""

import signal
from functools import partial
from random import Random
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch

from lightning_nas.callbacks import Interruption, NonMonotoneAveraging
from lightning_nas.errors import SettingError
from lightning_nas.spaces import DARTSRecurrentCell
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.tasks import LanguageModeling
from lightning_nas.training.lr_schedules import Exponential
from lightning_nas.training.retrain import Retrain
from tests.helpers import methods
from tests.helpers.methods import Words, snapshot
from tests.helpers.optimizers import objects

SPACE = DARTSRecurrentCell(nodes=2)
trainer = partial(methods.trainer, num_sanity_val_steps=0, gradient_clip_val=0.25)


def retrain(**settings):
    found = ArchitectureRecord(SPACE, SPACE.random(Random(0)))
    plain = {"lr": 5.0, "lr_schedule": Exponential(), "momentum": 0.0, "drop_path": 0.0, "train_on": "weights"}
    return Retrain(
        found.to_dict(), LanguageModeling(), {"hidden": 6}, Words().inputs, **objects(Retrain, plain | settings)
    )


@pytest.mark.parametrize(
    ("losses", "interval", "begins"),
    [
        ([5, 4, 3, 2, 1], 1, None),
        ([5, 4, 4.5, 4.6], 1, 3),  # 4.5 is no worse than 5, 4.6 is worse than 4
        ([5, 4, 4.5, 4.6], 2, None),
        ([5, 6, 6, 6], 2, 3),
        ([3, 4], 1, None),  # the last loss before does not count
    ],
)
def test_it_begins_when_a_loss_is_worse_than_the_best_before_the_last_few(losses, interval, begins):
    callback = NonMonotoneAveraging(interval)
    callback._average_model = SimpleNamespace(n_averaged=torch.ones(()))
    for number, loss in enumerate(losses):
        run = SimpleNamespace(
            sanity_checking=False, state=SimpleNamespace(fn="fit"), callback_metrics={"val/loss": torch.tensor(loss)}
        )
        callback.on_validation_end(run, None)
        assert callback.averaging == (begins is not None and number >= begins)


class After(pl.Callback):
    """The weights after each step, and those that validation has."""

    def __init__(self):
        self.steps, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.steps.append(snapshot(pl_module.network))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        if batch_idx == 0:
            self.validated.append(snapshot(pl_module.network))


def mean(states):
    return {name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]}


def assert_close(a, b):
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-5, atol=1e-6)


def test_all_steps_since_then_are_averaged_and_none_before():
    module, after, averaging = retrain(), After(), NonMonotoneAveraging(1)
    averaging.losses = [9.0, 0.0, 9.0]  # so the second validation, not the first, is worse
    trainer(max_epochs=4, callbacks=[averaging, after]).fit(module, Words())
    assert len(after.steps) == 20
    begun = averaging.losses[3:].index(next(loss for loss in averaging.losses[3:] if loss > 0.0)) + 1  # epochs
    for epoch, validated in enumerate(after.validated, start=1):
        done = after.steps[: 5 * epoch]
        assert_close(validated, done[-1] if epoch <= begun else mean(done[5 * begun :]))
    assert_close(snapshot(module.network), mean(after.steps[5 * begun :]))
    assert any(
        not torch.equal(a, b) for a, b in zip(module.network.parameters(), after.steps[-1].values(), strict=True)
    )


class Stop(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 3):
            signal.raise_signal(signal.SIGTERM)


def test_interrupted_and_resumed_is_uninterrupted(tmp_path):
    def fit(*callbacks, **settings):
        averaging = NonMonotoneAveraging(1)
        averaging.losses = [9.0, 0.0, 9.0]
        module = retrain()
        trainer(max_epochs=4, callbacks=[averaging, *callbacks]).fit(module, Words(), **settings)
        return module.state_dict(), averaging.state_dict()

    whole = fit()
    with pytest.raises(SystemExit):
        fit(Stop(), Interruption(tmp_path))
    state, averaging = fit(ckpt_path=tmp_path / "last.ckpt")
    assert averaging == whole[1]
    assert all(torch.equal(value, whole[0][name]) for name, value in state.items() if name.startswith("network."))


def test_it_needs_validation():
    with pytest.raises(SettingError, match="train_on"):
        trainer(callbacks=[NonMonotoneAveraging()]).fit(retrain(train_on="all"), Words())
    with pytest.raises(SettingError, match="interval"):
        NonMonotoneAveraging(0)
