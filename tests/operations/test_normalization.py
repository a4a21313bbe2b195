"""BatchNorm under a weight, which statistics it uses, and that a network is afterwards what it was."""

import contextlib
import copy

import pytest
import torch
from torch import nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import BatchNorm, batch_norms, batch_statistics, recalibrated


def build():
    """BatchNorms in a row, of several kinds: without scale, with another momentum, without running averages (that one
    is none of ours), over features instead of images, and already with cumulative means."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(2, 3, 3),
        nn.BatchNorm2d(3, affine=False),
        nn.ReLU(),
        nn.Conv2d(3, 4, 1),
        nn.BatchNorm2d(4, momentum=0.3),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Flatten(),
        nn.Linear(4 * 16, 5),
        nn.BatchNorm1d(5, momentum=None),
    ).double()
    for norm in batch_norms(network):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.num_batches_tracked.fill_(7)
    return network


def batches(count=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 2, 6, 6, dtype=torch.float64, generator=generator) for _ in range(count)]


def state(network):
    """Everything that could be changed: parameters, buffers, modes and BatchNorm's settings."""
    tensors = {name: value.clone() for name, value in network.state_dict().items()}
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    return (
        tensors,
        [module.training for module in network.modules()],
        [(n.momentum, n.track_running_stats) for n in norms],
    )


def assert_same(before, after):
    assert before[1:] == after[1:]
    assert before[0].keys() == after[0].keys()
    for name, value in before[0].items():
        assert torch.equal(value, after[0][name]), name


def test_just_norms_with_running_averages_count():
    network = build()
    assert batch_norms(network) == [network[1], network[4], network[8]]


# -- the batch's statistics ------------------------------------------------------------------------------------------


def test_a_single_value_per_channel_is_refused_with_a_remedy():
    norm = BatchNorm(3)
    for fits in (torch.randn(2, 3, 1, 1), torch.randn(1, 3, 2, 1)):
        assert norm(fits).isfinite().all()
    for weight in (None, torch.tensor(0.5)):
        with pytest.raises(SettingError, match=r"batch_size: .* a single image"):
            norm(torch.randn(1, 3, 1, 1), weight)
        assert norm.eval()(torch.randn(1, 3, 1, 1), weight).isfinite().all()
        norm.train()


def test_inside_batch_statistics_the_output_is_that_of_training_and_buffers_stay():
    network, (x, *_) = build(), batches()
    before = state(network)
    with batch_statistics(network):
        inside = network(x)
    assert_same(before, state(network))
    assert torch.equal(inside, network(x))  # which moves the buffers, as training does:
    assert all(not torch.equal(before[0][f"{k}.running_mean"], network[k].running_mean) for k in (1, 4, 8))
    assert [network[k].num_batches_tracked.item() for k in (1, 4, 8)] == [8, 8, 8]


def test_batch_statistics_in_evaluation_mode_too():
    network, (x, *_) = build(), batches()
    with batch_statistics(network):
        expected = network(x)
    network.eval()
    before, outside = state(network), network(x)
    with batch_statistics(network):
        assert torch.equal(network(x), expected)
    assert not torch.equal(outside, expected)
    assert torch.equal(network(x), outside)
    assert_same(before, state(network))
    assert not any(module.training for module in network.modules())


def test_batch_statistics_restores_after_an_exception_and_when_nested():
    network, (x, *_) = build(), batches()
    before = state(network)

    def fail():
        with batch_statistics(network):
            network(x)
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail()
    assert_same(before, state(network))
    with batch_statistics(network):
        with batch_statistics(network):
            network(x)
        network(x)  # still inside
    assert_same(before, state(network))


# -- recalibration ---------------------------------------------------------------------------------------------------


def by_hand(network, data):
    """For each BatchNorm the mean over batches of its inputs' batch means, and of their unbiased batch variances."""
    found = []
    for k in (1, 4, 8):
        inputs = []
        hook = network[k].register_forward_pre_hook(lambda module, args: inputs.append(args[0]))  # noqa: B023
        with torch.no_grad(), batch_statistics(network):  # in training a BatchNorm hands on what the batch says
            for x in data:
                network(x)
        hook.remove()
        channels_first = [x.transpose(0, 1).flatten(1) for x in inputs]
        mean = sum(x.sum(1) / x.shape[1] for x in channels_first) / len(data)
        variance = sum(((x - x.mean(1, keepdim=True)) ** 2).sum(1) / (x.shape[1] - 1) for x in channels_first) / len(
            data
        )
        found.append((mean, variance))
    return found


