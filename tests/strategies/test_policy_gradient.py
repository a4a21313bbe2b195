"""REINFORCE and PPO as strategies: their steps against slow ones, and what becomes of trials that failed."""

import math

import pytest
import torch

from lightning_nas import SGD, Adam
from lightning_nas.controllers import PPO, FactorizedController, LSTMController, Reinforce
from lightning_nas.spaces import Choice, NASBench201, Space
from lightning_nas.strategies import PolicyGradient, Trial


@pytest.fixture
def space():
    return Space([Choice("first", ("a", "b", "c"), "0"), Choice("second", ("a", "b"), "1")])


def ask(strategy, n=1):
    return [proposal.architecture for proposal in strategy.ask(n)]


def trial(number, architecture, score):
    failed = {} if math.isfinite(score) else {"status": "failed"}
    return Trial(number, architecture, (score,), **failed)


def logits(strategy):
    return [x.detach().double() for x in strategy.policy.start.split([3, 2])]


def scripted(first, trials, scores, rule, decay, batch_size=1, entropy_weight=0.0):
    """The logits after the trials, step by step as in the script of NAS-Bench-201, but for the baseline, which has not
    seen the scores of the batch that it is subtracted from."""
    parameters = [x.clone().requires_grad_() for x in first]
    optimizer = rule.make(parameters)
    numerator = denominator = loss = 0.0
    for n, (trial, score) in enumerate(zip(trials, scores, strict=True), start=1):
        if n % batch_size == 1 or batch_size == 1:
            mean = sum(scores[n - 1 : n - 1 + batch_size]) / batch_size
            baseline = numerator / denominator if denominator else mean
        distributions = [torch.distributions.Categorical(logits=x) for x in parameters]
        chosen = zip(distributions, trial.architecture, strict=True)
        log_prob = sum(distribution.log_prob(torch.tensor(option)) for distribution, option in chosen)
        loss = loss - (log_prob * (score - baseline)) / batch_size
        numerator = decay * numerator + (1 - decay) * mean
        denominator = decay * denominator + (1 - decay)
        if n % batch_size == 0:
            loss = loss - entropy_weight * sum(distribution.entropy() for distribution in distributions)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss = 0.0
    return [x.detach() for x in parameters]


@pytest.mark.parametrize(
    "settings",
    [{}, {"rule": Adam(0.5), "decay": 0.3}, {"batch_size": 4, "rule": SGD(0.5)}, {"entropy_weight": 0.7}],
    ids=["defaults", "rates", "batches", "entropy"],
)
def test_steps_are_those_of_the_script(space, settings):
    given = {"rule": Adam(0.1), "batch_size": 1, "entropy_weight": 0.0, "decay": 0.9} | settings
    update = Reinforce(given["decay"], given["entropy_weight"], differentiate_entropy=True)
    made = PolicyGradient(None, given["rule"], given["batch_size"], update) if settings else PolicyGradient()
    strategy = made.begin(space, seed=5)
    first = logits(strategy)
    trials = [trial(k, architecture, math.sin(7 * k)) for k, architecture in enumerate(ask(strategy, 18))]
    strategy.tell(trials[:5])
    strategy.tell(trials[5:])
    expected = scripted(first, trials, [trial.score for trial in trials], **given)
    moved = max((a - b).abs().max() for a, b in zip(first, expected, strict=True))
    assert moved > 0.05
    for ours, slow in zip(logits(strategy), expected, strict=True):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-4)


def test_ppo_compares_with_the_policy_that_drew_the_trial_though_it_is_told_late(space):
    strategy = PolicyGradient(None, Adam(0.3), batch_size=2, update=PPO(0.8, 0.1, clip=0.2, passes=3)).begin(space)
    architectures, log_probs, scores = [], [], [math.sin(7 * k) for k in range(12)]
    parameters = [x.clone().requires_grad_() for x in logits(strategy)]
    optimizer = torch.optim.Adam(parameters, 0.3)

    def log_prob(architecture):
        chosen = zip(parameters, architecture, strict=True)
        return sum(x.log_softmax(0)[option] for x, option in chosen)

    def ask(n):
        architectures.extend(proposal.architecture for proposal in strategy.ask(n))
        log_probs.extend(log_prob(architecture).detach() for architecture in architectures[-n:])

    b, ratios = None, []
    ask(4)
    for pair in ((3, 1), (4, 0), (2, 6), (5, 7), (9, 8), (10, 11)):
        strategy.tell([Trial(k, architectures[k], (scores[k],)) for k in pair])
        mean = (scores[pair[0]] + scores[pair[1]]) / 2
        total, weight = b or (0.0, 0.0)
        baseline = total / weight if weight else mean
        b = 0.8**2 * total + (1 - 0.8**2) * mean, 0.8**2 * weight + (1 - 0.8**2)
        for _ in range(3):
            loss = 0.0
            for k in pair:
                ratio, advantage = (log_prob(architectures[k]) - log_probs[k]).exp(), scores[k] - baseline
                loss = loss - min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage) / 2
                ratios.append(ratio.item())
            loss = loss - 0.1 * sum(torch.distributions.Categorical(logits=x).entropy() for x in parameters)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if len(architectures) < 12:
            ask(2)
    assert sum(abs(ratio - 1) > 1e-3 for ratio in ratios[::6]) >= 4  # of first passes: most are told late
    assert any(abs(ratio - 1) > 0.2 for ratio in ratios)
    for ours, slow in zip(logits(strategy), parameters, strict=True):
        torch.testing.assert_close(ours, slow.detach(), rtol=0, atol=1e-4)


