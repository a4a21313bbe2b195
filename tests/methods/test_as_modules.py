"""A method used as any ``LightningModule``: called, validated, tested, predicted with, interrupted and run again."""

import signal
from random import Random

import lightning.pytorch as pl
import pytest
import torch
import tqdm
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, Timer
from lightning.pytorch.loggers import CSVLogger

from lightning_nas.data import Digits, NoData, PyDocs
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import Evaluator
from lightning_nas.objectives import Objective
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.spaces import DARTSRecurrentCell, NASBench201
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.strategies import Proposal, RandomSearch
from lightning_nas.tasks import ImageClassification, LanguageModeling
from lightning_nas.training import Retrain
from lightning_nas.trials import TrialSearch
from tests.helpers.methods import CASES, child_of, darts, differing, random_search_ws, snapshot, spos, trainer


class Convolutions(Evaluator):
    """The share of edges that convolve, as a number alone."""

    objective = Objective("share")

    def __call__(self, proposal, number):
        names = [NASBench201().to_names(proposal.architecture)]
        return sum("conv" in str(option) for option in names[0].values()) / 6


class Wordy(Convolutions):
    def __call__(self, proposal, number):
        return "good"


def trial_search(n_trials, evaluator=Convolutions):
    return TrialSearch(NASBench201(), RandomSearch(), evaluator(), n_trials=n_trials)


class Count:
    """How many bars were drawn."""

    def __init__(self, monkeypatch):
        self.drawn = []
        original = tqdm.tqdm.__init__

        def init(bar, *args, **kwargs):
            original(bar, *args, **kwargs)
            self.drawn.append(not bar.disable)

        monkeypatch.setattr(tqdm.tqdm, "__init__", init)


@pytest.fixture
def fitted():
    """A short search by DARTS, and its data."""
    search, data = darts(order="first"), Digits(batch_size=128)
    trainer(max_epochs=1, limit_train_batches=2).fit(search, data)
    return search, data


@pytest.mark.parametrize("name", CASES)
def test_a_fast_run_takes_a_step_of_every_method(name):
    case = CASES[name]
    method, run = case.build(), pl.Trainer(fast_dev_run=True, accelerator="cpu", enable_progress_bar=False)
    run.fit(method, case.data(0))
    assert run.global_step == 1


def test_a_search_is_the_network_of_its_best_architecture(fitted):
    search, data = fitted
    search.eval()
    images, _ = next(iter(data.evaluation("architecture")))
    best = search.best()
    child, before = child_of(search, best).eval(), snapshot(search)
    with torch.no_grad(), batch_statistics(child):
        expected = child(images)
    with torch.no_grad():
        assert torch.equal(search(images), expected)
    assert not differing(before, snapshot(search))


def test_a_search_predicts_what_it_says_when_it_is_called(fitted):
    search, data = fitted
    run = trainer()
    predictions = run.predict(search, data)
    search.eval()
    with torch.no_grad():
        assert torch.equal(torch.cat(predictions), torch.cat([search(batch[0]) for batch in data.evaluation("test")]))


def test_a_search_is_validated_as_in_its_fit(fitted):
    search, data = fitted
    figures = trainer().validate(search, data, verbose=False)[0]
    assert set(figures) == {"val/supernet_loss", "val/supernet_accuracy"}


@pytest.mark.parametrize("build", [darts, lambda: trial_search(3)])
def test_a_search_is_not_tested(build):
    with pytest.raises(SettingError, match=r"^trainer.test: a search has no trained network to test; retrain"):
        trainer().test(build(), Digits())


def test_what_only_data_can_tell_is_not_guessed():
    search, data = random_search_ws(inputs=Digits().inputs), Digits()
    for use in (lambda: search(torch.zeros(2, 1, 8, 8)), lambda: trainer().predict(search, data)):
        with pytest.raises(SettingError, match=r"^RandomSearchWS knows its best architecture after choose\(data\)"):
            use()


def test_a_network_that_is_not_there_is_not_called():
    with pytest.raises(SettingError, match=r"^inputs: the network is built for the data; pass inputs=data.inputs"):
        darts()(torch.zeros(2, 1, 8, 8))
    with pytest.raises(SettingError, match=r"^a search of trials has no network to call; build search.space"):
        trial_search(1)(torch.zeros(2, 1, 8, 8))


def test_a_retraining_predicts_logits(fitted):
    search, data = fitted
    found = ArchitectureRecord(search.space, search.best()).to_dict()
    module, run = Retrain(found, ImageClassification(), {"channels": 2, "cells": 2}), trainer(max_epochs=1)
    run.fit(module, data)
    logits = torch.cat(run.predict(module, data))
    labels = torch.cat([labels for _, labels in data.evaluation("test")])
    assert logits.shape == (360, 10)
    accuracy = run.test(module, data, verbose=False)[0]["test/accuracy"]
    assert float((logits.argmax(1) == labels).float().mean()) == pytest.approx(accuracy)
    module.eval()
    with torch.no_grad():
        assert torch.equal(module(next(iter(data.predict_dataloader()))), logits[: data.batch_size])


