"""A trainer with a user's own data, for every method and for what is retrained."""

import random
import re

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from lightning_nas.callbacks import ArchitectureLogger
from lightning_nas.cli.main import main
from lightning_nas.data import Digits, ImageData, OwnData
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import FromScratch, SharedWeights
from lightning_nas.methods.loading import load_search
from lightning_nas.spaces import DARTSCell
from lightning_nas.strategies import RandomSearch
from lightning_nas.tasks import ContrastiveLearning, ImageClassification
from lightning_nas.testing.method import assert_same
from lightning_nas.training import Retrain
from lightning_nas.trials import TrialSearch
from tests.data.test_own import Drawn, PlainDigits, digits
from tests.helpers.methods import CASES, darts, enas, random_search_ws, trainer

SHAPE = {"channels": 1, "image_size": 8, "num_classes": 10}


def subset(count=200):
    """The first of the digits; enough for a few batches."""
    return TensorDataset(*(tensor[:count] for tensor in digits().tensors))


class Few(PlainDigits):
    """The same ones, from our own data."""

    def load(self, test):
        return tuple(tensor[:200] for tensor in super().load(test))


class UsersModule(pl.LightningDataModule):
    """An ordinary one."""

    def __init__(self, validates=True):
        super().__init__()
        self.validates, self.calls = validates, []

    def prepare_data(self):
        self.calls.append("prepare_data")

    def setup(self, stage):
        self.calls.append("setup")
        self.train, self.val = subset(120), TensorDataset(*(t[120:200] for t in subset().tensors))

    def train_dataloader(self):
        return DataLoader(self.train, 32, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 32) if self.validates else []

    def test_dataloader(self):
        return DataLoader(digits(test=True), 50)

    def teardown(self, stage):
        self.calls.append("teardown")

    def state_dict(self):
        return {"kept": 3}

    def load_state_dict(self, state):
        self.calls.append(f"state {state['kept']}")


def retrain(**settings):
    network = {"channels": 2, "cells": 2}
    return Retrain("darts_v2", ImageClassification(), network=network, drop_path=0.0, **settings)


def images(cases):
    """The methods whose cases are on images."""
    return {name: case for name, case in cases.items() if isinstance(case.data(0), ImageData)}


@pytest.mark.slow
@pytest.mark.parametrize("name", images(CASES))
def test_every_method_is_the_same_with_a_users_loader_as_with_our_data(name):
    """From equal batches: equal weights and architecture, bit for bit."""

    def ended(*data):
        method, run = CASES[name].build(), trainer(max_epochs=3, limit_train_batches=4)
        if not method.task.labelled or method.task.views > 1:
            pytest.skip("digits as they are have one view")
        run.fit(method, *data)
        return method, {key: float(value) for key, value in run.callback_metrics.items()}

    ours, figures = ended(Few(batch_size=25))
    theirs, same = ended(DataLoader(subset(), 25, shuffle=True))
    assert_same(ours.state_dict(), theirs.state_dict())
    assert figures == same
    a, b = ours.choose(Few(batch_size=25)), theirs.choose(DataLoader(subset(), 25))
    assert a == b


@pytest.mark.parametrize("build", [darts, random_search_ws, enas, retrain])
def test_a_users_data_module(build):
    method, data, run = build(), UsersModule(), trainer(max_epochs=1)
    run.fit(method, datamodule=data)
    assert run.datamodule is data
    assert data.calls == ["prepare_data", "setup", "teardown"]
    assert method.data.sizes() == {"weights examples": 120, "architecture examples": 80}
    assert method.hparams["inputs"] == SHAPE
    validated = "val/loss" if build is retrain else "val/supernet_loss"
    assert validated in run.callback_metrics
    if build is not retrain:
        assert method.choose(data)[0] == method.choose(method.data)[0]
    assert run.validate(method, datamodule=data, verbose=False)[0].keys() >= {validated}
    if build is retrain:
        assert run.test(method, datamodule=data, verbose=False)[0]["test/accuracy"] <= 1


def test_loaders_to_train_on_and_to_validate_on():
    method, run = retrain(), trainer(max_epochs=1)
    run.fit(method, DataLoader(subset(120), 40, shuffle=True), DataLoader(digits(test=True), 50))
    assert "val/accuracy" in run.callback_metrics
    assert run.num_training_batches == 3  # all of the first set, none of the second
    assert run.num_val_batches == [9]  # 360 by 40
    expected = run.callback_metrics["val/accuracy"]
    assert run.validate(method, DataLoader(digits(test=True), 50), verbose=False)[0]["val/accuracy"] == expected
    assert run.test(method, DataLoader(digits(test=True), 50), verbose=False)[0]["test/accuracy"] == expected
    other, again = darts(), trainer(max_epochs=1)
    again.fit(other, DataLoader(subset(120), 40, shuffle=True))
    assert other.data.sizes() == {"weights examples": 60, "architecture examples": 60}
    assert again.validate(other, DataLoader(digits(test=True), 50), verbose=False)


