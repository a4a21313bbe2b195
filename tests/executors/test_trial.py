"""What becomes of a trial, whatever an evaluator raises, returns or waits for."""

import math
import os
import signal
import sys
import threading
import time

import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation, Evaluator
from lightning_nas.executors import Serial
from lightning_nas.executors.trial import run_trial
from lightning_nas.objectives import Objective
from lightning_nas.strategies.base import Proposal, Trial
from lightning_nas.trials.log import TrialLog, read_trials
from tests.helpers.own_search import Scripted, Switches

ARCHITECTURE = (1, 1, 0, 2)
PROPOSAL = Proposal(ARCHITECTURE)
SCORE = [Objective("score")]


def trial(folder, accident):
    evaluator = Scripted(folder, {"7": accident})
    evaluator.open(Switches(), None)
    return run_trial(evaluator, 7, PROPOSAL).judged(SCORE)


def test_a_trial_that_goes_well_has_plain_figures(tmp_path):
    done = trial(tmp_path, "")
    assert (done.number, done.architecture, done.status, done.reason) == (7, ARCHITECTURE, "done", "")
    assert 0.5 <= done.score < 0.51
    assert type(done.score) is float
    assert done.metrics == {"score": done.score, "n_on": 2.0}
    assert type(done.metrics["n_on"]) is float
    assert done.cost == 2.0


@pytest.mark.parametrize(
    ("accident", "status", "reason"),
    [
        ("wrong", "failed", "ValueError: a wrong network (own_search.py, line "),
        ("memory", "out of memory", "MemoryError (own_search.py, line "),
        ("gpu memory", "out of memory", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB (own_search.py"),
        ("cpu memory", "out of memory", "RuntimeError: "),
        ("nan", "diverged", "score is nan"),
    ],
)
def test_what_goes_wrong_is_the_status_of_the_trial(tmp_path, accident, status, reason):
    ended = trial(tmp_path, accident)
    assert (ended.number, ended.architecture, ended.score, ended.done) == (7, ARCHITECTURE, -float("inf"), False)
    assert ended.status == status
    assert ended.reason.startswith(reason)
    assert "\n" not in ended.reason
    assert 0 < ended.cost <= 2


@pytest.mark.parametrize("score", [float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_is_no_score(tmp_path, score):
    class Infinite(Scripted):
        def __call__(self, proposal, number):
            return Evaluation({"score": score})

    evaluator = Infinite(tmp_path)
    evaluator.open(Switches(), None)
    assert run_trial(evaluator, 0, PROPOSAL).judged(SCORE).status == "diverged"


class Does(Evaluator):
    """Does, and returns, what it is given."""

    def __init__(self, does):
        self.does = does

    def __call__(self, proposal, number):
        return self.does()


def trial_of(does, **settings):
    return run_trial(Does(does), 7, PROPOSAL, **settings)


def raises(error):
    raise error


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        (None, "an Evaluation or a number expected, got None"),
        (0.5, "a number alone, 0.5, and no objective that names it; return Evaluation({'NAME': ...})"),
        (Evaluation({"score": "0.5"}), "metrics.score: a number expected, got '0.5'"),
        (Evaluation({"score": None}), "metrics.score: a number expected, got None"),
        (Evaluation({"score": torch.zeros(2)}), "metrics.score: a number expected, got tensor([0., 0.])"),
        (Evaluation({"val/loss": "low"}), "metrics.val/loss: a number expected, got 'low'"),
        (Evaluation({"val/loss": [1.0]}), "metrics.val/loss: a number expected, got [1.0]"),
        (Evaluation({3: 1.0}), "metrics: names expected, got 3"),
        (Evaluation([("a", 1.0)]), "metrics: numbers by name expected, got [('a', 1.0)]"),
        (Evaluation({}, math.nan), "cost: seconds from 0 expected, got nan"),
        (Evaluation({}, math.inf), "cost: seconds from 0 expected, got inf"),
        (Evaluation({}, -0.5), "cost: seconds from 0 expected, got -0.5"),
        (Evaluation({"score": math.nan}, math.nan), "cost: seconds from 0 expected, got nan"),
        (Evaluation({"score": 10**400}), "metrics.score: a number expected, got 1000"),
    ],
)
def test_what_is_no_evaluation_is_a_failed_trial_with_its_reason(returned, reason):
    ended = trial_of(lambda: returned)
    assert (ended.status, ended.score, ended.metrics) == ("failed", -math.inf, {})
    assert ended.reason.startswith(f"Does returned no evaluation that can be used: {reason}")
    assert 0 <= ended.cost < 1


def test_numbers_of_other_libraries_are_numbers():
    figures = {"score": np.float32(0.5), "a": torch.tensor(2), "b": np.int64(3)}
    ended = trial_of(lambda: Evaluation(figures, np.float64(1.5)))
    assert ended == Trial(7, ARCHITECTURE, (), {"score": 0.5, "a": 2.0, "b": 3.0}, 1.5)
    assert {type(value) for value in (*ended.metrics.values(), ended.cost)} == {float}


def test_an_infinite_metric_is_as_it_will_be_on_file():
    ended = trial_of(lambda: Evaluation({"perplexity": math.inf, "other": math.nan}))
    assert ended.done
    assert all(map(math.isnan, ended.metrics.values()))


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (FileNotFoundError(os.fsdecode(b"bild\xff.png")), "FileNotFoundError: bild\\udcff.png (test_trial.py, line "),
        (ValueError("a\x1b[31m red\n one"), "ValueError: a?[31m red one (test_trial.py, line "),
        (Unprintable(), "Unprintable (test_trial.py, line "),
        (SystemExit(3), "SystemExit: 3 (test_trial.py, line "),
        (GeneratorExit(), "GeneratorExit (test_trial.py, line "),
    ],
)
def test_a_reason_can_be_written_shown_and_read(error, reason, tmp_path):
    ended = trial_of(lambda: raises(error))
    assert ended.status == "failed"
    assert ended.reason.startswith(reason)
    ended.reason.encode()
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path, Switches(), {"objectives": ["max score"]})
    log.begin()
    log.append(ended, told=0)
    log.close()
    assert read_trials(path, Switches()) == [ended]


