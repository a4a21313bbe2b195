"""Successive halving and Hyperband: the published brackets, and who continues."""

from collections import Counter

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.spaces import NASBench201
from lightning_nas.strategies import Hyperband, SuccessiveHalving, Trial
from lightning_nas.strategies.successive_halving import fidelities_of_rungs
from lightning_nas.testing.strategy import ended, history

SPACE = NASBench201()


def told(strategy, proposals, first, score):
    trials = [ended(first + k, proposal, score(first + k)) for k, proposal in enumerate(proposals)]
    strategy.tell(trials)
    return trials


def test_hyperbands_brackets_are_the_published_ones():
    assert Hyperband(max_fidelity=81, reduction=3).brackets == [
        [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
        [(34, 3), (11, 9), (3, 27), (1, 81)],
        [(15, 9), (5, 27), (1, 81)],
        [(8, 27), (2, 81)],
        [(5, 81)],
    ]


def test_hyperband_runs_its_brackets_and_begins_them_again():
    strategy = Hyperband()
    n = sum(n for bracket in strategy.brackets for n, _ in bracket)
    assert n == 206
    trials = history(strategy, SPACE, seed=0, n=2 * n)
    rungs = [rung for bracket in strategy.brackets for rung in bracket]
    place = 0
    for n_trials, fidelity in 2 * rungs:
        assert {trial.fidelity for trial in trials[place : place + n_trials]} == {fidelity}
        place += n_trials
    begun = [trial.architecture for trial in trials if trial.continues is None]
    assert len(begun) == 2 * sum(bracket[0][0] for bracket in strategy.brackets)
    assert begun[:81] != begun[143 : 143 + 81]


@pytest.mark.parametrize(
    ("settings", "fidelities"),
    [
        ((None, None, 3, None), [1, 3, 9, 27, 81]),
        ((2, 54, 3, None), [2, 6, 18, 54]),
        ((None, 300, 4, None), [1, 4, 18, 75, 300]),
        ((2, 81, 3, None), [3, 9, 27, 81]),
        ((7, 7, 2, None), [7]),
        ((None, None, 3, [12, 200]), [12, 200]),
    ],
)
def test_fidelities_are_powers_or_as_given(settings, fidelities):
    assert fidelities_of_rungs(*settings) == fidelities


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": 1}, "reduction: at least 2, got 1"),
        ({"rungs": [3, 1]}, r"rungs: fidelities of at least 1, rising, got \[3, 1\]"),
        ({"rungs": [0, 1]}, "rungs: fidelities of at least 1"),
        ({"rungs": []}, "rungs: fidelities of at least 1"),
        ({"rungs": [1], "max_fidelity": 9}, "rungs: leave out min_fidelity and max_fidelity"),
        ({"min_fidelity": 9, "max_fidelity": 3}, "min_fidelity: from 1 to max_fidelity, 3, got 9"),
        ({"min_fidelity": 0}, "min_fidelity: from 1 to max_fidelity, 81, got 0"),
        ({"repeats": 0}, "repeats: at least 1, or null, got 0"),
        ({"architectures": 80}, "architectures: 81 or more, so that one reaches the last rung, got 80"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingError, match=message):
        SuccessiveHalving(**settings)


def test_the_best_third_continues_and_the_search_ends():
    strategy = SuccessiveHalving(architectures=11, max_fidelity=9).begin(SPACE, seed=3)
    scores = [0.1, 0.9, 0.3, 0.9, 0.2, 0.8, 0.0, 0.4, 0.5, 0.6, 0.7]
    first = told(strategy, strategy.ask(11), 0, scores.__getitem__)
    second = strategy.ask(20)
    assert second == [(first[k].architecture, 3, k, 0, None) for k in (1, 3, 5)]
    told(strategy, second, 11, {11: 0.2, 12: 0.9, 13: 0.3}.__getitem__)
    assert strategy.ask(20) == [(first[3].architecture, 9, 12, 0, None)]
    told(strategy, [(first[3].architecture, 9, 12)], 14, lambda number: 0.95)
    assert strategy.ask() == []
    assert strategy.best.number == 14


def test_a_rung_ends_when_its_last_trial_has_ended_however_many_are_asked_at_once():
    strategy = SuccessiveHalving(max_fidelity=9).begin(SPACE, seed=1)
    asked = strategy.ask(4) + strategy.ask(100)
    assert len(asked) == 9
    for number in (8, 2, 5, 0, 7, 3, 1, 6):
        told(strategy, [asked[number]], number, float)
        assert strategy.ask(100) == []
    told(strategy, [asked[4]], 4, float)
    assert [proposal.continues for proposal in strategy.ask(100)] == [8, 7, 6]


def test_who_violates_limits_stands_behind_and_who_failed_does_not_continue():
    strategy = SuccessiveHalving(max_fidelity=3, architectures=6, repeats=2).begin(SPACE)
    proposals = strategy.ask(6)
    trials = [Trial(k, p.architecture, (float(k),), violation=k / 2, fidelity=1) for k, p in enumerate(proposals)]
    trials[0] = Trial(0, proposals[0].architecture, status="failed", fidelity=1)
    strategy.tell(trials)
    assert [proposal.continues for proposal in strategy.ask(9)] == [1, 2]
    strategy.begin(SPACE)
    proposals = strategy.ask(6)
    strategy.tell([ended(k, p, float("nan") if k != 4 else 1.0) for k, p in enumerate(proposals)])
    assert [proposal.continues for proposal in strategy.ask(9)] == [4]  # the only one that came to a result
    strategy.begin(SPACE)
    told(strategy, strategy.ask(6), 0, lambda number: float("nan"))
    again = strategy.ask(9)  # none continues, so the next bracket begins
    assert len(again) == 6
    assert Counter(p.continues for p in again) == {None: 6}
    told(strategy, again, 6, lambda number: float("nan"))
    assert strategy.ask() == []


def test_another_result_of_a_trial_counts_until_its_rung_has_ended():
    strategy = SuccessiveHalving(max_fidelity=3).begin(SPACE)
    proposals = strategy.ask(3)
    strategy.tell([ended(0, proposals[0], float("nan")), ended(1, proposals[1], 1.0)])
    strategy.tell([ended(0, proposals[0], 2.0), ended(2, proposals[2], 0.0)])
    assert [proposal.continues for proposal in strategy.ask(3)] == [0]
    strategy.tell([ended(1, proposals[1], 3.0)])
    assert strategy.ask(3) == []
    assert strategy.best.number == 1
