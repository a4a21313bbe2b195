"""Relaxations against the distributions and gradients that their papers state."""

import math

import pytest
import scipy.stats
import torch

from lightning_nas.catalogue import kind_of
from lightning_nas.errors import SettingError
from lightning_nas.relaxations import GumbelSoftmax, Relaxation, Softmax, StraightThroughGumbel

LOGITS = torch.tensor([1.0, 0.0, -0.5, 0.7], dtype=torch.float64)
PRESENT = torch.ones(1, 4, dtype=torch.bool)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def draws(relaxation, n, progress, logits=LOGITS, seed=0):
    """``n`` independent draws of one choice, ``(n, n_options)``."""
    present = PRESENT.expand(n, -1)
    return relaxation.weights(logits.expand(n, -1), present, generator(seed), progress)


@pytest.mark.parametrize("temperature", [10.0, 1.0, 0.1, 0.03])
@pytest.mark.parametrize("relaxation", [GumbelSoftmax, StraightThroughGumbel])
def test_the_largest_weight_is_drawn_with_the_softmax_of_the_logits_at_every_temperature(relaxation, temperature):
    drawn = draws(relaxation(temperature, temperature), 20_000, 0.0).argmax(1)
    expected = 20_000 * LOGITS.softmax(0)
    assert scipy.stats.chisquare(drawn.bincount(minlength=4).numpy(), expected.numpy()).pvalue > 1e-3
    # and the test is able to fail
    assert scipy.stats.chisquare(drawn.bincount(minlength=4).numpy(), [5_000] * 4).pvalue < 1e-6


def test_the_mean_weight_tends_to_the_softmax_as_the_temperature_falls():
    errors = [
        float((draws(GumbelSoftmax(t, t), 200_000, 0.0).mean(0) - LOGITS.softmax(0)).abs().max())
        for t in (10.0, 1.0, 0.03)
    ]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.005


@pytest.mark.parametrize("relaxation", [Softmax(), GumbelSoftmax(), StraightThroughGumbel()])
def test_weights_sum_to_one_and_what_is_no_option_gets_neither_weight_nor_gradient(relaxation):
    logits = torch.randn(50, 4, generator=generator(), dtype=torch.float64).requires_grad_()
    present = torch.arange(4) < torch.tensor([1, 2, 3, 4, 4]).repeat(10)[:, None]
    for weights in (relaxation.weights(logits, present, generator(), 0.3), relaxation.expected(logits, present)):
        torch.testing.assert_close(weights.sum(1), torch.ones(50, dtype=torch.float64), rtol=0, atol=1e-12)
        assert not weights[~present].any()
        (gradient,) = torch.autograd.grad(weights.square().sum() + (weights * torch.arange(4.0)).sum(), logits)
        assert gradient.isfinite().all()
        assert gradient[present].any()
        assert not gradient[~present].any()


def test_softmax_has_no_noise():
    relaxation = Softmax()
    logits = LOGITS[None]
    first, second = (relaxation.weights(logits, PRESENT, generator(seed), p) for seed, p in ((0, 0.0), (1, 1.0)))
    assert torch.equal(first, second)
    assert torch.equal(first, relaxation.expected(logits, PRESENT))
    torch.testing.assert_close(first[0], LOGITS.softmax(0))


@pytest.mark.parametrize("relaxation", [GumbelSoftmax(0.7, 0.7), StraightThroughGumbel(0.7, 0.7)])
def test_the_gradient_is_that_of_the_concrete_distribution(relaxation):
    """∂Z_k / ∂logit_j = (δ_jk − Z_j) Z_k / λ, with Z the relaxed sample (Xie et al. 2019); one-hot or not."""
    logits = LOGITS[None].clone().requires_grad_()
    weights = relaxation.weights(logits, PRESENT, generator(3), 0.0)[0]
    soft = GumbelSoftmax(0.7, 0.7).weights(logits, PRESENT, generator(3), 0.0)[0].detach()
    jacobian = torch.stack([torch.autograd.grad(w, logits, retain_graph=True)[0][0] for w in weights])
    expected = (torch.diag(soft) - soft[:, None] * soft[None, :]) / 0.7
    torch.testing.assert_close(jacobian, expected, rtol=1e-10, atol=1e-12)


def test_straight_through_weights_are_zero_and_one_exactly():
    weights = draws(StraightThroughGumbel(), 5_000, 0.5, LOGITS.float()).detach()
    assert torch.equal(weights.unique(), torch.tensor([0.0, 1.0]))
    assert (weights.sum(1) == 1).all()
    soft = draws(GumbelSoftmax(10.0, 0.1), 5_000, 0.5, LOGITS.float())
    assert torch.equal(weights.argmax(1), soft.argmax(1))


@pytest.mark.parametrize(("progress", "temperature"), [(0.0, 10.0), (0.5, 5.05), (1.0, 0.1)])
def test_the_temperature_changes_linearly(progress, temperature):
    changing, constant = GumbelSoftmax(10.0, 0.1), GumbelSoftmax(temperature, temperature)
    torch.testing.assert_close(draws(changing, 20, progress), draws(constant, 20, 0.0))


def test_noise_of_zero_gives_no_infinities(monkeypatch):
    """A generator may draw exactly zero, whose logarithm is infinite."""
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self, generator: self.zero_())
    for relaxation in (GumbelSoftmax(), StraightThroughGumbel()):
        assert draws(relaxation, 3, 1.0, LOGITS.float()).isfinite().all()


@pytest.mark.parametrize("relaxation", [GumbelSoftmax, StraightThroughGumbel])
@pytest.mark.parametrize("field", ["start", "end"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_temperatures_are_above_zero(relaxation, field, value):
    with pytest.raises(SettingError, match=rf"^{field}: above 0, got {value}"):
        relaxation(**{field: value})


def test_a_relaxation_has_a_name_on_the_command_line():
    assert kind_of("model.relaxation").names() == ["GumbelSoftmax", "Softmax", "StraightThroughGumbel"]
    built = Relaxation.build({"class_path": "lightning_nas.GumbelSoftmax", "init_args": {"end": 0.5}})
    assert (built.start, built.end) == (1.0, 0.5)
