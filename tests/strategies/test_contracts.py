"""What every strategy promises, and how well each searches in tables of results."""

import math
import statistics

import pytest
from scipy.stats import ttest_rel

from lightning_nas import Adam, Cosine
from lightning_nas.controllers import LSTMController, TransformerController
from lightning_nas.errors import SettingError
from lightning_nas.spaces import DARTSCell, ENASMicro, NASBench201
from lightning_nas.strategies import AgingEvolution, PolicyGradient, RandomSearch, Strategy, Trial
from lightning_nas.studies.strategies import Limit, run_search

STRATEGIES = {
    "random": RandomSearch,
    "random-by-choice": lambda: RandomSearch(by="choice"),
    "evolution": lambda: AgingEvolution(population=4, sample=2),
    "factorized": PolicyGradient,
    "lstm": lambda: PolicyGradient(LSTMController(hidden=8)),
    "transformer": lambda: PolicyGradient(TransformerController(width=8, layers=1, heads=2), batch_size=3),
}
SPACES = {
    "nas-bench-201": NASBench201(),
    "darts": DARTSCell(nodes=2, operations=("none", "skip_connect", "sep_conv_3x3")),
    "enas-micro": ENASMicro(nodes=2),
}


@pytest.fixture(params=STRATEGIES)
def strategy(request):
    return STRATEGIES[request.param]()


@pytest.fixture(params=SPACES)
def space(request):
    return SPACES[request.param]


def trial(number, architecture, score=None):
    """Scores that depend on the architecture, all different."""
    score = sum(3.7**k * option for k, option in enumerate(architecture)) % 1 if score is None else score
    return Trial(number, architecture, score, status="done" if math.isfinite(score) else "failed")


def history(strategy, space, seed, n=20):
    strategy.begin(space, seed)
    trials = []
    for number in range(n):
        trials.append(trial(number, *strategy.ask()))
        strategy.tell(trials[-1:])
    return trials


def test_architectures_are_legal_and_a_function_of_the_seed(strategy, space):
    trials = history(strategy, space, seed=1)
    assert all(space.legal(trial.architecture) for trial in trials)
    assert history(strategy, space, seed=1) == trials  # begun anew, it has forgotten the first search
    others = history(strategy, space, seed=2)
    assert sum(a.architecture == b.architecture for a, b in zip(trials, others, strict=True)) < 10


def test_what_is_asked_depends_on_the_trials_told_and_on_nothing_else(strategy):
    space = SPACES["nas-bench-201"]
    trials = history(strategy, space, seed=3)
    expected = strategy.ask(5)
    resumed = Strategy.build(strategy.spec).begin(space, seed=3)
    resumed.ask(20)  # asked, and not told: a search that was killed
    resumed.tell(trials[:7])
    resumed.tell([])
    resumed.tell(trials[7:])
    assert [resumed.propose(number) for number in (23, 20, 24)] == [expected[3], expected[0], expected[4]]
    assert resumed.ask(5) == expected


def test_the_best_is_the_first_of_the_highest_scores(strategy):
    space = SPACES["nas-bench-201"]
    strategy.begin(space)
    assert strategy.best is None
    architectures = strategy.ask(5)
    scores = [-math.inf, 0.5, 2.0, 2.0, 1.0]
    trials = [trial(k, architectures[k], score) for k, score in enumerate(scores)]
    strategy.tell(trials[:1])
    assert strategy.best is None
    strategy.tell(trials[1:])
    assert strategy.best is trials[2]
    assert strategy.begin(space).best is None


def test_trials_that_fail_leave_a_strategy_that_still_asks(strategy, space):
    strategy.begin(space)
    for number in range(24):
        (architecture,) = strategy.ask()
        assert space.legal(architecture)
        strategy.tell([trial(number, architecture, -math.inf if number < 6 or number % 2 else float(number))])
    assert strategy.best.number == 22


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomSearch(by="edge"), "by: architecture or choice, got 'edge'"),
        (lambda: AgingEvolution(population=0), "population: at least 1, got 0"),
        (lambda: AgingEvolution(sample=0), "sample: at least 1, got 0"),
        (lambda: AgingEvolution(identity=1.5), "identity: from 0 to 1, or null, got 1.5"),
        (
            lambda: PolicyGradient(optimizer=Adam(schedule=Cosine())),
            "optimizer.schedule: null, since a search of trials has no epochs",
        ),
        (lambda: PolicyGradient(batch_size=0), "batch_size: at least 1, got 0"),
        (lambda: PolicyGradient(baseline_decay=1.0), "baseline_decay: from 0 to below 1, got 1.0"),
        (lambda: PolicyGradient(entropy_weight=-1.0), "entropy_weight: 0 or more, got -1.0"),
    ],
)
def test_wrong_settings_are_named(make, message):
    with pytest.raises(SettingError) as caught:
        make()
    assert str(caught.value) == message


# -- how well they search --------------------------------------------------------------------------------------------

SMALL_BUDGET = {
    "evolution": (lambda: AgingEvolution(population=16, sample=4), 100),
    "factorized": (PolicyGradient, 100),
    "lstm": (lambda: PolicyGradient(LSTMController(), Adam(0.03), batch_size=4), 20),
    "transformer": (
        lambda: PolicyGradient(
            TransformerController(32, layers=1, heads=2, temperature=None, tanh_constant=None), Adam(0.03), batch_size=4
        ),
        12,
    ),
}
"""How a strategy is set for 64 evaluations, and from how many seeds it is compared with random search."""


@pytest.mark.parametrize(("make", "n_seeds"), SMALL_BUDGET.values(), ids=SMALL_BUDGET)
def test_64_evaluations_are_better_spent_than_at_random(make, n_seeds, pairwise, search):
    space, scores = pairwise
    strategy = make()
    found = [search(strategy, space, scores.__getitem__, 64, seed).best.score for seed in range(n_seeds)]
    random = [search(RandomSearch(), space, scores.__getitem__, 64, seed).best.score for seed in range(n_seeds)]
    assert ttest_rel(found, random, alternative="greater").pvalue < 0.01


PUBLISHED = {
    "random": (RandomSearch, 500, 93.78, 0.1),
    "evolution": (lambda: AgingEvolution(population=10, sample=3), 500, 93.92, 0.15),
    "reinforce": (
        lambda: PolicyGradient(optimizer=Adam(0.01)),
        20,
        93.81,
        0.25,
    ),  # few seeds: .15 and the error of their mean
}
"""Seeds, and the test accuracy (per cent) that others found in NAS-Bench-201 for 12,000 s."""


@pytest.mark.parametrize(("make", "n_seeds", "accuracy", "within"), PUBLISHED.values(), ids=PUBLISHED)
def test_nas_bench_201_for_12000_seconds(make, n_seeds, accuracy, within, nas_bench_201):
    space, table = nas_bench_201
    strategy = make()
    runs = [run_search(strategy, table, space, Limit(budget=12_000), seed) for seed in range(n_seeds)]
    found = [run.incumbents[-1].trial.metrics["c10_test_200"] for run in runs]
    assert statistics.fmean(found) == pytest.approx(accuracy, abs=within)
    assert all(run.seconds >= 12_000 for run in runs)
    assert 95 < statistics.fmean(run.n_trials for run in runs) < 115