def test_a_language_model_reads_on_from_window_to_window():
    data = PyDocs(batch_size=256, evaluation_batch_size=256)
    space = DARTSRecurrentCell()
    found = ArchitectureRecord(space, space.random(Random(0))).to_dict()
    module = Retrain(found, LanguageModeling(), {"hidden": 6}, drop_path=0.0)
    run = trainer(max_epochs=1, limit_train_batches=1)
    run.fit(module, data)
    logits = run.predict(module, data)
    windows = list(data.evaluation("test"))
    entropies = [
        torch.nn.functional.cross_entropy(o.flatten(0, 1), w.targets.flatten())
        for o, w in zip(logits, windows, strict=True)
    ]
    n = torch.tensor([w.targets.numel() for w in windows])
    perplexity = ((torch.stack(entropies) * n).sum() / n.sum()).exp()
    assert float(perplexity) == pytest.approx(run.test(module, data, verbose=False)[0]["test/perplexity"], rel=1e-5)


@pytest.mark.parametrize("build", [random_search_ws, spos])
@pytest.mark.parametrize("bars", [False, True])
def test_rankings_draw_bars_where_the_trainer_does(build, bars, monkeypatch, capsys):
    search, data = build(), Digits(batch_size=128)
    run = pl.Trainer(
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=bars,
    )
    run.fit(search, data)
    count = Count(monkeypatch)
    search.choose(data)
    assert count.drawn
    assert set(count.drawn) == {bars}


def final(search, data, **settings):
    trainer(max_epochs=2, limit_train_batches=2, **settings).fit(search, data)
    return snapshot(search)


def test_two_searches_in_a_process_end_like_each_alone():
    alone = final(darts(order="first"), Digits(batch_size=128))
    final(random_search_ws(seed=3), Digits(batch_size=64))
    assert not differing(alone, final(darts(order="first"), Digits(batch_size=128)))


class CtrlC(pl.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 0):
            raise KeyboardInterrupt


def test_a_search_that_a_notebook_interrupts_goes_on(tmp_path, monkeypatch):
    uninterrupted = final(darts(order="first"), Digits(batch_size=128))
    search, before = darts(order="first"), signal.getsignal(signal.SIGINT)
    run = trainer(max_epochs=2, limit_train_batches=2, callbacks=[CtrlC()])
    with pytest.raises(SystemExit):
        run.fit(search, Digits(batch_size=128))
    signal.signal(signal.SIGINT, before)  # which Lightning leaves ignored
    run.save_checkpoint(tmp_path / "last.ckpt")
    again = darts(order="first")
    run = trainer(max_epochs=2, limit_train_batches=2)
    run.fit(again, Digits(batch_size=128), ckpt_path=tmp_path / "last.ckpt")
    assert not differing(uninterrupted, snapshot(again))


def test_loggers_and_callbacks_of_lightning_follow_a_search(tmp_path):
    search = darts(order="first")
    callbacks = [LearningRateMonitor(), Timer("00:01:00:00"), EarlyStopping("val/supernet_loss", patience=5)]
    run = pl.Trainer(
        max_epochs=1,
        limit_train_batches=2,
        accelerator="cpu",
        logger=CSVLogger(tmp_path),
        callbacks=callbacks,
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
    )
    run.fit(search, Digits(batch_size=128))
    header = (tmp_path / "lightning_logs/version_0/metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "val/supernet_loss", "val/supernet_accuracy"} <= set(header)
    assert any(name.startswith("lr-") for name in header)


# -- searches of trials ----------------------------------------------------------------------------------------------


def quiet(folder):
    return trainer(max_epochs=1, default_root_dir=folder)


def test_a_search_of_trials_needs_no_data_module(tmp_path):
    alone, given = trial_search(8), trial_search(8)
    quiet(tmp_path / "alone").fit(alone)
    quiet(tmp_path / "given").fit(given, NoData())
    assert [t.architecture for t in alone.trials.history] == [t.architecture for t in given.trials.history]
    assert len(alone.trials.history) == 8
    assert alone.best() == given.best() is not None


def test_a_number_alone_is_the_metric_of_the_evaluators_objective(tmp_path):
    search = trial_search(8)
    quiet(tmp_path).fit(search)
    for trial in search.trials.history:
        assert trial.status == "done"
        assert trial.metrics == {"share": Convolutions()(Proposal(trial.architecture), 0)}
        assert 0 < trial.cost < 10
    assert search.trials.best.score == max(trial.score for trial in search.trials.history)


def test_a_search_in_which_every_trial_failed_says_what_an_evaluator_returns(tmp_path):
    message = (
        r"^none of 3 trials succeeded, the last: failed, Wordy returned .*: an Evaluation or a number expected, got"
    )
    with pytest.raises(SettingError, match=message):
        quiet(tmp_path).fit(trial_search(3, Wordy))
