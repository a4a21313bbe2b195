"""Every argument of every class, changed where a run continues: it takes effect, or is refused by its name.

The classes and their arguments come from their signatures. A new one fails here until the table says what it does.
"""

import copy
import dataclasses
import inspect
import json
import re
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from PIL import Image

from lightning_nas import PUBLIC
from lightning_nas.catalogue import KINDS
from lightning_nas.controllers import PPO, FactorizedController, LSTMController, Reinforce, TransformerController
from lightning_nas.data import (
    CIFAR10,
    ClutteredDigits,
    DataModule,
    Digits,
    ImageFolder,
    NoData,
    OwnData,
    PennTreebank,
    PyDocs,
    TextFiles,
    penn_treebank,
)
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import Evaluation, Evaluator, FromScratch, SharedWeights, TabularBenchmark, ZeroCost
from lightning_nas.executors import Processes, Ray, Serial
from lightning_nas.measures import NASWOT, Latency, Measure, SynFlow
from lightning_nas.methods import DARTS, ENAS, GDAS, PDARTS, SNAS, SPOS, RandomSearchWS
from lightning_nas.objectives import Objective
from lightning_nas.relaxations import GumbelSoftmax, Softmax, StraightThroughGumbel
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
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.specs import Configurable, class_path, concrete, find_class, subclasses
from lightning_nas.strategies import (
    ASHA,
    NSGA2,
    AgingEvolution,
    Hyperband,
    PolicyGradient,
    RandomSearch,
    SuccessiveHalving,
)
from lightning_nas.supernets.scoring import Scorer
from lightning_nas.tasks import ContrastiveLearning, Distillation, ImageClassification, LanguageModeling, Segmentation
from lightning_nas.testing.method import assert_same, quiet_trainer, snapshot
from lightning_nas.training import (
    SGD,
    Adam,
    AdamW,
    Cosine,
    CosineRestarts,
    Exponential,
    Linear,
    Module,
    Optimizer,
    Retrain,
    RMSprop,
)
from lightning_nas.training.checks import check_continued
from lightning_nas.trials import TrialSearch
from tests.helpers.masks import Masks
from tests.helpers.methods import Words, space
from tests.helpers.own_network import Net, Planted


class Own(ImageClassification):
    """Another classification."""


# -- what the table says -----------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Refused:
    """It cannot change.

    Attributes:
        value: another one.
    """

    value: Any


@dataclasses.dataclass(frozen=True)
class Changes:
    """It may change, and then what it is for changes.

    Attributes:
        value: another one.
        what: the figures of a run that are others in the epoch after.
        same: the figures that stay as they are.
    """

    value: Any
    what: tuple[str, ...]
    same: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Reads:
    """It may change, and all figures stay: it says where or how fast something is read.

    Attributes:
        value: another one.
        why: no figure depends on it.
    """

    value: Any
    why: str


@dataclasses.dataclass(frozen=True)
class Waits:
    """It may change, and nothing is run here to see it.

    Attributes:
        value: another one.
        why: it is not run.
    """

    value: Any
    why: str


@dataclasses.dataclass(frozen=True)
class Row:
    """A class in a run.

    Attributes:
        run: the name of the run.
        place: where the class's object is in the run's settings.
        settings: the arguments by name, with another value of each; ``optimizer.lr`` is one inside an argument.
        standing_in: the object, where it is another than the one that the run has there.
    """

    run: str
    place: str
    settings: dict[str, Any]
    standing_in: Configurable | None = None


WEIGHTS, ALPHAS, POLICY, VALIDATION, COMPARED, RATES, TRIALS = (
    ("weights",),
    ("alphas",),
    ("policy",),
    ("validation",),
    ("compared",),
    ("rates",),
    ("trials",),
)
"""The figures of a run: the network's weights, what a method learns of architectures, the validation of the last epoch,
the candidates that are compared in the end with their scores, the rates of the last epoch, the trials."""

WORKERS = "processes prepare the same batches"
PLACE = "the same data from another place"
FETCHING = "says what is done where files are missing or others, and here they are there"
EXECUTOR = "where and how trials run changes no result; tests/trials runs them in processes"
LAST_EPOCH = "in the last epoch the temperature is the end's"
CUTOUT = Changes(4, WEIGHTS)
OTHER_ARCHITECTURE = ArchitectureRecord(NASBench201(), (1, 1, 1, 1, 1, 1))
DIGITS = {"channels": 1, "image_size": 8, "num_classes": 10}
DIVIDED = {"batch_size": Refused(20), "architecture_share": Refused(0.25), "split_seed": Refused(1)}
WINDOWS = {
    "batch_size": Refused(3),
    "evaluation_batch_size": Changes(3, VALIDATION, (*WEIGHTS, *POLICY)),
    "bptt": Refused(6),
    "variable_bptt": Refused(False),
}
RULE = {"lr": Changes(0.01, (*WEIGHTS, *RATES)), "schedule": Changes(Exponential(0.5), (*WEIGHTS, *RATES))}
RULE |= {"clip": Changes(1e-3, WEIGHTS, RATES), "weight_decay": Changes(0.3, WEIGHTS, RATES)}
NETWORK = {
    "network": Refused({"channels": 4, "cells": 2}),
    "inputs": Refused(DIGITS | {"image_size": 16}),
    "seed": Refused(1),
    "task": Refused(LanguageModeling()),
}
POLICIES = {
    "temperature": Refused(None),
    "tanh_constant": Refused(1.0),
    "operation_tanh_reduce": Refused(2.0),
    "operation_bias": Refused({"conv_3x3": 1.0}),
    "skip_target": Refused(0.3),
}
UPDATE = {
    "decay": Changes(0.5, POLICY, WEIGHTS),
    "entropy_weight": Changes(1.0, POLICY, WEIGHTS),
    "baseline": Refused(1.0),
    "differentiate_entropy": Refused(None),
}
FEW = ["skip_connect", "sep_conv_3x3"]
CHAIN = {
    "widths": Refused([8, 16]),
    "blocks": Refused([1, 1]),
    "strides": Refused([1, 2]),
    "stem_stride": Refused(1),
    "last": Refused(16),
}
RUNGS = {
    "min_fidelity": Refused(3),
    "max_fidelity": Refused(9),
    "reduction": Refused(4),
    "rungs": Refused([1, 3, 9]),
}

