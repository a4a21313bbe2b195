"""Methods small enough to be tested, and their data."""

from functools import partial
from random import Random

import torch

from lightning_nas.controllers import PPO, FactorizedController, Reinforce, TransformerController
from lightning_nas.data import Digits, ImageData, TextData
from lightning_nas.methods import DARTS, ENAS, GDAS, PDARTS, SNAS, SPOS, RandomSearchWS
from lightning_nas.spaces import (
    DARTSCell,
    DARTSRecurrentCell,
    ENASMacro,
    ENASMicro,
    ENASRecurrentCell,
    NASBench201,
    NASNetCell,
    OwnSpace,
    ProxylessMobile,
    ShuffleBlocks,
)
from lightning_nas.tasks import ContrastiveLearning, ImageClassification, LanguageModeling
from lightning_nas.testing import MethodCase
from lightning_nas.testing.method import differing, snapshot
from lightning_nas.testing.method import quiet_trainer as trainer
from lightning_nas.training import SGD
from lightning_nas.training.lr_schedules import Cosine, Linear
from tests.helpers.optimizers import objects
from tests.helpers.own_network import Net

__all__ = ["differing", "snapshot", "trainer"]  # so that a test imports all from here

MICRO = ENASMicro(nodes=1, operations=["skip_connect", "sep_conv_3x3", "max_pool_3x3"])
NETWORKS = {
    DARTSCell: {"channels": 2, "cells": 2},
    NASNetCell: {"channels": 2, "cells": 2},
    NASBench201: {"channels": 2, "cells": 1},
    ENASMicro: {"channels": 4, "layers": 1},
    ENASMacro: {"channels": 2},
    ProxylessMobile: {},
    ShuffleBlocks: {},
    DARTSRecurrentCell: {"hidden": 6},
    ENASRecurrentCell: {"hidden": 6},
    OwnSpace: {},
}
"""Small ones for each space."""


def space(operations=("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")):
    return DARTSCell(nodes=2, operations=operations)


def build(method, given, **few):
    chosen = given.pop("space", None) or space()
    usual = LanguageModeling() if chosen.modality == "text" else ImageClassification()
    task = given.pop("task", usual)
    return method(chosen, task, **({"network": NETWORKS.get(type(chosen))} | objects(method, few | given)))


def darts(**given):
    return build(DARTS, given)


def pdarts(**given):
    small = {"stages": [{"cells": n} for n in (1, 2, 3)], "operations": [3, 2], "epochs": 1, "warmup_epochs": 0}
    return build(PDARTS, {"network": {"channels": 2}} | given, **small, skip_dropout=[0.0, 0.3, 0.6])


def random_search_ws(**given):
    return build(RandomSearchWS, given, n_candidates=4, n_batches=1, n_finalists=2)


def snas(**given):
    return build(SNAS, given)


def gdas(**given):
    return build(GDAS, given)


def spos(**given):
    few = {"rounds": 2, "population": 4, "n_mutants": 1, "n_crossovers": 1, "n_batches": 1, "n_calibration": 2}
    return build(SPOS, given, **few, optimizer=SGD(0.05, 0.9, schedule=Linear(), decay_vectors=False))


def enas(**given):
    return build(ENAS, given, controller_steps=2, samples_per_step=2, n_candidates=2, drop_path=0.2)


DARTS_STEPS = {"alphas_lr": 0.02, "alphas_weight_decay": 0.0}
ENAS_STEPS = {"controller_lr": 0.1, "lr_schedule": Cosine(), "drop_path": 0.0, "n_candidates": 5}
CHAIN = {"widths": (8, 12), "blocks": (1, 2), "strides": (1, 2), "stem_stride": 1, "last": 8}
ONE_SHOT = {
    "darts-first": partial(darts, order="first", **DARTS_STEPS),
    "darts-second": partial(darts, **DARTS_STEPS),
    "random-search-ws": partial(random_search_ws, n_candidates=50),
    "enas": partial(enas, controller_steps=8, samples_per_step=8, update=Reinforce(0.9, 1e-4, 0.0), **ENAS_STEPS),
    "enas-ppo": partial(enas, controller_steps=8, samples_per_step=8, update=PPO(0.9), **ENAS_STEPS),
    "snas": partial(snas, alphas_lr=0.05, alphas_weight_decay=0.0, drop_path=0.0),
    "gdas": partial(gdas, alphas_lr=0.1, alphas_weight_decay=0.0),
    "spos": partial(spos, rounds=6, population=8, n_mutants=3, n_crossovers=3, n_batches=8, n_calibration=8),
}
"""Name to a function that builds the method with settings that suit a short search."""


class Planted(ImageData):
    """Two classes that only an operation with a wide receptive field tells apart: the right half of random pixels
    repeats the left half, or its negative."""

    mean, std = (0.5,), (0.5,)

    def __init__(self, batch_size=64):
        super().__init__(batch_size, num_workers=0, architecture_share=0.5, split_seed=0)
        self.inputs = {"channels": 1, "image_size": 8, "num_classes": 2}

    def load(self, test):
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 2, (1024, 1, 8, 8), generator=generator)
        labels = torch.randint(0, 2, (1024,), generator=generator)
        images[..., 4:] = (images[..., :4] + labels.view(-1, 1, 1, 1)) % 2
        return (images * 255).byte(), labels


def digits(num_workers=0):
    return Digits(batch_size=128, num_workers=num_workers)  # five steps an epoch


class Words(TextData):
    """Five windows a pass of few words."""

    def __init__(self):
        super().__init__(batch_size=2, evaluation_batch_size=2, bptt=5, variable_bptt=True)

    def lines(self, split):
        rng = Random(split)
        return [[rng.choice("abcdefg") for _ in range({"train": 49, "valid": 39, "test": 29}[split])]]


