"""The programs of the page 'Transformers and recurrent networks of your own' do what it says; the page has them as they
are."""

import math
import runpy

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_nas import PyDocs, freeze
from tests.docs.test_programs import make_own_project

PROGRAMS = sorted(make_own_project.TRANSFORMERS.glob("*.py"))
PAGE = make_own_project.TRANSFORMERS_PAGE.read_text(encoding="utf-8")


def figure(names, metric):
    return float(names["trainer"].callback_metrics[f"test/{metric}"])


def unigram(data):
    """The perplexity of the test text where only the frequency of words is known."""
    counts = torch.bincount(data.tokens("train"), minlength=len(data.vocabulary)).double() + 1
    return math.exp(-(counts / counts.sum()).log()[data.tokens("test")].mean())


def digits_widths(names):
    assert figure(names, "accuracy") > 0.6  # chance: .1
    assert names["accuracies"][names["architecture"]] == max(names["accuracies"].values())


def digits_layers(names):
    assert figure(names, "accuracy") > 0.7  # chance: .1


def text_transformer(names):
    assert figure(names, "perplexity") < 180 < unigram(PyDocs())  # 240


def text_recurrent(names):
    assert figure(names, "perplexity") < 220 < unigram(PyDocs())
    frozen = freeze(names["retrain"].network).eval()
    kinds = {"lstm": nn.LSTM, "gru": nn.GRU}
    chosen = names["space"].to_names(names["found"].architecture)
    rnn = frozen.rnn if chosen["cell"] == "lstm" else frozen.rnn.rnn
    assert type(rnn) is kinds[chosen["cell"]]
    assert (str(rnn.hidden_size), str(rnn.num_layers)) == (chosen["hidden"], chosen["layers"])
    tokens = PyDocs().tokens("test")[:, None]
    with torch.no_grad():
        logits, _ = frozen(tokens[:-1])
    assert nn.functional.cross_entropy(logits.flatten(0, 1), tokens[1:, 0]).exp() < 220


CHECKS = {check.__name__: check for check in (digits_widths, digits_layers, text_transformer, text_recurrent)}


@pytest.mark.slow
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_program(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = pl.Trainer
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    monkeypatch.setattr(pl, "Trainer", lambda **settings: trainer(**settings | quiet))
    CHECKS[path.stem](runpy.run_path(str(path), run_name="__main__"))


def test_every_program_is_short_and_on_the_page_once():
    names = make_own_project.BLOCK.findall(PAGE)
    assert sorted(names) == sorted(CHECKS) == [path.stem for path in PROGRAMS]
    assert all(len(path.read_text(encoding="utf-8").splitlines()) <= 40 for path in PROGRAMS)


def test_page_is_up_to_date():
    assert make_own_project.of_transformers(PAGE) == PAGE, "run python docs/make_own_project.py"
