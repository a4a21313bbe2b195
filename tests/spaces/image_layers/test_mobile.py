"""ProxylessNAS's space: its size, the costs of its networks at 224×224, and its blocks against a plain reading."""

from random import Random

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.costs.profile import count_parameters, profile
from lightning_nas.errors import SettingError
from lightning_nas.spaces import PUBLISHED, ProxylessMobile

IMAGENET = {"channels": 3, "image_size": 224, "num_classes": 1000}
SMALL = {"channels": 1, "image_size": 8, "num_classes": 5}


def tiny(**settings):
    return ProxylessMobile(
        **{"first": (4, 3), "widths": (3, 5), "blocks": (2, 2), "strides": (1, 2), "stem_stride": 1, "last": 7}
        | settings
    )


def costs(space, architecture):
    with torch.device("meta"):
        network = space.restrict(architecture).network(IMAGENET, form="final")
        measured = profile(network, network.example())
    return measured.n_params, measured.multiply_adds


def test_the_space_has_the_papers_size():
    """15 of the 21 blocks keep the shape and may be skipped."""
    space = ProxylessMobile()
    assert space.size == 7**15 * 6**6
    assert [len(choice.options) for choice in space.choices] == [6, 7, 7, 7] * 5 + [6]
    assert not space.no_relaxation


def test_the_supernet_has_as_many_weights_as_the_released_one():
    with torch.device("meta"):
        assert count_parameters(ProxylessMobile().network(IMAGENET)) == 16_034_168


@pytest.mark.parametrize(
    ("block", "expected"),
    [("7/6", (5_103_336, 606_590_720)), ("3/6", (4_684_776, 472_620_800)), ("3/3", (3_191_928, 257_422_208))],
)
def test_the_costs_of_uniform_networks(block, expected):
    space = ProxylessMobile()
    assert costs(space, space.from_genotype(" ".join([block] * 21))) == expected


def test_the_costs_of_a_network_of_few_blocks():
    space = ProxylessMobile()
    names = {c.name: "zero" if "zero" in c.options else "mbconv3_3x3" for c in space.choices}
    assert costs(space, space.from_names(names)) == (2_154_984, 102_528_896)


def test_published_networks_are_read():
    space, architecture, citation = PUBLISHED["proxyless_gpu"].build()
    assert space.describe(architecture).startswith("mbconv3_5x5 zero zero zero | mbconv3_7x7 zero zero mbconv3_3x3 |")
    assert space.from_genotype(space.describe(architecture)) == architecture
    assert "GPU (Cai et al. 2019)" in citation


def test_the_graph_is_a_chain():
    space = tiny()
    graph = space.graph(space.from_genotype("z 3/3 | 7/6 z"))["network"]
    assert graph.nodes == ("stem", "1", "2", "3", "4", "output")
    assert graph.edges == (
        ("stem", "1", "zero"),
        ("1", "2", "mbconv3_3x3"),
        ("2", "3", "mbconv6_7x7"),
        ("3", "4", "zero"),
        ("4", "output", ""),
    )


def block(state, name, x, kernel, stride):
    """An MBConv by its weights, in evaluation mode."""

    def norm(x, prefix):
        part = [state[f"{prefix}.{which}"] for which in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *part, eps=1e-3)

    middle = norm(F.conv2d(x, state[f"{name}.0.0.weight"]), f"{name}.0.1").clamp(0, 6)
    depthwise = state[f"{name}.1.0.weight"]
    middle = F.conv2d(middle, depthwise, stride=stride, padding=kernel // 2, groups=len(depthwise))
    middle = norm(middle, f"{name}.1.1").clamp(0, 6)
    return norm(F.conv2d(middle, state[f"{name}.2.weight"]), f"{name}.3")


def test_a_block_under_weights_is_its_shortcut_and_the_weighted_operations():
    space = tiny(operations=["mbconv3_3x3", "mbconv6_7x7"])
    network = space.network(SMALL).double().eval()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5) if name.endswith("var") else value.normal_()
    state = network.state_dict()
    gates = {choice.name: torch.rand(len(choice.options)).double() for choice in space.choices}
    x = network.stem(torch.randn(2, 1, 8, 8).double())
    resolved = space.resolve(gates)
    for choice, stride in zip(space.choices, (1, 1, 2, 1), strict=True):
        name = f"layers.{choice.name}.operations"
        weights = dict(zip(choice.options, gates[choice.name], strict=True))
        expected = weights["mbconv3_3x3"] * block(state, f"{name}.mbconv3_3x3", x, 3, stride)
        expected = expected + weights["mbconv6_7x7"] * block(state, f"{name}.mbconv6_7x7", x, 7, stride)
        x, before = network.layers[choice.name](x, resolved, 0.0), x
        assert ("zero" in choice.options) == (before.shape == x.shape)
        torch.testing.assert_close(x, expected + before if "zero" in choice.options else expected)


def test_a_block_that_may_not_be_skipped_gives_zeros_where_nothing_runs():
    space = tiny()
    network = space.network(SMALL).eval()
    gates = space.one_hot(space.random(Random(0)))
    gates["block_3"].zero_()
    out = network.layers["block_3"](torch.randn(2, 3, 8, 8), space.resolve(gates), 0.0)
    assert out.shape == (2, 5, 4, 4)
    assert not out.any()


def test_drop_path_drops_what_is_beside_a_shortcut_alone():
    space = tiny()
    part = space.restrict(space.from_genotype("3/3 3/3 | 3/3 3/3"))
    network = part.network(SMALL).train()
    x = torch.randn(64, 3, 8, 8)
    resolved = part.resolve(None)
    torch.manual_seed(0)
    passed = (network.layers["block_1"](x, resolved, 0.5) == x).flatten(1).all(1)
    assert 16 <= passed.sum() <= 48
    out = network.layers["block_3"](x, resolved, 0.5)  # has no shortcut
    assert out.flatten(1).any(1).all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first": (4,)}, "first: two widths"),
        ({"widths": (3,)}, "widths, blocks, strides: one number for each stage, got 1, 2 and 2"),
        ({"widths": (3, 0)}, "widths: each 1 or more"),
        ({"blocks": (2, 0)}, "blocks: each 1 or more"),
        ({"strides": (1, 3)}, "strides: each 1 or 2"),
        ({"stem_stride": 4}, "stem_stride: 1 or 2"),
        ({"last": 0}, "last: 1 or more"),
        ({"operations": ["mbconv3_3x3", "zero"]}, "operations: some of mbconv3_3x3, mbconv6_3x3"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(SettingError, match=message):
        tiny(**wrong)


def test_wrong_settings_of_the_network_are_named():
    with pytest.raises(SettingError, match=r"network\.dropout: at least 0"):
        tiny().network(SMALL, dropout=1.0)
    with pytest.raises(SettingError, match="form: search or final"):
        tiny().network(SMALL, form="train")
    with pytest.raises(SettingError, match=r"inputs\.channels: missing"):
        tiny().network({"vocabulary": 10})


@pytest.mark.parametrize(
    ("text", "message"),
    [("3/3 3/3 | 3/3", "expected 4 operations"), ("3/3 3/3 | z z", "no option 'zero'"), ("3/3 a:b | 3/3 z", "block 2")],
)
def test_a_wrong_genotype_is_refused(text, message):
    with pytest.raises(SettingError, match=message):
        tiny().from_genotype(text)
