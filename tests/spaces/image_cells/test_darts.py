"""The DARTS cell against its paper and released code: sizes, counts, derivation, and a slow plain forward pass."""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.costs.profile import count_parameters
from lightning_nas.operations import DARTS_OPERATIONS
from lightning_nas.spaces import PUBLISHED, Architecture, Choice, DARTSCell, Gates
from lightning_nas.spaces.cells import Drops, States
from lightning_nas.spaces.image_cells.darts import EdgeCell
from lightning_nas.spaces.image_cells.shell import Cell, CellNetwork, Place
from lightning_nas.spaces.kept_edges import KeptEdges

CIFAR = {"channels": 3, "image_size": 32, "num_classes": 10}
IMAGENET = {"channels": 3, "image_size": 224, "num_classes": 1000}
SMALL = {"channels": 3, "image_size": 8, "num_classes": 5}

# operation(source), two per node, nodes separated by a bar; in the papers' order, which is not that of the sources
GENOTYPES = {
    "DARTS_V1": {
        "normal": "sep_conv_3x3(1) sep_conv_3x3(0) | skip_connect(0) sep_conv_3x3(1) | "
        "skip_connect(0) sep_conv_3x3(1) | sep_conv_3x3(0) skip_connect(2)",
        "reduce": "max_pool_3x3(0) max_pool_3x3(1) | skip_connect(2) max_pool_3x3(0) | "
        "max_pool_3x3(0) skip_connect(2) | skip_connect(2) avg_pool_3x3(0)",
    },
    "DARTS_V2": {
        "normal": "sep_conv_3x3(0) sep_conv_3x3(1) | sep_conv_3x3(0) sep_conv_3x3(1) | "
        "sep_conv_3x3(1) skip_connect(0) | skip_connect(0) dil_conv_3x3(2)",
        "reduce": "max_pool_3x3(0) max_pool_3x3(1) | skip_connect(2) max_pool_3x3(1) | "
        "max_pool_3x3(0) skip_connect(2) | skip_connect(2) max_pool_3x3(1)",
    },
    "PDARTS": {
        "normal": "skip_connect(0) dil_conv_3x3(1) | skip_connect(0) sep_conv_3x3(1) | "
        "sep_conv_3x3(1) sep_conv_3x3(3) | sep_conv_3x3(0) dil_conv_5x5(4)",
        "reduce": "avg_pool_3x3(0) sep_conv_5x5(1) | sep_conv_3x3(0) dil_conv_5x5(2) | "
        "max_pool_3x3(0) dil_conv_3x3(1) | dil_conv_3x3(1) dil_conv_5x5(3)",
    },
    "SNAS_mild": {
        "normal": "sep_conv_3x3(0) sep_conv_3x3(1) | skip_connect(0) dil_conv_3x3(1) | "
        "skip_connect(0) skip_connect(1) | skip_connect(0) sep_conv_3x3(1)",
        "reduce": "max_pool_3x3(0) max_pool_3x3(1) | max_pool_3x3(1) skip_connect(2) | "
        "max_pool_3x3(1) skip_connect(2) | max_pool_3x3(0) dil_conv_5x5(2)",
    },
}

# C=36 L=20, the same with auxiliary head, C=16 L=8, C=8 L=8, ImageNet C=48 L=14
COUNTS = {
    "DARTS_V1": (3_169_414, 3_645_840, 232_890, 65_698, 4_510_432),
    "DARTS_V2": (3_349_342, 3_825_768, 246_106, 69_618, 4_718_752),
    "PDARTS": (3_433_798, 3_910_224, 292_026, 85_026, 4_944_352),
    "SNAS_mild": (2_661_382, 3_137_808, 200_954, 56_514, 3_939_328),
}

SETTINGS: list[tuple[dict[str, int], dict[str, Any]]] = [
    (CIFAR, {"channels": 36, "cells": 20}),
    (CIFAR, {"channels": 36, "cells": 20, "auxiliary": True}),
    (CIFAR, {"channels": 16, "cells": 8}),
    (CIFAR, {"channels": 8, "cells": 8}),
    (IMAGENET, {"channels": 48, "cells": 14, "stem": "imagenet"}),
]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- numbers of the papers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "cells", "expected"), [(16, 8, 1_930_618), (8, 5, 394_210), (4, 3, 72_854)])
def test_weights_of_the_supernet(channels: int, cells: int, expected: int) -> None:
    with torch.device("meta"):
        assert count(DARTSCell().network(CIFAR, channels=channels, cells=cells)) == expected


@pytest.mark.parametrize("column", range(5), ids=["C36-L20", "C36-L20-auxiliary", "C16-L8", "C8-L8", "imagenet"])
@pytest.mark.parametrize("name", GENOTYPES)
def test_weights_of_published_architectures(name: str, column: int) -> None:
    space = DARTSCell()
    child = space.restrict(space.from_genotype(**GENOTYPES[name]))
    inputs, settings = SETTINGS[column]
    with torch.device("meta"):
        assert count(child.network(inputs, form="final", **settings)) == COUNTS[name][column]


