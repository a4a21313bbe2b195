"""The recurrent cell of ENAS: published numbers, and the network computed in the plainest way."""

from collections.abc import Mapping
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces import PUBLISHED, ENASRecurrentCell
from lightning_nas.spaces.recurrent.language_model import RecurrentNetwork

PTB = {"vocabulary": 10_000}
TEXT = {"vocabulary": 11}
ACTIVATIONS = {"tanh": torch.tanh, "relu": F.relu, "identity": lambda x: x, "sigmoid": torch.sigmoid}
DROPOUT = {"word_dropout": 0.2, "input_dropout": 0.3, "hidden_dropout": 0.4, "output_dropout": 0.5}
FORMULAS = [(highway, share) for highway in (True, False) for share in ("pair", "pair_and_activation")]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# -- the space ---------------------------------------------------------------------------------------------------------


def test_the_published_size() -> None:
    assert ENASRecurrentCell().size == 4**12 * 39_916_800  # 11!, since the first node has no predecessor to choose
    assert ENASRecurrentCell(nodes=3, activations=["tanh", "relu"]).size == 2**3 * 2


def test_a_node_chooses_a_predecessor_and_then_an_activation() -> None:
    space = ENASRecurrentCell(nodes=3, activations=["relu", "tanh"])
    chosen = [(choice.name, choice.kind, choice.options, choice.sources, choice.output) for choice in space.choices]
    assert chosen == [
        ("0/activation", "operation", ("relu", "tanh"), (), 0),
        ("1/input", "input", ("0",), (0,), 1),
        ("1/activation", "operation", ("relu", "tanh"), (), 1),
        ("2/input", "input", ("0", "1"), (0, 1), 2),
        ("2/activation", "operation", ("relu", "tanh"), (), 2),
    ]


def test_the_published_cell() -> None:
    space, architecture, citation = PUBLISHED["enas_ptb"].build()
    assert space.loose_ends(architecture) == (3, 4, 7, 9, 10, 11)
    assert "Pham et al. 2018" in citation
    names = space.to_names(architecture)
    assert [int(names[f"{node}/input"]) for node in range(1, 12)] == [0, 1, 2, 2, 2, 5, 1, 6, 8, 8, 8]
    assert "".join(names[f"{node}/activation"][0] for node in range(12)) == "ttrrttrtrrrr"
    graph = list(space.graph(architecture)["cell"].edges)
    assert graph[:4] == [("x(t)", "0", "tanh"), ("h(t-1)", "0", "tanh"), ("0", "1", "tanh"), ("1", "2", "relu")]
    assert [source for source, target, _ in graph if target == "h(t)"] == ["3", "4", "7", "9", "10", "11"]


def test_the_description_is_read_again() -> None:
    space = ENASRecurrentCell(nodes=6)
    assert space.describe(space.from_genotype("tanh relu(0) identity(0) sigmoid(2) relu(3) tanh(1)")) == (
        "tanh relu(0) identity(0) sigmoid(2) relu(3) tanh(1)"
    )
    rng = Random(0)
    for architecture in (space.random(rng) for _ in range(50)):
        assert space.from_genotype(space.describe(architecture)) == architecture


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tanh relu(1) relu(0)", "1/input: no option '1'; it has 0"),
        ("tanh relu(0)", "2/input: missing"),
        ("tanh relu relu(0)", "1/input: missing"),
        ("tanh(0) relu(0) relu(0)", "0/input: ENASRecurrentCell has no such choice"),
        ("tanh relu(0) relu(0) relu(0)", "3/activation: ENASRecurrentCell has no such choice"),
        ("tanh relu(0) gelu(0)", "2/activation: no option 'gelu'"),
    ],
)
def test_a_text_that_is_no_cell_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ENASRecurrentCell(nodes=3).from_genotype(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nodes": 1}, "nodes: between 2 and 32, got 1"),
        ({"nodes": 33}, "nodes: between 2 and 32, got 33"),
        ({"activations": []}, r"activations: some of tanh, relu, sigmoid, identity; got \[\]"),
        ({"activations": ["none"]}, "activations: some of"),
        ({"share": "node"}, "share: pair or pair_and_activation, got 'node'"),
    ],
)
def test_settings_that_no_cell_can_have_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(SettingError, match=f"^{message}"):
        ENASRecurrentCell(**settings)


# -- what is built -----------------------------------------------------------------------------------------------------


def n_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_published_parameter_counts() -> None:
    space, architecture, _ = PUBLISHED["enas_ptb"].build()
    by_activation = ENASRecurrentCell(share="pair_and_activation")
    with torch.device("meta"):
        assert n_params(space.restrict(architecture).network(PTB, hidden=748, form="final")) == 22_027_104
        assert n_params(space.network(PTB, hidden=720, batch_norm=False)) == 77_702_400
        assert n_params(by_activation.network(PTB, hidden=720, batch_norm=False)) == 289_209_600


