"""What every strategy promises."""

import dataclasses
import io
import math
from collections.abc import Callable
from random import Random

import pytest
import torch

from lightning_nas.spaces import Space
from lightning_nas.strategies import Proposal, Strategy, Trial


@dataclasses.dataclass(frozen=True)
class StrategyCase:
    """A strategy and a space in which it is tried.

    Attributes:
        make: makes the strategy with settings that suit some twenty trials.
        space: the space in which it searches.
        seeded: whether other seeds ask for other architectures.
    """

    make: Callable[[], Strategy]
    space: Space
    seeded: bool = True


def ended(number: int, proposal: Proposal, score: float | None = None) -> Trial:
    """A trial with a score that depends on the architecture alone, unless one is given; one that is not finite is of a
    failed trial."""
    architecture, fidelity, continues, *_ = proposal
    score = sum(3.7**k * option for k, option in enumerate(architecture)) % 1 if score is None else score
    if not math.isfinite(score):
        return Trial(number, architecture, status="failed", fidelity=fidelity, continues=continues)
    return Trial(number, architecture, (score,), {"score": score}, fidelity=fidelity, continues=continues)


def history(strategy: Strategy, space: Space, seed: int, n: int = 20) -> list[Trial]:
    """The first trials of a new search, each told before the next is asked for; fewer if the strategy ends it."""
    strategy.begin(space, seed)
    trials: list[Trial] = []
    for number in range(n):
        for proposal in strategy.ask():
            trials.append(ended(number, proposal))
            strategy.tell(trials[-1:])
    return trials


def asked(trial: Trial) -> list[Proposal]:
    """What a strategy asked for that was told this trial."""
    return [Proposal(trial.architecture, trial.fidelity, trial.continues)]


