"""A network with the weights that a retraining has left."""

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lightning_nas import Digits, ImageClassification, Retrain, SettingError, load_network
from lightning_nas.methods import DARTS
from lightning_nas.spaces import DARTSRecurrentCell, NASBench201
from lightning_nas.testing.method import quiet_trainer
from lightning_nas.training import SGD, checkpoints

NETWORK = {"channels": 4, "cells": 1}


def trained(module, path, **settings):
    run = quiet_trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=0, **settings)
    run.fit(module, Digits(batch_size=128))
    run.save_checkpoint(path)
    return module.network.cpu()


@pytest.fixture(scope="module")
def retrained(tmp_path_factory):
    path = tmp_path_factory.mktemp("retrained") / "last.ckpt"
    module = Retrain("darts_v1", ImageClassification(), {"channels": 4, "cells": 3}, optimizer=SGD(0.1))
    return path, trained(module, path)


def assert_same_network(one, other):
    states = one.state_dict(), other.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert torch.equal(one.eval()(other.example(3) + 1), other.eval()(other.example(3) + 1))


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_it_is_the_network_of_the_retraining(retrained, kind):
    path, network = retrained
    loaded = load_network(kind(path))
    assert loaded.training
    assert all(module.training for module in loaded.modules())
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert (loaded.inputs, dict(loaded.settings)) == (network.inputs, dict(network.settings))
    assert_same_network(loaded, network)


def test_a_new_classifier_leaves_the_other_weights(retrained):
    path, network = retrained
    network.eval()
    x = network.example(3) + 1
    pooled = network.forward_head(network.forward_features(x), pre_logits=True)
    assert torch.equal(load_network(path, num_classes=0).eval()(x), pooled)
    new = load_network(path, num_classes=4).eval()
    assert new(x).shape == (3, 4)
    assert torch.equal(new.forward_features(x), network.forward_features(x))


def test_averaged_weights_are_taken(tmp_path):
    module = Retrain("nas_bench_201_best", ImageClassification(), NETWORK, drop_path=0.0, optimizer=SGD(0.1))
    average = EMAWeightAveraging(decay=0.5)
    checkpoint = ModelCheckpoint(tmp_path, save_last=True)  # while it trains: in the end the module has the average
    trained(module, tmp_path / "end.ckpt", callbacks=[average, checkpoint], enable_checkpointing=True)
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    name = "stem.0.weight"
    loaded = load_network(tmp_path / "last.ckpt").state_dict()[name]
    assert torch.equal(loaded, average._average_model.module.network.state_dict()[name])
    assert not torch.equal(loaded, saved["current_model_state"][f"network.{name}"])
    assert_same_network(load_network(tmp_path / "end.ckpt"), load_network(tmp_path / "last.ckpt"))


def test_what_is_no_retraining_of_images_is_refused(tmp_path, retrained, monkeypatch):
    search = DARTS(NASBench201(), ImageClassification(), NETWORK, order="first")
    trained(search, tmp_path / "search.ckpt")
    with pytest.raises(SettingError, match=r"path: the checkpoint of a retraining, got that of a search"):
        load_network(tmp_path / "search.ckpt")
    with pytest.raises(SettingError, match=r"path: there is no file"):
        load_network(tmp_path / "none.ckpt")
    with pytest.raises(SettingError, match=r"num_classes: 1 or more, or 0 .* got -1"):
        load_network(retrained[0], num_classes=-1)
    words = DARTSRecurrentCell()
    monkeypatch.setattr(checkpoints, "trained_network", lambda path, field: words.network({"vocabulary": 11}, hidden=5))
    with pytest.raises(SettingError, match=r"num_classes: of networks of images only"):
        load_network("text.ckpt", num_classes=3)
