"""SPOS: which paths are trained, which candidates are scored, and under which limit."""

import itertools
import math
import signal
from collections import Counter
from random import Random

import pytest
import torch
from scipy.stats import chisquare

from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.methods import SPOS
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces import DARTSCell, ProxylessMobile, ShuffleBlocks
from lightning_nas.supernets import Limits, Scorer
from lightning_nas.tasks import ImageClassification
from lightning_nas.training import SGD, Linear
from tests.helpers.methods import child_of, differing, snapshot, trainer

BLOCKS = ShuffleBlocks(4, (8, 12), (1, 2), (1, 2), 1, 8)  # 64 architectures
LIMIT = 32_000  # multiply-adds, which about half of them keep
FEW = {"rounds": 3, "population": 6, "n_parents": 3, "n_mutants": 2, "n_crossovers": 2, "n_batches": 1}


def digits():
    return Digits(batch_size=128)


def spos(space=BLOCKS, **settings):
    return SPOS(space, ImageClassification(), {"dropout": 0.0}, digits().inputs, **settings)


def multiply_adds():
    """Counts those of an architecture."""
    flops = spos().flops
    return lambda architecture: flops(architecture) / 2


class Table:
    """Scores from a table in place of those under shared weights, and what was asked for."""

    def __init__(self, monkeypatch, score=lambda architecture: -sum(architecture)):
        self.asked, self.scorers = [], set()

        def call(scorer, architecture):
            self.asked.append(architecture)
            self.scorers.add((len(scorer.validation), len(scorer.calibration)))
            return score(architecture)

        monkeypatch.setattr(Scorer, "__call__", call)


# -- what is drawn -----------------------------------------------------------------------------------------------------


def test_paths_are_uniform():
    search = spos()
    drawn = Counter(search.draw("training", epoch, step) for epoch in range(64) for step in range(100))
    assert chisquare([drawn[architecture] for architecture in BLOCKS]).pvalue > 0.01


def test_options_of_every_layer_are_uniform_in_the_space_of_the_paper():
    space = ShuffleBlocks()
    search = SPOS(space, ImageClassification())
    drawn = [search.draw("training", 0, step) for step in range(20_000)]
    p_values = [chisquare([Counter(path[k] for path in drawn)[o] for o in range(4)]).pvalue for k in range(20)]
    assert min(p_values) > 0.01 / 20


def test_a_bin_is_drawn_and_then_a_path_in_it():
    costs = sorted(map(multiply_adds(), BLOCKS))
    edges = [costs[0], costs[8], costs[48], costs[63]]
    assert len(set(edges)) == 4
    search = spos(bins=edges)
    drawn = [search.flops(search.draw("training", 0, step)) / 2 for step in range(900)]
    inner = [sum(low < cost < high for cost in drawn) for low, high in itertools.pairwise(edges)]
    apart = [sum(low < cost < high for cost in costs) for low, high in itertools.pairwise(edges)]
    # those on an edge lie in two bins; without bins the middle one is drawn five times as often
    assert max(inner) < 2.5 * min(inner)
    assert max(apart) > 4 * min(apart)


def test_a_bin_that_no_path_lies_in_gives_way():
    costs = list(map(multiply_adds(), BLOCKS))
    search = spos(bins=[1, 2, max(costs)])
    assert search.draw("training", 0, 0) in BLOCKS
    costly = spos(bins=[1, 2])
    with pytest.raises(SettingError, match=r"^bins: some of the multiply-adds that paths have, about .*; got 1 to 2$"):
        costly.check(trainer(max_epochs=1), digits())


def test_a_step_moves_the_path_alone():
    search, run = spos(), trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    before = snapshot(search)
    run.fit(search, digits())
    path = BLOCKS.to_names(search.draw("training", 0, 0))
    changed = {name for name in differing(before, snapshot(search)) if name.startswith("network.layers.")}
    assert {tuple(name.split(".")[2:5:2]) for name in changed} == set(path.items())