class StrategyContract:
    """The promises of a strategy; see :mod:`lightning_nas.testing`."""

    cases: dict[str, StrategyCase] = {}  # noqa: RUF012
    """The strategies to test by a name for each."""

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """One test for each case."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", self.cases.values(), ids=self.cases)

    def test_architectures_are_legal_and_a_function_of_the_seed(self, case: StrategyCase) -> None:
        strategy, space = case.make(), case.space
        trials = history(strategy, space, seed=1)
        assert trials
        assert all(space.legal(trial.architecture) for trial in trials)
        assert history(strategy, space, seed=1) == trials  # begun again, it has forgotten the first search
        others = [trial.architecture for trial in history(strategy, space, seed=2)]
        assert ([trial.architecture for trial in trials] != others) == case.seeded

    def test_what_is_asked_depends_on_the_trials_told_and_on_nothing_else(self, case: StrategyCase) -> None:
        strategy = case.make()
        trials = history(strategy, case.space, seed=3)
        expected = strategy.ask(5)
        resumed = Strategy.build(strategy.spec).begin(case.space, seed=3)
        for trial in trials:  # as a search that was killed asks and tells again what it has on file
            assert resumed.ask() == asked(trial)
            resumed.tell([])
            resumed.tell([trial])
        assert resumed.ask(5) == expected

    def test_what_is_restored_from_a_snapshot_goes_on_like_what_was_told_again(self, case: StrategyCase) -> None:
        strategy = case.make()
        trials = history(strategy, case.space, seed=4)
        if strategy.snapshot() is None:
            pytest.skip("it is told its trials again")
        file = io.BytesIO()
        torch.save(strategy.snapshot(), file)
        file.seek(0)
        restored = Strategy.build(strategy.spec).begin(case.space, seed=4)
        restored.restore(torch.load(file, weights_only=True))
        restored.n_asked, restored.best = strategy.n_asked, strategy.best
        for number in range(len(trials), len(trials) + 10):
            proposals = strategy.ask()
            assert restored.ask() == proposals
            told = [ended(number, proposal) for proposal in proposals]
            strategy.tell(told)
            restored.tell(told)

    def test_what_was_asked_while_trials_ended_in_any_order_is_asked_again(self, case: StrategyCase) -> None:
        strategy, rng = case.make().begin(case.space, seed=6), Random(6)
        running: dict[int, Proposal] = {}
        events: list[Proposal | Trial] = []  # what was asked or told, one after the other
        while len(events) < 50:
            proposals = strategy.ask() if len(running) < 3 else []
            for proposal in proposals:
                running[strategy.n_asked - 1] = proposal
                events.append(proposal)
            if not proposals and not running:
                break
            if not proposals or rng.random() < 0.5:
                number = rng.choice(list(running))
                trial = ended(number, running.pop(number), math.nan if rng.random() < 0.2 else None)
                events.append(trial)
                strategy.tell([trial])
        again = Strategy.build(strategy.spec).begin(case.space, seed=6)
        for event in events:
            if isinstance(event, Trial):
                again.tell([event])
            else:
                assert again.ask() == [event]

    def test_proposals_are_fewer_only_while_trials_run_and_each_is_one_of_its_fidelities(
        self, case: StrategyCase
    ) -> None:
        strategy = case.make().begin(case.space)
        told: dict[int, Trial] = {}
        is_over = False
        while len(told) < 24 and (proposals := strategy.ask(7)):
            assert strategy.n_asked == len(told) + len(proposals)
            if len(proposals) < 7:
                assert strategy.ask(7 - len(proposals)) == []  # it waits, however often it is asked
                is_over = not strategy.waits
            trials = [ended(number, proposal) for number, proposal in enumerate(proposals, start=len(told))]
            for trial in trials:
                assert trial.fidelity in (strategy.fidelities or (None,))
                if trial.continues is not None:
                    before = told[trial.continues]
                    assert before.done
                    assert before.architecture == trial.architecture
                    assert (before.fidelity or 0) < (trial.fidelity or math.inf)
            told |= {trial.number: trial for trial in trials}
            strategy.tell(trials[::-1])  # in the order in which they ended
            assert not (is_over and strategy.ask())  # else a search would end before its time
        assert told

    def test_the_best_is_the_first_of_the_highest_scores(self, case: StrategyCase) -> None:
        strategy = case.make().begin(case.space)
        assert strategy.best is None
        scores = [-math.inf, 0.5, 2.0, 2.0, 1.0]
        trials = [ended(-5 + k, Proposal(next(iter(case.space))), score) for k, score in enumerate(scores)]
        strategy.tell(trials[:1])
        assert strategy.best is None
        strategy.tell(trials[1:])
        assert strategy.best is trials[2]
        assert strategy.begin(case.space).best is None

    def test_limits_come_first_then_fidelity_then_the_score(self, case: StrategyCase) -> None:
        strategy = case.make().begin(case.space)
        architecture = next(iter(case.space))
        better = [
            Trial(-6, architecture, (9.0,), violation=2.0, fidelity=9),
            Trial(-5, architecture, (1.0,), violation=1.0, fidelity=1),
            Trial(-4, architecture, (2.0,), violation=1.0, fidelity=1),
            Trial(-3, architecture, (5.0,), fidelity=1),
            Trial(-2, architecture, (0.5,), fidelity=3),
            Trial(-1, architecture, (0.7,), fidelity=3),
        ]
        for trial in better:
            strategy.tell([trial])
            assert strategy.best is trial
        strategy.tell(better[::-1])
        assert strategy.best is better[-1]

    def test_it_goes_on_from_trials_that_it_did_not_ask_for(self, case: StrategyCase) -> None:
        """Results of another search, below 0, and architectures that its user wants tried first."""
        strategy = case.make().begin(case.space, seed=5)
        rng = Random(0)
        others = [ended(number, Proposal(case.space.random(rng))) for number in range(-30, 3)]
        strategy.tell(others[:30])
        strategy.n_asked = 3
        strategy.tell(others[30:])
        for number in range(3, 12):
            for proposal in strategy.ask():
                assert case.space.legal(proposal.architecture)
                assert proposal.continues is None or proposal.continues >= 3
                strategy.tell([ended(number, proposal)])
        assert strategy.n_asked > 3

    def test_trials_that_fail_leave_a_strategy_that_still_asks(self, case: StrategyCase) -> None:
        strategy = case.make().begin(case.space)
        n_told = 0
        while n_told < 24 and (proposals := strategy.ask()):
            (proposal,) = proposals
            assert case.space.legal(proposal.architecture)
            failed = n_told < 6 or n_told % 2
            strategy.tell([ended(n_told, proposal, -math.inf if failed else float(n_told))])
            n_told += 1
        assert n_told > 7
        assert strategy.best is not None
