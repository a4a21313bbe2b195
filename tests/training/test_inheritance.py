"""Weights that a retraining begins with: which ones they are, and when they are read."""

import pytest
import torch

from lightning_nas.cli.main import main
from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.methods import DARTS
from lightning_nas.spaces import DARTSCell, NASBench201
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.tasks import ContrastiveLearning, ImageClassification
from lightning_nas.testing.method import assert_same, quiet_trainer, snapshot
from lightning_nas.training import SGD, Retrain

SPACE = NASBench201()
FOUND = (3, 1, 2, 0, 3, 2)  # no pool: the final form has no BatchNorm after pools
NETWORK = {"channels": 4, "cells": 1}


def digits(**settings):
    return Digits(**({"batch_size": 256} | settings))


def retrain(initial=None, architecture=FOUND, task=None, network=None, **settings):
    record = ArchitectureRecord(SPACE, architecture) if isinstance(architecture, tuple) else architecture
    usual = {"drop_path": 0.0, "optimizer": SGD(0.05, momentum=0.9), "initial": initial and str(initial)}
    task = task or ImageClassification()
    return Retrain(record.to_dict(), task, network or NETWORK, **(usual | settings))


def begun(module, data=None):
    """What the network is when training begins: at a rate of 0 nothing changes, but for BatchNorm's averages."""
    module.optimizer = SGD(0.0)
    quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(module, data or digits())
    return dict(module.network.named_parameters())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """The checkpoints of a search and of a retraining of an architecture of its space, and their networks."""
    folder, networks = tmp_path_factory.mktemp("inherited"), {}
    for name, module in {
        "search": DARTS(SPACE, ImageClassification(), NETWORK, order="first"),
        "retrained": retrain(seed=7),
        "contrastive": retrain(task=ContrastiveLearning(features=6, dimensions=4)),
    }.items():
        run = quiet_trainer(max_epochs=1, limit_train_batches=2, limit_val_batches=0)
        run.fit(module, digits())
        run.save_checkpoint(folder / f"{name}.ckpt")
        networks[name] = module.network
    return folder, networks


def test_the_weights_of_a_search_are_those_that_the_architecture_has_in_it(checkpoints, caplog):
    folder, networks = checkpoints
    supernet = dict(networks["search"].named_parameters())
    fresh = dict(retrain(inputs=digits().inputs).network.named_parameters())
    with caplog.at_level("INFO"):
        own = begun(retrain(folder / "search.ckpt"))
    new = [name for name in own if name not in supernet]
    assert 0 < len(new) < len(own)
    for name, value in own.items():
        assert torch.equal(value, fresh[name] if name in new else supernet[name]), name
    assert any("conv" in name or "body" in name or "stacks" in name for name in own if name not in new)
    (line,) = [record.getMessage() for record in caplog.records if record.getMessage().startswith("initial: ")]
    assert line.startswith(
        f"initial: {len(own) - len(new)} of {len(own)} weights are those of {folder / 'search.ckpt'}"
    )
    assert f"; new are {new[0]}, {new[1]}" in line
    assert "\n" not in line


def test_the_child_computes_what_the_supernet_does(checkpoints):
    """Without scales of its own the final form's BatchNorm is the search form's, so outputs are the same."""
    folder, networks = checkpoints
    module, supernet = retrain(folder / "search.ckpt"), networks["search"]
    begun(module)
    module.network.load_state_dict(
        {n: v for n, v in supernet.child_state(FOUND).items() if n in module.network.state_dict()}, strict=False
    )
    images, _ = digits().stream("weights", 0).get(0)
    with torch.no_grad():
        expected = supernet.eval()(images, SPACE.gates(FOUND))
        supernet.train()
        torch.testing.assert_close(module.network.eval()(images), expected)


def test_layers_of_other_widths_stay_new(checkpoints):
    folder, _ = checkpoints
    wider = {"channels": 8, "cells": 1}
    fresh = dict(retrain(network=wider, inputs=digits().inputs).network.named_parameters())
    own = begun(retrain(folder / "retrained.ckpt", network=wider))
    other = checkpoints[1]["retrained"].state_dict()
    same = {name for name, value in own.items() if other[name].shape == value.shape}
    assert same < own.keys()
    assert same == {"classifier.bias"}
    assert all(torch.equal(value, (other if name in same else fresh)[name]) for name, value in own.items())


