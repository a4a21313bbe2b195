"""NSGA-II: selection against the paper's loops, tournaments, children, generations; and the front that it finds."""

import math
from collections import Counter
from random import Random

import pytest
from scipy.stats import chisquare

from lightning_nas.errors import SettingError
from lightning_nas.spaces import DARTSCell, NASBench201
from lightning_nas.strategies import NSGA2, Trial
from lightning_nas.strategies.fronts import constrained_ranks, crowding_distances, front
from tests.strategies.conftest import pairwise_table

SPACE = NASBench201()


def tell(strategy, first, n, values, **more):
    """Asks for trials and tells them, with values that depend on the number."""
    proposals = strategy.ask(n)
    trials = [Trial(k, p.architecture, values(k), **more) for k, p in enumerate(proposals, start=first)]
    strategy.tell(trials)
    return trials


@pytest.mark.parametrize("seed", range(4))
def test_whole_fronts_survive_and_of_the_next_those_that_are_farthest_apart(seed):
    rng = Random(seed)
    strategy = NSGA2(population=20).begin(SPACE, seed)

    def made(k, architecture):
        if rng.random() < 0.1:
            return Trial(k, architecture, status="failed")
        violation = max(0.0, rng.uniform(-2, 1))
        return Trial(k, architecture, (rng.random(), rng.random()), violation=violation)

    first = [made(k, p.architecture) for k, p in enumerate(strategy.ask(30))]
    assert len(first) == 20
    strategy.tell(first)
    assert sorted(t.number for t in strategy.population) == list(range(20))
    children = [made(k, p.architecture) for k, p in enumerate(strategy.ask(30), start=20)]
    strategy.tell(children)

    candidates = [*first, *children]
    ranks = constrained_ranks(candidates)
    crowding = crowding_distances(candidates, ranks)
    survivors, rank = [], 0
    while True:  # as printed: whole fronts as long as they fit
        members = [k for k in range(40) if ranks[k] == rank]
        if len(survivors) + len(members) > 20:
            break
        survivors += members
        rank += 1
    survivors += sorted(members, key=lambda k: -crowding[k])[: 20 - len(survivors)]
    assert {t.number for t in strategy.population} == set(survivors)


def test_the_winner_of_two_begins_a_child():
    """With one objective members have an order, of which the k-th best of n wins with ((n-k)² - (n-k-1)²) / n²."""
    n, wins = 8, Counter()
    strategy = NSGA2(population=n, crossover=0.0, mutation=0.0, distinct=False)
    for seed in range(300):
        strategy.begin(SPACE, seed)
        parents = {t.architecture: t.number for t in tell(strategy, 0, n, lambda k: (float(-k),))}
        wins.update(parents[p.architecture] for p in strategy.ask(n) if len(parents) == n)
    total = wins.total()
    expected = [((n - k) ** 2 - (n - k - 1) ** 2) / n**2 * total for k in range(n)]
    assert total > 2000
    assert chisquare([wins[k] for k in range(n)], expected).pvalue > 1e-3


def test_within_a_front_the_one_whose_neighbours_are_farther_away_wins():
    strategy = NSGA2(population=4, crossover=0.0, mutation=0.0, distinct=False).begin(SPACE, seed=1)
    values = [(0.0, 10.0), (5.0, 5.0), (5.1, 4.9), (10.0, 0.0)]
    trials = tell(strategy, 0, 4, values.__getitem__)
    assert {t.number for t in strategy.population[:2]} == {0, 3}
    crowded = trials[2].architecture  # its neighbours span 1.02 of the front, those of 1 less than that of its own
    wins = Counter()
    for first in range(4, 400, 4):
        wins.update(p.architecture for p in strategy.ask(4))
        strategy.tell([Trial(k, trials[0].architecture, (-1.0, -1.0)) for k in range(first, first + 4)])
    assert wins[trials[0].architecture] + wins[trials[3].architecture] > 2 * wins[crowded]


def test_a_child_takes_each_choice_from_either_parent():
    strategy = NSGA2(population=2, crossover=1.0, mutation=0.0, distinct=False).begin(SPACE, seed=2)
    strategy.tell([Trial(-2, (0,) * 6, (1.0, 0.0)), Trial(-1, (4,) * 6, (0.0, 1.0))])
    children = [p.architecture for first in range(0, 600, 2) for p in next_generation(strategy, first)]
    assert {option for child in children for option in child} == {0, 4}
    mixed = [child.count(4) for child in children if len(set(child)) == 2]
    assert 0.4 < len(mixed) / len(children) < 0.6  # half of the pairs are one parent twice
    assert sum(mixed) / len(mixed) == pytest.approx(3, abs=0.2)