def test_size() -> None:
    assert DARTSCell(kinds=["normal"]).size == 1_037_664_180
    assert DARTSCell().size == 1_037_664_180**2


@pytest.mark.parametrize(("nodes", "operations"), [(1, 2), (2, 3), (5, 4)])
def test_size_by_formula(nodes: int, operations: int) -> None:
    """At every node two of its sources, each with an operation that is not ``none``."""
    space = DARTSCell(["normal"], nodes, DARTS_OPERATIONS[:operations])
    assert space.size == math.prod(math.comb(node, 2) * (operations - 1) ** 2 for node in range(2, nodes + 2))


def test_choices() -> None:
    choices = DARTSCell(nodes=2).choices
    edges = ["0->2", "1->2", "0->3", "1->3", "2->3"]
    assert [choice.name for choice in choices] == [f"{kind}/{edge}" for kind in ("normal", "reduce") for edge in edges]
    assert [choice.sources for choice in choices] == [(0,), (1,), (0,), (1,), (2,)] * 2
    assert all(choice.options == DARTS_OPERATIONS for choice in choices)
    assert len(DARTSCell().choices) == 28


def test_random_takes_all_pairs_of_sources_alike() -> None:
    """Drawing edge by edge would give the last node the sources (0, 1) in most draws."""
    space, rng, draws = DARTSCell(), Random(0), 30_000
    position = {choice.name: k for k, choice in enumerate(space.choices)}
    live = {kind: [position[f"{kind}/{source}->5"] for source in range(5)] for kind in space.kinds}
    pairs: dict[str, Counter[tuple[int, ...]]] = {kind: Counter() for kind in space.kinds}
    none = DARTS_OPERATIONS.index("none")
    for _ in range(draws):
        drawn = space.random(rng)
        for kind, edges in live.items():
            pairs[kind][tuple(source for source, k in enumerate(edges) if drawn[k] != none)] += 1
    sigma = math.sqrt(draws * 0.1 * 0.9)
    for counts in pairs.values():
        assert set(counts) == set(itertools.combinations(range(5), 2))
        assert all(abs(n - draws * 0.1) < 3 * sigma for n in counts.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kinds": ["reduce"]}, r"\bkinds: .*got \['reduce'\]"),
        ({"kinds": ["reduce", "normal"]}, r"\bkinds: "),
        ({"kinds": []}, r"\bkinds: "),
        ({"nodes": 0}, r"\bnodes: between 1 and 16, got 0"),
        ({"nodes": 17}, r"\bnodes: between 1 and 16, got 17"),
        ({"operations": ["none", "sepconv"]}, r"\boperations: no operation 'sepconv'; there are none, max_pool_3x3"),
        ({"operations": ["skip_connect", "max_pool_3x3"]}, r"\boperations: needs none"),
        ({"operations": ["none"]}, r"\boperations: needs none .* and at least one other"),
        ({"operations": ["none", "skip_connect", "skip_connect"]}, "'skip_connect' occurs more than once"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DARTSCell(**arguments)


# -- genotypes -------------------------------------------------------------------------------------------------------


def parse(text: str) -> dict[str, str]:
    """What ``describe`` writes, as the keyword arguments of ``from_genotype``."""
    return dict(line.split(": ", 1) for line in text.splitlines())


@pytest.mark.parametrize("name", GENOTYPES)
def test_published_genotypes_round_trip(name: str) -> None:
    space = DARTSCell()
    architecture = space.from_genotype(**GENOTYPES[name])
    names = space.to_names(architecture)
    for kind, genotype in GENOTYPES[name].items():
        edges = {
            f"{kind}/{edge[-2]}->{node}": edge[:-3]
            for node, text in enumerate(genotype.split(" | "), start=2)
            for edge in text.split()
        }
        assert {edge: o for edge, o in names.items() if edge.startswith(kind) and o != "none"} == edges
    assert space.from_genotype(**parse(space.describe(architecture))) == architecture


@pytest.mark.parametrize(
    "space",
    [DARTSCell(), DARTSCell(["normal"], 1), DARTSCell(nodes=12, operations=["skip_connect", "none", "conv_7x1_1x7"])],
    ids=["default", "normal-1-node", "12-nodes"],
)
def test_describe_round_trips(space: DARTSCell) -> None:
    rng = Random(1)
    for _ in range(50):
        architecture = space.random(rng)
        assert space.from_genotype(**parse(space.describe(architecture))) == architecture


def test_describe_by_hand() -> None:
    space = DARTSCell(["normal"], 2)
    text = "sep_conv_3x3(0) skip_connect(1) | max_pool_3x3(0) dil_conv_5x5(2)"
    assert space.describe(space.from_genotype(normal=text)) == f"normal: {text}"
    assert space.from_genotype(normal=text) == (4, 3, 1, 0, 7)


@pytest.mark.parametrize(
    ("genotype", "message"),
    [
        ("skip_connect(0) skip_connect(0)", r"normal: 'skip_connect\(0\)' names no edge of node 2, or one twice"),
        ("skip_connect(0) skip_connect(2)", r"normal: 'skip_connect\(2\)' names no edge of node 2"),
        ("skip_connect(0) skip_connect", "normal: 'skip_connect' names no edge of node 2"),
        ("skip_connect(0) conv(1)", r"choices.normal/1->2: no option 'conv'"),
        ("skip_connect(0)", r"choices.normal/1->2: none is illegal"),
        ("", r"illegal"),
        ("skip_connect(0) skip_connect(1) | skip_connect(0)", r"normal: 'skip_connect\(0\)' names no edge of node 3"),
    ],
)
def test_wrong_genotypes_are_refused(genotype: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DARTSCell(["normal"], 1).from_genotype(normal=genotype)


def test_a_genotype_needs_the_cells_of_the_space() -> None:
    text = "skip_connect(0) skip_connect(1)"
    with pytest.raises(ValueError, match=r"choices\.reduce/0->2: none is illegal"):
        DARTSCell(nodes=1).from_genotype(normal=text)
    with pytest.raises(ValueError, match=r"reduce: .* names no edge"):
        DARTSCell(["normal"], 1).from_genotype(normal=text, reduce=text)


def test_graph() -> None:
    space = DARTSCell(["normal"], 2)
    architecture = space.from_genotype(normal="sep_conv_3x3(0) skip_connect(1) | max_pool_3x3(0) dil_conv_5x5(2)")
    (graph,) = space.graph(architecture).values()
    assert graph.nodes == ("cell k-2", "cell k-1", "2", "3", "output")
    assert graph.edges == (
        ("cell k-2", "2", "sep_conv_3x3"),
        ("cell k-1", "2", "skip_connect"),
        ("cell k-2", "3", "max_pool_3x3"),
        ("2", "3", "dil_conv_5x5"),
        ("2", "output", ""),
        ("3", "output", ""),
    )


# -- derivation ------------------------------------------------------------------------------------------------------


def derive_by_the_paper(weights: list[list[float]], nodes: int, operations: Sequence[str]) -> list[str]:
    """One cell: each node keeps the two edges with the largest weight of an operation other than none."""
    kept, rows = [], iter(weights)
    for node in range(2, nodes + 2):
        incoming = [next(rows) for _ in range(node)]
        best = []
        for row in incoming:
            candidates = [(weight, name) for weight, name in zip(row, operations, strict=True) if name != "none"]
            best.append(max(candidates))
        strongest = sorted(range(node), key=lambda source: best[source][0], reverse=True)[:2]
        kept += [best[source][1] if source in strongest else "none" for source in range(node)]
    return kept


def test_derive_is_the_papers_rule() -> None:
    space = DARTSCell()
    per_cell = len(space.choices) // 2
    differs = 0
    for _ in range(200):
        alphas = torch.randn(len(space.choices), len(DARTS_OPERATIONS), dtype=torch.float64)
        weights = alphas.softmax(-1).tolist()
        derived = list(space.to_names(space.derive(weights)).values())
        assert derived[:per_cell] == derive_by_the_paper(weights[:per_cell], space.nodes, DARTS_OPERATIONS)
        assert derived[per_cell:] == derive_by_the_paper(weights[per_cell:], space.nodes, DARTS_OPERATIONS)
        differs += derived != list(space.to_names(super(KeptEdges, space).derive(weights)).values())
    assert differs > 100  # the weight of none would matter


def test_derive_by_hand() -> None:
    space = DARTSCell(["normal"], 2, ["none", "skip_connect", "max_pool_3x3"])
    weights = [
        [0.8, 0.1, 0.1 + 1e-9],  # node 2 has just two edges: both stay, however strong none is
        [0.1, 0.6, 0.3],
        [0.3, 0.3, 0.4],  # the third strongest of node 3
        [0.0, 0.5, 0.5 - 1e-9],
        [0.5, 0.0, 0.5 - 1e-9],  # none is the strongest, and yet the edge is the second strongest
    ]
    assert space.describe(space.derive(weights)) == (
        "normal: max_pool_3x3(0) skip_connect(1) | skip_connect(1) max_pool_3x3(2)"
    )


def test_derive_within_what_a_restriction_left() -> None:
    space = DARTSCell(["normal"], 2, ["none", "skip_connect", "max_pool_3x3"])
    part = space.restrict({"normal/0->3": ["none"], "normal/1->2": ["none", "max_pool_3x3"]})
    weights = [[0.2, 0.3, 0.5], [0.9, 0.1], [1.0], [0.4, 0.5, 0.1], [0.9, 0.04, 0.06]]
    assert part.describe(part.derive(weights)) == (
        "normal: max_pool_3x3(0) max_pool_3x3(1) | skip_connect(1) max_pool_3x3(2)"
    )


def test_derive_refuses_scores_that_do_not_fit() -> None:
    space = DARTSCell(["normal"], 1)
    with pytest.raises(ValueError, match="scores of normal/1->2 are not finite"):
        space.derive([[0.125] * 8, [0.125] * 7 + [math.nan]])
    for wrong in ([[0.125] * 8], [[0.125] * 8, [0.125] * 7], [[0.125] * 8, [0.125] * 9]):
        with pytest.raises(ValueError):  # noqa: PT011
            space.derive(wrong)


# -- the network against a plain one ---------------------------------------------------------------------------------


def normalise(x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """BatchNorm in training, written out."""
    x = (x - x.mean((0, 2, 3), keepdim=True)) / torch.sqrt(x.var((0, 2, 3), correction=0, keepdim=True) + 1e-5)
    if weight is not None and bias is not None:
        x = x * weight[:, None, None] + bias[:, None, None]
    return x


class PlainNetwork:
    """The search network written as the paper tells it, one textbook operation after the other, nothing shared.

    It takes the weights of a network by name and repeats its training forward pass.
    """

    def __init__(self, weights: dict[str, Tensor], cells: int, nodes: int, operations: Sequence[str]) -> None:
        self.weights, self.cells, self.nodes, self.operations = weights, cells, nodes, operations

    def under(self, prefix: str) -> list[Tensor]:
        """Weights of a module, in the order in which its layers follow each other."""
        return [weight for name, weight in self.weights.items() if name.startswith(prefix + ".")]

    def factorized_reduce(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        x = F.relu(x)
        return normalise(torch.cat([F.conv2d(x, first, stride=2), F.conv2d(x[:, :, 1:, 1:], second, stride=2)], 1))

    def operation(self, name: str, x: Tensor, stride: int, weights: list[Tensor]) -> Tensor:
        channels = x.shape[1]
        if name == "none":
            return torch.zeros_like(x[:, :, ::stride, ::stride])
        if name == "max_pool_3x3":
            return normalise(F.max_pool2d(x, 3, stride, 1))
        if name == "avg_pool_3x3":
            return normalise(F.avg_pool2d(x, 3, stride, 1, count_include_pad=False))
        if name == "skip_connect":
            return x if stride == 1 else self.factorized_reduce(x, *weights)
        if name.startswith("sep_conv"):
            for depthwise, pointwise in ((weights[0], weights[1]), (weights[2], weights[3])):
                padding = depthwise.shape[-1] // 2
                x = F.conv2d(F.relu(x), depthwise, stride=stride, padding=padding, groups=channels)
                x = normalise(F.conv2d(x, pointwise))
                stride = 1
            return x
        if name.startswith("dil_conv"):
            padding = 2 * (weights[0].shape[-1] // 2)
            x = F.conv2d(F.relu(x), weights[0], stride=stride, padding=padding, dilation=2, groups=channels)
            return normalise(F.conv2d(x, weights[1]))
        raise AssertionError(name)

    def cell(
        self, k: int, kind: str, after_reduction: bool, s0: Tensor, s1: Tensor, gates: dict[str, Tensor]
    ) -> Tensor:
        before = self.under(f"cells.{k}.preprocess.before_last")
        s0 = self.factorized_reduce(s0, *before) if after_reduction else normalise(F.conv2d(F.relu(s0), *before))
        s1 = normalise(F.conv2d(F.relu(s1), *self.under(f"cells.{k}.preprocess.last")))
        states = [s0, s1]
        for node in range(2, self.nodes + 2):
            total: Tensor | float = 0.0
            for source in range(node):
                edge = f"{kind}/{source}->{node}"
                stride = 2 if kind == "reduce" and source < 2 else 1
                for weight, name in zip(gates[edge], self.operations, strict=True):
                    weights = self.under(f"cells.{k}.edges.candidates.bodies.{edge}/{name}")
                    total = total + weight * self.operation(name, states[source], stride, weights)
            states.append(total)  # type: ignore[arg-type]
        return torch.cat(states[2:], 1)

    def __call__(self, x: Tensor, gates: dict[str, Tensor]) -> Tensor:
        convolution, scale, shift = self.under("stem")
        s0 = s1 = normalise(F.conv2d(x, convolution, padding=1), scale, shift)
        after_reduction = False
        for k in range(self.cells):
            kind = "reduce" if k in (self.cells // 3, 2 * self.cells // 3) else "normal"
            s0, s1 = s1, self.cell(k, kind, after_reduction, s0, s1, gates)
            after_reduction = kind == "reduce"
        bias, weight = self.under("classifier")
        return F.linear(s1.flatten(2).mean(2), weight.flatten(1), bias)


def test_the_fused_network_is_the_plain_one() -> None:
    """Sharing ReLU, pools and their BatchNorm between the readers of a state changes nothing, gradients included."""
    space = DARTSCell()
    network = space.network(SMALL, channels=4, cells=5).double()  # of all pairs of cells one after the other
    images = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    alphas = {choice.name: torch.randn(8, dtype=torch.float64) for choice in space.choices}
    direction = torch.randn(3, 5, dtype=torch.float64)

    def run(forward: Callable[..., Tensor], weights: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        leaves = {name: alpha.clone().requires_grad_() for name, alpha in alphas.items()}
        gates = {name: alpha.softmax(0) for name, alpha in leaves.items()}
        logits = forward(images, gates)
        wanted = {**weights, **leaves}
        found = torch.autograd.grad((logits * direction).sum(), list(wanted.values()))
        return logits.detach(), dict(zip(wanted, found, strict=True))

    fused_logits, fused = run(network, dict(network.named_parameters()))
    copies = {name: weight.detach().clone().requires_grad_() for name, weight in network.named_parameters()}
    plain_logits, plain = run(PlainNetwork(copies, 5, 4, DARTS_OPERATIONS), copies)
    torch.testing.assert_close(fused_logits, plain_logits, rtol=0, atol=1e-12)
    assert fused.keys() == plain.keys()
    assert all(gradient.any() for gradient in plain.values())
    for name in plain:
        scale = max(1.0, plain[name].abs().max().item())
        torch.testing.assert_close(fused[name], plain[name], rtol=0, atol=1e-12 * scale, msg=lambda m: f"{name}: {m}")  # noqa: B023


def test_a_state_is_pooled_and_rectified_once() -> None:
    """By a cell of four nodes, with five states that are read; the first two have no identity in a reduction cell."""
    space = DARTSCell()
    network = space.network(SMALL, channels=4, cells=1)  # a third of one cell is the first: a reduction cell
    calls: Counter[str] = Counter()
    for module in network.cells[0].edges.candidates.views.modules():
        module.register_forward_hook(lambda module, inputs, output: calls.update([type(module).__name__]))
    network(torch.randn(2, 3, 8, 8), {choice.name: torch.full((8,), 0.125) for choice in space.choices})
    del calls["Sequential"]
    assert calls == {"ReLU": 10, "ReLUPhases": 5, "MaxPool2d": 5, "AvgPool2d": 5, "BatchNorm": 10, "Identity": 3}


def cell_of(space: DARTSCell, architecture: Architecture, reduction: bool = False, channels: int = 2) -> EdgeCell:
    """A cell of the final network with just this architecture's operations."""
    choices = space.restrict(architecture).choices
    place = Place("reduce" if reduction else "normal", {"x": channels}, {"x": channels}, channels, False)
    return EdgeCell(choices, space.nodes, place, affine=True).double()


def test_a_cell_by_hand() -> None:
    """State 2 is the sum of its inputs, state 3 the sum of state 2 and the first input; both are put out."""
    space = DARTSCell(["normal"], 2)
    text = "skip_connect(0) skip_connect(1) | skip_connect(0) skip_connect(2)"
    architecture = space.from_genotype(normal=text)
    cell = cell_of(space, architecture).eval()
    for module in (cell.preprocess.before_last, cell.preprocess.last):
        nn.init.dirac_(
            module.convolution.parts["x"]
        )  # the identity, since new BatchNorms divide by sqrt(1 + 1e-5) only
    s0, s1 = torch.rand(2, 1, 2, 4, 4, dtype=torch.float64)  # not negative: ReLU does nothing
    states = (States(s, ("x",)) for s in (s0, s1))
    out = cell(*states, space.resolve(space.gates(architecture)), Drops()).x * math.sqrt(1 + 1e-5)
    torch.testing.assert_close(out, torch.cat([s0 + s1, 2 * s0 + s1], 1), rtol=0, atol=1e-14)


def test_a_node_without_edges_is_zero() -> None:
    """SNAS keeps whatever edges its distribution says, and soft gates may be zero: networks run more than is legal."""
    space = DARTSCell(["normal"], 2)
    network = space.network(SMALL, channels=2, cells=1).eval()
    gates: dict[str, Any] = dict.fromkeys([choice.name for choice in space.choices], 0)
    cell = network.cells[0]
    state = States(torch.randn(1, 6, 8, 8), ("stem",))
    skip = DARTS_OPERATIONS.index("skip_connect")
    out = cell(state, state, space.resolve({**gates, "normal/1->3": skip}), Drops()).x
    assert out.shape == (1, 4, 8, 8)
    assert not out[:, :2].any()
    assert torch.equal(out[:, 2:], cell.preprocess.last(state.x))
    # what leaves a node without edges does not run
    out = cell(state, state, space.resolve({**gates, "normal/1->3": skip, "normal/2->3": skip}), Drops()).x
    assert torch.equal(out[:, 2:], cell.preprocess.last(state.x))
    assert not cell(state, state, space.resolve(gates), Drops()).x.any()


# -- drop-path -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operation", "reduction", "dropped"),
    [
        ("skip_connect", False, False),
        ("skip_connect", True, True),  # FactorizedReduce, no identity
        ("max_pool_3x3", False, True),
        ("avg_pool_3x3", False, True),
        ("sep_conv_3x3", False, True),
        ("dil_conv_5x5", True, True),
    ],
)
def test_drop_path_spares_the_identity_only(operation: str, reduction: bool, dropped: bool) -> None:
    space = DARTSCell(["normal"], 1)
    architecture = space.from_genotype(normal=f"{operation}(0) {operation}(1)")
    cell = cell_of(space, architecture, reduction, channels=6).eval()  # in training BatchNorm would mix the samples
    s0, s1 = (States(s, ("x",)) for s in torch.randn(2, 64, 6, 6, 6, dtype=torch.float64))
    gates = space.resolve(space.gates(architecture))
    whole, half = cell(s0, s1, gates, Drops()).x, cell(s0, s1, gates, Drops(path=0.5)).x
    if not dropped:
        assert torch.equal(whole, half)
        return
    alone = []
    for choice, option in zip(space.choices, architecture, strict=True):
        just_this = dict.fromkeys([choice.name for choice in space.choices], 0) | {choice.name: option}
        alone.append(cell(s0, s1, space.resolve(just_this), Drops()).x)
    # Each sample has lost both edges, one of them, or none; what is left counts twice.
    seen = Counter()
    for sample in range(64):
        for keep in itertools.product((0, 2), repeat=2):
            expected = keep[0] * alone[0][sample] + keep[1] * alone[1][sample]
            seen[keep] += torch.allclose(half[sample], expected, rtol=0, atol=1e-12)
    assert seen.total() == 64
    assert all(abs(n - 16) < 3 * math.sqrt(64 * 3 / 16) for n in seen.values())
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("operation", "reduction", "dropped"),
    [
        ("skip_connect", False, True),
        ("skip_connect", True, False),  # at stride 2 a convolution
        ("max_pool_3x3", False, False),
        ("sep_conv_3x3", False, False),
        ("dil_conv_5x5", True, False),
    ],
)
def test_skip_dropout_drops_single_values_of_the_identity_only(operation: str, reduction: bool, dropped: bool) -> None:
    space = DARTSCell(["normal"], 1)
    architecture = space.from_genotype(normal=f"{operation}(0) {operation}(1)")
    cell = cell_of(space, architecture, reduction, channels=6).eval()
    s0, s1 = (States(s, ("x",)) for s in torch.randn(2, 64, 6, 6, 6, dtype=torch.float64))
    gates = space.resolve(space.gates(architecture))
    whole, some = cell(s0, s1, gates, Drops()).x, cell(s0, s1, gates, Drops(skip=0.25)).x
    if not dropped:
        assert torch.equal(whole, some)
        return
    first, second = cell.preprocess(s0, s1)
    there = (first != 0) & (second != 0)  # where zeros do not look like what is dropped
    seen = Counter()
    for keep in itertools.product((0, 4 / 3), repeat=2):  # each value has lost both edges, one of them, or none
        expected = keep[0] * first + keep[1] * second
        seen[sum(k > 0 for k in keep)] += int(((some - expected).abs() < 1e-12)[there].sum())
    n = int(there.sum())
    assert seen.total() == n
    for kept, share in enumerate((1 / 16, 6 / 16, 9 / 16)):
        assert abs(seen[kept] - share * n) < 4 * math.sqrt(n * share * (1 - share))


def test_skip_dropout_reaches_every_cell_in_training_alone() -> None:
    space = DARTSCell(["normal"], 1)
    child = space.restrict(space.from_genotype(normal="skip_connect(0) sep_conv_3x3(1)"))
    network = child.network(SMALL, channels=2, cells=2).double()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    seen: list[Drops] = []
    for cell in network.cells:
        cell.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[-1]))
    network(images, drop_path=0.2, skip_dropout=0.4)
    network.eval()(images, skip_dropout=0.4)
    assert seen == [Drops(0.2, 0.4)] * 2 + [Drops()] * 2
    assert torch.equal(network(images, skip_dropout=0.9), network(images))


def test_drop_path_is_for_training_and_keeps_the_expectation() -> None:
    space = DARTSCell(["normal"], 1)
    child = space.restrict(space.from_genotype(normal="sep_conv_3x3(0) max_pool_3x3(1)"))
    network = child.network(SMALL, channels=2, cells=1, form="final").double()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64)
    network(images)  # running statistics
    network.eval()
    exact = network(images)
    assert torch.equal(network(images, drop_path=0.9), exact)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert torch.equal(network(images), exact)
    samples = torch.stack([network(images, drop_path=0.3) for _ in range(800)])
    error = samples.std(0) / math.sqrt(len(samples))
    assert (error > 0).all()
    assert ((samples.mean(0) - exact).abs() < 4 * error).all()


# -- the shell -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cells", "kinds"),
    [(1, "r"), (2, "rr"), (3, "nrr"), (4, "nrrn"), (5, "nrnrn"), (6, "nnrnrn"), (8, "nnrnnrnn"), (20, None)],
)
def test_reductions_stand_at_a_third_and_two_thirds(cells: int, kinds: str | None) -> None:
    kinds = kinds or "n" * 6 + "r" + "n" * 6 + "r" + "n" * 6
    with torch.device("meta"):
        network = DARTSCell(nodes=2).network(CIFAR, channels=4, cells=cells)
    assert "".join("r" if cell.edges.candidates.strided else "n" for cell in network.cells) == kinds
    widths = [8 * 2 ** kinds[: k + 1].count("r") for k in range(cells)]
    assert [cell.widths["nodes"] for cell in network.cells] == widths
    assert network.classifier.parts["nodes"].shape[1] == widths[-1]


def test_a_stack_without_reductions() -> None:
    network = DARTSCell(["normal"], 2).network(SMALL, channels=4, cells=3)
    assert [cell.widths["nodes"] for cell in network.cells] == [8, 8, 8]
    shapes: list[torch.Size] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: shapes.append(output.x.shape))
    network(torch.randn(2, 3, 8, 8), hard_gates(network))
    assert shapes == [torch.Size((2, 8, 8, 8))] * 3


def hard_gates(network: CellNetwork) -> Gates:
    return network.space.gates(network.space.random(Random(2)))


@pytest.mark.parametrize(
    ("inputs", "stem"),
    [
        ({"channels": 1, "image_size": 8, "num_classes": 10}, "cifar"),
        ({"channels": 3, "image_size": 7, "num_classes": 2}, "cifar"),
        ({"channels": 4, "image_size": 1, "num_classes": 3}, "cifar"),
        ({"channels": 3, "image_size": 50, "num_classes": 4}, "imagenet"),
    ],
    ids=["grey-8", "odd-7", "one-pixel", "imagenet-50"],
)
@pytest.mark.parametrize("form", ["search", "final"])
def test_images_of_any_kind(inputs: dict[str, int], stem: str, form: str) -> None:
    space = DARTSCell(nodes=2)
    network = space.network(inputs, channels=2, cells=3, stem=stem, form=form)
    images = torch.randn(4, inputs["channels"], inputs["image_size"], inputs["image_size"])
    gates = {choice.name: torch.full((8,), 0.125, requires_grad=True) for choice in space.choices}
    logits = network(images, gates)
    assert logits.shape == (4, inputs["num_classes"])
    assert logits.isfinite().all()
    logits.square().sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


def test_the_forms_differ_in_their_normalisation() -> None:
    for form, affine in (("search", False), ("final", True)):
        cells = DARTSCell(nodes=2).network(SMALL, channels=4, cells=3, form=form).cells
        norms = [module for module in cells.modules() if isinstance(module, nn.BatchNorm2d)]
        assert norms
        assert all((norm.weight is not None) == affine for norm in norms)
        # two pools of each of three states in each of three cells, normalised in the search alone
        views = [module for cell in cells for module in cell.edges.candidates.views.modules()]
        assert sum(isinstance(module, nn.MaxPool2d | nn.AvgPool2d) for module in views) == 18
        assert sum(isinstance(module, nn.BatchNorm2d) for module in views) == (0 if affine else 18)


def test_imagenet_stem_divides_by_eight() -> None:
    network = DARTSCell(nodes=1).network(IMAGENET, channels=4, cells=1, stem="imagenet")
    s0, s1 = network.stem(torch.randn(1, 3, 64, 64))
    assert (s0.shape, s1.shape) == ((1, 4, 16, 16), (1, 4, 8, 8))


@pytest.mark.parametrize("channels", [0, 1, 3, 15, -2])
def test_odd_channels_are_refused(channels: int) -> None:
    with pytest.raises(ValueError, match=rf"\bnetwork\.channels: an even number.* got {channels}$"):
        DARTSCell().network(CIFAR, channels=channels, cells=3)


def test_bad_settings_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"\bnetwork\.cells: at least 1, got 0"):
        DARTSCell().network(CIFAR, cells=0)
    for field in CIFAR:
        with pytest.raises(ValueError, match=rf"\binputs\.{field}: missing"):
            DARTSCell().network({name: value for name, value in CIFAR.items() if name != field})