def test_a_trial_that_was_not_asked_for_counts_as_drawn_when_it_is_learnt_from(space):
    told = [Trial(k, (k % 3, k % 2), (float(k),)) for k in range(6)]
    policies = []
    for update in (PPO(passes=1, entropy_weight=0.0), Reinforce(0.95)):
        strategy = PolicyGradient(batch_size=2, update=update).begin(space)
        first = logits(strategy)
        strategy.tell(told)
        policies.append(logits(strategy))
    assert max((a - b).abs().max() for a, b in zip(first, policies[0], strict=True)) > 0.05
    for a, b in zip(*policies, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_a_batch_is_as_large_as_the_update_wants_it_unless_it_is_given():
    assert PolicyGradient().batch_size == 1
    assert PolicyGradient(update=PPO()).batch_size == 20
    assert PolicyGradient(batch_size=7, update=PPO()).batch_size == 7


def test_a_trial_that_failed_counts_as_the_worst_score_so_far(space):
    strategy = PolicyGradient().begin(space, seed=2)
    first = logits(strategy)
    architectures = ask(strategy, 7)
    scores = [-math.inf, 3.0, -math.inf, 1.0, 5.0, -math.inf, 4.0]
    trials = [trial(k, architectures[k], score) for k, score in enumerate(scores)]
    strategy.tell(trials[:1])
    assert all(torch.equal(a, b) for a, b in zip(logits(strategy), first, strict=True))  # nothing is known yet
    strategy.tell(trials[1:])
    expected = scripted(first, trials[1:], [3.0, 3.0, 1.0, 5.0, 1.0, 4.0], rule=Adam(0.1), decay=0.9)
    for ours, slow in zip(logits(strategy), expected, strict=True):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-4)


@pytest.mark.parametrize("update", [Reinforce(), PPO()], ids=["reinforce", "ppo"])
def test_scores_of_any_size_leave_a_policy_of_numbers(space, update):
    strategy = PolicyGradient(LSTMController(hidden=8), batch_size=1, update=update).begin(space)
    for number, score in enumerate([-1e30, 1e30, 0.0, 1e-30, -math.inf, 7.0]):
        strategy.tell([trial(number, ask(strategy)[0], score)])
    assert all(parameter.isfinite().all() for parameter in strategy.policy.parameters())


def test_the_rate_suits_the_controller_unless_it_is_given():
    assert PolicyGradient().optimizer.lr == PolicyGradient(FactorizedController()).optimizer.lr == 0.1
    assert PolicyGradient(LSTMController()).optimizer.lr == 0.01
    assert PolicyGradient(LSTMController(), Adam(0.2)).optimizer.lr == 0.2


def test_the_best_option_of_each_edge_is_learnt(search):
    strategy = search(PolicyGradient(), NASBench201(), lambda a: float(sum(option == 3 for option in a)), 250)
    assert strategy.policy.best() == (3,) * 6
    assert strategy.policy.evaluate(torch.tensor([(3,) * 6])).log_prob.item() > math.log(0.3)


@pytest.mark.parametrize("seed", range(5))
def test_ppo_finds_the_best_of_15625_cells_from_every_seed(search, seed):
    worth = (
        torch.rand(6, 5, generator=torch.Generator().manual_seed(1)).argsort(1).tolist()
    )  # of each edge's operations

    def score(architecture):
        return float(sum(row[option] for row, option in zip(worth, architecture, strict=True)))

    best = tuple(row.index(4) for row in worth)
    scores = []

    def scored(architecture):
        scores.append(score(architecture))
        return scores[-1]

    strategy = search(PolicyGradient(update=PPO()), NASBench201(), scored, 600, seed)
    assert strategy.policy.best() == best
    assert sum(scores[:100]) / 100 + 8 < sum(scores[-100:]) / 100
    assert strategy.policy.evaluate(torch.tensor([best])).log_prob.item() > math.log(0.3)
