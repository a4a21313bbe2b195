"""The course of a search: what was asked, what is running, what has ended, what was told; and the same from a file."""

import itertools
from collections.abc import Sequence

from lightning_nas.evaluators.base import Evaluator
from lightning_nas.spaces.base import Architecture
from lightning_nas.strategies.base import Proposal, Strategy, Trial
from lightning_nas.trials.log import Entry, TrialLog
from lightning_nas.trials.snapshot import Snapshot
from lightning_nas.trials.told import Told


class Course:
    """Asks a strategy and tells it, in rounds or as trials end. It evaluates nothing and writes nothing.

    Args:
        strategy: the strategy, which has begun.
        evaluator: the evaluator, whose fidelities are looked at.
        try_first: architectures that are tried before the strategy is asked.
        n_trials: after how many the search ends; None: by the budget alone.
        budget: seconds of trials after which no other is begun; None: no limit.
        deterministic: whether trials are asked and told in rounds.
        round_size: trials of a round.
        n_workers: how many trials run at the same time where there are no rounds.

    Attributes:
        told: the trials that the strategy was told.
        running: the trials that run, by number: what was proposed, and how many were told when it was asked.
        ended: the trials that have ended and were not told yet.
        again: the numbers of trials that are to be run again.
        n_asked: the number of the next trial.
        n_failed: how many trials have ended that came to nothing.
        n_reused: how many trials have the result of an equal one.
    """

    def __init__(
        self,
        strategy: Strategy,
        evaluator: Evaluator,
        try_first: Sequence[Architecture],
        n_trials: int | None,
        budget: float | None,
        deterministic: bool,
        round_size: int,
        n_workers: int,
    ) -> None:
        self.strategy, self.evaluator, self.try_first = strategy, evaluator, try_first
        self.n_trials, self.budget, self.n_workers = n_trials, budget, n_workers
        self.deterministic, self.round_size = deterministic, round_size
        self.told = Told()
        self.running: dict[int, tuple[Proposal, int]] = {}
        self.ended: list[Trial] = []
        self.again: list[int] = []
        self.n_asked = self.n_failed = self.n_reused = 0
        self._retrying = False  # whether the round is of such that are run again
        self._waits = False  # whether the strategy had no more to propose before it is told
        self._snapshot: Snapshot | None = None  # of which the strategy knows more than it was told so far

    @property
    def best(self) -> Trial | None:
        """The best trial told, the first of equals; None before one is done."""
        return self.told.best

    @property
    def cost(self) -> float:
        """The seconds of all that were told."""
        return self.told.cost

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        if self.running or self.ended or self.again:
            return False
        return self._waits or self._n_due() == 0

    @property
    def n_ended(self) -> int:
        """How many trials have ended, told or not."""
        return len(self.told.history) + sum(trial.number not in self.told for trial in self.ended)

    def begin(self) -> list[int]:
        """The numbers of the trials to start now: those that are run again, and those that the strategy proposes."""
        return [*self._retry(), *self._ask(self._n_due())]

    def end(self, trial: Trial) -> bool:
        """Takes a trial that has ended. Returns whether it is a new one, and not one that was run again."""
        del self.running[trial.number]
        is_new = trial.number not in self.told
        self.ended.append(trial)
        self.n_failed += not trial.done if is_new else -trial.done
        self.n_reused += trial.same_as is not None
        return is_new

    def tell(self, whole: bool = False) -> list[Trial]:
        """Tells what has ended, unless the round has more to come; a ``whole`` one has not. Returns what was told."""
        if self.deterministic:
            whole |= self._retrying or self._waits or self.n_asked >= self._end_of_round()
            if self.running or not whole:
                return []
        self._retrying = self._waits = False
        told = sorted(self.ended, key=lambda trial: trial.number)
        self.ended.clear()
        self.tell_strategy(told)
        self.told.add(told)
        return told

    def tell_strategy(self, trials: list[Trial]) -> None:
        """Tells the strategy alone, as of trials that are none of this search."""
        if not trials:
            return
        if self._snapshot is None:
            self.strategy.tell(trials)
        else:  # which knows them already, but for the best
            Strategy.tell(self.strategy, trials)

    def _n_due(self) -> int:
        """How many trials to ask for now."""
        begun = self.deterministic and (self.running or self.ended)
        if not begun and self.budget is not None and self.told.cost >= self.budget:
            return 0
        if self.deterministic:
            return 0 if self._retrying or self._waits else max(0, self._end_of_round() - self.n_asked)
        due = self.n_workers - len(self.running)
        return max(0, due if self.n_trials is None else min(due, self.n_trials - self.n_asked))

    def _end_of_round(self) -> int:
        end = len(self.told.history) + self.round_size
        return end if self.n_trials is None else min(end, self.n_trials)

    def _ask(self, n: int) -> range:
        if n <= 0:
            return range(0)
        first, told = self.n_asked, self.told
        proposals = [Proposal(architecture) for architecture in self.try_first[first : first + n]]
        if len(proposals) < n:
            proposals += self.strategy.ask(n - len(proposals))
        for number, proposal in enumerate(proposals, start=first):
            self.running[number] = told.completed(proposal, self.evaluator, self.strategy), told.n
        self.n_asked += len(proposals)
        self._waits = len(proposals) < n
        return range(first, self.n_asked)

    def _retry(self) -> list[int]:
        """Takes trials to run again: all as one round, after the one that is open; else as workers are free."""
        if not self.again or (self.deterministic and (self.running or self.ended)):
            return []
        n = len(self.again) if self.deterministic else max(0, self.n_workers - len(self.running))
        numbers, self.again = self.again[:n], self.again[n:]
        for number in numbers:
            self.running[number] = self._as_asked(Entry(self.told[number], self.told.n, 0))
        self._retrying = self.deterministic and bool(numbers)
        return numbers

    def _as_asked(self, entry: Entry) -> tuple[Proposal, int]:
        """A trial that is on file, as it was asked for and run."""
        return self.told.completed(entry.proposal, self.evaluator, self.strategy), entry.told

    # -- from a file ---------------------------------------------------------------------------------------------------

    def replay(self, log: TrialLog, known: list[Trial]) -> int | None:
        """Asks and tells as the search did whose trials are on file; what is in a snapshot is taken from there.

        Args:
            log: the file of the search, which has been read.
            known: what the strategy is told first.

        Returns:
            how many trials the snapshot has; None: the strategy makes none.
        """
        n_saved = None
        if self.strategy.snapshot() is not None:
            self._snapshot = Snapshot.load(log, self.strategy) if log.entries else None
            n_saved = 0 if self._snapshot is None else self._snapshot.n_told
        self.strategy.n_asked = len(self.try_first)
        self.tell_strategy(known)
        rounds = log.rounds() if self.deterministic else [[entry] for entry in log.entries]
        for k, entries in enumerate(rounds):
            self._take_snapshot()
            if self._snapshot is None:
                self._ask(max(entry.asked for entry in entries) - self.n_asked)  # also those that have not ended
                again = {e.trial.number: self._as_asked(e) for e in entries if e.trial.number in self.told}
                self.running |= again
                self._retrying = self.deterministic and bool(again)
            else:
                self.running = {entry.trial.number: self._as_asked(entry) for entry in entries}
            for entry in entries:
                expected, told = self.running.get(entry.trial.number, (None, -1))
                asked_now = entry.told == self.told.n or not self.deterministic
                if expected is None or expected[:3] != entry.proposal[:3] or told != entry.told or not asked_now:
                    log.refuse(entry.trial, itertools.chain(*rounds[k:]))
                self.end(entry.trial)
            self.tell(whole=k + 1 < len(rounds) or self._snapshot is not None)
        self._take_snapshot()
        if self.ended and not self.running:  # a round that was whole, if the strategy waited for its results
            self._ask(self._n_due())
            self.tell()
        return n_saved

    def _take_snapshot(self) -> None:
        """Goes on with the strategy as it was in the snapshot, once all that it knows was told."""
        if self._snapshot is not None and self.told.n == self._snapshot.n_told:
            self.n_asked = self.strategy.n_asked = self._snapshot.n_asked
            self.running, self._snapshot = dict(self._snapshot.running), None
