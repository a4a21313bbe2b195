"""What all updates share: the baseline by its formula, both forms of the entropy, several ranks, passes."""

import io

import pytest
import torch

from lightning_nas.controllers import PPO, Baseline, ControllerUpdate, LSTMController, Reinforce, Sample
from lightning_nas.errors import SettingError


def said(log_prob, entropies=None):
    """A sample of which just the probabilities and entropies matter."""
    log_prob = torch.as_tensor(log_prob, dtype=torch.float64)
    entropies = torch.zeros_like(log_prob) if entropies is None else torch.as_tensor(entropies).double()
    nothing = torch.zeros(len(log_prob), 1)
    return Sample(nothing.long(), log_prob.unsqueeze(1), entropies.unsqueeze(1), nothing.unsqueeze(1), nothing)


def first(update, sample, rewards, baseline=None, **others):
    """The loss of the first pass."""
    loss, _ = next(update.losses(None, sample, torch.as_tensor(rewards), baseline or Baseline(), **others))
    return loss


def test_a_baseline_with_a_start_moves_after_it_was_subtracted_and_once_for_all():
    update, baseline, b = Reinforce(decay=0.9), Baseline(0.5).double(), 0.5
    for rewards in ([1.0, 3.0], [0.0, 0.5], [7.0, 1.0]):
        loss = first(update, said([-1.0, -2.0]), rewards, baseline)
        assert loss.item() == pytest.approx((1 * (rewards[0] - b) + 2 * (rewards[1] - b)) / 2, rel=1e-6)
        b += (1 - 0.9**2) * (sum(rewards) / 2 - b)
        assert baseline.value.item() == pytest.approx(b)


def test_a_baseline_without_a_start_is_the_mean_of_the_rewards_weighted_by_their_age():
    baseline, told = Baseline().double(), []
    for rewards in ([5.0, 6.0], [1.0, 3.0], [7.0, 2.0]):
        advantages = baseline.advantages(torch.tensor(rewards), 0.9)
        weights = [0.81**age for age in range(len(told))][::-1]
        b = sum(w * r for w, r in zip(weights, told, strict=True)) / sum(weights) if told else 5.5
        assert advantages.tolist() == pytest.approx([reward - b for reward in rewards])
        told.append(sum(rewards) / 2)


@pytest.mark.parametrize("make", [Reinforce, PPO])
def test_entropy_is_a_constant_in_the_reward(make):
    entropies = torch.tensor([0.7, 0.2], requires_grad=True)
    log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    sample = Sample(
        torch.zeros(2, 1).long(), log_prob.unsqueeze(1), entropies.unsqueeze(1), torch.zeros(2, 1, 1), torch.zeros(2)
    )
    baseline = Baseline(0.25)
    update = make(decay=0.99, entropy_weight=0.1, differentiate_entropy=False)
    first(update, sample, [1.0, 2.0], baseline).backward()
    assert entropies.grad is None
    torch.testing.assert_close(log_prob.grad, torch.tensor([-(1.07 - 0.25) / 2, -(2.02 - 0.25) / 2]))
    assert baseline.value.item() == pytest.approx(0.25 + (1 - 0.99**2) * ((1.07 + 2.02) / 2 - 0.25))


@pytest.mark.parametrize("make", [Reinforce, PPO])
def test_or_has_a_gradient_of_its_own(make):
    entropies = torch.tensor([0.7, 0.2], requires_grad=True)
    log_prob = torch.tensor([-1.0, -2.0], requires_grad=True)
    sample = Sample(
        torch.zeros(2, 1).long(), log_prob.unsqueeze(1), entropies.unsqueeze(1), torch.zeros(2, 1, 1), torch.zeros(2)
    )
    first(make(entropy_weight=0.1, differentiate_entropy=True), sample, [1.0, 2.0], Baseline(0.25)).backward()
    torch.testing.assert_close(entropies.grad, torch.tensor([-0.05, -0.05]))
    torch.testing.assert_close(log_prob.grad, torch.tensor([-(1 - 0.25) / 2, -(2 - 0.25) / 2]))


@pytest.mark.parametrize("start", [0.0, None])
def test_ranks_that_reduce_keep_equal_baselines(start):
    ranks, rewards = [Baseline(start), Baseline(start)], [torch.tensor([1.0, 2.0]), torch.tensor([5.0, 6.0])]
    alone = Baseline(start)
    advantages = [
        baseline.advantages(reward, 0.5, lambda mean: torch.full_like(mean, 3.5))
        for baseline, reward in zip(ranks, rewards, strict=True)
    ]
    assert torch.equal(torch.cat(advantages), torch.cat(rewards) - (3.5 if start is None else start))
    alone.advantages(torch.cat(rewards), 0.5**0.5)  # as many rewards as each rank has, twice
    assert ranks[0].value == ranks[1].value
    assert ranks[0].value.item() == pytest.approx(alone.value.item()) == (3.5 if start is None else 0.75 * 3.5)


def test_the_baseline_is_in_the_state_dict():
    baseline = Baseline()
    baseline.advantages(torch.tensor([5.0]), 0.9)
    file = io.BytesIO()
    torch.save(baseline.state_dict(), file)
    file.seek(0)
    loaded = Baseline()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert loaded.value.item() == pytest.approx(5.0)
    assert torch.equal(loaded.advantages(torch.tensor([1.0]), 0.9), baseline.advantages(torch.tensor([1.0]), 0.9))


def test_every_pass_reads_the_policy_as_it_is_then_and_the_baseline_moves_once(spaces):
    policy = LSTMController(8).policy(spaces["Recurrent"](nodes=3))
    baseline, sample = Baseline(), policy.sample(6, torch.Generator().manual_seed(0))
    moved = []
    for _, now in PPO(passes=3).losses(policy, sample, torch.rand(6), baseline):
        assert torch.equal(now.architectures, sample.architectures)
        moved.append(baseline.value.item())
        torch.testing.assert_close(now.log_prob, policy.evaluate(sample.architectures).log_prob)
        with torch.no_grad():
            policy.heads[0].output.weight += 0.3 * torch.randn(policy.heads[0].output.weight.shape)
        assert not torch.allclose(now.log_prob, policy.evaluate(sample.architectures).log_prob)
    assert len(moved) == 3
    assert len(set(moved)) == 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reinforce(decay=1.0), "decay: from 0 to below 1, got 1.0"),
        (lambda: Reinforce(entropy_weight=-1.0), "entropy_weight: 0 or more, got -1.0"),
        (lambda: PPO(decay=-0.1), "decay: from 0 to below 1, got -0.1"),
        (lambda: PPO(clip=0.0), "clip: between 0 and 1, got 0.0"),
        (lambda: PPO(passes=0), "passes: at least 1, got 0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value) == message


@pytest.mark.parametrize("update", [Reinforce(0.5, 0.1), PPO(passes=3, clip=0.1)], ids=["reinforce", "ppo"])
def test_an_update_is_built_from_its_spec(update):
    again = ControllerUpdate.build(update.spec)
    assert vars(again) == vars(update)
