"""SPOS's space: its size, the costs of its networks at 224×224, and its blocks against a plain reading."""

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.costs.profile import count_parameters, profile
from lightning_nas.errors import SettingError
from lightning_nas.spaces import PUBLISHED, ShuffleBlocks

IMAGENET = {"channels": 3, "image_size": 224, "num_classes": 1000}
SMALL = {"channels": 1, "image_size": 8, "num_classes": 5}
SCALES = (0.2, 0.4, 0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8, 2.0)


def tiny(**settings):
    return ShuffleBlocks(
        **{"first": 4, "widths": (8, 12), "blocks": (2, 2), "strides": (1, 2), "stem_stride": 1, "last": 7} | settings
    )


def costs(space, architecture):
    """The parameters without those of BatchNorm, the parameters, the multiply-adds."""
    child = space.restrict(architecture)
    with torch.device("meta"):
        network = child.network(IMAGENET, form="final")
        measured = profile(network, network.example())
        return count_parameters(child.network(IMAGENET)), measured.n_params, measured.multiply_adds


def test_the_space_has_the_papers_size():
    assert ShuffleBlocks().size == 4**20
    assert ShuffleBlocks(scales=SCALES).size == 4**20 * 10**20


def test_the_supernet_has_as_many_weights_as_the_released_one():
    with torch.device("meta"):
        assert count_parameters(ShuffleBlocks().network(IMAGENET)) == 8_388_176


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 " * 20, (3_132_448, 3_154_880, 295_842_496)),
        ("1 " * 20, (3_189_536, 3_211_968, 313_654_976)),
        ("2 " * 20, (3_275_168, 3_297_600, 340_373_696)),
        ("3 " * 20, (3_830_400, 3_870_816, 358_825_920)),
        ("0 0 3 1 1 1 0 0 2 0 2 1 1 0 2 0 2 1 3 2", (3_320_544, 3_345_088, 318_729_024)),
        ("2 1 0 1 2 0 2 0 2 0 2 3 0 0 0 0 3 2 3 3", (3_529_312, 3_558_464, 322_918_720)),
    ],
)
def test_the_costs_of_networks(text, expected):
    space = ShuffleBlocks()
    assert costs(space, space.from_genotype(text)) == expected


def test_published_networks_are_read():
    space, architecture, _ = PUBLISHED["spos_channels"].build()
    described = space.describe(architecture)
    assert described.startswith("shuffle_3x3:140% shuffle_3x3:120% shuffle_x:80% shuffle_5x5:120% | shuffle_5x5:60%")
    assert space.from_genotype(described) == architecture
    graph = space.graph(architecture)["network"]
    assert graph.edges[:2] == (("stem", "1", "shuffle_3x3 140%"), ("1", "2", "shuffle_3x3 120%"))


def test_scales_are_values_that_cannot_be_mixed():
    space = tiny(scales=(0.5, 1, 1.5))
    scale = space.choices[1]
    assert (scale.name, scale.options, scale.values) == ("scale_1", ("50%", "100%", "150%"), (0.5, 1, 1.5))
    assert "scale_1" in space.no_relaxation
    assert space.restrict({f"scale_{k}": "50%" for k in range(1, 5)}).no_relaxation == ""
    assert tiny().no_relaxation == ""
    assert len(space.encode((0,) * 8)) == 4 * (4 + 1)


