"""The fused step against the two convolutions that it stands for, its gradients of both orders, and phases."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nas.operations.depthwise import Phases, depthwise_pointwise, from_phases, phases


def plain(x: Tensor, depthwise: Tensor, pointwise: Tensor, stride: int) -> Tensor:
    between = F.conv2d(x, depthwise, None, stride, depthwise.shape[-1] // 2, groups=len(depthwise))
    return F.conv2d(between, pointwise)


def tensors(kernel: int, size: tuple[int, int] = (6, 9), dtype: torch.dtype = torch.float64) -> list[Tensor]:
    """An input and both weights; 3 channels to 4."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=dtype).contiguous(memory_format=torch.channels_last)
    return [x, torch.randn(3, 1, kernel, kernel, dtype=dtype), torch.randn(4, 3, 1, 1, dtype=dtype)]


SIZES = pytest.mark.parametrize("size", [(6, 9), (1, 1), (2, 3), (8, 2)], ids=lambda size: "x".join(map(str, size)))
KERNELS = pytest.mark.parametrize("kernel", [1, 3, 5, 7])
STRIDES = pytest.mark.parametrize("stride", [1, 2])


@SIZES
@STRIDES
@KERNELS
def test_values_and_gradients_are_those_of_two_convolutions(kernel: int, stride: int, size: tuple[int, int]) -> None:
    given = [tensor.requires_grad_() for tensor in tensors(kernel, size)]
    fused, reference = depthwise_pointwise(*given, stride), plain(*given, stride)
    torch.testing.assert_close(fused, reference, rtol=0, atol=1e-12)
    gradient = torch.randn_like(reference)
    for a, b in zip(*(torch.autograd.grad(out, given, gradient) for out in (fused, reference)), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "learning", ["x", "depthwise", "pointwise", "x depthwise", "x pointwise", "depthwise pointwise"]
)
def test_only_gradients_that_are_read_are_computed(learning: str) -> None:
    names = ["x", "depthwise", "pointwise"]
    given = [t.requires_grad_(n in learning.split()) for n, t in zip(names, tensors(5), strict=True)]
    wanted = [tensor for tensor in given if tensor.requires_grad]
    fused, reference = depthwise_pointwise(*given, 1), plain(*given, 1)
    if learning == "x":  # whose gradient needs no x
        assert fused.grad_fn.saved_tensors[0] is None  # type: ignore[union-attr]
    for a, b in zip(*(torch.autograd.grad(out.square().sum(), wanted) for out in (fused, reference)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kernel", [3, 5])
@STRIDES
def test_it_can_be_differentiated_twice(kernel: int, stride: int) -> None:
    given = [tensor.requires_grad_() for tensor in tensors(kernel, (4, 5))]
    assert torch.autograd.gradgradcheck(lambda *g: depthwise_pointwise(*g, stride), given)


def test_autocast() -> None:
    given = [tensor.requires_grad_() for tensor in tensors(3, dtype=torch.float32)]
    with torch.autocast("cpu", torch.bfloat16):
        fused, reference = depthwise_pointwise(*given, 1), plain(*given, 1)
    assert fused.dtype == reference.dtype == torch.bfloat16
    assert torch.equal(fused, reference)
    for a, b in zip(*(torch.autograd.grad(out.float().sum(), given) for out in (fused, reference)), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.05)


def test_what_lies_between_is_not_kept() -> None:
    """Saved for the backward pass are the input and the weights, and nothing else."""
    given = [tensor.requires_grad_() for tensor in tensors(3)]
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor):
        depthwise_pointwise(*given, 1)
    assert sorted(tensor.data_ptr() for tensor in saved) == sorted(tensor.data_ptr() for tensor in given)


# -- phases ----------------------------------------------------------------------------------------------------------


def test_phases_are_even_and_odd_rows_and_columns() -> None:
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    parts = phases(x)
    assert parts is not None
    quarters = [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]
    assert torch.equal(parts.x, torch.stack(quarters, 1).flatten(0, 1))
    assert torch.equal(from_phases(parts), x)


@pytest.mark.parametrize("size", [(3, 4), (4, 3), (1, 1)])
def test_odd_sizes_have_no_phases(size: tuple[int, int]) -> None:
    assert phases(torch.zeros(1, 1, *size)) is None


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_dilated_convolution_is_an_ordinary_one_on_phases(kernel: int) -> None:
    x, depthwise, pointwise = tensors(kernel, (6, 8))
    parts = phases(x)
    assert parts is not None
    fused = from_phases(Phases(depthwise_pointwise(parts.x, depthwise, pointwise)))
    between = F.conv2d(x, depthwise, None, 1, kernel - 1, dilation=2, groups=3)
    torch.testing.assert_close(fused, F.conv2d(between, pointwise), rtol=0, atol=1e-12)
