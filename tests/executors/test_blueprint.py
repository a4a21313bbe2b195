"""What a worker is built from."""

import pickle

import pytest
import torch
from torch.utils.data import TensorDataset

from lightning_nas.data import OwnData
from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluator
from lightning_nas.executors.blueprint import Blueprint, Refusal
from tests.helpers.own_search import Scripted, Switches


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

    with pytest.raises(SettingError, match=r"executor: workers import the classes and operations .*Local"):
        Blueprint.of(Local(tmp_path), Switches(), None, 0)


def test_a_set_of_the_users_is_refused(tmp_path):
    data = OwnData(TensorDataset(torch.zeros(4, 1, 8, 8)))
    with pytest.raises(SettingError, match=r"^executor: .*a set of your own has not; take the executor Serial"):
        Blueprint.of(Scripted(tmp_path), Switches(), data, 0)


def test_what_was_not_made_from_plain_values_is_refused():
    class Function(Evaluator):
        def __init__(self, function):
            self.function = function

        def __call__(self, architecture, number):
            raise AssertionError("nobody asks")

    with pytest.raises(SettingError, match=r"but function: a function cannot be stored in a checkpoint.*Serial"):
        Blueprint.of(Function(test_what_was_not_made_from_plain_values_is_refused), Switches(), None, 0)
