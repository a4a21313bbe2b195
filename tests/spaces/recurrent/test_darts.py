"""The recurrent cell of DARTS: published numbers, and the network computed in the plainest way."""

from collections.abc import Mapping
from random import Random

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.spaces import PUBLISHED, DARTSRecurrentCell
from lightning_nas.spaces.recurrent.language_model import RecurrentNetwork

PTB = {"vocabulary": 10_000}
TEXT = {"vocabulary": 11}
NONE, OTHERS = "none", ("tanh", "relu", "sigmoid", "identity")
DROPOUT = {"word_dropout": 0.2, "input_dropout": 0.3, "hidden_dropout": 0.4, "output_dropout": 0.5}


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# -- the space ---------------------------------------------------------------------------------------------------------


def test_the_published_size() -> None:
    space = DARTSRecurrentCell()
    assert len(space.choices) == 36
    assert space.size == 2_642_411_520  # the product of 4 i for the nodes i from 1 to 8
    assert DARTSRecurrentCell(nodes=3, operations=["none", "relu", "tanh"]).size == 2 * 4 * 6


def test_every_node_has_one_live_edge() -> None:
    space = DARTSRecurrentCell(nodes=3)
    assert [choice.name for choice in space.choices] == ["0->1", "0->2", "1->2", "0->3", "1->3", "2->3"]
    assert [(choice.output, choice.sources) for choice in space.choices[-2:]] == [(3, (1,)), (3, (2,))]
    for architecture in space:
        names = space.to_names(architecture)
        live = [[names[f"{source}->{node}"] for source in range(node)] for node in (1, 2, 3)]
        assert [sum(operation != NONE for operation in node) for node in live] == [1, 1, 1]


def test_derivation_keeps_the_strongest_edge_of_each_node() -> None:
    space = DARTSRecurrentCell(nodes=4)
    rng = Random(0)
    for _ in range(20):
        scores = [[rng.random() for _ in choice.options] for choice in space.choices]
        expected = {choice.name: NONE for choice in space.choices}
        for node in range(1, 5):
            by_edge = {c.name: row[1:] for c, row in zip(space.choices, scores, strict=True) if c.output == node}
            strongest = max(by_edge, key=lambda name: max(by_edge[name]))
            expected[strongest] = OTHERS[by_edge[strongest].index(max(by_edge[strongest]))]
        assert space.to_names(space.derive(scores)) == expected


@pytest.mark.parametrize(
    ("name", "genotype"),
    [
        ("darts_ptb_v1", "relu(0) relu(1) tanh(2) relu(3) relu(4) identity(1) relu(5) relu(1)"),
        ("darts_ptb_v2", "sigmoid(0) relu(1) relu(1) identity(1) tanh(2) sigmoid(5) tanh(3) relu(5)"),
    ],
)
def test_published_cells(name: str, genotype: str) -> None:
    space, architecture, citation = PUBLISHED[name].build()
    assert space.describe(architecture) == genotype
    assert "Liu et al. 2019" in citation
    graph = list(space.graph(architecture)["cell"].edges)
    assert graph[:2] == [("x(t)", "0", "tanh"), ("h(t-1)", "0", "tanh")]
    assert " ".join(f"{operation}({source})" for source, _, operation in graph[2:10]) == genotype
    assert [target for _, target, _ in graph[2:10]] == list("12345678")
    assert graph[10:] == [(str(node), "h(t)", "") for node in range(1, 9)]