@pytest.mark.parametrize("setting", ["stem", "form"])
def test_an_unknown_stem_or_form_is_refused(setting: str) -> None:
    """A misspelt one must not silently build another network."""
    with pytest.raises(ValueError, match=setting):
        DARTSCell(nodes=1).network(CIFAR, channels=2, cells=1, **{setting: "finall"})


# -- the auxiliary head ----------------------------------------------------------------------------------------------


def with_auxiliary(space: DARTSCell, inputs: dict[str, int], **settings: Any) -> CellNetwork:
    with torch.device("meta"):
        return space.network(inputs, channels=2, cells=3, auxiliary=True, **settings)


def test_the_auxiliary_head_is_for_training() -> None:
    space = DARTSCell(nodes=1)
    network = space.network({**CIFAR, "num_classes": 7}, channels=2, cells=3, auxiliary=True)
    images, gates = torch.randn(2, 3, 32, 32), hard_gates(network)
    logits, auxiliary = network(images, gates)
    assert logits.shape == auxiliary.shape == (2, 7)
    assert network.eval()(images, gates).shape == (2, 7)
    without = space.network({**CIFAR, "num_classes": 7}, channels=2, cells=3)
    without.load_state_dict({n: v for n, v in network.state_dict().items() if not n.startswith("auxiliary.")})


