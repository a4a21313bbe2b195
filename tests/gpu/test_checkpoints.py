"""A checkpoint made on an accelerator is read on a CPU and says the same.

The trainer moves a module to the CPU when it is done, so a checkpoint of the accelerator is one from within the
training.
"""

from random import Random

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_nas.methods import load_search
from lightning_nas.supernets import Scorer
from lightning_nas.tasks import ImageClassification
from lightning_nas.testing.method import assert_same, snapshot
from lightning_nas.training.checkpoints import checkpoint_settings, restore
from lightning_nas.training.retrain import Retrain
from tests.helpers.methods import CASES, digits

pytestmark = pytest.mark.gpu

TOLERANCE = 1e-4
"""Of scores, and of logits relative to the largest."""


@pytest.fixture
def checkpoint(device, trainer, tmp_path):
    """Trains a module for an epoch: the path of the checkpoint at its end. The module is back on the device."""

    def make(module, data):
        each_epoch = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
        trainer(max_epochs=1, callbacks=[each_epoch], enable_checkpointing=True).fit(module, data)
        path = tmp_path / "last.ckpt"
        # metrics are reset after the checkpoint
        state = {k: v for k, v in torch.load(path, weights_only=True)["state_dict"].items() if "metrics" not in k}
        assert {value.device.type for value in state.values()} == {device.type}
        ended = snapshot(module)
        assert_same({name: value.cpu() for name, value in state.items()}, {name: ended[name].cpu() for name in state})
        module.to(device).eval()
        return str(path)

    return make


def assert_on_cpu(module):
    assert {value.device.type for value in module.state_dict().values()} == {"cpu"}


@torch.no_grad()
def logits(module, batches, **settings):
    """In evaluation mode, of all batches, on the CPU."""
    module.eval()
    place = next(module.parameters()).device
    return torch.cat([module.network(images.to(place), **settings).cpu() for images, _ in batches])


def assert_near(found, expected):
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def test_a_search_of_images(device, checkpoint):
    method = CASES["darts-first"].made()
    path = checkpoint(method, digits())
    loaded, data = load_search(path)
    assert_on_cpu(loaded)
    assert next(method.parameters()).device.type == device.type
    assert loaded.best() == method.best()

    weights = data.stream("weights", 0)
    training, validation = [weights.get(k) for k in range(3)], list(data.evaluation("architecture", 3))
    rng = Random(0)
    architectures = [loaded.best(), *(loaded.space.random(rng) for _ in range(3))]
    for architecture in architectures:
        gates = loaded.space.gates(architecture)
        assert_near(logits(method, validation, gates=gates), logits(loaded, validation, gates=gates))

    def scores(search):
        # in float64, in which no image lies so close to a border between classes that rounding decides
        batches = [[(images.double(), labels) for images, labels in part] for part in (validation, training)]
        score = Scorer(search.space, search.network.double(), search.task, *batches)
        return [score(architecture) for architecture in architectures]

    found = scores(method)
    assert found == pytest.approx(scores(loaded), abs=TOLERANCE)
    assert all(0 <= score <= 1 for score in found)


def test_a_search_of_text(device, checkpoint):
    case = CASES["darts-rnn"]
    method = case.made(bn="batch")
    path = checkpoint(method, case.data(0))
    loaded, data = load_search(path)
    assert_on_cpu(loaded)
    assert loaded.best() == method.best()
    architectures = [loaded.best(), loaded.space.random(Random(0))]
    for architecture in architectures:
        there, here = (Scorer.of(search, data)(architecture) for search in (method, loaded))
        assert there == pytest.approx(here, rel=TOLERANCE)


def test_a_retraining(device, checkpoint):
    network = {"channels": 4, "cells": 3}
    module = Retrain("darts_v2", ImageClassification(), network, digits().inputs)
    path = checkpoint(module, digits())
    settings, data = checkpoint_settings(path), digits()
    again = Retrain.build(settings["model"])
    restore(again, data, path)
    assert_on_cpu(again)
    batches = list(data.evaluation("test"))
    labels = torch.cat([labels for _, labels in batches])
    there, here = logits(module, batches), logits(again, batches)
    assert_near(there, here)
    assert F.cross_entropy(there, labels).item() == pytest.approx(F.cross_entropy(here, labels).item(), rel=TOLERANCE)
