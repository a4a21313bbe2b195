"""The language model around a recurrent cell: windows and carries, dropout, the decoder."""

from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from lightning_nas.costs.profile import profile
from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.spaces import PUBLISHED, DARTSRecurrentCell, ENASRecurrentCell
from lightning_nas.spaces.recurrent.language_model import LanguageOutput, RecurrentNetwork

TEXT = {"vocabulary": 13}
DROPOUT = ("word_dropout", "input_dropout", "hidden_dropout", "output_dropout")
PTB = ("darts_ptb_v1", "darts_ptb_v2", "enas_ptb")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def published(name: str, hidden: int = 6, **settings: float) -> RecurrentNetwork:
    """The final network of a published cell, with weights as after some training and all dropouts zero but those
    given."""
    space, architecture, _ = PUBLISHED[name].build()
    settings = dict.fromkeys(DROPOUT, 0.0) | settings
    network = space.restrict(architecture).network(TEXT, hidden=hidden, form="final", **settings).double()
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return network


def text(length: int, columns: int = 3) -> Tensor:
    return torch.randint(TEXT["vocabulary"], (length, columns))


# -- windows and carries -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PTB)
def test_window_by_window_is_one_long_forward(name: str) -> None:
    network = published(name)
    tokens = text(11)
    whole = network(tokens)
    carry, windows = None, []
    for window in tokens.split([4, 1, 6]):
        windows.append(network(window, carry=carry))
        carry = windows[-1].carry
    for field in ("logits", "hidden", "dropped"):
        together = torch.cat([getattr(window, field) for window in windows])
        torch.testing.assert_close(together, getattr(whole, field), rtol=0, atol=1e-13)
    torch.testing.assert_close(windows[-1].carry, whole.carry, rtol=0, atol=1e-13)
    assert not torch.allclose(network(tokens[4:]).hidden, whole.hidden[4:], atol=0.01)  # the carry matters


def test_shapes_of_the_output() -> None:
    output = published("enas_ptb")(text(5, 4))
    assert isinstance(output, LanguageOutput)
    assert [tuple(part.shape) for part in output] == [(5, 4, 13), (4, 6), (5, 4, 6), (5, 4, 6)]
    assert torch.equal(output.carry, output.hidden[-1])


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_where_a_text_begins_the_carry_is_zeros(value: float) -> None:
    network = published("darts_ptb_v2")
    tokens, carry = text(3), torch.full((3, 6), value, dtype=torch.float64)
    first = torch.tensor([True, False, False])
    assert torch.equal(network(tokens, carry=carry, first=first).logits, network(tokens).logits)
    going_on = network(tokens, carry=torch.ones_like(carry), first=torch.tensor([False] * 3))
    assert torch.equal(going_on.logits, network(tokens, carry=torch.ones_like(carry)).logits)
    assert not torch.equal(going_on.logits, network(tokens).logits)


def test_the_network_does_not_cut_the_gradient_of_the_carry() -> None:
    network = published("darts_ptb_v1")
    carry = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    network(text(2), carry=carry).hidden.sum().backward()
    assert carry.grad is not None
    assert carry.grad.all()


# -- the decoder -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "bias"), [("darts_ptb_v2", True), ("enas_ptb", False)])
def test_the_decoder_has_the_matrix_of_the_embedding(name: str, bias: bool) -> None:
    network = published(name, output_dropout=0.5)
    output = network(text(4))
    expected = output.dropped @ network.embedding.T
    assert (network.bias is not None) == bias
    expected = expected + network.bias if bias else expected
    torch.testing.assert_close(output.logits, expected, rtol=0, atol=1e-13)


# -- dropout -----------------------------------------------------------------------------------------------------------