def test_a_retraining_is_tuned_further_with_its_statistics(checkpoints):
    folder, networks = checkpoints
    module = retrain(folder / "retrained.ckpt", inputs=digits().inputs)
    quiet = quiet_trainer(max_epochs=1, limit_train_batches=1)
    seen = {}
    quiet.callbacks.append(at_start(lambda m: seen.update(snapshot(m.network))))
    quiet.fit(module, digits())
    assert_same(seen, dict(networks["retrained"].state_dict()))


def at_start(look):
    from lightning.pytorch import Callback

    class AtStart(Callback):
        def on_train_start(self, trainer, pl_module):
            look(pl_module)

    return AtStart()


def test_a_classifier_of_other_classes_is_new(checkpoints):
    folder, networks = checkpoints
    own, other = begun(retrain(folder / "contrastive.ckpt")), networks["contrastive"].state_dict()
    fresh = dict(retrain(inputs=digits().inputs).network.named_parameters())
    for name, value in own.items():
        assert torch.equal(value, (fresh if name.startswith("classifier") else other)[name]), name


def test_a_run_that_continues_needs_no_file(checkpoints, tmp_path):
    initial = tmp_path / "initial.ckpt"
    initial.write_bytes((checkpoints[0] / "search.ckpt").read_bytes())

    def ended(epochs, **settings):
        module, run = retrain(initial), quiet_trainer(max_epochs=epochs)
        run.fit(module, digits(), **settings)
        return module, run

    whole, _ = ended(2)
    _, first = ended(1)
    first.save_checkpoint(tmp_path / "first.ckpt")
    initial.unlink()
    continued, _ = ended(2, ckpt_path=tmp_path / "first.ckpt")
    assert_same(snapshot(continued.network), snapshot(whole.network))
    loaded = Retrain.load_from_checkpoint(tmp_path / "first.ckpt", weights_only=True)
    assert loaded.initial == str(initial)
    quiet_trainer().test(loaded, digits(), verbose=False)
    with pytest.raises(SettingError, match=r"^initial: there is no file"):
        ended(1)


def test_what_does_not_fit_is_refused(checkpoints, tmp_path):
    folder, _ = checkpoints
    other_space = ArchitectureRecord(DARTSCell(nodes=1), DARTSCell(nodes=1).random(__import__("random").Random(0)))
    trials = tmp_path / "trials.ckpt"
    for initial, architecture, message in (
        ("search.ckpt", other_space, r"is of another space, NASBench201, than the architecture's, DARTSCell"),
        ("retrained.ckpt", (1, 1, 1, 1, 1, 1), r"is of another architecture"),
        ("none.ckpt", FOUND, r"there is no file"),
    ):
        with pytest.raises(SettingError, match=rf"^initial: .*{message}"):
            begun(retrain(folder / initial, architecture, network={"channels": 4}))
    assert not trials.exists()


def test_a_checkpoint_of_which_nothing_fits_is_refused(checkpoints):
    folder, _ = checkpoints
    with pytest.raises(SettingError, match=r"^initial: no weight of .* has the name and the shape of one here"):
        begun(
            retrain(folder / "contrastive.ckpt", network={"channels": 8, "cells": 1}), digits(image_size=16, channels=3)
        )


def test_the_command_line_inherits(checkpoints, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    ArchitectureRecord(SPACE, FOUND).save(tmp_path / "architecture.json")
    small = ["--model=Retrain", "--model.architecture=architecture.json", "--model.network={channels: 4, cells: 1}"]
    short = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.limit_train_batches=1"]
    task = ["--model.task=ImageClassification", "--data=Digits"]
    assert not main(["fit", *small, *task, *short, f"--model.initial={checkpoints[0] / 'search.ckpt'}"])
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    settings = torch.load(checkpoint, weights_only=True)["hyper_parameters"]
    assert settings["initial"] == str(checkpoints[0] / "search.ckpt")
    capsys.readouterr()
    assert main(["fit", *small, *task, *short, "--model.initial=gone.ckpt"])
    assert "error: model.initial: there is no file gone.ckpt" in capsys.readouterr().err