def leaves_on_ctrl_c():
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        sys.exit(1)  # as Lightning's trainer does


@pytest.mark.parametrize(
    ("does", "expected"),
    [
        (lambda: raises(KeyboardInterrupt), KeyboardInterrupt),
        (leaves_on_ctrl_c, KeyboardInterrupt),
        (lambda: raises(SIGTERMException()), SIGTERMException),
    ],
)
def test_an_interruption_is_no_failure_of_the_architecture(does, expected):
    with pytest.raises(expected):
        trial_of(does)


# -- time ------------------------------------------------------------------------------------------------------------

MINUTES = 0.2 / 60


def busy():
    while True:
        pass


def deadlock():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


@pytest.mark.parametrize("does", [busy, lambda: time.sleep(100), deadlock])
def test_a_trial_that_does_not_end_is_ended(does):
    ended = trial_of(does, minutes=MINUTES)
    assert (ended.status, ended.reason) == ("failed", "it took longer than the executor's max_minutes, 0.00333333")
    assert 0.2 <= ended.cost < 5
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL


def test_a_trial_that_caught_the_end_of_its_time_is_told_again(monkeypatch):
    monkeypatch.setattr("lightning_nas.executors.trial.SECONDS_TO_HEED", 0.05)

    def half_deaf():
        try:
            time.sleep(100)
        except BaseException:
            time.sleep(100)

    assert trial_of(half_deaf, minutes=MINUTES).reason.startswith("it took longer")


def test_a_trial_within_its_time_is_as_without(tmp_path):
    assert trial_of(lambda: Evaluation({"score": 1.0}), minutes=1.0) == trial_of(lambda: Evaluation({"score": 1.0}))
    ended = trial_of(lambda: raises(ValueError("wrong")), minutes=1.0)
    assert ended.reason.startswith("ValueError: wrong")
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_limit_needs_the_main_thread(tmp_path):
    caught = []

    def elsewhere():
        try:
            Serial(max_minutes=1).open(Scripted(tmp_path), Switches())
        except SettingError as error:
            caught.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert caught == ["max_minutes: only in the main thread, and not on Windows; else take Processes(1)"]
