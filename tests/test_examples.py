"""The examples in docstrings run, and every class that a trainer trains has one at its beginning."""

import inspect
import re
import textwrap

import lightning.pytorch as pl
import pytest

import lightning_nas
from lightning_nas import PUBLIC
from lightning_nas.supernets.scoring import Scorer
from lightning_nas.training.module import Module

FEW = {
    "accelerator": "cpu",
    "limit_train_batches": 1,
    "limit_val_batches": 1,
    "limit_test_batches": 1,
    "limit_predict_batches": 1,
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "enable_checkpointing": False,
}


def example(documented):
    """The lines under ``Example::``; None where there are none."""
    found = re.search(r"^Example::\n\n((?:(?: {4}.*)?\n)+)", inspect.getdoc(documented) or "", re.MULTILINE)
    return textwrap.dedent(found[1]) if found else None


CLASSES = {name: cls for name in PUBLIC if isinstance(cls := getattr(lightning_nas, name), type)}
EXAMPLES = {name: text for name, cls in CLASSES.items() if (text := example(cls))}
TRAINED = [name for name, cls in CLASSES.items() if issubclass(cls, Module) and not inspect.isabstract(cls)]


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_runs(name, monkeypatch, tmp_path):
    made, trainer, of = [], pl.Trainer, Scorer.of.__func__

    def short(max_epochs, **others):
        settings = FEW | {"max_epochs": max_epochs if max_epochs <= 3 else 1, "default_root_dir": tmp_path} | others
        made.append(trainer(**settings))
        return made[-1]

    monkeypatch.setattr(pl, "Trainer", short)
    monkeypatch.setattr(Scorer, "of", classmethod(lambda cls, method, data, *few, **named: of(cls, method, data, 1, 1)))
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[name], {})
    assert bool(made) == ("pl.Trainer(" in EXAMPLES[name])
    assert all(trainer.state.finished for trainer in made)


def test_what_a_trainer_trains_has_an_example():
    usable = [name for name in TRAINED if name not in ("DifferentiableMethod", "OneShotMethod", "SamplingMethod")]
    assert {"DARTS", "ENAS", "Retrain", "TrialSearch"} <= set(usable) <= set(EXAMPLES)
    assert all(len([line for line in EXAMPLES[name].splitlines() if line]) <= 7 for name in usable)
