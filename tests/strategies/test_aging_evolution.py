"""Aging evolution: who lives, who dies, and what a mutation changes."""

import math
import statistics
from collections import Counter, deque
from random import Random

import pytest
from scipy.stats import chisquare, ttest_ind

from lightning_nas.errors import SettingError
from lightning_nas.spaces import Choice, DARTSCell, ENASMicro, NASBench201, NASNetCell, Space
from lightning_nas.strategies import AgingEvolution, Trial


def differing(a, b):
    return [k for k, (x, y) in enumerate(zip(a, b, strict=True)) if x != y]


def ask(strategy, n=1):
    return [proposal.architecture for proposal in strategy.ask(n)]


def evolve(strategy, n, score):
    """Yields the population before each trial, and the trial."""
    for number in range(n):
        (architecture,) = ask(strategy)
        before = list(strategy.population)
        trial = Trial(number, architecture, (score(architecture),))
        strategy.tell([trial])
        yield before, trial


def test_the_population_keeps_its_length_and_the_oldest_dies():
    strategy = AgingEvolution(population=7, sample=3).begin(NASBench201())
    for before, trial in evolve(strategy, 60, sum):
        assert [member.number for member in before] == list(range(max(0, trial.number - 7), trial.number))
        assert list(strategy.population) == [*before, trial][-7:]


def test_trials_join_in_the_order_in_which_they_end():
    strategy = AgingEvolution(population=3, sample=2).begin(NASBench201())
    trials = [Trial(number, architecture, (0.0,)) for number, architecture in enumerate(ask(strategy, 5))]
    strategy.tell([trials[2]])
    strategy.tell([trials[4], trials[0]])
    strategy.tell([trials[1]])
    assert [member.number for member in strategy.population] == [4, 0, 1]


def test_asked_again_before_it_is_told_it_draws_at_random_until_the_population_is_full():
    space = NASBench201()
    strategy = AgingEvolution(population=4, sample=50).begin(space)
    first = ask(strategy, 30)
    assert len(set(first)) > 25
    strategy.tell([Trial(k, architecture, (float(k),)) for k, architecture in enumerate(first[:3])])
    distances = [min(len(differing(a, member)) for member in first[:3]) for a in ask(strategy, 20)]
    assert max(distances) > 2
    strategy.tell([Trial(3, first[3], (-1.0,))])
    children = ask(strategy, 20)  # of the best, which 50 draws from four do not miss
    assert all(len(differing(child, first[2])) == 1 for child in children)
    assert len(set(children)) > 10


def test_every_child_differs_from_a_member_in_one_edge():
    strategy = AgingEvolution(population=10, sample=3).begin(NASBench201(), seed=1)
    for before, trial in evolve(strategy, 300, sum):
        if trial.number >= 10:
            assert 1 in [len(differing(trial.architecture, member.architecture)) for member in before]


def test_parents_are_the_best_of_a_sample_with_replacement():
    space = Space(Choice(f"{k}", tuple("abcd"), str(k)) for k in range(20))  # where no two members are neighbours
    strategy = AgingEvolution(population=5, sample=2).begin(space)
    members = [Trial(k, architecture, (float(k),)) for k, architecture in enumerate(ask(strategy, 5))]
    strategy.tell(members)
    parents = Counter()
    for child in ask(strategy, 5000):
        (parent,) = [m.number for m in members if len(differing(m.architecture, child)) == 1]
        parents[parent] += 1
    expected = [5000 * ((k + 1) ** 2 - k**2) / 25 for k in range(5)]  # the maximum of two of five
    assert chisquare([parents[k] for k in range(5)], expected).pvalue > 1e-3


def test_members_that_failed_win_only_against_each_other():
    space = NASBench201()
    strategy = AgingEvolution(population=3, sample=30).begin(space)
    architectures = ask(strategy, 6)
    failed = [Trial(k, architectures[k], -math.inf, status="failed") for k in range(5)]
    strategy.tell(failed[:3])
    assert {min(len(differing(child, f.architecture)) for f in failed[:3]) for child in ask(strategy, 20)} == {1}
    strategy.tell([Trial(5, architectures[5], (-7.0,)), failed[3], failed[4]])
    assert all(len(differing(child, architectures[5])) == 1 for child in ask(strategy, 20))


