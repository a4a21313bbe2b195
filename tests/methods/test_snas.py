"""SNAS: what its step computes, its gradients against its equations, and its cost."""

import math

import pytest
import torch
import torch.nn.functional as F

from lightning_nas.errors import SettingError
from lightning_nas.methods import SNAS
from lightning_nas.methods.snas import LINEAR
from lightning_nas.relaxations import GumbelSoftmax, Softmax
from lightning_nas.spaces import DARTSCell, ENASMicro
from lightning_nas.tasks import ImageClassification
from lightning_nas.training import Adam
from tests.helpers.methods import NETWORKS, digits, trainer

INPUTS = {"channels": 1, "image_size": 8, "num_classes": 10}
FEW = ("none", "skip_connect", "sep_conv_3x3")


def method(**settings):
    space = settings.pop("space", None) or DARTSCell(nodes=1, operations=FEW, kept=None)
    return SNAS(space, ImageClassification(), {"channels": 2, "cells": 3}, INPUTS, **settings)


def at(search, temperature):
    """The method outside of a trainer, at a constant temperature."""
    search.relaxation = GumbelSoftmax(temperature, temperature)
    search.__class__ = type("Alone", (SNAS,), {"progress": 0.0, "current_epoch": 0, "global_rank": 0})
    return search


def test_alphas_begin_around_one():
    alphas = method(space=DARTSCell()).alphas.detach()
    assert float(alphas.mean()) == pytest.approx(1, abs=0.002)
    assert float(alphas.std()) == pytest.approx(0.01, rel=0.1)


def test_the_gradient_of_alphas_is_that_of_the_paper():
    """∂L/∂log α_k = Σ_j ∂L/∂Z_j (δ_jk − Z_k) Z_j / λ, and ∂L/∂Z_j = Σ ∂L/∂x · O_j(x); in float64."""
    search = at(method(), 0.7).double().eval()
    images, labels = torch.randn(4, 1, 8, 8, dtype=torch.float64), torch.arange(4)
    weights = search.relaxed_weights("weights", 0)
    loss = F.cross_entropy(search.network(images, search.by_choice(weights)), labels)
    (found,) = torch.autograd.grad(loss, search.alphas, retain_graph=True)

    z = weights.detach().clone().requires_grad_()
    loss = F.cross_entropy(search.network(images, search.by_choice(z)), labels)
    (credit,) = torch.autograd.grad(loss, z)
    z = z.detach()
    expected = z * (credit - (credit * z).sum(1, keepdim=True)) / 0.7
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-14)
    assert found.abs().max() > 1e-4
    torch.testing.assert_close(z.sum(1), torch.ones(len(z), dtype=torch.float64))


def test_noise_differs_by_step_and_by_rank_and_is_the_same_again():
    search = at(method(), 1.0)
    first, second = (search.relaxed_weights("weights", k) for k in (0, 1))
    assert not torch.equal(first, second)
    assert torch.equal(first, search.relaxed_weights("weights", 0))
    type(search).global_rank = 1
    assert not torch.equal(first, search.relaxed_weights("weights", 0))


def test_weights_and_alphas_move_in_the_same_step_on_the_weights_part_alone():
    search, data = method(), digits()
    run = trainer(max_epochs=1, limit_train_batches=1, limit_val_batches=0)
    alphas, weights = search.alphas.detach().clone(), search.network.classifier.parts["nodes"].detach().clone()
    run.fit(search, data)
    assert run.global_step == 1
    assert not torch.equal(search.alphas, alphas)
    assert not torch.equal(search.network.classifier.parts["nodes"], weights)
    assert set(search.schedule(data).get(0, 0)) == {"weights"}


# -- the cost ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", ["log", "linear"])
def test_the_cost_by_hand(cost):
    search = at(method(cost=cost), 1.0)
    table = search.costs
    weights = torch.rand(len(search.space.choices), len(FEW))
    expected = 0.0
    for k, _ in enumerate(search.space.choices):
        places = table.costs[table.choice == k]
        for place in places:
            size, flops, memory = (weights[k] @ place).tolist()
            if cost == "linear":
                expected += 0.43 * (2 * size + flops / 4000 + memory / 100) / len(places)
            else:
                expected += sum(math.log(max(1.0, x)) for x in (size, flops, memory)) / 3 / len(places)
    assert float(search.cost_under(weights).sum()) == pytest.approx(expected, rel=1e-5)
    assert LINEAR == (0.86, 0.43 / 4000, 0.0043)


def exact_gradient(search, temperature, n=4000):
    """Of the linear cost under the concrete distribution, by quadrature over quantiles of both options' noise."""
    alphas = search.alphas.detach().double().requires_grad_()
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    logistic = (u / (1 - u)).log()  # the difference of two Gumbel variables
    first = torch.sigmoid((alphas[:, 0] - alphas[:, 1] + logistic[:, None]) / temperature).mean(0)
    weights = torch.stack([first, 1 - first], 1)
    table = search.costs
    cost = (
        (weights[table.choice][..., None] * table.costs.double()).sum(1) @ torch.tensor(LINEAR).double()
    ) * table.share
    return torch.autograd.grad(cost.sum(), alphas)[0]


@pytest.mark.parametrize("estimator", ["reparametrised", "policy_gradient"])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
def test_estimators_by_samples_agree_in_expectation_with_the_exact_gradient(estimator, temperature):
    space = DARTSCell(kinds=["normal"], nodes=1, operations=("none", "sep_conv_3x3"), kept=None)
    search = at(method(space=space, cost="linear", estimator=estimator), temperature)
    with torch.no_grad():
        search.alphas.copy_(torch.tensor([[0.5, -0.4], [-0.2, 0.9]]))
    exact = exact_gradient(search, temperature)
    samples = torch.stack(
        [
            torch.autograd.grad(search.cost_term(search.relaxed_weights("weights", k), k), search.alphas)[0]
            for k in range(600)
        ]
    ).double()
    error = samples.std(0) / math.sqrt(len(samples))
    assert ((samples.mean(0) - exact).abs() < 4 * error + 1e-9).all()
    assert (exact.abs() > 5 * error).all()  # so that an estimator that is off is found


