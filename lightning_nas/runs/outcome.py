"""What a finished run leaves behind, and says."""

import dataclasses
import math
import statistics
from collections.abc import Sequence
from typing import Any

from lightning_nas.costs.profile import Profile
from lightning_nas.files import write_table
from lightning_nas.objectives import Objective
from lightning_nas.pictures.draw import draw_architecture, draw_scores, draw_weights
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.spaces.base import Architecture


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a run found, or trained.

    Attributes:
        found: the architecture and what is known of it.
        run: the folder where the files lie.
    """

    found: ArchitectureRecord
    run: RunFolder

    @property
    def figures(self) -> dict[str, float]:
        """What belongs into the summary of the run at a logger, by name."""
        return self.found.metrics

    def write(self) -> None:
        """Writes ``architecture.json`` and its drawing."""
        self.run.path.mkdir(parents=True, exist_ok=True)
        self.found.save(self.run.architecture)
        draw_architecture(self.found.space, self.found.architecture, self.run.drawing, self.found.caption)

    def describe(self) -> str:
        """The summary for people."""
        return self.found.space.describe(self.found.architecture)

    next_step: str = "retrain"
    """What the architecture is for now: it was found and wants to be retrained (``retrain``), or it was retrained and
    wants to be tested (``test``)."""


@dataclasses.dataclass(frozen=True)
class SearchOutcome(Outcome):
    """What a search in one network with shared weights found.

    Attributes:
        found: the architecture and what is known of it.
        run: the folder where the files lie.
        costs: the costs of its network at the search's own width and depth.
        objective: the metric of the task and its direction.
        score: the architecture's score under the shared weights.
        drawn: random architectures in the order drawn, with their scores under the same weights on the same batches.
        best_random: the best of the random ones; None: there are none.
        candidates: what the method chose among, with scores; empty: it knew its best.
        weights: for each choice the weight of each option; None: the method has none.
        limits: the limits that the architecture and the random ones keep.
    """

    costs: Profile = dataclasses.field(kw_only=True)
    objective: Objective = dataclasses.field(kw_only=True)
    score: float = dataclasses.field(kw_only=True)
    drawn: list[tuple[Architecture, float]] = dataclasses.field(kw_only=True)
    best_random: ArchitectureRecord | None = dataclasses.field(kw_only=True)
    candidates: dict[Architecture, float] = dataclasses.field(kw_only=True)
    weights: list[list[float]] | None = dataclasses.field(kw_only=True)
    limits: Sequence[Objective] = dataclasses.field(default=(), kw_only=True)

    @property
    def figures(self) -> dict[str, float]:
        return dataclasses.asdict(self.costs) | self.found.metrics

    @property
    def random_scores(self) -> list[float]:
        """The scores of the random architectures in the order drawn."""
        return [score for _, score in self.drawn]

    @property
    def figure(self) -> str:
        """What the score is called in files."""
        return shared_weights_figure(self.objective)

    def write(self) -> None:
        """Writes ``architecture.json``, its drawing, ``weights.svg`` where the method weighs options,
        ``candidates.csv`` where it looked at several, and of the random ones ``random.csv``, ``random.svg`` and the
        best, ``random.json``."""
        super().write()
        space, folder = self.found.space, self.run.path
        if self.weights is not None:
            draw_weights(space.choices, self.weights, folder / "weights.svg")
        if self.candidates:
            rows = [("candidate", value, a) for a, value in self.candidates.items()]
            self._table("candidates.csv", f"{self.figure}_some_batches", rows)
        if self.best_random is not None:
            rows = [("random", value, a) for a, value in self.drawn]
            self._table("random.csv", self.figure, [("found", self.score, self.found.architecture), *rows])
            self.best_random.save(self.run.random)
        usable = [value for value in self.random_scores if math.isfinite(value)]
        if usable and math.isfinite(self.score):
            draw_scores(
                {"random architectures": usable},
                folder / "random.svg",
                f"validation {self.objective.metric} under the shared weights",
                {self.found.method: self.score},
            )

    def _table(self, name: str, score: str, rows: list[tuple[str, float, Architecture]]) -> None:
        space = self.found.space
        header = ["origin", score, *(choice.name for choice in space.choices)]
        lines: list[list[Any]] = [[origin, value, *space.to_names(a).values()] for origin, value, a in rows]
        write_table(self.run.path / name, header, lines)

    def describe(self) -> str:
        """The summary that a search ends with."""
        lines = [
            "",
            self.found.space.describe(self.found.architecture),
            "",
            f"network      {self.costs.n_params:,} parameters, {self.costs.flops:,} FLOPs per example "
            "(at the search's width and depth)",
            *(["limit        " + " and ".join(map(str, self.limits))] if self.limits else []),
            f"architecture {self.run.architecture}",
            f"drawing      {self.run.drawing}",
        ]
        scores = [score for score in self.random_scores if math.isfinite(score)]
        if scores:
            n, mean, orient = len(scores), statistics.fmean(scores), self.objective.score
            spread = statistics.stdev(scores) if n > 1 else 0.0
            worse = sum(orient(score) < orient(self.score) for score in scores)
            lines.append(
                f"shared weights: validation {self.objective.metric} {self.score:.4f}; {n} random architectures under "
                f"the same {'limit and ' if self.limits else ''}weights {mean:.4f} ± {spread:.4f}, {worse} of {n} worse"
            )
            lines.append("These are figures of shared weights, not of a trained network. For those, retrain:")
        return "\n".join(lines)


def shared_weights_figure(objective: Objective) -> str:
    """What a score under shared weights is called in files: it must not be taken for that of a trained network."""
    return f"validation_{objective.metric}_shared_weights"


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """The metrics that a file of an architecture can hold."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
