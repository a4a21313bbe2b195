"""ENAS's micro space against its published sizes and counts, and a slow plain forward pass of both networks."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.operations import Pointwise
from lightning_nas.spaces import PUBLISHED, ENASMicro
from lightning_nas.spaces.cells import Drops, States

CIFAR = {"channels": 3, "image_size": 32, "num_classes": 10}
SMALL = {"channels": 3, "image_size": 9, "num_classes": 5}  # odd sizes: what is halved is padded
FORMS = ("search", "final")
REDUCTIONS = ("factorized", "strided")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# -- numbers of the paper and of the released code -------------------------------------------------------------------


def test_weights_of_the_published_architecture() -> None:
    space, architecture, _ = PUBLISHED["enas_micro"].build()
    child = space.restrict(architecture)
    settings = {"channels": 36, "layers": 15, "form": "final"}
    with torch.device("meta"):
        assert count(child.network(CIFAR, **settings)) == 3_894_372
        with_head = child.network(CIFAR, auxiliary=True, **settings)
    # It reads five states of width 4·36, and has no bias.
    head = 128 * 5 * 144 + 2 * 128 + 2 * 2 * 128 * 768 + 2 * 768 + 768 * 10
    assert count(with_head) == 3_894_372 + head


def test_weights_of_the_supernet() -> None:
    """Of the released search: C = 20, L = 6, the sum written out."""

    def cell(width: int) -> int:
        separable = sum(2 * (kernel**2 * width + width**2 + 2 * width) for kernel in (3, 5))
        readers = 2 * sum(range(2, 7))  # two slots of each node, over all states before it
        return readers * separable + 7 * width**2 + 2 * width

    stem = 27 * 60 + 2 * 60
    calibrations = 3 * (60 * 20 + 2 * 20)  # of the stem: both inputs of the first cell, one of the second
    reductions = 2 * (20 * 40 + 2 * 40) + 2 * (40 * 80 + 2 * 80)  # of what is read, and of the first input
    cells = 2 * cell(20) + 3 * cell(40) + 3 * cell(80)
    with torch.device("meta"):
        assert count(ENASMicro().network(CIFAR)) == stem + calibrations + reductions + cells + 80 * 10


def test_size() -> None:
    """Ordered pairs: n states and five operations for each of both slots of node n."""
    per_cell = (2 * 3 * 4 * 5 * 6 * 5**5) ** 2
    assert per_cell == 5_062_500_000_000
    assert ENASMicro().size == per_cell**2
    assert ENASMicro(nodes=2, operations=["skip_connect", "avg_pool_3x3"]).size == (2 * 3 * 2**2) ** 4


def test_choices_come_in_the_order_in_which_enas_samples_them() -> None:
    names = [choice.name for choice in ENASMicro(nodes=2).choices]
    node = ("input_1", "input_2", "operation_1", "operation_2")
    assert names == [f"{kind}/{k}/{name}" for kind in ("normal", "reduce") for k in (2, 3) for name in node]


def test_loose_ends_of_the_published_cells() -> None:
    """The normal cell's nodes read the inputs alone; one node of the reduction cell reads another, node 3."""
    space, architecture, _ = PUBLISHED["enas_micro"].build()
    assert space.loose_ends(architecture, "normal") == (2, 3, 4, 5, 6)
    assert space.loose_ends(architecture, "reduce") == (2, 4, 5, 6)
    graphs = space.graph(architecture).items()
    outputs = {kind: [e.source for e in graph.edges if e.target == "output"] for kind, graph in graphs}
    assert outputs == {"normal": ["2", "3", "4", "5", "6"], "reduce": ["2", "4", "5", "6"]}


