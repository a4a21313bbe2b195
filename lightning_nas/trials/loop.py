"""A search of many trials: a strategy asks, an executor evaluates, and every trial that has ended is on file.

A search that was killed asks its strategy again and tells it the trials on file in the same order, so that it loses at
most those that were running.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors import Executor, Serial
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces.base import Architecture, Space
from lightning_nas.specs import class_path
from lightning_nas.strategies.base import Strategy, Trial
from lightning_nas.trials.log import TrialLog

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
    ) -> None:
        self.space, self.strategy, self.evaluator = space, strategy, evaluator
        self.executor = executor or Serial()
        self.folder = None if folder is None else Path(folder)
        if n_trials is None and budget is None:
            raise SettingError("n_trials: without it the search needs a budget to end")
        if n_trials is not None and n_trials < 1:
            raise SettingError(f"n_trials: at least 1, or null, got {n_trials}")
        if budget is not None and not budget > 0:
            raise SettingError(f"budget: seconds above 0, or null, got {budget}")
        if round_size != 1 and not deterministic:
            raise SettingError("round_size: there are no rounds unless deterministic is true")
        if deterministic and round_size < self.executor.n_workers:
            raise SettingError(
                f"round_size: at least {self.executor.n_workers}, the number of workers, got {round_size}; "
                "or set deterministic to false"
            )
        if not max_failures >= 0 or (0 < max_failures < 1 and n_trials is None):
            raise SettingError(f"max_failures: 0 or more, and no share unless n_trials is given, got {max_failures}")
        self.n_trials, self.budget, self.seed = n_trials, budget, seed
        self.deterministic, self.round_size = deterministic, round_size
        self.max_failures = max_failures if max_failures >= 1 or not n_trials else max_failures * n_trials
        self.progress = progress
        self._bar: Any = None
        self._log: TrialLog | None = None

    def open(self, data: "DataModule | None" = None) -> Self:
        """Begins, or continues with what is in the folder.

        Args:
            data: for the evaluator; None: it needs none.

        Raises:
            SettingError: if the file is damaged or of another search, or the evaluator refuses space or data.
        """
        self.history: list[Trial] = []  # in the order told
        self.best: Trial | None = None  # of the history, the first of equals; None before one is done
        self.cost = 0.0  # of the history, in seconds
        self.n_asked = self.n_failed = self._n_failed_in_a_row = 0
        self._running: dict[int, tuple[Architecture, int]] = {}  # and how many were told when it was asked
        self._ended: list[Trial] = []  # not told yet
        self.strategy.begin(self.space, self.seed)
        try:
            if self.folder is not None:
                self._log = TrialLog(RunFolder(self.folder).trials, self.space, self._describe(data))
                self._replay(self._log)
            self._show()
            if not self.done:
                self.executor.open(self.evaluator, self.space, data, self.seed)
            for number, (architecture, _) in self._running.items():
                self.executor.submit(number, architecture)
        except BaseException:
            self.close()
            raise
        return self

    @property
    def done(self) -> bool:
        """Whether there is nothing left to do."""
        return not self._running and not self._ended and self._n_due() == 0

    def step(self, timeout: float | None = None) -> list[Trial]:
        """Continues until trials are told: a round if deterministic, else the next that ends. Returns them.

        Args:
            timeout: seconds to wait for a trial to end. Afterwards an empty list is returned, nothing is lost, and the
                next call continues. ``None``: waits for as long as it takes.

        Raises:
            SettingError: if too many trials failed in a row, with the reason of the last.
        """
        for number in self._ask(self._n_due()):
            self.executor.submit(number, self._running[number][0])
        told: list[Trial] = []
        while self._running and not told:
            trial = self.executor.next(timeout)
            if trial is None:
                break
            if self._log is not None:
                self._log.append(trial, self._running[trial.number][1])
            self._end(trial)
            told = self._tell()
        for trial in told:
            self._n_failed_in_a_row = 0 if trial.done else self._n_failed_in_a_row + 1
            if self._n_failed_in_a_row > self.max_failures:
                raise SettingError(
                    f"max_failures: {self._n_failed_in_a_row} trials in a row failed, the last: "
                    f"{trial.status}, {trial.reason}"
                )
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
        begun = self.deterministic and (self._running or self._ended)
        if not begun and self.budget is not None and self.cost >= self.budget:
            return 0
        if self.deterministic:
            return max(0, self._end_of_round() - self.n_asked)
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
            self._running[number] = architecture, len(self.history)
        self.n_asked += n
        return numbers

    def _end(self, trial: Trial) -> None:
        del self._running[trial.number]
        self._ended.append(trial)
        self.n_failed += not trial.done
        if self._bar is not None:
            self._bar.set_postfix_str(self._state(), refresh=False)
            self._bar.update(trial.cost if self.n_trials is None else 1)

    def _tell(self) -> list[Trial]:
        if self.deterministic and (self._running or self.n_asked < self._end_of_round()):
            return []
        told = sorted(self._ended, key=lambda trial: trial.number)
        self._ended.clear()
        self.strategy.tell(told)
        self.history += told
        self.cost += sum(trial.cost for trial in told)
        for trial in told:
            if trial.done and (self.best is None or trial.score > self.best.score):
                self.best = trial
        return told

    def _replay(self, log: "TrialLog") -> None:
        """Asks and tells as the search did whose trials are on file."""
        entries = sorted(log.entries, key=lambda e: e.trial.number) if self.deterministic else log.entries
        asked: dict[int, int] = {}  # how many, by how many were told
        for entry in entries:
            asked[entry.told] = max(asked.get(entry.told, 0), entry.trial.number + 1)
        for entry in entries:
            trial = entry.trial
            self._ask(asked.get(len(self.history), 0) - self.n_asked)
            if self._running.get(trial.number) != (trial.architecture, entry.told):
                raise SettingError(
                    f"{log.path}: line {entry.line}: the strategy does not ask for this architecture in trial "
                    f"{trial.number}; the file is damaged, or of another version"
                )
            self._end(trial)
            self._tell()

    def _describe(self, data: "DataModule | None") -> dict[str, Any]:
        """What the search is: with anything else of this its trials could not be compared, or not be replayed."""
        objects = {"space": self.space, "strategy": self.strategy, "evaluator": self.evaluator, "data": data}
        search: dict[str, Any] = {name: None if value is None else _spec(value) for name, value in objects.items()}
        if data is not None:
            search["data"]["init_args"].pop("num_workers", None)  # changes no result
        return {**search, "seed": self.seed, "deterministic": self.deterministic, "round_size": self.round_size}

    def _show(self) -> None:
        if not self.progress:
            return
        from tqdm import tqdm

        n_ended = len(self.history) + len(self._ended)
        if self.n_trials is not None:
            self._bar = tqdm(desc="Trials", total=self.n_trials, initial=n_ended, unit="trial", dynamic_ncols=True)
        else:
            bar = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f}/{total:.0f} s [{elapsed}<{remaining}{postfix}]"
            self._bar = tqdm(desc="Trials", total=self.budget, initial=self.cost, bar_format=bar, dynamic_ncols=True)
        self._bar.set_postfix_str(self._state())

    def _state(self) -> str:
        best = max((t.score for t in (self.best, *self._ended) if t is not None and t.done), default=None)
        parts = [] if self.n_trials is not None else [f"{len(self.history) + len(self._ended)} done"]
        parts += ["none succeeded yet" if best is None else f"best {best:.4g}", f"{self.n_failed} failed"]
        return ", ".join(parts)


def _spec(value: Any) -> dict[str, Any]:
    try:
        return value.spec
    except (TypeError, AttributeError):  # made from something that is not a plain value; its class will have to do
        return {"class_path": class_path(type(value)), "init_args": {}}