def test_a_trainer_goes_from_one_kind_of_data_to_another():
    run, module = trainer(max_epochs=1), retrain()
    loader = DataLoader(subset(120), 40)
    run.fit(module, datamodule=Digits(batch_size=60))
    for _ in range(2):  # the same loader is asked again, and not what was made of it
        run.fit_loop.epoch_progress.reset()
        run.fit(retrain(), loader)
        assert run.num_training_batches == 3
    last = retrain()
    run.fit_loop.epoch_progress.reset()
    run.fit(last, datamodule=Digits(batch_size=60))
    assert isinstance(last.data, Digits)
    assert run.num_training_batches == 23


def test_the_same_set_in_every_form():
    def ended(*args, **kwargs):
        method = darts()
        trainer(max_epochs=1).fit(method, *args, **kwargs)
        return method.state_dict()

    class Alone(UsersModule):
        def train_dataloader(self):
            return DataLoader(subset(), 64)

    expected = ended(OwnData(subset()))
    for args in [(subset(),), (DataLoader(subset(), 64),), (Alone(validates=False),)]:
        assert_same(ended(*args), expected)


@pytest.mark.parametrize("settings", [{"fast_dev_run": True}, {"limit_val_batches": 1}, {"num_sanity_val_steps": 2}])
def test_the_trainers_settings_hold(settings):
    method = darts()
    run = trainer(**({"max_epochs": 1} | settings))
    run.fit(method, DataLoader(subset(), 25, shuffle=True), DataLoader(digits(test=True), 25))
    assert run.num_training_batches == (1 if "fast_dev_run" in settings else 8)
    assert run.num_val_batches == [15 if "num_sanity_val_steps" in settings else 1]


def test_two_phases_follow_the_schedule():
    method, run = enas(controller_steps=3), trainer(max_epochs=1)
    run.fit(method, DataLoader(subset(100), 10))
    assert run.num_training_batches == 5 + 3


class Jittered(Dataset):
    """Digits with a transform of the user's that draws at random, from files, as dictionaries or as pairs."""

    classes = tuple(range(10))

    def __len__(self):
        return 100

    def __getitem__(self, index):
        image, label = subset()[index]
        return image + 0.1 * torch.rand(1) + 0.1 * random.random(), int(label)


@pytest.mark.slow
def test_interrupted_and_continued_is_uninterrupted(tmp_path):
    def loaders(workers):
        return DataLoader(Jittered(), 10, shuffle=True, num_workers=workers)

    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    first, whole = darts(), trainer(max_epochs=3, callbacks=[keep], enable_checkpointing=True)
    whole.fit(first, loaders(0))
    second, rest = darts(), trainer(max_epochs=3)
    rest.fit(second, loaders(2), ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    assert_same(first.state_dict(), second.state_dict())
    content = torch.load(tmp_path / "epoch=0.ckpt", weights_only=True)["lightning_nas"]
    assert content["sizes"] == {"weights examples": 50, "architecture examples": 50}
    assert content["data"]["init_args"]["train"] == "Jittered"
    for data, message in [
        (DataLoader(Jittered(), 5), "data.batch_size: 10 in the checkpoint, 5 now"),
        (OwnData(Jittered(), batch_size=10, split_seed=1), "data.split_seed: 0 in the checkpoint, 1 now"),
        (DataLoader(subset(), 10), "data: 50 weights examples in the checkpoint, 100 now"),
    ]:
        with pytest.raises(SettingError, match=message):
            trainer(max_epochs=3).fit(darts(), data, ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)


def test_the_state_of_a_users_module_is_kept(tmp_path):
    run = trainer(max_epochs=1)
    run.fit(darts(), datamodule=UsersModule())
    run.save_checkpoint(tmp_path / "a.ckpt")
    data = UsersModule()
    trainer(max_epochs=2).fit(darts(), datamodule=data, ckpt_path=tmp_path / "a.ckpt", weights_only=True)
    assert "state 3" in data.calls


def test_a_search_is_loaded_with_its_data(tmp_path):
    method, run = random_search_ws(), trainer(max_epochs=1)
    run.fit(method, DataLoader(subset(), 25))
    run.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(SettingError, match=r"data\.train: a checkpoint has just the name of your set, TensorDataset"):
        load_search(str(tmp_path / "a.ckpt"))
    again, data = load_search(str(tmp_path / "a.ckpt"), DataLoader(subset(), 25))
    assert again.choose(data) == method.choose(data)
    search = TrialSearch(method.space, RandomSearch(), SharedWeights(str(tmp_path / "a.ckpt"), 1), n_trials=2)
    trainer(max_epochs=1, default_root_dir=tmp_path).fit(search, DataLoader(subset(), 25))
    assert len(search.trials.history) == 2


def test_trials_train_on_a_users_loader(tmp_path):
    evaluator = FromScratch(ImageClassification(), network={"channels": 2, "cells": 2}, epochs=1)
    search = TrialSearch(DARTSCell(nodes=1), RandomSearch(), evaluator, n_trials=2)
    trainer(max_epochs=1, default_root_dir=tmp_path).fit(search, DataLoader(subset(), 25), DataLoader(subset(50), 25))
    assert [trial.done for trial in search.trials.history] == [True, True]


def test_views_of_a_users_set():
    class Shifted(Drawn):
        def __getitem__(self, index):
            return torch.randn(1, 8, 8)

    method = darts(task=ContrastiveLearning(features=4, dimensions=3))
    trainer(max_epochs=1).fit(method, DataLoader(Shifted(40), 10))
    assert method.network.inputs["channels"] == 1


def test_what_a_search_leaves_names_no_command(tmp_path, capsys):
    logger = ArchitectureLogger(n_random=2)
    run = trainer(max_epochs=1, callbacks=[logger], default_root_dir=tmp_path)
    run.fit(darts(), DataLoader(subset(), 25))
    assert "python -m" not in capsys.readouterr().out
    assert list(tmp_path.rglob("architecture.json"))


class Endless(IterableDataset):
    def __iter__(self):
        return iter([])


class Transfers(UsersModule):
    def transfer_batch_to_device(self, batch, device, dataloader_idx):
        return batch


class Two(UsersModule):
    def train_dataloader(self):
        return [DataLoader(self.train, 8), DataLoader(self.train, 8)]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: DataLoader(Endless(), 2), "data.train: examples are taken by their numbers, got Endless; hand over"),
        (lambda: [DataLoader(subset(), 8)] * 2, "data.train: one set or one loader, got list; hand over"),
        (lambda: DataLoader(subset(), None), "data.train: a loader with batch_size=None; hand over"),
        (lambda: Two(), "data.train: one set or one loader, got list; hand over"),
        (lambda: Transfers(), "data: Transfers.transfer_batch_to_device would be given"),
        (lambda: DataLoader(Drawn(24, as_dict=True), 4), "inputs: .* is not known, .*dictionary of image, label"),
        (lambda: DataLoader(subset(), 150), "batch_size: 150 is more than the 100 examples of the weights part"),
    ],
)
def test_what_cannot_work_is_refused_before_the_first_step(data, message):
    method = darts()
    with pytest.raises(SettingError, match=message):
        trainer(max_epochs=1).fit(method, data())
    assert not hasattr(method, "network") or not method.trainer.global_step


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "tests.training.test_own_data.UsersModule",
            r"data: .*UsersModule is no lightning_nas\.DataModule, .* from Python",
        ),
        ("OwnData", r"data\.train: there is no such set"),
    ],
)
def test_the_command_line_says_that_they_are_for_python(name, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["fit", "--config", "darts/quickstart.yaml", "--data", name]) != 0
    assert re.search(message, capsys.readouterr().err)


