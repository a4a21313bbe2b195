"""Trials: what follows from their metrics, and which is better."""

import math

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.objectives import Objective
from lightning_nas.spaces import NASBench201
from lightning_nas.strategies import Proposal, Strategy, Trial

OBJECTIVES = [Objective.parse(text) for text in ("max accuracy >= 0.5", "n_params <= 100", "min loss")]


def judged(**metrics):
    return Trial(0, (), metrics=metrics).judged(OBJECTIVES)


def test_values_are_those_of_what_is_wanted_oriented_so_that_more_is_better():
    trial = judged(accuracy=0.75, n_params=50.0, loss=2.0, other=1.0)
    assert (trial.values, trial.violation, trial.score) == ((0.75, -2.0), 0.0, 0.75)
    assert trial.done
    assert trial.feasible


def test_violations_are_summed():
    trial = judged(accuracy=0.25, n_params=150.0, loss=2.0)
    assert trial.violation == 0.5 + 0.5
    assert trial.done
    assert not trial.feasible
    assert judged(accuracy=0.5, n_params=math.nan, loss=2.0).violation == math.inf


def test_a_wanted_metric_that_is_not_finite_has_diverged():
    trial = judged(accuracy=0.75, n_params=50.0, loss=math.nan)
    assert (trial.status, trial.reason, trial.values, trial.score) == ("diverged", "loss is nan", (), -math.inf)


def test_a_metric_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(SettingError, match=r"^objectives: no metric is called 'loss'; an evaluation has accuracy, n_p"):
        judged(accuracy=0.75, n_params=50.0)
    failed = Trial(0, (), status="failed")
    assert failed.judged(OBJECTIVES) is failed


def test_a_strategy_can_wait_and_can_end():
    class Generations(Strategy):
        """Two generations of three, the second begun when the first is told."""

        def begin(self, space, seed=0):
            self.n_told = 0
            return super().begin(space, seed)

        def propose(self, number):
            if number >= 6 or number // 3 * 3 > self.n_told:
                return None
            return Proposal((number,) * 6, fidelity=1) if number < 3 else (number - 3,) * 6

        def tell(self, trials):
            super().tell(trials)
            self.n_told += len(trials)

    strategy = Generations().begin(NASBench201())
    assert strategy.ask(5) == [Proposal((k,) * 6, 1) for k in range(3)]
    assert strategy.ask(2) == []
    strategy.tell([Trial(k, (k,) * 6, (0.0,)) for k in (1, 0)])
    assert strategy.ask(2) == []
    strategy.tell([Trial(2, (2,) * 6, (0.0,))])
    assert strategy.ask(2) == [Proposal((0,) * 6), Proposal((1,) * 6)]
    assert strategy.ask(2) == [Proposal((2,) * 6)]
    strategy.tell([Trial(k, (0,) * 6, (0.0,)) for k in (3, 4, 5)])
    assert strategy.ask() == []
    assert strategy.n_asked == 6
