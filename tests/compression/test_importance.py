"""Channels in the order of their importance: another order of the same network."""

import gc

import pytest
import torch
import torchvision
from torch import nn

from lightning_nas import (
    LayerChoice,
    RepeatChoice,
    SettingError,
    Space,
    ValueChoice,
    choose_widths,
    freeze,
    order_by_importance,
)
from lightning_nas.spaces.own.source import _TEMPLATES
from tests.compression.test_widths import Residual, mobilenet, resnet18, small, with_own_statistics


@pytest.mark.parametrize("importance", ["filters", "scales"])
@pytest.mark.parametrize("make", [small, resnet18, mobilenet])
def test_the_network_computes_what_it_did(make, importance):
    torch.manual_seed(0)
    net = with_own_statistics(make()).double().eval()
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    expected, before = net(images), {name: p.clone() for name, p in net.named_parameters()}
    choose_widths(net, [0.5])
    found = order_by_importance(net, images, importance)
    widest = {choice.name: choice.options[-1] for choice in Space.of(net).choices}
    torch.testing.assert_close(freeze(net, widest)(images), expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
    assert all(each == sorted(each, reverse=True) for each in found.values())
    changed = [name for name, p in net.named_parameters() if not torch.equal(p, before[name])]
    assert len(changed) >= len(before) - 2  # all but what only the output has


def test_the_most_important_come_first():
    net = nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([0.1, -3.0, 2.0, 0.5]).view(4, 1, 1, 1))
        net[1].weight.copy_(torch.tensor([1.0, 2.0, -4.0, 3.0]))
        net[3].weight.copy_(torch.arange(32.0).view(2, 16))
    choose_widths(net, [0.5], ["0"])
    assert order_by_importance(net, torch.randn(1, 1, 2, 2))["0"] == pytest.approx([3.0, 2.0, 0.5, 0.1])
    assert net[0].weight.flatten().tolist() == pytest.approx([-3.0, 2.0, 0.5, 0.1])
    assert net[1].weight.tolist() == [2.0, -4.0, 3.0, 1.0]
    blocks = net[3].weight[0].view(4, 4)[:, 0]  # of each channel four values of its map
    assert blocks.tolist() == [4.0, 8.0, 12.0, 0.0]
    assert order_by_importance(net, torch.randn(1, 1, 2, 2), "scales")["0"] == [4.0, 3.0, 2.0, 1.0]


def test_what_several_layers_put_out_is_important_together():
    net = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), Residual(nn.Conv2d(2, 2, 1, bias=False)), nn.Conv2d(2, 1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([2.0, 1.0]).view(2, 1, 1, 1))
        net[1].inner.weight.copy_(torch.tensor([[1.0, 1.0], [2.0, 2.0]]).view(2, 2, 1, 1))
    choose_widths(net, [0.5])
    assert order_by_importance(net, torch.randn(1, 1, 2, 2)) == {"0": [5.0, 4.0]}
    assert net[0].weight.flatten().tolist() == [1.0, 2.0]


def test_a_feed_forward_width_of_a_transformer():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    expected = layer.eval()(torch.ones(1, 3, 8))
    width = ValueChoice([4, 8, 16], "width")
    layer.linear1.out_features = layer.linear2.in_features = width
    found = order_by_importance(layer, torch.ones(1, 3, 8))
    assert found["width"] == pytest.approx(sorted(layer.linear1.weight.abs().sum(1).tolist(), reverse=True))
    torch.testing.assert_close(freeze(layer, {"width": "16"})(torch.ones(1, 3, 8)), expected)


def test_choices_of_every_kind_are_checked_and_a_smaller_choice_is_of_all_channels():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3),
        RepeatChoice([Residual(nn.Conv2d(8, 8, 1)), Residual(nn.Conv2d(8, 8, 1))], depth=[1, 2], label="depth"),
        LayerChoice({"conv": nn.Conv2d(8, 8, 3, padding=1), "none": nn.Identity()}, label="layer"),
        nn.Conv2d(8, 3, 1),
    )
    choose_widths(net, [0.5], ["0"])
    for path in ("0", "1.0.inner", "1.1.inner", "2.conv"):  # half of eight channels is the most
        net.get_submodule(path).out_channels = ValueChoice([2, 4], "0")
    for path in ("1.0.inner", "1.1.inner", "2.conv", "3"):
        net.get_submodule(path).in_channels = ValueChoice([2, 4], "0")
    assert len(order_by_importance(net, torch.randn(1, 1, 8, 8))["0"]) == 8


def odd(change):
    net = nn.Sequential(nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 2, 1))
    net[0].out_channels = net[1].in_channels = ValueChoice([4, 8], "width")
    change(net)
    return net


def in_two_groups(net):
    net[1] = nn.Conv2d(8, 8, 1, groups=2)
    net[1].in_channels = ValueChoice([4, 8], "width")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda net: net[2].__dict__.update(in_channels=ValueChoice([4, 8], "width")),
            "width: what the network puts out",
        ),
        (lambda net: net[1].__dict__.update(in_channels=8), "width: what the network puts out changes"),
        (lambda net: net[2].__dict__.update(kernel_size=(ValueChoice([4, 8], "width"), 1)), "kernel_size of 2 too"),
        (in_two_groups, "width: 1 reads its channels in 2 groups"),
        (
            lambda net: net[1].__dict__.update(in_channels=ValueChoice([4, 8], "width") - 1),
            "width: in_channels of 1 is no whole multiple",
        ),
        (
            lambda net: net[1].__dict__.update(in_channels=ValueChoice([4, 8], "width") * ValueChoice([1, 2], "other")),
            "width: in_channels of 1 is no whole multiple of it alone",
        ),
        (
            lambda net: net[1].__dict__.update(in_channels=ValueChoice([4, 8], "width") * 2),
            "width: its layers have weights for 4, 8",
        ),
    ],
)
def test_a_label_that_cannot_be_followed_is_refused_by_name_and_nothing_changes(change, reason):
    net = odd(change)
    before = {name: p.clone() for name, p in net.named_parameters()}
    with pytest.raises(SettingError, match=reason):
        order_by_importance(net, torch.randn(1, 1, 4, 4))
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_settings_are_checked():
    with pytest.raises(SettingError, match="example: a batch"):
        order_by_importance(odd(lambda net: None))
    with pytest.raises(SettingError, match="importance: filters or scales, got 'l2'"):
        order_by_importance(odd(lambda net: None), torch.randn(1, 1, 4, 4), "l2")


def test_copies_that_were_checked_are_forgotten():
    net = torchvision.models.resnet18(weights=None)
    net.layer1 = RepeatChoice(net.layer1, depth=[1, 2])
    choose_widths(net, [0.5], ["layer1.0.conv1"])
    gc.collect()
    before = len(_TEMPLATES)
    order_by_importance(net, torch.randn(1, 3, 32, 32))
    gc.collect()
    assert len(_TEMPLATES) == before
    space = Space.of(net)
    assert type(space).build(space.spec).template is net  # as long as somebody has it
