"""Training from scratch as an estimate: the score of an ordinary retraining, the same in every process."""

import logging
import math
import os
import signal
import threading
from random import Random

import lightning.pytorch as pl
import pytest
import torch

from lightning_nas.costs.profile import profile
from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import FromScratch, from_scratch
from lightning_nas.executors import Processes, Serial
from lightning_nas.executors.base import run_trial
from lightning_nas.measures import Latency
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces import DARTSCell, NASBench201
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.spaces.base import Choice, Space
from lightning_nas.strategies import Proposal
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.retrain import Retrain
from tests.helpers.optimizers import sgd

NETWORK = {"channels": 4, "cells": 1}
SPACE = NASBench201(["none", "skip_connect", "nor_conv_1x1"])
ARCHITECTURE = (2, 1, 2, 1, 0, 2)
PROPOSAL = Proposal(ARCHITECTURE)


class Untested(Digits):
    """Has a test part that nobody may read."""

    def load(self, test):
        assert not test
        return super().load(test)


def data():
    return Untested(batch_size=128)


def evaluator(data=None, seed=0, space=SPACE, **settings):
    made = FromScratch(ImageClassification(), **({"network": NETWORK, "epochs": 2} | settings))
    made.open(space, data or Untested(batch_size=128), seed)
    return made


def figures(evaluation):
    return evaluation.metrics


def test_the_score_is_that_of_an_ordinary_retraining():
    evaluation = evaluator(seed=5, retrain={"optimizer": sgd(Retrain, lr=0.1)})(PROPOSAL, 7)
    retraining = Retrain(
        ArchitectureRecord(SPACE, ARCHITECTURE).to_dict(),
        ImageClassification(),
        NETWORK,
        seed=derive_seed(5, "trial", 7),
        train_on="weights",
        optimizer=sgd(Retrain, lr=0.1),
    )
    trainer = pl.Trainer(accelerator="cpu", max_epochs=2, logger=False, enable_checkpointing=False)
    trainer.fit(retraining, datamodule=data())
    assert evaluation.metrics["val/accuracy"] > 0.1
    assert evaluation.metrics == {
        "val/accuracy": float(trainer.callback_metrics["val/accuracy"]),
        "val/loss": float(trainer.callback_metrics["val/loss"]),
        "n_params": sum(parameter.numel() for parameter in retraining.network.parameters()),
        "flops": profile(retraining.network, retraining.network.example()).flops,
        "epochs": 2,
    }
    assert evaluation.cost > 0


def test_it_depends_on_seed_and_number_alone():
    evaluate = evaluator()
    first = figures(evaluate(PROPOSAL, 3))
    torch.manual_seed(1)
    assert figures(evaluate(PROPOSAL, 3)) == first
    assert figures(evaluate(PROPOSAL, 4)) != first
    assert figures(evaluator(seed=1)(PROPOSAL, 3)) != first


def test_a_restricted_space_gives_the_same():
    part = SPACE.restrict({choice.name: ["skip_connect", "nor_conv_1x1"] for choice in SPACE.choices[:3]})
    names = SPACE.to_names(ARCHITECTURE)
    evaluation = evaluator(space=part)(Proposal(part.from_names(names)), 0)
    assert figures(evaluation) == figures(evaluator()(PROPOSAL, 0))


def test_a_worker_process_gives_the_same():
    made = FromScratch(
        ImageClassification(),
        NETWORK,
        1,
        retrain={"optimizer": sgd(Retrain, schedule=Cosine(warmup_epochs=1))},
        trainer={"accelerator": "cpu"},
    )
    trials = []
    for executor in (Serial(), Processes(1)):
        executor.open(made, SPACE, data(), seed=2)
        executor.submit(3, PROPOSAL)
        trials.append(executor.next())
        executor.close()
    assert trials[0].done
    assert trials[0].metrics == trials[1].metrics


