"""What becomes of a trial, and what a worker is built from."""

import pickle

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.base import Blueprint, Refusal, run_trial
from tests.helpers.own_search import Scripted, Switches

ARCHITECTURE = (1, 1, 0, 2)


def trial(folder, accident):
    evaluator = Scripted(folder, {"7": accident})
    evaluator.open(Switches(), None)
    return run_trial(evaluator, 7, ARCHITECTURE)


def test_a_trial_that_goes_well_has_plain_figures(tmp_path):
    done = trial(tmp_path, "")
    assert (done.number, done.architecture, done.status, done.reason) == (7, ARCHITECTURE, "done", "")
    assert 0.5 <= done.score < 0.51
    assert type(done.score) is float
    assert done.metrics == {"n_on": 2.0}
    assert type(done.metrics["n_on"]) is float
    assert done.cost == 2.0


@pytest.mark.parametrize(
    ("accident", "status", "reason"),
    [
        ("wrong", "failed", "ValueError: a wrong network (own_search.py, line "),
        ("memory", "out of memory", "MemoryError (own_search.py, line "),
        ("gpu memory", "out of memory", "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB (own_search.py"),
        ("cpu memory", "out of memory", "RuntimeError: "),
        ("nan", "diverged", "the score is nan"),
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
        def __call__(self, architecture, number):
            evaluation = super().__call__(architecture, number)
            return type(evaluation)(score)

    evaluator = Infinite(tmp_path)
    evaluator.open(Switches(), None)
    assert run_trial(evaluator, 0, ARCHITECTURE).status == "diverged"


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
def test_an_interruption_is_no_failure_of_the_architecture(interruption):
    class Interrupted(Evaluator):
        def __call__(self, architecture, number):
            raise interruption

    with pytest.raises(interruption):
        run_trial(Interrupted(), 0, ARCHITECTURE)


def test_a_blueprint_travels_and_opens_an_evaluator_of_its_own(tmp_path):
    restricted = Switches(5).restrict({"switch_1": ["on", "auto"]})
    blueprint = Blueprint.of(Scripted(tmp_path, {"3": "nan"}), restricted, None, seed=4)
    evaluator = pickle.loads(pickle.dumps(blueprint)).open()
    assert (evaluator.folder, evaluator.script, evaluator.seed) == (tmp_path, {"3": "nan"}, 4)
    assert evaluator.space.choices == restricted.choices


def test_an_evaluator_that_refuses_is_a_refusal_in_its_own_words(tmp_path):
    refusal = Blueprint.of(Scripted(tmp_path, refuses=True), Switches(), None, 0).open()
    assert refusal == Refusal("evaluator: not this space", is_setting=True)
    assert isinstance(refusal.error(), SettingError)


def test_a_class_that_no_worker_can_import_is_refused(tmp_path):
    class Local(Scripted):
        pass

    with pytest.raises(SettingError, match=r"executor: workers import the classes that they need, but .*Local"):
        Blueprint.of(Local(tmp_path), Switches(), None, 0)


def test_what_was_not_made_from_plain_values_is_refused():
    class Function(Evaluator):
        def __init__(self, function):
            self.function = function

        def __call__(self, architecture, number):
            raise AssertionError("nobody asks")

    with pytest.raises(SettingError, match=r"but function: a function cannot be stored in a checkpoint.*Serial"):
        Blueprint.of(Function(test_an_interruption_is_no_failure_of_the_architecture), Switches(), None, 0)
