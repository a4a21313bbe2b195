"""Aging evolution on a table of results, per ask and tell, against the same search as a bare loop around a deque.

    python -m benchmarks.evolution nasbench201.csv.gz

Both run the same number of trials on the same 15,625 results, in turns in one process. The bare loop has no trials, no
strategy and no evaluator: a random generator, a dictionary of scores and the population. Nothing is written to disk;
what is counted is the time of the process.
"""

import argparse
import statistics
import time
from collections import deque
from random import Random

from lightning_nas.evaluators.table import Table
from lightning_nas.spaces import Architecture, NASBench201
from lightning_nas.strategies import AgingEvolution, Trial


def ours(table: Table, space: NASBench201, n: int, population: int, sample: int, seed: int) -> float:
    """The best score of n trials."""
    strategy = AgingEvolution(population, sample).begin(space, seed)
    for number in range(n):
        (architecture,) = strategy.ask()
        evaluation = table(architecture, number)
        strategy.tell([Trial(number, architecture, evaluation.score, evaluation.metrics, evaluation.cost)])
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", help="NAS-Bench-201 as CSV, as the README describes")
    parser.add_argument("--trials", type=int, default=100_000)
    parser.add_argument("--population", type=int, default=10)
    parser.add_argument("--sample", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()

    space = NASBench201()
    table = Table(arguments.table, "c10v_val_12", digits="arch")
    table.open(space)
    scores = {architecture: table(architecture).score for architecture in space}
    settings = (arguments.trials, arguments.population, arguments.sample)
    microseconds: dict[str, list[float]] = {"bare loop": [], "AgingEvolution": []}
    for seed in range(arguments.rounds):
        start = time.process_time()
        bare(scores, *settings, seed)
        middle = time.process_time()
        ours(table, space, *settings, seed)
        times = middle - start, time.process_time() - middle
        for measured, spent in zip(microseconds.values(), times, strict=True):
            measured.append(1e6 * spent / arguments.trials)
    print(f"{arguments.trials:,} trials, P = {arguments.population}, S = {arguments.sample}, {arguments.rounds} rounds")
    for name, measured in microseconds.items():
        spread = f"{min(measured):.2f} to {max(measured):.2f}"
        print(f"  {name:16}{statistics.median(measured):8.2f} µs per trial, median   ({spread})")
    ratio = statistics.median(b / a for a, b in zip(*microseconds.values(), strict=True))
    print(f"  ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
