"""One search as a study counts it: what was the best at any time."""

import dataclasses
from typing import Any

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.trials.loop import TrialLoop

MOST_FAILURES = 100
"""Trials in a row that may fail."""


@dataclasses.dataclass(frozen=True)
class Limit:
    """When a search ends: after a number of trials, or as soon as they have cost a number of seconds.

    A trial that begins within the budget counts, also if it ends beyond it.
    """

    n_trials: int | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        if self.n_trials is None and self.budget is None:
            raise SettingError("n_trials: without it a search needs a budget to end")
        if self.n_trials is not None and self.n_trials < 1:
            raise SettingError(f"n_trials: at least 1, or null, got {self.n_trials}")
        if self.budget is not None and not self.budget > 0:
            raise SettingError(f"budget: seconds above 0, or null, got {self.budget}")

    def __str__(self) -> str:
        trials = None if self.n_trials is None else f"{self.n_trials:,} trials"
        seconds = None if self.budget is None else f"{self.budget:,g} s"
        return " or ".join(filter(None, (trials, seconds)))


@dataclasses.dataclass(frozen=True)
class Incumbent:
    """A trial that was the best so far when it ended.

    Attributes:
        trial: the trial that was the best.
        n_trials: how many had ended, this one among them.
        seconds: what they had cost.
    """

    trial: Trial
    n_trials: int
    seconds: float

    def value(self, report: str | None) -> float:
        """The metric that is reported; the score, if there is none to report."""
        return self.trial.score if report is None else self.trial.metrics[report]


@dataclasses.dataclass(frozen=True)
class Run:
    """One search: its incumbents, the last of which it found, and what it took."""

    incumbents: list[Incumbent]
    n_trials: int
    seconds: float


def run_search(
    strategy: Strategy, evaluator: Evaluator, space: Space, limit: Limit, seed: int, data: Any = None
) -> Run:
    """One search, by the same loop that runs all searches of many trials.

    Raises:
        SettingError: if too many trials fail, or the limit is never reached.
    """
    loop = TrialLoop(
        space,
        strategy,
        evaluator,
        n_trials=limit.n_trials,
        budget=limit.budget,
        seed=seed,
        max_failures=MOST_FAILURES,
        progress=False,
    )
    incumbents: list[Incumbent] = []
    with loop.open(data):
        while not loop.done:
            for trial in loop.step():
                if loop.best is trial:
                    incumbents.append(Incumbent(trial, len(loop.history), loop.cost))
                if trial.done and not trial.cost and limit.n_trials is None:
                    raise SettingError("budget: a trial of this evaluator costs nothing, so n_trials is needed")
    if not incumbents:
        raise SettingError(f"evaluator: every trial failed, the last: {loop.history[-1].reason}")
    return Run(incumbents, len(loop.history), loop.cost)
