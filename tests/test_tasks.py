"""Tasks against the formulas, in plain Python."""

import math

import pytest
import torch

from lightning_nas.errors import SettingError
from lightning_nas.tasks import ImageClassification, Task

LOGITS = [[2.0, -1.0, 0.5], [0.0, 3.0, 0.25], [-1.0, 0.75, 1.5], [1.0, 1.0, -2.0]]
AUXILIARY = [[0.1, 0.2, 0.3], [1.0, -1.0, 2.0], [0.0, 0.0, 0.0], [5.0, 1.0, 1.0]]
LABELS = [0, 2, 2, 1]
IMAGES = torch.arange(4 * 2).view(4, 2, 1, 1)


def cross_entropy(rows, labels, smoothing):
    """The target of class k is ``smoothing / K``, and ``1 - smoothing`` more at the label."""
    losses = []
    for row, label in zip(rows, labels, strict=True):
        log_sum = math.log(sum(math.exp(logit) for logit in row))
        targets = [smoothing / len(row) + (1 - smoothing) * (k == label) for k in range(len(row))]
        losses.append(sum(target * (log_sum - logit) for target, logit in zip(targets, row, strict=True)))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.75])
def test_the_loss_is_the_mean_cross_entropy_of_smoothed_targets(smoothing):
    task = ImageClassification(label_smoothing=smoothing)
    given = []

    def forward(images):
        given.append(images)
        return torch.tensor(LOGITS)

    loss, _ = task.loss(forward, (IMAGES, torch.tensor(LABELS)))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(cross_entropy(LOGITS, LABELS, smoothing), rel=1e-6)
    (images,) = given
    assert torch.equal(images, IMAGES)


@pytest.mark.parametrize(("smoothing", "weight"), [(0.0, 0.4), (0.1, 0.4), (0.1, 1.5), (0.2, 0.0)])
def test_an_auxiliary_classifier_adds_its_weighted_loss(smoothing, weight):
    task = ImageClassification(label_smoothing=smoothing, auxiliary_weight=weight)
    logits = torch.tensor(LOGITS), torch.tensor(AUXILIARY)
    loss, _ = task.loss(lambda images: logits, (IMAGES, torch.tensor(LABELS)))
    main, auxiliary = (cross_entropy(rows, LABELS, smoothing) for rows in (LOGITS, AUXILIARY))
    assert loss.item() == pytest.approx(main + weight * auxiliary, rel=1e-6)


def test_the_gradient_is_softmax_minus_target():
    logits = torch.tensor(LOGITS, requires_grad=True)
    task = ImageClassification()
    loss, _ = task.loss(lambda images: logits, (IMAGES, torch.tensor(LABELS)), metrics=task.metrics({"num_classes": 3}))
    loss.backward()
    for row, gradient, label in zip(LOGITS, logits.grad.tolist(), LABELS, strict=True):
        total = sum(math.exp(logit) for logit in row)
        expected = [(math.exp(logit) / total - (k == label)) / 4 for k, logit in enumerate(row)]
        assert gradient == pytest.approx(expected, abs=1e-6)


def test_metrics_count_all_examples_of_all_batches_alike():
    task = ImageClassification()
    metrics = task.metrics({"channels": 3, "num_classes": 3})
    assert list(metrics) == [task.score]
    assert task.mode == "max"
    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    # the largest logits are at 0, 1, 2 and (a tie) 0, so rows 0 and 2 are right
    task.loss(lambda images: logits, (IMAGES, labels), metrics=metrics)
    assert metrics.compute()["accuracy"].item() == pytest.approx(2 / 4)
    task.loss(lambda images: logits[:1], (IMAGES[:1], labels[:1]), metrics=metrics)
    assert metrics.compute()["accuracy"].item() == pytest.approx(3 / 5)  # not the mean of 2/4 and 1
    task.loss(lambda images: logits, (IMAGES, labels))
    assert metrics.compute()["accuracy"].item() == pytest.approx(3 / 5)


@pytest.mark.parametrize("over_ranks", [True, False])
def test_metrics_are_read_over_all_ranks_or_of_one_alone(over_ranks):
    (accuracy,) = ImageClassification().metrics({"num_classes": 3}, over_ranks=over_ranks).values()
    assert accuracy.sync_on_compute is over_ranks


def test_metrics_are_those_of_the_main_classifier():
    task = ImageClassification()
    metrics = task.metrics({"num_classes": 3})
    right = torch.nn.functional.one_hot(torch.tensor(LABELS), 3).float()
    task.loss(lambda images: (right, -right), (IMAGES, torch.tensor(LABELS)), metrics=metrics)
    assert metrics.compute()["accuracy"].item() == 1


@pytest.mark.parametrize("carry", [None, {"hidden": [1.0]}])
def test_the_carry_is_passed_through(carry):
    _, after = ImageClassification().loss(lambda images: torch.tensor(LOGITS), (IMAGES, torch.tensor(LABELS)), carry)
    assert after is carry


def test_the_reward_is_the_accuracy_on_the_batch_without_a_gradient():
    logits = torch.tensor(LOGITS, requires_grad=True)
    given = []

    def forward(images):
        given.append(images)
        return logits

    for labels, right in ((LABELS, 2), ([0, 1, 2, 0], 4), ([1, 0, 0, 2], 0)):
        reward, _ = ImageClassification(label_smoothing=0.3).reward(forward, (IMAGES, torch.tensor(labels)))
        assert reward.shape == ()
        assert reward.item() == pytest.approx(right / 4)
        assert not reward.requires_grad
    assert all(torch.equal(images, IMAGES) for images in given)


@pytest.mark.parametrize("smoothing", [-0.1, 1.0, float("nan")])
def test_smoothing_outside_its_range_is_refused_by_name(smoothing):
    with pytest.raises(SettingError, match=rf"^task\.label_smoothing: between 0 and 1, got {smoothing}$"):
        ImageClassification(label_smoothing=smoothing)


def test_the_spec_rebuilds_the_task():
    rebuilt = Task.build(ImageClassification(0.1, auxiliary_weight=0.3).spec)
    assert (type(rebuilt), rebuilt.label_smoothing, rebuilt.auxiliary_weight) == (ImageClassification, 0.1, 0.3)