@pytest.mark.parametrize(
    ("mode", "given", "patience", "score", "epochs"),
    [
        ("max", [0.2, 0.5, 0.4, 0.5, 0.9], 2, 0.5, 4),
        ("max", [0.2, 0.5, 0.4, 0.6, 0.3], 2, 0.6, 5),
        ("max", [0.5, 0.5], 1, 0.5, 2),
        ("min", [0.5, 0.2, 0.3, 0.1], 1, -0.2, 3),
        ("max", [0.9, 0.5, 0.4, 0.3, 0.2], None, 0.9, 5),  # validated once, after the last epoch
    ],
)
def test_patience_ends_a_training_that_no_longer_gets_better(monkeypatch, mode, given, patience, score, epochs):
    validated = from_scratch._Watch.on_validation_end
    values = iter(given)

    def pretend(watch, trainer, module):
        trainer.callback_metrics["val/accuracy"].fill_(next(values))
        validated(watch, trainer, module)

    monkeypatch.setattr(from_scratch._Watch, "on_validation_end", pretend)
    task = ImageClassification()
    task.mode = mode
    evaluate = FromScratch(task, NETWORK, 5, patience=patience)
    evaluate.open(SPACE, data())
    evaluation = evaluate(PROPOSAL, 0)
    assert evaluate.objective.score(evaluation.metrics["val/accuracy"]) == pytest.approx(score)
    assert evaluation.metrics["epochs"] == epochs


@pytest.mark.parametrize("patience", [None, 100])
def test_a_training_ends_when_its_time_is_up_and_is_scored(patience):
    evaluation = evaluator(epochs=10_000, max_minutes=0.005, patience=patience)(PROPOSAL, 0)
    assert 0.3 < evaluation.cost < 5
    assert 0 < evaluation.metrics["val/accuracy"] < 1
    assert evaluation.metrics["epochs"] < 1000


def test_a_training_that_diverges_has_no_score_and_ends_early():
    evaluation = evaluator(retrain={"optimizer": sgd(Retrain, lr=1e9)}, epochs=50)(PROPOSAL, 0)
    assert math.isnan(evaluation.metrics["val/accuracy"])
    assert math.isnan(evaluation.metrics["val/loss"])
    assert evaluation.metrics["epochs"] == 1
    diverging = evaluator(retrain={"optimizer": sgd(Retrain, lr=1e9)})
    trial = run_trial(diverging, 0, PROPOSAL).judged([diverging.objective])
    assert (trial.status, trial.reason) == ("diverged", "val/accuracy is nan")


def test_an_auxiliary_head_is_not_counted():
    space = DARTSCell(nodes=2, operations=["none", "skip_connect", "max_pool_3x3"])
    architecture = space.random(Random(0))
    network = {"channels": 4, "cells": 3}
    plain, auxiliary = (
        evaluator(space=space, epochs=1, network=network | more, data=Untested(batch_size=128, image_size=32))
        for more in ({}, {"auxiliary": True})
    )
    assert (
        plain(Proposal(architecture), 0).metrics["n_params"] == auxiliary(Proposal(architecture), 0).metrics["n_params"]
    )


def test_it_is_quiet(capfd):
    evaluator(epochs=1)(PROPOSAL, 0)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("lightning.pytorch").level != logging.ERROR


@pytest.mark.filterwarnings("ignore:.*(no `validation_step`|run with no optimizer)")
def test_inside_a_trainer_data_and_trainer_are_left_alone():
    class Outer(pl.LightningModule):
        automatic_optimization = False
        validation_part = None

        def training_step(self, batch, batch_idx):
            evaluate = evaluator(self.trainer.datamodule)
            trials.append(figures(evaluate(PROPOSAL, 0)))
            assert self.trainer.datamodule.trainer is self.trainer

        def configure_optimizers(self):
            pass

    trials = []
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=2, **quiet)
    trainer.fit(Outer(), datamodule=data())
    assert trials == [figures(evaluator()(PROPOSAL, 0))] * 2


def test_ctrl_c_is_a_keyboard_interrupt_and_leaves_the_handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it otherwise
    try:
        threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt):
            evaluator(epochs=10_000)(PROPOSAL, 0)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs: at least 1"),
        ({"patience": 0}, "patience: at least 1"),
        ({"max_minutes": 0}, "max_minutes: above 0"),
        ({"retrain": {"lrr": 1}}, r"retrain\.lrr: no such setting; there are optimizer, drop_path"),
        ({"retrain": {"drop_path": "fast"}}, r"retrain\.drop_path: expected float \| None, got 'fast'"),
        ({"retrain": {"train_on": "all"}}, r"retrain\.train_on: no such setting"),
        ({"trainer": {"max_epochs": 3}}, r"trainer\.max_epochs: no such setting; there are accelerator"),
    ],
)
def test_settings_are_checked(settings, message):
    with pytest.raises(SettingError, match=message):
        FromScratch(ImageClassification(), **settings)


