"""A search and a retraining that are interrupted and resumed on an accelerator end as if they had not been.

No operation in them is without a deterministic kernel, so equal means equal to the last bit.
"""

import pytest
import torch

from lightning_nas.callbacks import Interruption
from lightning_nas.spaces import DARTSCell
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.tasks import ImageClassification
from lightning_nas.testing.method import Stop, assert_same, differing, final_state, snapshot
from lightning_nas.training.retrain import Retrain
from tests.helpers.methods import CASES, digits

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("deterministic")]

SPACE = DARTSCell(nodes=2, operations=("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3", "dil_conv_5x5"))
FOUND = {
    "normal/0->2": "sep_conv_3x3",
    "normal/1->2": "skip_connect",
    "normal/0->3": "dil_conv_5x5",
    "normal/1->3": "none",
    "normal/2->3": "sep_conv_3x3",
    "reduce/0->2": "max_pool_3x3",
    "reduce/1->2": "dil_conv_5x5",
    "reduce/0->3": "none",
    "reduce/1->3": "skip_connect",
    "reduce/2->3": "sep_conv_3x3",
}


def retrain(inputs=None):
    """Of an architecture with operations of every kind; paths are dropped, so every step draws random numbers."""
    found = ArchitectureRecord(SPACE, SPACE.from_names(FOUND)).to_dict()
    return Retrain(found, ImageClassification(), {"channels": 4, "cells": 3}, inputs, drop_path=0.5)


def resumed(trainer, build, data, folder):
    """The final state after an interruption in the middle of the second epoch."""
    stopped = trainer(callbacks=[Stop(1, 2), Interruption(folder)])
    with pytest.raises(SystemExit) as exit_:
        stopped.fit(build(), data())
    assert exit_.value.code == 143
    content = torch.load(folder / "last.ckpt", weights_only=True)
    module = type(build()).load_from_checkpoint(folder / "last.ckpt", map_location="cpu")
    assert_same(snapshot(module), {name: value.cpu() for name, value in content["state_dict"].items()})
    run = trainer()
    run.fit(module, data(), ckpt_path=folder / "last.ckpt")
    return content, final_state(module, run)


def uninterrupted(trainer, module, data):
    run = trainer()
    run.fit(module, data())
    return final_state(module, run)


def assert_on(device, content):
    """That the checkpoint was made on the device, so that resuming has brought everything back there."""
    assert {value.device.type for value in content["state_dict"].values()} == {device.type}
    kept = [tensor for state in content["optimizer_states"][0]["state"].values() for tensor in state.values()]
    assert {tensor.device.type for tensor in kept if tensor is not None} <= {device.type}


@pytest.mark.parametrize("name", ["darts-first", "darts-second", "darts-exact-warmup", "darts-rnn"])
def test_a_search(name, device, trainer, tmp_path):
    case = CASES[name]
    whole = uninterrupted(trainer, case.made(), lambda: case.data(0))
    content, final = resumed(trainer, case.made, lambda: case.data(0), tmp_path)
    assert_on(device, content)
    assert_same(final, whole)
    assert differing(snapshot(case.made()), final[0])


def test_a_retraining(device, trainer, tmp_path):
    inputs = digits().inputs
    whole = uninterrupted(trainer, retrain(inputs), digits)
    content, final = resumed(trainer, lambda: retrain(inputs), digits, tmp_path)
    assert_on(device, content)
    assert_same(final, whole)
    assert differing(snapshot(retrain(inputs)), final[0])
