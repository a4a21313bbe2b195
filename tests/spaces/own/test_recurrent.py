"""PyTorch's recurrent layers with sizes to choose, and networks of a user's own that read text."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

from lightning_nas import LanguageModeling, LanguageOutput, LayerChoice, OwnSpace, Space, ValueChoice, freeze
from lightning_nas.costs.profile import profile
from lightning_nas.data import Window
from lightning_nas.errors import SettingError
from lightning_nas.testing import SpaceCase, SpaceContract

TEXT = {"vocabulary": 11}


def decoder(width, vocabulary):
    normalised = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, vocabulary))
    return LayerChoice([nn.Linear(width, vocabulary), normalised], "decoder")


class Recurrent(nn.Module):
    """A language model around one of PyTorch's layers."""

    kind = nn.LSTM

    def __init__(self, vocabulary, **settings):
        super().__init__()
        embedding, hidden = ValueChoice([3, 5], "embedding"), ValueChoice([4, 6, 7], "hidden")
        self.embed = nn.Embedding(vocabulary, embedding)
        self.rnn = self.kind(embedding, hidden, ValueChoice([1, 2, 3], "layers"), **settings)
        width = hidden * (2 if self.rnn.bidirectional else 1)
        self.decode = decoder(width, vocabulary)

    def forward(self, tokens, carry=None):
        words, carry = self.rnn(self.embed(tokens), carry)
        return self.decode(words), carry


class Gated(Recurrent):
    kind = nn.GRU


class Elman(Recurrent):
    kind = nn.RNN


class Both(Recurrent):
    def __init__(self, vocabulary):
        super().__init__(vocabulary, bidirectional=True, bias=False)


class Causal(nn.Module):
    """A transformer whose words see those before them, and that hands nothing on."""

    def __init__(self, vocabulary):
        super().__init__()
        width = ValueChoice([8, 16], "width")
        self.width, self.places = width, nn.Parameter(torch.randn(9, width) / 10)
        self.embed = nn.Embedding(vocabulary, width)
        layer = nn.TransformerEncoderLayer(
            width, ValueChoice([2, 4], "heads"), ValueChoice([8, 24], "wide"), dropout=0.0
        )
        self.blocks = nn.TransformerEncoder(layer, ValueChoice([1, 2], "depth"), enable_nested_tensor=False)
        self.decode = decoder(width, vocabulary)

    def forward(self, tokens):
        mask = nn.Transformer.generate_square_subsequent_mask(len(tokens), tokens.device, self.places.dtype)
        x = self.embed(tokens) + self.places[: len(tokens), None, : int(self.width)]  # a compiler slices by ints
        return self.decode(self.blocks(x, mask, is_causal=True))


class Cells(nn.Module):
    """Cells to choose, whose states a dict holds; the narrower of a state is the leading part."""

    def __init__(self, vocabulary):
        super().__init__()
        cells = {"gru": nn.GRUCell(6, 6), "rnn": nn.RNNCell(6, 6)}
        self.embed, self.cell, self.decode = (
            nn.Embedding(vocabulary, 6),
            LayerChoice(cells, "cell"),
            nn.Linear(6, vocabulary),
        )

    def forward(self, tokens, carry):
        h = self.embed(tokens).new_zeros(tokens.shape[1], 6) if carry is None else carry["h"]
        hidden = torch.stack([h := self.cell(words, h) for words in self.embed(tokens)])
        return LanguageOutput(self.decode(hidden), {"h": h}, *((hidden, hidden) if self.training else (None, None)))


NETWORKS = (Recurrent, Gated, Elman, Both, Causal, Cells)


class TestNetworksOfText(SpaceContract):
    cases = {  # noqa: RUF012
        cls.__name__: SpaceCase(Space.of(cls), {}, TEXT, forms=("search",), one_graph=cls in (Causal, Cells))
        for cls in NETWORKS
    }


def tokens(length=7, columns=3, seed=0):
    return torch.randint(TEXT["vocabulary"], (length, columns), generator=torch.Generator().manual_seed(seed))


def every(space):
    return list(itertools.islice((a for a in itertools.product(*(range(len(c.options)) for c in space.choices))), 40))


@pytest.mark.parametrize("cls", NETWORKS)
def test_a_frozen_network_is_pytorchs_own_of_these_sizes(cls):
    torch.manual_seed(0)
    space = Space.of(cls)
    network, x = space.network(TEXT), tokens()
    assert space.modality == "text"
    for architecture in every(space):
        path, plain = network(x, space.gates(architecture)), freeze(network, architecture)
        out = plain(x) if cls is Causal else plain(x, None)
        out = out if isinstance(out, tuple) else (out, None)
        assert torch.equal(out[0], path.logits)
        torch.testing.assert_close(out[1], path.carry, rtol=0, atol=0)
        modules = {type(module).__module__.partition(".")[0] for module in plain.modules() if type(module) is not cls}
        assert modules == {"torch"}
        if cls is Recurrent:
            names, sizes = space.to_names(architecture), plain.rnn
            assert type(sizes) is nn.LSTM
            assert type(sizes.hidden_size) is int
            assert {"hidden": str(sizes.hidden_size), "layers": str(sizes.num_layers)}.items() <= names.items()