def test_nothing_to_validate_on():
    with pytest.raises(SettingError, match="data: there is nothing to validate on; hand over"):
        trainer().validate(darts(inputs=SHAPE))


X, Y = torch.zeros(64, 1, 8, 8), torch.arange(64) % 4
UNREADABLE = {
    "bytes": TensorDataset(X.byte(), Y),
    "doubles": TensorDataset(X.double(), Y),
    "labels in a column": TensorDataset(X, Y[:, None]),
    "labels of 32 bits": TensorDataset(X, Y.int()),
    "labels beyond the classes": TensorDataset(X, Y + 7),
    "no labels": TensorDataset(X),
    "three parts": TensorDataset(X, Y, Y),
    "other channels": TensorDataset(X.expand(-1, 3, -1, -1), Y),
    "dictionaries": [{"x": X[0], "y": 1}] * 64,
}


class Listed(Dataset):
    def __init__(self, examples):
        self.examples = examples

    def __len__(self):
        return len(self.examples)

    def __getitem__(self, index):
        return self.examples[index]


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("make", [darts, retrain])
def test_batches_that_cannot_be_read_are_refused_before_the_first_step(make, name):
    given, run = UNREADABLE[name], trainer(max_epochs=1)
    module = make(inputs=SHAPE)
    with pytest.raises(SettingError, match=r"^data: a batch of the \w+ part, .* cannot be read by ImageClassification"):
        run.fit(module, DataLoader(Listed(given) if isinstance(given, list) else given, 16))
    assert run.global_step == 0


@pytest.mark.parametrize("make", [darts, enas, random_search_ws, retrain])
def test_trying_a_batch_leaves_the_module_and_the_generators_alone(make):
    module, run = make(inputs=SHAPE), trainer(max_epochs=1)
    states = []

    class Before(pl.Callback):
        def on_fit_start(self, trainer, pl_module):  # before the module's own
            states.append(({k: v.clone() for k, v in pl_module.state_dict().items()}, torch.get_rng_state()))

        def on_sanity_check_start(self, trainer, pl_module):
            states.append((pl_module.state_dict(), torch.get_rng_state()))
            assert pl_module.network.training
            trainer.should_stop = True

    run.callbacks.append(Before())
    torch.manual_seed(3)
    run.fit(module, DataLoader(subset(), 32), DataLoader(subset(), 32))
    assert len(states) == 2
    assert_same(states[0], states[1])
