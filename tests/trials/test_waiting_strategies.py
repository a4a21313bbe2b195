"""Searches by strategies that wait for results, or continue trials: with any number of workers, in any order, cut off
anywhere."""

import math

import pytest

from lightning_nas.evaluators import Evaluator
from lightning_nas.evaluators.base import Evaluation
from lightning_nas.executors import Serial
from lightning_nas.objectives import Objective
from lightning_nas.spaces import NASBench201
from lightning_nas.strategies import ASHA, NSGA2, Hyperband, SuccessiveHalving
from lightning_nas.trials import TrialLoop
from tests.trials.test_loop import Shuffling


class Growing(Evaluator):
    """An accuracy that grows with the fidelity, and a size. Some cells fail."""

    objective = Objective("accuracy")
    fidelities = range(1, 10)

    def __call__(self, proposal, number):
        architecture, fidelity, _, reached, _ = proposal
        if sum(architecture) % 7 == 6:
            raise ValueError("such cells fail")
        size = sum(option * (k + 1) for k, option in enumerate(architecture))
        accuracy = math.sin(size) + math.log(fidelity or 9) * architecture[0]
        return Evaluation({"accuracy": accuracy, "size": float(size)}, cost=float((fidelity or 9) - reached))


STRATEGIES = {
    "nsga2": lambda: NSGA2(population=7),
    "nsga2-asynchronous": lambda: NSGA2(population=7, asynchronous=True),
    "successive-halving": lambda: SuccessiveHalving(max_fidelity=9, repeats=None),
    "hyperband": lambda: Hyperband(max_fidelity=9),
    "asha": lambda: ASHA(max_fidelity=9),
}


@pytest.fixture(params=STRATEGIES.values(), ids=STRATEGIES)
def search(request):
    def make(executor, folder=None, **settings):
        settings = {"n_trials": 45, "max_failures": 40, "progress": False, "seed": 1} | settings
        objectives = ["max accuracy", "min size"]
        return TrialLoop(NASBench201(), request.param(), Growing(), executor, folder, objectives=objectives, **settings)

    return make


def compared(trials):
    """All but what a trial that failed has cost."""
    return [(t.number, t.architecture, t.fidelity, t.continues, t.values, t.status) for t in trials]


def test_one_worker_or_three_find_the_same_in_rounds(search):
    histories = []
    for executor in (Serial(), Shuffling(3), Shuffling(3, "both")):
        loop = search(executor, round_size=3)
        loop.run()
        histories.append(compared(loop.history))
    assert histories[0] == histories[1] == histories[2]
    assert len(histories[0]) == 45
    assert {trial.status for trial in loop.history} == {"done", "failed"}


@pytest.mark.parametrize("settings", [{"deterministic": False}, {"round_size": 20}], ids=["asynchronous", "rounds"])
def test_a_search_cut_off_anywhere_continues(search, settings, tmp_path):
    loop = search(Shuffling(3, "both"), tmp_path / "whole", **settings)
    loop.run()
    assert len(loop.history) == 45
    lines = (tmp_path / "whole" / "trials.jsonl").read_text().splitlines(keepends=True)
    n_before = len(lines) - 45
    for n in range(1, 45, 4):
        folder = tmp_path / str(n)
        folder.mkdir()
        (folder / "trials.jsonl").write_text("".join(lines[: n_before + n]))
        again = search(Shuffling(3, "both"), folder, **settings)
        with again.open():
            on_file = [*again.history, *again.course.ended]
            assert len(on_file) == n
            assert set(compared(on_file)) <= set(compared(loop.history))
        if n in (13, 29):
            again.run()
            assert sorted(trial.number for trial in again.history) == list(range(45))
            if "round_size" in settings:
                assert compared(again.history) == compared(loop.history)
