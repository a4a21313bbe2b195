"""REINFORCE against its formulas, the exact gradient of an enumerated space, and a reward that is easily learnt."""

import io
import math
from functools import partial

import pytest
import torch

from lightning_nas.controllers import LSTMController, Reinforce, Sample, TransformerController
from lightning_nas.errors import SettingError

ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")


def said(log_prob, entropies=None):
    """A sample of which just the probabilities and entropies matter."""
    log_prob = torch.as_tensor(log_prob, dtype=torch.float64)
    entropies = torch.zeros_like(log_prob) if entropies is None else torch.as_tensor(entropies).double()
    nothing = torch.zeros(len(log_prob), 1)
    return Sample(nothing.long(), log_prob.unsqueeze(1), entropies.unsqueeze(1), nothing.unsqueeze(1), nothing)


def test_the_baseline_follows_its_formula_and_is_subtracted_before_it_moves():
    reinforce = Reinforce(decay=0.9, baseline=0.5).double()
    b = 0.5
    for rewards in ([1.0, 3.0], [0.0, 0.5], [7.0, 1.0]):
        loss, figures = reinforce.update(said([-1.0, -2.0]), torch.tensor(rewards))
        assert loss.item() == pytest.approx((1 * (rewards[0] - b) + 2 * (rewards[1] - b)) / 2)
        assert figures["baseline"].item() == pytest.approx(b)
        assert figures["reward"].item() == pytest.approx(sum(rewards) / 2)
        b += 0.1 * (sum(rewards) / 2 - b)
        assert reinforce.baseline.item() == pytest.approx(b)


def test_entropy_is_a_constant_in_the_reward():
    entropies = torch.tensor([0.7, 0.2], requires_grad=True)
    log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    sample = Sample(
        torch.zeros(2, 1).long(), log_prob.unsqueeze(1), entropies.unsqueeze(1), torch.zeros(2, 1, 1), torch.zeros(2)
    )
    reinforce = Reinforce(entropy_weight=0.1, baseline=0.25)
    loss, figures = reinforce.update(sample, torch.tensor([1.0, 2.0]))
    loss.backward()
    assert entropies.grad is None
    torch.testing.assert_close(log_prob.grad, torch.tensor([-(1.07 - 0.25) / 2, -(2.02 - 0.25) / 2]))
    assert figures["entropy"].item() == pytest.approx(0.45)
    assert figures["reward"].item() == pytest.approx(1.5)
    assert reinforce.baseline.item() == pytest.approx(0.25 + 0.01 * ((1.07 + 2.02) / 2 - 0.25))


@pytest.mark.parametrize("make", [LSTMController, TransformerController])
def test_the_expected_gradient_is_that_of_the_expected_reward(make, spaces, trained, everything):
    space = spaces["Recurrent"](nodes=3)
    policy = trained(make().policy(space), scale=0.3)
    parameters = list(policy.parameters())
    architectures = everything(space)
    rewards = torch.randn(len(architectures), dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    probabilities = policy.evaluate(architectures).log_prob.exp()
    exact = torch.autograd.grad((probabilities * rewards).sum(), parameters)
    expected = [torch.zeros_like(parameter) for parameter in parameters]
    for architecture, reward, p in zip(architectures, rewards, probabilities.detach(), strict=True):
        sample = policy.evaluate(architecture.unsqueeze(0))
        loss, _ = Reinforce(baseline=0.8).double().update(sample, reward.unsqueeze(0))
        for total, gradient in zip(expected, torch.autograd.grad(loss, parameters), strict=True):
            total += p * gradient
    assert max(gradient.abs().max() for gradient in exact) > 0.01
    for a, b in zip(exact, expected, strict=True):
        torch.testing.assert_close(a, -b, rtol=0, atol=1e-9)


def test_ranks_that_reduce_keep_equal_baselines():
    ranks, rewards = [Reinforce(decay=0.5), Reinforce(decay=0.5)], [torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0])]
    alone = Reinforce(decay=0.5)
    for reinforce, reward in zip(ranks, rewards, strict=True):
        reinforce.update(said([-1.0, -2.0]), reward, reduce=lambda mean: torch.full_like(mean, 3.5))
    alone.update(said([-1.0] * 4), torch.cat(rewards))
    assert ranks[0].baseline == ranks[1].baseline == alone.baseline == 1.75


def test_the_baseline_is_in_the_state_dict():
    reinforce = Reinforce()
    reinforce.update(said([-1.0]), torch.tensor([5.0]))
    file = io.BytesIO()
    torch.save(reinforce.state_dict(), file)
    file.seek(0)
    loaded = Reinforce()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded.baseline.item() == pytest.approx(0.05)


def test_a_wrong_decay_is_named():
    with pytest.raises(SettingError, match=r"decay: between 0 and 1, got 1.0"):
        Reinforce(decay=1.0)


@pytest.mark.parametrize("bounded", [True, False], ids=["bounded", "unbounded"])
@pytest.mark.parametrize(
    "make",
    [partial(LSTMController, 32), partial(TransformerController, 16, layers=1, heads=2)],
    ids=["lstm", "transformer"],
)
def test_the_share_of_one_activation_is_learnt_from_every_seed(make, bounded, spaces):
    space = spaces["Recurrent"](nodes=12, activations=ACTIVATIONS)
    activations = [k for k, choice in enumerate(space.choices) if choice.kind == "operation"]
    settings = {"temperature": 5.0, "tanh_constant": 2.5} if bounded else {"temperature": None, "tanh_constant": None}
    reachable = math.exp(5) / (math.exp(5) + 3) if bounded else 1.0
    for seed in range(5):
        policy = make(**settings).policy(space, seed)
        reinforce = Reinforce(decay=0.9, baseline=0.25)  # the share that chance gives
        optimizer = torch.optim.Adam(policy.parameters(), 0.03)
        generator = torch.Generator().manual_seed(seed)
        shares = []
        while len(shares) < 5 or sum(shares[-5:]) <= 5 * 0.95 * reachable:
            assert len(shares) < 60, shares  # it takes 10 to 20 updates
            sample = policy.sample(32, generator)
            rewards = (sample.architectures[:, activations] == ACTIVATIONS.index("relu")).float().mean(1)
            loss, figures = reinforce.update(sample, rewards)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            shares.append(figures["reward"].item())
        assert shares[0] < 0.35