def test_the_auxiliary_head_reads_the_cell_at_two_thirds() -> None:
    network = DARTSCell(nodes=1).network(CIFAR, channels=2, cells=6, auxiliary=True)
    read: list[Tensor] = []
    made: dict[int, Tensor] = {}
    network.auxiliary.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    for k, cell in enumerate(network.cells):
        cell.register_forward_hook(lambda module, inputs, output, k=k: made.update({k: output}))
    network(torch.randn(2, 3, 32, 32), hard_gates(network))
    assert len(read) == 1
    assert read[0] is made[4]
    assert read[0].x.shape == (2, 8, 8, 8)


@pytest.mark.parametrize("size", [28, 8])
def test_the_auxiliary_head_refuses_maps_below_8(size: int) -> None:
    small = {**CIFAR, "image_size": size}
    left = math.ceil(math.ceil(size / 2) / 2)
    with pytest.raises(ValueError, match=rf"\bnetwork\.auxiliary: .* at least 8×8, here they are {left}×{left}"):
        with_auxiliary(DARTSCell(nodes=1), small)
    with pytest.raises(ValueError, match=r"\bnetwork\.auxiliary: .* at least 8×8, here they are 7×7"):
        with_auxiliary(DARTSCell(["normal"], 1), {**CIFAR, "image_size": 7})


