"""Each operation against what the papers say: shapes, parameters, and values computed one pixel after the other."""

import itertools
import math
import os
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from lightning_nas.operations import DARTS_OPERATIONS, OPERATIONS, FactorizedReduce, Pointwise, ReLUConvBN, drop_path
from lightning_nas.operations.depthwise import Phases

NAMES = [name for name in OPERATIONS if name != "none"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def build(name: str, channels: int, stride: int, affine: bool) -> nn.Sequential:
    """View and body one after the other, as one edge would have them alone."""
    operation = OPERATIONS[name]
    assert operation is not None
    body = operation.body(channels, stride, affine)
    modules = [operation.view(stride).build(channels, stride, affine), *([] if body is None else [body])]
    return nn.Sequential(*modules).double()


def pixels(view: Tensor | Phases) -> Tensor:
    return view.x if isinstance(view, Phases) else view


def weights(module: nn.Module) -> list[Tensor]:
    """Of all convolutions, in the order in which they follow each other."""
    return [p.detach() for p in module.parameters() if p.dim() == 4]


def images(size: tuple[int, int] = (6, 6), channels: int = 4) -> Tensor:
    return torch.randn(3, channels, *size, dtype=torch.float64)


# -- textbook ones ---------------------------------------------------------------------------------------------------


def windows(x: Tensor, kernel: tuple[int, int], stride: int, dilation: int = 1) -> dict[tuple[int, int], list[tuple]]:
    """For each output pixel the (row and column in the kernel, pixel) of its window that lie within the image.

    Odd kernels are centred on every ``stride``-th pixel.
    """
    height, width = x.shape[2:]
    found: dict[tuple[int, int], list[tuple]] = {}
    for i, j in itertools.product(range(0, height, stride), range(0, width, stride)):
        inside = []
        for a, b in itertools.product(range(kernel[0]), range(kernel[1])):
            row, column = i + dilation * (a - kernel[0] // 2), j + dilation * (b - kernel[1] // 2)
            if 0 <= row < height and 0 <= column < width:
                inside.append(((a, b), x[:, :, row, column]))
        found[i // stride, j // stride] = inside
    return found


def assemble(pixels: dict[tuple[int, int], Tensor]) -> Tensor:
    height, width = (max(pixel[axis] for pixel in pixels) + 1 for axis in (0, 1))
    return torch.stack([torch.stack([pixels[i, j] for j in range(width)], -1) for i in range(height)], -2)


def convolve(x: Tensor, weight: Tensor, stride: int = 1, dilation: int = 1) -> Tensor:
    def value(inside: list[tuple]) -> Tensor:
        return sum(pixel @ weight[:, :, a, b].T for (a, b), pixel in inside)  # type: ignore[return-value]

    return assemble({at: value(w) for at, w in windows(x, tuple(weight.shape[2:]), stride, dilation).items()})


def convolve_depthwise(x: Tensor, weight: Tensor, stride: int, dilation: int = 1) -> Tensor:
    def value(inside: list[tuple]) -> Tensor:
        return sum(pixel * weight[:, 0, a, b] for (a, b), pixel in inside)  # type: ignore[return-value]

    return assemble({at: value(w) for at, w in windows(x, tuple(weight.shape[2:]), stride, dilation).items()})


def normalise(x: Tensor) -> Tensor:
    values = x.transpose(0, 1).flatten(1)
    mean, variance = values.mean(1), ((values - values.mean(1, keepdim=True)) ** 2).mean(1)
    return (x - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()


def textbook(name: str, x: Tensor, stride: int, w: list[Tensor], affine: bool) -> Tensor:
    rectified = x.clamp(min=0)
    if name == "max_pool_3x3":
        pooled = {at: torch.stack([p for _, p in inside]).amax(0) for at, inside in windows(x, (3, 3), stride).items()}
        return assemble(pooled) if affine else normalise(assemble(pooled))
    if name == "avg_pool_3x3":
        pooled = {at: torch.stack([p for _, p in inside]).mean(0) for at, inside in windows(x, (3, 3), stride).items()}
        return assemble(pooled) if affine else normalise(assemble(pooled))
    if name == "skip_connect" and stride == 1:
        return x
    if name == "skip_connect":
        height, width = x.shape[2:]
        padded = torch.zeros(*x.shape[:2], height + 1, width + 1, dtype=x.dtype)
        padded[:, :, :height, :width] = rectified
        at = [(i, j) for i in range(0, height, 2) for j in range(0, width, 2)]
        even = assemble({(i // 2, j // 2): padded[:, :, i, j] @ w[0][:, :, 0, 0].T for i, j in at})
        odd = assemble({(i // 2, j // 2): padded[:, :, i + 1, j + 1] @ w[1][:, :, 0, 0].T for i, j in at})
        return normalise(torch.cat([even, odd], 1))
    if name.startswith("sep_conv"):
        once = normalise(convolve(convolve_depthwise(rectified, w[0], stride), w[1]))
        return normalise(convolve(convolve_depthwise(once.clamp(min=0), w[2], 1), w[3]))
    if name.startswith("dil_conv"):
        return normalise(convolve(convolve_depthwise(rectified, w[0], stride, dilation=2), w[1]))
    if name.startswith("nor_conv"):
        return normalise(convolve(rectified, w[0], stride))
    if name == "conv_7x1_1x7":
        # a stride of 2 goes along the row first, then along the column
        along_rows = convolve(rectified, w[0])[:, :, :, ::stride]
        return normalise(convolve(along_rows, w[1])[:, :, ::stride])
    raise AssertionError(name)


@pytest.mark.parametrize("size", [(6, 6), (5, 7), (4, 5), (1, 1)], ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_values(name: str, stride: int, size: tuple[int, int]) -> None:
    x = images(size)
    for affine in (False, True):
        operation = build(name, 4, stride, affine)  # a new affine BatchNorm scales by 1 and shifts by 0
        out = operation(x)
        assert out.shape == (3, 4, math.ceil(size[0] / stride), math.ceil(size[1] / stride))
        torch.testing.assert_close(out, textbook(name, x, stride, weights(operation), affine), rtol=0, atol=1e-11)


def test_every_operation_is_tested() -> None:
    assert OPERATIONS["none"] is None
    assert set(DARTS_OPERATIONS) <= set(OPERATIONS)
    assert set(NAMES) == {
        *("max_pool_3x3", "avg_pool_3x3", "skip_connect"),
        *("sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5", "conv_7x1_1x7"),
        *("nor_conv_1x1", "nor_conv_3x3"),
    }


def test_the_order_of_the_darts_operations() -> None:
    """Of the released alphas, and so of their columns."""
    kinds = [name.split("_")[0] for name in DARTS_OPERATIONS]
    assert kinds == ["none", "max", "avg", "skip", "sep", "sep", "dil", "dil"]
    assert [name[-1] for name in DARTS_OPERATIONS[4:]] == ["3", "5", "3", "5"]


# -- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [2, 6, 16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("affine", [False, True], ids=["search", "final"])
def test_parameters(channels: int, stride: int, affine: bool) -> None:
    c, norm = channels, 2 * channels * affine  # scale and shift
    expected = {
        "max_pool_3x3": 0,
        "avg_pool_3x3": 0,
        "skip_connect": 0 if stride == 1 else c * c + norm,  # two 1×1 of c to c/2
        "sep_conv_3x3": 2 * (9 * c + c * c + norm),
        "sep_conv_5x5": 2 * (25 * c + c * c + norm),
        "sep_conv_7x7": 2 * (49 * c + c * c + norm),
        "dil_conv_3x3": 9 * c + c * c + norm,
        "dil_conv_5x5": 25 * c + c * c + norm,
        "nor_conv_1x1": c * c + norm,
        "nor_conv_3x3": 9 * c * c + norm,
        "conv_7x1_1x7": 2 * 7 * c * c + norm,
    }
    found = {name: sum(p.numel() for p in build(name, c, stride, affine).parameters()) for name in NAMES}
    assert found == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_convolutions_have_no_bias_and_search_norms_nothing_to_learn(name: str, stride: int) -> None:
    for affine in (False, True):
        modules = list(build(name, 4, stride, affine).modules())
        assert all(module.bias is None for module in modules if isinstance(module, nn.Conv2d))
        norms = [module for module in modules if isinstance(module, nn.BatchNorm2d)]
        assert all((norm.weight is not None, norm.bias is not None) == (affine, affine) for norm in norms)
        assert all(norm.eps == 1e-5 for norm in norms)
        if "pool" in name:
            expected = 0 if affine else 1  # normalised in the search alone
        elif name == "skip_connect":
            expected = stride - 1
        else:
            expected = 2 if name.startswith("sep_conv") else 1
        assert len(norms) == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_a_view_has_no_parameters_and_leaves_its_input(name: str, stride: int) -> None:
    """It is shared between edges and options: whoever comes next must see the same state."""
    operation = OPERATIONS[name]
    assert operation is not None
    for affine in (False, True):
        view = operation.view(stride).build(4, stride, affine).double()
        assert list(view.parameters()) == []
        x = images()
        before = x.clone()
        seen = view(x)
        kept = pixels(seen).clone()
        body = operation.body(4, stride, affine)
        if body is not None:
            body.double()(seen)
        assert torch.equal(x, before)
        assert torch.equal(pixels(seen), kept)


def test_views_with_a_name_are_the_same_function() -> None:
    """A cell builds one view for all operations that name it."""
    for stride, affine in itertools.product((1, 2), (False, True)):
        x = images()
        seen: dict[str, Tensor | Phases] = {}
        for name in NAMES:
            view = OPERATIONS[name].view(stride)  # type: ignore[union-attr]
            out = view.build(4, stride, affine).double()(x)
            assert torch.equal(pixels(out), pixels(seen.setdefault(view.name, out)))
        # relu, its phases, two pools; the state itself where nothing is halved
        assert len(seen) == {1: 5, 2: 4}[stride]


# -- by hand ---------------------------------------------------------------------------------------------------------


def test_average_pool_leaves_the_padding_out() -> None:
    ones = torch.ones(1, 4, 5, 5, dtype=torch.float64)
    for stride in (1, 2):
        assert torch.equal(build("avg_pool_3x3", 4, stride, True)(ones), ones[:, :, ::stride, ::stride])


def test_max_pool_pads_with_nothing() -> None:
    low = torch.full((1, 4, 5, 5), -3.0, dtype=torch.float64)
    for stride in (1, 2):
        assert torch.equal(build("max_pool_3x3", 4, stride, True)(low), low[:, :, ::stride, ::stride])


@pytest.mark.parametrize(
    ("name", "reach"),
    [
        ("sep_conv_3x3", [-2, -1, 0, 1, 2]),  # twice ±1
        ("sep_conv_5x5", list(range(-4, 5))),
        ("sep_conv_7x7", list(range(-6, 7))),
        ("dil_conv_3x3", [-2, 0, 2]),
        ("dil_conv_5x5", [-4, -2, 0, 2, 4]),
        ("conv_7x1_1x7", list(range(-3, 4))),
    ],
)
def test_receptive_field(name: str, reach: list[int]) -> None:
    """How far a single pixel is seen: kernel, dilation and padding at once."""
    operation = build(name, 2, 1, True).eval()
    for parameter in operation.parameters():
        nn.init.ones_(parameter)
    for module in operation.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.bias)
    x = torch.zeros(1, 2, 17, 17, dtype=torch.float64)
    x[:, :, 8, 8] = 1
    seen = operation(x)[0, 0].nonzero().tolist()
    assert seen == [[8 + i, 8 + j] for i in reach for j in reach]


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (5, 4), (1, 3)], ids=lambda size: "x".join(map(str, size)))
def test_factorized_reduce_by_hand(size: tuple[int, int]) -> None:
    """The first half of the channels are the pixels (0, 0), (0, 2), …; the second (1, 1), (1, 3), …, one further down
    and to the right, where the image of odd size is padded with zeros."""
    height, width = size
    reduce = FactorizedReduce({"x": 1}, 2, affine=False).double().eval()
    for parameter in reduce.parameters():
        nn.init.ones_(parameter)
    x = torch.arange(1, height * width + 1, dtype=torch.float64).reshape(1, 1, height, width)
    out = reduce(x)[0] * math.sqrt(1 + 1e-5)  # a new BatchNorm in evaluation divides by this
    value = {(i, j): i * width + j + 1 for i in range(height) for j in range(width)}
    even = [[value[i, j] for j in range(0, width, 2)] for i in range(0, height, 2)]
    odd = [[value.get((i + 1, j + 1), 0) for j in range(0, width, 2)] for i in range(0, height, 2)]
    torch.testing.assert_close(out, torch.tensor([even, odd], dtype=torch.float64))


def test_factorized_reduce_takes_any_number_of_channels() -> None:
    for channels_in, channels_out in [(3, 8), (6, 5)]:
        reduce = FactorizedReduce({"x": channels_in}, channels_out, affine=True)
        assert reduce(torch.randn(2, channels_in, 6, 6)).shape == (2, channels_out, 3, 3)
        assert sum(p.numel() for p in reduce.parameters()) == channels_in * channels_out + 2 * channels_out


def test_factorized_reduce_and_relu_conv_bn_begin_with_a_relu() -> None:
    x = images()
    for module in (
        FactorizedReduce({"x": 4}, 6, affine=False).double(),
        ReLUConvBN({"x": 4}, 6, affine=False).double(),
    ):
        module.eval()
        assert torch.equal(module(x), module(x.clamp(min=0)))
        assert not torch.equal(module(x), module(-x))


def test_relu_conv_bn_values() -> None:
    x = images()
    module = ReLUConvBN({"x": 4}, 6, affine=False).double()
    expected = normalise(convolve(x.clamp(min=0), weights(module)[0]))
    torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-12)


def test_a_pointwise_convolution_of_some_states_takes_their_parts_of_the_weight() -> None:
    widths = {"2": 3, "3": 1, "4": 2}
    module = Pointwise(widths, 5, stride=2, bias=True).double()
    x = {name: images(channels=width) for name, width in widths.items()}
    bias = module.bias[:, None, None]
    for names in (["2", "3", "4"], ["4"], ["4", "2"]):
        out = module(torch.cat([x[name] for name in names], 1), names)
        alone = sum(convolve(x[name], module.parts[name], stride=2) for name in names)
        torch.testing.assert_close(out, alone + bias, rtol=0, atol=1e-12)
    bound = 1 / math.sqrt(6)  # of all states together, as an ordinary convolution has it
    drawn = torch.cat([p.flatten() for p in Pointwise({"a": 4, "b": 2}, 1000, bias=True).parameters()])
    assert bound * 0.99 < drawn.abs().max() <= bound
    assert abs(drawn.std() - bound / math.sqrt(3)) < 0.01


# -- drop-path -------------------------------------------------------------------------------------------------------


def test_drop_path_of_nothing_is_the_same_object() -> None:
    x = images()
    assert drop_path(x, 0) is x
    assert drop_path(x, 0.0) is x


@pytest.mark.parametrize("shape", [(500, 3, 2, 2), (500, 4), (500,)], ids=["images", "vectors", "numbers"])
def test_drop_path_drops_whole_samples_and_rescales_the_rest(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape, dtype=torch.float64) + 0.5
    before = x.clone()
    out = drop_path(x, 0.2)
    assert torch.equal(x, before)
    kinds = Counter()
    for sample, dropped in zip(x, out, strict=True):
        if not dropped.any():
            kinds["dropped"] += 1
        else:
            torch.testing.assert_close(dropped, sample / 0.8, rtol=1e-15, atol=0)
    assert abs(kinds["dropped"] - 100) < 3 * math.sqrt(500 * 0.2 * 0.8)


def test_drop_path_keeps_the_expectation() -> None:
    for probability in (0.1, 0.5, 0.9):
        mean = drop_path(torch.ones(10_000, 1, 1, 1, dtype=torch.float64), probability).mean().item()
        assert abs(mean - 1) < 3 * math.sqrt(probability / (1 - probability) / 10_000)


def test_drop_path_drops_gradients_with_the_sample() -> None:
    x = torch.randn(50, 2, 3, 3, requires_grad=True)
    out = drop_path(x, 0.5)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    kept = out.detach().flatten(1).any(1)
    assert 0 < kept.sum() < 50
    assert torch.equal(gradient, 2.0 * kept[:, None, None, None].expand_as(x))


def test_drop_path_depends_on_the_seed() -> None:
    def draw(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return drop_path(torch.ones(64, 1), 0.5)

    assert torch.equal(draw(1), draw(1))
    assert not torch.equal(draw(1), draw(2))


FEW_CHANNELS = """
import torch
from lightning_nas.operations import Pointwise

for channels in range(1, 10):
    for size in (32, 7):
        layer = Pointwise({"state": channels}, 4, stride=2)
        x = torch.randn(16, channels, size, size).contiguous(memory_format=torch.channels_last)
        plain = torch.nn.functional.conv2d(x.double(), layer.parts["state"].double(), stride=2)
        direction = torch.randn_like(plain).float().contiguous(memory_format=torch.channels_last)
        (expected,) = torch.autograd.grad(plain, layer.parts["state"], direction.double())
        for _ in range(20):
            out = layer(x)
            (found,) = torch.autograd.grad(out, layer.parts["state"], direction)
        torch.testing.assert_close(out, plain.float())
        torch.testing.assert_close(found, expected.float(), rtol=1e-4, atol=1e-3)
print("done")
"""


def test_a_strided_pointwise_convolution_of_few_channels_survives_without_avx512():
    """oneDNN's own gradient overruns its memory there, so that the process dies."""
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "MALLOC_PERTURB_": "165"}
    ran = subprocess.run(
        [sys.executable, "-c", FEW_CHANNELS], env=environment, capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "done\n"), ran.stderr[-2000:]
