"""The architecture gradient of DARTS against numeric differentiation, and its optimiser's bookkeeping."""

import math

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from lightning_nas import SGD
from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.methods.darts import DARTS, finite_difference, unrolled_gradient
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.spaces import DARTSCell, DARTSRecurrentCell
from lightning_nas.tasks import ImageClassification, LanguageModeling

INPUTS = {"channels": 3, "image_size": 8, "num_classes": 10}


def supernet(operations, smooth, seed=0):
    """A small supernet in float64; smooth: without kinks, so that derivatives of all orders exist."""
    torch.manual_seed(seed)
    space = DARTSCell(operations=operations)
    network = space.network(INPUTS, channels=4, cells=3).double()
    if smooth:
        for module in list(network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.ReLU):
                    setattr(module, name, nn.Softplus())
    alphas = (0.5 * torch.randn(len(space.choices), len(operations), dtype=torch.float64)).requires_grad_()
    batches = [(torch.randn(6, 3, 8, 8, dtype=torch.float64), torch.randint(0, 10, (6,))) for _ in range(2)]

    def loss_on(batch):
        def loss(weights, at=None):
            rows = (alphas if at is None else at).softmax(1)
            gates = {choice.name: row for choice, row in zip(space.choices, rows, strict=True)}
            logits = torch.func.functional_call(network, dict(weights), (batch[0], gates))
            return F.cross_entropy(logits, batch[1])

        return loss

    # moved away from their symmetric beginning; the velocity as after some steps
    weights = dict(network.named_parameters())
    velocity = {name: 0.9 * 0.01 * torch.randn_like(weight) for name, weight in weights.items()}
    return loss_on(batches[0]), loss_on(batches[1]), weights, alphas, velocity


