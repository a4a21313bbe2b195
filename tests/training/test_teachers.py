"""Teachers: what the loss asks in training, what stays as it is, and what a checkpoint holds of them."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging

from lightning_nas.callbacks import Interruption
from lightning_nas.cli.main import main
from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.methods import DARTS
from lightning_nas.seeding import derive_seed
from lightning_nas.tasks import ContrastiveLearning, Distillation, ImageClassification
from lightning_nas.tasks.distillation import softened
from lightning_nas.testing.method import Stop, assert_same, differing, final_state, quiet_trainer, snapshot
from lightning_nas.training import SGD, Retrain
from lightning_nas.training.teachers import fingerprint
from tests.helpers.methods import NETWORKS, space


def digits(num_workers=0, **settings):
    return Digits(**({"batch_size": 256, "num_workers": num_workers, "cutout": 3} | settings))


def retrain(task, channels=2, **settings):
    network = {"channels": channels, "cells": 1}
    usual = {"drop_path": 0.0, "train_on": "weights", "optimizer": SGD(0.05, momentum=0.9)}
    return Retrain("nas_bench_201_best", task, network, **(usual | settings))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Checkpoints of a teacher after an epoch, of another teacher, and of a search."""
    folder = tmp_path_factory.mktemp("teachers")
    data = digits()
    search = DARTS(space(), ImageClassification(), NETWORKS[type(space())])
    for name, module in {
        "teacher": retrain(ImageClassification(), 4, train_on="all"),
        "other": retrain(ImageClassification(), 4, seed=1),
        "search": search,
    }.items():
        run = quiet_trainer(max_epochs=1, limit_train_batches=3, limit_val_batches=0)
        run.fit(module, data)
        run.save_checkpoint(folder / f"{name}.ckpt")
    return folder


@pytest.fixture
def teacher(checkpoints):
    return str(checkpoints / "teacher.ckpt")


# -- in training -------------------------------------------------------------------------------------------------------


class Watch(Callback):
    """Records whether teachers stay in evaluation mode, and what of them changes."""

    def on_train_start(self, trainer, pl_module):
        self.network = pl_module.teachers["teacher"]
        self.before = snapshot(self.network)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        assert pl_module.network.training
        assert not any(module.training for module in self.network.modules())


def test_the_first_step_is_that_of_the_formula_and_the_teacher_stays_as_it_is(teacher):
    task = Distillation(teacher, 0.7, 3.0)
    module, by_hand = (retrain(task, inputs=digits().inputs, optimizer=SGD(0.1)) for _ in range(2))
    watch = Watch()
    run = quiet_trainer(max_epochs=1, limit_train_batches=1, precision="64-true", callbacks=[watch])
    run.fit(module, digits())

    taught, network = Retrain.load_from_checkpoint(teacher).network.eval().double(), by_hand.network.double()
    images, labels = digits().stream("weights", 0).get(0)
    torch.manual_seed(derive_seed(0, "step", 0, 0, 0))
    outputs = network(images.double())
    loss = 0.3 * torch.nn.functional.cross_entropy(outputs, labels)
    loss = loss + 0.7 * softened(outputs, taught(images.double()), 3.0)
    gradients = torch.autograd.grad(loss, list(network.parameters()))
    for (name, own), before, gradient in zip(
        module.network.named_parameters(), network.parameters(), gradients, strict=True
    ):
        torch.testing.assert_close(own, before - 0.1 * gradient, msg=name)
    assert_same(snapshot(watch.network), watch.before)
    assert_same(snapshot(watch.network), snapshot(taught))
    assert not {id(p) for p in module.parameters()} & {id(p) for p in watch.network.parameters()}
    assert all(p.grad is None and not p.requires_grad for p in watch.network.parameters())
    trained = {id(p) for group in run.optimizers[0].param_groups for p in group["params"]}
    assert trained == {id(p) for p in module.network.parameters()}


def test_validation_and_testing_give_the_figures_of_the_classification(teacher):
    module = retrain(Distillation(teacher, 1.0))
    run = quiet_trainer(max_epochs=1)
    run.fit(module, digits())
    plain = retrain(ImageClassification(), inputs=digits().inputs)
    plain.network.load_state_dict(module.network.state_dict())
    quiet = {"verbose": False}
    own = {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("val/")}
    (validated,) = quiet_trainer().validate(plain, digits(), **quiet)
    assert own == pytest.approx(validated)
    assert quiet_trainer().test(module, digits(), **quiet) == quiet_trainer().test(plain, digits(), **quiet)