def next_generation(strategy, first):
    """Children of a population that stays as it is."""
    proposals = strategy.ask(2)
    strategy.tell([Trial(first + k, p.architecture, status="failed") for k, p in enumerate(proposals)])
    return proposals


@pytest.mark.parametrize(("mutation", "share"), [(None, 1 / 6), (0.5, 0.5), (1.0, 1.0), (0.0, 0.0)])
def test_mutation_gives_choices_another_option_with_its_probability(mutation, share):
    strategy = NSGA2(population=2, crossover=0.0, mutation=mutation, distinct=False).begin(SPACE, seed=3)
    strategy.tell([Trial(-2, (1,) * 6, (1.0,)), Trial(-1, (1,) * 6, (1.0,))])
    options = Counter(o for first in range(0, 800, 2) for p in next_generation(strategy, first) for o in p.architecture)
    assert 1 - options[1] / options.total() == pytest.approx(share, abs=0.025)
    assert len(options) == {0.0: 1, 1.0: 4}.get(share, 5)


def test_mutation_of_a_space_with_a_rule_leaves_it_legal():
    space = DARTSCell(nodes=3)
    strategy = NSGA2(population=10, mutation=0.5).begin(space)
    for first in range(0, 60, 10):
        trials = tell(strategy, first, 10, lambda k: (math.sin(k), math.cos(3 * k)))
        assert all(space.legal(t.architecture) for t in trials)
    assert len({t.architecture for t in trials}) == 10


def small(n_options=4):
    return NASBench201().restrict(
        {c.name: c.options[:n_options] for c in SPACE.choices[:3]}
        | dict.fromkeys([c.name for c in SPACE.choices[3:]], "none")
    )


@pytest.mark.parametrize("asynchronous", [False, True])
def test_no_architecture_comes_twice_before_all_were_tried(asynchronous):
    space = small()
    assert space.size == 64
    known = Trial(-1, space.random(Random(9)), (1.0,))
    strategy = NSGA2(population=8, asynchronous=asynchronous).begin(space, seed=4)
    strategy.tell([known])
    trials = [known]
    while len(trials) < 90:
        told = tell(strategy, len(trials) - 1, 5, lambda k: (float(k),))
        assert told
        trials += told
    assert len({t.architecture for t in trials[:60]}) == 60  # for the last some tries may not find a new one
    repeating = NSGA2(population=8, distinct=False).begin(space, seed=4)
    trials = [t for first in range(0, 56, 8) for t in tell(repeating, first, 8, lambda k: (float(k),))]
    assert len({t.architecture for t in trials}) < 56


@pytest.mark.parametrize("round_size", [1, 3, 8, 50])
def test_generations_do_not_depend_on_the_size_of_rounds(round_size):
    strategy = NSGA2(population=8).begin(SPACE, seed=5)
    trials = []
    while len(trials) < 40:
        proposals = strategy.ask(round_size)
        assert proposals
        told = [Trial(len(trials) + k, p.architecture, (math.sin(len(trials) + k),)) for k, p in enumerate(proposals)]
        strategy.tell(told)
        trials += told
    assert [t.architecture for t in trials[:40]] == WITHOUT_ROUNDS


def one_by_one():
    strategy = NSGA2(population=8).begin(SPACE, seed=5)
    return [t.architecture for k in range(40) for t in tell(strategy, k, 1, lambda k: (math.sin(k),))]


WITHOUT_ROUNDS = one_by_one()


def test_a_generation_waits_for_its_last_trial_unless_asynchronous():
    strategy = NSGA2(population=4).begin(SPACE)
    proposals = strategy.ask(9)
    assert len(proposals) == 4
    strategy.tell([Trial(k, proposals[k].architecture, status="failed") for k in (3, 1, 0)])
    assert strategy.ask(2) == []
    strategy.tell([Trial(2, proposals[2].architecture, (1.0,))])
    assert strategy.population[0].number == 2
    assert len(strategy.ask(9)) == 4
    free = NSGA2(population=4, asynchronous=True).begin(SPACE)
    assert len(free.ask(9)) == 9


