"""What a search leaves behind: the architecture, its costs, and how it compares with random ones."""

import csv
import dataclasses
import math
import statistics
from pathlib import Path
from random import Random
from typing import Any

from lightning_nas.analysis.draw import draw_architecture, draw_scores, draw_weights
from lightning_nas.analysis.profile import Profile, profile
from lightning_nas.architecture import Found
from lightning_nas.evaluators import Scorer
from lightning_nas.methods.base import OneShotMethod, SamplingMethod
from lightning_nas.seeding import derive_seed


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a search, written to ``folder``.

    Attributes:
        found: the architecture.
        costs: of its network at the search's own width and depth.
        score: its score under the shared weights.
        random_scores: scores of uniformly drawn architectures under the same weights, on the same batches.
        score_name, sign: of the task's score; 1 if higher is better, else -1.
        folder: where the files lie.
    """

    found: Found
    costs: Profile
    score: float
    random_scores: list[float]
    score_name: str
    sign: int
    folder: Path

    def describe(self) -> str:
        """The summary that a search ends with."""
        lines = [
            "",
            self.found.space.describe(self.found.architecture),
            "",
            f"network      {self.costs.n_params:,} parameters, {self.costs.flops:,} FLOPs per example "
            "(at the search's width and depth)",
            f"architecture {self.folder / 'architecture.json'}",
            f"drawing      {self.folder / 'architecture.svg'}",
        ]
        scores = [score for score in self.random_scores if math.isfinite(score)]
        if scores:
            n, mean = len(scores), statistics.fmean(scores)
            spread = statistics.stdev(scores) if n > 1 else 0.0
            worse = sum(self.sign * score < self.sign * self.score for score in scores)
            lines.append(
                f"shared weights: validation {self.score_name} {self.score:.4f}; {n} random architectures under the "
                f"same weights {mean:.4f} ± {spread:.4f}, {worse} of {n} worse"
            )
            lines.append("These are figures of shared weights, not of a trained network. For those, retrain:")
        return "\n".join(lines)


def conclude(method: OneShotMethod, data: Any, folder: Path, n_random: int) -> Outcome:
    """Takes the method's best architecture, compares it with random ones and writes files.

    ``architecture.json``, ``architecture.svg``, ``weights.svg`` where the method weighs options, ``candidates.csv``
    where it looked at several, and, with ``n_random`` > 0, ``random.csv``, ``random.svg`` and ``random.json``, the best
    of the random ones; where the method compares candidates, by the same comparison and of no more.

    Args:
        method: a search with its network.
        data: the data module that it was trained on.
        folder: where to write.
        n_random: how many random architectures to compare with.
    """
    space = method.space
    architecture, candidates = method.choose(data)
    rng = Random(derive_seed(method.seed, "random architectures"))
    drawn = [space.random(rng) for _ in range(n_random)]
    scores = Scorer.of(method, data).rank([architecture, *drawn], "Random ones") if n_random else {}
    score, random_scores = scores.get(architecture, float("nan")), [scores[a] for a in drawn]
    child = space.restrict(architecture).network(method.network.inputs, form="final", **method.network_settings)
    costs = profile(child, child.example())
    name = method.task.score
    figure = f"validation_{name}_shared_weights"
    finite = [value for value in random_scores if math.isfinite(value)]  # the others diverge under the shared weights
    metrics: dict[str, float] = {"n_params_at_search_size": costs.n_params, "flops_at_search_size": costs.flops}
    metrics |= _finite({figure: score, f"{figure}_random_mean": statistics.fmean(finite) if finite else math.nan})
    found = Found(space, architecture, metrics, method.name, method.seed)

    folder.mkdir(parents=True, exist_ok=True)
    found.save(folder / "architecture.json")
    draw_architecture(space, architecture, folder / "architecture.svg", f"{method.name}, seed {method.seed}")
    weights = method.choice_weights()
    if weights is not None:
        draw_weights(space.choices, weights, folder / "weights.svg")
    if candidates:
        rows = [["candidate", value, a] for a, value in candidates.items()]
        _table(folder / "candidates.csv", method, f"{figure}_some_batches", rows)
    if n_random:
        rows = [["random", value, a] for a, value in zip(drawn, random_scores, strict=True)]
        _table(folder / "random.csv", method, figure, [["found", score, architecture], *rows])
        best = next(a for a in scores if a in drawn)
        if isinstance(method, SamplingMethod):
            best, _ = method.choose(data, drawn[: method.n_candidates])
        Found(space, best, _finite({figure: scores[best]}), "random", method.seed).save(folder / "random.json")
    if finite and math.isfinite(score):
        draw_scores(
            {"random architectures": finite},
            folder / "random.svg",
            f"validation {name} under the shared weights",
            {method.name: score},
        )
    return Outcome(found, costs, score, random_scores, name, -1 if method.task.mode == "min" else 1, folder)


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """What a file of an architecture can hold."""
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _table(path: Path, method: OneShotMethod, score: str, rows: list[list[Any]]) -> None:
    """Rows of (origin, score, architecture)."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["origin", score, *(choice.name for choice in method.space.choices)])
        writer.writerows([origin, value, *method.space.to_names(a).values()] for origin, value, a in rows)
