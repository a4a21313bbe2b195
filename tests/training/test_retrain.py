"""Retraining: what is trained on, the schedules, and that nothing is lost on the way."""

import math
import signal
from functools import partial

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint

from lightning_nas.callbacks import Interruption
from lightning_nas.data import Digits, ImageData
from lightning_nas.errors import Diverged, SettingError
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.seeding import derive_seed
from lightning_nas.spaces import PUBLISHED
from lightning_nas.spaces.architecture_file import load_architecture
from lightning_nas.tasks import ImageClassification
from lightning_nas.training.lr_schedules import Cosine
from lightning_nas.training.retrain import Retrain
from tests.helpers.optimizers import objects, sgd

SMALL = {"channels": 4, "cells": 3}
TINY = {"channels": 2, "cells": 1}  # of a NAS-Bench-201 network


def trainer(**settings):
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "max_epochs": 2,
    }
    return pl.Trainer(**(quiet | settings))


def retrain(**settings):
    return Retrain("darts_v2", ImageClassification(), SMALL, **objects(Retrain, settings))


def tiny(task=None, **settings):
    settings = {"inputs": digits().inputs, "drop_path": 0.0} | settings
    return Retrain("nas_bench_201_best", task or ImageClassification(), TINY, **objects(Retrain, settings))


def digits(**settings):
    return Digits(**({"batch_size": 256} | settings))  # five steps an epoch of all training images


class Seen(pl.Callback):
    """Records what each step was given."""

    def __init__(self):
        self.n_images, self.probabilities, self.rates = [], [], []

    def setup(self, trainer, pl_module, stage):
        forward = pl_module.network.forward
        network = pl_module.network

        def spy(x, gates=None, drop_path=0.0):
            if network.training:
                self.n_images.append(len(x))
                self.probabilities.append(drop_path)
            return forward(x, gates, drop_path)

        network.forward = spy

    def on_train_epoch_start(self, trainer, pl_module):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


