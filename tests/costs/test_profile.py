import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_nas.costs.profile import Profile, _of_cudnn, profile
from lightning_nas.operations import Pointwise
from lightning_nas.operations.convolutions import Depthwise
from lightning_nas.spaces import DARTSCell

INPUTS = {"channels": 3, "image_size": 32, "num_classes": 10}


@pytest.fixture(scope="module")
def child():
    space = DARTSCell()
    return space.restrict(
        space.from_genotype(
            normal="sep_conv_3x3(1) sep_conv_3x3(0) | skip_connect(0) sep_conv_3x3(1) | "
            "skip_connect(0) sep_conv_3x3(1) | sep_conv_3x3(0) skip_connect(2)",
            reduce="max_pool_3x3(0) max_pool_3x3(1) | skip_connect(2) max_pool_3x3(0) | "
            "max_pool_3x3(0) skip_connect(2) | skip_connect(2) avg_pool_3x3(0)",
        )
    )


class Small(nn.Module):
    """A strided and a depthwise convolution, BatchNorm, and linear layers with and without bias."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.drop = nn.Dropout(0.5)
        self.hidden = nn.Linear(8, 16)
        self.classifier = nn.Linear(16, 10, bias=False)
        self.auxiliary = None

    def forward(self, x):
        x = self.depthwise(self.norm(self.conv(x)).relu()).mean((2, 3))
        return self.classifier(self.drop(self.hidden(x)).relu())


# By hand, for an image of 8×8: the maps are 4×4.
PARAMS = 8 * 3 * 9 + 2 * 8 + (8 * 9 + 8) + (8 * 16 + 16) + 16 * 10
MULTIPLY_ADDS = 16 * 8 * 3 * 9 + 16 * 8 * 9 + 8 * 16 + 16 * 10
ACTIVATIONS = 16 * 8 + 16 * 8 + 16 + 10


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_figures_are_those_of_one_example(device, batch):
    measured = profile(Small().to(device), torch.empty(batch, 3, 8, 8, device=device))
    assert measured == Profile(PARAMS, 0, 2 * MULTIPLY_ADDS, ACTIVATIONS, None, None, device)
    assert measured.multiply_adds == MULTIPLY_ADDS


def test_darts_v1_has_the_published_size(child):
    with torch.device("meta"):
        plain = profile(child.network(INPUTS, channels=36, cells=20, form="final"), torch.empty(1, 3, 32, 32))
        network = child.network(INPUTS, channels=36, cells=20, form="final", auxiliary=True)
        with_head = profile(network, torch.empty(2, 3, 32, 32))
    assert (plain.n_params, plain.n_params_auxiliary) == (3_169_414, 0)
    assert (with_head.n_params, with_head.n_params_auxiliary) == (3_169_414, 476_426)
    assert with_head.flops == plain.flops  # the head does not run in evaluation
    assert with_head.activations == plain.activations


def test_flops_and_activations_of_a_network_are_those_of_its_layers(child):
    """Against hooks on all layers. The two convolutions of a Depthwise are one; each puts out as much as both."""
    network = child.network(INPUTS, channels=4, cells=3, form="final")
    flops, activations = [], []

    def count(layer, arguments, out):
        for weight in (parameter for parameter in layer.parameters() if parameter.dim() > 1):
            flops.append(2 * out[0].numel() * weight[0].numel())
            activations.append(out[0].numel())
            assert out.shape[1] == weight.shape[0]

    both = [layer for layer in network.modules() if isinstance(layer, Depthwise)]
    single = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.Linear, Pointwise))]
    within = {part for layer in both for part in layer.modules()}
    for layer in (*both, *(layer for layer in single if layer not in within)):
        layer.register_forward_hook(count)
    measured = profile(network, torch.randn(3, 3, 32, 32))
    assert (measured.flops, measured.activations) == (sum(flops), sum(activations))


def test_functional_layers_count():
    class Elastic(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 3, 3, 3))

        def forward(self, x):
            return F.linear(F.conv2d(x, self.weight[:4]).mean((2, 3)), torch.ones(2, 4))

    measured = profile(Elastic(), torch.randn(2, 3, 6, 6))
    assert measured.multiply_adds == 16 * 4 * 27 + 4 * 2
    assert measured.activations == 16 * 4 + 2


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(training):
    network = Small().train(training)
    network.norm.eval()  # frozen
    network.norm.running_mean.fill_(0.5)
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    random_state = torch.get_rng_state()
    profile(network, torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), latency_runs=1)
    assert [module.training for module in network.modules()] == modes
    assert network.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_it_runs_in_evaluation_mode_and_without_gradients_and_restores_after_an_error():
    class Fails(nn.Module):
        def forward(self, x):
            assert not self.training
            assert not torch.is_grad_enabled()
            raise RuntimeError("in the middle")

    network = Fails()
    with pytest.raises(RuntimeError, match="in the middle"):
        profile(network, torch.empty(1))
    assert network.training
    assert torch.is_grad_enabled()


def test_latency_is_the_median_after_warming_up(monkeypatch):
    """Of a network whose clock says 500 ms for each of the first 10 passes, and then 2, 7 and 3 ms."""
    clock, durations = [0.0], iter([0.0] + [0.5] * 10 + [0.002, 0.007, 0.003])  # the first pass counts FLOPs

    class Timed(nn.Module):
        def forward(self, x):
            clock[0] += next(durations)
            return x

    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    measured = profile(Timed(), torch.empty(6, 1), latency_runs=3)
    assert measured.latency == pytest.approx(3.0)
    assert (measured.latency_batch_size, measured.device) == (6, "cpu")
    assert next(durations, None) is None


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="meta"):
        profile(Small().to("meta"), torch.empty(1, 3, 8, 8, device="meta"), latency_runs=1)
    with pytest.raises(ValueError, match="latency_runs"):
        profile(Small(), torch.empty(1, 3, 8, 8), latency_runs=-1)
    with pytest.raises(ValueError, match="empty"):
        profile(Small(), torch.empty(0, 3, 8, 8))


def test_describe_is_aligned_and_says_only_what_is_known():
    described = Profile(3_169_414, 476_426, 1_001_975_040, 8_847_370, 18.54321, 64, "cuda:0").describe()
    assert described.splitlines() == [
        "parameters          3,169,414",
        "auxiliary head        476,426  parameters more, in training only",
        "FLOPs           1,001,975,040  per example",
        "multiply-adds     500,987,520  per example",
        "activations         8,847,370  per example",
        "latency                18.543  ms per batch of 64, cuda:0",
    ]
    assert Profile(10, 0, 40, 3, None, None, "meta").describe().splitlines() == [
        "parameters      10",
        "FLOPs           40  per example",
        "multiply-adds   20  per example",
        "activations      3  per example",
    ]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_latency_waits_for_the_gpu():
    size = 8192  # its product takes about a millisecond on the fastest GPUs, its launch a hundredth of that
    network = nn.Linear(size, size, bias=False, device="cuda")
    measured = profile(network, torch.empty(size, size, device="cuda"), latency_runs=5)
    assert measured.latency is not None
    assert measured.latency > 0.5
    assert measured.device == "cuda:0"


class FirstOf(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


GATES = {nn.LSTM: 4, nn.GRU: 3, nn.RNN: 1}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("kind", GATES)
def test_recurrent_layers_count_in_their_kernels_too(kind, device):
    x = torch.rand(5, 2, 4, device=device)
    one, two = kind(4, 8, bias=False), kind(4, 8, num_layers=2, bidirectional=True)
    a_word = 2 * GATES[kind] * 8 * (4 + 8)
    assert profile(FirstOf(one).to(device), x).flops == 2 * a_word  # two columns
    deeper = 2 * GATES[kind] * 8 * (2 * 8 + 8)
    assert profile(FirstOf(two).to(device), x).flops == 2 * 2 * (a_word + deeper)


def test_the_arguments_of_the_kernels_are_those_that_are_counted():
    cudnn = [argument.name for argument in torch.ops.aten._cudnn_rnn.default._schema.arguments]
    assert cudnn[:2] == ["input", "weight"]
    shapes = [(32, 4), (32, 8), (32,), (32,)]
    assert _of_cudnn((5, 2, 4), shapes, 4, None) == 5 * 2 * 2 * 32 * 12
    lstm = [argument.name for argument in torch.ops.aten.mkldnn_rnn_layer.default._schema.arguments]
    assert lstm[:3] == ["input", "weight0", "weight1"]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_transformers_count_in_their_kernels_too(device):
    n, length, width, wide = 3, 5, 8, 16
    products = length * width * (4 * width + 2 * wide) + 2 * length * length * width
    layer = nn.TransformerEncoderLayer(width, 2, wide, batch_first=True)
    x = torch.rand(n, length, width, device=device)
    assert profile(nn.TransformerEncoder(layer, 2).to(device), x).flops == 2 * 2 * products
    assert profile(layer.to(device), x).flops == 2 * products
    assert torch.backends.mha.get_fastpath_enabled()
