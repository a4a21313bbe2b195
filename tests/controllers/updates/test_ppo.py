"""PPO against REINFORCE, numeric differentiation and its clip, and a reward whose optimum is known."""

import pytest
import torch

from lightning_nas.controllers import (
    PPO,
    Baseline,
    FactorizedController,
    LSTMController,
    Reinforce,
    TransformerController,
)

CONTROLLERS = pytest.mark.parametrize("make", [LSTMController, TransformerController, FactorizedController])


@pytest.fixture
def space(spaces):
    return spaces["Recurrent"](nodes=3)


def drawn(policy, n=12):
    return policy.sample(n, torch.Generator().manual_seed(3))


def rewards(n=12):
    return torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@CONTROLLERS
def test_the_first_pass_has_the_gradient_of_reinforce(make, space, trained):
    policy = trained(make().policy(space), scale=0.3)
    settings = {"decay": 0.9, "entropy_weight": 0.05, "differentiate_entropy": True}
    gradients = [
        torch.autograd.grad(loss, list(policy.parameters()), allow_unused=True)
        for update in (PPO(**settings), Reinforce(**settings))
        for loss, _ in [next(update.losses(policy, drawn(policy), rewards(), Baseline(0.2).double()))]
    ]
    assert max(g.abs().max() for g in gradients[0] if g is not None) > 0.01
    for a, b in zip(*gradients, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@CONTROLLERS
def test_later_passes_have_the_gradient_of_numeric_differentiation(make, space, trained):
    policy = trained(make().policy(space), scale=0.3)
    sample = drawn(policy)
    before = sample.log_prob.detach()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.15 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)).double()
    ratio = (policy.evaluate(sample.architectures).log_prob - before).exp()
    assert (ratio > 1.2).any() or (ratio < 0.8).any()
    assert ((ratio > 0.8) & (ratio < 1.2)).any()

    def loss():
        now = policy.evaluate(sample.architectures)
        return next(PPO(entropy_weight=0.05).losses(policy, now, rewards(), Baseline(0.2).double(), drawn=before))[0]

    for parameter, gradient in zip(
        policy.parameters(), torch.autograd.grad(loss(), list(policy.parameters())), strict=True
    ):
        direction = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4)).double()
        ends = []
        for step in (1e-6, -2e-6):
            with torch.no_grad():
                parameter += step * direction
                ends.append(loss().item())
        with torch.no_grad():
            parameter += 1e-6 * direction
        assert (ends[0] - ends[1]) / 2e-6 == pytest.approx((gradient * direction).sum().item(), abs=1e-7)


def test_beyond_the_clip_on_the_side_that_the_advantage_favours_there_is_no_gradient():
    ratios = torch.tensor([0.7, 0.7, 0.9, 1.1, 1.3, 1.3])
    advantages = torch.tensor([-2.0, 2.0, 1.0, -1.0, 2.0, -2.0])
    log_prob = ratios.log().requires_grad_()
    gain = PPO(clip=0.2).gain(log_prob, torch.zeros(6), advantages)
    gain.sum().backward()
    torch.testing.assert_close(gain.detach(), torch.tensor([-1.6, 1.4, 0.9, -1.1, 2.4, -2.6]))
    torch.testing.assert_close(log_prob.grad, torch.tensor([0.0, 1.4, 0.9, -1.1, 0.0, -2.6]))


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_a_space_is_found_and_the_expected_reward_rises(seed, spaces, everything):
    space = spaces["Recurrent"](nodes=4)
    architectures = everything(space)
    random = torch.rand(len(space.choices), 4, generator=torch.Generator().manual_seed(7))
    worth = random.argsort(1) / 3  # of each option by itself: 0, 1/3, 2/3 or 1
    rewards = worth.gather(1, architectures.T).sum(0)
    policy = FactorizedController().policy(space, seed)
    optimizer, generator = torch.optim.Adam(policy.parameters(), 0.1), torch.Generator().manual_seed(seed)
    baseline, update = Baseline(), PPO()

    def expected():
        with torch.no_grad():
            return float((policy.evaluate(architectures).log_prob.exp() * rewards).sum())

    values = [expected()]
    for _ in range(50):
        sample = policy.sample(20, generator)
        given = worth.gather(1, sample.architectures.T).sum(0)
        for loss, _ in update.losses(policy, sample, given, baseline):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        values.append(expected())
    assert values[0] == pytest.approx(rewards.mean().item(), abs=1e-3)  # uniform
    assert values[0] + 0.5 < values[10] < values[50]
    assert values[50] > 0.95 * rewards.max()
    assert list(policy.best()) == architectures[rewards.argmax()].tolist()
