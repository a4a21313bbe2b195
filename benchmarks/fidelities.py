"""Short trials of which the best continue, beside random search, on digits from scratch at equal cost.

    python -m benchmarks.fidelities --budget 72 --seeds 10

Cells of NAS-Bench-201 (4 channels, 1 cell of each size) train for up to 9 epochs. The cost is counted in epochs, so it
depends on no machine; a trial that continues costs what it adds. One line is printed for each search, with the
validation figures of what it found.
"""

import argparse
import dataclasses
import json
import tempfile

from lightning_nas.data import Digits
from lightning_nas.evaluators import FromScratch
from lightning_nas.evaluators.base import Evaluation
from lightning_nas.spaces import NASBench201
from lightning_nas.strategies import ASHA, Hyperband, Proposal, RandomSearch, SuccessiveHalving
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.optimizers import SGD
from lightning_nas.trials import TrialLoop

EPOCHS = 9
STRATEGIES = {
    "random search": RandomSearch,
    "successive halving": lambda: SuccessiveHalving(max_fidelity=EPOCHS, repeats=None),
    "Hyperband": lambda: Hyperband(max_fidelity=EPOCHS),
    "ASHA": lambda: ASHA(max_fidelity=EPOCHS),
}


class CountedInEpochs(FromScratch):
    """A training whose cost is its number of epochs."""

    def __call__(self, proposal: Proposal, number: int) -> Evaluation:
        evaluation = super().__call__(proposal, number)
        return dataclasses.replace(evaluation, cost=float((proposal.fidelity or self.epochs) - proposal.reached))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=float, default=72.0, help="epochs of each search")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first_seed", type=int, default=0)
    arguments = parser.parse_args()
    for seed in range(arguments.first_seed, arguments.first_seed + arguments.seeds):
        for name in STRATEGIES:
            print(json.dumps({"strategy": name, "seed": seed, **searched(name, arguments.budget, seed)}), flush=True)


def searched(name: str, budget: float, seed: int) -> dict[str, object]:
    """What one search found, and what it took."""
    sgd = SGD(0.1, momentum=0.9, weight_decay=3e-4, schedule=Cosine())
    evaluator = CountedInEpochs(
        ImageClassification(),
        {"channels": 4, "cells": 1},
        epochs=EPOCHS,
        retrain={"optimizer": sgd, "drop_path": 0.0},
        trainer={"accelerator": "cpu"},
    )
    with tempfile.TemporaryDirectory() as folder:
        loop = TrialLoop(
            NASBench201(), STRATEGIES[name](), evaluator, folder=folder, budget=budget, seed=seed, progress=False
        )
        best = loop.run(Digits())
    return {
        "accuracy": best.metrics["val/accuracy"],
        "loss": best.metrics["val/loss"],
        "epochs": best.fidelity,
        "architectures": sum(trial.continues is None for trial in loop.history),
        "cost": loop.cost,
        "cell": best.architecture,
    }


if __name__ == "__main__":
    main()