def test_the_width_of_the_middle_is_that_of_the_released_code():
    """int(out / 2 · scale) in exact arithmetic, where the nearest floats would lose a channel."""
    space = ShuffleBlocks(scales=SCALES)
    with torch.device("meta"):
        layers = space.network(IMAGENET).layers
    tenths = dict(zip(space.choices[1].options, range(2, 21, 2), strict=True))
    for number, out in ((1, 64), (5, 160), (9, 320), (17, 640)):
        assert layers[f"block_{number}"].middles == {o: out // 2 * k // 10 for o, k in tenths.items()}


def normalised(x):
    mean, variance = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def plain_main(block, x, middle, xception):
    """The main branch by its weights, channel by channel where it is depthwise, normalised by the batch."""
    weights = [module.weight for module in block.main if isinstance(module, torch.nn.Conv2d)]
    stride = max(module.stride[0] for module in block.main if isinstance(module, torch.nn.Conv2d))
    depthwise = (0, 2, 4) if xception else (1,)
    for k, weight in enumerate(weights):
        if k in depthwise:
            step = stride if k == depthwise[0] else 1
            channels = [
                F.conv2d(x[:, c : c + 1], weight[c : c + 1], stride=step, padding=weight.shape[-1] // 2)
                for c in range(x.shape[1])
            ]
            x = normalised(torch.cat(channels, 1))
        else:
            made = len(weight) if k == len(weights) - 1 else middle
            x = normalised(torch.einsum("oi,nihw->nohw", weight[:made, : x.shape[1], 0, 0], x)).relu()
    return x


@pytest.mark.parametrize("option", ["shuffle_3x3", "shuffle_7x7", "shuffle_x"])
@pytest.mark.parametrize("scale", ["50%", "150%"])
def test_a_block_by_its_weights(option, scale):
    space = tiny(scales=(0.5, 1.0, 1.5)).restrict({f"scale_{k}": [scale, "150%"] for k in range(1, 5)})
    network = space.network(SMALL).double()
    names = {c.name: scale if c.kind == "value" else option for c in space.choices}
    resolved = space.resolve(space.gates(space.from_names(names)))
    x = torch.randn(3, 4, 8, 8, dtype=torch.float64)
    for number, out in ((1, 8), (2, 8), (3, 12), (4, 12)):
        block = network.layers[f"block_{number}"].operations[option]
        middle = out // 4 if scale == "50%" else 3 * out // 4
        if number in (1, 3):
            beside = block.beside
            kernel, strided = beside[0].weight, beside[0].stride
            left = F.conv2d(x, kernel, None, strided, kernel.shape[-1] // 2, 1, len(kernel))
            left = normalised(torch.einsum("oi,nihw->nohw", beside[2].weight[..., 0, 0], normalised(left))).relu()
            right = plain_main(block, x, middle, option == "shuffle_x")
        else:
            left, right = x[:, 0::2], plain_main(block, x[:, 1::2], middle, option == "shuffle_x")
        x = network.layers[f"block_{number}"](x, resolved, 0.0)
        torch.testing.assert_close(x, torch.cat([left, right], 1))


def test_drop_path_keeps_what_is_passed_on():
    space = tiny(operations=["shuffle_3x3"])
    layer = space.network(SMALL).train().layers["block_2"]
    x = torch.randn(64, 8, 4, 4)
    torch.manual_seed(0)
    out = layer(x, space.resolve(None), 0.5)
    assert torch.equal(out[:, :4], x[:, ::2])
    assert 16 <= (out[:, 4:] == 0).flatten(1).all(1).sum() <= 48


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"widths": (8, 13)}, "widths: even, and each larger than the one before, got"),
        ({"widths": (8, 8)}, "widths: even, and each larger"),
        ({"first": 0}, "widths: each 1 or more"),
        ({"strides": (1, 2, 2)}, "one number for each stage, got 2, 2 and 3"),
        ({"operations": []}, "operations: some of shuffle_3x3"),
        ({"scales": ()}, "scales: at least one"),
        ({"scales": (1.0, 1.0)}, "scales: at least one, all different"),
        ({"scales": (1.0, -1.0)}, "scales: at least one, all different and from above 0"),
        ({"scales": (0.2, 1.0)}, "scales: the smallest, 0.2, leaves no channel in a block 8 wide"),
    ],
)
def test_wrong_settings_are_named(wrong, message):
    with pytest.raises(SettingError, match=message):
        tiny(**wrong)
