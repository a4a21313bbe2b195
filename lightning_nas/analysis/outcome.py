"""What a search leaves behind: the architecture, its costs, and how it compares with random ones."""

import csv
import dataclasses
import statistics
from pathlib import Path
from random import Random
from typing import Any

from lightning_nas.analysis.draw import draw_architecture, draw_scores, draw_weights
from lightning_nas.analysis.profile import Profile, profile
from lightning_nas.architecture import Found
from lightning_nas.evaluators import SharedWeights
from lightning_nas.methods.base import Method
from lightning_nas.seeding import derive_seed


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The result of a search, written to ``folder``.

    Attributes:
        found: the architecture.
        costs: of its network at the search's own width and depth.
        score: its score under the shared weights.
        random_scores: scores of uniformly drawn architectures under the same weights, on the same batches.
        folder: where the files lie.
    """

    found: Found
    costs: Profile
    score: float
    random_scores: list[float]
    score_name: str
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
        if self.random_scores:
            n, mean = len(self.random_scores), statistics.fmean(self.random_scores)
            spread = statistics.stdev(self.random_scores) if n > 1 else 0.0
            better = sum(score < self.score for score in self.random_scores)
            lines.append(
                f"shared weights: validation {self.score_name} {self.score:.4f}; {n} random architectures under the "
                f"same weights {mean:.4f} ± {spread:.4f}, {better} of {n} below"
            )
            lines.append("These are figures of shared weights, not of a trained network. For those, retrain:")
        return "\n".join(lines)


def conclude(method: Method, data: Any, folder: Path, n_random: int) -> Outcome:
    """Takes the method's best architecture, compares it with random ones and writes files.

    ``architecture.json``, ``architecture.svg``, ``weights.svg`` where the method weighs options, and, with
    ``n_random`` > 0, ``random.csv`` and ``random.svg``.

    Args:
        method: a search with its network.
        data: the data module that it was trained on.
        folder: where to write.
        n_random: how many random architectures to compare with.
    """
    space, architecture = method.space, method.best()
    rng = Random(derive_seed(method.seed, "random architectures"))
    candidates = [architecture, *(space.random(rng) for _ in range(n_random))]
    score, *random_scores = _scores(SharedWeights.of(method, data), candidates) if n_random else [float("nan")]
    child = space.restrict(architecture).network(method.network.inputs, form="final", **method.network_settings)
    costs = profile(child, child.example())
    name = method.task.score
    metrics: dict[str, float] = {"n_params_at_search_size": costs.n_params, "flops_at_search_size": costs.flops}
    if n_random:
        metrics[f"validation_{name}_shared_weights"] = score
        metrics[f"validation_{name}_shared_weights_random_mean"] = statistics.fmean(random_scores)
    found = Found(space, architecture, metrics, type(method).__name__, method.seed)

    folder.mkdir(parents=True, exist_ok=True)
    found.save(folder / "architecture.json")
    draw_architecture(space, architecture, folder / "architecture.svg", f"{type(method).__name__}, seed {method.seed}")
    weights = method.choice_weights()
    if weights is not None:
        draw_weights(space.choices, weights, folder / "weights.svg")
    if n_random:
        with open(folder / "random.csv", "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["origin", f"validation_{name}_shared_weights", *(c.name for c in space.choices)])
            origins = ["found", *["random"] * n_random]
            for origin, value, drawn in zip(origins, [score, *random_scores], candidates, strict=True):
                writer.writerow([origin, value, *space.to_names(drawn).values()])
        draw_scores(
            {"random architectures": random_scores},
            folder / "random.svg",
            f"validation {name} under the shared weights",
            {type(method).__name__: score},
        )
    return Outcome(found, costs, score, random_scores, name, folder)


def _scores(evaluate: SharedWeights, architectures: list[Any]) -> list[float]:
    from tqdm import tqdm

    return [evaluate(a) for a in tqdm(architectures, desc="Scoring under shared weights", leave=False)]
