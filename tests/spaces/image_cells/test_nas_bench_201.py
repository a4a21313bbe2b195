"""NAS-Bench-201 against its paper: counts, strings, and a slow plain forward pass."""

from random import Random

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.errors import SettingError
from lightning_nas.spaces import NASBench201
from lightning_nas.spaces.cells import Drops

CIFAR = {"channels": 3, "image_size": 32, "num_classes": 10}
SMALL = {"channels": 3, "image_size": 8, "num_classes": 5}


def uniform(operation):
    return f"|{operation}~0|+|{operation}~0|{operation}~1|+|{operation}~0|{operation}~1|{operation}~2|"


def child(text, inputs=CIFAR, **settings):
    space = NASBench201()
    return space.restrict(space.from_string(text)).network(inputs, form="final", **settings)


@pytest.mark.parametrize(
    ("operation", "n_params"), [("nor_conv_3x3", 1_531_546), ("skip_connect", 73_306), ("avg_pool_3x3", 73_306)]
)
def test_parameters(operation, n_params):
    with torch.device("meta"):
        assert sum(p.numel() for p in child(uniform(operation)).parameters()) == n_params


def test_size():
    assert NASBench201().size == 15_625


def test_the_benchmarks_strings_are_read_and_written():
    space = NASBench201()
    text = "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_1x1~1|nor_conv_3x3~2|"
    architecture = space.from_string(text)
    assert space.to_names(architecture) == {
        "0->1": "nor_conv_3x3",
        "0->2": "none",
        "1->2": "avg_pool_3x3",
        "0->3": "skip_connect",
        "1->3": "nor_conv_1x1",
        "2->3": "nor_conv_3x3",
    }
    rng = Random(0)
    for drawn in [architecture, *(space.random(rng) for _ in range(50))]:
        assert space.from_string(space.describe(drawn)) == drawn
    graph = space.graph(architecture)["cell"]
    assert graph.nodes == ("input", "1", "2", "output")  # nothing flows into the third of them
    assert graph.edges == (
        ("input", "1", "nor_conv_3x3"),
        ("1", "2", "avg_pool_3x3"),
        ("input", "output", "skip_connect"),
        ("1", "output", "nor_conv_1x1"),
        ("2", "output", "nor_conv_3x3"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "darts_v2",
        uniform("none") + "|none~0|",
        uniform("none").replace("~1", "~0"),
        uniform("none").replace("none~2", "none~1"),
        uniform("conv_9x9"),
        uniform("none")[1:],
        uniform("none").partition("+")[2],
    ],
)
def test_other_strings_are_refused(text):
    with pytest.raises(SettingError):
        NASBench201().from_string(text)


def test_an_unknown_operation_or_size_is_refused():
    with pytest.raises(SettingError, match=r"operations"):
        NASBench201(["conv"])
    for settings in ({"channels": 0}, {"cells": 0}):
        with pytest.raises(SettingError, match=r"network\.channels and network\.cells"):
            NASBench201().network(SMALL, **settings)
    with pytest.raises(SettingError, match="form"):
        NASBench201().network(SMALL, form="finall")


def test_the_network_is_the_papers():
    """Five cells of one edge each: what a plain reading of the paper gives with the same weights."""
    network = child("|nor_conv_3x3~0|+|none~0|none~1|+|avg_pool_3x3~0|skip_connect~1|none~2|", SMALL, channels=2)
    network = network.double().eval()
    w = {name: value.normal_(0, 0.3) for name, value in network.state_dict().items() if value.is_floating_point()}
    for name, value in w.items():
        if name.endswith("running_var"):
            value.abs_().add_(0.5)

    def norm(x, name):
        statistics = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        return F.batch_norm(x, *statistics, w[f"{name}.weight"], w[f"{name}.bias"])

    images = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    x = norm(F.conv2d(images, w["stem.0.weight"], padding=1), "stem.1")
    for k in range(3):
        if k:
            body, shortcut = f"reductions.{k - 1}.body", f"reductions.{k - 1}.shortcut"
            y = norm(F.conv2d(F.relu(x), w[f"{body}.1.weight"], stride=2, padding=1), f"{body}.2")
            y = norm(F.conv2d(F.relu(y), w[f"{body}.4.weight"], padding=1), f"{body}.5")
            x = y + F.conv2d(F.avg_pool2d(x, 2, ceil_mode=True), w[f"{shortcut}.1.weight"])
        for cell in range(5):
            body = f"stacks.{k}.{cell}.candidates.bodies.0->1/nor_conv_3x3"
            one = norm(F.conv2d(F.relu(x), w[f"{body}.0.weight"], padding=1), f"{body}.1")
            x = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) + one
    features = F.relu(norm(x, "head.0")).mean((2, 3))
    expected = F.linear(features, w["classifier.weight"], w["classifier.bias"])
    torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-12)


def test_a_cell_through_which_nothing_flows_gives_zeros():
    network = child(uniform("none"), SMALL, channels=2, cells=1).eval()
    x = network.stem(torch.randn(2, 3, 8, 8))
    (*_, out) = network.stacks[0][0]([x], network.space.resolve(None), Drops())
    assert out.shape == x.shape
    assert not out.any()