def test_the_discrete_estimator_is_the_exact_gradient_of_a_categorical_distribution():
    """Enumerated: all architectures with their probabilities; the others tend to it as the temperature falls."""
    space = DARTSCell(kinds=["normal"], nodes=1, operations=("none", "skip_connect", "sep_conv_3x3"), kept=None)
    search = at(method(space=space, cost="linear", estimator="discrete"), 0.03).double()
    alphas = search.alphas
    expected_cost = 0.0
    for architecture in space:
        one_hot = torch.stack([F.one_hot(torch.tensor(o), 3).double() for o in architecture])
        probability = (search.probabilities() * one_hot).sum(1).prod()
        expected_cost = expected_cost + probability * search.cost_under(one_hot).sum()
    (exact,) = torch.autograd.grad(expected_cost, alphas)
    (found,) = torch.autograd.grad(search.cost_term(search.probabilities(), 0), alphas)
    torch.testing.assert_close(found, exact, rtol=1e-6, atol=1e-9)
    hot, cool = (exact_gap(search, temperature, exact) for temperature in (1.0, 0.1))
    assert cool < 0.2 * hot


def exact_gap(search, temperature, exact, n=20_000):
    """How far the reparametrised gradient at a temperature is from that of the categorical distribution."""
    alphas = search.alphas.detach()[None].expand(n, -1, -1).reshape(-1, 3).clone().requires_grad_()
    present = torch.ones_like(alphas, dtype=torch.bool)
    weights = GumbelSoftmax(temperature, temperature).weights(alphas, present, torch.Generator().manual_seed(0), 0.0)
    mean = weights.view(n, -1, 3).mean(0)
    (gradient,) = torch.autograd.grad(search.cost_under(mean).sum(), alphas)
    return float((gradient.view(n, -1, 3).sum(0) - exact).norm() / exact.norm())


@pytest.mark.parametrize("estimator", ["reparametrised", "discrete"])
@pytest.mark.parametrize("cost", ["log", "linear"])
def test_where_the_loss_is_constant_expensive_operations_lose(cost, estimator, monkeypatch):
    constant = lambda self, forward, *args, **kwargs: (0.0 * forward(args[0][0]).sum(), None)  # noqa: E731
    monkeypatch.setattr(ImageClassification, "loss", constant)
    search = method(cost=cost, estimator=estimator, cost_weight=1.0, alphas_optimizer=Adam(0.1), drop_path=0.0)
    trainer(max_epochs=4, limit_val_batches=0).fit(search, digits())
    built = search.costs.choice.unique()
    probabilities = search.probabilities().detach()[built]
    assert (probabilities[:, 2] < 0.15).all()
    assert (probabilities[:, 0] > 0.4).all()  # nothing at all is the cheapest
    assert [search.space.choices[k].options[search.best()[k]] for k in built] == ["none"] * len(built)


def test_the_cost_is_logged_and_falls():
    search = method(cost="log", cost_weight=0.5, alphas_optimizer=Adam(0.1), drop_path=0.0)
    before = float(search.cost_under(search.probabilities()).sum())
    run = trainer(max_epochs=2, limit_val_batches=0)
    run.fit(search, digits())
    assert float(run.callback_metrics["arch/cost"]) < 0.9 * before
    assert {"arch/cost", "arch/entropy", "train/loss"} <= set(search.figures)


def test_the_usual_weight_of_the_cost_is_the_released_codes():
    assert method(cost="log").cost_weight == 1e-2
    assert method(cost="linear", estimator="policy_gradient").cost_weight == 1e-5
    assert method(cost="log", cost_weight=0.0015).cost_weight == 0.0015


# -- derivation --------------------------------------------------------------------------------------------------------


def test_every_edge_takes_its_strongest_operation_none_too():
    search = method(space=DARTSCell(kinds=["normal"], nodes=2, kept=None))
    with torch.no_grad():
        search.alphas.zero_()
        for row, option in enumerate((0, 4, 0, 3, 5)):
            search.alphas[row, option] = 2.0
    assert search.space.describe(search.best()) == "normal: sep_conv_3x3(1) | skip_connect(1) sep_conv_5x5(2)"


def test_what_is_refused():
    for settings, message in [
        ({"cost": "flops"}, "cost: log, linear or null, got 'flops'"),
        ({"cost": "log", "estimator": "exact"}, "estimator: reparametrised, discrete, policy_gradient, got 'exact'"),
        ({"cost": "log", "cost_weight": -1.0}, "cost_weight: 0 or more, or null, got -1.0"),
        ({"cost_weight": 1.0}, "cost_weight: has no effect without cost"),
        ({"drop_path": 1.0}, "drop_path: from 0 to below 1, got 1.0"),
        ({"relaxation": Softmax()}, "relaxation: GumbelSoftmax, got Softmax"),
    ]:
        with pytest.raises(SettingError, match=f"^{message}"):
            method(**settings)
    micro = ENASMicro(nodes=1)
    search = SNAS(micro, ImageClassification(), NETWORKS[ENASMicro], cost="log")
    with pytest.raises(SettingError, match=r"^space: costs of ENASMicro are no sum over choices"):
        trainer().fit(search, digits())


def test_the_length_of_the_search_must_be_known():
    with pytest.raises(SettingError, match="max_epochs"):
        trainer(max_epochs=-1, max_steps=3).fit(method(), digits())