def test_an_input_that_no_node_reads_is_a_loose_end() -> None:
    space = ENASMicro(nodes=2, operations=["skip_connect"])
    cell = "skip_connect(0) skip_connect(0) | skip_connect(2) skip_connect(0)"
    architecture = space.from_genotype(normal=cell, reduce=cell)
    assert space.loose_ends(architecture, "reduce") == (1, 3)
    for reduction, halved in (("strided", ["1"]), ("factorized", [])):
        network = space.restrict(architecture).network(SMALL, channels=2, layers=3, form="final", reduction=reduction)
        assert [list(cell.widths) for cell in network.cells] == [["1", "3"]] * 5
        assert [list(cell.halvings) for cell in network.cells] == [[], halved, [], halved, []]


# -- a plain implementation ------------------------------------------------------------------------------------------


class Plain:
    """The network as the paper and the released code have it: every operation of every slot on its own, nothing shared,
    with a weight for everything. BatchNorm in training mode."""

    def __init__(self, network: nn.Module, layers: int, form: str, reduction: str) -> None:
        self.weights, self.space = dict(network.named_parameters()), network.space
        self.reductions, self.n_cells = (layers // 3, 2 * (layers // 3) + 1), layers + 2
        self.final, self.strided = form == "final", reduction == "strided"

    def under(self, prefix: str, part: str = "") -> list[Tensor]:
        """Weights of a module, in the order in which its layers follow each other."""
        return [w for name, w in self.weights.items() if name.startswith(f"{prefix}.") and part in name]

    def norm(self, x: Tensor, prefix: str) -> Tensor:
        return normalise(x, *self.under(prefix, ".norm."))

    def pointwise(self, x: Tensor, prefix: str) -> Tensor:
        """ReLU, 1×1, BatchNorm."""
        return self.norm(F.conv2d(F.relu(x), torch.cat(self.under(prefix, ".parts."), 1)), prefix)

    def halve(self, x: Tensor, prefix: str) -> Tensor:
        """Every second pixel, and every second of the image padded right and bottom and moved by one."""
        moved = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
        halves = [
            F.conv2d(pixels[:, :, ::2, ::2], torch.cat(self.under(prefix, part), 1))
            for pixels, part in ((x, ".even."), (moved, ".odd."))
        ]
        return self.norm(torch.cat(halves, 1), prefix)

    def operation(self, name: str, x: Tensor, stride: int, prefix: str) -> Tensor:
        if name == "max_pool_3x3":
            return F.max_pool2d(x, 3, stride, 1)
        if name == "avg_pool_3x3":
            return F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        if name == "skip_connect":
            return x if stride == 1 else self.halve(x, prefix)
        weights = self.under(prefix)
        for depthwise, pointwise, *norm in (weights[:4], weights[4:]):
            x = F.conv2d(F.relu(x), depthwise, None, stride, int(name[-1]) // 2, groups=x.shape[1])
            x = normalise(F.conv2d(x, pointwise), *norm)
            stride = 1
        return x

    def cell(self, k: int, s0: Tensor, s1: Tensor, gates: dict[str, Tensor]) -> Tensor:
        kind, cell = "reduce" if k in self.reductions else "normal", f"cells.{k}"
        options = {choice.name: choice.options for choice in self.space.choices}
        if s0.shape[2] != s1.shape[2]:
            s0 = self.halve(F.relu(s0), f"{cell}.before_last")
        elif self.under(f"{cell}.before_last"):
            s0 = self.pointwise(s0, f"{cell}.before_last")
        s1 = self.pointwise(s1, f"{cell}.last") if self.under(f"{cell}.last") else s1
        s1 = self.pointwise(s1, f"{cell}.base") if self.final else s1
        states, loose = [s0, s1], [torch.ones((), dtype=s0.dtype)] * (2 + self.space.nodes)
        for node in range(2, self.space.nodes + 2):
            total: Tensor | float = 0.0
            for slot in (1, 2):
                sources, operations = (f"{kind}/{node}/{choice}_{slot}" for choice in ("input", "operation"))
                for source, by_source in zip(options[sources], gates[sources], strict=True):
                    loose[int(source)] = loose[int(source)] * (1 - by_source)
                    stride = 2 if kind == "reduce" and self.strided and int(source) < 2 else 1
                    for name, weight in zip(options[operations], gates[operations], strict=True):
                        body = f"{cell}.candidates.bodies.{kind}/{node}/{slot}/{source}/{name}"
                        term = self.operation(name, states[int(source)], stride, body)
                        total = total + by_source * weight * term
            states.append(total)  # type: ignore[arg-type]
        parts = []
        for number, (state, weight) in enumerate(zip(states, loose, strict=True)):
            if weight > 0:
                halved = state.shape[2] > states[-1].shape[2]
                parts.append(weight * (self.halve(state, f"{cell}.halvings.{number}") if halved else state))
        output = torch.cat(parts, 1)
        return output if self.final else self.pointwise(output, f"{cell}.combine")

    def __call__(self, x: Tensor, gates: dict[str, Tensor]) -> Tensor:
        convolution, *norm = self.under("stem")
        s0 = s1 = normalise(F.conv2d(x, convolution, padding=1), *norm)
        for k in range(self.n_cells):
            if k in self.reductions and not self.strided:
                s0, s1 = s1, self.halve(s1, f"halvings.{k}")
            s0, s1 = s1, self.cell(k, s0, s1, gates)
        return F.relu(s1).mean((2, 3)) @ torch.cat(self.under("classifier"), 1)[:, :, 0, 0].T


def normalise(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, scale, shift, training=True)


def randomise(network: nn.Module) -> nn.Module:
    """Scales and shifts too, which begin as one and zero."""
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return network


@pytest.mark.parametrize(("layers", "nodes"), [(1, 3), (3, 2)])  # with the reductions one after the other, and apart
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_the_plain_one(form: str, reduction: str, layers: int, nodes: int) -> None:
    space = ENASMicro(nodes)
    settings = {"channels": 3, "layers": layers, "form": form, "reduction": reduction, "dropout": 0.0}
    images, rng = torch.randn(3, 3, 9, 9, dtype=torch.float64), Random(4)
    for part in (space, *(space.restrict(space.random(rng)) for _ in range(4))):
        network = randomise(part.network(SMALL, **settings).double())
        gates = {c.name: torch.randn(len(c.options), dtype=torch.float64).softmax(0) for c in part.choices}
        expected = Plain(network, layers, form, reduction)(images, gates)
        found = [network(images, gates)] + ([network(images)] if part.size == 1 else [])
        for logits in found:
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


# -- reductions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layers", "kinds"), [(1, "rrn"), (3, "nrnrn"), (6, "nnrnnrnn"), (15, "nnnnnrnnnnnrnnnnn")])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("form", FORMS)
def test_reductions_double_the_channels_and_halve_the_images(
    form: str, reduction: str, layers: int, kinds: str
) -> None:
    space = ENASMicro(nodes=2, operations=["skip_connect", "max_pool_3x3"])
    architecture = space.random(Random(1))
    with torch.device("meta"):
        network = space.network(CIFAR, channels=2, layers=layers, form=form, reduction=reduction)
    assert "".join(cell.kind[0] for cell in network.cells) == kinds
    shapes = shapes_of(network, architecture)
    halved = [kinds[: k + 1].count("r") for k in range(layers + 2)]
    states = {"n": space.loose_ends(architecture, "normal"), "r": space.loose_ends(architecture, "reduce")}
    width = [1 if form == "search" else len(states[kind]) for kind in kinds]
    expected = [(2, 2 * 2**h * w, 32 >> h, 32 >> h) for h, w in zip(halved, width, strict=True)]
    assert shapes == expected


def shapes_of(network: nn.Module, architecture: Sequence[int]) -> list[tuple[int, ...]]:
    """Of the cells' outputs."""
    shapes: list[tuple[int, ...]] = []
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.x.shape)))
    with torch.device("meta"):
        network(torch.empty(2, 3, 32, 32), network.space.gates(tuple(architecture)))
    return shapes


