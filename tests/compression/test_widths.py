"""Widths to choose, put into a network that is there: all layers that share channels, and no others."""

import copy

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

from lightning_nas import InputChoice, LayerChoice, RepeatChoice, SettingError, Space, choose_widths, freeze
from lightning_nas.compression.channels import channels_of


def small():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.Conv2d(8, 6, 1),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.BatchNorm1d(24),
        nn.Linear(24, 12),
        nn.Linear(12, 5),
    )


def resnet18():
    return torchvision.models.resnet.ResNet(BasicBlock, [2, 2, 2, 2], num_classes=7)


def mobilenet():
    """The first layers of MobileNetV2 and its head."""
    setting = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 1]]
    return torchvision.models.mobilenet_v2(
        weights=None, num_classes=7, width_mult=0.5, inverted_residual_setting=setting
    )


def with_own_statistics(net):
    generator = torch.Generator().manual_seed(0)
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
    return net


def without_the_last(net, channels, kept):
    """The network in which nobody reads the channels from ``kept`` on: an independent account of what a cut does."""
    blind = copy.deepcopy(net)
    for path, factor in channels.readers.items():
        with torch.no_grad():
            blind.get_submodule(path).weight[:, kept * factor :] = 0
    return blind


@pytest.mark.parametrize("make", [small, resnet18, mobilenet])
def test_a_cut_is_what_is_left_where_nobody_reads_the_other_channels(make):
    torch.manual_seed(0)
    net = with_own_statistics(make()).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    free = [channels for channels in channels_of(net) if channels.fixed is None]
    assert len(free) == {small: 3, resnet18: 12, mobilenet: 8}[make]
    for channels in free[:: 1 if make is small else 3]:
        narrow, path = copy.deepcopy(net), next(iter(channels.producers))
        (label,) = choose_widths(narrow, [0.5], [path])
        half = round(0.5 * channels.width)
        frozen = freeze(narrow, {label: str(half)})
        torch.testing.assert_close(frozen(images), without_the_last(net, channels, half)(images), rtol=0, atol=1e-10)
        assert len(frozen.get_submodule(path).weight) == half


def test_all_widths_of_a_published_network():
    net = resnet18()
    labels = choose_widths(net, [0.25, 0.5])
    assert labels["layer1/0/conv1"] == ["layer1.0.bn1", "layer1.0.conv1", "layer1.0.conv2"]
    assert labels["conv1"] == [  # the stream of the first stage, with the stem
        *("bn1", "conv1", "layer1.0.bn2", "layer1.0.conv1", "layer1.0.conv2"),
        *("layer1.1.bn2", "layer1.1.conv1", "layer1.1.conv2", "layer2.0.conv1", "layer2.0.downsample.0"),
    ]
    space = Space.of(net)
    assert space.size == 3**12
    quarter = freeze(net, {label: space.choices[k].options[0] for k, label in enumerate(labels)})
    sizes = {name: tuple(p.shape) for name, p in quarter.named_parameters()}
    assert sizes["layer1.0.conv2.weight"] == (16, 16, 3, 3)
    assert sizes["layer4.0.downsample.0.weight"] == (128, 64, 1, 1)
    assert sizes["fc.weight"] == (7, 128)
    assert quarter(torch.randn(2, 3, 32, 32)).shape == (2, 7)


class Residual(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


def test_choices_that_are_there_share_the_channels_of_all_their_options():
    stem, block = nn.Conv2d(3, 8, 3), Residual(nn.Sequential(nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1)))
    plain = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    net = nn.Sequential(
        stem,
        RepeatChoice([block, Residual(nn.Conv2d(8, 8, 1))], depth=[0, 2]),
        LayerChoice({"conv": plain, "none": nn.Identity()}, label="layer"),
        nn.Conv2d(8, 5, 1),
    )
    labels = choose_widths(net, [0.5])
    inside = ["1.0.inner.0", "1.0.inner.2"]
    assert labels == {"0": ["0", *inside, "1.1.inner", "2.conv.0", "3"], "1/0/inner/0": inside}
    space, images = Space.of(net), torch.randn(1, 3, 8, 8)
    assert space.size == 2 * (1 + 2) * 2
    for architecture in space:
        assert freeze(net, architecture)(images).shape == (1, 5, 6, 6)


class Broken(nn.Module):
    def __init__(self, forward):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1, groups=2)
        self.read, self.wide, self.gain = nn.Conv2d(8, 4, 1), nn.Conv2d(16, 4, 1), nn.Parameter(torch.ones(8, 1, 1))
        self.choice = InputChoice(2, reduction="concat", n_chosen=2)
        self.turn = forward

    def forward(self, x):
        return self.turn(self, x)


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (lambda s, x: s.wide(torch.cat([s.a(x), s.b(x)], 1)), "cat may do anything"),
        (lambda s, x: s.wide(s.choice([s.a(x), s.b(x)])), "_combined may do anything"),
        (lambda s, x: s.read(s.c(s.a(x))), "c reads them in 2 groups"),
        (lambda s, x: s.read(s.a(x) * s.gain), "gain may do anything"),
        (lambda s, x: s.read(s.a(x)[:, [1, 0, 2, 3, 4, 5, 6, 7]]), "getitem may do anything"),
        (lambda s, x: s.read(s.a(x).softmax(1)), "softmax may do anything"),
        (lambda s, x: s.a(x), "the network's output"),
        (lambda s, x: s.a(x) if x.sum() > 0 else x, "cannot trace Broken"),
    ],
)
def test_what_cannot_be_followed_is_refused_by_its_name(forward, reason):
    net = Broken(forward)
    with pytest.raises(SettingError, match=reason):
        choose_widths(net, [0.5], ["a"])
    assert net.a.out_channels == net.read.in_channels == 8


def test_a_layer_that_is_called_twice_reads_the_same_channels():
    net = Broken(lambda s, x: s.read(s.a(x)) + s.read(s.b(x)))
    assert choose_widths(net, [0.5], ["b"]) == {"a": ["a", "b", "read"]}


def test_settings_are_checked():
    with pytest.raises(SettingError, match=r"shares: above 0 and at most 1, got \[2\]"):
        choose_widths(small(), [2])
    with pytest.raises(
        SettingError, match="layers: paths of convolutions and linear layers, which are 0, 4, 8, 9; got"
    ):
        choose_widths(small(), [0.5], ["1"])
    net = small()
    choose_widths(net, [0.5], ["0"])
    with pytest.raises(SettingError, match="the channels of 0 cannot be fewer: they are chosen already"):
        choose_widths(net, [0.5], ["0"])
    assert list(choose_widths(net, [0.5])) == ["4", "8"]
