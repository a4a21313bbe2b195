"""A network as a file: the file computes what the network does, and says so in names; what cannot be written is refused
and leaves nothing behind."""

import dataclasses
from collections.abc import Callable
from random import Random
from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
from torch import Tensor, nn

from lightning_nas import SettingError, Space, export_network, load_architecture
from lightning_nas.catalogue import KINDS
from lightning_nas.export.formats import FORMATS
from lightning_nas.export.interface import interface_of
from lightning_nas.specs import concrete
from lightning_nas.testing.space import randomise
from tests.spaces.test_contracts import CASES as SPACES

EXTRA = "needs the extra export"
SUFFIXES = [pytest.param(".onnx", id="onnx"), pytest.param(".pt2", id="pt2")]
IMAGES = {"channels": 5, "image_size": 16, "num_classes": 4}


@pytest.fixture(params=SUFFIXES)
def suffix(request):
    if request.param == ".onnx":
        pytest.importorskip("onnxruntime", reason=EXTRA)
        pytest.importorskip("onnxscript", reason=EXTRA)
    return request.param


def runs(path):
    """The file as a stranger runs it, without this package: outputs in order, from inputs by name."""
    if path.suffix == ".pt2":
        program = torch.export.load(path).module()

        def run(**given: Tensor) -> list[Tensor]:
            returned = program(*given.values())
            if isinstance(returned, dict):
                returned = tuple(returned.values())
            return list(returned) if isinstance(returned, tuple) else [returned]

        return run
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes())
    return lambda **given: [
        torch.from_numpy(v) for v in session.run(None, {name: value.numpy() for name, value in given.items()})
    ]


def child(name, form="final", seed=3):
    """The network of an architecture, with weights and averages of no kind in particular."""
    case = SPACES[name]
    torch.manual_seed(seed)
    network = case.space.restrict(case.space.random(Random(seed))).network(case.inputs, form=form, **case.settings)
    randomise(network)
    return network


def part(found, wanted):
    assert found.shape == wanted.shape
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


def shapes(ports):
    return {port.name: port.shape for port in ports}


def assert_varies(outputs):
    """The outputs depend on the inputs, so that they show something."""
    rows = outputs.flatten(1) if outputs.dim() == 2 else outputs.flatten(2).transpose(0, 1).flatten(1)
    assert (rows - rows[:1]).abs().max() > 1e-3 * rows.abs().max()


# -- networks of images and of text ------------------------------------------------------------------------------------


def built(name="nas_bench_201_best", inputs=IMAGES, **settings):
    """The final network of a published architecture, with weights and averages of no kind in particular."""
    torch.manual_seed(0)
    network = load_architecture(name).network(inputs, **settings or {"channels": 4, "cells": 1})
    randomise(network)
    return network


def test_a_network_of_images(suffix, tmp_path):
    network = built()
    exported = export_network(network, tmp_path / f"network{suffix}")
    assert shapes(exported.inputs) == {"images": ("batch", 5, 16, 16)}
    assert shapes(exported.outputs) == {"logits": ("batch", 4)}
    assert {port.dtype for port in (*exported.inputs, *exported.outputs)} == {"float32"}
    run = runs(exported.path)
    network.eval()
    for n in (1, 4, 9):
        images = torch.randn(n, 5, 16, 16)
        (logits,) = run(images=images)
        with torch.no_grad():
            assert part(logits, network(images)) < 1e-5
    assert_varies(logits)
    assert exported.difference <= exported.relative * 1e3
    assert exported.relative < 1e-5
    assert exported.size == exported.path.stat().st_size
    weights = 4 * sum(p.numel() for p in network.parameters())
    assert weights < exported.size < weights + 300_000  # the graph, and of a program what torch notes beside it


def test_a_network_of_text_reads_windows_of_any_length_and_hands_its_carry_on(suffix, tmp_path):
    network = child("enas-rnn-plain").eval()
    exported = export_network(network, tmp_path / f"network{suffix}")
    hidden, vocabulary = network.cell.hidden, network.inputs["vocabulary"]
    assert shapes(exported.inputs) == {"tokens": ("time", "batch"), "carry": ("batch", hidden)}
    outputs = {"logits": ("time", "batch", vocabulary), "next_carry": ("batch", hidden)}
    assert shapes(exported.outputs) == outputs
    run = runs(exported.path)
    for length, n in ((1, 1), (6, 3), (40, 2)):
        tokens, zeros = torch.randint(vocabulary, (length, n)), torch.zeros(n, hidden)
        with torch.no_grad():
            wanted = network(tokens)
        logits, carry = run(tokens=tokens, carry=zeros)
        assert part(logits, wanted.logits) < 1e-5
        assert part(carry, wanted.carry) < 1e-5
    assert_varies(logits)
    # two windows one after the other are the long one
    half, between = run(tokens=tokens[:15], carry=zeros)
    rest, end = run(tokens=tokens[15:], carry=between)
    assert part(torch.cat([half, rest]), wanted.logits) < 1e-5
    assert part(end, wanted.carry) < 1e-5