@pytest.mark.parametrize(("form", "released"), [("search", "factorized"), ("final", "strided")])
def test_either_reduction_can_be_had_and_the_released_one_is_the_default(form: str, released: str) -> None:
    space = ENASMicro(nodes=2, operations=["skip_connect", "sep_conv_3x3"])
    with torch.device("meta"):
        factorized, strided, default = (
            space.network(CIFAR, channels=2, layers=6, form=form, reduction=reduction)
            for reduction in (*REDUCTIONS, None)
        )
    weights = [list(network.state_dict()) for network in (factorized, strided, default)]
    assert weights[2] == weights[REDUCTIONS.index(released)]
    assert list(factorized.halvings) == ["2", "5"]
    assert all(cell.candidates.strided == () for cell in factorized.cells)
    assert all(not cell.halvings for cell in factorized.cells)
    assert list(strided.halvings) == []
    assert [k for k, cell in enumerate(strided.cells) if cell.candidates.strided == (0, 1)] == [2, 5]
    assert [k for k, cell in enumerate(strided.cells) if list(cell.halvings) == ["0", "1"]] == [2, 5]


def test_a_factorized_reduction_halves_what_the_cell_reads() -> None:
    """Both inputs of the reduction cell and the first of the next one come from the cell before."""
    space = ENASMicro(nodes=2)
    network = space.network(CIFAR, channels=2, layers=3)
    read: list[tuple[Tensor, Tensor]] = []
    made: list[Tensor] = []
    for cell in network.cells:
        cell.register_forward_pre_hook(lambda module, inputs: read.append((inputs[0].x, inputs[1].x)))
        cell.register_forward_hook(lambda module, inputs, output: made.append(output.x))
    halved: list[Tensor] = []
    network.halvings["1"].register_forward_hook(lambda module, inputs, output: halved.append(output))
    network(torch.randn(2, 3, 32, 32), space.gates(space.random(Random(1))))
    assert read[1][0] is made[0]
    assert read[1][1] is read[2][0] is halved[0]
    assert halved[0].shape == (2, 4, 16, 16)


