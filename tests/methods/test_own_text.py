"""Searches in networks of a user's own that read text, and retrainings of what they find."""

from functools import partial

import pytest
import torch
from torch import nn

from lightning_nas import (
    ArchitectureRecord,
    LanguageModeling,
    LayerChoice,
    Retrain,
    Space,
    TrialSearch,
    ValueChoice,
)
from lightning_nas.callbacks import Interruption
from lightning_nas.evaluators import FromScratch
from lightning_nas.strategies import RandomSearch
from lightning_nas.supernets.scoring import Scorer
from lightning_nas.testing import MethodCase, MethodContract
from lightning_nas.testing.method import Stop, assert_same, final_state
from tests.helpers.methods import darts, enas, gdas, random_search_ws, snas, spos, trainer, words


class Recurrent(nn.Module):
    """A choice of layers whose states are of one kind, and a width."""

    def __init__(self, vocabulary):
        super().__init__()
        self.embed, hidden = nn.Embedding(vocabulary, 5), ValueChoice([4, 6], "hidden")
        self.rnn = nn.LSTM(5, hidden, ValueChoice([1, 2], "layers"))
        self.between = LayerChoice([nn.Identity(), nn.Tanh()], "between")
        self.decode = nn.Linear(hidden, vocabulary)

    def forward(self, tokens, carry=None):
        states, carry = self.rnn(self.embed(tokens), carry)
        return self.decode(self.between(states)), carry


class Layers(nn.Module):
    """Layers to choose, of which several may run at once; a window is read by itself."""

    def __init__(self, vocabulary):
        super().__init__()
        self.embed, self.decode = nn.Embedding(vocabulary, 6), nn.Linear(6, vocabulary)
        layers = [nn.GRU(6, 6), nn.RNN(6, 6), nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0)]
        self.layer = LayerChoice({"gru": First(layers[0]), "rnn": First(layers[1]), "attention": Causal(layers[2])})

    def forward(self, tokens):
        return self.decode(self.layer(self.embed(tokens)))


class Handing(Layers):
    """Two cells, of which several may run at once, that hand their state on."""

    def __init__(self, vocabulary):
        super().__init__(vocabulary)
        self.layer = LayerChoice({"gru": nn.GRU(6, 6), "rnn": nn.RNN(6, 6)})

    def forward(self, tokens, carry=None):
        states, carry = self.layer(self.embed(tokens), carry)
        return self.decode(states), carry


class First(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Causal(First):
    def forward(self, x):
        return self.layer(x, nn.Transformer.generate_square_subsequent_mask(len(x), x.device), is_causal=True)


def case(build, network, **settings):
    counts = {name: settings.pop(name) for name in ("architecture_steps", "neither") if name in settings}
    return MethodCase(partial(build, space=Space.of(network), **settings), words, **counts)


NONE = {"architecture_steps": 0}
CONTROLLER = {"architecture_steps": 4, "neither": ("baseline.average",)}


class TestMethodsOnText(MethodContract):
    cases = {  # noqa: RUF012
        "darts": case(darts, Handing, order="first"),
        "spos": case(spos, Recurrent, **NONE),
    }


@pytest.mark.slow
class TestFurtherMethodsOnText(MethodContract):
    cases = {  # noqa: RUF012
        "darts-second": case(darts, Layers),
        "snas": case(snas, Layers, drop_path=0.0),
        "gdas": case(gdas, Handing),
        "enas": case(enas, Recurrent, drop_path=0.0, **CONTROLLER),
        "random": case(random_search_ws, Recurrent, **NONE),
    }


@pytest.mark.parametrize(("network", "architecture"), [(Recurrent, (1, 1, 1)), (Layers, (2,)), (Handing, (0,))])
def test_what_was_found_is_retrained_and_continues_to_the_same_bits(network, architecture, tmp_path):
    def retrain():
        record = ArchitectureRecord(Space.of(network), architecture)
        return Retrain(record, LanguageModeling(), drop_path=0.0, train_on="weights")

    whole, run = retrain(), trainer(max_epochs=3)
    run.fit(whole, words())
    stopped = trainer(max_epochs=3, callbacks=[Stop(1, 2), Interruption(tmp_path)])
    with pytest.raises(SystemExit):
        stopped.fit(retrain(), words())
    carry = torch.load(tmp_path / "last.ckpt", weights_only=True)["carries"]["weights"]
    shapes = {Recurrent: [(2, 2, 6)] * 2, Layers: None, Handing: [(1, 2, 6)]}[network]
    carry = carry if isinstance(carry, tuple) or carry is None else (carry,)
    assert shapes == (carry if carry is None else [tuple(state.shape) for state in carry])
    again, resumed = Retrain.load_from_checkpoint(tmp_path / "last.ckpt"), trainer(max_epochs=3)
    resumed.fit(again, words(), ckpt_path=tmp_path / "last.ckpt")
    assert_same(final_state(again, resumed), final_state(whole, run))
    logits = torch.cat(run.predict(whole, words()))
    tokens = words().tokens("test")
    assert logits.shape == (len(tokens) // 2 - 1, 2, len(words().vocabulary))


def test_evaluation_in_windows_is_one_long_pass():
    data, record = words(), ArchitectureRecord(Space.of(Recurrent), (1, 1, 1))
    retrain, run = Retrain(record, LanguageModeling(), drop_path=0.0), trainer(max_epochs=1)
    run.fit(retrain, data)
    (figures,) = run.test(retrain, data, verbose=False)
    tokens = data._columns("test", "evaluation_batch_size")
    with torch.no_grad():
        logits = retrain.network.eval()(tokens[:-1]).logits
    entropy = nn.functional.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())
    assert figures["test/perplexity"] == pytest.approx(entropy.exp().item(), rel=1e-5)


def test_trials_and_shared_weights_score_networks_of_text(tmp_path):
    evaluator = FromScratch(LanguageModeling(), epochs=1, retrain={"drop_path": 0.0})
    search = TrialSearch(Space.of(Recurrent), RandomSearch(), evaluator, n_trials=2)
    trainer(max_epochs=1, default_root_dir=tmp_path).fit(search, words())
    assert [trial.status for trial in search.trials.history] == 2 * ["done"]
    assert all(1 < -trial.score < 12 for trial in search.trials.history)
    supernet = random_search_ws(space=Space.of(Recurrent))
    trainer(max_epochs=1).fit(supernet, words())
    scores = Scorer.of(supernet, words()).rank([(0, 0, 0), (1, 1, 1)], "Both")
    assert set(scores) == {(0, 0, 0), (1, 1, 1)}
    assert all(1 < score < 12 for score in scores.values())