TABLE: dict[type, Row] = {
    # -- methods and retraining
    DARTS: Row(
        "darts",
        "model",
        NETWORK
        | {
            "space": Refused(ENASMicro()),
            "bn": Changes("batch", VALIDATION, (*WEIGHTS, *ALPHAS)),
            "order": Changes("first", ALPHAS),
            "warmup_epochs": Changes(3, ALPHAS),
            "unrolled_clip": Changes(1e-3, ALPHAS),
            "relaxation": Refused(GumbelSoftmax()),
            "optimizer": Refused(Adam(0.1)),
            "optimizer.lr": Changes(0.2, (*WEIGHTS, *ALPHAS, *RATES)),
            "optimizer.momentum": Changes(0.1, (*WEIGHTS, *ALPHAS), RATES),
            "optimizer.clip": Changes(1e-3, WEIGHTS, RATES),
            "alphas_optimizer": Refused(SGD(0.1)),
            "alphas_optimizer.lr": Changes(0.1, (*ALPHAS, *RATES)),
            "alphas_optimizer.clip": Changes(1e-6, ALPHAS, RATES),
        },
    ),
    ENAS: Row(
        "enas",
        "model",
        NETWORK
        | {
            "network": Refused({"channels": 4}),
            "space": Refused(ENASMicro()),
            "bn": Changes("batch", COMPARED, (*WEIGHTS, *POLICY)),
            "controller": Refused(FactorizedController()),
            "models_per_step": Changes(2, WEIGHTS),
            "controller_steps": Refused(3),  # it is the length of an epoch, by which batches are numbered
            "samples_per_step": Changes(3, POLICY, WEIGHTS),
            "update": Refused(Reinforce(0.9)),
            "skip_weight": Changes(5.0, POLICY, WEIGHTS),
            "controller_optimizer": Refused(SGD(0.1)),
            "controller_optimizer.lr": Changes(0.1, (*POLICY, *RATES), WEIGHTS),
            "controller_optimizer.clip": Changes(1e-6, POLICY, WEIGHTS),
            "optimizer": Refused(Adam(0.1)),
            "optimizer.clip": Changes(1e-3, WEIGHTS),
            "drop_path": Changes(0.9, WEIGHTS),
            "n_candidates": Changes(4, COMPARED, (*WEIGHTS, *POLICY)),
        },
    ),
    SNAS: Row(
        "snas",
        "model",
        NETWORK
        | {
            "space": Refused(ENASMicro()),
            "bn": Waits("batch", "as of DARTS, by the same class"),
            "relaxation": Refused(StraightThroughGumbel()),
            "cost": Changes("linear", ALPHAS, RATES),
            "cost_weight": Changes(1.0, ALPHAS, RATES),
            "estimator": Changes("discrete", ALPHAS, RATES),
            "drop_path": Changes(0.0, WEIGHTS, RATES),
            "optimizer": Refused(Adam(0.1)),
            "alphas_optimizer": Refused(SGD(0.1)),
        },
    ),
    GDAS: Row(
        "gdas",
        "model",
        NETWORK
        | {
            "space": Refused(ENASMicro()),
            "bn": Waits("batch", "as of DARTS, by the same class"),
            "relaxation": Refused(GumbelSoftmax()),
            "optimizer": Refused(Adam(0.1)),
            "alphas_optimizer": Refused(SGD(0.1)),
        },
    ),
    PDARTS: Row(
        "p_darts",
        "model",
        NETWORK
        | {
            "space": Refused(ENASMicro()),
            "bn": Waits("batch", "as of DARTS, by the same class"),
            "stages": Refused([{"cells": 3}]),
            "operations": Refused([3]),
            "skip_dropout": Changes([0.9], WEIGHTS, RATES),
            "epochs": Refused(4),
            "warmup_epochs": Changes(1, WEIGHTS, RATES),  # dropout falls later
            "max_skips": Waits(0, "it is for what is derived; tests/methods/test_p_darts.py derives"),
            "optimizer": Refused(Adam(0.1)),
            "alphas_optimizer": Refused(SGD(0.1)),
        },
    ),
    RandomSearchWS: Row(
        "random_search_ws",
        "model",
        NETWORK
        | {
            "space": Refused(ENASMicro()),
            "bn": Changes("batch", COMPARED, WEIGHTS),
            "optimizer": Refused(Adam(0.1)),
            "optimizer.clip": Changes(1e-3, WEIGHTS),
            "n_candidates": Changes(3, COMPARED, WEIGHTS),
            "n_batches": Changes(2, COMPARED, WEIGHTS),
            "n_finalists": Changes(2, COMPARED, WEIGHTS),
            "rounds": Changes(2, COMPARED, WEIGHTS),
        },
    ),
    SPOS: Row(
        "spos",
        "model",
        NETWORK
        | {
            "space": Refused(ShuffleBlocks()),
            "network": Refused({"dropout": 0.5}),
            "bn": Changes("batch", COMPARED, WEIGHTS),
            "optimizer": Refused(Adam(0.1)),
            "optimizer.clip": Changes(1e-3, WEIGHTS),
            "bins": Refused([20e3, 30e3]),
            "limit": Changes("multiply_adds <= 25e3", COMPARED, WEIGHTS),
            "rounds": Changes(3, COMPARED, WEIGHTS),
            "population": Changes(5, COMPARED, WEIGHTS),
            "n_parents": Changes(1, COMPARED, WEIGHTS),
            "n_mutants": Changes(0, COMPARED, WEIGHTS),
            "n_crossovers": Changes(0, COMPARED, WEIGHTS),
            "mutation": Changes(0.9, COMPARED, WEIGHTS),
            "n_batches": Changes(2, COMPARED, WEIGHTS),
            "n_calibration": Changes(2, COMPARED, WEIGHTS),
        },
    ),
    Retrain: Row(
        "SGD",
        "model",
        NETWORK
        | {
            "architecture": Refused(OTHER_ARCHITECTURE.to_dict()),
            "train_on": Refused("all"),
            "optimizer": Refused(Adam(0.1)),
            "drop_path": Changes(0.9, WEIGHTS),
            "drop_path_schedule": Changes("scheduled", WEIGHTS),
            "initial": Refused("last.ckpt"),
        },
    ),
    TrialSearch: Row(
        "trials",
        "model",
        {
            "space": Refused(DARTSCell()),
            "strategy": Refused(RandomSearch()),
            "evaluator": Refused(FromScratch(ImageClassification())),
            "executor": Waits(Processes(1), EXECUTOR),
            "seed": Refused(1),
            "n_trials": Changes(8, TRIALS),
            "budget": Changes(4.0, TRIALS),
            "deterministic": Refused(False),
            "round_size": Refused(2),
            "max_failures": Changes(1, TRIALS),
            "retry_failed": Waits(True, "tests/trials/test_continuing.py runs failed trials again"),
            "reuse": Waits(True, "no architecture comes twice in seven trials; tests/trials/test_loop_again.py has it"),
            "objectives": Refused(["min width"]),
            "try_first": Refused([ArchitectureRecord(NASBench201(), (1,) * 6).to_dict()]),
            "known": Refused("other.jsonl"),
            "reference": Waits(
                [0.0], "the hypervolume in the end is measured from it; tests/trials/test_front.py has it"
            ),
            "keep_states": Waits(True, "these trials leave no states; tests/trials/test_course.py has it"),
        },
    ),
    # -- data
    Digits: Row(
        "SGD",
        "data",
        DIVIDED
        | {
            "image_size": Refused(16),
            "channels": Refused(3),
            "cutout": CUTOUT,
            "num_workers": Reads(1, WORKERS),
        },
    ),
    ClutteredDigits: Row(
        "ClutteredDigits",
        "data",
        DIVIDED
        | {
            "n_images": Refused(201),
            "image_size": Refused(15),
            "pieces": Refused(1),
            "num_workers": Reads(1, WORKERS),
        },
    ),
    CIFAR10: Row(
        "CIFAR10",
        "data",
        DIVIDED
        | {
            "folder": Reads("elsewhere", PLACE),
            "download": Reads(False, FETCHING),
            "verify": Reads(False, FETCHING),
            "cutout": CUTOUT,
            "split": Refused("cifar-split.txt"),
            "num_workers": Reads(1, WORKERS),
        },
    ),
    ImageFolder: Row(
        "ImageFolder",
        "data",
        DIVIDED
        | {
            "folder": Reads("moved", PLACE),
            "image_size": Refused(7),
            "flip": Changes(False, WEIGHTS),
            "labelled": Refused(False),
            "cutout": CUTOUT,
            "num_workers": Reads(1, WORKERS),
        },
    ),
    NoData: Row("trials", "data", {}),
    PennTreebank: Row(
        "PennTreebank",
        "data",
        WINDOWS
        | {
            "folder": Reads("elsewhere", PLACE),
            "download": Reads(False, FETCHING),
            "verify": Reads(False, FETCHING),
        },
    ),
    PyDocs: Row("PyDocs", "data", WINDOWS | {"max_vocabulary": Refused(10)}),
    TextFiles: Row(
        "TextFiles",
        "data",
        WINDOWS
        | {
            "folder": Reads("moved", PLACE),
            "train": Reads("a.txt", PLACE),
            "valid": Reads("b.txt", PLACE),
            "test": Reads("c.txt", PLACE),
            "lower": Refused(True),
            "max_vocabulary": Refused(5),
        },
    ),
    # -- tasks
    ImageClassification: Row(
        "auxiliary",
        "model.task",
        {"label_smoothing": Changes(0.5, WEIGHTS), "auxiliary_weight": Changes(5.0, WEIGHTS)},
    ),
    ContrastiveLearning: Row(
        "contrastive",
        "model.task",
        {"temperature": Changes(0.1, WEIGHTS), "features": Refused(7), "dimensions": Refused(2)},
    ),
    Distillation: Row(
        "distilled",
        "model.task",
        {
            "teacher": Reads("moved.ckpt", "the same weights from another place"),
            "weight": Changes(0.1, WEIGHTS),
            "temperature": Changes(1.0, WEIGHTS),
            "task": Refused(Own()),
            "task.label_smoothing": Changes(0.5, WEIGHTS),
        },
    ),
    Segmentation: Row(
        "segmented",
        "model.task",
        {"ignore_index": Refused(254), "auxiliary_weight": Changes(5.0, WEIGHTS)},
    ),
    LanguageModeling: Row(
        "PennTreebank",
        "model.task",
        {
            "activation_penalty": Changes(1.0, WEIGHTS),
            "slowness": Changes(1.0, WEIGHTS),
            "reward_scale": Changes(10.0, POLICY, WEIGHTS),
        },
    ),
    # -- optimisers and schedules
    SGD: Row(
        "SGD",
        "model.optimizer",
        RULE
        | {
            "momentum": Changes(0.1, WEIGHTS, RATES),
            "nesterov": Changes(True, WEIGHTS),
            "decay_vectors": Refused(False),
        },
    ),
    RMSprop: Row(
        "RMSprop",
        "model.optimizer",
        RULE
        | {
            "alpha": Changes(0.1, WEIGHTS, RATES),
            "eps": Changes(0.1, WEIGHTS, RATES),
            "momentum": Refused(0.5),  # without it before, its state is not there
        },
    ),
    Adam: Row(
        "Adam",
        "model.optimizer",
        RULE | {"betas": Changes([0.5, 0.9], WEIGHTS, RATES), "eps": Changes(0.1, WEIGHTS, RATES)},
    ),
    AdamW: Row(
        "AdamW",
        "model.optimizer",
        RULE | {"betas": Changes([0.5, 0.9], WEIGHTS, RATES), "eps": Changes(0.1, WEIGHTS, RATES)},
    ),
    Cosine: Row(
        "SGD",
        "model.optimizer.schedule",
        {"minimum": Changes(0.02, (*WEIGHTS, *RATES)), "warmup_epochs": Changes(3, (*WEIGHTS, *RATES))},
    ),
    CosineRestarts: Row(
        "CosineRestarts",
        "model.optimizer.schedule",
        {"minimum": Changes(0.02, (*WEIGHTS, *RATES)), "first_period": Changes(3, (*WEIGHTS, *RATES))},
    ),
    Exponential: Row(
        "Exponential",
        "model.optimizer.schedule",
        {"decay": Changes(0.5, (*WEIGHTS, *RATES)), "constant_epochs": Changes(2, (*WEIGHTS, *RATES))},
    ),
    Linear: Row("Linear", "model.optimizer.schedule", {"minimum": Changes(0.02, (*WEIGHTS, *RATES))}),
    # -- spaces
    DARTSCell: Row(
        "darts",
        "model.space",
        {
            "kinds": Refused(["normal"]),
            "nodes": Refused(1),
            "operations": Refused(FEW),
            "sparse": Refused(True),
            "kept": Refused(None),
        },
    ),
    NASNetCell: Row(
        "random_search_ws",
        "model.space",
        {"kinds": Refused(["normal"]), "nodes": Refused(1), "operations": Refused(FEW)},
        NASNetCell(),
    ),
    NASBench201: Row("trials", "model.space", {"operations": Refused(["skip_connect", "nor_conv_1x1"])}),
    ENASMicro: Row("random_search_ws", "model.space", {"nodes": Refused(1), "operations": Refused(FEW)}, ENASMicro()),
    ENASMacro: Row("enas", "model.space", {"layers": Refused(2), "operations": Refused(["conv_3x3"])}),
    ProxylessMobile: Row(
        "random_search_ws",
        "model.space",
        {**CHAIN, "first": Refused([16, 8]), "operations": Refused(["mbconv3_3x3", "mbconv6_3x3"])},
        ProxylessMobile(),
    ),
    OwnSpace: Row(
        "own",
        "model.space",
        {"network": Refused(class_path(Planted)), "arguments": Refused({"width": 4})},
        OwnSpace(Net, {"width": 3}),
    ),
    ShuffleBlocks: Row(
        "random_search_ws",
        "model.space",
        {
            **CHAIN,
            "first": Refused(8),
            "operations": Refused(["shuffle_3x3", "shuffle_x"]),
            "scales": Refused([0.6, 1.0]),
        },
        ShuffleBlocks(),
    ),
    DARTSRecurrentCell: Row(
        "PyDocs",
        "model.space",
        {"nodes": Refused(3), "operations": Refused(["tanh", "relu"])},
        DARTSRecurrentCell(),
    ),
    ENASRecurrentCell: Row(
        "PyDocs",
        "model.space",
        {
            "nodes": Refused(2),
            "activations": Refused(["tanh"]),
            "highway": Refused(False),
            "share": Refused("pair_and_activation"),
        },
    ),
    # -- parts of searches of trials, whose trials have to be comparable
    AgingEvolution: Row(
        "trials",
        "model.strategy",
        {"population": Refused(5), "sample": Refused(1), "identity": Refused("skip_connect")},
    ),
    PolicyGradient: Row(
        "trials",
        "model.strategy",
        {
            "controller": Refused(LSTMController()),
            "optimizer": Refused(SGD(0.1)),
            "optimizer.lr": Refused(0.2),  # although an optimiser's may change elsewhere
            "batch_size": Refused(2),
            "update": Refused(PPO()),
            "update.entropy_weight": Refused(0.1),  # although an update's may change elsewhere
        },
        PolicyGradient(FactorizedController(), Adam(0.1), 1, Reinforce(0.9)),
    ),
    RandomSearch: Row("trials", "model.strategy", {"by": Refused("choice")}, RandomSearch()),
    NSGA2: Row(
        "trials",
        "model.strategy",
        {
            "population": Refused(5),
            "crossover": Refused(0.5),
            "mutation": Refused(0.5),
            "distinct": Refused(False),
            "asynchronous": Refused(True),
        },
        NSGA2(),
    ),
    ASHA: Row("trials", "model.strategy", RUNGS, ASHA()),
    Hyperband: Row("trials", "model.strategy", {**RUNGS, "repeats": Refused(2)}, Hyperband()),
    SuccessiveHalving: Row(
        "trials",
        "model.strategy",
        {**RUNGS, "repeats": Refused(2), "architectures": Refused(243)},
        SuccessiveHalving(),
    ),
    TabularBenchmark: Row(
        "trials",
        "model.evaluator",
        {
            "path": Refused("other.csv"),
            "guide": Refused("loss"),
            "report": Refused(["loss"]),
            "mode": Refused("min"),
            "cost": Refused("seconds"),
            "cost_factor": Refused(2.0),
            "digits": Refused("cell"),
            "choices": Refused(["a", "b"]),
            "options": Refused(["x", "y"]),
            "fidelities": Refused({"12": {"accuracy": "early"}}),
        },
        TabularBenchmark("table.csv", "accuracy"),
    ),
    FromScratch: Row(
        "trials",
        "model.evaluator",
        {
            "task": Refused(LanguageModeling()),
            "task.label_smoothing": Refused(0.1),  # likewise
            "network": Refused({"channels": 2}),
            "epochs": Refused(2),
            "patience": Refused(1),
            "max_minutes": Refused(1.0),
            "retrain": Refused({"drop_path": 0.1}),
            "trainer": Refused({"precision": "64-true"}),
            "report": Refused([SynFlow()]),
        },
        FromScratch(ImageClassification(), {"channels": 4}),
    ),
    SharedWeights: Row(
        "trials",
        "model.evaluator",
        {
            "checkpoint": Refused("other.ckpt"),
            "n_batches": Refused(1),
            "n_calibration": Refused(1),
            "report": Refused([SynFlow()]),
        },
        SharedWeights("last.ckpt"),
    ),
    ZeroCost: Row(
        "trials",
        "model.evaluator",
        {
            "measure": Refused(SynFlow()),
            "network": Refused({"channels": 2}),
            "inputs": Refused(DIGITS | {"image_size": 16}),
            "report": Refused([SynFlow()]),
        },
        ZeroCost(NASWOT(), {"channels": 4}, DIGITS),
    ),
    NASWOT: Row("trials", "model.evaluator.measure", {"n_images": Refused(16)}, NASWOT()),
    SynFlow: Row("trials", "model.evaluator.measure", {}, SynFlow()),
    Latency: Row("trials", "model.evaluator.measure", {"batch_size": Refused(8), "runs": Refused(5)}, Latency()),
    Serial: Row("trials", "model.executor", {"max_minutes": Waits(1.0, EXECUTOR)}, Serial()),
    Processes: Row(
        "trials",
        "model.executor",
        {
            "n_workers": Waits(1, EXECUTOR),
            "retries": Waits(1, EXECUTOR),
            "threads": Waits(1, EXECUTOR),
            "max_minutes": Waits(1.0, EXECUTOR),
        },
        Processes(),
    ),
    Ray: Row(
        "trials",
        "model.executor",
        {
            "n_workers": Waits(1, EXECUTOR),
            "cpus": Waits(2.0, EXECUTOR),
            "gpus": Waits(1.0, EXECUTOR),
            "retries": Waits(1, EXECUTOR),
            "address": Waits("auto", EXECUTOR),
            "max_minutes": Waits(1.0, EXECUTOR),
        },
        Ray(),
    ),
    # -- relaxations
    Softmax: Row("darts", "model.relaxation", {}, Softmax()),
    GumbelSoftmax: Row(
        "snas", "model.relaxation", {"start": Waits(0.1, LAST_EPOCH), "end": Changes(0.1, ALPHAS, RATES)}
    ),
    StraightThroughGumbel: Row(
        "gdas", "model.relaxation", {"start": Waits(0.1, LAST_EPOCH), "end": Changes(9.0, ALPHAS, RATES)}
    ),
    # -- controllers
    LSTMController: Row("enas", "model.controller", POLICIES | {"hidden": Refused(3), "layers": Refused(2)}),
    TransformerController: Row(
        "enas",
        "model.controller",
        POLICIES | {"width": Refused(4), "layers": Refused(1), "heads": Refused(2)},
        TransformerController(),
    ),
    FactorizedController: Row(
        "enas", "model.controller", {"skip_target": POLICIES["skip_target"]}, FactorizedController()
    ),
    # -- updates of controllers
    PPO: Row(
        "enas",
        "model.update",
        UPDATE | {"clip": Changes(0.01, POLICY, WEIGHTS), "passes": Changes(2, POLICY, WEIGHTS)},
    ),
    Reinforce: Row("PyDocs", "model.update", UPDATE),
}

