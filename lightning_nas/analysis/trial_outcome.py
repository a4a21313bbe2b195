"""What a search of many trials leaves behind: its best architecture, and how it came to it."""

import dataclasses
from pathlib import Path

from lightning_nas.analysis.draw import draw_architecture, draw_trials
from lightning_nas.architecture import Found
from lightning_nas.errors import SettingError
from lightning_nas.methods.trial_search import TrialSearch
from lightning_nas.strategies.base import Trial


@dataclasses.dataclass(frozen=True)
class TrialOutcome:
    """The result of a search of many trials, written to ``folder``.

    Attributes:
        found: the architecture of the best trial.
        trial: the best trial.
        n_trials, n_failed: how many were made, and how many of these failed.
        cost: seconds of all trials.
        folder: where the files lie.
    """

    found: Found
    trial: Trial
    n_trials: int
    n_failed: int
    cost: float
    folder: Path

    def describe(self) -> str:
        """The summary that a search ends with."""
        figures = ", ".join(f"{name} {value:.6g}" for name, value in self.trial.metrics.items())
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        lines = [
            "",
            self.found.space.describe(self.found.architecture),
            "",
            f"best         trial {self.trial.number}, score {self.trial.score:.6g}"
            + (f": {figures}" if figures else ""),
            f"trials       {self.n_trials}{failed}; {self.cost:,.0f} seconds: {self.folder / 'trials.jsonl'}",
            f"architecture {self.folder / 'architecture.json'}",
            f"drawings     {self.folder / 'architecture.svg'}, {self.folder / 'trials.svg'}",
            "The score is what the search was guided by. For the figures of a fully trained network, retrain:",
        ]
        return "\n".join(lines)


def conclude_trials(method: TrialSearch, folder: Path) -> TrialOutcome:
    """Writes ``architecture.json``, its drawing, and ``trials.svg``.

    Raises:
        SettingError: if no trial succeeded.
    """
    trials, best = method.trials.history, method.trials.best
    if best is None:
        last = f", the last: {trials[-1].status}, {trials[-1].reason}" if trials else ""
        raise SettingError(f"none of {len(trials)} trials succeeded{last}")
    metrics = {f"trial_{name.replace('/', '_')}": value for name, value in best.metrics.items()}
    found = Found(method.space, best.architecture, {"trial_score": best.score} | metrics, method.name, method.seed)
    folder.mkdir(parents=True, exist_ok=True)
    found.save(folder / "architecture.json")
    draw_architecture(
        method.space, best.architecture, folder / "architecture.svg", f"{method.name}, seed {method.seed}"
    )
    draw_trials([trial.score for trial in trials], folder / "trials.svg", f"{method.name}, seed {method.seed}")
    return TrialOutcome(found, best, len(trials), sum(not t.done for t in trials), method.trials.cost, folder)
