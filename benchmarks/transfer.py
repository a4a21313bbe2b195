"""What a teacher and inherited weights are worth on cluttered digits: ``python -m benchmarks.transfer FOLDER``.

Students of 4 channels are trained with and without a teacher of 16, all of the best cell of NAS-Bench-201. A network
of 8 channels begins with the weights that its cell has in the search that found it, or with new ones. Checkpoints are
left in the folder, and the two tables in ``results/``.
"""

import csv
import logging
import statistics
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_nas import (
    SGD,
    ClutteredDigits,
    Cosine,
    Distillation,
    ImageClassification,
    NASBench201,
    RandomSearchWS,
    Retrain,
)
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.testing.method import quiet_trainer

RESULTS = Path(__file__).parent.parent / "results"
SEEDS = range(3)
N_IMAGES, N_TEST = 2000, 2000
SEARCH_EPOCHS, TEACHER_EPOCHS, STUDENT_EPOCHS, SHORT = 15, 10, 8, (1, 3)
RULE = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "clip": 5.0, "schedule": Cosine()}


def images() -> ClutteredDigits:
    return ClutteredDigits(n_images=N_IMAGES)


def trained(epochs: int, path: Path | None = None, **settings: Any) -> float:
    """Trains a network and returns its test accuracy; its checkpoint is left under ``path``."""
    module = Retrain(**{"drop_path": 0.0, "optimizer": SGD(0.1, **RULE), "task": ImageClassification()} | settings)
    run = quiet_trainer(max_epochs=epochs)
    run.fit(module, images())
    if path is not None:
        run.save_checkpoint(path)
    (figures,) = run.test(module, images(), verbose=False)
    return figures["test/accuracy"]


def distillation(folder: Path, cell: Any) -> list[list[str]]:
    """A row for the teacher, for students without it and for students with it."""
    teacher = folder / "teacher.ckpt"
    network = {"channels": 16, "cells": 1}
    rows = [
        ["teacher, 16 channels", TEACHER_EPOCHS, [trained(TEACHER_EPOCHS, teacher, architecture=cell, network=network)]]
    ]
    tasks = {
        "4 channels, labels alone": ImageClassification(),
        "4 channels, with the teacher": Distillation(str(teacher)),
    }
    small = {"channels": 4, "cells": 1}
    for name, task in tasks.items():
        each = [trained(STUDENT_EPOCHS, architecture=cell, network=small, task=task, seed=seed) for seed in SEEDS]
        print(name, each, flush=True)
        rows.append([name, STUDENT_EPOCHS, each])
    return [[name, str(epochs), spread(each)] for name, epochs, each in rows]


def inheritance(folder: Path) -> list[list[str]]:
    """A row for each number of epochs: beginning with new weights, and with those of a search."""
    network, search = {"channels": 8, "cells": 1}, folder / "search.ckpt"
    method = RandomSearchWS(
        NASBench201(), ImageClassification(), network, optimizer=SGD(0.1, **RULE), n_candidates=20, n_batches=2
    )
    run = quiet_trainer(max_epochs=SEARCH_EPOCHS, limit_val_batches=0)
    run.fit(method, images())
    run.save_checkpoint(search)
    best, _ = method.choose(images())
    cell = ArchitectureRecord(method.space, best).to_dict()
    print(method.space.describe(best), flush=True)
    rows = []
    for epochs in SHORT:
        figures = [
            [trained(epochs, architecture=cell, network=network, initial=i, seed=seed) for seed in SEEDS]
            for i in (None, str(search))
        ]
        print(epochs, figures, flush=True)
        rows.append([str(epochs), *map(spread, figures)])
    return rows


def spread(figures: Sequence[float]) -> str:
    """Mean and standard deviation."""
    mean = f"{statistics.fmean(figures):.3f}"
    return f"{mean} ± {statistics.stdev(figures):.3f}" if len(figures) > 1 else mean


def write(name: str, budget: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    data = f"ClutteredDigits, {N_IMAGES:,} training and {N_TEST:,} test images"
    origin = [data, budget, f"{SEEDS[0]} to {SEEDS[-1]}", "two CPU cores beside other work"]
    with open(RESULTS / f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["data", "budget", "seeds", "device", *header])
        table.writerows([*origin, *row] for row in rows)


def main(folder: Path) -> None:
    accuracy = "test accuracy (share of images)"
    write(
        "distillation",
        "SGD from .1 by a cosine",
        ["network", "epochs", accuracy],
        distillation(folder, "nas_bench_201_best"),
    )
    write(
        "inheritance",
        f"{SEARCH_EPOCHS} epochs of random search with weight sharing, then SGD from .1 by a cosine",
        ["epochs of training", f"from new weights: {accuracy}", f"from the search's weights: {accuracy}"],
        inheritance(folder),
    )


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    main(place)