def words(num_workers=0):
    return Words()


CASES = {
    "darts-first": MethodCase(partial(darts, order="first"), digits),
    "darts-second": MethodCase(darts, digits, thorough=True),
    "darts-exact-warmup": MethodCase(partial(darts, order="exact", warmup_epochs=1), digits, architecture_steps=5),
    "darts-nas-bench-201": MethodCase(partial(darts, order="first", space=NASBench201()), digits),
    "darts-nasnet": MethodCase(
        partial(darts, order="first", space=NASNetCell(nodes=1, operations=["skip_connect", "sep_conv_3x3"])), digits
    ),
    "p-darts": MethodCase(pdarts, digits, thorough=True),
    "random-search-ws": MethodCase(random_search_ws, digits, architecture_steps=0, neither=("steps",), thorough=True),
    "snas": MethodCase(partial(snas, cost="log"), digits, thorough=True),
    "snas-edge-all": MethodCase(
        partial(
            snas, space=DARTSCell(nodes=2, kept=None), cost="linear", estimator="policy_gradient", cost_weight=1e-3
        ),
        digits,
    ),
    "snas-rnn": MethodCase(partial(snas, space=DARTSRecurrentCell(nodes=2), drop_path=0.0), words),
    "gdas": MethodCase(gdas, digits, thorough=True),
    "gdas-nas-bench-201": MethodCase(partial(gdas, space=NASBench201()), digits),
    "gdas-enas-micro": MethodCase(partial(gdas, space=MICRO), digits),
    "spos": MethodCase(
        partial(spos, space=ShuffleBlocks(4, **CHAIN), limit="multiply_adds <= 30e3", bins=[20e3, 30e3, 55e3]),
        digits,
        architecture_steps=0,
        thorough=True,
    ),
    "spos-mobile": MethodCase(
        partial(spos, space=ProxylessMobile((4, 4), **CHAIN), limit="flops <= 1e6"), digits, architecture_steps=0
    ),
    "spos-darts": MethodCase(spos, digits, architecture_steps=0),
    "enas-darts": MethodCase(
        partial(enas, models_per_step=2), digits, architecture_steps=4, neither=("baseline.average",)
    ),
    "enas-micro": MethodCase(
        partial(enas, space=MICRO, controller=TransformerController(width=8, heads=2)),
        digits,
        architecture_steps=4,
        neither=("baseline.average",),
        thorough=True,
    ),
    "enas-macro": MethodCase(
        partial(enas, space=ENASMacro(layers=3), skip_weight=0.5),
        digits,
        architecture_steps=4,
        neither=("baseline.average",),
    ),
    "enas-nas-bench-201": MethodCase(
        partial(enas, space=NASBench201(), controller=FactorizedController()),
        digits,
        architecture_steps=4,
        neither=("baseline.average",),
    ),
    "enas-ppo": MethodCase(
        partial(enas, space=ENASMacro(layers=3), skip_weight=0.5, update=PPO(passes=2)),
        digits,
        architecture_steps=8,
        neither=("baseline.average", "baseline.weight"),
    ),
    "enas-contrastive": MethodCase(  # two views, no labels, a module of the task
        partial(enas, space=NASBench201(), task=ContrastiveLearning(features=6, dimensions=4)),
        digits,
        architecture_steps=4,
        neither=("reinforce.baseline",),
    ),
    "darts-own": MethodCase(partial(darts, space=OwnSpace(Net)), digits, thorough=True),
    "p-darts-own": MethodCase(
        partial(
            pdarts,
            space=OwnSpace(Net),
            network={},
            stages=[{}],
            operations=[],
            skip_dropout=[0.0],
            epochs=3,
        ),
        digits,
    ),
    "snas-own": MethodCase(partial(snas, space=OwnSpace(Net)), digits),
    "gdas-own": MethodCase(partial(gdas, space=OwnSpace(Net)), digits),
    "spos-own": MethodCase(partial(spos, space=OwnSpace(Net), limit="flops <= 30e3"), digits, architecture_steps=0),
    "enas-own": MethodCase(
        partial(enas, space=OwnSpace(Net), drop_path=0.0),
        digits,
        architecture_steps=4,
        neither=("baseline.average",),
    ),
    "random-search-ws-own": MethodCase(
        partial(random_search_ws, space=OwnSpace(Net)), digits, architecture_steps=0, neither=("steps",)
    ),
    "darts-enas-micro": MethodCase(partial(darts, order="first", space=MICRO), digits),
    "darts-rnn": MethodCase(
        partial(darts, space=DARTSRecurrentCell(nodes=2), unrolled_clip=0.25, momentum=0.0), words, thorough=True
    ),
    "darts-exact-enas-rnn": MethodCase(partial(darts, order="exact", space=ENASRecurrentCell(nodes=3)), words),
    "enas-rnn": MethodCase(
        partial(enas, space=ENASRecurrentCell(nodes=3), drop_path=0.0, models_per_step=2),
        words,
        architecture_steps=4,
        neither=("baseline.average",),
    ),
    "random-search-ws-rnn": MethodCase(
        partial(random_search_ws, space=DARTSRecurrentCell(nodes=2)), words, architecture_steps=0, neither=("steps",)
    ),
}
"""The methods that the shared contracts cover. A new method is covered by being listed here."""

METHODS = {name: case.build for name, case in CASES.items()}


def data(name, num_workers=0):
    """What a method of this name is tested on."""
    return CASES[name].data(num_workers)


def made(name, **settings):
    """The method, with its network."""
    return CASES[name].made(**settings)


def child_of(search, architecture):
    """The architecture's own network with the shared weights."""
    child = search.space.restrict(architecture).network(search.network.inputs, **search.network_settings)
    child.load_state_dict(search.network.child_state(architecture))
    return child