SMOOTH = ("none", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
FULL = ("none", "max_pool_3x3", "avg_pool_3x3", "skip_connect", "sep_conv_3x3", "dil_conv_3x3")
STEP = {"lr": 0.025, "weight_decay": 3e-4}


def numeric(train, valid, weights, alphas, velocity, direction, h=1e-4, shortened=1.0, at_weights_of=None):
    """The derivative of L_val(w'(α), α) along a direction of α, by a central difference of the whole composition.

    The training gradient is multiplied by ``shortened``. ``at_weights_of``: w' is taken at these alphas, not at α.
    """

    def composed(at):
        names = list(weights)
        loss = train(weights, at if at_weights_of is None else at_weights_of)
        gradients = torch.autograd.grad(loss, [weights[n] for n in names], allow_unused=True)
        moved = {}
        for name, gradient in zip(names, gradients, strict=True):
            gradient = torch.zeros_like(weights[name]) if gradient is None else gradient
            step = velocity[name] + shortened * gradient + STEP["weight_decay"] * weights[name]
            moved[name] = (weights[name] - STEP["lr"] * step).detach()
        with torch.no_grad():
            return valid(moved, at)

    at = alphas.detach()
    return float((composed(at + h * direction) - composed(at - h * direction)) / (2 * h))


def test_exact_gradient_is_the_numeric_derivative():
    train, valid, weights, alphas, velocity = supernet(SMOOTH, smooth=True)
    _, gradient = unrolled_gradient(train, valid, weights, alphas, velocity=velocity, exact=True, **STEP)
    for seed in range(3):
        direction = torch.randn(alphas.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        expected = numeric(train, valid, weights, alphas, velocity, direction)
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("clip", [0.05, 100.0])
def test_clipped_gradients_of_the_unrolled_step_are_shortened_by_constants(clip):
    train, valid, weights, alphas, velocity = supernet(SMOOTH, smooth=True)
    _, gradient = unrolled_gradient(train, valid, weights, alphas, velocity=velocity, exact=True, clip=clip, **STEP)
    values = list(weights.values())
    gradients = torch.autograd.grad(train(weights), values, materialize_grads=True)
    kappa = min(1.0, clip / float(torch.cat([g.flatten() for g in gradients]).norm()))
    moved = {}
    for (name, weight), g in zip(weights.items(), gradients, strict=True):
        step = velocity[name] * (g.abs().sum() > 0) + kappa * g + STEP["weight_decay"] * weight * (g.abs().sum() > 0)
        moved[name] = (weight - STEP["lr"] * step).detach().requires_grad_()
    g_valid = torch.autograd.grad(valid(moved), list(moved.values()), materialize_grads=True)
    factor = min(1.0, clip / float(torch.cat([g.flatten() for g in g_valid]).norm()))
    assert (kappa < 0.5 and factor < 0.5) or (kappa, factor) == (1, 1)
    for seed in range(2):
        direction = torch.randn(alphas.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        arguments = (train, valid, weights, alphas, velocity, direction)
        whole = numeric(*arguments, shortened=kappa)
        direct = numeric(*arguments, shortened=kappa, at_weights_of=alphas)
        expected = direct + factor * (whole - direct)  # the shortened g stands in the implicit term alone
        assert float((gradient * direction).sum()) == pytest.approx(expected, rel=1e-5)


def test_finite_difference_approaches_the_exact_product_quadratically():
    train, valid, weights, alphas, velocity = supernet(SMOOTH, smooth=True)
    arguments = (train, valid, weights, alphas)
    _, exact = unrolled_gradient(*arguments, velocity=velocity, exact=True, **STEP)
    _, approximate = unrolled_gradient(*arguments, velocity=velocity, exact=False, **STEP)
    assert torch.norm(approximate - exact) / torch.norm(exact) < 1e-3

    direction = {name: torch.randn_like(weight) for name, weight in weights.items()}
    gradients = torch.autograd.grad(train(weights), list(weights.values()), create_graph=True, materialize_grads=True)
    product = torch.autograd.grad(gradients, alphas, list(direction.values()))[0]
    errors = [
        float(torch.norm(finite_difference(train, weights, alphas, direction, scale) - product))
        for scale in (0.1, 0.01)
    ]
    assert errors[0] / errors[1] == pytest.approx(100, rel=0.1)


def test_finite_difference_is_coarse_on_a_network_with_kinks():
    # Stated, not hidden: with ReLU and max-pool the paper's ε crosses kinks, and here the estimate is off by more than
    # the implicit term itself. That is the paper's method, so it stays the default of second order.
    train, valid, weights, alphas, velocity = supernet(FULL, smooth=False)
    arguments = (train, valid, weights, alphas)
    _, first = unrolled_gradient(*arguments, velocity=velocity, exact=True, lr=0.0, weight_decay=0.0)
    _, exact = unrolled_gradient(*arguments, velocity=velocity, exact=True, **STEP)
    _, approximate = unrolled_gradient(*arguments, velocity=velocity, exact=False, **STEP)
    off = torch.norm(approximate - exact) / torch.norm(exact - first)
    assert 1 < off < 10


@pytest.mark.parametrize("exact", [True, False])
def test_step_of_length_zero_is_first_order(exact):
    train, valid, weights, alphas, velocity = supernet(FULL, smooth=False)
    loss, gradient = unrolled_gradient(
        train, valid, weights, alphas, lr=0.0, weight_decay=3e-4, velocity=velocity, exact=exact
    )
    first = valid(weights)
    assert torch.equal(loss, first)
    assert torch.equal(gradient, torch.autograd.grad(first, alphas)[0])


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize(("xi", "fixed_point"), [(0, 2), (0.1, 1.667), (0.3, 1.25), (0.5, 1), (0.7, 0.833)])
def test_bilevel_toy_of_the_paper(xi, fixed_point, exact):
    # L_val = aw - 2a + 1 and L_train = w² - 2aw + a², from a = 2, w = -2, end in a = w = 2 / (1 + 2ξ).
    assert fixed_point == pytest.approx(2 / (1 + 2 * xi), abs=1e-3)
    a = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    w = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)

    def train(weights):
        return weights["w"] ** 2 - 2 * a * weights["w"] + a**2

    def valid(weights):
        return a * weights["w"] - 2 * a + 1

    for _ in range(4000):
        _, gradient = unrolled_gradient(train, valid, {"w": w}, a, lr=xi, weight_decay=0.0, velocity={}, exact=exact)
        with torch.no_grad():
            a -= 0.01 * gradient
        (gradient,) = torch.autograd.grad(train({"w": w}), w)
        with torch.no_grad():
            w -= 0.05 * gradient
    assert float(a.detach()) == pytest.approx(2 / (1 + 2 * xi), abs=1e-6)
    assert float(w.detach()) == pytest.approx(2 / (1 + 2 * xi), abs=1e-6)


def test_unrolled_step_is_the_optimizers_step():
    # w' by hand equals what torch's SGD does with momentum and weight decay, clipping aside.
    train, _, weights, alphas, _ = supernet(FULL, smooth=False)
    parameters = list(weights.values())
    optimizer = torch.optim.SGD(parameters, lr=0.025, momentum=0.9, weight_decay=3e-4)
    for _ in range(2):
        gradients = torch.autograd.grad(train(weights), parameters, materialize_grads=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        velocity = {
            name: 0.9 * optimizer.state[weight]["momentum_buffer"].clone()
            for name, weight in weights.items()
            if "momentum_buffer" in optimizer.state[weight]
        }
        unrolled = {}

        def record(at, unrolled=unrolled):
            unrolled.update({name: weight.detach().clone() for name, weight in at.items()})
            return sum(weight.square().sum() for weight in at.values()) + alphas.sum()

        unrolled_gradient(train, record, weights, alphas, velocity=velocity, exact=True, **STEP)
        optimizer.step()
    for name, weight in weights.items():
        torch.testing.assert_close(unrolled[name], weight.detach(), rtol=1e-12, atol=1e-14)


def test_alphas_are_no_weights():
    method = DARTS(DARTSCell(), ImageClassification(), {"channels": 4, "cells": 3}, INPUTS)
    weights = {id(parameter) for parameter in method.network.parameters()}
    assert id(method.alphas) not in weights
    assert len(weights) + 1 == len(list(method.parameters()))
    assert method.alphas.shape == (28, 8)
    assert float(method.alphas.detach().std()) == pytest.approx(1e-3, rel=0.2)


def test_gates_are_the_softmax_over_the_options_that_a_choice_has():
    space = DARTSCell().restrict({"normal/0->2": ["skip_connect", "sep_conv_3x3"]})
    method = DARTS(space, ImageClassification(), {"channels": 4, "cells": 3}, INPUTS)
    with torch.no_grad():
        method.alphas.copy_(torch.arange(8.0).repeat(28, 1))
    gates = method.gates()
    assert gates["normal/0->2"].tolist() == pytest.approx([1 / (1 + math.e), math.e / (1 + math.e)])
    assert gates["normal/1->2"].tolist() == pytest.approx(torch.arange(8.0).softmax(0).tolist())


def test_divergence_is_said_and_the_last_good_checkpoint_stays(tmp_path):
    method = DARTS(
        DARTSCell(nodes=1), ImageClassification(), {"channels": 2, "cells": 1}, order="first", optimizer=SGD(1e30)
    )
    each_epoch = ModelCheckpoint(tmp_path, filename="last", save_on_train_epoch_end=True)
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        max_epochs=5,
        callbacks=[each_epoch],
    )
    with pytest.raises(SettingError, match="lower the lr of optimizer"):
        trainer.fit(method, Digits(batch_size=256))
    for path in tmp_path.glob("*.ckpt"):
        assert torch.load(path, weights_only=True)["state_dict"]["alphas"].isfinite().all()


def test_best_on_hand_made_alphas():
    space = DARTSCell(kinds=["normal"])
    method = DARTS(space, ImageClassification(), {"channels": 4, "cells": 3}, INPUTS)
    with torch.no_grad():
        method.alphas.zero_()
        method.alphas[:, 0] = 9.0  # none is the strongest everywhere and still never kept
        for name, option, value in [
            ("normal/0->2", "skip_connect", 1.0),
            ("normal/1->2", "dil_conv_5x5", 1.0),
            ("normal/0->3", "sep_conv_3x3", 2.0),
            ("normal/2->3", "max_pool_3x3", 3.0),
            ("normal/1->4", "sep_conv_5x5", 4.0),
            ("normal/3->4", "avg_pool_3x3", 5.0),
            ("normal/3->5", "dil_conv_3x3", 6.0),
            ("normal/4->5", "skip_connect", 7.0),
        ]:
            names = [choice.name for choice in space.choices]
            row = names.index(name)
            method.alphas[row, space.choices[row].options.index(option)] = value
    assert space.describe(method.best()) == (
        "normal: skip_connect(0) dil_conv_5x5(1) | sep_conv_3x3(0) max_pool_3x3(2) | "
        "sep_conv_5x5(1) avg_pool_3x3(3) | dil_conv_3x3(3) skip_connect(4)"
    )


@pytest.mark.parametrize("bn", ["recalibrate", "batch"])
def test_validation_normalises_by_running_averages_or_by_the_batch(bn):
    method, data = DARTS(DARTSCell(nodes=2), ImageClassification(), {"channels": 2, "cells": 2}, bn=bn), Digits()
    method.build_network(data.inputs)
    run = pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
    (before,) = run.validate(method, data, verbose=False)
    for norm in batch_norms(method.network):
        norm.running_mean.fill_(3.0)
    (after,) = run.validate(method, data, verbose=False)
    assert (before == after) == (bn == "batch")
    assert all((norm.running_mean == 3).all() for norm in batch_norms(method.network))


def test_exact_gradients_and_compiled_cells_exclude_each_other():
    with pytest.raises(SettingError, match=r"network\.compile: compiled code cannot be differentiated twice"):
        DARTS(DARTSRecurrentCell(), LanguageModeling(), {"compile": True}, order="exact")
