"""The loss of distillation against its formula in plain Python."""

import math

import pytest
import torch

from lightning_nas.errors import SettingError
from lightning_nas.tasks import ContrastiveLearning, Distillation, ImageClassification, LanguageModeling
from lightning_nas.tasks.distillation import softened
from tests.tasks.test_tasks import AUXILIARY, IMAGES, LABELS, LOGITS, cross_entropy

TEACHER = [[1.0, 0.0, -1.0], [0.5, 2.0, 0.0], [0.0, -3.0, 1.0], [0.0, 2.0, 0.5]]
BATCH = (IMAGES, torch.tensor(LABELS))


def softmax(row, temperature):
    values = [math.exp(logit / temperature) for logit in row]
    return [value / sum(values) for value in values]


def divergence(student, teacher, temperature):
    """The mean of KL(teacher ‖ student)."""
    total = 0.0
    for row, other in zip(student, teacher, strict=True):
        p, q = softmax(other, temperature), softmax(row, temperature)
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    return total / len(student)


def forward(images):
    return torch.tensor(LOGITS)


def teacher(images):
    assert images is IMAGES
    return torch.tensor(TEACHER)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_the_loss_is_a_mean_of_labels_and_teacher(weight, temperature):
    task = Distillation("teacher.ckpt", weight, temperature, ImageClassification(label_smoothing=0.1))
    metrics = task.metrics({"num_classes": 3})
    loss, carry = task.loss(forward, BATCH, None, metrics, teacher=teacher)
    labels, outputs = cross_entropy(LOGITS, LABELS, 0.1), divergence(LOGITS, TEACHER, temperature)
    assert loss.item() == pytest.approx((1 - weight) * labels + weight * temperature**2 * outputs, rel=1e-5)
    assert carry is None
    assert metrics.compute()["accuracy"].item() == pytest.approx(0.5)


def test_an_auxiliary_head_learns_from_labels_alone():
    task = Distillation("teacher.ckpt", 0.5, 2.0, ImageClassification(auxiliary_weight=0.4))
    loss, _ = task.loss(lambda images: (torch.tensor(LOGITS), torch.tensor(AUXILIARY)), BATCH, teacher=teacher)
    labels = cross_entropy(LOGITS, LABELS, 0) + 0.4 * cross_entropy(AUXILIARY, LABELS, 0)
    assert loss.item() == pytest.approx(0.5 * labels + 0.5 * 4 * divergence(LOGITS, TEACHER, 2.0), rel=1e-5)


def test_without_a_teacher_the_task_is_the_classification():
    task, plain = Distillation("teacher.ckpt"), ImageClassification()
    assert torch.equal(task.loss(forward, BATCH)[0], plain.loss(forward, BATCH)[0])
    assert torch.equal(task.reward(forward, BATCH)[0], plain.reward(forward, BATCH)[0])
    assert (task.score, task.mode, task.objective) == (plain.score, plain.mode, plain.objective)


def test_the_gradient_of_large_temperatures_is_that_of_the_logits_difference():
    """Section 2.1 of the paper: for a large T the loss's gradient is (z - v) / N of zero-mean logits."""
    generator = torch.Generator().manual_seed(0)
    student, own = (torch.randn(5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(softened(student, own, 1e4), student)
    z, v = (logits - logits.mean(1, keepdim=True) for logits in (student.detach(), own))
    torch.testing.assert_close(gradient * 5, (z - v) / 4, rtol=1e-3, atol=1e-5)
    assert torch.autograd.gradcheck(lambda logits: softened(logits, own, 3.0), student)
    assert softened(own, own, 3.0).item() == pytest.approx(0, abs=1e-12)


def test_the_spec_holds_the_classification():
    spec = Distillation("teacher.ckpt").spec
    assert spec["init_args"]["task"] == ImageClassification().spec
    assert Distillation.build(spec).spec == spec
    assert dict(Distillation("teacher.ckpt").teachers) == {"teacher": "teacher.ckpt"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weight": 1.5}, "weight: from 0 to 1, got 1.5"),
        ({"temperature": 0.0}, "temperature: above 0, got 0.0"),
        ({"task": LanguageModeling()}, "task: a classification of images by labels, got LanguageModeling"),
        ({"task": ContrastiveLearning()}, "task: a classification of images by labels, got ContrastiveLearning"),
        ({"task": Distillation("b.ckpt")}, "task: a classification of images by labels, got Distillation"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings, message):
    with pytest.raises(SettingError, match=f"^{message}"):
        Distillation("a.ckpt", **settings)
