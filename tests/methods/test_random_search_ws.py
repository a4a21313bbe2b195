"""Random search with weight sharing: what is drawn, which weights a step moves, and how the best is found."""

import math
from collections import Counter
from functools import partial
from random import Random

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from scipy.stats import chisquare

from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.methods import OneShotMethod, RandomSearchWS
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.spaces import DARTSCell, NASBench201
from lightning_nas.supernets import Scorer
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.lr_schedules import Cosine
from tests.helpers import methods
from tests.helpers.methods import child_of, differing, snapshot
from tests.helpers.optimizers import objects

OPERATIONS = ("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3")
SMALL = DARTSCell(kinds=["normal"], nodes=2, operations=("none", "skip_connect", "max_pool_3x3"))  # 48 architectures


def method(space=SMALL, task=None, **settings):
    network = {"channels": 2, "cells": 3}
    return RandomSearchWS(
        space, task or ImageClassification(), network, digits().inputs, **objects(RandomSearchWS, settings)
    )


trainer = partial(methods.trainer, num_sanity_val_steps=0)


def digits():
    return Digits(batch_size=128)  # five batches of the weights part; six of the architecture part, the last of 78


# -- what is drawn -----------------------------------------------------------------------------------------------------


def training_draws(space, seed=0, epochs=60, steps=100):
    search = RandomSearchWS(space, ImageClassification(), seed=seed)
    return [search.draw("training", epoch, step) for epoch in range(epochs) for step in range(steps)]


def test_edges_and_their_operations_are_uniform():
    space = DARTSCell()
    draws = training_draws(space)
    for k, choice in enumerate(space.choices):
        sources = choice.output  # of which two are read, each with one of seven operations
        share = dict.fromkeys(choice.options, 2 / sources / 7) | {"none": 1 - 2 / sources}
        expected = {option: len(draws) * share[name] for option, name in enumerate(choice.options) if share[name]}
        observed = Counter(architecture[k] for architecture in draws)
        assert observed.keys() <= expected.keys()
        assert chisquare([observed[option] for option in expected], list(expected.values())).pvalue > 1e-3


def test_the_two_edges_of_a_node_are_any_pair_and_their_operations_independent():
    space = DARTSCell()
    draws = [space.to_names(architecture) for architecture in training_draws(space)]
    for kind in space.kinds:
        for node in range(2, 6):
            kept = [
                [(source, names[f"{kind}/{source}->{node}"]) for source in range(node)]
                for names in draws  # of an architecture, all edges into the node
            ]
            kept = [tuple(edge for edge in edges if edge[1] != "none") for edges in kept]
            pairs = Counter(tuple(source for source, _ in edges) for edges in kept)
            operations = Counter(tuple(operation for _, operation in edges) for edges in kept)
            for counts, number in ((pairs, math.comb(node, 2)), (operations, 49)):
                assert len(counts) == number
                if number > 1:
                    assert chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize(
    ("space", "size"),
    [
        (SMALL, 48),
        (DARTSCell(kinds=["normal"], nodes=2, operations=("none", "skip_connect"), sparse=True), 4 * 7),
        (NASBench201(operations=("none", "nor_conv_3x3")), 64),
    ],
    ids=["darts", "darts-sparse", "nas-bench-201"],
)
def test_all_architectures_of_a_space_are_equally_likely(space, size):
    draws = Counter(training_draws(space))
    assert len(draws) == space.size == size
    assert chisquare(list(draws.values())).pvalue > 1e-3


def test_a_draw_says_nothing_about_the_next_step_nor_the_next_epoch():
    draws = training_draws(DARTSCell(kinds=["normal"], nodes=1, operations=("none", "skip_connect", "max_pool_3x3")))
    for apart in (1, 100):
        pairs = Counter(zip(draws, draws[apart:], strict=False))
        assert len(pairs) == 4 * 4
        assert chisquare(list(pairs.values())).pvalue > 1e-3


def test_seed_and_purpose_decide_the_draws_and_the_rank_does_not(monkeypatch):
    def sequence(seed, purpose):
        search = RandomSearchWS(DARTSCell(), ImageClassification(), seed=seed)
        return [search.draw(purpose, 1, step) for step in range(20)]

    first = sequence(0, "training")
    assert sequence(0, "training") == first
    for other in (sequence(1, "training"), sequence(0, "validation"), sequence(0, "ranking")):
        assert not set(other) & set(first)
    monkeypatch.setattr(RandomSearchWS, "global_rank", property(lambda self: 3))
    torch.manual_seed(5)
    assert sequence(0, "training") == first


# -- a step ------------------------------------------------------------------------------------------------------------