@pytest.mark.parametrize(
    ("space", "size", "stem"),
    [
        (DARTSCell(["normal"], 1), 8, "cifar"),
        (DARTSCell(["normal"], 1), 20, "cifar"),
        (DARTSCell(nodes=1), 29, "cifar"),
        (DARTSCell(nodes=1), 224, "imagenet"),
        (DARTSCell(nodes=1), 193, "imagenet"),  # five times halved and rounded up: 97, 49, 25, 13, 7
    ],
    ids=["8", "20", "29", "imagenet-224", "imagenet-193"],
)
def test_the_auxiliary_head_takes_maps_from_8(space: DARTSCell, size: int, stem: str) -> None:
    inputs = {**CIFAR, "image_size": size}
    network = with_auxiliary(space, inputs, stem=stem)
    with torch.device("meta"):
        logits, auxiliary = network(torch.empty(2, 3, size, size), hard_gates(network))
    assert logits.shape == auxiliary.shape == (2, 10)


def test_images_below_what_a_stem_takes() -> None:
    """Every halving rounds up, so no image is too small for the ImageNet stem, and none is refused."""
    network = DARTSCell(nodes=1).network({**SMALL, "image_size": 4}, channels=2, cells=3, stem="imagenet")
    assert network(torch.randn(4, 3, 4, 4), hard_gates(network)).shape == (4, 5)


