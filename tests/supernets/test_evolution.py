"""The evolution of SPOS: who is born, and that it finds what random search finds later."""

import itertools
import statistics
from collections import Counter
from random import Random

import pytest
from scipy.stats import binomtest, chisquare

from lightning_nas.spaces import Choice, DARTSCell, NASBench201, Space
from lightning_nas.supernets import Evolution

CELL = DARTSCell(kinds=["normal"], nodes=2, operations=("none", "skip_connect", "max_pool_3x3", "sep_conv_3x3"))
TEN = Space([Choice(f"c{k}", ("a", "b", "c", "d"), str(k)) for k in range(10)])


def evolution(space=TEN, seed=0, legal=lambda architecture: True, **settings):
    def random(rng):
        return next(a for a in iter(lambda: space.random(rng), None) if legal(a))

    return Evolution(space, seed, random, legal, **settings)


def run(search, score, rounds):
    """All candidates in the order in which they were scored."""
    scores = {}
    for number in range(rounds):
        for candidate in search.round(number, sorted(scores, key=scores.get, reverse=True)):
            assert candidate not in scores
            scores[candidate] = score(candidate)
    return list(scores)


def test_the_first_round_is_random_and_a_later_one_is_half_mutants_and_half_mixes():
    search = evolution()
    first = search.round(0, [])
    assert len(set(first)) == 50
    parents = first[:10]
    second = search.round(1, first)
    assert len(set(second)) == 50
    assert not set(first) & set(second)

    def distance(child):
        return min(sum(a != b for a, b in zip(child, parent, strict=True)) for parent in parents)

    def mixed(child):
        pairs = itertools.combinations(parents, 2)
        return any(all(c in genes for c, *genes in zip(child, *pair, strict=True)) for pair in pairs)

    assert statistics.fmean(map(distance, second[:25])) < 2 < statistics.fmean(map(distance, first[10:]))
    assert all(map(mixed, second[25:]))
    assert sum(map(mixed, second[:25])) < 25


def test_only_the_best_have_children():
    best, *others = evolution().round(0, [])
    children = evolution(parents=1, mutants=50, crossovers=0, mutation=0.3).round(1, [best, *others])
    assert statistics.fmean(sum(a != b for a, b in zip(child, best, strict=True)) for child in children) < 4


@pytest.mark.parametrize("mutation", [0.1, 0.5])
def test_a_choice_of_a_mutant_is_drawn_from_all_options_with_the_given_probability(mutation):
    search, rng, parent = evolution(mutation=mutation), Random(1), (2,) * 10
    options = Counter(option for _ in range(2000) for option in search.mutant(parent, rng))
    expected = [mutation / 4, mutation / 4, 1 - 0.75 * mutation, mutation / 4]
    assert chisquare([options[k] for k in range(4)], [20_000 * share for share in expected]).pvalue > 0.01


def test_a_mix_takes_each_choice_from_either_parent_as_often():
    search, rng = evolution(), Random(2)
    genes = [gene for _ in range(500) for gene in search.crossover([(0,) * 10, (1,) * 10], rng)]
    ones = 0.5 * len(genes)  # the same parent twice in half of the draws, either as often
    assert abs(sum(genes) - ones) < 5 * (len(genes) * 10 * 0.25) ** 0.5
    assert set(genes) == {0, 1}


def test_children_in_a_space_with_a_rule_are_architectures():
    search = evolution(CELL, population=20, mutants=10, crossovers=10, parents=5)
    found = run(search, sum, 5)
    assert len(found) > 40
    assert all(map(CELL.legal, found))


def test_every_candidate_keeps_the_limit_and_none_comes_twice():
    found = run(evolution(legal=lambda a: sum(a) <= 12), sum, 10)
    assert len(found) == len(set(found)) == 500
    assert max(map(sum, found)) == 12


def test_what_parents_cannot_make_is_random():
    search = evolution(population=20, mutants=20, crossovers=0, mutation=0.0)
    first = search.round(0, [])
    second = search.round(1, first)  # a mutant that is its parent is no new candidate
    assert len(second) == 20
    assert not set(first) & set(second)


def test_a_space_is_exhausted_and_then_there_is_nothing_more():
    small = NASBench201(operations=["none", "skip_connect"])  # 64
    found = run(evolution(small, population=30, mutants=10, crossovers=10), sum, 5)
    assert sorted(found) == list(small)
    half = evolution(small, population=30, legal=lambda a: sum(a) % 2 == 0)
    assert len(run(half, sum, 5)) == 32


def test_a_round_is_a_function_of_seed_and_number():
    first = evolution().round(0, [])
    assert evolution().round(0, []) == first
    assert evolution(seed=1).round(0, []) != first
    assert evolution().round(1, first) == evolution().round(1, first)
    assert evolution().round(2, first) != evolution().round(1, first)


def test_it_finds_the_best_of_an_enumerable_space_more_often_than_random_search():
    space = NASBench201()  # 15,625
    found = {"evolution": 0, "random": 0}
    for seed in range(20):
        rng = Random(seed)
        alone = [[rng.gauss(0, 1) for _ in choice.options] for choice in space.choices]
        pairs = {key: rng.gauss(0, 0.5) for key in itertools.product(range(5), range(5), range(5))}

        def score(architecture, alone=alone, pairs=pairs):
            neighbours = zip(range(5), architecture, architecture[1:], strict=False)
            return sum(map(list.__getitem__, alone, architecture)) + sum(pairs[key] for key in neighbours)

        best = max(space, key=score)
        for name, children in (("evolution", 25), ("random", 0)):
            search = evolution(space, seed, mutants=children, crossovers=children)
            candidates = run(search, score, 20)
            assert len(candidates) == 1000
            found[name] += best in candidates
    assert found["evolution"] >= 15
    assert binomtest(found["random"], 20, 1000 / space.size).pvalue > 0.01
