"""Segmentation: its loss and IoU against a pixel after the other, and searched and retrained on small masks."""

import math
from random import Random

import pytest
import torch

from lightning_nas import DARTS, Adam, ArchitectureRecord, DARTSCell, Retrain, Segmentation, SettingError
from lightning_nas.testing.method import quiet_trainer
from tests.helpers.masks import CLASSES, IGNORED, Masks
from tests.spaces.test_contracts import CASES


def made(n=3, size=5):
    """Logits of 3 classes and masks in which some pixels do not count."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(n, CLASSES, size, size, dtype=torch.float64, generator=generator)
    masks = torch.randint(CLASSES, (n, size, size), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = IGNORED
    return logits, masks


def pixels(logits, masks):
    """The logits and the class of each pixel that counts, in plain numbers."""
    rows = logits.permute(0, 2, 3, 1).reshape(-1, CLASSES).tolist()
    return [(row, label) for row, label in zip(rows, masks.flatten().tolist(), strict=True) if label != IGNORED]


def cross_entropy(counted):
    return sum(math.log(sum(map(math.exp, row))) - row[label] for row, label in counted) / len(counted)


def mean_iou(counted):
    shares = []
    for k in range(CLASSES):
        said = {i for i, (row, _) in enumerate(counted) if max(range(CLASSES), key=row.__getitem__) == k}
        there = {i for i, (_, label) in enumerate(counted) if label == k}
        if said | there:
            shares.append(len(said & there) / len(said | there))
    return sum(shares) / len(shares)


def test_the_loss_is_the_mean_over_the_pixels_that_count():
    logits, masks = made()
    loss, carry = Segmentation().loss(lambda images: logits, (None, masks), carry="kept")
    assert loss.item() == pytest.approx(cross_entropy(pixels(logits, masks)))
    assert carry == "kept"
    other = masks.where(masks != IGNORED, 7)
    assert Segmentation(ignore_index=7).loss(lambda images: logits, (None, other))[0] == loss


def test_an_auxiliary_head_adds_its_weighted_loss():
    logits, masks = made()
    loss, _ = Segmentation(auxiliary_weight=0.5).loss(lambda images: (logits, -logits), (None, masks))
    expected = cross_entropy(pixels(logits, masks)) + 0.5 * cross_entropy(pixels(-logits, masks))
    assert loss.item() == pytest.approx(expected)


def test_a_batch_of_which_nothing_counts_has_no_loss_and_no_gradient():
    logits, masks = made()
    logits.requires_grad_()
    loss, _ = Segmentation().loss(lambda images: logits, (None, torch.full_like(masks, IGNORED)))
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss == 0
    assert not gradient.any()


def test_iou_is_that_of_all_pixels_together():
    logits, masks = made(n=4)
    metrics = Segmentation().metrics({"num_classes": CLASSES})
    for part in (slice(0, 1), slice(1, 4)):  # the mean of the batches' would be another number
        Segmentation().loss(lambda images: logits[part], (None, masks[part]), metrics=metrics)  # noqa: B023
    assert metrics.compute()["iou"].item() == pytest.approx(mean_iou(pixels(logits, masks)))
    reward, _ = Segmentation().reward(lambda images: logits[:1], (None, masks[:1]))
    assert reward.item() == pytest.approx(mean_iou(pixels(logits[:1], masks[:1])))


def test_a_class_that_is_nowhere_does_not_count():
    logits = torch.tensor([2.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    masks = torch.zeros(1, 4, 4, dtype=torch.long)
    masks[0, 0] = 1
    assert Segmentation().reward(lambda images: logits, (None, masks))[0].item() == pytest.approx(0.75 / 2)


def test_what_is_refused():
    with pytest.raises(SettingError, match="auxiliary_weight: 0 or more, got -1"):
        Segmentation(auxiliary_weight=-1)


IMAGES = {name: case for name, case in CASES.items() if "image_size" in case.inputs and "restricted" not in name}
OF_IMAGES = [name for name in IMAGES if not name.startswith("own-")]  # which put out what their author wrote


@pytest.mark.parametrize("name", OF_IMAGES)
def test_every_network_of_images_learns_masks(name):
    case, task = CASES[name], Segmentation()
    inputs = task.network_inputs(case.inputs)
    architecture = case.space.random(Random(0))
    network = case.space.restrict(architecture).network(inputs, form="final", **case.settings)
    size, classes = inputs["image_size"], inputs["num_classes"]
    images, masks = torch.randn(2, inputs["channels"], size, size), torch.randint(classes, (2, size, size))
    task.loss(network, (images, masks))[0].backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert any(p.grad is not None and p.grad.any() for p in network.classifier.parameters())
    with torch.no_grad():
        assert network.eval()(images).shape == (2, classes, size, size)


# -- a search and a retraining -----------------------------------------------------------------------------------------


def ground_alone(masks):
    """The IoU of saying that everything is ground."""
    counted = masks[masks != IGNORED]
    return (counted == 0).double().mean().item() / CLASSES


@pytest.mark.slow
def test_a_search_and_a_retraining_find_the_shapes():
    space = DARTSCell(kinds=["normal"], nodes=2)  # no reductions: outlines are as fine as images
    network, optimizer, data = {"channels": 4, "cells": 2}, Adam(0.01), Masks()
    baseline = ground_alone(data.load(test=True)[1])
    search = DARTS(space, Segmentation(), network, order="first", optimizer=optimizer)
    trainer = quiet_trainer(max_epochs=4)
    trainer.fit(search, data)
    assert trainer.callback_metrics["val/supernet_iou"] > baseline + 0.25
    retrain = Retrain(ArchitectureRecord(space, search.best()), Segmentation(), network, optimizer=optimizer)
    trainer = quiet_trainer(max_epochs=6)
    trainer.fit(retrain, data)
    (figures,) = trainer.test(retrain, data, verbose=False)
    assert figures["test/iou"] > baseline + 0.5
    assert retrain(torch.zeros(2, 1, 12, 12)).shape == (2, CLASSES, 12, 12)
