"""How soon NSGA-II finds the true front of accuracy and parameters on the table of NAS-Bench-201.

    python -m benchmarks.fronts --trials 500 --population 20 --operations skip_connect nor_conv_1x1 nor_conv_3x3

The table is read, so that the front of all cells with these operations is known. The accuracy is that of validation
after 200 epochs. Hypervolumes are shares of the true front's, down to the worst values of all these cells. The file
``nasbench201.csv.gz`` is looked for in ``$LIGHTNING_NAS_DATA``.
"""

import argparse
import math
import statistics
from collections.abc import Sequence

from lightning_nas.evaluators import TabularBenchmark
from lightning_nas.objectives import Objective
from lightning_nas.spaces import NASBench201
from lightning_nas.spaces.base import Architecture
from lightning_nas.spaces.image_cells.nas_bench_201 import OPERATIONS
from lightning_nas.strategies import NSGA2, Proposal, RandomSearch, Strategy, Trial
from lightning_nas.strategies.fronts import front, hypervolume

OBJECTIVES = [Objective("c10v_val_200"), Objective("params", "min")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operations", nargs="+", default=list(OPERATIONS), metavar="OPERATION")
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--population", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=100)
    arguments = parser.parse_args()
    space = NASBench201().restrict({c.name: arguments.operations for c in NASBench201().choices})
    known = trials_of(space)
    true = front(list(known.values()))
    worst = [min(values) for values in zip(*(trial.values for trial in known.values()), strict=True)]
    whole, n_missed = hypervolume(true, worst), len(known) - len(true)
    n = min(arguments.trials, len(known))
    without_repetition = math.comb(n_missed, n - len(true)) / math.comb(len(known), n)
    print(f"{len(known):,} cells, of which {len(true)} are the front; {n:,} different random ones have all of them")
    print(f"with a probability of {without_repetition:.1g}. {arguments.seeds} seeds\n")
    places = [n for n in (50, 100, 200, 500, 1000, 2000, 5000, 10_000) if n <= arguments.trials]
    print(
        "| strategy | seeds with the whole front | trials until then | "
        + " | ".join(f"after {n:,}" for n in places)
        + " |"
    )
    for strategy in (NSGA2(arguments.population), RandomSearch()):
        found, shares = [], []
        for seed in range(arguments.seeds):
            trials = searched(strategy, space, known, arguments.trials, seed)
            found.append(n_until(trials, true))
            shares.append([hypervolume(trials[:place], worst) / whole for place in places])
        reached = [n for n in found if n is not None]
        median = f"{statistics.median(reached):,.0f}, at most {max(reached):,}" if reached else ""
        medians = [f"{statistics.median(column):.4f}" for column in zip(*shares, strict=True)]
        print(f"| {type(strategy).__name__} | {len(reached)} | {median} | " + " | ".join(medians) + " |", flush=True)


def trials_of(space: NASBench201) -> dict[Architecture, Trial]:
    """What is known of each cell of a space."""
    table = TabularBenchmark("nasbench201.csv.gz", OBJECTIVES[0].metric, [OBJECTIVES[1].metric], digits="arch")
    table.open(NASBench201())
    known = {}
    for number, architecture in enumerate(space):
        full = NASBench201().from_names(space.to_names(architecture))
        known[architecture] = Trial(number, architecture, metrics=table(Proposal(full)).metrics).judged(OBJECTIVES)
    return known


def searched(
    strategy: Strategy, space: NASBench201, known: dict[Architecture, Trial], n_trials: int, seed: int
) -> list[Trial]:
    """The trials of a search, each told before the next is asked for."""
    strategy.begin(space, seed)
    trials = []
    for number in range(n_trials):
        (proposal,) = strategy.ask()
        trials.append(Trial(number, proposal.architecture, known[proposal.architecture].values))
        strategy.tell(trials[-1:])
    return trials


def n_until(trials: Sequence[Trial], true: Sequence[Trial]) -> int | None:
    """After how many trials all of the true front were found; None: not all were."""
    missing = {trial.values for trial in true}
    for n, trial in enumerate(trials, start=1):
        missing.discard(trial.values)
        if not missing:
            return n
    return None


if __name__ == "__main__":
    main()