def test_dense_networks_put_out_logits_of_every_pixel(suffix, tmp_path):
    network = built(inputs={**IMAGES, "dense": 1}).eval()
    exported = export_network(network, tmp_path / f"network{suffix}")
    assert shapes(exported.outputs) == {"logits": ("batch", 4, 16, 16)}
    images = torch.randn(3, 5, 16, 16)
    with torch.no_grad():
        assert part(runs(exported.path)(images=images)[0], network(images)) < 1e-5


def test_a_network_without_a_classifier_puts_out_features_of_images_of_the_examples_size(tmp_path):
    network = built().eval()
    network.reset_classifier(0)
    exported = export_network(network, tmp_path / "network.pt2", torch.zeros(1, 5, 20, 24))
    assert shapes(exported.inputs) == {"images": ("batch", 5, 20, 24)}
    assert shapes(exported.outputs) == {"features": ("batch", network.num_features)}
    images = torch.randn(2, 5, 20, 24)
    with torch.no_grad():
        assert torch.equal(runs(exported.path)(images=images)[0], network(images))


@pytest.mark.slow
def test_the_auxiliary_head_stays_out_of_the_file(tmp_path):
    sizes = []
    for auxiliary in (False, True):
        network = built("enas_micro", {**IMAGES, "image_size": 32}, channels=2, layers=1, auxiliary=auxiliary)
        sizes.append(export_network(network, tmp_path / "network.pt2").size)
        assert (network.auxiliary is not None) == auxiliary
    assert abs(sizes[1] - sizes[0]) < 5_000  # its weights are 2 MB


def test_the_network_is_left_as_it_was(suffix, tmp_path):
    network = built()
    network.train()
    network.stem.eval()
    network.stem[0].weight.requires_grad_(False)
    network(torch.randn(2, 5, 16, 16)).sum().backward()
    modes = {name: module.training for name, module in network.named_modules()}
    tensors = [*network.parameters(), *network.buffers()]
    before = [(t, t.clone(), t.stride(), t.requires_grad, None if t.grad is None else t.grad.clone()) for t in tensors]
    random = torch.get_rng_state()
    export_network(network, tmp_path / f"network{suffix}")
    assert torch.equal(torch.get_rng_state(), random)
    assert {name: module.training for name, module in network.named_modules()} == modes
    assert any(gradient is not None for *_, gradient in before)
    for now, (same, value, stride, learns, gradient) in zip(
        [*network.parameters(), *network.buffers()], before, strict=True
    ):
        assert now is same
        assert torch.equal(now, value)
        assert (now.stride(), now.requires_grad) == (stride, learns)
        assert (now.grad is None) if gradient is None else torch.equal(now.grad, gradient)


def test_the_layers_of_the_file_are_plain_operations():
    """Custom functions of autograd, and whatever else knows only this package, would not run elsewhere."""
    interface = interface_of(built("darts_v2", channels=4, cells=3).eval(), None)
    program = torch.export.export(interface.module, tuple(interface.drawn(batch=3).values()))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert {"aten.conv2d.default", "aten.batch_norm.default"} < called
    assert all(name.startswith(("aten.", "<built-in function")) for name in called)


def test_latency_is_that_of_both_in_turns(tmp_path):
    exported = export_network(built(), tmp_path / "network.pt2", latency_runs=2, batch_size=3)
    assert exported.latency > 0
    assert exported.network_latency > 0
    said = exported.describe()
    assert said.splitlines()[1:3] == [
        "input       images: batch × 5 × 16 × 16, float32",
        "output      logits: batch × 4, float32",
    ]
    assert "in random batches of 1, 2 and 7" in said
    assert f"torch.export {exported.latency:,.3f} ms, the network {exported.network_latency:,.3f} ms" in said
    assert "per batch of 3, cpu" in said
    assert "\nlatency" in said
    assert "\nlatency" not in dataclasses.replace(exported, latency=None).describe()