def test_drop_path_grows_linearly_and_the_rate_falls_by_a_cosine():
    seen = Seen()
    module = retrain(drop_path=0.4, inputs=digits().inputs)
    trainer(max_epochs=4, callbacks=[seen], limit_train_batches=1).fit(module, digits())
    assert sorted(set(seen.probabilities)) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    expected = [0.025 * (1 + math.cos(math.pi * epoch / 4)) / 2 for epoch in range(4)]
    assert seen.rates == pytest.approx(expected)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"lr": 0.1}, [0.1 * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)]),
        (
            {"lr": 0.1, "lr_schedule": Cosine(0.02)},
            [0.02 + 0.08 * (1 + math.cos(math.pi * epoch / 5)) / 2 for epoch in range(5)],
        ),
        (
            {"lr": 0.3, "lr_schedule": Cosine(warmup_epochs=2)},
            [0.1, 0.2, 0.3, 0.225, 0.075],
        ),  # the cosine's three epochs: 1, 3/4, 1/4
        ({"lr": 0.3, "lr_schedule": Cosine(0.1, 2)}, [0.1, 0.2, 0.3, 0.25, 0.15]),
        ({"lr": 0.6, "lr_schedule": Cosine(warmup_epochs=5)}, [0.1, 0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_rates_of_the_epochs(settings, expected):
    seen = Seen()
    trainer(max_epochs=5, callbacks=[seen], limit_train_batches=1).fit(tiny(**settings), digits())
    assert seen.rates == pytest.approx(expected)


@pytest.mark.parametrize(("make", "n_cells"), [(retrain, 3), (tiny, 3)], ids=["darts", "nas-bench-201"])
def test_scheduled_drop_path_grows_with_the_steps_and_the_depth(make, n_cells):
    module, seen = make(drop_path=0.4, drop_path_schedule="scheduled", inputs=digits().inputs), []
    cells = getattr(module.network, "cells", None) or [cell for stack in module.network.stacks for cell in stack]
    for cell in cells:
        cell.register_forward_pre_hook(lambda cell, args: seen.append(args[-1].path) if cell.training else None)
    trainer(max_epochs=3, limit_train_batches=2).fit(module, digits())
    k, expected = 1 - 0.4, []
    for step in range(3 * 2):
        for cell in range(n_cells):
            t, r = step / (3 * 2), (cell + 1) / n_cells
            expected.append(1 - (1 - t * (1 - (1 - r * (1 - k)))))
    assert seen == pytest.approx(expected)
    assert seen[-1] == pytest.approx(0.4 * 5 / 6)  # the last cell's tends to 0.4


# -- a training step by step -------------------------------------------------------------------------------------------


def slow_training(module, epochs, steps, clip=math.inf):
    """The network's state after each step of SGD by hand, with the settings of a new module."""
    network, stream, velocity, states = module.network.double(), digits().stream("train", module.seed), {}, []
    smooth, rule, schedule = module.task.label_smoothing, module.optimizer, module.optimizer.schedule

    def dropped(depth, epoch, step):
        linear, t = epoch / epochs, (epoch * steps + step) / (epochs * steps)
        return module.drop_path * (linear if module.drop_path_schedule == "linear" else t * depth)

    for epoch in range(epochs):
        if epoch < schedule.warmup_epochs:
            lr = rule.lr * (epoch + 1) / (schedule.warmup_epochs + 1)
        else:
            angle = math.pi * (epoch - schedule.warmup_epochs) / (epochs - schedule.warmup_epochs)
            lr = schedule.minimum + (rule.lr - schedule.minimum) * (1 + math.cos(angle)) / 2
        for step in range(steps):
            torch.manual_seed(derive_seed(module.seed, "step", epoch, step, 0))
            images, labels = stream.get(epoch * len(stream) + step)
            log_p = network(images.double(), drop_path=partial(dropped, epoch=epoch, step=step)).log_softmax(1)
            loss = -(1 - smooth) * log_p[range(len(labels)), labels].mean() - smooth * log_p.mean()
            gradients = torch.autograd.grad(loss, list(network.parameters()))
            norm = float(sum(gradient.square().sum() for gradient in gradients) ** 0.5)
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                gradient = gradient * min(1, clip / norm) + rule.weight_decay * parameter.detach()
                v = velocity[parameter] = rule.momentum * velocity.get(parameter, 0) + gradient
                with torch.no_grad():
                    parameter -= lr * (gradient + rule.momentum * v if rule.nesterov else v)
            states.append({name: value.clone() for name, value in network.state_dict().items()})
    return states


def assert_close(state, expected):
    for name, value in expected.items():
        value = value.double()
        torch.testing.assert_close(state[name].double(), value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


DOUBLE = {"precision": "64-true"}  # so that all differences are of meaning, not of rounding


@pytest.mark.parametrize(
    ("settings", "clip"),
    [
        ({}, None),
        ({"nesterov": True, "lr": 0.1}, None),
        ({"momentum": 0.0, "weight_decay": 0.1}, None),
        ({"lr_schedule": Cosine(0.01, 1), "lr": 0.1}, None),
        ({"lr": 0.1}, 0.05),
        ({"task": ImageClassification(label_smoothing=0.3), "lr": 0.1}, None),
        ({"drop_path": 0.5}, None),
        ({"drop_path": 0.5, "drop_path_schedule": "scheduled"}, None),
    ],
    ids=["defaults", "nesterov", "no-momentum", "warm-up", "clipped", "smoothed", "linear", "scheduled"],
)
def test_steps_are_those_of_a_slow_training(settings, clip):
    module = tiny(**settings)
    trainer(max_epochs=3, limit_train_batches=2, gradient_clip_val=clip, **DOUBLE).fit(module, digits())
    assert_close(module.network.state_dict(), slow_training(tiny(**settings), 3, 2, clip or math.inf)[-1])


def test_the_average_of_the_weights_is_what_is_tested_and_saved(tmp_path):
    module, decay = tiny(lr=0.1), 0.8
    run = trainer(max_epochs=2, limit_train_batches=3, callbacks=[EMAWeightAveraging(decay=decay)], **DOUBLE)
    run.fit(module, digits())
    first, *states = slow_training(tiny(lr=0.1), 2, 3)
    average = {name: value for name, value in first.items() if value.is_floating_point()}
    for state in states:
        average = {name: decay * value + (1 - decay) * state[name] for name, value in average.items()}
    assert_close(module.network.state_dict(), average)
    assert not torch.allclose(average["classifier.weight"], states[-1]["classifier.weight"], rtol=0.01)

    (figures,) = run.test(module, digits(), verbose=False)
    averaged = tiny().network.double().eval()
    averaged.load_state_dict(states[-1] | average)
    images, labels = (torch.cat(part) for part in zip(*digits().test_dataloader(), strict=True))
    with torch.no_grad():
        right = (averaged(images.double()).argmax(1) == labels).float().mean()
    assert figures["test/accuracy"] == pytest.approx(float(right))
    run.save_checkpoint(tmp_path / "last.ckpt")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)["state_dict"]
    assert_close({name.removeprefix("network."): value for name, value in saved.items()}, average)


class PlainImages(ImageData):
    """Without augmentation, so that two small batches hold the images of a large one."""

    mean, std = (0.5,), (0.5,)
    inputs = {"channels": 1, "image_size": 8, "num_classes": 10}  # noqa: RUF012

    def __init__(self, batch_size):
        super().__init__(batch_size, num_workers=0, architecture_share=0.5, split_seed=0)

    def load(self, test):
        generator = torch.Generator().manual_seed(1)
        images = torch.randint(0, 256, (96, 1, 8, 8), generator=generator).byte()
        return images, torch.randint(10, (96,), generator=generator)


class FixedStatistics(pl.Callback):
    """BatchNorm as a constant map: no image depends on the others of its batch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for norm in batch_norms(pl_module.network):
            norm.eval()


def test_two_accumulated_batches_are_one_twice_as_large():
    states = []
    for batch_size, accumulated in ((16, 2), (32, 1)):
        module = tiny(lr=0.1)
        run = trainer(accumulate_grad_batches=accumulated, callbacks=[FixedStatistics()], **DOUBLE)
        run.fit(module, PlainImages(batch_size))
        assert run.global_step == 2 * 96 // 32
        states.append(module.network.state_dict())
    assert_close(*states)
    assert not torch.equal(states[0]["classifier.weight"], tiny().network.double().classifier.weight)


# -- what is trained, and on what --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("train_on", "steps", "validated"), [("all", 5, False), ("weights", 2, True)])
def test_what_is_trained_and_validated_on(train_on, steps, validated):
    run = trainer(max_epochs=1)
    run.fit(retrain(train_on=train_on), digits())
    assert run.global_step == steps  # 1,437 or 719 images in batches of 256
    assert ("val/accuracy" in run.callback_metrics) == validated


class Stop(pl.Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (1, 2):
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize(
    ("make", "averages"),
    [
        (partial(retrain, drop_path=0.5), []),  # random in every step
        (
            partial(tiny, drop_path=0.5, drop_path_schedule="scheduled", lr_schedule=Cosine(warmup_epochs=1)),
            [EMAWeightAveraging],
        ),
    ],
    ids=["plain", "averaged"],
)
def test_interrupted_and_resumed_is_uninterrupted(make, averages, tmp_path):
    def run(*callbacks):
        callbacks = [*(average(decay=0.8) for average in averages), *callbacks]
        return trainer(max_epochs=3, limit_train_batches=3, gradient_clip_val=5, callbacks=callbacks)

    whole = make()
    run().fit(whole, digits())
    with pytest.raises(SystemExit):
        run(Stop(), Interruption(tmp_path)).fit(make(), digits())
    resumed = Retrain.load_from_checkpoint(tmp_path / "last.ckpt")
    run().fit(resumed, digits(), ckpt_path=tmp_path / "last.ckpt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_diverged_training_says_so_and_the_last_good_checkpoint_stays(explode, tmp_path):
    each_epoch = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    run = trainer(max_epochs=3, callbacks=[explode, each_epoch], enable_checkpointing=True, limit_val_batches=0)
    with pytest.raises(Diverged, match=r"lower the optimizer's lr, or set its clip, and continue"):
        run.fit(tiny(), digits())
    content = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert content["epoch"] == 0
    assert all(value.isfinite().all() for value in content["state_dict"].values())


def test_the_checkpoint_holds_the_architecture_not_its_path(tmp_path):
    module = retrain()
    module.found.save(tmp_path / "architecture.json")
    from_file = Retrain(str(tmp_path / "architecture.json"), ImageClassification(), SMALL)
    run = trainer(max_epochs=1, limit_train_batches=1)
    run.fit(from_file, digits())
    run.save_checkpoint(tmp_path / "last.ckpt")
    (tmp_path / "architecture.json").unlink()
    loaded = Retrain.load_from_checkpoint(tmp_path / "last.ckpt")
    assert loaded.found.architecture == module.found.architecture
    for name, value in from_file.state_dict().items():
        assert torch.equal(value, loaded.state_dict()[name])


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_name_is_an_architecture(name):
    module, found = Retrain(name, ImageClassification()), load_architecture(name)
    assert module.found.architecture == found.architecture
    assert module.space.only == tuple(0 for _ in found.architecture)
    assert module.hparams["architecture"]["choices"] == found.space.to_names(found.architecture)


@pytest.mark.parametrize(
    ("name", "network"), [("nasnet_a_darts", SMALL), ("amoebanet_a_darts", SMALL), ("nas_bench_201_best", TINY)]
)
def test_every_weight_of_a_published_architecture_is_trained(name, network):
    module = Retrain(name, ImageClassification(), network, digits().inputs, optimizer=sgd(Retrain, weight_decay=0.0))
    before = {name: value.clone() for name, value in module.network.named_parameters()}
    run = trainer(max_epochs=1, limit_train_batches=2)
    run.fit(module, digits())
    assert run.global_step == 2
    for name, value in module.network.named_parameters():
        assert not torch.equal(value, before[name]), name
    (figures,) = run.test(module, digits(), verbose=False)
    assert figures["n_params"] == sum(value.numel() for value in before.values())


def test_loading_is_strict(tmp_path):
    run = trainer(max_epochs=1, limit_train_batches=1)
    run.fit(retrain(), digits())
    run.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(RuntimeError, match="size mismatch"):
        Retrain.load_from_checkpoint(tmp_path / "last.ckpt", network={"channels": 8, "cells": 3})


def test_test_reports_accuracy_and_costs():
    run, module = trainer(max_epochs=1), retrain()
    run.fit(module, digits())
    (figures,) = run.test(module, digits(), verbose=False)
    module.eval()
    images, labels = zip(*digits().test_dataloader(), strict=True)
    with torch.no_grad():
        right = (module.network(torch.cat(images)).argmax(1) == torch.cat(labels)).float().mean()
    assert figures["test/accuracy"] == pytest.approx(float(right))
    assert figures["n_params"] == sum(parameter.numel() for parameter in module.network.parameters())
    assert figures["flops"] > 0


def test_auxiliary_head_is_trained():
    module = Retrain("darts_v2", ImageClassification(auxiliary_weight=0.4), SMALL | {"auxiliary": True})
    data = digits(image_size=32, batch_size=64)
    run = trainer(max_epochs=1, limit_train_batches=2)
    run.fit(module, data)
    before = Retrain("darts_v2", ImageClassification(), SMALL | {"auxiliary": True}, data.inputs)
    for name, parameter in module.network.auxiliary.named_parameters():
        assert not torch.equal(parameter, before.network.auxiliary.get_parameter(name)), name


def test_learns_the_digits():
    run, module = trainer(max_epochs=8, gradient_clip_val=5), retrain(drop_path=0.0)
    run.fit(module, digits(batch_size=64))
    (figures,) = run.test(module, digits(), verbose=False)
    assert figures["test/accuracy"] > 0.9


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"drop_path": 1.0}, "drop_path"),
        ({"drop_path_schedule": "cosine"}, "drop_path_schedule"),
        ({"train_on": "test"}, "train_on"),
        ({"lr": -0.1}, "lr"),
        ({"optimizer": {"class_path": "lightning_nas.SGD", "init_args": {"lr": -0.1}}}, r"optimizer\.lr"),
    ],
)
def test_wrong_settings_are_named(settings, field):
    with pytest.raises(SettingError, match=rf"^{field}: "):
        retrain(**settings)