def children_of_one(space, n, seed=0, **settings):
    """A parent, and where each of its children differs."""
    strategy = AgingEvolution(population=1, sample=1, **settings).begin(space, seed)
    (parent,) = ask(strategy)
    strategy.tell([Trial(0, parent, (0.0,))])
    return parent, [(child, differing(parent, child)) for child in ask(strategy, n)]


def test_cells_of_inputs_and_operations_have_the_papers_mutations():
    space = NASNetCell()
    parent, children = children_of_one(space, 8000)
    assert max(len(places) for _, places in children) == 1
    at = Counter(places[0] if places else None for _, places in children)
    kinds = {k: choice.kind for k, choice in enumerate(space.choices)}
    inputs = [k for k, kind in kinds.items() if kind == "input"]
    operations = [k for k, kind in kinds.items() if kind == "operation"]
    assert len(inputs) == len(operations) == 20  # two cells, five nodes, two sides
    expected = [0.05 * 8000, *[0.475 * 8000 / 20] * 40]
    assert chisquare([at[k] for k in (None, *inputs, *operations)], expected).pvalue > 1e-3
    for k in (inputs[-1], operations[0]):
        taken = Counter(child[k] for child, places in children if places == [k])
        assert set(taken) == set(range(len(space.choices[k].options))) - {parent[k]}


def test_elsewhere_one_choice_changes_and_every_change_is_equally_likely():
    space = NASBench201()
    _, children = children_of_one(space, 4800)
    counts = Counter(child for child, places in children if len(places) == 1)
    assert sum(counts.values()) == 4800
    assert len(counts) == 6 * 4
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_the_probability_of_no_change_can_be_set():
    for identity in (0.3, 1.0):
        _, children = children_of_one(NASBench201(), 2000, identity=identity)
        assert sum(not places for _, places in children) == pytest.approx(2000 * identity, abs=80)
    _, children = children_of_one(ENASMicro(nodes=2), 500, identity=0.0)
    assert all(len(places) == 1 for _, places in children)


def test_under_a_rule_one_choice_is_forced_and_the_rest_follows():
    space = DARTSCell(nodes=3, operations=("none", "skip_connect", "sep_conv_3x3"))
    _, children = children_of_one(space, 500)
    assert all(space.legal(child) for child, _ in children)
    assert {len(places) for _, places in children} == {1, 2}  # an edge opened closes another one
    assert {k for _, places in children for k in places} == set(range(len(space.choices)))


def test_choices_without_an_alternative_are_left_alone():
    space = NASNetCell(nodes=2).restrict({f"normal/2/operation_{slot}": "skip_connect" for slot in (1, 2)})
    fixed = [k for k, choice in enumerate(space.choices) if len(choice.options) == 1]
    assert len(fixed) == 2
    _, children = children_of_one(space, 500)
    assert {k for _, places in children for k in places} == set(range(len(space.choices))) - set(fixed)
    with pytest.raises(SettingError, match="space: has one architecture"):
        AgingEvolution().begin(space.restrict(next(iter(space))))


class Immortal(AgingEvolution):
    """The worst dies instead of the oldest."""

    def begin(self, space, seed=0):
        super().begin(space, seed)
        self.population = deque()
        return self

    def tell(self, trials):
        for trial in trials:
            self.population.append(trial)
            if len(self.population) > self.population_size:
                self.population.remove(min(self.population, key=lambda member: member.score))


def test_where_scores_are_noisy_aging_finds_no_less():
    space = Space(Choice(f"bit {k}", ("0", "1"), str(k)) for k in range(100))

    def ones(strategy, seed):
        """The share of ones in the last population, which the noisy scores hide."""
        noise = Random(seed)
        list(evolve(strategy.begin(space, seed), 2000, lambda a: sum(a) / 100 + noise.gauss(0, 0.1)))
        return statistics.fmean(sum(member.architecture) / 100 for member in strategy.population)

    aging = [ones(AgingEvolution(population=20, sample=5), seed) for seed in range(16)]
    immortal = [ones(Immortal(population=20, sample=5), seed) for seed in range(16)]
    assert ttest_ind(aging, immortal, alternative="greater").pvalue < 0.01