@pytest.mark.parametrize("opset", [18, pytest.param(21, marks=pytest.mark.slow)])
def test_the_opset_is_the_one_that_is_asked_for(opset, tmp_path):
    onnx = pytest.importorskip("onnx", reason=EXTRA)
    pytest.importorskip("onnxruntime", reason=EXTRA)
    exported = export_network(child("nas-bench-201"), tmp_path / "network.onnx", opset=opset)
    assert exported.opset == opset
    assert f"opset {opset}" in exported.describe()
    model = onnx.load(exported.path)
    onnx.checker.check_model(model, full_check=True)
    assert [each.version for each in model.opset_import if not each.domain] == [opset]
    assert b"site-packages" not in exported.path.read_bytes()  # nor other paths of this machine
    assert b"/tests/" not in exported.path.read_bytes()


# -- modules of a user's own -------------------------------------------------------------------------------------------


class Pair(NamedTuple):
    logits: Tensor
    total: Tensor | None


class Linear(nn.Module):
    """A layer whose outputs a function makes of what it puts out."""

    def __init__(self, made: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.made = nn.Linear(4, 3), made

    def forward(self, x: Tensor) -> object:
        return self.made(self.layer(x))


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.layer = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, tokens: Tensor, scale: Tensor, shift: Tensor | None = None) -> Tensor:
        x = self.layer(self.words(tokens).mean(1)) * scale
        return x if shift is None else x + shift


@pytest.mark.parametrize(
    ("made", "names"),
    [
        (lambda x: x, ["output"]),
        (lambda x: (x, x.sum(1)), ["output_1", "output_2"]),
        (lambda x: {"one": x, "x": x.exp()}, ["one", "x_out"]),  # no two things of a file have the same name
        (lambda x: Pair(x, x.sum(1)), ["logits", "total"]),
        (lambda x: Pair(x, None), ["logits"]),
    ],
    ids=["tensor", "tuple", "dictionary", "named tuple", "none"],
)
def test_outputs_are_called_as_the_module_calls_them(made, names, suffix, tmp_path):
    network = Linear(made)
    exported = export_network(network, tmp_path / f"network{suffix}", torch.randn(1, 4))
    assert shapes(exported.inputs) == {"x": ("batch", 4)}
    assert list(shapes(exported.outputs)) == names
    x = torch.randn(6, 4)
    returned = made(network.layer(x))
    wanted = [returned] if isinstance(returned, Tensor) else list(getattr(returned, "values", lambda: returned)())
    wanted = [value for value in wanted if value is not None]
    found = runs(exported.path)(x=x)
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert part(one, other.detach()) < 1e-5


@pytest.mark.parametrize("by_name", [False, True])
def test_several_inputs(by_name, suffix, tmp_path):
    network = Two()
    tokens, scale, shift = torch.randint(9, (2, 5)), torch.randn(2, 3), torch.randn(2, 1)
    example = {"tokens": tokens, "shift": shift, "scale": scale} if by_name else [tokens, scale]
    exported = export_network(network, tmp_path / f"network{suffix}", example)
    assert list(shapes(exported.inputs)) == (["tokens", "shift", "scale"] if by_name else ["tokens", "scale"])
    assert exported.inputs[0].dtype == "int64"
    assert exported.relative < 1e-5
    if suffix == ".pt2":
        program = torch.export.load(exported.path).module()
        found = program(**example) if by_name else program(*example)
        assert torch.equal(found, network(tokens, scale, shift if by_name else None))


@pytest.mark.slow
def test_a_small_transformer(suffix, tmp_path):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    network = nn.Sequential(nn.Embedding(9, 8), nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 2))
    exported = export_network(network, tmp_path / f"network{suffix}", torch.randint(9, (1, 5)))
    tokens = torch.randint(9, (4, 5))
    with torch.no_grad():
        assert part(runs(exported.path)(input=tokens)[0], network.eval()(tokens)) < 1e-5


# -- every space -----------------------------------------------------------------------------------------------------

EVERY = {name: case for name, case in SPACES.items() if not name.endswith(("restricted", "drop-path"))}
EVERY = {n: c for n, c in EVERY.items() if not n.startswith("own-") or n in ("own-example", "own-nested")}  # any module


def test_every_space_that_has_a_network_has_a_case():
    assert KINDS  # the catalogue has imported all classes
    ours = {cls for cls in concrete(Space) if cls.__module__.startswith("lightning_nas.")}
    assert not {cls for cls in ours if cls.network is not Space.network} - {type(c.space) for c in EVERY.values()}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("form", ["search", "final"])
