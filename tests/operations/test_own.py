"""Operations of a user's own, in the tables of all spaces of cells."""

import pickle

import pytest
import torch
from torch import nn

from lightning_nas import register_operation
from lightning_nas.errors import SettingError
from lightning_nas.executors.blueprint import Blueprint
from lightning_nas.operations import NORMALIZED_POOLS, OPERATIONS, own_operations
from lightning_nas.operations.own import _BUILDERS
from lightning_nas.spaces import DARTSCell, ENASMicro, NASBench201, NASNetCell, Space
from lightning_nas.spaces.architecture_file import ArchitectureError, ArchitectureRecord, load_architecture
from lightning_nas.testing import SpaceCase, SpaceContract
from tests.helpers.own_search import Scripted

IMAGES = {"channels": 2, "image_size": 7, "num_classes": 3}


@register_operation("own_conv")
def own_conv(channels, stride, affine):
    return nn.Sequential(
        nn.Tanh(), nn.Conv2d(channels, channels, 3, stride, 1), nn.BatchNorm2d(channels, affine=affine)
    )


@register_operation("own_scale")
class Scale(nn.Module):
    """A number for each channel; no BatchNorm."""

    def __init__(self, channels, stride, affine):
        super().__init__()
        self.stride = stride
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x):
        return x[:, :, :: self.stride, :: self.stride] * self.scale


SPACES = {
    "darts": (DARTSCell(nodes=2, operations=["own_conv", "none", "max_pool_3x3"]), {"channels": 2, "cells": 3}),
    "nasnet": (NASNetCell(nodes=2, operations=["own_conv", "own_scale"]), {"channels": 2, "cells": 3}),
    "enas-micro": (
        ENASMicro(nodes=2, operations=["own_conv", "skip_connect"]),
        {"channels": 2, "layers": 1, "reduction": "strided"},
    ),
    "nas-bench-201": (NASBench201(["own_conv", "own_scale", "none"]), {"channels": 2, "cells": 1}),
}


class TestSpacesWithOwnOperations(SpaceContract):
    cases = {  # noqa: RUF012
        "nasnet": SpaceCase(*SPACES["nasnet"]),
        "darts": SpaceCase(SPACES["darts"][0], {**SPACES["darts"][1], "pool_norm": True}, drop_path=0.4),
    }


@pytest.fixture
def forgotten():
    """Takes names out of the tables, as in a process that has not imported what registers them."""
    before = dict(OPERATIONS), dict(_BUILDERS)

    def forget(*names):
        for name in names:
            del OPERATIONS[name], _BUILDERS[name]

    yield forget
    for table, content in zip((OPERATIONS, _BUILDERS), before, strict=True):
        table.clear()
        table.update(content)


@pytest.mark.parametrize("name", SPACES)
def test_every_space_of_cells_takes_it(name):
    space, settings = SPACES[name]
    network = space.network(IMAGES, form="search", **settings)
    x = torch.randn(2, 2, 7, 7)
    weights = {c.name: torch.full((len(c.options),), 1 / len(c.options)) for c in space.choices if c.relaxable}
    architecture = (
        space.from_names({choice.name: choice.options[0] for choice in space.choices})
        if (name != "darts")
        else space.derive([[1.0, 0.0, 0.0]] * len(space.choices))
    )
    for gates in (weights | {c.name: 0 for c in space.choices if not c.relaxable}, space.gates(architecture)):
        output = network(x, gates)
        output = output[0] if isinstance(output, tuple) else output
        assert output.shape == (2, 3)
    graphs = space.graph(architecture)
    assert "own_conv" in repr(graphs)
    assert "own_conv" in space.describe(architecture)


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_the_module_on_the_state_times_the_weight(stride):
    operation = OPERATIONS["own_conv"]
    view, body = operation.view(stride).build(3, stride, True), operation.body(3, stride, True)
    x = torch.randn(2, 3, 5, 5)  # with negative numbers: no ReLU before it
    result = body.module(x)
    assert torch.equal(body(view(x)), result)
    assert torch.equal(body(view(x), weight=torch.tensor(0.25)), 0.25 * result)


