"""One after the other."""

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.executors import Serial
from lightning_nas.executors.base import run_trial
from tests.helpers.own_search import Scripted, Switches, evaluations


def test_trials_run_in_the_order_submitted_when_they_are_asked_for(tmp_path):
    evaluator, executor = Scripted(tmp_path), Serial()
    executor.open(evaluator, Switches(), seed=3)
    architectures = {5: (0, 1, 2, 0), 2: (1, 1, 1, 1), 9: (2, 0, 0, 1)}
    for number, architecture in architectures.items():
        executor.submit(number, architecture)
    assert evaluations(tmp_path) == {}
    trials = [executor.next() for _ in architectures]
    assert trials == [run_trial(evaluator, *submitted) for submitted in architectures.items()]
    executor.close()


def test_an_evaluator_that_refuses_the_space_is_heard_at_once(tmp_path):
    with pytest.raises(SettingError, match="not this space"):
        Serial().open(Scripted(tmp_path, refuses=True), Switches())