@pytest.mark.parametrize("cls", [Recurrent, Gated, Elman, Cells])
def test_window_by_window_is_one_long_forward(cls):
    torch.manual_seed(0)
    space = Space.of(cls)
    network, x = space.network(TEXT).double().eval(), tokens(11)
    for architecture in every(space):
        gates = space.gates(architecture)
        carry, windows = None, []
        for window in x.split([4, 1, 6]):
            windows.append(network(window, gates, carry=carry))
            carry = windows[-1].carry
        whole = network(x, gates)
        torch.testing.assert_close(torch.cat([w.logits for w in windows]), whole.logits, rtol=0, atol=1e-13)
        torch.testing.assert_close(carry, whole.carry, rtol=0, atol=1e-13)
        assert not torch.allclose(network(x[4:], gates).logits, whole.logits[4:], atol=1e-4)  # the carry matters


@pytest.mark.parametrize("cls", [Recurrent, Gated])
def test_a_state_of_other_sizes_is_cut_or_filled_with_zeros(cls):
    torch.manual_seed(0)
    space = Space.of(cls)
    network, x = space.network(TEXT).double(), tokens()
    narrow = space.gates(space.from_names({"embedding": "3", "hidden": "4", "layers": "1", "decoder": "0"}))
    wide = space.gates(space.from_names({"embedding": "3", "hidden": "7", "layers": "3", "decoder": "0"}))
    states = {}
    for name, gates in {"narrow": narrow, "wide": wide}.items():
        carry = network(x, gates).carry
        states[name] = carry if isinstance(carry, tuple) else (carry,)
    cut = tuple(state[:1, :, :4] for state in states["wide"])
    filled = tuple(torch.zeros_like(state) for state in states["wide"])
    for state, part in zip(filled, states["narrow"], strict=True):
        state[:1, :, :4] = part

    def given(state):
        return state if cls is Recurrent else state[0]

    for gates, theirs, fitted in ((narrow, states["wide"], cut), (wide, states["narrow"], filled)):
        assert torch.equal(network(x, gates, carry=given(theirs)).logits, network(x, gates, carry=given(fitted)).logits)


def test_what_a_window_hands_on_has_no_past_and_goes_into_a_checkpoint(tmp_path):
    space = Space.of(Recurrent)
    network = space.network(TEXT)
    gates = space.gates(space.from_names({"embedding": "5", "hidden": "6", "layers": "2", "decoder": "1"}))
    x = tokens()
    window = Window(x, x.roll(-1, 0), torch.tensor([True] + 6 * [False]))
    task = LanguageModeling()
    loss, carry = task.loss(lambda *a, **k: network(*a, gates=gates, **k), window)
    assert loss.requires_grad
    assert [state.shape for state in carry] == 2 * [(2, 3, 6)]
    assert not any(state.requires_grad for state in carry)
    assert all(state.untyped_storage().nbytes() == 4 * state.numel() for state in carry)
    torch.save({"carries": {"weights": carry}}, tmp_path / "c.ckpt")
    again = torch.load(tmp_path / "c.ckpt", weights_only=True)["carries"]["weights"]
    torch.testing.assert_close(again, carry, rtol=0, atol=0)
    begins = task.loss(lambda *a, **k: network(*a, gates=gates, **k), window, again)[0]
    assert torch.equal(begins, loss)  # a text begins: nothing is read on
    later = window._replace(first=torch.zeros(7, dtype=torch.bool))
    assert not torch.equal(task.loss(lambda *a, **k: network(*a, gates=gates, **k), later, again)[0], loss)


def test_hidden_states_that_are_told_are_regularised():
    space, x = Space.of(Cells), tokens()
    network = space.network(TEXT)
    window = Window(x, x.roll(-1, 0), torch.zeros(7, dtype=torch.bool))
    plain = LanguageModeling(slowness=0.0).loss(lambda *a, **k: network(*a, gates={"cell": 0}, **k), window)[0]
    whole = LanguageModeling(0.5, 2.0).loss(lambda *a, **k: network(*a, gates={"cell": 0}, **k), window)[0]
    hidden = network(x, {"cell": 0}).hidden
    by_hand = 0.5 * hidden.square().mean() + 2.0 * (hidden[1:] - hidden[:-1]).square().mean()
    torch.testing.assert_close(whole - plain, by_hand)