# -- the table is complete ---------------------------------------------------------------------------------------------


def classes():
    """All classes of this package that a user can choose by name; OwnData, which has no settings to build it from, has
    tests of its own."""
    found = {cls for kind in KINDS for cls in (*concrete(kind.base), *subclasses(Optimizer))} - {OwnData}
    return {cls for cls in found if cls.__module__.startswith("lightning_nas.") and not inspect.isabstract(cls)}


def arguments(cls):
    """The names of a class's arguments; those that ``**others`` takes are its parent's."""
    names: list[str] = []
    for parent in cls.__mro__:
        if "__init__" not in vars(parent):
            continue
        if parent is object:
            break
        parameters = inspect.signature(parent.__init__).parameters.values()
        names += [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return names


def test_every_class_is_in_the_table():
    assert {cls.__name__ for cls in classes()} == {cls.__name__ for cls in TABLE}
    assert {cls.__name__ for cls in TABLE} <= PUBLIC.keys()


@pytest.mark.parametrize("cls", TABLE, ids=lambda cls: cls.__name__)
def test_every_argument_has_another_value_in_the_table(cls):
    settings = TABLE[cls].settings
    assert set(arguments(cls)) - settings.keys() == set(), f"say in TABLE what a change of these does to {cls.__name__}"
    assert {name.partition(".")[0] for name in settings} <= set(arguments(cls))
    assert cls.adjustable <= set(arguments(cls))


# -- the runs ----------------------------------------------------------------------------------------------------------


class Uneven(Evaluator):
    """Trials that cost a second each; the fifth and the sixth fail."""

    objective = Objective("width")

    def __call__(self, proposal, number):
        if number in (4, 5):
            raise RuntimeError("failed on purpose")
        return Evaluation({"width": sum(proposal.architecture)}, 1.0)


def sgd(**settings):
    return SGD(
        **({"lr": 0.05, "momentum": 0.9, "weight_decay": 3e-4, "schedule": Cosine(1e-3), "clip": 5.0} | settings)
    )


def retrain(optimizer=None, inputs=None, task=None):
    network = {"channels": 2, "cells": 1}
    optimizer = optimizer or sgd(clip=None)
    task = task or ImageClassification()
    return Retrain("nas_bench_201_best", task, network, inputs, 0, "weights", optimizer, 0.3)


def controlled(which, **settings):
    few = {"controller_steps": 2, "samples_per_step": 2, "update": PPO(0.9), "n_candidates": 2}
    controller = LSTMController(hidden=8, operation_bias={})
    policy = Adam(0.01, betas=(0.0, 0.999), eps=1e-3)
    more = {"controller": controller, "controller_optimizer": policy, "optimizer": sgd()}
    return ENAS(which, **(few | more | settings))


def searched(method, **settings):
    network = {"channels": 2, "cells": 2}
    return method(space(), ImageClassification(), network, DIGITS, optimizer=sgd(), **settings)


def reading():
    recurrent = ENASRecurrentCell(nodes=3)
    update = Reinforce(0.9, 1e-4, baseline=0.0)
    return controlled(recurrent, task=LanguageModeling(), network={"hidden": 6}, update=update)


def digits(**settings):
    return Digits(**({"batch_size": 256} | settings))  # two steps an epoch


ONE_STAGE = {"stages": [{"cells": 2}], "operations": [], "skip_dropout": [0.3], "epochs": 3, "warmup_epochs": 0}
WORDS = {"batch_size": 2, "evaluation_batch_size": 2, "bptt": 5}
RUNS = {
    "darts": lambda: (searched(DARTS, alphas_optimizer=Adam(0.02, betas=(0.5, 0.999))), digits()),
    "snas": lambda: (searched(SNAS, cost="log", relaxation=GumbelSoftmax()), digits()),
    "gdas": lambda: (searched(GDAS, relaxation=StraightThroughGumbel()), digits()),
    "p_darts": lambda: (searched(PDARTS, **ONE_STAGE), digits()),
    "enas": lambda: (
        controlled(
            ENASMacro(layers=3),
            task=ImageClassification(),
            network={"channels": 2},
            inputs=DIGITS,
            skip_weight=0.5,
            drop_path=0.2,
        ),
        digits(),
    ),
    "random_search_ws": lambda: (searched(RandomSearchWS, n_candidates=2, n_batches=1, n_finalists=1), digits()),
    "own": lambda: (
        RandomSearchWS(OwnSpace(Net, {"width": 3}), ImageClassification(), n_candidates=2, n_batches=1, n_finalists=1),
        digits(),
    ),
    "SGD": lambda: (retrain(inputs=DIGITS), digits()),
    "RMSprop": lambda: (retrain(RMSprop(1e-3)), digits()),
    "Adam": lambda: (retrain(Adam(1e-3)), digits()),
    "AdamW": lambda: (retrain(AdamW(1e-3)), digits()),
    "CosineRestarts": lambda: (retrain(sgd(schedule=CosineRestarts(1e-3))), digits()),
    "Exponential": lambda: (retrain(sgd(schedule=Exponential(0.9))), digits()),
    "Linear": lambda: (retrain(sgd(schedule=Linear(1e-3))), digits()),
    "spos": lambda: (
        SPOS(
            ShuffleBlocks(4, (8, 12), (1, 2), (1, 2), 1, 8),
            ImageClassification(),
            {"dropout": 0.0},
            DIGITS,
            optimizer=sgd(decay_vectors=False),
            rounds=2,
            population=6,
            n_parents=3,
            n_mutants=3,
            n_crossovers=2,
            n_batches=1,
            n_calibration=1,
        ),
        digits(),
    ),
    "auxiliary": lambda: (
        Retrain(
            "darts_v2",
            ImageClassification(),
            {"channels": 2, "cells": 3, "auxiliary": True},
            optimizer=sgd(),
            drop_path=0.0,
        ),
        Digits(image_size=32, batch_size=64),
    ),
    "segmented": lambda: (
        Retrain(
            "darts_v2",
            Segmentation(),
            {"channels": 2, "cells": 3, "auxiliary": True},
            optimizer=sgd(),
            drop_path=0.0,
        ),
        Masks(n_images=64, image_size=32),
    ),
    "distilled": lambda: (retrain(task=Distillation("teacher.ckpt")), digits()),
    "contrastive": lambda: (retrain(task=ContrastiveLearning(features=6, dimensions=4)), digits()),
    "ClutteredDigits": lambda: (retrain(), ClutteredDigits(n_images=200, batch_size=50)),
    "CIFAR10": lambda: (retrain(), CIFAR10("data", batch_size=10, num_workers=0)),
    "ImageFolder": lambda: (retrain(), ImageFolder("pictures", batch_size=4, num_workers=0)),
    "PennTreebank": lambda: (reading(), PennTreebank("data", **WORDS)),
    "PyDocs": lambda: (reading(), PyDocs(20, 200, 100, 35)),
    "TextFiles": lambda: (reading(), TextFiles("texts", **WORDS)),
    "trials": lambda: (
        TrialSearch(NASBench201(), AgingEvolution(4, 2), Uneven(), n_trials=7),
        NoData(),
    ),
}
"""Name to a function that makes a run's model and its data."""


def settings_of(name):
    model, data = RUNS[name]()
    return {"model": model.spec, "data": data.spec}


def plain(value):
    return value.spec if isinstance(value, Configurable) else value


def at(settings, place):
    """What the settings have at a dotted place, such as ``model.optimizer.lr``."""
    first, *way = place.split(".")
    value = settings[first]
    for part in way:
        value = value["init_args"][part]
    return value


def put(settings, place, value):
    """The settings with another value at a dotted place."""
    settings = copy.deepcopy(settings)
    owner, _, name = place.rpartition(".")
    at(settings, owner)["init_args"][name] = plain(value)
    return settings


def changed(cls, argument):
    """A run's settings, and the same with another value of one argument of one class."""
    row = TABLE[cls]
    before = settings_of(row.run)
    if issubclass(cls, Measure):
        before = put(before, "model.evaluator", ZeroCost(cls()))
    if row.standing_in is not None:
        before = put(before, row.place, row.standing_in)
    return before, put(before, f"{row.place}.{argument}", row.settings[argument].value)


def check(before, now):
    only = find_class(before["model"]["class_path"], Module).frozen.get("data")
    check_continued(before["model"], now["model"], "model")
    check_continued(before["data"], now["data"], "data", only=only)


def entries(*kinds):
    rows = [(cls, name) for cls, row in TABLE.items() for name, what in row.settings.items() if type(what) in kinds]
    return pytest.mark.parametrize(("cls", "argument"), rows, ids=[f"{cls.__name__}.{name}" for cls, name in rows])


@pytest.fixture(scope="module", autouse=True)
def sources(tmp_path_factory):
    """Images and texts where the runs look for them, and copies elsewhere; nothing is downloaded."""
    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    for label in ("cat", "dog"):
        for number in range(10):
            pixels = torch.randint(256, (8, 8, 3), dtype=torch.uint8).numpy()
            for place in ("pictures", "moved"):
                path = folder / place / "train" / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(path)
    words = Words()
    for split, other in (("train", "a"), ("valid", "b"), ("test", "c")):
        text = "\n".join(" ".join(line) for line in words.lines(split))
        for path in (f"texts/{split}.txt", f"texts/{other}.txt", f"moved/{split}.txt"):
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
    teacher = retrain(inputs=DIGITS)
    run = quiet_trainer(max_epochs=1)
    run.fit(teacher, digits())
    for name in ("teacher.ckpt", "moved.ckpt"):
        run.save_checkpoint(folder / name)
    images, labels = torch.randint(256, (40, 3, 32, 32), dtype=torch.uint8), torch.arange(40) % 10
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        patch.setattr(CIFAR10, "load", lambda self, test: (images, labels))
        patch.setattr(CIFAR10, "prepare_data", lambda self: None)
        patch.setattr(PennTreebank, "lines", lambda self, split: words.lines(split))
        patch.setattr(PennTreebank, "prepare_data", lambda self: None)
        patch.setattr(penn_treebank, "N_VOCABULARY", len(words.vocabulary))
        yield folder


# -- refused -----------------------------------------------------------------------------------------------------------


def difference(before, now, field):
    """The first setting that differs, as an error calls it, with both values; of two classes the names."""
    if isinstance(before, dict) and isinstance(now, dict):
        if before.get("class_path") != now.get("class_path"):
            return field, *(spec["class_path"].rpartition(".")[2] for spec in (before, now))
        if "class_path" in before:
            before, now = before["init_args"], now["init_args"]
        name = next(name for name in {**now, **before} if before.get(name) != now.get(name))
        return difference(before.get(name, "not set"), now.get(name, "not set"), f"{field}.{name}")
    return field, *(
        value["class_path"].rpartition(".")[2] if isinstance(value, dict) and "class_path" in value else value
        for value in (before, now)
    )


@entries(Refused)
def test_a_change_is_refused_by_name_with_both_values(cls, argument):
    before, now = changed(cls, argument)
    check(before, before)
    part = TABLE[cls].place.partition(".")[0]
    field, was, value = difference(before[part], now[part], part)
    assert field.startswith(f"{TABLE[cls].place}.{argument}")
    with pytest.raises(
        SettingError,
        match=rf"^{re.escape(field)}: {re.escape(str(was)[:80])} in the checkpoint, {re.escape(str(value)[:80])} now",
    ):
        check(before, now)


@entries(Changes, Reads, Waits)
def test_what_may_change_is_accepted_and_built(cls, argument):
    before, now = changed(cls, argument)
    assert now != before
    check(before, now)
    check(now, before)
    spec, wanted = at(now, TABLE[cls].place), TABLE[cls].settings[argument].value
    built = cls.build(spec).spec["init_args"]
    assert at({"model": {"init_args": built}}, f"model.{argument}") == plain(wanted)


@pytest.mark.parametrize(
    ("was", "now", "field"),
    [
        ({"channels": 2, "cells": 2}, {"channels": 2}, "network.cells: 2 in the checkpoint, not set now"),
        ({"channels": 2}, {"channels": 2, "cells": 2}, "network.cells: not set in the checkpoint, 2 now"),
    ],
)
def test_a_setting_that_is_left_out_is_a_change(was, now, field):
    before, after = (RandomSearchWS(space(), ImageClassification(), network).spec for network in (was, now))
    with pytest.raises(SettingError, match=f"^{field}"):
        check_continued(before, after, "")


def test_a_restriction_of_the_space_is_a_change():
    whole = searched(DARTS)
    part = DARTS(
        space().restrict({"normal/0->2": "skip_connect"}),
        ImageClassification(),
        {"channels": 2, "cells": 2},
        DIGITS,
        optimizer=sgd(),
    )
    with pytest.raises(SettingError, match=r"^space\.restrict: not set in the checkpoint, {'normal/0->2'"):
        check_continued(whole.spec, part.spec, "")
    with pytest.raises(SettingError, match=r"^space\.restrict: {'normal/0->2'.* in the checkpoint, not set now"):
        check_continued(part.spec, whole.spec, "")


def test_inputs_that_are_asked_of_the_data_are_no_change():
    before = retrain(inputs=DIGITS).spec
    check_continued(before, retrain().spec, "")
    check_continued(retrain().spec, before, "")


def test_nothing_of_the_data_changes_under_a_search_of_trials_but_the_workers():
    only = TrialSearch.frozen["data"]
    check_continued(digits().spec, digits(num_workers=2).spec, "data", only=only)
    with pytest.raises(SettingError, match=r"^data\.cutout: 0 in the checkpoint, 2 now"):
        check_continued(digits().spec, digits(cutout=2).spec, "data", only=only)


# -- continued ---------------------------------------------------------------------------------------------------------


class Rates(Callback):
    """Records the rates that an epoch begins with."""

    def on_train_epoch_start(self, trainer, pl_module):
        self.found = [optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers]


def fit(settings, folder, checkpoint=None):
    """Runs to the end of the third epoch. Returns the figures of the last."""
    model, data = Module.build(settings["model"]), DataModule.build(settings["data"])
    if isinstance(model, TrialSearch):
        return fit_trials(model, data, folder, checkpoint)
    rates = Rates()
    each = ModelCheckpoint(folder / "checkpoints", filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=True)
    run = quiet_trainer(
        max_epochs=3,
        limit_train_batches=1.0 if isinstance(model, ENAS) else 2,
        limit_val_batches=3,
        callbacks=[rates, each],
        enable_checkpointing=True,
        default_root_dir=folder,
    )
    run.fit(model, data, ckpt_path=checkpoint)
    state = {name: value for name, value in snapshot(model).items() if "metrics" not in name}
    learnt = {name: value for name, value in state.items() if not name.startswith("network.")}
    validation = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("val/")}
    return {
        "weights": {name: value for name, value in state.items() if name.startswith("network.")},
        "alphas": {name: value for name, value in learnt.items() if name == "alphas"},
        "policy": {name: value for name, value in learnt.items() if name != "alphas"},
        "validation": validation,
        "rates": rates.found,
        "compared": compared(model, data),
    }