def test_drop_path_falls_on_it():
    network = NASBench201(["own_scale"]).network(IMAGES, form="final", channels=2, cells=1)
    x = torch.randn(8, 2, 7, 7)
    with torch.no_grad():
        network.eval()
        plain = network(x)
        dropped = network.train()(x, drop_path=0.9)
    assert not torch.allclose(plain, dropped)


def test_derived_tables_follow():
    assert NORMALIZED_POOLS["own_conv"] is OPERATIONS["own_conv"]
    assert NORMALIZED_POOLS["max_pool_3x3"] is not OPERATIONS["max_pool_3x3"]


def test_a_cell_defined_again_replaces_and_another_function_does_not(forgotten):
    source = "def again(channels, stride, affine):\n    return nn.AvgPool2d({kernel}, stride, {padding})\n"
    for kernel, padding in ((3, 1), (5, 2)):
        cell = {"nn": nn, "__name__": "notebook"}
        exec(source.format(kernel=kernel, padding=padding), cell)
        assert register_operation("again", cell["again"]) is cell["again"]
        assert OPERATIONS["again"].body(2, 1, True).module.kernel_size == kernel
    with pytest.raises(SettingError, match=r"^name: there is an operation 'again' already"):
        register_operation("again", own_conv)
    with pytest.raises(SettingError, match=r"^name: there is an operation 'skip_connect' already"):
        register_operation("skip_connect", own_conv)
    with pytest.raises(SettingError, match=r"^name: letters, digits and underscores, got 'my\.conv'"):
        register_operation("my.conv", own_conv)
    with pytest.raises(SettingError, match=r"^build: a function of \(channels, stride, affine\), got 3"):
        register_operation("three", 3)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda channels, stride, affine: torch.relu, r"operations: wrong has to build an nn\.Module"),
        (lambda channels, stride, affine: nn.ReLU(inplace=True), r"operations: wrong changes its input in place"),
        (
            lambda channels, stride, affine: nn.Conv2d(channels, channels + 1, 1),
            r"operations: wrong has to give \(2, 2, 7, 7\) at stride 1, got \(2, 3, 7, 7\)",
        ),
    ],
)
def test_a_wrong_module_is_refused(build, message, forgotten):
    register_operation("wrong", build)
    with pytest.raises(SettingError, match=message):
        NASBench201(["wrong"]).network(IMAGES, channels=2, cells=1)(torch.randn(2, 2, 7, 7))


def test_under_inference_mode():
    network = NASBench201(["own_conv"]).network(IMAGES, channels=2, cells=1).eval()
    x = torch.randn(2, 2, 7, 7)
    with torch.inference_mode():
        inferred = network(x)
    assert torch.equal(inferred, network(x))


def test_workers_learn_it(forgotten, tmp_path):
    space = NASBench201(["own_conv", "none"])
    assert own_operations(space.spec) == {"own_conv": own_conv}
    blueprint = pickle.dumps(Blueprint.of(Scripted(tmp_path), space, None, 0))
    forgotten("own_conv", "own_scale")
    assert pickle.loads(blueprint).open().space.choices == space.choices
    register_operation("local", lambda channels, stride, affine: nn.Identity())
    with pytest.raises(SettingError, match=r"^executor: workers import the classes and operations .*lambda"):
        Blueprint.of(Scripted(tmp_path), NASBench201(["local"]), None, 0)


def test_what_is_not_registered_says_what_to_do(forgotten, tmp_path):
    space = NASBench201(["own_conv", "none"])
    record = ArchitectureRecord(space, (0, 1, 0, 1, 0, 1))
    record.save(tmp_path / "architecture.json")
    assert load_architecture(tmp_path / "architecture.json").architecture == record.architecture
    forgotten("own_conv")
    with pytest.raises(ArchitectureError, match=r"no operation 'own_conv'; .*\(--import\) that calls register_operat"):
        load_architecture(tmp_path / "architecture.json")
    with pytest.raises(SettingError, match=r"^space\.operations: no operation 'own_conv'"):
        Space.build(space.spec, "space")
