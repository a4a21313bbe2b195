"""Narrow layers are slices of wide ones: outputs, gradients and running averages."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_nas.operations.elastic import ElasticConv2d
from lightning_nas.operations.normalization import BatchNorm, recalibrated


def narrow_of(wide, channels_in, channels_out):
    depthwise = wide.groups > 1
    narrow = nn.Conv2d(
        channels_in, channels_out, wide.kernel_size, wide.stride, wide.padding, wide.dilation,
        channels_in if depthwise else 1, bias=False, dtype=torch.float64,
    )  # fmt: skip
    with torch.no_grad():
        narrow.weight.copy_(wide.weight[:channels_out, : 1 if depthwise else channels_in])
    return narrow


@pytest.mark.parametrize(
    ("wide", "channels_in", "channels_out"),
    [
        (ElasticConv2d(6, 8, 1, bias=False), 4, 5),
        (ElasticConv2d(6, 8, 3, 2, 1, bias=False), 6, 3),
        (ElasticConv2d(6, 8, 1, bias=False), 6, 8),
        (ElasticConv2d(6, 6, 5, 2, 2, groups=6, bias=False), 4, 4),
        (ElasticConv2d(6, 6, 3, 1, 1, groups=6, bias=False), 1, 1),
    ],
)
def test_a_narrow_convolution_is_the_first_part_of_the_wide_one(wide, channels_in, channels_out):
    wide = wide.double()
    narrow = narrow_of(wide, channels_in, channels_out)
    x = torch.randn(2, channels_in, 7, 7, dtype=torch.float64)
    out = wide(x) if wide.groups > 1 else wide(x, channels_out)
    direction = torch.randn_like(out)
    assert torch.equal(out, narrow(x))
    (of_wide,) = torch.autograd.grad(out, wide.weight, direction)
    (of_narrow,) = torch.autograd.grad(narrow(x), narrow.weight, direction)
    part = (slice(channels_out), slice(narrow.weight.shape[1]))
    torch.testing.assert_close(of_wide[part], of_narrow)
    assert of_wide.abs().sum() == of_wide[part].abs().sum()


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_a_narrow_batch_norm_uses_the_first_features(affine, weighted, train):
    wide, narrow = BatchNorm(5, affine=affine).double().train(train), BatchNorm(3, affine=affine).double().train(train)
    for value in wide.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.5, 1.5)
    narrow.load_state_dict({name: value[:3] if value.dim() else value for name, value in wide.state_dict().items()})
    before = {name: value.clone() for name, value in wide.state_dict().items()}
    x, weight = torch.randn(4, 3, 2, 2, dtype=torch.float64), torch.tensor(0.3).double() if weighted else None
    torch.testing.assert_close(wide(x, weight), narrow(x, weight), rtol=0, atol=1e-15)
    for name, value in narrow.state_dict().items():
        torch.testing.assert_close(wide.state_dict()[name][:3] if value.dim() else wide.state_dict()[name], value)
        assert torch.equal(wide.state_dict()[name][3:], before[name][3:]) if value.dim() else True
    assert wide.num_batches_tracked == int(train)


def test_recalibration_of_a_narrow_batch_norm_gives_the_plain_means():
    norm = BatchNorm(4).double()
    batches = [torch.randn(6, 2, 3, 3, dtype=torch.float64) for _ in range(3)]
    with recalibrated(norm, norm, batches):
        torch.testing.assert_close(norm.running_mean[:2], torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0))
        assert norm.running_mean[2:].tolist() == [0.0, 0.0]
    assert norm.running_mean.tolist() == [0.0] * 4


def test_more_channels_than_features_are_refused():
    with pytest.raises(RuntimeError):
        BatchNorm(2)(torch.randn(2, 3, 2, 2))
    with pytest.raises(RuntimeError):
        ElasticConv2d(2, 2, 1, bias=False)(torch.randn(2, 3, 2, 2), 1)


def test_a_whole_convolution_is_pytorchs():
    layer = ElasticConv2d(3, 4, 3, padding=1, bias=False)
    x = torch.randn(2, 3, 5, 5)
    assert torch.equal(layer(x), F.conv2d(x, layer.weight, padding=1))
