"""Scores under shared weights against a slow way to get them: an own copy for each architecture, statistics by hand."""

import copy
from random import Random

import pytest
import torch
from torch import nn

from lightning_nas.data import Digits
from lightning_nas.evaluators import SharedWeights
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.spaces import DARTSCell
from lightning_nas.tasks import ImageClassification

INPUTS = {"channels": 1, "image_size": 6, "num_classes": 3}


@pytest.fixture(scope="module")
def space():
    return DARTSCell(nodes=2, operations=["none", "skip_connect", "max_pool_3x3", "dil_conv_3x3"])


def supernet(space):
    torch.manual_seed(0)
    network = space.network(INPUTS, channels=2, cells=3)
    for norm in batch_norms(network):  # as after some training, mixed from all architectures
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
        norm.num_batches_tracked.fill_(11)
    return network


def some_batches(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, 1, 6, 6, generator=generator), torch.randint(3, (size,), generator=generator))
        for size in sizes
    ]


VALIDATION, CALIBRATION = some_batches([16, 16, 5], seed=1), some_batches([16, 16], seed=2)


def slow_score(space, network, architecture):
    """The share of validation images that the architecture's own network gets right, its statistics set by hand."""
    child = space.restrict(architecture).network(INPUTS, channels=2, cells=3)
    shared = network.state_dict()
    child.load_state_dict({name: shared[name].clone() for name in child.state_dict()})
    norms = [module for module in child.modules() if isinstance(module, nn.BatchNorm2d)]
    means, variances = {norm: [] for norm in norms}, {norm: [] for norm in norms}

    def note(norm, args):
        means[norm].append(args[0].mean((0, 2, 3)))
        variances[norm].append(args[0].var((0, 2, 3), unbiased=True))

    hooks = [norm.register_forward_pre_hook(note) for norm in norms]
    with torch.no_grad():
        for images, _ in CALIBRATION:
            child.train()(images)
    for hook in hooks:
        hook.remove()
    for norm in norms:
        norm.running_mean.copy_(torch.stack(means[norm]).mean(0))
        norm.running_var.copy_(torch.stack(variances[norm]).mean(0))
    right = total = 0
    for images, labels in VALIDATION:
        for image, label in zip(images, labels.tolist(), strict=True):  # one by one: evaluation knows no batch
            with torch.no_grad():
                right += child.eval()(image[None]).argmax().item() == label
            total += 1
    return right / total


def architectures(space, count=6):
    rng = Random(0)
    return [space.random(rng) for _ in range(count)]


def evaluator(space, network, task=None):
    return SharedWeights(space, network, task or ImageClassification(), VALIDATION, CALIBRATION)


def test_scores_agree_with_the_slow_way(space):
    network = supernet(space)
    evaluate = evaluator(space, network)
    scores = {architecture: evaluate(architecture) for architecture in architectures(space)}
    assert len(set(scores.values())) > 1
    for architecture, score in scores.items():
        assert score == pytest.approx(slow_score(space, network, architecture), abs=1e-6)
    assert isinstance(score, float)


def test_the_order_of_evaluation_does_not_matter(space):
    drawn = architectures(space)
    evaluate = evaluator(space, supernet(space))
    forwards = [evaluate(architecture) for architecture in drawn]
    backwards = [evaluate(architecture) for architecture in reversed(drawn)]
    alone = [evaluator(space, supernet(space))(architecture) for architecture in drawn]
    assert forwards == backwards[::-1] == alone


def test_what_the_running_averages_were_does_not_matter(space):
    network = supernet(space)
    (architecture, *_) = architectures(space)
    score = evaluator(space, network)(architecture)
    for norm in batch_norms(network):
        norm.running_mean.add_(100)
    assert evaluator(space, network)(architecture) == score


@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(space, training):
    network = supernet(space).train(training)
    network.stem.train(not training)
    parameters = {name: (value, value.clone()) for name, value in network.named_parameters()}
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    torch.manual_seed(4)
    random = torch.get_rng_state()
    (architecture, *_) = architectures(space)
    evaluator(space, network)(architecture)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(dict(network.named_parameters())[name] is value for name, (value, _) in parameters.items())
    assert all(value.grad is None and value.requires_grad for value, _ in parameters.values())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


def test_the_network_is_left_as_it_was_when_a_batch_fails(space):
    class Fails(ImageClassification):
        def loss(self, forward, batch, carry=None, metrics=None):
            result = super().loss(forward, batch, carry, metrics)
            if len(batch[1]) == 5:  # the last validation batch
                raise RuntimeError("in the middle")
            return result

    network = supernet(space)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(RuntimeError, match="in the middle"):
        evaluator(space, network, Fails())(architectures(space)[0])
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_the_carry_goes_through_validation_alone(space):
    carries = []

    class Counts(ImageClassification):
        def loss(self, forward, batch, carry=None, metrics=None):
            carries.append((carry, metrics is not None))
            loss, _ = super().loss(forward, batch, None, metrics)
            return loss, (carry or 0) + 1

    evaluate = evaluator(space, supernet(space), Counts())
    for architecture in architectures(space, 2):
        carries.clear()
        evaluate(architecture)
        assert carries == [(None, False), (None, False), (None, True), (1, True), (2, True)]


def test_of_takes_the_architecture_part_and_training_batches(space):
    class Module:
        seed = 3
        task = ImageClassification()

    Module.space, Module.network = space, supernet(space)
    data = Digits(batch_size=100)
    evaluate = SharedWeights.of(Module(), data, n_calibration=3)
    for found, expected in (
        (evaluate.validation, list(data.evaluation("architecture"))),
        (evaluate.calibration, [data.stream("weights", 3).get(index) for index in range(3)]),
    ):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert len(SharedWeights.of(Module(), data, n_calibration=100).calibration) == 719 // 100  # one pass at most
