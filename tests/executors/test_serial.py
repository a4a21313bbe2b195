"""One after the other."""

import os
import signal
import threading

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.executors import Serial
from lightning_nas.executors.trial import run_trial
from lightning_nas.strategies import Proposal
from tests.helpers.own_search import Scripted, Switches, evaluations


def test_trials_run_in_the_order_submitted_when_they_are_asked_for(tmp_path):
    evaluator, executor = Scripted(tmp_path), Serial()
    executor.open(evaluator, Switches(), seed=3)
    architectures = {5: (0, 1, 2, 0), 2: (1, 1, 1, 1), 9: (2, 0, 0, 1)}
    for number, architecture in architectures.items():
        executor.submit(number, Proposal(architecture))
    assert evaluations(tmp_path) == {}
    trials = [executor.next() for _ in architectures]
    assert trials == [run_trial(evaluator, number, Proposal(a)) for number, a in architectures.items()]
    executor.close()


def test_an_evaluator_that_refuses_the_space_is_heard_at_once(tmp_path):
    with pytest.raises(SettingError, match="not this space"):
        Serial().open(Scripted(tmp_path, refuses=True), Switches())


def test_a_trial_that_hangs_is_ended_and_the_next_is_run(tmp_path):
    executor = Serial(max_minutes=0.3 / 60)
    executor.open(Scripted(tmp_path, seconds=0.2), Switches())
    for number in (0, 1, 2):  # that of the odd number takes twice as long
        executor.submit(number, Proposal((0, 1, 2, 0)))
    assert [executor.next().status for _ in range(3)] == ["done", "failed", "done"]


@pytest.mark.parametrize("minutes", [0, -1, float("nan"), float("inf")])
def test_a_wrong_limit_is_refused(minutes):
    with pytest.raises(SettingError, match=f"max_minutes: above 0, or null, got {minutes}"):
        Serial(max_minutes=minutes)


def test_ctrl_c_ends_a_trial_that_hangs(tmp_path):
    executor = Serial(max_minutes=1)
    executor.open(Scripted(tmp_path, seconds=60.0), Switches())
    executor.submit(0, Proposal((0, 1, 2, 0)))
    threading.Timer(0.2, os.kill, [os.getpid(), signal.SIGINT]).start()
    with pytest.raises(KeyboardInterrupt):
        executor.next()
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