# -- what runs and what learns ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_only_the_sampled_path_receives_gradients(form: str) -> None:
    space = ENASMicro(nodes=3)
    settings = {"channels": 2, "layers": 3, "form": form}
    network = space.network(CIFAR, **settings)
    for seed in range(3):
        architecture = space.random(Random(seed))
        network.zero_grad(set_to_none=True)
        network(torch.randn(2, 3, 32, 32), space.gates(architecture)).square().sum().backward()
        learns = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
        with torch.device("meta"):
            child = space.restrict(architecture).network(CIFAR, **settings)
        assert learns == {name for name, _ in child.named_parameters()}


@pytest.mark.parametrize("form", FORMS)
def test_batch_norms_have_scale_and_shift_and_nothing_else_has_a_bias(form: str) -> None:
    with torch.device("meta"):
        network = ENASMicro(nodes=2).network(CIFAR, channels=2, layers=3, form=form, auxiliary=True)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms
    assert all(norm.affine for norm in norms)
    others = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear | Pointwise)]
    assert others
    assert all(module.bias is None for module in others)
    # pools are not normalised: views hold no BatchNorm
    views = [view for cell in network.cells for view in cell.candidates.views.modules()]
    assert any(isinstance(view, nn.AvgPool2d) for view in views)
    assert not any(isinstance(view, nn.BatchNorm2d) for view in views)


@pytest.mark.parametrize(("operation", "dropped"), [("skip_connect", False), ("avg_pool_3x3", True)])
@pytest.mark.parametrize("k", [0, 1], ids=["normal", "strided"])
def test_drop_path_spares_the_skip_at_any_stride(k: int, operation: str, dropped: bool) -> None:
    space = ENASMicro(nodes=1, operations=[operation])
    cell = f"{operation}(0) {operation}(1)"
    child = space.restrict(space.from_genotype(normal=cell, reduce=cell))
    network = child.network(CIFAR, channels=2, layers=3, form="final").eval()  # BatchNorm would mix the samples
    before = network.cells[k - 1].widths if k else {"stem": 6}
    state = States(torch.randn(64, sum(before.values()), 8, 8), tuple(before))
    s0 = States(torch.randn(64, 6, 8, 8), ("stem",))
    gates = child.resolve(None)
    whole, half = (network.cells[k](s0, state, gates, Drops(path)).x for path in (0.0, 0.5))
    assert whole.shape[2] == (4 if k else 8)
    assert torch.equal(whole, half) != dropped
    # a quarter of the samples loses both terms
    empty = int((half == 0).flatten(1).all(1).sum())
    assert abs(empty - (16 if dropped else 0)) <= 10


