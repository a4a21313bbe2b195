"""What a search of many trials leaves behind: its best architecture, and how it came to it."""

import dataclasses
from collections.abc import Sequence

from lightning_nas.errors import SettingError
from lightning_nas.pictures.draw import draw_trials
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import Outcome
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.strategies.base import Trial
from lightning_nas.trials.front import Front, metrics_of
from lightning_nas.trials.loop import TrialLoop


@dataclasses.dataclass(frozen=True)
class TrialOutcome(Outcome):
    """What a search of many trials found.

    Attributes:
        found: the architecture of the best trial and what is known of it.
        run: the folder where the files lie.
        best: the trial with the best score.
        trials: all trials in the order told.
        cost: the seconds that all trials took together.
        front: the front, where several objectives were wanted; None: one was.
        n_known: how many results of another search the strategy was told first.
    """

    best: Trial = dataclasses.field(kw_only=True)
    trials: list[Trial] = dataclasses.field(kw_only=True)
    cost: float = dataclasses.field(kw_only=True)
    front: Front | None = dataclasses.field(kw_only=True)
    n_known: int = dataclasses.field(kw_only=True)

    @classmethod
    def of(
        cls, loop: TrialLoop, run: RunFolder, name: str, seed: int, reference: Sequence[float] | None = None
    ) -> "TrialOutcome":
        """The outcome of a loop that has ended.

        Args:
            loop: the search that has ended.
            run: where the files will lie.
            name: what the search is called in files and pictures.
            seed: the seed of the search.
            reference: a value for each objective that was wanted, from which hypervolumes are measured; None: the worst
                values of all trials.

        Raises:
            SettingError: if no trial succeeded.
        """
        trials, best = loop.history, loop.best
        if best is None:
            last = f", the last: {trials[-1].status}, {trials[-1].reason}" if trials else ""
            raise SettingError(f"none of {len(trials)} trials succeeded{last}")
        metrics = {"trial_score": best.score, **metrics_of(best)}
        found = ArchitectureRecord(loop.space, best.architecture, metrics, name, seed)
        front = Front.of(trials, loop.objectives, reference)
        return cls(found, run, best=best, trials=trials, cost=loop.cost, front=front, n_known=len(loop.known))

    @property
    def figures(self) -> dict[str, float]:
        if self.front is None:
            return super().figures
        return super().figures | {"hypervolume": self.front.volumes()[-1], "front": float(len(self.front.trials))}

    def write(self) -> None:
        """Writes ``architecture.json``, its drawing, ``trials.svg``, and of several objectives the front."""
        super().write()
        if self.front is not None:
            self.front.write(self.run, self.found.space, self.found.method, self.found.seed or 0)
        draw_trials([trial.score for trial in self.trials], self.run.path / "trials.svg", self.found.caption)

    def describe(self) -> str:
        """The summary that a search ends with."""
        figures = ", ".join(f"{name} {value:.6g}" for name, value in self.best.metrics.items())
        n_failed = sum(not trial.done for trial in self.trials)
        n_reused = sum(trial.same_as is not None for trial in self.trials)
        failed = f", {n_failed} failed" if n_failed else ""
        failed += f", {n_reused} reused" if n_reused else ""
        failed += f", {self.n_known} known before" if self.n_known else ""
        limits = "" if self.best.feasible else f", exceeds the limits by {self.best.violation:.3g}; no trial keeps them"
        lines = [
            "",
            self.found.space.describe(self.found.architecture),
            "",
            f"best         trial {self.best.number}, score {self.best.score:.6g}{limits}: {figures}",
            f"trials       {len(self.trials)}{failed}; {self.cost:,.0f} seconds: {self.run.trials}",
            f"architecture {self.run.architecture}",
            f"drawings     {self.run.drawing}, {self.run.path / 'trials.svg'}",
            *self._front(),
            "The score is what the search was guided by. For the figures of a fully trained network, retrain:",
        ]
        return "\n".join(lines)

    def _front(self) -> list[str]:
        if self.front is None:
            return []
        retrained = "To retrain another of the front, give its file as --model.architecture instead."
        return [*self.front.describe(self.run), retrained]
