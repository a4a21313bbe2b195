"""A user's own data again: chosen on, validated on, continued on, and other data where they are not the same."""

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset, random_split

from lightning_nas.data import Digits, OwnData
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import FromScratch
from lightning_nas.methods import DARTS
from lightning_nas.spaces import NASBench201
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.strategies import RandomSearch
from lightning_nas.tasks import ImageClassification
from lightning_nas.training import Retrain
from lightning_nas.trials import TrialSearch
from tests.helpers.methods import enas, random_search_ws, trainer

SMALL = {"channels": 2, "cells": 1}


def numbered(count=96, size=(8, 8)):
    """Images of noise, labels that go round."""
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(count, 1, *size, generator=generator), torch.arange(count) % 10)


class Recording(Dataset):
    """Notes which examples it is asked for."""

    def __init__(self, count=96):
        self.images, self.targets = numbered(count).tensors
        self.asked = set()

    def __len__(self):
        return len(self.targets)

    def __getitem__(self, index):
        self.asked.add(index)
        return self.images[index], self.targets[index]


class Divided(pl.LightningDataModule):
    """Divides its examples at random whenever it is set up, as many do."""

    def __init__(self):
        super().__init__()
        self.examples = Recording()

    def setup(self, stage):
        self.train, self.val = random_split(self.examples, [64, 32])

    def train_dataloader(self):
        return DataLoader(self.train, 16, shuffle=True)

    def val_dataloader(self):
        return DataLoader(self.val, 16)


def search(**settings):
    return DARTS(NASBench201(), ImageClassification(), SMALL, order="first", **settings)


def retrain(**settings):
    return Retrain("nas_bench_201_best", ImageClassification(), SMALL, drop_path=0.0, **settings)


def test_candidates_are_judged_on_what_was_held_out_in_the_fit():
    data, method = Divided(), random_search_ws(bn="batch")
    trainer(max_epochs=1).fit(method, datamodule=data)
    held_out = set(data.val.indices)
    data.examples.asked.clear()
    method.choose(data)
    assert data.examples.asked <= held_out


def test_the_loader_that_was_trained_on_stands_for_the_data_of_the_fit():
    train, val = Recording(64), Recording(32)
    loaders = DataLoader(train, 16, shuffle=True), DataLoader(val, 16)
    method = enas(bn="batch")
    trainer(max_epochs=1).fit(method, *loaders)
    for data in (loaders[0], loaders):
        train.asked.clear(), val.asked.clear()
        method.choose(data)
        assert not train.asked
        assert val.asked
    with pytest.raises(TypeError, match="positional"):
        method.choose(*loaders)


def test_another_division_is_not_continued_on(tmp_path):
    run = trainer(max_epochs=1)
    run.fit(search(), datamodule=Divided())
    run.save_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(SettingError, match=r"data: the train set has other examples .* random_split\(…, generator=…\)"):
        trainer(max_epochs=2).fit(search(), datamodule=Divided(), ckpt_path=tmp_path / "a.ckpt")


def test_a_search_that_was_validated_since_is_saved_with_its_own_data(tmp_path):
    val, data = DataLoader(numbered(40), 16), Digits(batch_size=60)
    for given, evaluated in (((DataLoader(numbered(64), 16), val), val), ((data,), data)):
        method, run = search(), trainer(max_epochs=1)
        run.fit(method, *given)
        trainer().validate(method, evaluated, verbose=False)
        run.save_checkpoint(tmp_path / "a.ckpt")
        trainer(max_epochs=2).fit(search(), *given, ckpt_path=tmp_path / "a.ckpt")


def test_a_callback_may_ask_for_the_network_before_the_setup():
    run = trainer(max_epochs=1, callbacks=[EMAWeightAveraging()])
    run.fit(retrain(), DataLoader(numbered(), 16))
    assert torch.isfinite(run.callback_metrics["train/loss"])


def test_trials_on_other_sets_are_another_search(tmp_path):
    def fit(count):
        method = TrialSearch(
            NASBench201(), RandomSearch(), FromScratch(ImageClassification(), SMALL, epochs=1), n_trials=1
        )
        trainer(max_epochs=1, default_root_dir=tmp_path).fit(method, DataLoader(numbered(count), 16))

    fit(64)
    with pytest.raises(SettingError, match="of another search"):
        fit(96)


def test_images_of_another_size_than_the_network_are_refused():
    inputs = {"channels": 1, "image_size": 8, "num_classes": 10}
    with pytest.raises(SettingError, match="inputs: image_size 8, and images are 8×12"):
        trainer(max_epochs=1).fit(retrain(inputs=inputs), DataLoader(numbered(size=(8, 12)), 16))


class Foreign(pl.LightningModule):
    """Validates nothing."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.n_images = 0

    def training_step(self, batch, batch_idx):
        self.n_images += len(batch[0])
        return self.weight * batch[0].mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_module_that_validates_nothing_trains_on_everything():
    module = Foreign()
    trainer(max_epochs=1).fit(module, OwnData(numbered(96), batch_size=16))
    assert module.n_images == 96
    with pytest.raises(SettingError, match="batch_size: 64 is more than the 48 examples of the train part"):
        trainer(max_epochs=1).fit(Foreign(), OwnData(numbered(48)))


def test_nothing_is_chosen_before_the_fit():
    with pytest.raises(SettingError, match="fit it first"):
        enas().choose(Digits())


def test_what_is_no_architecture_is_no_record():
    with pytest.raises(SettingError, match=r"search\.choose\(data\)"):
        ArchitectureRecord(NASBench201(), None)
    with pytest.raises(SettingError, match=r"ArchitectureRecord\(search\.space"):
        Retrain((0, 0, 0, 0, 0, 0), ImageClassification())


def test_an_order_that_is_none_is_refused():
    with pytest.raises(SettingError, match="order: first, finite_difference or exact, got 'frist'"):
        DARTS(NASBench201(), ImageClassification(), SMALL, order="frist")
