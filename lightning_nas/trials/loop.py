"""A search of many trials: a strategy asks, an executor evaluates, and every trial that has ended is on file.

A search that was killed asks its strategy again and tells it the trials on file in the same order, so that it loses at
most those that were running.
"""

import dataclasses
import itertools
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors import Executor, Serial
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.trials.bar import TrialBar
from lightning_nas.trials.log import TrialLog
from lightning_nas.trials.patience import Patience
from lightning_nas.trials.settings import check_settings, describe

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class TrialLoop:
    """A search of many trials, which continues where it was if its folder has trials of it::

        search = TrialLoop(space, AgingEvolution(), evaluator, Processes(4), "runs/mine", n_trials=500, round_size=4)
        best = search.run()

    Args:
        space: the space that is searched.
        strategy: what to try next.
        evaluator: what an architecture is worth.
        executor: where trials run; None: one after the other, here.
        folder: the folder of ``trials.jsonl``; None: nothing is written.
        n_trials: after how many the search ends; None: by the budget alone.
        budget: seconds of trials after which no other is begun, summed over all that were told; None: no limit.
        seed: the seed of strategy and evaluator.
        deterministic: whether trials are asked in rounds, and told in the order of their numbers when the whole round
            has ended, so that the number of workers changes nothing. Else each is told when it ends, and the next is
            asked for at once: no worker waits.
        round_size: trials of a deterministic round, at least as many as there are workers.
        max_failures: trials in a row that may fail before the search stops; below 1 as a share of ``n_trials``. Those
            on file do not count, so that a search continues once the reason is mended.
        progress: whether a bar shows trials done, the best so far, failures and the time left.
        retry_failed: whether trials on file that failed, or had not enough memory, are run again when the search is
            opened, under their numbers. The strategy is told both results, each in its place.
        reuse: whether an architecture that was told as done is not evaluated again when it is asked for again, but has
            the same result at no cost. Equal ones of one round are evaluated each.
    """

    def __init__(
        self,
        space: Space,
        strategy: Strategy,
        evaluator: Evaluator,
        executor: Executor | None = None,
        folder: str | Path | None = None,
        n_trials: int | None = None,
        budget: float | None = None,
        seed: int = 0,
        deterministic: bool = True,
        round_size: int = 1,
        max_failures: float = 10,
        progress: bool = True,
        retry_failed: bool = False,
        reuse: bool = False,
    ) -> None:
        self.space, self.strategy, self.evaluator = space, strategy, evaluator
        self.executor = executor or Serial()
        self.folder = None if folder is None else Path(folder)
        check_settings(n_trials, budget, deterministic, round_size, self.executor.n_workers, max_failures)
        self.n_trials, self.budget, self.seed = n_trials, budget, seed
        self.deterministic, self.round_size = deterministic, round_size
        self.max_failures, self.progress, self.retry_failed, self.reuse = max_failures, progress, retry_failed, reuse
        self._forget()

    def _forget(self) -> None:
        self.history: list[Trial] = []  # in the order told, each with its last result
        self.best: Trial | None = None  # of the history, the first of equals; None before one is done
        self.cost = 0.0  # of all that were told, in seconds
        self.n_asked = self.n_failed = self.n_reused = 0
        self._patience = Patience(self.max_failures, self.n_trials)
        self.ended: list[Trial] = []  # not told yet
        self._n_told = 0  # with those that were told again
        self._places: dict[int, int] = {}  # in the history, by number
        self._results: dict[Architecture, Trial] = {}  # of each architecture the first that was done
        self._running: dict[int, tuple[Architecture, int]] = {}  # and how many were told when it was asked
        self._known: deque[Trial] = deque()  # the results of those that need no evaluation
        self.again: list[int] = []  # to be run again
        self._retrying = False  # whether the round is of such
        self._bar: TrialBar | None = None
        self._log: TrialLog | None = None
        self._checked: Any = None  # which files, until the search is opened

    def check(self, data: "DataModule | None" = None, before: Path | None = None) -> None:
        """Refuses what :meth:`open` would, and writes nothing.

        Args:
            data: the data module for the evaluator; None: it needs none.
            before: the ``trials.jsonl`` of another folder, from which the search continues; None: its own.

        Raises:
            SettingError: if the file is in use, damaged or of another search, or the evaluator refuses space or data.
        """
        path = None if self.folder is None else RunFolder(self.folder).trials
        if before is not None and path is not None and before.resolve() == path.resolve():
            before = None
        if self._checked == (path, before):
            return
        self._forget()
        self.strategy.begin(self.space, self.seed)
        try:
            if path is not None:
                self._log = TrialLog(path, self.space, describe(self, data), before)
                self._replay(self._log)
            if self.retry_failed:
                trials = sorted((*self.history, *self.ended), key=lambda trial: trial.number)
                self.again = [trial.number for trial in trials if trial.status in ("failed", "out of memory")]
            if not self.done:
                self.executor.open(self.evaluator, self.space, data, self.seed)
        except BaseException:
            self.close()
            raise
        self._checked = path, before

    def open(self, data: "DataModule | None" = None, before: Path | None = None) -> Self:
        """Begins, or continues with what is on file. Takes what :meth:`check` does, and refuses it first."""
        self.check(data, before)
        self._checked = None
        try:
            if self._log is not None:
                self._log.begin()
            self._bar = TrialBar(self) if self.progress else None
            for number in self._running:
                self._start(number)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return not self._running and not self.ended and not self.again and self._n_due() == 0

    @property
    def n_ended(self) -> int:
        """How many trials have ended, told or not."""
        return len(self.history) + sum(trial.number not in self._places for trial in self.ended)

    def step(self, timeout: float | None = None) -> list[Trial]:
        """Continues until trials are told: a round if deterministic, else the next that ends. Returns them.

        Args:
            timeout: seconds to wait for a trial to end. Afterwards an empty list is returned, nothing is lost, and the
                next call continues. ``None``: waits for as long as it takes.

        Raises:
            SettingError: if too many trials failed in a row, with the reason of the last, or the budget is never spent.
        """
        for number in [*self._retry(), *self._ask(self._n_due())]:
            self._start(number)
        told: list[Trial] = []
        while self._running and not told:
            if (trial := self._known.popleft() if self._known else self.executor.next(timeout)) is None:
                break
            if self._log is not None:
                self._log.append(trial, self._running[trial.number][1])
            self._end(trial)
            told = self._tell()
        self._patience.watch(told)
        return told

    def run(self, data: "DataModule | None" = None) -> Trial:
        """The whole search. Returns the best trial of all.

        Raises:
            SettingError: if the search stops for failures, or no trial succeeded.
        """
        with self.open(data):
            while not self.done:
                self.step()
        if self.best is None:
            last = self.history[-1]
            raise SettingError(f"none of {len(self.history)} trials succeeded, the last: {last.status}, {last.reason}")
        return self.best

    def close(self) -> None:
        """Ends workers and drops what is running; a search opened again continues with it."""
        self._checked = None
        self.executor.close()
        if self._bar is not None:
            self._bar.close()
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    # -- what was asked, what has ended, what was told -----------------------------------------------------------------

    def _n_due(self) -> int:
        """How many trials to ask for now."""
        begun = self.deterministic and (self._running or self.ended)
        if not begun and self.budget is not None and self.cost >= self.budget:
            return 0
        if self.deterministic:
            return 0 if self._retrying else max(0, self._end_of_round() - self.n_asked)
        due = self.executor.n_workers - len(self._running)
        return max(0, due if self.n_trials is None else min(due, self.n_trials - self.n_asked))

    def _end_of_round(self) -> int:
        end = len(self.history) + self.round_size
        return end if self.n_trials is None else min(end, self.n_trials)

    def _ask(self, n: int) -> range:
        if n <= 0:
            return range(0)
        numbers = range(self.n_asked, self.n_asked + n)
        for number, architecture in zip(numbers, self.strategy.ask(n), strict=True):
            self._running[number] = architecture, self._n_told
        self.n_asked += n
        return numbers

    def _retry(self) -> list[int]:
        """Takes trials to run again: all as one round, after the one that is open; else as workers are free."""
        if self.deterministic and (self._running or self.ended):
            return []
        n = len(self.again) if self.deterministic else max(0, self.executor.n_workers - len(self._running))
        numbers, self.again = self.again[:n], self.again[n:]
        for number in numbers:
            self._running[number] = self.history[self._places[number]].architecture, self._n_told
        self._retrying = self.deterministic and bool(numbers)
        return numbers

    def _start(self, number: int) -> None:
        architecture = self._running[number][0]
        known = self._results.get(architecture) if self.reuse else None
        if known is None:
            self.executor.submit(number, architecture)
        else:
            self._known.append(dataclasses.replace(known, number=number, cost=0.0, same_as=known.number))

    def _end(self, trial: Trial) -> None:
        del self._running[trial.number]
        is_new = trial.number not in self._places
        self.ended.append(trial)
        self.n_failed += not trial.done if is_new else -trial.done
        self.n_reused += trial.same_as is not None
        if self._bar is not None:
            self._bar.update(trial, is_new)

    def _tell(self, whole: bool = False) -> list[Trial]:
        """Tells what has ended, unless the round has more to come; a ``whole`` one has not."""
        if self.deterministic:
            whole |= self._retrying or self.n_asked >= self._end_of_round()
            if self._running or not whole:
                return []
        self._retrying = False
        told = sorted(self.ended, key=lambda trial: trial.number)
        self.ended.clear()
        self.strategy.tell(told)
        self._n_told += len(told)
        self.cost += sum(trial.cost for trial in told)
        for trial in told:
            place = self._places.setdefault(trial.number, len(self.history))
            self.history[place : place + 1] = [trial]
            if trial.done:
                self._results.setdefault(trial.architecture, trial)
                if self.best is None or trial.score > self.best.score:
                    self.best = trial
        return told

    def _replay(self, log: TrialLog) -> None:
        """Asks and tells as the search did whose trials are on file."""
        rounds = log.rounds() if self.deterministic else [[entry] for entry in log.entries]
        asked: dict[int, int] = {}  # how many, by how many were told
        for entry in log.entries:
            asked[entry.told] = max(asked.get(entry.told, 0), entry.trial.number + 1)
        for k, entries in enumerate(rounds):
            self._ask(asked.get(self._n_told, 0) - self.n_asked)
            again = {e.trial.number: (e.trial.architecture, e.told) for e in entries if e.trial.number in self._places}
            self._running |= again
            self._retrying = self.deterministic and bool(again)
            for entry in entries:
                trial = entry.trial
                asked_now = entry.told == self._n_told or not self.deterministic
                if self._running.get(trial.number) != (trial.architecture, entry.told) or not asked_now:
                    log.refuse(trial, itertools.chain(*rounds[k:]))
                self._end(trial)
            self._tell(whole=k + 1 < len(rounds))
