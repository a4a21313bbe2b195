"""Fronts against their definition, and a hypervolume against counting."""

import itertools
import math
from random import Random

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.strategies import Trial
from lightning_nas.strategies.fronts import constrained_ranks, crowding_distances, front, hypervolume


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


DOMINATION = {
    "a better value": ({"values": (2.0, 1.0)}, {"values": (1.0, 1.0)}, [0, 1]),
    "one better, one worse": ({"values": (2.0, 1.0)}, {"values": (1.0, 2.0)}, [0, 0]),
    "equal": ({"values": (1.0, 1.0)}, {"values": (1.0, 1.0)}, [0, 0]),
    "feasible and bad, not feasible and good": (
        {"values": (0.0, 0.0)},
        {"values": (9.0, 9.0), "violation": 0.01},
        [0, 1],
    ),
    "the smaller violation and bad": (
        {"values": (0.0, 0.0), "violation": 0.1},
        {"values": (9.0, 9.0), "violation": 0.2},
        [0, 1],
    ),
    "equal violations": ({"values": (0.0, 0.0), "violation": 0.1}, {"values": (9.0, 9.0), "violation": 0.1}, [0, 0]),
    "violated and failed": ({"values": (0.0, 0.0), "violation": 99.0}, {"status": "failed"}, [0, 1]),
    "failed and diverged": ({"status": "failed"}, {"status": "diverged"}, [0, 0]),
}


@pytest.mark.parametrize(("one", "other", "ranks"), DOMINATION.values(), ids=DOMINATION)
def test_constrained_domination_is_that_of_the_paper(one, other, ranks):
    trials = [Trial(0, (), **one), Trial(1, (), **other)]
    assert constrained_ranks(trials) == ranks
    assert constrained_ranks(trials[::-1]) == ranks[::-1]


def test_crowding_distances_of_two_fronts_by_hand():
    first = [(0.0, 10.0), (6.0, 2.0), (1.0, 6.0), (10.0, 0.0)]
    second = [(-1.0, 5.0), (-3.0, 8.0), (-2.0, 7.0)]
    values = [first[0], second[0], first[1], first[2], second[1], second[2], first[3]]
    trials = [Trial(k, (), v) for k, v in enumerate(values)] + [Trial(7, (), status="failed")]
    distances = crowding_distances(trials, [0, 1, 0, 0, 1, 1, 0, 2])
    assert distances == pytest.approx([math.inf, math.inf, 0.9 + 0.6, 0.6 + 0.8, math.inf, 1.0 + 1.0, math.inf, 0.0])
    assert crowding_distances(trials[7:], [0]) == [0.0]
    assert crowding_distances([Trial(k, (), (1.0, 2.0)) for k in range(3)], [0, 0, 0]) == [math.inf, 0.0, math.inf]
    assert crowding_distances([], []) == []


@pytest.mark.parametrize("n_values", [1, 2, 3])
def test_crowding_distances_are_those_of_the_papers_loop(n_values):
    rng = Random(n_values)
    trials = [Trial(k, (), tuple(rng.random() for _ in range(n_values))) for k in range(60)]
    ranks = constrained_ranks(trials)
    slow = [0.0] * len(trials)
    for rank in set(ranks):
        members = [k for k in range(len(trials)) if ranks[k] == rank]
        for m in range(n_values):
            members.sort(key=lambda k: trials[k].values[m])
            least, most = trials[members[0]].values[m], trials[members[-1]].values[m]
            slow[members[0]] = slow[members[-1]] = math.inf
            for before, k, after in zip(members, members[1:], members[2:], strict=False):
                slow[k] += (trials[after].values[m] - trials[before].values[m]) / (most - least)
    assert crowding_distances(trials, ranks) == pytest.approx(slow)