@pytest.mark.parametrize(
    ("space", "data", "network", "message"),
    [
        (SPACE, None, NETWORK, "evaluator: FromScratch trains networks, which needs data"),
        (Space([Choice("a", ("b", "c"), "0")]), data(), NETWORK, "evaluator: Space has no network to train"),
        (SPACE, data(), {"width": 4}, r"network\.width: no such setting; there are channels, cells"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_the_first_trial(space, data, network, message):
    with pytest.raises(SettingError, match=message):
        FromScratch(ImageClassification(), network).open(space, data)


def test_settings_of_the_trainer_and_of_the_retraining_are_taken():
    plain = evaluator(epochs=1)(PROPOSAL, 0)
    for settings in (
        {"trainer": {"gradient_clip_val": 1e-3}},
        {"retrain": {"optimizer": sgd(Retrain, weight_decay=0.1), "drop_path": 0.0}},
    ):
        assert figures(evaluator(epochs=1, **settings)(PROPOSAL, 0)) != figures(plain)


# -- fidelities ------------------------------------------------------------------------------------------------------


def assert_equal_states(one, other):
    """Two checkpoints hold the same, bit for bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for name in one:
            assert_equal_states(one[name], other[name])
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_equal_states(a, b)
    else:
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


PATHS = DARTSCell(nodes=2, operations=["none", "skip_connect", "sep_conv_3x3"])
DROPPING = {"drop_path": 0.3, "drop_path_schedule": "scheduled"}


@pytest.mark.parametrize(
    ("space", "settings"),
    [
        (SPACE, {}),
        (SPACE, {"patience": 2, "retrain": {"optimizer": sgd(Retrain, lr=0.1, schedule=Cosine(warmup_epochs=2))}}),
        (PATHS, {"network": {"channels": 2, "cells": 3}, "retrain": DROPPING}),
    ],
    ids=["plain", "patience", "drop-path"],
)
def test_a_training_that_was_paused_is_one_that_was_not(space, settings, tmp_path):
    architecture = space.random(Random(1))
    whole = evaluator(space=space, epochs=5, **settings)
    paused = evaluator(space=space, epochs=5, **settings)
    whole.folder, paused.folder = tmp_path / "whole", tmp_path / "paused"
    expected = whole(Proposal(architecture, 4), 3)
    paused(Proposal(architecture, 1), 3)
    second = paused(Proposal(architecture, 3, continues=3, reached=1, first=3), 7)
    third = paused(Proposal(architecture, 4, continues=7, reached=3, first=3), 8)
    assert second.metrics["epochs"] == 3 or settings.get("patience")
    assert third.metrics == expected.metrics
    states = [torch.load(path, weights_only=True) for path in (tmp_path / "whole/3.ckpt", tmp_path / "paused/8.ckpt")]
    assert_equal_states(*states)
    last = paused(Proposal(architecture, 5, continues=8, reached=4, first=3), 9)
    assert last.metrics == whole(Proposal(architecture), 3).metrics
    assert sorted(path.name for path in (tmp_path / "paused").iterdir()) == ["3.ckpt", "7.ckpt", "8.ckpt"]


def test_where_the_state_is_gone_it_is_trained_again_to_the_same_end(tmp_path):
    evaluate = evaluator(epochs=3)
    evaluate.folder = tmp_path
    evaluate(Proposal(ARCHITECTURE, 1), 3)
    proposal = Proposal(ARCHITECTURE, 3, continues=3, reached=1, first=3)
    expected = evaluate(proposal, 5)
    (tmp_path / "3.ckpt").unlink()
    assert evaluate(proposal, 5).metrics == expected.metrics
    assert list(tmp_path.iterdir()) == []


def test_without_a_folder_no_state_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluate = evaluator(epochs=2)
    assert evaluate(Proposal(ARCHITECTURE, 1), 0).metrics["epochs"] == 1
    assert list(tmp_path.iterdir()) == []


def test_its_fidelities_are_its_epochs_and_its_metrics_are_known():
    evaluate = evaluator(epochs=3, report=[Latency(runs=1)])
    assert list(evaluate.fidelities) == [1, 2, 3]
    assert evaluate.wants_machine_alone
    assert set(evaluate.metric_names(data())) == set(evaluate(Proposal(ARCHITECTURE, 1), 0).metrics)
    assert not evaluator().wants_machine_alone
    assert FromScratch(ImageClassification()).metric_names(None) is None