@pytest.mark.parametrize("count", [1, 4])
def test_recalibrated_averages_are_plain_means_over_the_batches(count):
    network, data = build(), batches(count)
    expected = by_hand(network, data)
    x = batches(6)[-1]
    with recalibrated(network, network, data):
        assert not any(module.training for module in network.modules())
        for k, (mean, variance) in zip((1, 4, 8), expected, strict=True):
            assert (network[k].running_mean - mean).abs().max().item() < 1e-12
            assert (network[k].running_var - variance).abs().max().item() < 1e-12
        network(x)  # evaluation: nothing moves
        assert (network[1].running_mean - expected[0][0]).abs().max().item() < 1e-12
    assert count == 1 or (expected[0][0] - by_hand(network, data[:1])[0][0]).abs().max().item() > 1e-3


def test_recalibration_does_not_depend_on_what_was_there_before():
    outputs = []
    for shift in (0.0, 5.0):
        network = build()
        for norm in batch_norms(network):
            norm.running_mean.add_(shift)
        with recalibrated(network, network, batches()):
            outputs.append(network(batches(4)[-1]))
    assert torch.equal(*outputs)


def test_recalibration_makes_no_graph_and_runs_forward_once_a_batch():
    network, seen = build(), []

    def forward(x):
        seen.append((x, network(x).requires_grad, network.training))

    data = batches()
    with recalibrated(network, forward, iter(data)):
        assert network(data[0]).requires_grad  # inside it is the caller's to say
    assert [(grad, training) for _, grad, training in seen] == [(False, True)] * 3
    assert all(one is other for (one, _, _), other in zip(seen, data, strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_afterwards_everything_is_as_it_was(training):
    network, data = build().train(training), batches()
    network[4].eval()  # frozen, whatever the others do
    network[7].train()
    before = state(network)
    with recalibrated(network, network, data):
        assert not torch.equal(network[1].running_mean, before[0]["1.running_mean"])
    assert_same(before, state(network))


@pytest.mark.parametrize("where", ["in a batch", "inside"])
def test_everything_is_as_it_was_after_an_exception(where):
    network, data = build(), batches()
    network[4].eval()
    before = state(network)

    def forward(x):
        network(x)
        if where == "in a batch" and x is data[1]:
            raise RuntimeError(where)

    def recalibrate():
        with recalibrated(network, forward, data):
            assert where == "inside"
            raise RuntimeError(where)

    with pytest.raises(RuntimeError, match=where):
        recalibrate()
    assert_same(before, state(network))


def test_what_does_not_run_keeps_its_averages_too():
    """A supernet's other paths are not run by ``forward``."""
    network, data = build(), batches()
    before = state(network)
    with recalibrated(network, network[:2], data):
        assert not torch.equal(network[1].running_mean, before[0]["1.running_mean"])
    assert_same(before, state(network))


@pytest.mark.parametrize("mode", ["training", "evaluation", "batch statistics", "cumulative", "without averages"])
@pytest.mark.parametrize("affine", [False, True])
def test_a_weight_multiplies_the_result_in_the_same_pass(affine: bool, mode: str) -> None:
    torch.manual_seed(0)
    norm = BatchNorm(
        3, momentum=None if mode == "cumulative" else 0.1, affine=affine, track_running_stats=mode != "without averages"
    ).double()
    if affine:
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    norm(torch.randn(4, 3, 2, 2, dtype=torch.float64))  # so that averages are not those at the start
    norm.train(mode not in {"evaluation", "batch statistics"})
    other = copy.deepcopy(norm)
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    both = nn.ModuleList([norm, other])
    with batch_statistics(both) if mode == "batch statistics" else contextlib.nullcontext():
        outputs = norm(x, weight), weight * other(x)
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(x)
    inputs = [[x, weight, *module.parameters()] for module in (norm, other)]
    for a, b in zip(
        *(torch.autograd.grad(out, given, gradient) for out, given in zip(outputs, inputs, strict=True)), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    for a, b in zip(norm.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
