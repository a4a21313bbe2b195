"""How the cost of our steps grows.

    python -m benchmarks.growth --threads 2

For each size, with the others as they are, the time of a step and the most memory that it takes beyond the weights, and
the slope: the exponent p of cost ~ size^p by least squares over all values.
"""

import argparse
import dataclasses
import math
import statistics
import time
from collections.abc import Mapping, Sequence
from random import Random

import torch

from benchmarks.images import DARTSFirst
from benchmarks.rows import Row, Sizes
from benchmarks.sampling import Sampling
from benchmarks.tabular import Evolution
from benchmarks.text import DARTSRecurrentFirst, ENASRecurrentShared
from lightning_nas.data import Digits
from lightning_nas.evaluators.from_scratch import FromScratch
from lightning_nas.executors import Processes
from lightning_nas.spaces import NASBench201
from lightning_nas.tasks import ImageClassification

SMALL = Sizes(channels=8, cells=6, batch=32, hidden=300, enas_hidden=300, text_batch=32, window=18, vocabulary=1000)

STEPS: list[tuple[type[Row], str, Sequence[int]]] = [
    (DARTSFirst, "channels", (4, 8, 16, 32)),
    (DARTSFirst, "cells", (3, 6, 12, 24)),
    (DARTSFirst, "nodes", (1, 2, 4, 8)),
    (DARTSFirst, "operations", (2, 4, 6, 8)),
    (DARTSFirst, "batch", (8, 16, 32, 64)),
    (DARTSFirst, "image_size", (16, 32, 64)),
    (DARTSRecurrentFirst, "window", (9, 18, 36, 72)),
    (DARTSRecurrentFirst, "text_batch", (8, 16, 32, 64)),
    (DARTSRecurrentFirst, "hidden", (75, 150, 300, 600)),
    (DARTSRecurrentFirst, "vocabulary", (1000, 2000, 4000, 8000)),
    (ENASRecurrentShared, "window", (9, 18, 36, 72)),
    (Sampling, "samples", (1, 10, 100, 1000)),
    (Evolution, "trials", (1000, 10_000, 100_000)),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", help="those to be varied; default: all", metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    base = dataclasses.replace(SMALL, device=arguments.device)
    print(", ".join(f"{name} {value}" for name, value in dataclasses.asdict(base).items()) + "\n")
    print("| step | grows | | seconds | slope | MiB | slope |\n|---|---|---|---|---|---|---|")
    for kind, size, values in STEPS:
        if arguments.sizes is None or size in arguments.sizes:
            rows = {value: kind(dataclasses.replace(base, **{size: value})) for value in values}
            seconds = {value: row.time(arguments.rounds, ["ours"]).seconds("ours") for value, row in rows.items()}
            memory = {value: row.memory("ours") for value, row in rows.items()}
            for value in values:
                print(line(kind.title, size, value, seconds, memory), flush=True)
    if arguments.sizes is None or "workers" in arguments.sizes:
        print("\n| workers | trials per minute |\n|---|---|")
        for n_workers in (1, 2):
            print(f"| {n_workers} | {trials_per_minute(n_workers):.1f} |", flush=True)


def line(title: str, size: str, value: int, seconds: dict[int, float], memory: dict[int, float | None]) -> str:
    """The slopes are in the last line of a size."""
    last = value == max(seconds)
    figures = [f"{seconds[value]:.4g}", f"{slope(seconds):.2f}" if last else ""]
    known = {v: mebibytes for v, mebibytes in memory.items() if mebibytes is not None}
    figures += [f"{known[value]:,.0f}", f"{slope(known):.2f}" if last else ""] if known else ["", ""]
    return f"| {title} | {size} | {value} | " + " | ".join(figures) + " |"


def slope(costs: Mapping[int, float]) -> float:
    """The exponent p of ``cost ~ size^p``, by least squares of the logarithms."""
    x, y = ([math.log(v) for v in values] for values in (costs.keys(), costs.values()))
    return statistics.linear_regression(x, y).slope


def trials_per_minute(n_workers: int, n_trials: int = 8) -> float:
    """Of short trainings on the digits, one thread each, after the workers have started."""
    space, data, executor = NASBench201(), Digits(), Processes(n_workers, threads=1)
    evaluator = FromScratch(ImageClassification(), {"channels": 8, "cells": 1}, epochs=2)
    architectures = [space.random(Random(number)) for number in range(n_workers + n_trials)]
    executor.open(evaluator, space, data)
    try:
        for number, architecture in enumerate(architectures[:n_workers]):
            executor.submit(number, architecture)
        for _ in range(n_workers):
            executor.next()
        begun = time.perf_counter()
        for number, architecture in enumerate(architectures[n_workers:], start=n_workers):
            executor.submit(number, architecture)
        for _ in range(n_trials):
            executor.next()
        return 60 * n_trials / (time.perf_counter() - begun)
    finally:
        executor.close()


if __name__ == "__main__":
    main()