def test_a_search_can_be_taught_too(teacher):
    ended = []
    for weight in (0.0, 0.9):
        method = DARTS(space(), Distillation(teacher, weight), NETWORKS[type(space())], order="first")
        watch = Watch()
        run = quiet_trainer(max_epochs=1, limit_train_batches=3, callbacks=[watch])
        run.fit(method, digits())
        assert_same(snapshot(watch.network), watch.before)
        ended.append(snapshot(method))
    assert "alphas" in differing(*ended)
    assert any(name.startswith("network.") for name in differing(*ended))


# -- checkpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("which", ["distilled", "distilled-averaged", "contrastive"])
def test_interrupted_and_resumed_is_uninterrupted(which, workers, teacher, tmp_path):
    task = ContrastiveLearning(features=6, dimensions=4) if which == "contrastive" else Distillation(teacher)

    def run(*callbacks):
        averages = [EMAWeightAveraging(decay=0.8)] if which.endswith("averaged") else []
        return quiet_trainer(max_epochs=3, limit_train_batches=3, callbacks=[*averages, *callbacks])

    def made():
        return retrain(task, train_on="all" if which.endswith("averaged") else "weights")

    whole, first = made(), run()
    first.fit(whole, digits())
    with pytest.raises(SystemExit):
        run(Stop(1, 1), Interruption(tmp_path)).fit(made(), digits(workers))
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not any("teacher" in name for name in content["state_dict"])
    assert any("projector" in name for name in content["state_dict"]) == (which == "contrastive")
    resumed, second = Retrain.load_from_checkpoint(tmp_path / "last.ckpt", weights_only=True), run()
    second.fit(resumed, digits(workers), ckpt_path=tmp_path / "last.ckpt")
    assert_same(final_state(resumed, second), final_state(whole, first))


@pytest.fixture
def student(teacher, tmp_path):
    """The checkpoint of a run that a teacher taught for an epoch, whose file is no longer there."""
    place = tmp_path / "teacher.ckpt"
    place.write_bytes(Path(teacher).read_bytes())
    run = quiet_trainer(max_epochs=1)
    run.fit(retrain(Distillation(str(place))), digits())
    run.save_checkpoint(tmp_path / "student.ckpt")
    place.unlink()
    return tmp_path / "student.ckpt"


def test_a_student_is_loaded_and_tested_without_its_teacher(student):
    module = Retrain.load_from_checkpoint(student, weights_only=True)
    assert not module.teachers
    (figures,) = quiet_trainer().test(module, digits(), verbose=False)
    assert 0 <= figures["test/accuracy"] <= 1


def test_continuing_needs_the_teacher_with_the_same_weights(student, checkpoints):
    gone = str(student.parent / "teacher.ckpt")
    with pytest.raises(SettingError, match=r"^task\.teacher: there is no file .*teacher\.ckpt"):
        quiet_trainer(max_epochs=2).fit(retrain(Distillation(gone)), digits(), ckpt_path=student)
    other = str(checkpoints / "other.ckpt")
    with pytest.raises(SettingError, match=r"^task\.teacher: its weights are others than those that the run began"):
        quiet_trainer(max_epochs=2).fit(retrain(Distillation(other)), digits(), ckpt_path=student)
    quiet_trainer(max_epochs=2).fit(
        retrain(Distillation(str(checkpoints / "teacher.ckpt"))), digits(), ckpt_path=student
    )


def test_a_student_can_teach(student, teacher):
    """Its own teacher's file is not read."""
    module = retrain(Distillation(str(student)))
    quiet_trainer(max_epochs=1, limit_train_batches=1).fit(module, digits())
    assert fingerprint(module.teachers["teacher"]) == fingerprint(Retrain.load_from_checkpoint(student).network)


def test_a_fingerprint_tells_values_apart_and_nothing_else(teacher, checkpoints):
    one, again, other = (
        Retrain.load_from_checkpoint(path).network for path in (teacher, teacher, checkpoints / "other.ckpt")
    )
    assert fingerprint(one) == fingerprint(again.double().float().eval()) != fingerprint(other)
    again.stem[1].running_mean[0] += 1e-6
    assert fingerprint(one) != fingerprint(again)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"image_size": 16}, "was trained for image_size 8, and here it is 16"),
        ({"channels": 3}, "was trained for channels 1, and here it is 3"),
    ],
)
def test_a_teacher_for_other_data_is_refused(data, message, teacher):
    with pytest.raises(SettingError, match=rf"^task\.teacher: .*teacher\.ckpt {message}"):
        quiet_trainer().fit(retrain(Distillation(teacher)), digits(**data))