def test_what_was_known_and_what_its_user_tried_first_are_of_the_first_generation():
    strategy = NSGA2(population=6).begin(SPACE, seed=6)
    rng = Random(1)
    strategy.tell([Trial(k, SPACE.random(rng), (1.0,)) for k in (-2, -1)])
    strategy.n_asked = 3
    strategy.tell([Trial(0, SPACE.random(rng), (1.0,))])
    assert len(strategy.ask(9)) == 1  # 2 known, 3 tried first
    strategy.tell([Trial(k, SPACE.random(rng), (1.0,)) for k in (1, 3)])
    assert strategy.ask(9) == []
    strategy.tell([Trial(2, SPACE.random(rng), (1.0,))])
    assert sorted(t.number for t in strategy.population) == [-2, -1, 0, 1, 2, 3]
    assert len(strategy.ask(9)) == 6
    many = NSGA2(population=6).begin(SPACE)
    many.tell([Trial(k, SPACE.random(rng), (float(k),)) for k in range(-9, 0)])
    assert len(many.ask(9)) == 6
    assert [t.number for t in many.population] == [-1, -2, -3, -4, -5, -6]


def test_results_of_another_fidelity_leave_the_population_when_its_own_are_there():
    strategy = NSGA2(population=4).begin(SPACE)
    rng = Random(1)
    strategy.tell([Trial(k, SPACE.random(rng), (9.0,), fidelity=1) for k in (-2, -1)])
    tell(strategy, 0, 2, lambda k: (float(k),), fidelity=3)
    assert sorted(t.number for t in strategy.population) == [0, 1]
    tell(strategy, 2, 4, lambda k: (float(k),), fidelity=3)
    assert [t.number for t in strategy.population] == [5, 4, 3, 2]


def test_another_result_of_a_trial_replaces_the_first():
    strategy = NSGA2(population=3).begin(SPACE)
    trials = tell(strategy, 0, 3, lambda k: (float(k),))
    strategy.ask(1)
    strategy.tell([Trial(0, trials[0].architecture, (9.0,))])
    for number in range(3, 6):
        if number > 3:
            strategy.ask(1)
        strategy.tell([Trial(number, (0,) * 6, status="failed")])
    assert [t.number for t in strategy.population] == [0, 2, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"population": 1}, "population: at least 2, got 1"),
        ({"crossover": 1.5}, "crossover: from 0 to 1, got 1.5"),
        ({"mutation": -0.1}, "mutation: from 0 to 1, or null, got -0.1"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingError) as caught:
        NSGA2(**settings)
    assert str(caught.value) == message


def test_a_space_of_one_architecture_is_refused():
    with pytest.raises(SettingError, match="space: has one architecture"):
        NSGA2().begin(NASBench201().restrict((0,) * 6))


# -- the front that it finds -----------------------------------------------------------------------------------------


def n_until_front(strategy, space, table, true, n_trials, seed):
    """After how many trials all values of the true front were found; None: not within the budget."""
    strategy.begin(space, seed)
    missing = {t.values for t in true}
    for number in range(n_trials):
        (proposal,) = strategy.ask()
        values = table[proposal.architecture]
        strategy.tell([Trial(number, proposal.architecture, values)])
        missing.discard(values)
        if not missing:
            return number + 1
    return None


def two_objectives(seed):
    """4,096 architectures of two scores that pull in different directions."""
    space, scores = pairwise_table(seed)
    _, others = pairwise_table(seed + 100)
    return space, {a: (score, others[a]) for a, score in scores.items()}


def n_of_seeds(n_seeds):
    """From how many seeds the front of 16 among 4,096 architectures is found by 2,500 trials."""
    space, table = two_objectives(0)
    true = front([Trial(k, a, values) for k, (a, values) in enumerate(table.items())])
    assert len(true) == 16  # 2,500 different random architectures have all of them with a probability of .0004
    strategy = NSGA2(population=60)
    return sum(n_until_front(strategy, space, table, true, 2500, seed) is not None for seed in range(n_seeds))


def test_the_true_front_of_4096_architectures_is_found():
    assert n_of_seeds(5) == 5


@pytest.mark.slow
def test_the_true_front_is_found_from_95_of_100_seeds():
    assert n_of_seeds(100) >= 95
