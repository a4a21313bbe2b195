"""A search of many trials: a strategy asks, an executor evaluates, and every trial that has ended is on file.

A search that was killed asks its strategy again and tells it the trials on file in the same order, so that it loses at
most those that were running.
"""

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors import Executor, Serial
from lightning_nas.objectives import Objective
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.strategies.fronts import front
from lightning_nas.trials import given
from lightning_nas.trials.bar import TrialBar
from lightning_nas.trials.course import Course
from lightning_nas.trials.log import TrialLog
from lightning_nas.trials.patience import Patience
from lightning_nas.trials.settings import check_evaluator, check_settings, describe, parse_objectives, usual_objective
from lightning_nas.trials.snapshot import EVERY, Snapshot
from lightning_nas.trials.states import States

if TYPE_CHECKING:  # data modules need Lightning, which a search on a table does without
    from lightning_nas.data import DataModule


class TrialLoop:
    """A search of many trials, which continues where it was if its folder has trials of it::

        search = TrialLoop(space, AgingEvolution(), evaluator, Processes(4), "runs/mine", n_trials=500, round_size=4)
        best = search.run()

    It ends at its limits, or when its strategy has nothing more to propose.

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
        round_size: trials of a deterministic round, at least as many as there are workers. A round has fewer where the
            strategy waits for their results.
        max_failures: trials in a row that may fail before the search stops; below 1 as a share of ``n_trials``. Those
            on file do not count, so that a search continues once the reason is mended.
        progress: whether a bar shows trials done, the best so far, failures and the time left.
        retry_failed: whether trials on file that failed, or had not enough memory, are run again when the search is
            opened, under their numbers. The strategy is told both results, each in its place.
        reuse: whether an architecture that was told as done is not evaluated again when it is asked for again, but has
            the same result at no cost. Equal ones of one round are evaluated each.
        objectives: what is wanted, ``max val/accuracy``, ``min n_params``, and what limits hold, ``flops <= 3e8``, of
            the evaluator's metrics. A strategy of one objective is guided by the first that is wanted. Where none is,
            that is the evaluator's own; None: it alone.
        try_first: architectures that are tried before the strategy is asked: paths of ``architecture.json``, names of
            published architectures, or tuples.
        known: the path of another search's ``trials.jsonl``, whose results the strategy is told before its first trial.
            They are no trials of this search, and cost nothing.
        keep_states: whether the states stay from which trials were, or could have been, continued.

    Attributes:
        objectives: what is wanted and what limits hold, once the search was checked.
        known: the results that were known before, with numbers below 0.
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
        objectives: Sequence[str | Objective] | None = None,
        try_first: Sequence[Architecture | str | dict[str, Any]] | None = None,
        known: str | Path | None = None,
        keep_states: bool = False,
    ) -> None:
        self.space, self.strategy, self.evaluator = space, strategy, evaluator
        self.executor = executor or Serial()
        self.folder = None if folder is None else Path(folder)
        check_settings(n_trials, budget, deterministic, round_size, self.executor.n_workers, max_failures)
        self.n_trials, self.budget, self.seed = n_trials, budget, seed
        self.deterministic, self.round_size = deterministic, round_size
        self.max_failures, self.progress, self.retry_failed, self.reuse = max_failures, progress, retry_failed, reuse
        self._given_objectives = parse_objectives(objectives)
        self.try_first = given.architectures(try_first, space)
        self._known_path = None if known is None else Path(known)
        self.keep_states = keep_states
        self._forget()

    def _forget(self) -> None:
        self.objectives: list[Objective] = []
        self.known: list[Trial] = []
        limits = self.n_trials, self.budget, self.deterministic, self.round_size, self.executor.n_workers
        self.course = Course(self.strategy, self.evaluator, self.try_first, *limits)
        self._patience = Patience(self.max_failures, self.n_trials)
        self._same: deque[Trial] = deque()  # the results of those that need no evaluation
        self._n_saved: int | None = None  # trials told at the last snapshot; None: the strategy makes none
        self._is_open = False
        self._bar: TrialBar | None = None
        self._log: TrialLog | None = None
        self._states: States | None = None
        self._checked: Any = None  # which files, until the search is opened

    @property
    def history(self) -> list[Trial]:
        """The trials in the order told, each with its last result."""
        return self.course.told.history

    @property
    def best(self) -> Trial | None:
        """The best of the history, the first of equals; None before one is done."""
        return self.course.best

    @property
    def cost(self) -> float:
        """The seconds of all that were told."""
        return self.course.cost

    @property
    def front(self) -> list[Trial]:
        """The trials that keep all limits, have the highest fidelity, and are dominated by no other."""
        return front(self.history)

    @property
    def n_failed(self) -> int:
        """How many trials have ended that came to nothing."""
        return self.course.n_failed

    @property
    def n_reused(self) -> int:
        """How many trials have the result of an equal one."""
        return self.course.n_reused

    @property
    def again(self) -> list[int]:
        """The numbers of the trials on file that are to be run again."""
        return self.course.again

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return self.course.is_over

    def check(self, data: "DataModule | None" = None, before: Path | None = None) -> None:
        """Refuses what :meth:`open` would, and writes nothing.

        Args:
            data: the data module for the evaluator; None: it needs none.
            before: the ``trials.jsonl`` of another folder, from which the search continues; None: its own.

        Raises:
            SettingError: if the file is in use, damaged or of another search, or the evaluator refuses space or data,
                or has not what objectives and strategy ask for.
        """
        path = None if self.folder is None else RunFolder(self.folder).trials
        if before is not None and path is not None and before.resolve() == path.resolve():
            before = None
        if self._checked == (path, before):
            return
        self._forget()
        self._begin(data)
        try:
            if path is not None:
                self._log = TrialLog(path, self.space, describe(self, data), before)
                self._n_saved = self.course.replay(self._log, self.known)
            else:
                self.course.tell_strategy(self.known)
            if self.retry_failed:
                trials = sorted((*self.history, *self.course.ended), key=lambda trial: trial.number)
                self.course.again = [trial.number for trial in trials if trial.status in ("failed", "out of memory")]
            if not self.done:
                states = None if self._states is None else self._states.path
                self.executor.open(self.evaluator, self.space, data, self.seed, states)
        except BaseException:
            self.close()
            raise
        self._checked = path, before

    def _begin(self, data: "DataModule | None") -> None:
        """Takes what the search is given, once all of it is known to fit together."""
        self.objectives = list(self._given_objectives)
        if not any(objective.wanted for objective in self.objectives):
            self.objectives.insert(0, usual_objective(self.evaluator))
        check_evaluator(self.evaluator, self.strategy, self.objectives, self.executor.n_workers, data)
        self.known = given.known_trials(self._known_path, self.space, self.objectives)
        self.strategy.begin(self.space, self.seed)
        self.strategy.n_asked = len(self.try_first)
        if self.strategy.fidelities:
            self._states = States(None if self.folder is None else RunFolder(self.folder).states, self.keep_states)

    def open(self, data: "DataModule | None" = None, before: Path | None = None) -> Self:
        """Begins, or continues with what is on file. Takes what :meth:`check` does, and refuses it first."""
        self.check(data, before)
        self._checked = None
        try:
            if self._log is not None:
                self._log.begin()
            if self._states is not None and self._log is not None:
                self._states.take_over(RunFolder(self._log.source.parent).states)
            self._bar = TrialBar(self.course) if self.progress else None
            for number in self.course.running:
                self._start(number)
        except BaseException:
            self.close()
            raise
        self._is_open = True
        return self

    def step(self, timeout: float | None = None) -> list[Trial]:
        """Continues until trials are told: a round if deterministic, else the next that ends. Returns them; none where
        the strategy has nothing more to propose.

        Args:
            timeout: seconds to wait for a trial to end. Afterwards an empty list is returned, nothing is lost, and the
                next call continues. ``None``: waits for as long as it takes.

        Raises:
            SettingError: if too many trials failed in a row, with the reason of the last, or the budget is never spent,
                or a trial has not the metrics of the objectives.
        """
        course = self.course
        for number in course.begin():
            self._start(number)
        told = course.tell() if course.ended else []  # of a round that needs no more than is on file
        while course.running and not told:
            if (trial := self._same.popleft() if self._same else self.executor.next(timeout)) is None:
                break
            trial = trial.judged(self.objectives)
            if self._log is not None:
                self._log.append(trial, course.running[trial.number][1], course.n_asked)
            if self._states is not None:
                self._states.on_file(trial)
            is_new = course.end(trial)
            if self._bar is not None:
                self._bar.update(trial, is_new)
            told = course.tell()
        self._patience.watch(told)
        self._save(EVERY)
        return told

    def run(self, data: "DataModule | None" = None) -> Trial:
        """The whole search. Returns the best trial of all.

        Raises:
            SettingError: if the search stops for failures, or no trial succeeded.
        """
        with self.open(data):
            while not self.done:
                self.step()
        return self.result()

    def result(self) -> Trial:
        """The best trial of a search that is over.

        Raises:
            SettingError: if no trial succeeded, with the reason of the last.
        """
        if self.best is None:
            last = f", the last: {self.history[-1].status}, {self.history[-1].reason}" if self.history else ""
            raise SettingError(f"none of {len(self.history)} trials succeeded{last}")
        return self.best

    def close(self) -> None:
        """Ends workers and drops what is running; a search opened again continues with it."""
        self._checked = None
        self.executor.close()
        if self._bar is not None:
            self._bar.close()
        if self._is_open:
            self._save()
            if self._states is not None:
                self._states.close(self.done)
            self._is_open = False
        if self._log is not None:
            self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _start(self, number: int) -> None:
        proposal = self.course.running[number][0]
        same = self.course.told.same(number, proposal) if self.reuse else None
        if same is None:
            self.executor.submit(number, proposal)
        else:
            self._same.append(same)

    def _save(self, after: int = 1) -> None:
        """Writes a snapshot if so many trials were told since the last, and nothing on file is still to be told."""
        if self._n_saved is None or self._log is None or self.course.ended:
            return
        n = self.course.told.n
        if n - self._n_saved >= after and (snapshot := self.strategy.snapshot()) is not None:
            running = dict(self.course.running)
            Snapshot(n, self._log.digest, self.course.n_asked, running, snapshot).save(self._log.path)
            self._n_saved = n