def test_a_teacher_of_other_classes_is_refused(checkpoints, tmp_path):
    run = quiet_trainer(max_epochs=1, limit_train_batches=1)
    run.fit(retrain(ContrastiveLearning(features=6)), digits())
    run.save_checkpoint(tmp_path / "six.ckpt")
    with pytest.raises(SettingError, match=r"six\.ckpt was trained for num_classes 6, and here it is 10"):
        quiet_trainer().fit(retrain(Distillation(str(tmp_path / "six.ckpt"))), digits())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("search.ckpt", r"the checkpoint of a retraining, got that of a search, .*search\.ckpt"),
        ("none.ckpt", r"there is no file .*none\.ckpt"),
        ("broken.ckpt", r".*broken\.ckpt is not a checkpoint that can be read"),
    ],
)
def test_a_file_that_is_no_teacher_is_refused(name, message, checkpoints):
    (checkpoints / "broken.ckpt").write_bytes(b"nothing")
    with pytest.raises(SettingError, match=rf"^task\.teacher: {message}"):
        quiet_trainer().fit(retrain(Distillation(str(checkpoints / name))), digits())


def test_the_command_line_distils_and_tests(teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    small = ["--model=Retrain", "--model.architecture=nas_bench_201_best", "--model.network={channels: 2, cells: 1}"]
    taught = ["--model.task=Distillation", f"--model.task.teacher={teacher}", "--model.task.weight=0.5"]
    short = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.limit_train_batches=1"]
    status = main(["fit", *small, *taught, "--data=Digits", *short])
    assert not status, capsys.readouterr().err
    (checkpoint,) = tmp_path.rglob("last.ckpt")
    assert torch.load(checkpoint, weights_only=True)["lightning_nas"]["teachers"].keys() == {"teacher"}
    assert not main(["test", f"--ckpt_path={checkpoint}"])
    assert main(["fit", *small, "--model.task=Distillation", "--model.task.teacher=x", "--data=Digits", *short])
    assert "error: model.task.teacher: there is no file x" in capsys.readouterr().err


# -- two ranks ---------------------------------------------------------------------------------------------------------

TWO_RANKS = """
import sys, torch
sys.path[:0] = [{root!r}]
from tests.training.test_teachers import ContrastiveLearning, Distillation, digits, quiet_trainer, retrain

torch.set_num_threads(1)
for name, task in {{"distilled": Distillation({teacher!r}), "contrastive": ContrastiveLearning(features=6)}}.items():
    module = retrain(task)
    run = quiet_trainer(strategy="ddp", devices=2, max_epochs=2)
    run.fit(module, digits(batch_size=128))
    batch = module.schedule(run.datamodule).get(0, 0)["weights"]
    images = batch[0] if isinstance(batch, (list, tuple)) else batch
    teachers = module.teachers["teacher"].state_dict() if module.teachers else {{}}
    torch.save((module.state_dict(), images, teachers), f"{folder}/{{name}}-{{run.global_rank}}.pt")
"""


@pytest.mark.slow
def test_two_ranks_end_equal(teacher, tmp_path):
    script, log = tmp_path / "two_ranks.py", tmp_path / "log.txt"
    script.write_text(TWO_RANKS.format(root=str(Path(__file__).parents[2]), teacher=teacher, folder=tmp_path))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", script]
    with open(log, "w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            status = process.wait(timeout=300)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # both ranks: one may wait for the other forever
    assert status == 0, log.read_text()[-3000:]
    before = snapshot(Retrain.load_from_checkpoint(teacher).network)
    for name in ("distilled", "contrastive"):
        first, second = (torch.load(tmp_path / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
        own = [n for n in first[0] if not any(w in n for w in ("metrics", "running", "tracked"))]
        assert_same({n: first[0][n] for n in own}, {n: second[0][n] for n in own})
        assert not torch.equal(first[1], second[1])  # each rank has its own examples
        assert any("projector" in n for n in own) == (name == "contrastive")
        for _, _, teachers in (first, second):
            assert_same(dict(teachers), before if name == "distilled" else {})