# -- cells as the shell sees them ------------------------------------------------------------------------------------


def test_a_cell_is_built_from_any_part_of_a_space() -> None:
    """A search space that shrinks, as P-DARTS's does, loses exactly the operations that it loses."""
    space = DARTSCell(["normal"], 2)
    part = space.restrict({"normal/0->2": ["sep_conv_3x3", "none"], "normal/1->3": "skip_connect"})
    cell = part.network(SMALL, channels=2, cells=1).cells[0]
    assert isinstance(cell, Cell)
    convolutions = {name for name in DARTS_OPERATIONS if "conv" in name}
    expected = {"normal/0->2": {"sep_conv_3x3"}, "normal/1->3": set(), "normal/2->3": convolutions}
    for edge, operations in expected.items():
        assert {name.rpartition("/")[2] for name in cell.edges.candidates.bodies if name.startswith(edge)} == operations
    choice = next(choice for choice in part.choices if choice.name == "normal/1->3")
    assert choice == Choice("normal/1->3", ("skip_connect",), "normal/3", sources=(1,))


# -- any number of edges -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pool_norm", "n_params", "with_auxiliary"),
    [
        ("snas_mild", False, 2_661_382, 3_137_808),
        ("snas_mild", True, 2_663_542, 3_139_968),
        ("snas_moderate", False, 2_847_358, 3_323_784),
        ("snas_moderate", True, 2_848_222, 3_324_648),
        ("snas_aggressive", False, 2_313_622, 2_790_048),
        ("snas_aggressive", True, 2_313_622, 2_790_048),
    ],
)
def test_cells_of_snas_with_and_without_batch_norm_after_pools(
    name: str, pool_norm: bool, n_params: int, with_auxiliary: int
) -> None:
    space, architecture, _ = PUBLISHED[name].build()
    with torch.device("meta"):
        network = space.restrict(architecture).network(
            CIFAR, channels=36, cells=20, form="final", auxiliary=True, pool_norm=pool_norm
        )
    assert count_parameters(network) == n_params
    assert sum(parameter.numel() for parameter in network.parameters()) == with_auxiliary


def test_where_any_number_of_edges_is_kept_every_combination_is_legal() -> None:
    space = DARTSCell(["normal"], 2, operations=["none", "skip_connect", "max_pool_3x3"], kept=None)
    assert space.size == 3**5
    architecture = space.from_genotype(normal="max_pool_3x3(1) | ")
    assert space.describe(architecture) == "normal: max_pool_3x3(1) | "
    scores = [[0.6, 0.4, 0.0], [0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.4, 0.3, 0.3], [0.5, 0.2, 0.3]]
    assert space.derive(scores) == architecture
    keeping = DARTSCell(["normal"], 2, operations=["none", "skip_connect", "max_pool_3x3"], kept=1)
    assert keeping.size == (2 * 2) * (3 * 2)


def test_edges_that_are_kept_are_checked() -> None:
    with pytest.raises(ValueError, match="kept: 1, 2 or null, got 3"):
        DARTSCell(kept=3)
    with pytest.raises(ValueError, match="sparse: changes nothing where kept is null"):
        DARTSCell(sparse=True, kept=None)
