"""The line of aging evolution on a table of results, per ask and tell: nothing is written to disk."""

import tempfile
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from benchmarks.measure import Side
from benchmarks.rows import CallRow
from lightning_nas.evaluators.tabular_benchmark import TabularBenchmark
from lightning_nas.spaces import Architecture, NASBench201
from lightning_nas.strategies import AgingEvolution, Proposal, Trial

POPULATION, SAMPLE = 10, 3


class Evolution(CallRow):
    """Against a bare loop around a deque. The results are random numbers: what they are does not change the work."""

    name, title = "evolution", "Aging evolution on a table"

    def calls(self) -> dict[Side, Callable[[], Any]]:
        space, rng = NASBench201(), Random(0)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results.csv"
            rows = (f"{''.join(map(str, architecture))},{rng.random()}" for architecture in space)
            path.write_text("\n".join(["architecture,score", *rows]))
            table = TabularBenchmark(str(path), "score", digits="architecture")
            table.open(space)
        scores = {architecture: table(Proposal(architecture)).metrics["score"] for architecture in space}
        settings = (self.sizes.trials, POPULATION, SAMPLE, 0)
        return {"textbook": partial(bare, scores, *settings), "ours": partial(ours, table, space, *settings)}


def ours(table: TabularBenchmark, space: NASBench201, n: int, population: int, sample: int, seed: int) -> float:
    """The best score of n trials."""
    strategy = AgingEvolution(population, sample).begin(space, seed)
    for number in range(n):
        (proposal,) = strategy.ask()
        evaluation = table(proposal, number)
        trial = Trial(number, proposal.architecture, metrics=evaluation.metrics, cost=evaluation.cost)
        strategy.tell([trial.judged([table.objective])])
    assert strategy.best is not None
    return strategy.best.score


def bare(scores: dict[Architecture, float], n: int, population: int, sample: int, seed: int) -> float:
    """The best score of n rounds: six edges with five operations, as the textbook would write it."""
    rng = Random(seed)
    members: deque[tuple[float, Architecture]] = deque()
    best = -1.0
    for _ in range(n):
        if len(members) < population:
            architecture = tuple(rng.randrange(5) for _ in range(6))
        else:
            parent = max(rng.choices(members, k=sample))[1]
            edge = rng.randrange(6)
            operation = rng.choice([option for option in range(5) if option != parent[edge]])
            architecture = (*parent[:edge], operation, *parent[edge + 1 :])
        score = scores[architecture]
        members.append((score, architecture))
        if len(members) > population:
            members.popleft()
        best = max(best, score)
    return best
