"""Every method searches a network of a user's own."""

from functools import partial

import pytest

from lightning_nas import DARTS, PDARTS, SNAS, OwnSpace, Retrain, SettingError
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


@pytest.mark.parametrize("name", METHODS)
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
