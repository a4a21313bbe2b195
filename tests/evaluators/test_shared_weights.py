"""Scores under shared weights against a slow way to get them: an own copy for each architecture, statistics by hand."""

import copy
import math
from random import Random
from typing import ClassVar

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from lightning_nas.costs.profile import profile
from lightning_nas.data import Digits
from lightning_nas.data.text import Window
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import SharedWeights
from lightning_nas.executors import Processes
from lightning_nas.executors.base import run_trial
from lightning_nas.measures import Measure
from lightning_nas.methods import RandomSearchWS, load_search
from lightning_nas.objectives import Objective
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.spaces import DARTSCell, DARTSRecurrentCell, NASBench201, ShuffleBlocks
from lightning_nas.strategies import Proposal, RandomSearch
from lightning_nas.supernets import Scorer
from lightning_nas.tasks import ImageClassification, LanguageModeling
from lightning_nas.trials import TrialLoop

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
BN = ("recalibrate", "batch")


def child_of(space, network, architecture):
    child = space.restrict(architecture).network(INPUTS, channels=2, cells=3)
    shared = network.state_dict()
    child.load_state_dict({name: shared[name].clone() for name in child.state_dict()})
    return child


def slow_score(space, network, architecture):
    """The share of validation images that the architecture's own network gets right, its statistics set by hand."""
    child = child_of(space, network, architecture)
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


def evaluator(space, network, task=None, bn="recalibrate"):
    return Scorer(space, network, task or ImageClassification(), VALIDATION, CALIBRATION, bn)


def test_scores_agree_with_the_slow_way(space):
    network = supernet(space)
    evaluate = evaluator(space, network)
    scores = {architecture: evaluate(architecture) for architecture in architectures(space)}
    assert len(set(scores.values())) > 1
    for architecture, score in scores.items():
        assert score == pytest.approx(slow_score(space, network, architecture), abs=1e-6)
    assert isinstance(score, float)


