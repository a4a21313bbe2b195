"""What is written while a search runs."""

import csv
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from lightning.pytorch.loggers import CSVLogger

from lightning_nas import Adam
from lightning_nas.callbacks import ArchitectureLogger
from lightning_nas.data import CIFAR10, Digits
from lightning_nas.methods import DARTS, RandomSearchWS
from lightning_nas.runs.folder import RunFolder
from lightning_nas.spaces import DARTSCell
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.tasks import ImageClassification


class Recorded(pl.Callback):
    """What the search would return, and its validation score, after every epoch."""

    def __init__(self):
        self.architectures, self.weights, self.scores = [], [], {}

    def on_train_epoch_end(self, trainer, pl_module):
        self.architectures.append(pl_module.best())
        self.weights.append(pl_module.choice_weights())

    def on_validation_end(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.scores[trainer.current_epoch] = float(trainer.callback_metrics["val/supernet_accuracy"])


@pytest.mark.parametrize(
    ("config", "data", "expected"),
    [
        ("darts/quickstart_retrain.yaml", Digits(), ""),
        ("darts/quickstart_retrain.yaml", Digits(image_size=32, channels=3), " --data.image_size=32 --data.channels=3"),
        ("darts/retrain.yaml", Digits(), " --data Digits"),
        ("darts/retrain.yaml", CIFAR10(folder="a b", verify=False), " --data.folder='a b' --data.verify=false"),
    ],
)
def test_the_next_command_names_the_data_of_the_search(config, data, expected, tmp_path):
    logger = ArchitectureLogger(retrain_config=config)
    found = SimpleNamespace(run=RunFolder(tmp_path), next_step="retrain", found=SimpleNamespace(space=DARTSCell()))
    command = f"python -m lightning_nas fit --config {config} --model.architecture {tmp_path / 'architecture.json'}"
    assert logger.next_command(found, data) == command + expected


def trainer(folder, callbacks, **settings):
    return pl.Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        callbacks=callbacks,
        **settings,
    )


def test_a_row_per_epoch_and_pictures_every_few(tmp_path):
    recorded = Recorded()
    space = DARTSCell(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3"))
    method = DARTS(space, ImageClassification(), {"channels": 2, "cells": 2}, order="first", alphas_optimizer=Adam(1.0))
    callbacks = [recorded, ArchitectureLogger(every_n_epochs=3, n_random=0)]
    trainer(tmp_path, callbacks, max_epochs=4, check_val_every_n_epoch=2).fit(method, Digits(batch_size=256))

    with open(tmp_path / "architectures.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2, 3]
    found = [space.from_names({choice.name: row[choice.name] for choice in space.choices}) for row in rows]
    assert found == recorded.architectures
    assert len(set(found)) > 1  # the search moved
    scores = [row["supernet_validation_score"] for row in rows]
    assert scores == ["", str(recorded.scores[1]), "", str(recorded.scores[3])]  # no score where none was taken
    with open(tmp_path / "weights.csv") as file:
        of_options = [
            (row["epoch"], row["choice"], row["option"], float(row["weight"])) for row in csv.DictReader(file)
        ]
    assert of_options == [
        (str(epoch), choice.name, option, weight)
        for epoch, weights in enumerate(recorded.weights)
        for choice, row in zip(space.choices, weights, strict=True)
        for option, weight in zip(choice.options, row, strict=True)
    ]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        "epoch_002_cells.svg",
        "epoch_002_weights.svg",
    ]
    assert (tmp_path / "architecture.json").exists()


def test_a_method_that_knows_its_best_in_the_end_alone(tmp_path, capsys):
    space, data = DARTSCell(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3")), Digits(batch_size=256)
    few = {"n_candidates": 6, "n_batches": 1, "n_finalists": 2}
    method = RandomSearchWS(space, ImageClassification(), {"channels": 2, "cells": 2}, **few)
    logger = ArchitectureLogger(every_n_epochs=1, n_random=2)
    trainer(tmp_path, [logger], max_epochs=2).fit(method, data)
    written = {path.name for path in tmp_path.iterdir()} - {"metrics.csv", "hparams.yaml"}
    compared = {"candidates.csv", "random.csv", "random.json", "random.svg"}
    assert written == {"architecture.json", "architecture.svg", *compared}
    chosen, _ = method.choose(data)
    found = load_architecture(tmp_path / "architecture.json")
    assert (found.architecture, found.method) == (chosen, "RandomSearchWS")
    printed = capsys.readouterr().out
    assert "2 random architectures under the same weights" in printed
    assert f"--model.architecture {tmp_path / 'architecture.json'}" in printed