class Steps(pl.Callback):
    """What each step ran, which parameters had a gradient, and which parts of the network it changed."""

    def __init__(self, monkeypatch):
        self.architectures, self.with_gradient, self.changed = [], [], []
        step_weights, apply_gradients = OneShotMethod.step_weights, OneShotMethod.apply_gradients

        def spy_on_gates(method, optimizer, batch, gates, **further):
            self.architectures.append(tuple(gates[choice.name] for choice in method.space.choices))
            step_weights(method, optimizer, batch, gates, **further)

        def spy_on_gradients(method, optimizer, parameters, gradients, clip=None, counted=False):
            names = [name for name, _ in method.network.named_parameters()]
            self.with_gradient.append({n for n, g in zip(names, gradients, strict=True) if g is not None})
            apply_gradients(method, optimizer, parameters, gradients, clip, counted)

        monkeypatch.setattr(OneShotMethod, "step_weights", spy_on_gates)
        monkeypatch.setattr(OneShotMethod, "apply_gradients", spy_on_gradients)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = snapshot(pl_module.network)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.changed.append(differing(self.before, snapshot(pl_module.network)))


@pytest.mark.parametrize(
    "space",
    [DARTSCell(nodes=2), NASBench201(operations=("skip_connect", "nor_conv_1x1", "nor_conv_3x3"))],  # no dead ends
    ids=["darts", "nas-bench-201"],
)
def test_a_step_moves_the_drawn_path_alone(space, monkeypatch):
    search = method(space, weight_decay=0.1)
    steps, beginning = Steps(monkeypatch), snapshot(search.network)
    trainer(callbacks=[steps], limit_train_batches=3, limit_val_batches=0).fit(search, digits())
    assert steps.architectures == [search.draw("training", epoch, step) for epoch in (0, 1) for step in range(3)]
    on_a_path = set()
    for architecture, with_gradient, changed in zip(
        steps.architectures, steps.with_gradient, steps.changed, strict=True
    ):
        child = child_of(search, architecture)
        assert with_gradient == {name for name, _ in child.named_parameters()}
        assert changed == child.state_dict().keys()  # the running averages among them
        on_a_path |= changed
    # with momentum and weight decay, what was never on a path is what it was, bit for bit
    assert differing(beginning, search.network.state_dict()) == on_a_path
    assert beginning.keys() - on_a_path
    assert int(search.steps) == 6


def test_an_epoch_is_a_pass_over_the_weights_part_and_the_rate_falls_by_a_cosine():
    rates = []

    class Rates(pl.Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    search, data = method(lr=0.1, lr_schedule=Cosine(0.02)), digits()
    run = trainer(max_epochs=4, callbacks=[Rates()], limit_train_batches=1, limit_val_batches=0)
    run.fit(search, data)
    assert rates == pytest.approx([0.02 + 0.08 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)])
    schedule = search.schedule(data)
    assert len(schedule) == 719 // 128
    assert schedule.get(0, 0).keys() == {"weights"}


def test_validation_normalises_by_the_batch_and_changes_no_buffer():
    search, data = method(DARTSCell(nodes=2, operations=OPERATIONS)), digits()
    for norm in batch_norms(search.network):
        norm.running_mean.fill_(100.0)  # nobody reads them
    before = snapshot(search.network)
    (figures,) = trainer().validate(search, data, verbose=False)
    assert not differing(before, search.network.state_dict())
    right, losses, sizes = 0, [], []
    for number, (images, labels) in enumerate(data.evaluation("architecture")):
        with torch.no_grad():
            logits = child_of(search, search.draw("validation", 0, number)).train()(images)
        right += int((logits.argmax(1) == labels).sum())
        losses.append(float(F.cross_entropy(logits, labels, reduction="sum")))
        sizes.append(len(labels))
    assert figures["val/supernet_accuracy"] == pytest.approx(right / sum(sizes))
    assert figures["val/supernet_loss"] == pytest.approx(sum(losses) / sum(sizes), rel=1e-5)


def test_a_diverged_search_says_so_and_the_last_good_checkpoint_stays(explode, tmp_path):
    each_epoch = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    run = trainer(max_epochs=3, callbacks=[explode, each_epoch], enable_checkpointing=True, limit_val_batches=0)
    with pytest.raises(SettingError, match="lower the optimizer's lr"):
        run.fit(method(gradient_clip=None), digits())
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert int(state["steps"]) == 5  # of the first epoch
    assert all(value.isfinite().all() for value in state.values())


# -- the ranking -------------------------------------------------------------------------------------------------------


class Lookup:
    """Scores from tables instead of the network: noisy ones on a few batches, true ones on the whole part."""

    def __init__(self, monkeypatch, space=SMALL, noise=1.0):
        rng = Random(7)
        self.true = {architecture: rng.random() for architecture in space}
        self.noisy = {architecture: score + noise * rng.random() for architecture, score in self.true.items()}
        self.asked = []  # (architecture, batches it is scored on)

        def score(evaluator, architecture):
            self.asked.append((architecture, evaluator.validation))
            return (self.true if len(evaluator.validation) == 6 else self.noisy)[architecture]

        monkeypatch.setattr(Scorer, "__call__", score)

    def asked_on(self, n_batches):
        return [architecture for architecture, batches in self.asked if len(batches) == n_batches]


