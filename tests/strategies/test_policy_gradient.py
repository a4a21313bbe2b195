"""REINFORCE as a strategy: its steps against a slow one, and what becomes of trials that failed."""

import math

import pytest
import torch

from lightning_nas import Adam
from lightning_nas.controllers import FactorizedController, LSTMController
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


def scripted(first, trials, scores, lr, decay, batch_size=1, entropy_weight=0.0):
    """The logits after the trials, step by step as in the script of NAS-Bench-201, but for the baseline, which has not
    seen the score that it is subtracted from."""
    parameters = [x.clone().requires_grad_() for x in first]
    optimizer = torch.optim.Adam(parameters, lr)
    numerator = denominator = loss = 0.0
    for n, (trial, score) in enumerate(zip(trials, scores, strict=True), start=1):
        baseline = numerator / denominator if denominator else score
        distributions = [torch.distributions.Categorical(logits=x) for x in parameters]
        chosen = zip(distributions, trial.architecture, strict=True)
        log_prob = sum(distribution.log_prob(torch.tensor(option)) for distribution, option in chosen)
        loss = loss - (log_prob * (score - baseline)) / batch_size
        numerator = decay * numerator + (1 - decay) * score
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
    [{}, {"optimizer": Adam(0.5), "baseline_decay": 0.3}, {"batch_size": 4}, {"entropy_weight": 0.7}],
    ids=["defaults", "rates", "batches", "entropy"],
)
def test_steps_are_those_of_the_script(space, settings):
    strategy = PolicyGradient(**settings).begin(space, seed=5)
    first = logits(strategy)
    trials = [trial(k, architecture, math.sin(7 * k)) for k, architecture in enumerate(ask(strategy, 18))]
    strategy.tell(trials[:5])
    strategy.tell(trials[5:])
    given = {"lr": 0.1, "batch_size": 1, "entropy_weight": 0.0, "decay": 0.9} | settings
    given["decay"] = given.pop("baseline_decay", given["decay"])
    given["lr"] = given.pop("optimizer", Adam(0.1)).lr
    expected = scripted(first, trials, [trial.score for trial in trials], **given)
    moved = max((a - b).abs().max() for a, b in zip(first, expected, strict=True))
    assert moved > 0.05
    for ours, slow in zip(logits(strategy), expected, strict=True):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-4)


def test_a_trial_that_failed_counts_as_the_worst_score_so_far(space):
    strategy = PolicyGradient().begin(space, seed=2)
    first = logits(strategy)
    architectures = ask(strategy, 7)
    scores = [-math.inf, 3.0, -math.inf, 1.0, 5.0, -math.inf, 4.0]
    trials = [trial(k, architectures[k], score) for k, score in enumerate(scores)]
    strategy.tell(trials[:1])
    assert all(torch.equal(a, b) for a, b in zip(logits(strategy), first, strict=True))  # nothing is known yet
    strategy.tell(trials[1:])
    expected = scripted(first, trials[1:], [3.0, 3.0, 1.0, 5.0, 1.0, 4.0], lr=0.1, decay=0.9)
    for ours, slow in zip(logits(strategy), expected, strict=True):
        torch.testing.assert_close(ours, slow, rtol=0, atol=1e-4)


def test_scores_of_any_size_leave_a_policy_of_numbers(space):
    strategy = PolicyGradient(LSTMController(hidden=8)).begin(space)
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