def words_and_mask(network: RecurrentNetwork, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
    """What the cell is given in a forward pass."""
    seen = []
    hook = network.cell.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    network(tokens)
    hook.remove()
    ((words, _, mask, _),) = seen
    return words, mask


def test_a_dropped_word_is_dropped_wherever_it_is() -> None:
    network = published("enas_ptb", hidden=4, word_dropout=0.25)
    tokens = text(50, 4)
    words, _ = words_and_mask(network, tokens)
    factor = (words / network.embedding[tokens]).round(decimals=9)
    by_word = {int(word): factor[tokens == word] for word in range(13)}
    assert all((factors == factors[0, 0]).all() for factors in by_word.values())
    values = torch.stack([factors[0, 0] for factors in by_word.values()])
    assert values.unique().tolist() == [0.0, round(4 / 3, 9)]


def test_dropout_of_inputs_and_outputs_is_the_same_at_all_time_steps() -> None:
    network = published("darts_ptb_v2", hidden=200, input_dropout=0.8, output_dropout=0.4)
    tokens = text(6, 5)
    words, _ = words_and_mask(network, tokens)
    output = network(tokens)
    for factor, keep in ((words / network.embedding[tokens], 0.2), (output.dropped / output.hidden, 0.6)):
        factor = factor.round(decimals=9)
        assert (factor == factor[0]).all()
        assert factor.unique().tolist() == [0.0, round(1 / keep, 9)]
        assert factor[0].ne(0).double().mean() == pytest.approx(keep, abs=0.05)  # 1000 units
        assert not torch.equal(factor[0, 0], factor[0, 1])  # each column has its own


def test_hidden_dropout_masks_every_state_that_is_read_and_no_state_itself() -> None:
    network = published("enas_ptb", hidden=200, hidden_dropout=0.25)
    _, mask = words_and_mask(network, text(2, 5))
    assert mask is not None
    assert mask.shape == (5, 200)
    assert mask.ne(0).double().mean() == pytest.approx(0.75, abs=0.05)
    nothing = [torch.zeros(2, 5, 200).double(), torch.ones(5, 200).double(), torch.zeros(5, 200).double()]
    closed = network.cell(*nothing, network.space.resolve(None))
    # with every unit dropped all products are zero, so every edge halves: half a gate between a state and tanh(0)
    edges = {3: 4, 4: 4, 7: 3, 9: 7, 10: 7, 11: 7}  # between the output before and each of the loose ends
    halved = sum(0.5**n for n in edges.values()) / len(edges)
    torch.testing.assert_close(closed[0], torch.full_like(closed[0], halved), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", PTB)
def test_masks_are_drawn_in_every_forward_pass_from_the_default_generator(name: str) -> None:
    network = published(name, **dict.fromkeys(DROPOUT, 0.5))
    tokens = text(4)
    torch.manual_seed(5)
    once, twice = network(tokens).logits, network(tokens).logits
    assert not torch.equal(once, twice)
    torch.manual_seed(5)
    weights = {name: weight.clone() for name, weight in network.named_parameters()}
    assert torch.equal(functional_call(network, weights, tokens).logits, once)


@pytest.mark.parametrize("form", ["search", "final"])
@pytest.mark.parametrize("space", [DARTSRecurrentCell(), ENASRecurrentCell()], ids=["darts", "enas"])
def test_nothing_is_random_in_evaluation(space: DARTSRecurrentCell | ENASRecurrentCell, form: str) -> None:
    network = space.network(TEXT, hidden=6, form=form, **dict.fromkeys(DROPOUT, 0.5)).eval()
    gates = {choice.name: torch.rand(len(choice.options)) for choice in space.choices}
    tokens, state = text(4), torch.get_rng_state()
    output = network(tokens, gates)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(network(tokens, gates).logits, output.logits)
    assert (output.hidden, output.dropped) == (None, None)  # regularisers are for training


# -- derivatives and precision -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [DARTSRecurrentCell(2), ENASRecurrentCell(3)], ids=["darts", "enas"])
def test_a_relaxed_network_is_twice_differentiable(space: DARTSRecurrentCell | ENASRecurrentCell) -> None:
    network = space.network({"vocabulary": 3}, hidden=2).double()
    names = [name for name, _ in network.named_parameters()]
    torch.nn.init.normal_(network.embedding)
    tokens, targets = torch.randint(3, (2, 2, 3))
    shapes = {choice.name: len(choice.options) for choice in space.choices}

    def loss(gates: Tensor, *weights: Tensor) -> Tensor:
        torch.manual_seed(1)
        parts = dict(zip(shapes, gates.split(list(shapes.values())), strict=True))
        logits = functional_call(network, dict(zip(names, weights, strict=True)), (tokens, parts)).logits
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    gates = torch.rand(sum(shapes.values()), dtype=torch.float64, requires_grad=True)
    weights = [torch.randn_like(weight).requires_grad_() for weight in network.parameters()]
    assert torch.autograd.gradcheck(loss, (gates, *weights), fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, (gates, *weights), fast_mode=True)


@pytest.mark.parametrize("space", [DARTSRecurrentCell(3), ENASRecurrentCell(4)], ids=["darts", "enas"])
def test_products_may_be_in_half_precision(space: DARTSRecurrentCell | ENASRecurrentCell) -> None:
    network = space.network(TEXT, hidden=8, **dict.fromkeys(DROPOUT, 0.0))
    gates = {choice.name: torch.rand(len(choice.options)) for choice in space.choices}
    tokens = text(4)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(tokens, gates)
        output.logits.float().square().sum().backward()
    assert output.hidden.dtype == torch.float32
    torch.testing.assert_close(output.hidden, network(tokens, gates).hidden, rtol=0, atol=0.02)
    assert all(weight.grad.isfinite().all() for weight in network.parameters())


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dropout", DROPOUT)
@pytest.mark.parametrize("probability", [1.0, -0.1, float("nan")])
def test_a_wrong_probability_is_refused(dropout: str, probability: float) -> None:
    with pytest.raises(SettingError, match=rf"^network.{dropout}: from 0 to below 1, got {probability}"):
        DARTSRecurrentCell().network(TEXT, **{dropout: probability})


def test_a_wrong_width_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^network.hidden: at least 1, got 0"):
        ENASRecurrentCell().network(TEXT, hidden=0)


def test_the_data_have_to_be_words() -> None:
    with pytest.raises(SettingError, match=r"^inputs.vocabulary: missing"):
        DARTSRecurrentCell().network({"channels": 3, "image_size": 8, "num_classes": 5})


@pytest.mark.parametrize("space", [DARTSRecurrentCell(3), ENASRecurrentCell(4)], ids=["darts", "enas"])
def test_a_single_column_cannot_be_normalised(space: DARTSRecurrentCell | ENASRecurrentCell) -> None:
    network, gates = space.network(TEXT, hidden=8), space.gates(space.random(Random(0)))
    with pytest.raises(SettingError, match=r"^data.batch_size, data.evaluation_batch_size: at least 2 columns"):
        network(text(4, columns=1), gates)
    network.eval()
    assert network(text(4, columns=1), gates).logits.shape == (4, 1, 13)
    with batch_statistics(network), pytest.raises(SettingError, match=r"with model\.bn batch"):
        network(text(4, columns=1), gates)


@pytest.mark.parametrize("name", PTB)
def test_what_a_word_costs(name: str) -> None:
    network = published(name, hidden=10)
    nodes = {"darts_ptb_v1": 8, "darts_ptb_v2": 8, "enas_ptb": 11}[name]
    matrices = (2 * 10) * (2 * 10) + nodes * 10 * (2 * 10)
    for n_words in (1, 3):
        assert profile(network, network.example(n_words)).multiply_adds == matrices + 10 * 13
