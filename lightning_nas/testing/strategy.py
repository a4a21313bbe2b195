"""What every strategy promises."""

import dataclasses
import math
from collections.abc import Callable

import pytest

from lightning_nas.spaces import Architecture, Space
from lightning_nas.strategies import Strategy, Trial


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


def ended(number: int, architecture: Architecture, score: float | None = None) -> Trial:
    """A trial with a score that depends on the architecture alone, unless one is given; one that is not finite is of a
    failed trial."""
    score = sum(3.7**k * option for k, option in enumerate(architecture)) % 1 if score is None else score
    return Trial(number, architecture, score, status="done" if math.isfinite(score) else "failed")


def history(strategy: Strategy, space: Space, seed: int, n: int = 20) -> list[Trial]:
    """The first trials of a new search, each told before the next is asked for."""
    strategy.begin(space, seed)
    trials: list[Trial] = []
    for number in range(n):
        (architecture,) = strategy.ask()
        trials.append(ended(number, architecture))
        strategy.tell(trials[-1:])
    return trials


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
            assert resumed.ask() == [trial.architecture]
            resumed.tell([])
            resumed.tell([trial])
        assert resumed.ask(5) == expected

    def test_the_best_is_the_first_of_the_highest_scores(self, case: StrategyCase) -> None:
        strategy = case.make().begin(case.space)
        assert strategy.best is None
        scores = [-math.inf, 0.5, 2.0, 2.0, 1.0]
        trials = [ended(k, strategy.ask()[0], score) for k, score in enumerate(scores)]
        strategy.tell(trials[:1])
        assert strategy.best is None
        strategy.tell(trials[1:])
        assert strategy.best is trials[2]
        assert strategy.begin(case.space).best is None

    def test_trials_that_fail_leave_a_strategy_that_still_asks(self, case: StrategyCase) -> None:
        strategy = case.make().begin(case.space)
        for number in range(24):
            (architecture,) = strategy.ask()
            assert case.space.legal(architecture)
            failed = number < 6 or number % 2
            strategy.tell([ended(number, architecture, -math.inf if failed else float(number))])
        assert strategy.best is not None
        assert strategy.best.number == 22