class Costs(ImageClassification):
    mode = "min"


@pytest.mark.parametrize("task", [ImageClassification(), Costs()], ids=["max", "min"])
def test_the_best_of_a_space_is_found_in_a_table(monkeypatch, task):
    lookup = Lookup(monkeypatch, noise=0.0)
    chosen, candidates = method(task=task, n_candidates=500, n_batches=1, n_finalists=1).choose(digits())
    best = max if task.mode == "max" else min
    assert chosen == best(lookup.true, key=lookup.true.get)
    assert len(candidates) == SMALL.size


def test_candidates_are_asked_once_on_a_few_batches_and_finalists_on_the_whole_part(monkeypatch):
    lookup, data = Lookup(monkeypatch), digits()
    search = method(n_candidates=30, n_batches=2, n_finalists=4)
    chosen, candidates = search.choose(data)

    drawn = [search.draw("ranking", 0, candidate) for candidate in range(30)]
    assert len(set(drawn)) < 30  # some twice, and yet
    assert lookup.asked_on(2) == list(dict.fromkeys(drawn))
    ranked = sorted(set(drawn), key=lookup.noisy.get, reverse=True)
    assert list(candidates.items()) == [(architecture, lookup.noisy[architecture]) for architecture in ranked]
    finalists = ranked[:4]
    assert lookup.asked_on(6) == finalists
    assert chosen == max(finalists, key=lookup.true.get)
    assert chosen != ranked[0]  # the whole part decides

    few, *others = [batches for _, batches in lookup.asked if len(batches) == 2]
    assert all(batches is few for batches in others)
    for one, other in zip(few, data.evaluation("architecture", 2), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("steps", "rounds", "expected"), [(0, None, 1), (19_999, None, 1), (35_000, None, 3), (35_000, 2, 2)]
)
def test_a_round_per_ten_thousand_steps_and_the_best_of_all_rounds(monkeypatch, steps, rounds, expected):
    lookup = Lookup(monkeypatch)
    search = method(n_candidates=5, n_batches=1, n_finalists=2, rounds=rounds)
    search.steps.fill_(steps)
    chosen, candidates = search.choose(digits())
    finalists, asked = [], []
    for number in range(expected):
        drawn = dict.fromkeys(search.draw("ranking", number, candidate) for candidate in range(5))
        asked += drawn
        finalists += sorted(drawn, key=lookup.noisy.get, reverse=True)[:2]
    assert lookup.asked_on(1) == asked
    assert set(candidates) == set(asked)
    assert lookup.asked_on(6) == list(dict.fromkeys(finalists))
    assert chosen == max(finalists, key=lookup.true.get)


def test_given_candidates_are_compared_in_one_round(monkeypatch):
    lookup = Lookup(monkeypatch)
    search = method(n_candidates=5, n_batches=1, n_finalists=2, rounds=3)
    given = list(SMALL)[10:20]
    chosen, candidates = search.choose(digits(), candidates=given)
    assert lookup.asked_on(1) == given
    assert set(candidates) == set(given)
    assert lookup.asked_on(6) == sorted(given, key=lookup.noisy.get, reverse=True)[:2]
    assert chosen == max(lookup.asked_on(6), key=lookup.true.get)


def test_a_candidate_without_a_score_comes_last(monkeypatch):
    lookup = Lookup(monkeypatch)
    search = method(n_candidates=20, n_batches=1, n_finalists=5)
    drawn = list(dict.fromkeys(search.draw("ranking", 0, candidate) for candidate in range(20)))
    for architecture in drawn[::2]:
        lookup.noisy[architecture] = math.nan
    _, candidates = search.choose(digits())
    missing = [math.isnan(score) for score in candidates.values()]
    assert missing == sorted(missing)
    assert sum(missing) == len(drawn[::2])
    assert not set(lookup.asked_on(6)) & set(drawn[::2])


def test_the_number_of_steps_survives_a_checkpoint(tmp_path):
    run, search = trainer(max_epochs=1, limit_val_batches=0), method()
    run.fit(search, digits())
    run.save_checkpoint(tmp_path / "last.ckpt")
    assert int(RandomSearchWS.load_from_checkpoint(tmp_path / "last.ckpt").steps) == 5


@pytest.mark.parametrize(
    "settings", [{"n_candidates": 0}, {"n_batches": 0}, {"n_finalists": -1}, {"rounds": 0}, {"bn": "running"}]
)
def test_wrong_settings_are_named(settings):
    ((name, value),) = settings.items()
    with pytest.raises(SettingError, match=rf"^{name}: .*got {value!r}$"):
        method(**settings)
