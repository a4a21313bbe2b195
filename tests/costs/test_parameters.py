"""Parameters of many architectures, one by one and as a sum: those of each one's own network."""

from random import Random

import pytest

from lightning_nas.costs.flops import Flops
from lightning_nas.costs.parameters import Parameters
from lightning_nas.costs.profile import profile
from lightning_nas.costs.sums import CostSum, Parts, sums_of
from lightning_nas.spaces import DARTSCell, DARTSRecurrentCell, ENASMacro, NASBench201, ProxylessMobile, ShuffleBlocks
from lightning_nas.spaces.base import Choice, Space

SMALL = {"channels": 3, "image_size": 8, "num_classes": 4}
CASES = {
    "darts": (DARTSCell(nodes=2), {"channels": 2, "cells": 3}),
    "nas-bench-201": (NASBench201(), {"channels": 2, "cells": 1}),
    "mobile": (ProxylessMobile((4, 4), (4, 6), (2, 2), (1, 2), 1, 8), {}),
    "shuffle-scales": (ShuffleBlocks(4, (8, 12), (1, 2), (1, 2), 1, 8, scales=(0.5, 1.0)), {}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_sum_is_what_a_profile_of_the_own_network_counts(name):
    space, settings = CASES[name]
    count, values = Parameters(space, SMALL, **settings), set()
    (found,) = sums_of(space, [count], Random(0))
    assert found.exact
    seen = set(count._known)
    assert len(seen) < min(space.size, 200)
    new = [a for a in (space.random(Random(100 + n)) for n in range(200)) if a not in seen][:10]
    for architecture in new:
        own = space.restrict(architecture).network(SMALL, form="final", **settings)
        assert found(architecture) == count(architecture) == profile(own, own.example()).n_params
        values.add(found(architecture))
    assert len(values) > 1


def test_choices_of_a_node_are_taken_together_where_they_act_together():
    space, settings = CASES["shuffle-scales"]
    (found,) = sums_of(space, [Parameters(space, SMALL, **settings)], Random(0))
    assert len(found.parts.options) == len(space.choices) / 2  # a block and its width
    by_choice = CostSum.of(Parts.of(space, "choice"), Parameters(space, SMALL, **settings), Random(0))
    assert not by_choice.exact
    assert by_choice.error > 0


def test_two_costs_are_sums_over_the_same_parts():
    space, settings = CASES["shuffle-scales"]
    one, other = sums_of(space, [lambda a: sum(a), Parameters(space, SMALL, **settings)], Random(0))
    assert one.exact
    assert other.exact
    assert one.parts is other.parts
    assert all(one(a) == sum(a) for a in (space.random(Random(n)) for n in range(20)))


@pytest.mark.slow
def test_what_is_no_sum_is_not_taken_for_one():
    # states that nobody reads are not halved
    macro = ENASMacro(layers=4, operations=["sep_conv_3x3", "max_pool_3x3"])
    # after a node into which nothing flows nothing is computed
    cells = NASBench201(operations=["none", "nor_conv_3x3"])
    for count in (Parameters(macro, SMALL, channels=4), Flops(cells, SMALL, channels=2, cells=1)):
        (found,) = sums_of(count.space, [count], Random(0))
        assert not found.exact
        assert max(abs(found(a) - count(a)) for a in map(count.space.tables.unrank, range(60))) > 0


class Depth(Space):
    """Three choices after a depth; those beyond it have their first option, and cost nothing."""

    prior = "choice"

    def __init__(self):
        super().__init__(
            [Choice("depth", ("1", "2", "3"), "0"), *(Choice(f"c{k}", ("a", "b"), str(k)) for k in (1, 2, 3))]
        )

    def step(self, left, choice, option):
        if choice.name == "depth":
            return int(option)
        return None if left == 0 and option != "a" else max(0, left - 1)


def test_an_architecture_is_put_together_from_its_parts():
    for space in (Depth(), DARTSCell(nodes=2), CASES["shuffle-scales"][0]):
        for by in ("choice", "node"):
            parts = Parts.of(space, by)
            assert parts.tables.size == space.size
            for number in range(10):
                architecture = space.random(Random(number))
                assert parts.join(parts.split(architecture)) == architecture
                near = parts.neighbours(architecture)
                assert architecture not in near
                assert all(map(space.legal, near))
                possible = sum(len(options) - 1 for options in parts.tables.possible)
                assert len(near) == possible


def test_a_sum_under_a_rule_is_found_though_not_all_combinations_are_legal():
    space = Depth()
    (found,) = sums_of(space, [lambda a: 100 + 7 * a[0] + 5 * a[1] + 3 * a[2] + 2 * a[3]], Random(0))
    assert found.exact
    assert [found(a) for a in space] == [100 + 7 * a[0] + 5 * a[1] + 3 * a[2] + 2 * a[3] for a in space]


def test_a_recurrent_cell():
    space, inputs = DARTSRecurrentCell(nodes=2), {"vocabulary": 11}
    architecture = space.random(Random(0))
    own = space.restrict(architecture).network(inputs, form="final", hidden=4)
    assert Parameters(space, inputs, hidden=4)(architecture) == sum(p.numel() for p in own.parameters())
