"""Tasks against the formulas, in plain Python."""

import math
from typing import NamedTuple

import pytest
import torch

from lightning_nas.data import Window
from lightning_nas.errors import SettingError
from lightning_nas.tasks import ImageClassification, LanguageModeling, Task

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
    with pytest.raises(SettingError, match=rf"^label_smoothing: between 0 and 1, got {smoothing}$"):
        ImageClassification(label_smoothing=smoothing)


def test_the_spec_rebuilds_the_task():
    rebuilt = Task.build(ImageClassification(0.1, auxiliary_weight=0.3).spec)
    assert (type(rebuilt), rebuilt.label_smoothing, rebuilt.auxiliary_weight) == (ImageClassification, 0.1, 0.3)


# -- language modelling ------------------------------------------------------------------------------------------------


class Output(NamedTuple):
    logits: torch.Tensor
    carry: torch.Tensor
    hidden: torch.Tensor | None
    dropped: torch.Tensor | None


WINDOW = Window(torch.randint(5, (4, 3)), torch.randint(5, (4, 3)), torch.tensor([True, False, False, False]))


def language_network(training, seed=0):
    """A forward that says the same whatever it reads; its carry is the given one plus one."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 3, 5, generator=generator, dtype=torch.float64).requires_grad_()
    hidden, dropped = (torch.randn(4, 3, 2, generator=generator, dtype=torch.float64) for _ in range(2))

    def forward(tokens, carry, first):
        assert torch.equal(tokens, WINDOW.tokens)
        assert torch.equal(first, WINDOW.first)
        carry = (torch.zeros(3, 2) if carry is None else carry) + logits.sum() * 0 + 1
        return Output(logits, carry, *((hidden, dropped) if training else (None, None)))

    return forward, logits, hidden, dropped


def slow_entropy(logits, targets):
    total = 0.0
    for t in range(4):
        for n in range(3):
            exponentials = [math.exp(float(logits[t, n, v])) for v in range(5)]
            total -= math.log(exponentials[int(targets[t, n])] / sum(exponentials))
    return total / 12


def test_the_language_loss_is_cross_entropy_with_two_regularisers_in_training():
    forward, logits, hidden, dropped = language_network(training=True)
    activation = sum(float(x) ** 2 for x in dropped.flatten()) / dropped.numel()
    slow = sum(float(a - b) ** 2 for a, b in zip(hidden[1:].flatten(), hidden[:-1].flatten(), strict=True))
    slow /= hidden[1:].numel()
    loss, _ = LanguageModeling(0.3, 0.7).loss(forward, WINDOW)
    assert loss.item() == pytest.approx(slow_entropy(logits, WINDOW.targets) + 0.3 * activation + 0.7 * slow)
    in_evaluation, *_ = language_network(training=False)
    loss, _ = LanguageModeling(0.3, 0.7).loss(in_evaluation, WINDOW)
    assert loss.item() == pytest.approx(slow_entropy(logits, WINDOW.targets))


def test_the_carry_goes_on_without_its_gradient():
    forward, *_ = language_network(training=True)
    _, carry = LanguageModeling().loss(forward, WINDOW)
    assert not carry.requires_grad
    _, carry = LanguageModeling().loss(forward, WINDOW, carry)
    assert torch.equal(carry, torch.full((3, 2), 2.0, dtype=carry.dtype))


def test_perplexity_and_reward_are_of_cross_entropy_alone():
    task = LanguageModeling(0.3, 0.7, reward_scale=80.0)
    metrics = task.metrics({"vocabulary": 5, "bptt": 4}, over_ranks=False)
    entropies = []
    for seed in range(3):
        forward, logits, *_ = language_network(training=True, seed=seed)
        task.loss(forward, WINDOW, metrics=metrics)
        entropies.append(slow_entropy(logits, WINDOW.targets))
    assert float(metrics.compute()["perplexity"]) == pytest.approx(math.exp(sum(entropies) / 3), rel=1e-5)
    forward, logits, *_ = language_network(training=False)
    reward, _ = task.reward(forward, WINDOW)
    assert reward.item() == pytest.approx(80 / math.exp(entropies[0]))


def test_the_rate_follows_the_length_of_the_window():
    assert LanguageModeling().lr_scale(WINDOW, {"vocabulary": 5, "bptt": 8}) == 0.5
    assert ImageClassification().lr_scale((IMAGES, torch.zeros(4)), {}) is None


@pytest.mark.parametrize(
    ("field", "value"), [("activation_penalty", -1.0), ("slowness", math.nan), ("reward_scale", 0.0)]
)
def test_wrong_settings_of_language_modelling_are_named(field, value):
    with pytest.raises(SettingError, match=f"{field}"):
        LanguageModeling(**{field: value})


def test_without_a_reward_of_its_own_a_task_pays_minus_its_loss():
    class Squares(Task):
        score, mode = "error", "min"

        def loss(self, forward, batch, carry=None, metrics=None, factor=1.0):
            return (forward(batch) * factor).square().mean(), 7

        def metrics(self, inputs, over_ranks=True):
            raise AssertionError("nobody asks")

    x = torch.tensor([1.0, 3.0], requires_grad=True)
    reward, carry = Squares().reward(lambda batch: batch, x)
    assert (reward.item(), carry, reward.requires_grad) == (-5.0, 7, False)
    assert Squares().reward(lambda batch: batch, x, None, factor=2.0)[0].item() == -20.0