class Logits(ImageClassification):
    """Keeps what the network says about each validation batch."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def loss(self, forward, batch, carry=None, metrics=None):
        if metrics is not None:
            self.seen.append(forward(batch[0]))
        return super().loss(forward, batch, carry, metrics)


def test_batch_is_train_mode_and_recalibrate_is_not(space):
    network = supernet(space).eval()
    for architecture in architectures(space, 3):
        task, right = Logits(), 0
        score = evaluator(space, network, task, "batch")(architecture)
        child = child_of(space, network, architecture).train()
        for (images, labels), logits in zip(VALIDATION, task.seen, strict=True):
            with torch.no_grad():
                assert torch.equal(logits, child(images))
            right += int((logits.argmax(1) == labels).sum())
        assert score == pytest.approx(right / 37)

        recalibrated = Logits()
        evaluator(space, network, recalibrated)(architecture)
        assert not any(torch.allclose(a, b) for a, b in zip(task.seen, recalibrated.seen, strict=True))


@pytest.mark.parametrize("bn", BN)
def test_nothing_but_batch_norm_is_in_training(space, bn):
    network, modes = supernet(space), []
    network.stem.append(nn.Dropout(0.0))
    network.stem[-1].register_forward_hook(lambda dropout, *_: modes.append(dropout.training))
    evaluator(space, network, bn=bn)(architectures(space)[0])
    assert modes[-len(VALIDATION) :] == [False] * len(VALIDATION)


def test_batch_reads_no_calibration(space):
    network, (architecture, *_) = supernet(space), architectures(space)
    without = Scorer(space, network, ImageClassification(), VALIDATION, [], "batch")
    assert without(architecture) == evaluator(space, network, bn="batch")(architecture)


@pytest.mark.parametrize("bn", BN)
def test_the_order_of_evaluation_does_not_matter(space, bn):
    drawn = architectures(space)
    evaluate = evaluator(space, supernet(space), bn=bn)
    forwards = [evaluate(architecture) for architecture in drawn]
    backwards = [evaluate(architecture) for architecture in reversed(drawn)]
    alone = [evaluator(space, supernet(space), bn=bn)(architecture) for architecture in drawn]
    assert forwards == backwards[::-1] == alone


@pytest.mark.parametrize("bn", BN)
def test_what_the_running_averages_were_does_not_matter(space, bn):
    network = supernet(space)
    (architecture, *_) = architectures(space)
    score = evaluator(space, network, bn=bn)(architecture)
    for norm in batch_norms(network):
        norm.running_mean.add_(100)
    assert evaluator(space, network, bn=bn)(architecture) == score


@pytest.mark.parametrize("bn", BN)
@pytest.mark.parametrize("training", [True, False])
def test_the_network_is_left_as_it_was(space, training, bn):
    network = supernet(space).train(training)
    network.stem.train(not training)
    parameters = {name: (value, value.clone()) for name, value in network.named_parameters()}
    before = copy.deepcopy(network.state_dict())
    modes = [module.training for module in network.modules()]
    torch.manual_seed(4)
    random = torch.get_rng_state()
    (architecture, *_) = architectures(space)
    evaluator(space, network, bn=bn)(architecture)
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(dict(network.named_parameters())[name] is value for name, (value, _) in parameters.items())
    assert all(value.grad is None and value.requires_grad for value, _ in parameters.values())
    assert [module.training for module in network.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("bn", BN)
def test_the_network_is_left_as_it_was_when_a_batch_fails(space, bn):
    class Fails(ImageClassification):
        def loss(self, forward, batch, carry=None, metrics=None):
            result = super().loss(forward, batch, carry, metrics)
            if len(batch[1]) == 5:  # the last validation batch
                raise RuntimeError("in the middle")
            return result

    network = supernet(space)
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(RuntimeError, match="in the middle"):
        evaluator(space, network, Fails(), bn)(architectures(space)[0])
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_calibration_and_validation_have_a_carry_each(space):
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
        assert carries == [(None, False), (1, False), (None, True), (1, True), (2, True)]


def test_statistics_of_a_text_do_not_depend_on_how_it_is_cut():
    space = DARTSRecurrentCell(nodes=3)
    torch.manual_seed(0)
    dropout = dict.fromkeys(["word_dropout", "input_dropout", "hidden_dropout", "output_dropout"], 0.0)
    network = space.network({"vocabulary": 9}, hidden=5, **dropout).double()
    torch.nn.init.normal_(network.embedding)
    words = torch.randint(9, (25, 4))
    first = torch.arange(24) == 0
    whole = Window(words[:-1], words[1:], first)
    windows = [Window(*(part[rows] for part in whole)) for rows in (slice(0, 7), slice(7, 24))]
    architecture = space.random(Random(0))
    once, cut = (
        Scorer(space, network, LanguageModeling(), windows, calibration)(architecture)
        for calibration in ([whole], windows)
    )
    assert cut == pytest.approx(once, rel=1e-6)  # of a metric in float32


class FromTable(Scorer):
    table: dict[int, float]

    def __call__(self, architecture):
        return self.table[architecture[0]]


@pytest.mark.parametrize(("mode", "expected"), [("max", [4, 0, 3, 1, 2]), ("min", [3, 0, 4, 1, 2])])
def test_the_best_comes_first_and_what_is_no_number_last(space, mode, expected):
    task = ImageClassification()
    task.mode = mode
    evaluate = FromTable(space, supernet(space), task, [], [])
    evaluate.table = {0: 0.5, 1: math.nan, 2: math.nan, 3: -math.inf, 4: math.inf}
    ranked = evaluate.rank([(k,) for k in (0, 1, 2, 0, 3, 4, 1)])
    assert list(ranked) == [(k,) for k in expected]
    assert ranked[(0,)] == 0.5


class Module:
    """What a search has."""

    seed = 3
    task = ImageClassification()
    task_modules: ClassVar = {}
    draws_bars = False

    def __init__(self, space, bn="recalibrate"):
        self.space, self.network, self.bn = space, supernet(space), bn

    def stream(self, data, part):
        return data.stream(part, self.seed)

    def data_of(self, data):
        return data


def same(batches, others):
    pairs = zip(batches, others, strict=True)
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_of_takes_the_architecture_part_and_training_batches(space):
    data = Digits(batch_size=100)
    evaluate = Scorer.of(Module(space), data, n_calibration=3)
    assert same(evaluate.validation, data.evaluation("architecture"))
    assert same(evaluate.calibration, [data.stream("weights", 3).get(index) for index in range(3)])
    assert len(Scorer.of(Module(space), data, n_calibration=100).calibration) == 719 // 100  # one pass at most
    assert evaluate.bn == "recalibrate"
    by_the_batch = Scorer.of(Module(space, "batch"), data)
    assert (by_the_batch.bn, by_the_batch.calibration) == ("batch", [])


@pytest.mark.parametrize("n_batches", [1, 3, 7])
def test_of_some_batches_spreads_them_evenly_over_the_part(space, n_batches):
    data = Digits(batch_size=100)
    batches = Scorer.of(Module(space), data, n_batches).validation
    assert [len(labels) for _, labels in batches] == [100] * n_batches
    whole, some = (torch.cat([images for images, _ in part]) for part in (data.evaluation("architecture"), batches))
    positions = [next(k for k, one in enumerate(whole) if torch.equal(one, image)) for image in some]
    apart = 718 / len(positions)
    assert positions == [math.floor(k * apart) for k in range(len(positions))]
    assert same(batches, Scorer.of(Module(space), data, n_batches).validation)


def test_of_more_batches_than_there_are_is_the_whole_part(space):
    data = Digits(batch_size=100)
    assert same(Scorer.of(Module(space), data, 9).validation, data.evaluation("architecture"))


SMALL = NASBench201(["none", "skip_connect", "nor_conv_1x1"])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    search = RandomSearchWS(SMALL, ImageClassification(), {"channels": 2, "cells": 1}, n_candidates=2)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = pl.Trainer(accelerator="cpu", max_epochs=1, limit_train_batches=2, limit_val_batches=0, **quiet)
    trainer.fit(search, datamodule=Digits(batch_size=100))
    path = tmp_path_factory.mktemp("search") / "last.ckpt"
    trainer.save_checkpoint(path)
    return str(path)


@pytest.mark.parametrize("data", [None, Digits(batch_size=50)])
def test_a_checkpoint_scores_as_its_supernet_does(checkpoint, data):
    method, own = load_search(checkpoint)
    score = Scorer.of(method, data or own, n_batches=2)
    evaluate = SharedWeights(checkpoint, n_batches=2)
    evaluate.open(SMALL, data)
    rng = Random(0)
    drawn = [SMALL.random(rng) for _ in range(5)]
    evaluations = [evaluate(Proposal(architecture), number) for number, architecture in enumerate(drawn)]
    scores = [evaluation.metrics["val/supernet_accuracy"] for evaluation in evaluations]
    assert scores == [score(architecture) for architecture in drawn]
    assert len(set(scores)) > 1
    for architecture, evaluation in zip(drawn, evaluations, strict=True):
        assert list(evaluation.metrics) == evaluate.metric_names(None)
        child = SMALL.restrict(architecture).network(own.inputs, channels=2, cells=1, form="final")
        costs = profile(child, child.example())
        assert (evaluation.metrics["n_params"], evaluation.metrics["flops"]) == (costs.n_params, costs.flops)
        assert 0 < evaluation.cost < 60


def test_its_objective_is_that_of_the_task_known_before_it_is_open(checkpoint):
    assert SharedWeights(checkpoint).objective == Objective("val/supernet_accuracy")


class Weighed(Measure):
    """The sum of all weights, which says whose they are."""

    name = "weight"

    def __call__(self, network, data, seed):
        return sum(parameter.double().sum().item() for parameter in network.parameters())


def test_further_measures_see_the_shared_weights(checkpoint):
    evaluate = SharedWeights(checkpoint, n_batches=1, report=[Weighed()])
    evaluate.open(SMALL)
    shared = load_search(checkpoint)[0].network.state_dict()
    child = SMALL.restrict((2,) * 6).network(evaluate.data.inputs, channels=2, cells=1)
    expected = sum(shared[name].double().sum().item() for name, _ in child.named_parameters())
    assert evaluate(Proposal((2,) * 6), 0).metrics["weight"] == pytest.approx(expected)
    with pytest.raises(SettingError, match="report: each measure once, got weight, weight"):
        SharedWeights(checkpoint, report=[Weighed(), Weighed()])


def test_a_method_scores_as_its_checkpoint_does(checkpoint):
    method, data = load_search(checkpoint)
    live, kept = SharedWeights.of(method, n_batches=2), SharedWeights(checkpoint, n_batches=2)
    live.open(SMALL, data)
    kept.open(SMALL, data)
    assert live.objective == kept.objective
    before = {name: value.clone() for name, value in method.state_dict().items()}
    for number in range(3):
        proposal = Proposal(SMALL.random(Random(number)))
        assert live(proposal, number).metrics == kept(proposal, number).metrics
    assert all(torch.equal(value, before[name]) for name, value in method.state_dict().items())
    with pytest.raises(SettingError, match="the method is a supernet of NASBench201 with other settings, not of this"):
        SharedWeights.of(method).open(NASBench201(), data)
    with pytest.raises(SettingError, match="evaluator: a method that is no checkpoint has no data of its own"):
        SharedWeights.of(method).open(SMALL)
    with pytest.raises(SettingError, match=r"executor: workers build .* take the executor Serial"):
        Processes(1).open(live, SMALL, data)
    trials = TrialLoop(SMALL, RandomSearch(), live, n_trials=3, objectives=["min n_params"], progress=False)
    assert trials.run(data).score == max(-trial.metrics["n_params"] for trial in trials.history)


def test_a_score_that_is_no_number_is_a_trial_that_diverged(checkpoint):
    evaluate = SharedWeights(checkpoint)
    evaluate.open(SMALL)
    evaluate.scorer = FromTable(SMALL, evaluate.scorer.network, ImageClassification(), [], [])
    evaluate.scorer.table = {0: math.nan}
    assert run_trial(evaluate, 0, Proposal(next(iter(SMALL)))).judged([evaluate.objective]).status == "diverged"


@pytest.mark.parametrize(
    ("other", "name"),
    [
        (DARTSCell(nodes=2), "a supernet of NASBench201, not of this DARTSCell"),
        (NASBench201(), "a supernet of NASBench201 with other settings, not of this NASBench201"),
        (SMALL.restrict({"0->1": "none"}), "a supernet of NASBench201 with other settings"),
    ],
)
def test_the_checkpoint_of_another_space_is_refused(checkpoint, other, name):
    with pytest.raises(SettingError, match=rf"checkpoint: .*last\.ckpt is {name}"):
        SharedWeights(checkpoint).open(other)


@pytest.mark.parametrize("data", [Digits(split_seed=1), Digits(architecture_share=0.25)])
def test_data_divided_otherwise_are_refused(checkpoint, data):
    with pytest.raises(
        SettingError, match=r"was trained on other data, or on data divided otherwise; its data are .*0\.5"
    ):
        SharedWeights(checkpoint).open(SMALL, data)


@pytest.mark.parametrize("settings", [{"n_batches": 0}, {"n_calibration": 0}])
def test_settings_of_the_evaluator_are_checked(settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))}: at least 1"):
        SharedWeights("last.ckpt", **settings)


def test_measures_see_the_slices_of_an_elastic_network():
    space = ShuffleBlocks(4, (8,), (2,), (1,), 1, 8, ["shuffle_3x3"], (0.5, 1.0))
    data = Digits(batch_size=64)
    method = RandomSearchWS(space, ImageClassification(), inputs=data.inputs)
    evaluate = SharedWeights.of(method, n_batches=1, n_calibration=1, report=[Weighed()])
    evaluate.open(space, data)
    narrow, wide = (space.from_names({c.name: c.options[k] for c in space.choices}) for k in (0, -1))
    weights = {a: evaluate(Proposal(a), 0).metrics["weight"] for a in (narrow, wide)}
    for architecture, weight in weights.items():
        child = space.restrict(architecture).network(data.inputs)
        names = [name for name, _ in child.named_parameters()]
        state = method.network.child_state(architecture)
        assert weight == pytest.approx(sum(state[name].double().sum().item() for name in names))
    assert weights[narrow] != weights[wide]
