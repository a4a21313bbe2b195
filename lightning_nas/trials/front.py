"""What a search of several objectives leaves: every architecture of its front, ready to be retrained."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from lightning_nas.errors import SettingError
from lightning_nas.files import write_table
from lightning_nas.objectives import Objective
from lightning_nas.pictures.fronts import draw_front, draw_growth
from lightning_nas.runs.folder import RunFolder
from lightning_nas.runs.outcome import finite
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.spaces.base import Space
from lightning_nas.strategies.base import Trial
from lightning_nas.strategies.fronts import front, growth


@dataclasses.dataclass(frozen=True)
class Front:
    """The trials that none other dominates, and how the search came to them.

    Attributes:
        objectives: what was wanted, two objectives or more.
        trials: the front, each architecture once, the best in the first objective first.
        history: all trials in the order told.
        reference: a value for each objective, oriented so that more is better, from which hypervolumes are measured.
    """

    objectives: list[Objective]
    trials: list[Trial]
    history: list[Trial]
    reference: list[float]

    @classmethod
    def of(
        cls, history: Sequence[Trial], objectives: Sequence[Objective], reference: Sequence[float] | None
    ) -> "Front | None":
        """The front of a search; None where one objective was wanted, or no trial keeps all limits.

        Args:
            history: all trials in the order told.
            objectives: the objectives of the search.
            reference: a value for each objective that was wanted, in the unit of its metric; None: the worst of each
                among the trials that keep all limits.
        """
        wanted = [objective for objective in objectives if objective.wanted]
        once = {trial.architecture: trial for trial in reversed(front(history) if len(wanted) > 1 else [])}
        best = sorted(once.values(), key=lambda trial: (trial.values, -trial.number), reverse=True)
        if not best:
            return None
        if reference is None:
            oriented = [min(column) for column in zip(*(t.values for t in history if t.feasible), strict=True)]
        else:
            oriented = [o.score(value) for o, value in zip(wanted, reference, strict=True)]
        return cls(wanted, best, list(history), oriented)

    @property
    def names(self) -> list[str]:
        """The metrics that were wanted."""
        return [objective.metric for objective in self.objectives]

    def volumes(self) -> list[float]:
        """The hypervolume after each trial."""
        return growth(self.history, self.reference)

    def write(self, run: RunFolder, space: Space, method: str, seed: int) -> None:
        """Writes ``front/0.json`` and so on, ``front.csv``, ``front.svg``, ``hypervolume.csv`` and
        ``hypervolume.svg``."""
        run.front.mkdir(parents=True, exist_ok=True)
        for old in run.front.glob("*.json"):  # of a search that has gone on since
            old.unlink()
        rows = []
        for place, trial in enumerate(self.trials):
            file = run.front / f"{place}.json"
            ArchitectureRecord(space, trial.architecture, metrics_of(trial), method, seed).save(file)
            options = space.to_names(trial.architecture).values()
            rows.append([f"front/{file.name}", trial.number, *self._figures(trial), *options])
        write_table(run.path / "front.csv", ["file", "trial", *self.names, *(c.name for c in space.choices)], rows)
        tried = [self._figures(trial) for trial in self.history if trial.done]
        best = [self._figures(trial) for trial in self.trials]
        draw_front(tried, best, self.names, run.path / "front.svg", f"{method}, seed {seed}")
        self._write_growth(run.path)

    def _write_growth(self, folder: Path) -> None:
        volumes, seconds = self.volumes(), itertools.accumulate(trial.cost for trial in self.history)
        rows = list(zip(itertools.count(1), seconds, volumes, strict=False))
        write_table(folder / "hypervolume.csv", ["trials", "seconds", "hypervolume"], rows)
        draw_growth([row[0] for row in rows], volumes, folder / "hypervolume.svg", "trials")

    def _figures(self, trial: Trial) -> list[float]:
        return [trial.metrics[name] for name in self.names]

    def describe(self, run: RunFolder) -> list[str]:
        """The front in words, a line for each of its architectures, up to ten."""
        shown = self.trials[:10]
        lines = [f"front        {len(self.trials)} architectures, none of which is better in all: {run.front}"]
        for place, trial in enumerate(shown):
            figures = ", ".join(f"{name} {trial.metrics[name]:.6g}" for name in self.names)
            lines.append(f"             {run.front / f'{place}.json'}  trial {trial.number}: {figures}")
        if len(shown) < len(self.trials):
            lines.append(f"             and {len(self.trials) - len(shown)} more, all in {run.path / 'front.csv'}")
        return lines


def metrics_of(trial: Trial) -> dict[str, float]:
    """The figures of a trial under names that say so, as an ``architecture.json`` has them; finite ones alone."""
    return {f"trial_{name.replace('/', '_')}": value for name, value in finite(trial.metrics).items()}


def check_reference(reference: Sequence[float] | None, objectives: Sequence[Objective]) -> None:
    """Refuses a reference that does not fit what is wanted.

    Raises:
        SettingError: if it has not one finite number for each objective that is wanted.
    """
    wanted = [str(objective) for objective in objectives if objective.wanted]
    if reference is None:
        return
    if len(reference) != len(wanted) or not all(map(math.isfinite, reference)):
        raise SettingError(f"reference: a number for each of {', '.join(wanted)}, got {list(reference)}")
