"""The factorised policy: independent choices under the space's rule, against enumeration."""

import math
from collections import Counter

import lightning.pytorch as pl
import pytest
import torch
from scipy.stats import chisquare

from lightning_nas.controllers import Controller, FactorizedController, LSTMController
from lightning_nas.data import Digits
from lightning_nas.methods import ENAS
from lightning_nas.spaces import DARTSCell, ENASMacro, NASBench201, Space
from lightning_nas.tasks import ImageClassification


@pytest.fixture
def policy(space, trained):
    return trained(FactorizedController().policy(space))


def test_probabilities_sum_to_one_over_the_legal_architectures(policy, space, everything):
    log_prob = policy.evaluate(everything(space)).log_prob.detach()
    assert log_prob.logsumexp(0).item() == pytest.approx(0, abs=1e-9)
    assert log_prob.std() > 0.3


def test_an_untrained_policy_is_almost_uniform(space, everything):
    policy = FactorizedController().policy(space)
    sample = policy.evaluate(everything(space))
    assert 0 < (sample.log_prob + math.log(space.size)).abs().max() < 0.05
    assert policy.start.std().item() == pytest.approx(1e-3, rel=0.5)


def test_the_first_logits_are_a_function_of_the_seed():
    first, second, third = (FactorizedController().policy(NASBench201(), seed).start for seed in (0, 0, 1))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_without_a_rule_each_choice_has_its_own_softmax(spaces, trained, everything):
    space = spaces["cells"]
    policy = trained(FactorizedController().policy(space))
    architectures = everything(space)
    sample = policy.evaluate(architectures)
    for k, x in enumerate(policy.start.split([len(choice.options) for choice in space.choices])):
        assert sample.step_log_probs[:, k].tolist() == pytest.approx(x.log_softmax(0)[architectures[:, k]].tolist())
        entropy = torch.special.entr(x.softmax(0)).sum().item()
        assert sample.entropies[:, k].tolist() == pytest.approx([entropy] * len(architectures), abs=1e-9)


def test_under_a_rule_options_count_as_often_as_architectures_go_on(spaces, trained, everything):
    space = spaces["labels"]
    policy = trained(FactorizedController().policy(space))
    x = dict(zip([c.name for c in space.choices], policy.start.split([3, 2, 3, 3, 3]), strict=True))
    sample = policy.evaluate(everything(space))
    kernel = [choice.name for choice in space.choices].index("kernel")
    goes_on = torch.tensor([1.0, 2.0, 3.0]).double()  # widths up to the kernel
    expected = (x["kernel"] + goes_on.log()).log_softmax(0)
    for architecture, found in zip(space, sample.step_log_probs, strict=True):
        assert found[kernel].item() == pytest.approx(expected[architecture[kernel]].item())
        width = x["width"][: architecture[kernel] + 1].log_softmax(0)
        assert found[kernel + 1].item() == pytest.approx(width[architecture[kernel + 1]].item())


def test_what_was_drawn_is_judged_the_same_when_it_is_given(policy):
    drawn = policy.sample(50, torch.Generator().manual_seed(1))
    given = policy.evaluate(drawn.architectures)
    for name in ("architectures", "step_log_probs", "entropies", "hidden", "skip_kl"):
        assert torch.equal(getattr(drawn, name), getattr(given, name)), name


def test_what_is_illegal_is_never_drawn(policy, space):
    legal = set(space)
    with torch.no_grad():
        assert set(policy.sample(5000, torch.Generator().manual_seed(0)).tuples()) <= legal
    if space.has_rule:
        nowhere = next(a for a in Space(space.choices) if a not in legal)
        with pytest.raises(ValueError, match="not an architecture of this space"):
            policy.evaluate(torch.tensor([nowhere]))


def test_draws_have_their_probabilities(spaces, trained, everything):
    space = spaces["labels"]
    policy = trained(FactorizedController().policy(space), scale=0.5)
    with torch.no_grad():
        expected = 20_000 * policy.evaluate(everything(space)).log_prob.exp()
        counts = Counter(policy.sample(20_000, torch.Generator().manual_seed(2)).tuples())
    assert chisquare([counts[architecture] for architecture in space], expected).pvalue > 1e-3


def test_the_best_takes_the_most_probable_options(spaces, trained, everything):
    space = spaces["cells"]
    policy = trained(FactorizedController().policy(space))
    architectures = everything(space)
    best = policy.evaluate(architectures).log_prob.argmax()
    assert policy.best() == tuple(architectures[best].tolist())


def test_hidden_states_are_the_logits_for_all_architectures(policy, space):
    sample = policy.sample(3, torch.Generator().manual_seed(0))
    widest = max(len(choice.options) for choice in space.choices)
    assert sample.hidden.shape == (3, len(space.choices), widest)
    assert (sample.hidden == sample.hidden[:1]).all()
    for k, x in enumerate(policy.start.split([len(choice.options) for choice in space.choices])):
        assert torch.equal(sample.hidden[0, policy.step_of[k], : len(x)], x)
        assert (sample.hidden[0, k, len(x) :] == 0).all()


def test_the_divergence_of_skips_is_that_of_other_policies(spaces):
    space = spaces["layers"]
    policies = [controller(skip_target=0.3).policy(space) for controller in (FactorizedController, LSTMController)]
    policies[0].start.data.zero_()  # both uniform now
    samples = [policy.evaluate(torch.tensor([space.tables.unrank(5)])) for policy in policies]
    assert samples[0].skip_kl.item() == pytest.approx(samples[1].skip_kl.item(), rel=1e-5)
    assert samples[0].skip_kl > 0.1


def test_the_gradient_is_that_of_the_expected_reward(spaces, trained, everything):
    space = spaces["few-skips"]
    policy = trained(FactorizedController().policy(space), scale=0.3)
    architectures = everything(space)
    rewards = torch.randn(len(architectures), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sample = policy.evaluate(architectures)
    p = sample.log_prob.exp()
    (exact,) = torch.autograd.grad((p * rewards).sum(), policy.start, retain_graph=True)
    (estimate,) = torch.autograd.grad((p.detach() * sample.log_prob * (rewards - 0.8)).sum(), policy.start)
    assert exact.abs().max() > 0.01
    torch.testing.assert_close(exact, estimate, rtol=0, atol=1e-12)


def test_it_is_rebuilt_from_its_spec_and_its_state(space):
    controller = FactorizedController(skip_target=0.2)
    again = Controller.build(controller.spec)
    assert (type(again), again.skip_target) == (FactorizedController, 0.2)
    policy, other = controller.policy(space, 0), again.policy(space, 1)
    other.load_state_dict(policy.state_dict())
    assert list(policy.state_dict()) == ["start"]
    assert torch.equal(policy.start, other.start)


@pytest.mark.parametrize("space_of_enas", [DARTSCell(nodes=2), ENASMacro(layers=3)], ids=["darts", "macro"])
def test_enas_trains_it(space_of_enas):
    network = {"channels": 2, "cells": 2} if isinstance(space_of_enas, DARTSCell) else {"channels": 2}
    skips = {"skip_weight": 0.5} if isinstance(space_of_enas, ENASMacro) else {}
    few = {"controller_steps": 2, "samples_per_step": 2, "n_candidates": 2, **skips}
    search = ENAS(space_of_enas, ImageClassification(), network, controller=FactorizedController(), **few)
    before = search.policy.start.detach().clone()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        limit_train_batches=3,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(search, Digits(batch_size=64, num_workers=0))
    assert (search.policy.start - before).abs().max() > 1e-4
    assert space_of_enas.legal(search.best())