def compared(model, data):
    """What a search compares in the end: architectures, on how many batches, with their scores."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        best_first = Scorer.best_first

        def spy(self, *args):
            scores = best_first(self, *args)
            seen.append((len(self.validation), scores))
            return scores

        patch.setattr(Scorer, "best_first", spy)
        if isinstance(model, (ENAS, SPOS, RandomSearchWS)):
            model.choose(data)
    return seen


def fit_trials(model, data, folder, checkpoint):
    """Runs the trials that are left. Returns all of them, and why the search stopped, if it did."""
    last = ModelCheckpoint(folder / "checkpoints", filename="last")
    run = quiet_trainer(max_epochs=1, callbacks=[last], enable_checkpointing=True, default_root_dir=folder)
    reason = ""
    try:
        run.fit(model, data, ckpt_path=checkpoint)
    except SettingError as error:
        reason = str(error)
    _, *trials = map(json.loads, (folder / "trials.jsonl").read_text().splitlines())
    for trial in trials:
        del trial["cost"]  # of one that fails the seconds that it took
    return {"trials": trials, "reason": reason}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """For the name of a run its settings, its checkpoint after two epochs, and the figures after the third."""
    runs: dict[str, Any] = {}

    def get(name):
        if name not in runs:
            settings, folder = settings_of(name), tmp_path_factory.mktemp(name)
            figures = fit(settings, folder)
            checkpoint = folder / "checkpoints" / "epoch=1.ckpt"
            if name == "trials":  # what is left of a search that was killed after three trials
                checkpoint = folder / "checkpoints" / "last.ckpt"
                log = folder / "trials.jsonl"
                log.write_text("".join(log.read_text().splitlines(keepends=True)[:4]))
            runs[name] = settings, checkpoint, figures
        return runs[name]

    return get


def same(figures, expected):
    try:
        assert_same(figures, expected)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("name", RUNS)
def test_continued_unchanged_is_uninterrupted(name, whole, tmp_path):
    settings, checkpoint, figures = whole(name)
    assert_same(fit(settings, tmp_path, checkpoint), figures)


@entries(Changes)
def test_a_change_takes_effect(cls, argument, whole, tmp_path):
    row = TABLE[cls]
    settings, checkpoint, figures = whole(row.run)
    assert row.standing_in is None
    what = row.settings[argument]
    ended = fit(put(settings, f"{row.place}.{argument}", what.value), tmp_path, checkpoint)
    unmoved = [name for name in what.what if same(ended[name], figures[name])]
    assert not unmoved
    for name in what.same:
        assert_same(ended[name], figures[name])


@entries(Reads)
def test_what_says_how_data_are_read_changes_no_figure(cls, argument, whole, tmp_path):
    row = TABLE[cls]
    settings, checkpoint, figures = whole(row.run)
    ended = fit(put(settings, f"{row.place}.{argument}", row.settings[argument].value), tmp_path, checkpoint)
    assert_same(ended, figures)


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("model.seed", 1, r"^seed: 0 in the checkpoint, 1 now"),
        ("data.split_seed", 1, r"^data\.split_seed: 0 in the checkpoint, 1 now"),
        ("data.batch_size", 128, r"^data\.batch_size: 256 in the checkpoint, 128 now"),
    ],
)
def test_a_trainer_refuses_the_checkpoint(place, value, message, whole, tmp_path):
    settings, checkpoint, _ = whole("SGD")
    now = put(settings, place, value)
    with pytest.raises(SettingError, match=message):
        fit(now, tmp_path, checkpoint)


def test_other_files_in_the_same_place_are_refused_where_their_number_differs(whole, sources, tmp_path):
    settings, checkpoint, _ = whole("TextFiles")
    text = sources / "longer"
    text.mkdir()
    for split in ("train", "valid"):
        (text / f"{split}.txt").write_text((sources / "texts" / f"{split}.txt").read_text() + "\na")
    with pytest.raises(SettingError, match=r"^data: 50 train tokens in the checkpoint, 52 now"):
        fit(put(settings, "data.folder", "longer"), tmp_path, checkpoint)
