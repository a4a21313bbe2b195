"""The fused depthwise step on an accelerator against the two convolutions that it stands for."""

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.operations.depthwise import Phases, depthwise_pointwise, from_phases, phases

pytestmark = pytest.mark.gpu

DTYPES = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)], ids=["float32", "float64"]
)
"""Tolerances are relative to the largest number of a tensor."""


def given(device, dtype, layout, kernel, size):
    """An input and both weights; 12 channels to 8."""
    torch.manual_seed(0)
    x, depthwise, pointwise = torch.randn(4, 12, *size), torch.randn(12, 1, kernel, kernel), torch.randn(8, 12, 1, 1)
    x = x.to(device, dtype).contiguous(memory_format=layout)
    return [tensor.requires_grad_() for tensor in (x, depthwise.to(device, dtype), pointwise.to(device, dtype))]


def assert_near(found, expected, tolerance):
    assert found.shape == expected.shape
    assert found.dtype == expected.dtype
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


def assert_same_step(tensors, fused, reference, tolerance):
    assert_near(fused, reference, tolerance)
    gradient = torch.randn(reference.shape, generator=torch.Generator().manual_seed(1)).to(reference)
    both = (torch.autograd.grad(out, tensors, gradient) for out in (fused, reference))
    for found, expected in zip(*both, strict=True):
        assert_near(found, expected, tolerance)


@DTYPES
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["channels-last", "contiguous"])
@pytest.mark.parametrize("size", [(16, 16), (7, 10), (1, 1)], ids=["16x16", "7x10", "1x1"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_values_and_gradients(kernel, stride, size, layout, dtype, tolerance, device):
    tensors = x, depthwise, pointwise = given(device, dtype, layout, kernel, size)
    between = F.conv2d(x, depthwise, None, stride, kernel // 2, groups=12)
    assert_same_step(tensors, depthwise_pointwise(*tensors, stride), F.conv2d(between, pointwise), tolerance)


@DTYPES
@pytest.mark.parametrize("kernel", [3, 5])
def test_on_phases_it_is_a_dilated_convolution(kernel, dtype, tolerance, device):
    tensors = x, depthwise, pointwise = given(device, dtype, torch.channels_last, kernel, (8, 12))
    fused = from_phases(Phases(depthwise_pointwise(phases(x).x, depthwise, pointwise)))
    between = F.conv2d(x, depthwise, None, 1, kernel - 1, dilation=2, groups=12)
    assert_same_step(tensors, fused, F.conv2d(between, pointwise), tolerance)


@pytest.mark.parametrize("stride", [1, 2])
def test_it_can_be_differentiated_twice(stride, device):
    torch.manual_seed(0)
    shapes = (1, 2, 4, 5), (2, 1, 3, 3), (3, 2, 1, 1)
    tensors = [torch.randn(shape, dtype=torch.float64).to(device).requires_grad_() for shape in shapes]
    assert torch.autograd.gradgradcheck(
        lambda *each: depthwise_pointwise(*each, stride), tensors, nondet_tol=1e-10, fast_mode=True
    )


def test_autocast(device):
    tensors = x, depthwise, pointwise = given(device, torch.float32, torch.channels_last, 3, (8, 8))
    with torch.autocast(device.type, torch.bfloat16):
        fused = depthwise_pointwise(*tensors)
        reference = F.conv2d(F.conv2d(x, depthwise, None, 1, 1, groups=12), pointwise)
    assert fused.dtype == torch.bfloat16
    assert_near(fused, reference, 0.02)  # kernels may round what lies between differently, to eight bits
    both = (torch.autograd.grad(out.float().sum(), tensors) for out in (fused, reference))
    for found, expected in zip(*both, strict=True):
        assert_near(found, expected, 0.02)
