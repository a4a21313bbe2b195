"""Every method searches a network of a user's own."""

from functools import partial

import pytest
import torch
from torch import nn

from lightning_nas import DARTS, PDARTS, SNAS, SPOS, LayerChoice, OwnSpace, Retrain, Scorer, SettingError, freeze
from lightning_nas.spaces import DARTSCell, DARTSRecurrentCell
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.tasks import ImageClassification, LanguageModeling
from tests.helpers.methods import ONE_SHOT, darts, digits, pdarts, trainer
from tests.helpers.methods import Planted as PlantedData
from tests.helpers.own_network import Net, Planted

INPUTS = {"channels": 1, "image_size": 8, "num_classes": 10}
ONE_STAGE = {"network": {}, "stages": [{}], "operations": [], "skip_dropout": [0.0], "epochs": 8}
METHODS = ONE_SHOT | {
    "darts-exact": partial(darts, order="exact", alphas_lr=0.02, alphas_weight_decay=0.0),
    "p-darts": partial(pdarts, **ONE_STAGE, alphas_lr=0.02, alphas_weight_decay=0.0),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in ("gdas", "spos") else pytest.mark.slow) for name in METHODS]
)
def test_planted_task(name):
    # by chance one seed in four
    for seed in range(2):
        method = METHODS[name](space=OwnSpace(Planted), network={}, seed=seed, lr=0.05)
        data = PlantedData()
        trainer(max_epochs=8, limit_val_batches=0).fit(method, data)
        chosen, _ = method.choose(data)
        assert method.space.to_names(chosen) == {"layer": "keeps", "reads": "1"}


def test_the_usual_drop_path_is_of_networks_with_paths():
    def dropped(space, task=None, inputs=INPUTS, **settings):
        return SNAS(space, task or ImageClassification(), inputs=inputs, **settings).path_dropout

    assert dropped(OwnSpace(Net)) == 0.0
    assert dropped(DARTSRecurrentCell(nodes=2), LanguageModeling(), {"vocabulary": 20}) == 0.0
    assert dropped(DARTSCell(nodes=2)) == 0.3
    assert dropped(DARTSCell(nodes=2), drop_path=0.1) == 0.1
    assert Retrain("darts_v2", ImageClassification(), inputs=INPUTS).path_dropout == 0.2
    found = ArchitectureRecord(OwnSpace(Net), (0, 1, 1))
    assert Retrain(found, ImageClassification(), inputs=INPUTS).path_dropout == 0.0


def test_a_checkpoint_of_other_choices_is_refused(tmp_path):
    run = trainer(max_epochs=1)
    run.fit(DARTS(OwnSpace(Net), ImageClassification(), order="first"), digits())
    run.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    name, options = checkpoint["lightning_nas"]["choices"][0]
    checkpoint["lightning_nas"]["choices"][0] = [name, options[::-1]]
    torch.save(checkpoint, tmp_path / "other.ckpt")
    message = (
        f"space: the choices of the checkpoint in its order; it has {name}: {', '.join(options[::-1])}; now {name}"
    )
    with pytest.raises(SettingError, match=message):
        trainer(max_epochs=2).fit(
            DARTS(OwnSpace(Net), ImageClassification(), order="first"), digits(), ckpt_path=tmp_path / "other.ckpt"
        )


def test_frozen_with_averages_of_its_own_it_is_the_network_that_was_scored():
    space = OwnSpace(Normalised)
    search, data = SPOS(space, ImageClassification(), rounds=1, population=2, n_mutants=1, n_crossovers=0), digits()
    trainer(max_epochs=2).fit(search, data)
    architecture = next(iter(space))
    scorer = Scorer.of(search, data)
    with scorer.normalising(architecture):
        model = freeze(search.network, architecture).eval()
    right = [(model(images).argmax(1) == labels) for images, labels in scorer.validation]
    assert torch.cat(right).float().mean().item() == pytest.approx(scorer(architecture))


class Normalised(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.read = LayerChoice([nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 1)])
        self.norm, self.classify = nn.BatchNorm2d(4), nn.Linear(4, num_classes)

    def forward(self, x):
        return self.classify(self.norm(self.read(x)).relu().mean((2, 3)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (partial(SNAS, drop_path=0.3), "drop_path: networks of OwnSpace have no paths to drop; set it to 0"),
        (partial(SNAS, cost="log"), "space: costs of OwnSpace are no sum over choices"),
        (partial(DARTS, network={"cells": 3}), "network.cells: no such setting; there are none"),
        (PDARTS, "operations: a number for each of the 3 stages but the first"),
        (
            partial(PDARTS, **ONE_STAGE | {"skip_dropout": [0.1], "warmup_epochs": 0}),
            "skip_dropout: networks of OwnSpace drop",
        ),
    ],
)
def test_what_an_own_network_has_not_is_refused(build, message):
    with pytest.raises(SettingError, match=message):
        trainer(max_epochs=8).fit(build(OwnSpace(Net), ImageClassification()), digits())