def test_the_description_is_read_again() -> None:
    space = DARTSRecurrentCell(nodes=5)
    rng = Random(0)
    for architecture in (space.random(rng) for _ in range(50)):
        assert space.from_genotype(space.describe(architecture)) == architecture


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("relu(0) relu(2)", "'relu\\(2\\)' is not an edge into node 2"),
        ("relu(0) relu(1) relu(0)", "'relu\\(0\\)' is not an edge into node 3"),
        ("relu(0) relu", "'relu' is not an edge into node 2"),
        ("relu(0) gelu(1)", "1->2: no option 'gelu'"),
        ("relu(0)", "1->2: none is illegal"),
        ("relu(0) none(1)", "1->2: none is illegal"),
    ],
)
def test_a_text_that_is_no_cell_is_refused(text: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        DARTSRecurrentCell(nodes=2).from_genotype(text)


@pytest.mark.parametrize("nodes", [0, 17])
def test_a_wrong_number_of_nodes_is_refused(nodes: int) -> None:
    with pytest.raises(SettingError, match=rf"^nodes: between 1 and 16, got {nodes}"):
        DARTSRecurrentCell(nodes=nodes)


@pytest.mark.parametrize("operations", [["none"], ["relu", "tanh"], ["none", "skip_connect"]])
def test_operations_that_it_does_not_have_are_refused(operations: list[str]) -> None:
    with pytest.raises(SettingError, match=r"^operations: none .* and at least one of tanh, .*; got \["):
        DARTSRecurrentCell(operations=operations)


def test_a_wrong_form_is_refused() -> None:
    with pytest.raises(SettingError, match=r"^form: search or final, got 'child'"):
        DARTSRecurrentCell().network(TEXT, form="child")


# -- what is built -----------------------------------------------------------------------------------------------------


def n_params(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_published_parameter_counts() -> None:
    with torch.device("meta"):
        for name in ("darts_ptb_v1", "darts_ptb_v2"):
            space, architecture, _ = PUBLISHED[name].build()
            assert n_params(space.restrict(architecture).network(PTB, hidden=850, form="final")) == 22_960_000
        assert n_params(DARTSRecurrentCell().network(PTB, hidden=300)) == 4_810_000
        # the cell of ENAS in the frame of DARTS
        assert n_params(DARTSRecurrentCell(nodes=11).network(PTB, hidden=850, form="final")) == 27_295_000


def test_one_batch_norm_without_scale_and_shift_normalises_all_states_in_the_search() -> None:
    space = DARTSRecurrentCell(nodes=3)
    network = space.network(TEXT, hidden=4)
    (norm,) = (module for module in network.modules() if isinstance(module, nn.BatchNorm1d))
    assert not norm.affine
    network(torch.randint(11, (5, 3)), space.gates(space.random(Random(0))))
    assert norm.num_batches_tracked == 5 * 4  # time steps, states
    assert not any(isinstance(m, nn.BatchNorm1d) for m in space.network(TEXT, hidden=4, form="final").modules())


# -- the forward pass, slowly ------------------------------------------------------------------------------------------


def textbook(
    network: RecurrentNetwork, weights: Mapping[str, Tensor], tokens: Tensor, carry: Tensor, search: bool
) -> tuple[Tensor, Tensor]:
    """Logits and outputs. One word of a column after the other, one edge after the other, one operation after the
    other; ``weights`` are those of the five operations on each edge."""
    embedding, matrices = network.embedding, network.cell.matrices
    n, hidden, nodes = tokens.shape[1], embedding.shape[1], len(matrices) - 1
    masks = {"word": torch.ones(11, 1), **{name: torch.ones(n, hidden) for name in ("input", "hidden", "output")}}
    if network.training:
        for name, mask in masks.items():
            keep = 1 - DROPOUT[f"{name}_dropout"]
            masks[name] = torch.bernoulli(torch.full_like(mask, keep, dtype=torch.float64)) / keep
    norm = network.cell.state_norm

    def normalised(state: Tensor) -> Tensor:
        if not search:
            return state
        mean, variance = norm.running_mean, norm.running_var
        if network.training:
            mean = state.mean(0)
            variance = ((state - mean) ** 2).mean(0)
        return (state - mean) / (variance + 1e-5) ** 0.5

    operations = {"tanh": torch.tanh, "relu": F.relu, "sigmoid": torch.sigmoid, "identity": lambda x: x}
    outputs, logits = [], []
    for words in tokens:
        x = (embedding * masks["word"])[words] * masks["input"]
        u, t = (torch.cat([x, carry * masks["hidden"]], 1) @ matrices["0"]).chunk(2, 1)
        states = [normalised(carry + t.sigmoid() * (u.tanh() - carry))]
        for node in range(1, nodes + 1):
            total = torch.zeros(n, hidden, dtype=torch.float64)
            for source, state in enumerate(states):
                u, t = ((state * masks["hidden"]) @ matrices[str(node)]).chunk(2, 1)
                for operation, weight in zip(OTHERS, weights[f"{source}->{node}"][1:], strict=True):
                    total = total + weight * (state + t.sigmoid() * (operations[operation](u) - state))
            states.append(normalised(total))
        carry = sum(states[1:]) / nodes
        outputs.append(carry)
        logits.append((carry * masks["output"]) @ embedding.T + network.bias)
    return torch.stack(logits), torch.stack(outputs)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("form", ["search", "final"])
def test_the_relaxed_network_and_its_gradients_are_the_textbooks(form: str, train: bool) -> None:
    space = DARTSRecurrentCell()
    network = space.network(TEXT, hidden=5, form=form, **DROPOUT).double().train(train)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.normal_(0, 0.5)
            if name.endswith("running_var"):
                value.abs_().add_(0.5)
    tokens, carry = torch.randint(11, (4, 6)), torch.randn(6, 5, dtype=torch.float64)
    gates = {c.name: torch.randn(5, dtype=torch.float64).softmax(0).requires_grad_() for c in space.choices}
    variables = [*gates.values(), *network.parameters()]
    torch.manual_seed(7)
    expected = textbook(network, gates, tokens, carry, form == "search")
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


@pytest.mark.parametrize("name", ["darts_ptb_v1", "darts_ptb_v2"])
def test_a_published_cell_is_the_textbooks(name: str) -> None:
    space, architecture, _ = PUBLISHED[name].build()
    network = space.restrict(architecture).network(TEXT, hidden=5, form="final", **DROPOUT).double()
    for weight in network.parameters():
        nn.init.normal_(weight, std=0.5)
    weights = space.one_hot(architecture, dtype=torch.float64)
    tokens, carry = torch.randint(11, (7, 3)), torch.randn(3, 5, dtype=torch.float64)
    torch.manual_seed(7)
    expected, _ = textbook(network, weights, tokens, carry, search=False)
    torch.manual_seed(7)
    torch.testing.assert_close(network(tokens, carry=carry).logits, expected, rtol=0, atol=1e-12)


def test_a_node_that_nothing_flows_into_is_zeros() -> None:
    space = DARTSRecurrentCell(nodes=2)
    network = space.network(TEXT, hidden=4, form="final").eval()
    nothing = torch.tensor([1.0, 0, 0, 0, 0])
    output = network(torch.randint(11, (3, 2)), dict.fromkeys(["0->1", "0->2", "1->2"], nothing))
    assert not output.carry.any()
