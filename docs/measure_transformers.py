"""Retrains what the programs of ``transformers/`` find beside random architectures of their spaces.

``python docs/measure_transformers.py text_recurrent`` runs the program as it is; then what it found and two random
architectures of its space are retrained by the program's settings with two seeds. All figures are of the test part, and
go into ``transformers/text_recurrent.csv``, from which ``make_own_project.py`` makes the page's table.
"""

import csv
import runpy
import sys
from pathlib import Path
from random import Random

import lightning.pytorch as pl

from lightning_nas import ArchitectureRecord, Retrain

FOLDER = Path(__file__).parent / "transformers"
N_RANDOM, SEEDS = 2, (0, 1)


def measure(name: str) -> list[dict[str, object]]:
    """The figures of each retraining."""
    names = runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")
    space, data, task, retrain, trainer = (names[part] for part in ("space", "data", "task", "retrain", "trainer"))
    random, drawn = Random(0), [names["found"].architecture]
    while len(drawn) <= N_RANDOM:
        architecture = space.random(random)
        if architecture not in drawn:
            drawn.append(architecture)
    rows = []
    for number, architecture in enumerate(drawn):
        for seed in SEEDS:
            if number or seed != retrain.seed:  # else it is what the program has done
                record = ArchitectureRecord(space, architecture)
                again = Retrain(record, task, optimizer=retrain.optimizer, drop_path=0.0, seed=seed)
                trainer = pl.Trainer(max_epochs=trainer.max_epochs, enable_progress_bar=False, logger=False)
                trainer.fit(again, data)
                trainer.test(again, data, verbose=False)
            figures = {key: float(value) for key, value in trainer.callback_metrics.items()}
            of = "found" if number == 0 else f"random {number}"
            rows.append({"of": of, "architecture": space.describe(architecture), "seed": seed} | figures)
    return rows


if __name__ == "__main__":
    for program in sys.argv[1:]:
        figures = measure(program)
        with open(FOLDER / f"{program}.csv", "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(figures[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(figures)
