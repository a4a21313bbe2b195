"""REINFORCE against the exact gradient of an enumerated space, and on a reward that is easily learnt."""

import math
from functools import partial

import pytest
import torch

from lightning_nas.controllers import Baseline, LSTMController, Reinforce, TransformerController

ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")


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
        ((loss, _),) = Reinforce().losses(policy, sample, reward.unsqueeze(0), Baseline(0.8).double())
        for total, gradient in zip(expected, torch.autograd.grad(loss, parameters), strict=True):
            total += p * gradient
    assert max(gradient.abs().max() for gradient in exact) > 0.01
    for a, b in zip(exact, expected, strict=True):
        torch.testing.assert_close(a, -b, rtol=0, atol=1e-9)


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
        update, baseline = Reinforce(decay=0.9 ** (1 / 32)), Baseline(0.25)  # the share that chance gives
        optimizer = torch.optim.Adam(policy.parameters(), 0.03)
        generator = torch.Generator().manual_seed(seed)
        shares = []
        while len(shares) < 5 or sum(shares[-5:]) <= 5 * 0.95 * reachable:
            assert len(shares) < 60, shares  # it takes 10 to 20 updates
            sample = policy.sample(32, generator)
            rewards = (sample.architectures[:, activations] == ACTIVATIONS.index("relu")).float().mean(1)
            ((loss, _),) = update.losses(policy, sample, rewards, baseline)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            shares.append(rewards.mean().item())
        assert shares[0] < 0.35
