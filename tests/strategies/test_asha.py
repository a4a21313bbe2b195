"""ASHA against the algorithm as it is printed, in random orders of completion."""

import itertools
import math
from random import Random

import pytest

from lightning_nas.spaces import NASBench201
from lightning_nas.strategies import ASHA, Trial
from lightning_nas.testing.strategy import ended

SPACE = NASBench201()


class Printed:
    """``get_job`` of the paper's Algorithm 2, looking at all trials whenever it is asked."""

    def __init__(self, n_rungs, reduction):
        self.reduction = reduction
        self.rungs = [[] for _ in range(n_rungs)]
        self.promoted = [set() for _ in range(n_rungs)]

    def job(self):
        """The trial that continues and its rung; None: a new one."""
        for k in reversed(range(len(self.rungs) - 1)):
            by_score = sorted(self.rungs[k], key=lambda t: (-t.score, t.number))
            candidates = by_score[: len(self.rungs[k]) // self.reduction]
            promotable = [t for t in candidates if t.number not in self.promoted[k] and t.done]
            if promotable:
                self.promoted[k].add(promotable[0].number)
                return promotable[0], k
        return None


@pytest.mark.parametrize("reduction", [2, 3, 4])
@pytest.mark.parametrize("seed", range(3))
def test_promotions_are_those_of_the_printed_algorithm_in_any_order_of_completion(reduction, seed):
    rng = Random(seed)
    strategy = ASHA(max_fidelity=reduction**3, reduction=reduction).begin(SPACE, seed)
    printed = Printed(len(strategy.fidelities), reduction)
    running, rung_of, continued = {}, {}, []
    for number in range(400):
        job = printed.job()
        (proposal,) = strategy.ask()  # it never waits
        if job is None:
            assert proposal.continues is None
            rung_of[number] = 0
        else:
            trial, k = job
            assert (proposal.continues, proposal.architecture) == (trial.number, trial.architecture)
            better = sum(t.score > trial.score for t in printed.rungs[k])
            assert better < len(printed.rungs[k]) // reduction  # within the quota of its rung
            rung_of[number] = k + 1
            continued.append(trial.number)
        assert proposal.fidelity == reduction ** rung_of[number]
        running[number] = proposal
        while len(running) > rng.randrange(12):
            ending = rng.choice(list(running))
            score = math.nan if rng.random() < 0.1 else round(rng.random(), 2)  # some are equal
            trial = ended(ending, running.pop(ending), score)
            printed.rungs[rung_of[ending]].append(trial)
            strategy.tell([trial])
    assert len(continued) == len(set(continued)) > 60
    sizes = [sum(rung == k for rung in rung_of.values()) for k in range(4)]
    assert sizes[3] > 0
    for below, above in itertools.pairwise(sizes):
        assert above <= below / reduction + 2 * math.sqrt(below)  # wrong promotions are few where the order is random


def test_a_trial_continues_as_soon_as_it_is_the_best_of_three():
    strategy = ASHA(max_fidelity=9).begin(SPACE, seed=1)
    proposals = strategy.ask(3)
    for number, score in ((2, 0.5), (0, 0.7)):
        strategy.tell([ended(number, proposals[number], score)])
        assert strategy.ask() != []
        assert strategy.ask()[0].continues is None
    strategy.tell([ended(1, proposals[1], 0.6)])
    first, second = strategy.ask(2)
    assert (first.continues, first.fidelity, first.architecture) == (0, 3, proposals[0].architecture)
    assert (second.continues, second.fidelity) == (None, 1)


def test_higher_rungs_come_first():
    strategy = ASHA(max_fidelity=4, reduction=2).begin(SPACE)
    proposals = strategy.ask(4)
    strategy.tell([ended(k, p, float(k)) for k, p in enumerate(proposals)])
    up = strategy.ask(2)
    assert [p.continues for p in up] == [3, 2]
    more = strategy.ask(2)
    strategy.tell([ended(k, p, float(k)) for k, p in enumerate([*up, *more], start=4)])
    assert [(p.continues, p.fidelity) for p in strategy.ask(3)] == [(5, 4), (7, 2), (6, 2)]
    assert [(p.continues, p.fidelity) for p in strategy.ask()] == [(None, 1)]


def test_a_trial_that_failed_never_continues_and_counts_once_another_result_is_known():
    strategy = ASHA(max_fidelity=2, reduction=2).begin(SPACE)
    proposals = strategy.ask(2)
    strategy.tell([ended(k, p, math.nan) for k, p in enumerate(proposals)])
    (third,) = strategy.ask()
    assert third.continues is None
    strategy.tell([ended(1, proposals[1], 1.0)])  # tried again
    assert strategy.ask()[0].continues == 1
    strategy.tell([ended(0, proposals[0], 2.0)])
    strategy.tell([ended(2, third, 3.0)])
    assert strategy.ask()[0].continues == 2  # of three one may go on, and two would have


def test_limits_come_before_scores():
    strategy = ASHA(max_fidelity=2, reduction=2).begin(SPACE)
    proposals = strategy.ask(2)
    strategy.tell([Trial(k, p.architecture, (float(k),), violation=float(k)) for k, p in enumerate(proposals)])
    assert strategy.ask()[0].continues == 0
