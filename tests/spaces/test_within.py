"""Paths under limits of sums: against all paths of small rules."""

import math
from collections import Counter
from random import Random

import pytest
from scipy.stats import chisquare

from lightning_nas.spaces import DARTSCell, NASBench201
from lightning_nas.spaces.within import Draws, cheapest_within

CELL = DARTSCell(kinds=["normal"], nodes=2, operations=("none", "skip_connect", "sep_conv_3x3", "dil_conv_5x5"))  # 243
FREE = NASBench201(operations=["none", "skip_connect", "nor_conv_3x3"])  # 729


def terms(space, rng, most):
    """Whole numbers, as different as those of parameters."""
    return [[float(rng.randrange(most)) for _ in choice.options] for choice in space.choices]


def total(rows, path):
    return sum(row[option] for row, option in zip(rows, path, strict=True))


@pytest.mark.parametrize("space", [CELL, FREE], ids=["rule", "free"])
@pytest.mark.parametrize("n_limits", [1, 2])
def test_the_cheapest_of_all_that_keep_the_limits(space, n_limits):
    paths, none = list(space), 0
    for seed in range(40):
        rng = Random(seed)
        costs = [[rng.gauss(0, 1) for _ in choice.options] for choice in space.choices]
        sums = [terms(space, rng, rng.choice([10, 1_000_000])) for _ in range(n_limits)]
        limits = [total(rows, rng.choice(paths)) for rows in sums]  # one path is just at the limit
        keep = [path for path in paths if all(total(r, path) <= most for r, most in zip(sums, limits, strict=True))]
        found = cheapest_within(space.tables, lambda k, o, c=costs: c[k][o], sums, [most + 0.25 for most in limits])
        if not keep:
            none += 1
            assert found is None
            continue
        assert found in keep
        assert total(costs, found) == pytest.approx(min(total(costs, path) for path in keep), abs=1e-9)
    assert none < 40


def test_paths_that_do_not_count_are_passed_over():
    rng, without = Random(1), []
    costs, sums = [[rng.random() for _ in choice.options] for choice in CELL.choices], terms(CELL, rng, 100)
    middle = sorted(total(sums, path) for path in CELL)[30]
    keep = sorted((path for path in CELL if total(sums, path) <= middle), key=lambda path: total(costs, path))
    while (
        path := cheapest_within(CELL.tables, lambda k, o: costs[k][o], [sums], [middle + 0.25], without)
    ) is not None:
        without.append(path)
    assert len(without) == len(keep) > 25
    assert [total(costs, path) for path in without] == pytest.approx([total(costs, path) for path in keep])


@pytest.mark.parametrize("number", [3, 30, 200])
@pytest.mark.parametrize("space", [CELL, FREE], ids=["rule", "free"])
def test_draws_are_uniform_among_those_that_keep_the_limit(space, number):
    rows = terms(space, Random(2), 1000)
    limit = sorted(total(rows, path) for path in space)[number - 1]
    keep = {path for path in space if total(rows, path) <= limit}
    draws, rng, drawn, tries = Draws(space.tables, rows, limit), Random(3), Counter(), 0
    while drawn.total() < 30 * len(keep):
        path, kept = draws(rng)
        tries += 1
        if kept and total(rows, path) <= limit:
            drawn[path] += 1
    assert set(drawn) == keep
    assert chisquare(list(drawn.values())).pvalue > 0.001
    assert drawn.total() / tries > 0.1  # where plain draws keep one of 81 or of 243


def test_draws_of_one_in_a_billion():
    space = DARTSCell()  # 1e18
    rows = [[0.0 if o == "skip_connect" else 5.0 + k for k, o in enumerate(c.options)] for c in space.choices]
    least = total(rows, space.tables.cheapest(lambda k, o: rows[k][o]))
    draws, rng = Draws(space.tables, rows, least + 20), Random(0)
    found = [path for path, kept in (draws(rng) for _ in range(300)) if kept and total(rows, path) <= least + 20]
    assert len(found) > 30
    assert len(set(found)) > 25
    assert all(map(space.legal, found))
    assert not any(total(rows, space.random(rng)) <= least + 20 for _ in range(2000))
    assert math.isfinite(draws.tilt)
