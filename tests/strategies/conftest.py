"""Tables of results to search in: one that is made, and NAS-Bench-201 where it is at hand."""

import itertools
import os
from pathlib import Path
from random import Random

import pytest

from lightning_nas.evaluators import TabularBenchmark
from lightning_nas.spaces import Choice, NASBench201, Space
from lightning_nas.strategies import Trial


def pairwise_table(seed=0, n_choices=6, n_options=4):
    """A space without rule, and a score for each of its architectures: a normal number for each option, and half of one
    for each pair of options of two choices."""
    rng = Random(seed)
    names = [tuple(f"{letter}{k}" for letter in "abcdefgh"[:n_options]) for k in range(n_choices)]
    space = Space(Choice(f"choice {k}", options, str(k)) for k, options in enumerate(names))
    alone = [[rng.gauss(0, 1) for _ in options] for options in names]
    pairs = {
        (i, j): [[rng.gauss(0, 0.5) for _ in names[j]] for _ in names[i]]
        for i, j in itertools.combinations(range(n_choices), 2)
    }
    scores = {
        architecture: sum(row[option] for row, option in zip(alone, architecture, strict=True))
        + sum(together[architecture[i]][architecture[j]] for (i, j), together in pairs.items())
        for architecture in space
    }
    return space, scores


@pytest.fixture(scope="session")
def pairwise():
    """4,096 architectures and their scores."""
    space, scores = pairwise_table()
    assert len(scores) == space.size == 4096
    return space, scores


@pytest.fixture
def search():
    """Runs a strategy, one trial after the other, and returns it."""

    def run(strategy, space, score, n_trials, seed=0):
        strategy.begin(space, seed)
        for number in range(n_trials):
            (proposal,) = strategy.ask()
            strategy.tell([Trial(number, proposal.architecture, (score(proposal.architecture),))])
        return strategy

    return run


@pytest.fixture(scope="session")
def nas_bench_201():
    """The space, and its table guided after 12 epochs at the cost of these, with the accuracy after 200."""
    folder = os.environ.get("LIGHTNING_NAS_DATA")
    if folder is None or not (Path(folder) / "nasbench201.csv.gz").is_file():
        pytest.skip("LIGHTNING_NAS_DATA names no folder with nasbench201.csv.gz")
    table = TabularBenchmark(
        str(Path(folder) / "nasbench201.csv.gz"),
        guide="c10v_val_12",
        report=["c10_test_200"],
        cost="c10v_train_s_per_epoch",
        cost_factor=12,
        digits="arch",
    )
    space = NASBench201()
    table.open(space)
    return space, table
