"""SimCLR's loss against a slow computation, and what a network learns by it without labels."""

import math

import pytest
import torch

from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.tasks import ContrastiveLearning
from lightning_nas.tasks.contrastive_learning import nt_xent
from lightning_nas.testing.method import quiet_trainer
from lightning_nas.training import SGD, Cosine, Retrain


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def slow_nt_xent(rows, temperature):
    """Equation 1 of the paper for every row, and how many rows are nearest to their partner."""
    losses, matched = [], 0
    for i, row in enumerate(rows):
        partner = i + 1 if i % 2 == 0 else i - 1
        others = {k: cosine(row, rows[k]) / temperature for k in range(len(rows)) if k != i}
        losses.append(math.log(sum(math.exp(value) for value in others.values())) - others[partner])
        matched += max(others, key=others.__getitem__) == partner
    return sum(losses) / len(rows), matched / len(rows)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
@pytest.mark.parametrize("n_images", [1, 2, 7])
def test_the_loss_is_the_papers(n_images, temperature):
    z = torch.randn(2 * n_images, 5, generator=torch.Generator().manual_seed(n_images), dtype=torch.float64)
    z[1::2] += z[::2]  # so that some pairs are near
    loss, matched = nt_xent(z, temperature)
    slow_loss, slow_matched = slow_nt_xent(z.tolist(), temperature)
    assert loss.item() == pytest.approx(slow_loss, rel=1e-9)
    assert matched.item() == pytest.approx(slow_matched)


def test_lengths_do_not_matter_and_the_gradient_is_that_of_differences():
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    scales = torch.arange(1, 7).double()[:, None]
    torch.testing.assert_close(nt_xent(z, 0.5)[0], nt_xent(z * scales, 0.5)[0])
    assert torch.autograd.gradcheck(lambda z: nt_xent(z, 0.5)[0], z)


def test_two_views_go_through_network_and_projector_image_by_image():
    task = ContrastiveLearning(temperature=0.3)
    images = torch.randn(3, 2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    forward, projector = (lambda x: x.flatten(1) * 2), (lambda x: x.cumsum(1))
    metrics = task.metrics({})
    loss, carry = task.loss(forward, images, None, metrics, projector=projector)
    expected, matched = slow_nt_xent(projector(forward(images.view(6, 1, 2, 2))).tolist(), 0.3)
    assert (loss.item(), carry) == (pytest.approx(expected, rel=1e-5), None)
    assert metrics.compute()["matched"].item() == task.reward(forward, images, projector=projector)[0].item()
    assert metrics.compute()["matched"].item() == pytest.approx(matched)
    without, _ = task.loss(forward, images)
    assert without.item() == pytest.approx(slow_nt_xent(forward(images.view(6, 1, 2, 2)).tolist(), 0.3)[0], rel=1e-5)


def test_an_epochs_figure_weighs_batches_by_their_images():
    task, metrics = ContrastiveLearning(), ContrastiveLearning().metrics({})
    near = torch.eye(4)[:, None].repeat(1, 2, 1)  # four images, whose views are the same
    crossed = torch.eye(2)[None].expand(2, 2, 2)  # two, whose views are those of the other
    for batch in (near, crossed):
        task.loss(lambda x: x, batch, metrics=metrics)
    assert metrics.compute()["matched"].item() == pytest.approx(8 / 12)


@pytest.mark.parametrize("setting", ["temperature", "features", "dimensions"])
def test_a_wrong_setting_is_refused_by_name(setting):
    with pytest.raises(SettingError, match=rf"^{setting}: .*, got 0"):
        ContrastiveLearning(**{setting: 0})


def pretrained(epochs, initial=None):
    task = ContrastiveLearning(temperature=0.2, features=64, dimensions=32)
    module = Retrain(
        "nas_bench_201_best",
        task,
        {"channels": 4, "cells": 1},
        Digits().inputs,
        train_on="weights",
        optimizer=SGD(0.2, momentum=0.9, weight_decay=1e-4, schedule=Cosine()),
        drop_path=0.0,
        initial=initial,
    )
    run = quiet_trainer(max_epochs=epochs)
    if epochs:
        run.fit(module, Digits(batch_size=128, cutout=4))
    return module, run


def test_the_gradient_reaches_network_and_projector():
    module, _ = pretrained(0)
    before = {name: value.clone() for name, value in module.named_parameters()}
    projector = {name for name in before if name.startswith("task_modules.projector")}
    assert {tuple(before[name].shape) for name in projector} == {(32, 64), (32,)}
    assert module.network.classifier.out_features == 64
    quiet_trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0).fit(
        module, Digits(batch_size=128, cutout=4)
    )
    assert all(not torch.equal(value, before[name]) for name, value in module.named_parameters())


def probed(network):
    """The accuracy of a logistic regression on what the last layer reads, on images that it was not fitted to."""
    from sklearn.linear_model import LogisticRegression

    read = []
    hook = network.classifier.register_forward_pre_hook(lambda layer, args: read.append(args[0]))
    data, parts = Digits(batch_size=128), []
    with torch.no_grad():
        for part in ("weights", "architecture"):
            read.clear()
            labels = [labels for images, labels in data.evaluation(part) if network.eval()(images) is not None]
            parts.append((torch.cat(read), torch.cat(labels)))
    hook.remove()
    (features, labels), (others, wanted) = parts
    mean, std = features.mean(0), features.std(0) + 1e-6
    probe = LogisticRegression(max_iter=2000).fit((features - mean) / std, labels)
    return probe.score((others - mean) / std, wanted)


@pytest.mark.slow
def test_a_linear_probe_reads_digits_better_after_learning_without_labels():
    untrained, _ = pretrained(0)
    trained, run = pretrained(15)
    for module in (untrained, trained):  # statistics of the same images for both
        module.network.train()
        with torch.no_grad():
            for images, _ in Digits(batch_size=128).evaluation("weights"):
                module.network(images)
    before, after = probed(untrained.network), probed(trained.network)
    assert float(run.callback_metrics["val/matched"]) > 10 / 255  # by chance 1 / 255
    assert after > before + 0.1
