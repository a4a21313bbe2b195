"""Limits: the best architecture that keeps them, against all of a space, and random ones."""

import functools
from collections import Counter
from random import Random

import pytest
from torch import nn

from lightning_nas.costs import Flops, profile
from lightning_nas.errors import SettingError
from lightning_nas.spaces import DARTSCell, ENASMacro, NASBench201, ShuffleBlocks
from lightning_nas.spaces.base import Choice, Network, Space
from lightning_nas.supernets import Limits

INPUTS = {"channels": 3, "image_size": 8, "num_classes": 4}
SETTINGS = {"channels": 4, "cells": 1}
EXACT = {
    "nas-bench-201": (NASBench201(operations=["none", "skip_connect", "nor_conv_3x3"]), SETTINGS),
    "darts": (
        DARTSCell(kinds=["normal"], nodes=2, operations=("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5")),
        SETTINGS,
    ),
    "shuffle-scales": (ShuffleBlocks(4, (8, 12), (1, 1), (1, 2), 1, 8, scales=(0.5, 1.0)), {}),
}
NEAR = {
    "enas-macro": (ENASMacro(layers=3, operations=["sep_conv_3x3", "max_pool_3x3"]), {"channels": 4}),
}


def limits(space, settings, *texts):
    return Limits(texts, space, INPUTS, settings)


@functools.cache
def learnt(name):
    """Limits that know how the parameters of a space add up, and those of all of its architectures."""
    space, settings = (EXACT | NEAR)[name]
    known = limits(space, settings, "n_params <= 1")
    return known, {architecture: known.limits[0].count(architecture) for architecture in space}


def under(limit, sums):
    """Limits that know already how costs add up."""
    limit.__dict__["sums"] = sums
    return limit


def costs_of(space, scores):
    """What the space derives by: KeptEdges passes over the scores of ``none``."""
    given = []
    space.derive(scores, lambda cost: given.append(cost) or space.tables.cheapest(cost))
    return lambda architecture: sum(given[0](k, option) for k, option in enumerate(architecture))


