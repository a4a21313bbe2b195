"""Fronts against their definition, and a hypervolume against counting."""

import itertools
import math
from random import Random

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.strategies import Trial
from lightning_nas.strategies.fronts import constrained_ranks, front, hypervolume


def some_trials(n, n_values, seed, limited=False, fidelities=(None,)):
    """Of few different values, so that there are equal ones."""
    rng = Random(seed)
    trials = []
    for number in range(n):
        values = tuple(float(rng.randrange(6)) for _ in range(n_values))
        violation = rng.choice([0.0, 0.0, 0.5, 2.0]) if limited else 0.0
        failed = limited and rng.random() < 0.2
        more = {"status": "failed"} if failed else {"values": values, "violation": violation}
        trials.append(Trial(number, (number,), fidelity=rng.choice(fidelities), **more))
    return trials


def dominates(a, b):
    """By the definition of constrained domination."""
    if not b.done or not a.done:
        return a.done and not b.done
    if a.violation or b.violation:
        return a.violation < b.violation
    return a.values != b.values and all(x >= y for x, y in zip(a.values, b.values, strict=True))


@pytest.mark.parametrize("n_values", [1, 2, 3, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_front_is_what_no_other_dominates(n_values, seed):
    trials = some_trials(40, n_values, seed, limited=True, fidelities=(1, 3))
    compared = [t for t in trials if t.feasible and t.fidelity == 3]
    expected = [t for t in compared if not any(dominates(other, t) for other in compared)]
    assert front(trials) == expected


@pytest.mark.parametrize("n_values", [1, 2, 3])
@pytest.mark.parametrize("limited", [False, True])
def test_ranks_are_those_of_taking_one_front_away_after_the_other(n_values, limited):
    trials = some_trials(40, n_values, 7, limited)
    left, expected, rank = list(trials), {}, 0
    while left:
        first = [t for t in left if not any(dominates(other, t) for other in left)]
        expected |= {t.number: rank for t in first}
        left = [t for t in left if t not in first]
        rank += 1
    assert constrained_ranks(trials) == [expected[t.number] for t in trials]


def test_where_nothing_is_feasible_there_is_no_front():
    trials = [Trial(0, (), (1.0,), violation=1.0), Trial(1, (), status="failed")]
    assert front(trials) == front([]) == []
    assert constrained_ranks(trials) == [0, 1]
    assert constrained_ranks([]) == []
    assert hypervolume(trials, [0.0]) == 0.0


@pytest.mark.parametrize("n_values", [2, 3])
def test_a_hypervolume_is_the_number_of_unit_cubes_below_the_front(n_values):
    trials = some_trials(12, n_values, 3)
    cubes = itertools.product(range(1, 6), repeat=n_values)
    inside = sum(any(all(v > x for v, x in zip(t.values, cube, strict=True)) for t in trials) for cube in cubes)
    assert hypervolume(trials, [1.0] * n_values) == inside > 0
    assert math.isclose(hypervolume(trials, [9.0] * n_values), 0.0)


def test_a_reference_has_a_number_for_each_objective():
    with pytest.raises(SettingError, match="reference: a number for each of 2 objectives, got 1"):
        hypervolume([Trial(0, (), (1.0, 2.0))], [0.0])