def test_its_optimizer_is_the_released_one():
    search = SPOS(ProxylessMobile((4, 4), (4,), (2,), (1,), 1, 8), ImageClassification(), inputs=digits().inputs)
    optimizer = search.optimizer.make(search.network.parameters())
    decayed, spared = optimizer.param_groups
    assert (decayed["lr"], decayed["momentum"], decayed["weight_decay"], spared["weight_decay"]) == (0.5, 0.9, 4e-5, 0)
    names = {id(parameter): name for name, parameter in search.network.named_parameters()}
    of_norms = {name for name, module in search.network.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    assert of_norms
    expected = {f"{name}.{part}" for name in of_norms for part in ("weight", "bias")} | {"classifier.bias"}
    assert {names[id(parameter)] for parameter in spared["params"]} == expected
    assert search.optimizer.spec == SGD(0.5, 0.9, weight_decay=4e-5, schedule=Linear(), decay_vectors=False).spec


# -- what is scored ----------------------------------------------------------------------------------------------------


def test_no_candidate_is_scored_twice_and_all_keep_the_limit(monkeypatch):
    table = Table(monkeypatch)
    search = spos(limit=f"multiply_adds <= {LIMIT}", n_calibration=3, **FEW)
    chosen, scores = search.choose(digits())
    assert len(table.asked) == len(set(table.asked)) == search.n_candidates == 18
    costs = [search.flops(architecture) / 2 for architecture in table.asked]
    assert max(costs) <= LIMIT < max(search.flops(architecture) / 2 for architecture in BLOCKS)
    assert set(scores) == set(table.asked)
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert chosen == next(iter(scores))
    assert table.scorers == {(1, 3)}


def test_flops_count_twice_what_multiply_adds_do(monkeypatch):
    table = Table(monkeypatch)
    one = spos(limit=f"flops <= {2 * LIMIT}", **FEW).choose(digits())
    assert spos(limit=f"multiply_adds <= {LIMIT}", **FEW).choose(digits()) == one
    assert table.asked[:18] == table.asked[18:]


class Costs(ImageClassification):
    mode = "min"


def test_the_best_is_the_least_where_less_is_better(monkeypatch):
    Table(monkeypatch, score=lambda architecture: 1.0 + sum(architecture))
    search = SPOS(BLOCKS, Costs(), inputs=digits().inputs, rounds=12, population=6, n_mutants=3, n_crossovers=3)
    chosen, scores = search.choose(digits())
    assert chosen == (0, 0, 0)
    assert len(scores) == 64  # and then the space is exhausted


def test_without_children_candidates_are_random(monkeypatch):
    table, few = Table(monkeypatch), FEW | {"n_mutants": 0, "n_crossovers": 0}
    spos(ShuffleBlocks(), **(few | {"population": 300, "rounds": 1})).choose(digits())
    first, _ = Counter(path[0] for path in table.asked), table.asked.clear()
    spos(ShuffleBlocks(), **(few | {"population": 50, "rounds": 6})).choose(digits())
    assert len(table.asked) == 300
    assert chisquare(list(first.values())).pvalue > 0.001
    assert chisquare(list(Counter(path[0] for path in table.asked[50:]).values())).pvalue > 0.001


def test_diverged_candidates_have_no_children(monkeypatch):
    Table(monkeypatch, score=lambda a: math.nan if a[0] else -float(sum(a)))
    chosen, scores = spos(**FEW).choose(digits())
    assert chosen[0] == 0
    missing = [math.isnan(score) for score in scores.values()]
    assert missing == sorted(missing)


def test_ctrl_c_ends_the_evolution_with_its_best(monkeypatch, capsys):
    table = Table(monkeypatch)

    def score(architecture):
        if len(table.asked) == 8:
            signal.raise_signal(signal.SIGINT)
        return -float(sum(architecture))

    table = Table(monkeypatch, score)
    chosen, scores = spos(**FEW).choose(digits())
    assert set(scores) == set(table.asked[:7])
    assert chosen == max(table.asked[:7], key=lambda architecture: -sum(architecture))
    assert "Stopped: the best of 7 candidates is taken." in capsys.readouterr().err


@pytest.fixture(scope="module")
def trained():
    search = spos(optimizer=SGD(0.2, 0.9, clip=5.0), limit=f"multiply_adds <= {LIMIT}", **FEW)
    trainer(max_epochs=40, limit_val_batches=0).fit(search, digits())
    return search


def test_recalibration_changes_the_score_of_a_mixed_network(trained):
    data, architecture = digits(), (0, 3, 1)
    recalibrated = Scorer.of(trained, data)(architecture)
    child = child_of(trained, architecture).eval()
    images, labels = map(torch.cat, zip(*data.evaluation("architecture"), strict=True))
    with torch.no_grad():
        running = (child(images).argmax(1) == labels).float().mean()
        with batch_statistics(child):
            by_batch = (child(images).argmax(1) == labels).float().mean()
    assert recalibrated > float(running) + 0.02  # the running averages are those of all paths together
    assert recalibrated == pytest.approx(float(by_batch), abs=0.1)


def test_random_architectures_to_compare_with_keep_the_limit(trained, tmp_path):
    outcome = trained.conclude(digits(), RunFolder(tmp_path), n_random=12)
    costs = [trained.flops(architecture) / 2 for architecture, _ in outcome.drawn]
    assert len(costs) == 12
    assert max(costs) <= LIMIT
    assert outcome.costs.flops == trained.flops(outcome.found.architecture) <= 2 * LIMIT
    assert trained.flops(outcome.best_random.architecture) <= 2 * LIMIT
    assert len(outcome.candidates) == 18


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"rounds": 0}, "rounds: at least 1, got 0"),
        ({"population": 0}, "population: at least 1, got 0"),
        ({"n_batches": 0}, "n_batches: at least 1, got 0"),
        ({"n_calibration": 0}, "n_calibration: at least 1, got 0"),
        ({"n_mutants": 30}, r"n_mutants, n_crossovers: .* at most population \(50\), got 30 and 25"),
        ({"n_crossovers": -1}, "n_mutants, n_crossovers: 0 or more"),
        ({"mutation": 1.5}, "mutation: from 0 to 1, got 1.5"),
        ({"bins": [3.0]}, r"bins: two or more multiply-adds, in ascending order, or null; got \[3.0\]"),
        ({"bins": [2.0, 1.0]}, "bins: two or more"),
        ({"bins": [1.0, 2.0], "space": DARTSCell()}, "bins: null, since DARTSCell is no chain of layers"),
        ({"limit": "330e6"}, "limit: '330e6' is no objective"),
        (
            {"limit": "latency <= 3"},
            "limit: 'n_params <= NUMBER', .* <= NUMBER'; got 'latency <= 3'",
        ),
        ({"limit": "min flops <= 3"}, "limit: 'n_params <= NUMBER'"),
        ({"limit": "flops >= 3"}, "limit: 'n_params <= NUMBER'"),
    ],
)
def test_wrong_settings_are_named(settings, said):
    with pytest.raises(SettingError, match=f"^{said}"):
        SPOS(settings.pop("space", BLOCKS), ImageClassification(), **settings)


def test_a_limit_that_nothing_keeps_is_refused_before_anything_is_trained():
    search = spos(limit="flops <= 10")
    said = r"^limit: no architecture of ShuffleBlocks keeps flops <= 10; the smallest there is has flops [\d,]+; raise"
    with pytest.raises(SettingError, match=said):
        trainer(max_epochs=1).fit(search, digits())


def test_a_limit_in_a_space_of_cells(monkeypatch):
    table = Table(monkeypatch)
    cell = DARTSCell(kinds=["normal"], nodes=1, operations=("none", "skip_connect", "sep_conv_3x3"))
    network = {"channels": 2, "cells": 1}
    search = SPOS(cell, ImageClassification(), network, digits().inputs, limit="flops <= 1e9", **FEW)
    light = sorted(search.flops(architecture) for architecture in cell)
    search = SPOS(cell, ImageClassification(), network, digits().inputs, limit=f"flops <= {light[2]}", **FEW)
    search.choose(digits())
    assert 0 < len(table.asked) < cell.size
    assert max(map(search.flops, table.asked)) <= light[2]
    assert Limits.of(search).keeps(Limits.of(search).random(Random(0)))