def test_networks_of_every_space(name, form, suffix, tmp_path):
    exported = export_network(child(name, form), tmp_path / f"network{suffix}")
    assert exported.relative < 1e-5
    text = "vocabulary" in EVERY[name].inputs
    assert name.startswith("own-") or list(shapes(exported.inputs)) == (["tokens", "carry"] if text else ["images"])


# -- refusals ----------------------------------------------------------------------------------------------------------


def assert_refused(network, path, *said, **settings):
    with pytest.raises(SettingError) as caught:
        export_network(network, path, **settings)
    for words in said:
        assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda x: x.view(3, 3), "network: it cannot be written as .pt2 (Constraints violated (batch)"),
        (lambda x: x if x.sum() > 0 else -x, "data-dependent"),
        (lambda x: [x, [x]], "network: it returns a list as output_2"),
        (lambda x: x + torch.rand(3), "network: output of a batch of 1 differs in the file by"),
        (lambda x: x / 0 * 0, "differs in the file by nan"),
        (lambda x: 1 / 0, "division by zero"),
    ],
    ids=["of one size", "that branches", "nested outputs", "that is random", "not finite", "that raises"],
)
def test_a_network_that_a_file_cannot_have(made, said, tmp_path, capfd):
    assert_refused(Linear(made), tmp_path / "network.pt2", said, example=torch.randn(2, 4))
    assert not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "")


def test_a_file_that_computes_something_else_is_not_kept(suffix, tmp_path):
    path = tmp_path / f"network{suffix}"
    path.write_text("what was there")
    network = Linear(lambda x: x)
    write = type(FORMATS[suffix]).content

    def spoilt(*given):
        content = write(*given)
        network.layer.weight.data.mul_(1.001)
        return content

    with patch.object(type(FORMATS[suffix]), "content", spoilt):
        assert_refused(network, path, "output of a batch of 1 differs in the file by", example=torch.randn(1, 4))
    assert path.read_text() == "what was there"
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_is_refused_at_the_door(tmp_path):
    x = torch.randn(2, 4)
    linear = Linear(lambda x: x)
    case = SPACES["nas-bench-201"]
    supernet = case.space.network(case.inputs, form="final", **case.settings)
    there = tmp_path / "network.pt2"
    assert_refused(linear, tmp_path / "network.txt", "network.txt: a file that ends in .onnx or .pt2", example=x)
    assert_refused(linear, tmp_path / "network", ".onnx or .pt2", example=x)
    assert_refused(linear, tmp_path / "none" / "network.pt2", "cannot be written", "No such file", example=x)
    assert_refused(supernet, there, "network: it has 15,625 architectures to choose from", "space.restrict")
    assert_refused(linear, there, "example: a tensor that Linear reads")
    assert_refused(linear, there, "example: tensors whose first dimension is the batch, got ()", example=x.sum())
    assert_refused(linear, there, "example: tensors whose first dimension is the batch, got (0, 4)", example=x[:0])
    assert_refused(linear, there, "example: the same number of examples", example={"x": x, "y": x[:1]})
    assert_refused(linear, there, "example: forward of Linear has 1 argument", "got 2", example=[x, x])
    assert_refused(child("darts-rnn"), there, "example: numbers of words (T, N), got (2, 4)", example=x)
    assert_refused(linear, there, "opset: .onnx files alone", example=x, opset=20)
    assert_refused(linear, there, "batch_size: at least 1", example=x, batch_size=0)
    assert_refused(linear, there, "latency_runs: 0 or more", example=x, latency_runs=-1)
    assert_refused(built().to("meta"), there, "network: it cannot be written as .pt2")
    assert not list(tmp_path.iterdir())
    (tmp_path / "folder.pt2").mkdir()
    assert_refused(linear, tmp_path / "folder.pt2", "it is a folder", example=x)


@pytest.mark.parametrize("opset", [17, 99])
def test_an_opset_that_is_not_there(opset, tmp_path):
    pytest.importorskip("onnxruntime", reason=EXTRA)
    path = tmp_path / "network.onnx"
    assert_refused(
        Linear(lambda x: x), path, "opset: from 18 to ", f"got {opset}", example=torch.randn(1, 4), opset=opset
    )


@pytest.mark.parametrize("missing", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_a_line_says_what_to_install(missing, tmp_path):
    for there in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(there, reason=EXTRA)
    with patch.dict("sys.modules", {missing: None}):
        said = f"needs {missing}, which is not installed; pip install 'lightning_nas[export]'"
        assert_refused(Linear(lambda x: x), tmp_path / "network.onnx", said, example=torch.randn(1, 4))
        export_network(Linear(lambda x: x), tmp_path / "network.pt2", torch.randn(1, 4))  # PyTorch alone