class Returns(nn.Module):
    def __init__(self, vocabulary, returned):
        super().__init__()
        self.embed, self.returned = LayerChoice([nn.Embedding(vocabulary, vocabulary)] * 1, "embed"), returned

    def forward(self, tokens):
        return eval(self.returned, {"x": self.embed(tokens), "torch": torch})


class Carries(Returns):
    def forward(self, tokens, carry=None):
        return super().forward(tokens)


@pytest.mark.parametrize(
    ("cls", "returned", "message"),
    [
        (
            Returns,
            "(x, x[-1])",
            r"Returns.forward returns logits; forward\(tokens, carry\) a pair of them, got tuple of 2",
        ),
        (Carries, "x", r"Carries.forward returns logits and the next carry, got Tensor"),
        (Carries, "(x, x, x)", r"logits and the next carry, got tuple of 3"),
        (Returns, "x.transpose(0, 1)", r"are \(T, N, vocabulary\), here \(7, 3, 11\), got \(3, 7, 11\)"),
        (Returns, "x[..., :5]", r"here \(7, 3, 11\), got \(7, 3, 5\)"),
        (Carries, "(x, torch.Size([1]))", r"carry of Carries is kept in checkpoints; .*, got Size"),
        (Carries, "(x, {'h': [x, (x, 3)]})", "carry of Carries is kept"),
    ],
)
def test_what_is_no_language_model_is_told_what_one_puts_out(cls, returned, message):
    network = OwnSpace(cls, {"returned": returned})
    with pytest.raises(SettingError, match=message):
        network.network(TEXT)(tokens())


class Projected(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 4)
        self.rnn = nn.LSTM(4, ValueChoice([6, 8], "hidden"), proj_size=2)
        self.decode = nn.Linear(2, vocabulary)

    def forward(self, tokens):
        return self.decode(self.rnn(self.embed(tokens))[0])


def test_a_projection_is_refused_by_name_where_sizes_are_chosen_and_ordinary_elsewhere():
    space = Space.of(Projected)
    with pytest.raises(SettingError, match="proj_size: 0 where sizes are chosen"):
        space.network(TEXT)(tokens(), {"hidden": 0})
    assert space.restrict((0,)).network(TEXT)(tokens()).logits.shape == (7, 3, 11)


def test_sizes_are_copied_and_pickled_as_the_choices_that_they_are():
    width = ValueChoice([2, 4], "width")
    for again in (copy.deepcopy(width * 2 + 1), pickle.loads(pickle.dumps(width * 2 + 1))):
        assert again.options == {"width": (2, 4)}
        assert [again.under({"width": value}) for value in (2, 4)] == [5, 9]
    assert copy.deepcopy(width).options == pickle.loads(pickle.dumps(width)).options == {"width": (2, 4)}


@pytest.mark.parametrize("cls", [Recurrent, Gated])
def test_packed_sequences_and_single_ones_run_too(cls):
    torch.manual_seed(0)
    space = Space.of(cls)
    network = space.network(TEXT).double()
    packed = nn.utils.rnn.pack_padded_sequence(torch.rand(5, 3, 5, dtype=torch.float64), [5, 3, 2])
    for architecture in every(space):
        names = space.to_names(architecture)
        if names["embedding"] == "5":
            plain = freeze(network, architecture)
            with network.active(space.gates(architecture)):
                ours, single = network.net.rnn(packed), network.net.rnn(packed.data[:4])
            torch.testing.assert_close(ours[0].data, plain.rnn(packed)[0].data, rtol=0, atol=0)
            torch.testing.assert_close(single, plain.rnn(packed.data[:4]), rtol=0, atol=0)


def test_what_a_word_costs_is_counted_by_hand():
    space = Space.of(Recurrent)
    architecture = space.from_names({"embedding": "5", "hidden": "6", "layers": "2", "decoder": "0"})
    child = space.restrict(architecture).network(TEXT)
    costs = profile(child, child.example())
    gates = 4 * 6 * (5 + 6) + 4 * 6 * (6 + 6)
    assert costs.flops == 2 * (gates + 6 * 11)
    assert costs.n_params == 11 * 5 + gates + 4 * 4 * 6 + 6 * 11 + 11
    with_others = profile(child, torch.zeros(7, 1, dtype=torch.long))
    assert with_others.flops == costs.flops  # a recurrent network reads every word alike
    causal = Space.of(Causal)
    child = causal.restrict(tuple(0 for _ in causal.choices)).network(TEXT)  # 8 wide, 8 in between, one layer
    alone, in_a_window = profile(child, child.example()), profile(child, torch.zeros(7, 1, dtype=torch.long))
    assert in_a_window.flops - alone.flops == 2 * 2 * 8 * (7 - 1)  # which attends to seven words