@pytest.mark.parametrize(("form", "released"), [("search", 0.1), ("final", 0.2)])
def test_dropout_before_the_classifier(form: str, released: float) -> None:
    space = ENASMicro(nodes=1, operations=["skip_connect", "max_pool_3x3"])
    architecture = space.random(Random(0))
    for dropout, expected in ((None, released), (0.5, 0.5), (0.0, 0.0)):
        network = space.network(SMALL, channels=8, layers=1, form=form, dropout=dropout)
        read: list[Tensor] = []
        network.classifier.register_forward_pre_hook(lambda module, inputs, read=read: read.append(inputs[0]))
        for parameter in network.cells[-1].parameters():  # every feature is positive
            nn.init.constant_(parameter, 1.0)
        images = torch.randn(64, 3, 9, 9)
        for _ in range(10):
            network(images, space.gates(architecture))
        share = (torch.cat(read) == 0).double().mean().item()
        assert share == pytest.approx(expected, abs=0.03)
        network.eval()
        assert torch.equal(network(images, space.gates(architecture)), network(images, space.gates(architecture)))


# -- the auxiliary head ----------------------------------------------------------------------------------------------


def test_the_auxiliary_head_reads_the_cell_after_the_second_reduction() -> None:
    space = ENASMicro(nodes=2)
    network = space.network(CIFAR, channels=2, layers=6, auxiliary=True)
    read: list[States] = []
    made: list[States] = []
    network.auxiliary.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0]))
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: made.append(output))
    images, gates = torch.randn(2, 3, 32, 32), space.gates(space.random(Random(0)))
    logits, auxiliary = network(images, gates)
    assert logits.shape == auxiliary.shape == (2, 10)
    assert len(read) == 1
    assert read[0] is made[6]
    assert read[0].x.shape == (2, 8, 8, 8)
    assert network.eval()(images, gates).shape == (2, 10)


def test_the_auxiliary_head_refuses_small_images() -> None:
    with pytest.raises(ValueError, match=r"\bnetwork\.auxiliary: .* at least 8×8, here they are 7×7"):
        ENASMicro(nodes=1).network({**CIFAR, "image_size": 28}, channels=2, layers=3, auxiliary=True)


# -- what a user may get wrong ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"nodes": 0}, r"\bnodes: between 1 and 16, got 0"),
        ({"nodes": 17}, r"\bnodes: between 1 and 16, got 17"),
        ({"operations": ["sep_conv"]}, r"\boperations: no operation 'sep_conv'"),
        ({"operations": ["skip_connect", "skip_connect"]}, "'skip_connect' occurs more than once"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ENASMicro(**arguments)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"channels": 0}, r"\bnetwork\.channels .*at least 1, got 0"),
        ({"layers": 0}, r"\bnetwork\.layers: at least 1, got 20 and 0"),
        ({"form": "finall"}, r"\bform: search or final, got 'finall'"),
        ({"reduction": "stride"}, r"\bnetwork\.reduction: factorized or strided, got 'stride'"),
        ({"dropout": 1.0}, r"\bnetwork\.dropout: from 0 to below 1, got 1\.0"),
        ({"dropout": -0.1}, r"\bnetwork\.dropout: "),
    ],
)
def test_bad_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ENASMicro(nodes=1).network(CIFAR, **settings)


@pytest.mark.parametrize("field", CIFAR)
def test_what_is_missing_of_the_inputs_is_named(field: str) -> None:
    with pytest.raises(ValueError, match=rf"\binputs\.{field}: missing"):
        ENASMicro(nodes=1).network({name: value for name, value in CIFAR.items() if name != field})