@pytest.mark.parametrize("name", [*EXACT, *NEAR])
def test_the_best_of_all_that_keep_the_limit(name):
    space, settings = (EXACT | NEAR)[name]
    known, params = learnt(name)
    assert known.exact == (name in EXACT)
    found_best = 0
    for seed in range(30):
        rng = Random(seed)
        scores = [[rng.random() for _ in choice.options] for choice in space.choices]
        most = rng.choice(sorted(params.values())[: len(params) // 2])
        found = space.derive(scores, under(limits(space, settings, f"n_params <= {most}"), known.sums).cheapest)
        total = costs_of(space, scores)
        best = min((a for a in space if params[a] <= most), key=total)
        assert space.legal(found)
        assert params[found] <= most
        found_best += total(found) == pytest.approx(total(best), abs=1e-9)
    assert found_best == 30 if name in EXACT else found_best >= 27


@pytest.mark.slow  # ten seconds, most of them for FLOPs
def test_several_limits_hold_together():
    space, settings = EXACT["darts"]
    rng, (_, params), flops = Random(0), learnt("darts"), Flops(space, INPUTS, **settings)
    few, known = sorted(params.values())[80], limits(space, settings, "n_params <= 1", "multiply_adds <= 1")
    little = sorted(map(flops, space))[80] / 2
    keep = [a for a in space if params[a] <= few and flops(a) / 2 <= little]
    assert 20 < len(keep) < 100
    for _ in range(10):
        scores = [[rng.random() for _ in choice.options] for choice in space.choices]
        both = limits(space, settings, f"n_params <= {few}", f"multiply_adds <= {little}")
        total = costs_of(space, scores)
        found = space.derive(scores, under(both, known.sums).cheapest)
        assert total(found) == pytest.approx(min(map(total, keep)), abs=1e-9)
        assert found in keep
        assert both.random(rng) in keep
    assert [a for a in space if both.keeps(a)] == keep


@pytest.mark.parametrize("name", EXACT)
def test_a_limit_that_all_keep_changes_nothing(name):
    space, settings = EXACT[name]
    wide, rng = under(limits(space, settings, "n_params <= 1e9"), learnt(name)[0].sums), Random(1)
    for _ in range(10):
        scores = [[rng.choice([0.0, 0.5, 1.0]) for _ in choice.options] for choice in space.choices]  # with ties
        assert space.derive(scores, wide.cheapest) == space.derive(scores)
    expected = [space.random(Random(n)) for n in range(20)]
    assert [wide.random(Random(n)) for n in range(20)] == expected
    assert [limits(space, settings).random(Random(n)) for n in range(20)] == expected


def test_what_is_counted_is_what_a_profile_of_the_final_network_says():
    space, settings = EXACT["darts"]
    most = sorted(learnt("darts")[1].values())[100]
    both = limits(space, settings, f"n_params <= {most}", "flops <= 300e3")
    for number in range(20):
        architecture = both.random(Random(number))
        child = space.restrict(architecture).network(INPUTS, form="final", **settings)
        costs = profile(child, child.example())
        assert costs.n_params <= most
        assert costs.flops <= 300e3


def test_random_ones_are_uniform_where_hardly_any_keeps_the_limit():
    space, settings = EXACT["nas-bench-201"]
    known, params = learnt("nas-bench-201")
    most = sorted(params.values())[5]
    keep = {a for a in space if params[a] <= most}
    assert len(keep) < 70
    few, drawn = under(limits(space, settings, f"n_params <= {most}"), known.sums), Counter()
    for number in range(2000):
        drawn[few.random(Random(number))] += 1
    assert set(drawn) <= keep
    assert len(drawn) > 0.9 * min(len(keep), 2000 / len(keep))
    assert max(drawn.values()) < 4 * 2000 / len(keep)


@pytest.mark.parametrize("name", [*EXACT, *NEAR])
def test_where_none_keeps_the_limit_the_smallest_is_named(name):
    space, settings = (EXACT | NEAR)[name]
    known, params = learnt(name)
    least = min(params.values())
    at, below = (under(limits(space, settings, f"n_params <= {m}"), known.sums) for m in (least, least - 1))
    scores = [[0.0] * len(choice.options) for choice in space.choices]
    assert params[space.derive(scores, at.cheapest)] == least
    said = (
        f"limits: no architecture of {type(space).__name__} keeps n_params <= {least - 1}; the smallest "
        f"{'there is' if name in EXACT else 'seen'} has n_params {least:,}; raise the limit, or search with a smaller "
        "network"
    )
    for ask in (lambda: space.derive(scores, below.cheapest), lambda: below.random(Random(0))):
        with pytest.raises(SettingError) as refused:
            ask()
        assert str(refused.value) == said


@pytest.mark.parametrize("text", ["latency <= 3", "n_params >= 3", "min n_params <= 3", "n_params"])
def test_what_is_no_limit_is_refused(text):
    with pytest.raises(SettingError, match=r"^limits: .*(is no objective|'n_params <= NUMBER', .* got)"):
        limits(*EXACT["darts"], text)


class Wide(Network):
    """As many linear layers as is chosen, as wide as is chosen."""

    def __init__(self, space, inputs):
        super().__init__()
        self.space, self.inputs = space, inputs
        width, depth = (int(max(choice.values)) for choice in space.choices)
        self.layers = nn.ModuleList(nn.Linear(inputs["features"], width) for _ in range(depth))


class Own(Space):
    """A width and a depth that multiply, neither relaxable, so that parameters are no sum."""

    def __init__(self):
        numbers = [tuple(range(1, 9)), (1, 2, 3, 4)]
        super().__init__(
            Choice(name, tuple(map(str, n)), str(k), "value", values=tuple(map(float, n)), relaxable=False)
            for k, (name, n) in enumerate(zip(("width", "depth"), numbers, strict=True))
        )

    def network(self, inputs, form="search"):
        return Wide(self, inputs)


def test_any_space_with_a_network_of_widths_and_depths():
    space = Own()
    few = Limits(["n_params <= 40"], space, {"features": 4}, {})
    assert not few.exact
    assert few.limits[0].count((3, 1)) == 2 * (4 * 4 + 4)
    keep = [a for a in space if 5 * (a[0] + 1) * (a[1] + 1) <= 40]
    assert [a for a in space if few.keeps(a)] == keep
    assert {few.random(Random(n)) for n in range(200)} == set(keep)
    rng = Random(0)
    for _ in range(20):
        scores = [[rng.random() for _ in choice.options] for choice in space.choices]
        total = costs_of(space, scores)
        assert space.derive(scores, few.cheapest) == min(keep, key=total)