def test_in_the_search_every_matrix_and_the_output_have_a_batch_norm() -> None:
    space = ENASRecurrentCell(nodes=4)
    network = space.network(TEXT, hidden=5)
    norms = {name: m for name, m in network.named_modules() if isinstance(m, nn.BatchNorm1d)}
    products = [f"cell.product_norms.{name}" for name in ("0", "1/0", "2/0", "2/1", "3/0", "3/1", "3/2")]
    assert sorted(norms) == sorted([*products, "cell.output_norm"])
    assert all(m.affine and m.eps == 1.0 and m.momentum == pytest.approx(1 - 0.999) for m in norms.values())
    assert [m.num_features for m in norms.values()] == [10] * 7 + [5]
    for without in (space.network(TEXT, hidden=5, form="final"), space.network(TEXT, hidden=5, batch_norm=False)):
        assert not any(isinstance(m, nn.BatchNorm1d) for m in without.modules())


# -- the forward pass, slowly ------------------------------------------------------------------------------------------


def textbook(
    network: RecurrentNetwork, space: ENASRecurrentCell, weights: Mapping[str, Tensor], tokens: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Logits and outputs. One word of a column after the other, one predecessor after the other, one activation after
    the other; everything is computed and nothing left out."""
    embedding, cell = network.embedding, network.cell
    n, hidden = tokens.shape[1], embedding.shape[1]
    masks = {"word": torch.ones(11, 1), **{name: torch.ones(n, hidden) for name in ("input", "hidden", "output")}}
    if network.training:
        for name, mask in masks.items():
            keep = 1 - DROPOUT[f"{name}_dropout"]
            masks[name] = torch.bernoulli(torch.full_like(mask, keep, dtype=torch.float64)) / keep

    def normalised(x: Tensor, norm: nn.Module | None) -> Tensor:
        if not isinstance(norm, nn.BatchNorm1d):
            return x
        mean, variance = norm.running_mean, norm.running_var
        if network.training:
            mean = x.mean(0)
            variance = ((x - mean) ** 2).mean(0)
        return (x - mean) / (variance + 1.0) ** 0.5 * norm.weight + norm.bias

    def edge(state: Tensor, read: Tensor, name: str, activation: str) -> Tensor:
        name = name if space.share == "pair" else f"{name}/{activation}"
        product = normalised(read @ cell.matrices[name], dict(cell.product_norms.items()).get(name))
        if not space.highway:
            return ACTIVATIONS[activation](product)
        u, t = product.chunk(2, 1)
        return state + t.sigmoid() * (ACTIVATIONS[activation](u) - state)

    activations = {node: weights[f"{node}/activation"] for node in range(space.nodes)}
    inputs = {node: weights[f"{node}/input"] for node in range(1, space.nodes)}
    loose = [torch.ones((), dtype=torch.float64) for _ in range(space.nodes)]
    loose[0] = loose[0] * 0  # node 1 reads it, whatever the weights
    for node in range(2, space.nodes):
        for source in range(node):
            loose[source] = loose[source] * (1 - inputs[node][source])
    outputs, logits = [], []
    for words in tokens:
        x = (embedding * masks["word"])[words] * masks["input"]
        states = []
        for node in range(space.nodes):
            total = torch.zeros(n, hidden, dtype=torch.float64)
            for source in range(node) if node else [None]:
                state = carry if source is None else states[source]
                read = state * masks["hidden"]
                read = torch.cat([x, read], 1) if source is None else read
                name = "0" if source is None else f"{node}/{source}"
                by_source = 1.0 if source is None else inputs[node][source]
                for activation, weight in zip(ACTIVATIONS, activations[node], strict=True):
                    total = total + by_source * weight * edge(state, read, name, activation)
            states.append(total)
        carry = sum(w * state for w, state in zip(loose, states, strict=True)) / sum(loose)
        carry = normalised(carry, cell.output_norm)
        outputs.append(carry)
        logits.append((carry * masks["output"]) @ embedding.T)
    return torch.stack(logits), torch.stack(outputs)


def randomised(network: RecurrentNetwork) -> RecurrentNetwork:
    """In double precision, with weights and running statistics as after some training."""
    network = network.double()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.normal_(0, 0.5)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    return network


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("form", ["search", "final"])
@pytest.mark.parametrize(("highway", "share"), FORMULAS)
def test_the_relaxed_network_and_its_gradients_are_the_textbooks(
    highway: bool, share: str, form: str, train: bool
) -> None:
    space = ENASRecurrentCell(nodes=5, highway=highway, share=share)
    network = randomised(space.network(TEXT, hidden=4, form=form, **DROPOUT)).train(train)
    tokens, carry = torch.randint(11, (3, 6)), torch.randn(6, 4, dtype=torch.float64)
    gates = {c.name: torch.randn(len(c.options), dtype=torch.float64).softmax(0) for c in space.choices}
    variables = [gate.requires_grad_() for gate in gates.values()] + list(network.parameters())
    torch.manual_seed(7)
    expected = textbook(network, space, gates, tokens, carry)
    torch.manual_seed(7)
    output = network(tokens, gates, carry)
    torch.testing.assert_close(output.logits, expected[0], rtol=0, atol=1e-11)
    torch.testing.assert_close(output.carry, expected[1][-1], rtol=0, atol=1e-11)
    if network.training:
        torch.testing.assert_close(output.hidden, expected[1], rtol=0, atol=1e-11)
    direction = torch.randn_like(output.logits)
    gradients = [torch.autograd.grad((direction * logits).sum(), variables) for logits in (output.logits, expected[0])]
    for actual, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(actual, slow, rtol=0, atol=1e-10 * max(1, slow.abs().max().item()))
        assert slow.any()


@pytest.mark.parametrize("form", ["search", "final"])
@pytest.mark.parametrize(("highway", "share"), FORMULAS)
def test_an_architecture_computes_what_the_textbook_says(highway: bool, share: str, form: str) -> None:
    space = ENASRecurrentCell(nodes=8, highway=highway, share=share)
    network = randomised(space.network(TEXT, hidden=4, form=form, **DROPOUT))
    tokens, carry = torch.randint(11, (3, 6)), torch.randn(6, 4, dtype=torch.float64)
    rng = Random(1)
    for architecture in (space.random(rng) for _ in range(3)):
        torch.manual_seed(7)
        expected, _ = textbook(network, space, space.one_hot(architecture, dtype=torch.float64), tokens, carry)
        torch.manual_seed(7)
        actual = network(tokens, space.gates(architecture), carry).logits
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-11)


class Closed(nn.Module):
    """Sets the second half of a product, the gate's, to minus infinity."""

    def forward(self, product: Tensor) -> Tensor:
        u, t = product.chunk(2, 1)
        return torch.cat([u, torch.full_like(t, -torch.inf)], 1)


def test_a_closed_gate_passes_on_the_state_that_it_reads() -> None:
    space, architecture, _ = PUBLISHED["enas_ptb"].build()
    network = space.network(TEXT, hidden=4, form="final", **DROPOUT)
    network.cell.product_norms.update({name: Closed() for name in network.cell.matrices})
    carry = torch.randn(3, 4)
    hidden = network(torch.randint(11, (5, 3)), space.gates(architecture), carry).hidden
    torch.testing.assert_close(hidden, carry.expand_as(hidden))


def test_a_state_is_loose_as_far_as_nobody_reads_it() -> None:
    space = ENASRecurrentCell(nodes=4)
    cell = space.network(TEXT, hidden=3).cell
    architecture = space.from_genotype("tanh tanh(0) relu(0) relu(0)")
    for gates in (space.gates(architecture), space.one_hot(architecture)):
        assert cell.outputs(space.resolve(gates)) == {1: None, 2: None, 3: None}
    soft = space.one_hot(architecture) | {
        "2/input": torch.tensor([0.75, 0.25]),
        "3/input": torch.tensor([0.5, 0.5, 0.0]),
    }
    outputs = cell.outputs(space.resolve(soft))
    assert set(outputs) == {1, 2, 3}  # node 1 reads 0 for sure
    assert outputs[1] == (1 - 0.25) * (1 - 0.5)
    assert outputs[2] is None
    assert outputs[3] is None


@pytest.mark.parametrize("share", ["pair", "pair_and_activation"])
def test_only_the_sampled_path_gets_gradients(share: str) -> None:
    space = ENASRecurrentCell(nodes=4, share=share)
    network = space.network(TEXT, hidden=3, batch_norm=False)
    architecture = space.from_genotype("tanh relu(0) sigmoid(0) identity(2)")
    network(torch.randint(11, (2, 2)), space.gates(architecture)).logits.sum().backward()
    trained = {name for name, weight in network.named_parameters() if weight.grad is not None}
    matrices = {"pair": ["0", "1/0", "2/0", "3/2"], "pair_and_activation": ["0/tanh", "1/0/relu", "2/0/sigmoid"]}
    matrices["pair_and_activation"].append("3/2/identity")
    assert trained == {"embedding", *(f"cell.matrices.{name}" for name in matrices[share])}
