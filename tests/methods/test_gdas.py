"""GDAS: one operation for each choice runs, and the gradient is that of the paper."""

from collections import Counter

import scipy.stats
import torch
import torch.nn.functional as F

from lightning_nas.methods import GDAS
from lightning_nas.operations.normalization import batch_statistics
from lightning_nas.relaxations import GumbelSoftmax
from lightning_nas.spaces import DARTSCell, NASBench201
from lightning_nas.spaces.cells import Candidates
from lightning_nas.tasks import ImageClassification
from tests.helpers.methods import digits, trainer

INPUTS = {"channels": 1, "image_size": 8, "num_classes": 10}


def method(space=None, **settings):
    network = settings.pop("network", {"channels": 2, "cells": 3})
    search = GDAS(space or DARTSCell(nodes=2), ImageClassification(), network, INPUTS, **settings)
    search.__class__ = type("Alone", (GDAS,), {"progress": 0.5, "current_epoch": 0, "global_rank": 0})
    return search


def count_runs(network):
    """What runs from now on, by choice and option: the calls of operations with a state that is there."""
    runs = Counter()

    def see(candidates, given):
        place, _, option, *_ = given
        runs[place, option] += 1

    for module in network.modules():
        if isinstance(module, Candidates):
            module.register_forward_pre_hook(see)
    return runs


def test_exactly_one_operation_of_each_choice_runs_with_weight_one():
    search = method()
    runs = count_runs(search.network)
    images = torch.randn(4, 1, 8, 8)
    for step in range(5):
        weights = search.relaxed_weights("architecture", step)
        assert set(weights.unique().tolist()) == {0.0, 1.0}
        assert (weights.sum(1) == 1).all()
        runs.clear()
        search.network(images, search.by_choice(weights))
        drawn = search.space.gates(tuple(weights.argmax(1).tolist()))
        assert {place for place, _ in runs} <= set(drawn)
        for choice in search.space.choices:
            ran = [option for place, option in runs if place == choice.name]
            assert ran in ([], [choice.options[drawn[choice.name]]])  # a choice of no cell of this network runs nothing
        hard = search.network(images, drawn)
        assert torch.equal(hard, search.network(images, search.by_choice(weights)))


def test_operations_are_drawn_by_the_softmax_of_alphas():
    search = method(NASBench201(), network={"channels": 2, "cells": 1})
    with torch.no_grad():
        search.alphas.copy_(torch.randn(6, 5, generator=torch.Generator().manual_seed(1)))
    drawn = torch.stack([search.relaxed_weights("weights", k).detach() for k in range(1000)])
    expected = 1000 * search.alphas.detach().softmax(1)
    for found, wanted in zip(drawn.sum(0), expected, strict=True):
        wanted = wanted.double() * float(found.sum()) / wanted.double().sum()
        assert scipy.stats.chisquare(found.double().numpy(), wanted.numpy()).pvalue > 1e-4


def test_the_gradient_of_an_architecture_step_is_that_of_the_relaxed_sample_at_the_drawn_operation():
    """∂L/∂α_k = Z_d (δ_dk − Z_k) ∂L/∂h_d / τ for the drawn d, Z relaxed, with logits log softmax α; in float64."""
    search = method().double()
    batch = {"architecture": (torch.randn(6, 1, 8, 8, dtype=torch.float64), torch.arange(6))}
    loss, found = search.architecture_gradient(batch, 3)

    alphas = search.alphas.detach()
    generator = search.generator("architecture", 3)
    relaxed = GumbelSoftmax(search.relaxation.temperature(0.5), search.relaxation.temperature(0.5))
    z = relaxed.weights(alphas.log_softmax(1), search.present, generator, 0.0)
    hard = F.one_hot(z.argmax(1), z.shape[1]).double().requires_grad_()
    with batch_statistics(search.network):
        again = F.cross_entropy(search.network(batch["architecture"][0], search.by_choice(hard)), torch.arange(6))
    (credit,) = torch.autograd.grad(again, hard)
    assert not credit[hard == 0].any()  # what is not drawn does not run
    tau = search.relaxation.temperature(0.5)
    expected = z * (credit - (credit * z).sum(1, keepdim=True)) / tau
    torch.testing.assert_close(loss, again.detach())
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-14)
    assert found.abs().max() > 1e-5


def test_a_network_through_which_nothing_flows_gives_no_gradient():
    search = method(NASBench201(), network={"channels": 2, "cells": 1})
    with torch.no_grad():
        search.alphas[:, 0] = 100.0  # none everywhere
    batch = {"architecture": (torch.randn(4, 1, 8, 8), torch.arange(4))}
    _, gradient = search.architecture_gradient(batch, 0)
    assert not gradient.any()


def test_weights_are_trained_first_then_alphas():
    search, order = method(), []
    apply = GDAS.apply_gradients

    def spy(self, optimizer, parameters, *args, **kwargs):
        order.append("alphas" if parameters[0] is self.alphas else "weights")
        apply(self, optimizer, parameters, *args, **kwargs)

    search.__class__ = type("Watched", (GDAS,), {"apply_gradients": spy})
    run = trainer(max_epochs=1, limit_train_batches=2)
    run.fit(search, digits())
    assert order == ["weights", "alphas"] * 2
    assert run.global_step == 2
    assert "train/architecture_loss" in search.figures


def test_the_temperature_falls_from_epoch_to_epoch():
    temperatures = []

    class Watched(GDAS):
        def training_step(self, batch, batch_idx):
            temperatures.append(round(self.relaxation.temperature(self.progress), 6))

    search = Watched(DARTSCell(nodes=1), ImageClassification(), {"channels": 2, "cells": 1})
    trainer(max_epochs=4, limit_train_batches=1, limit_val_batches=0).fit(search, digits())
    assert temperatures == [10.0, 6.7, 3.4, 0.1]
