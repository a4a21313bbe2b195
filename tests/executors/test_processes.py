"""Worker processes: the same trials as in one process, whatever happens to them, and nothing left behind."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest
import torch

from lightning_nas.errors import SettingError
from lightning_nas.executors import Processes, Serial, processes
from lightning_nas.strategies import Proposal
from lightning_nas.trials import TrialLoop
from lightning_nas.trials.log import read_trials
from tests.helpers.own_search import Scripted, Sensitive, Switches, evaluations, results

SCRIPT = {"1": "kill once", "2": "wrong", "3": "kill", "4": "nan", "5": "memory"}


def ended(executor, evaluator, n_trials=8):
    """All trials, by number."""
    space, rng = Switches(), Random(0)
    executor.open(evaluator, space, seed=5)
    try:
        for number in range(n_trials):
            executor.submit(number, Proposal(space.random(rng)))
        trials = [executor.next().judged([evaluator.objective]) for _ in range(n_trials)]
    finally:
        executor.close()
    return sorted(trials, key=lambda trial: trial.number)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def trials(folder):
    return ended(Processes(2, retries=1, threads=1), Scripted(folder, SCRIPT, seconds=0.01))


def test_trials_are_those_of_one_process(trials, tmp_path):
    script = {number: accident for number, accident in SCRIPT.items() if "kill" not in accident}
    serial = ended(Serial(), Scripted(tmp_path, script))
    assert repr(results(trials[:3] + trials[4:])) == repr(results(serial[:3] + serial[4:]))
    assert [trial.status for trial in trials[4:]] == ["diverged", "out of memory", "done", "done"]


def test_the_trial_of_a_killed_worker_is_run_again(trials, folder):
    assert evaluations(folder) == {0: 1, 1: 2, 2: 1, 3: 2, 4: 1, 5: 1, 6: 1, 7: 1}
    assert trials[1].done


def test_a_trial_that_kills_its_workers_has_failed(trials):
    assert (trials[3].status, trials[3].score) == ("failed", -float("inf"))
    assert trials[3].reason == "its worker was killed by signal 9, in each of 2 attempts"
    assert 0 < trials[3].cost < 60  # a budget counts it


def test_a_trial_that_takes_too_long_has_failed_and_others_have_not(tmp_path):
    """Those of odd numbers take twice as long."""
    four = ended(Processes(2, threads=1, max_minutes=1.5 / 60), Scripted(tmp_path, seconds=1.0), n_trials=4)
    assert [trial.status for trial in four] == ["done", "failed", "done", "failed"]
    assert four[1].reason == "it took longer than the executor's max_minutes, 0.025"
    assert 1.5 <= four[1].cost < 10
    assert evaluations(tmp_path) == {0: 1, 1: 1, 2: 1, 3: 1}


def test_trials_run_in_several_processes_of_one_thread_each(trials, folder):
    """Which start others, such as workers of data loaders, as this process would."""
    workers = {tuple(path.read_text().split()) for path in folder.glob("*-*")}
    assert len(workers) in (4, 5)  # two, and one more for each that was killed while there was something to do
    assert {worker[1:] for worker in workers} == {("1", multiprocessing.get_start_method())}
    assert str(os.getpid()) not in {pid for pid, *_ in workers}


def test_what_a_worker_refuses_is_the_users_to_read(tmp_path):
    executor = Processes(1)
    executor.open(Scripted(tmp_path, refuses=True), Switches())
    executor.submit(0, Proposal((0, 0, 0, 0)))
    assert executor.next(timeout=0.01) is None  # the worker still imports
    with pytest.raises(SettingError, match=r"^evaluator: not this space$"):
        executor.next()
    executor.close()
    executor.close()


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, ["0", "1", "2", "0"]), ("3,1", ["3", "1", "3", "1"]), ("GPU-a", ["GPU-a"] * 4)]
)
def test_workers_take_turns_at_the_gpus_that_there_are(monkeypatch, visible, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [processes._gpu(place) for place in range(4)] == expected


@pytest.mark.parametrize("settings", [{"n_workers": 0}, {"retries": -1}, {"threads": 0}, {"max_minutes": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))}: "):
        Processes(**settings)


SEARCH = """
import sys
from tests.helpers.own_search import Scripted, Sensitive, Switches
from lightning_nas.executors import Processes
from lightning_nas.trials import TrialLoop


class Own(Scripted):
    pass


if __name__ == "__main__":
    folder, evaluator = sys.argv[1], globals()[sys.argv[2]]
    evaluator = evaluator(folder, seconds=0.05)
    TrialLoop(Switches(), Sensitive(), evaluator, Processes(2), folder, n_trials=16, round_size=2, progress=False).run()
"""


def _heeds_ctrl_c():
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job ignores it, and hands that on


def start(folder, evaluator):
    """The search in a process of its own, as a user's script."""
    script = folder / "search.py"
    script.write_text(SEARCH)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3]))}
    command = [sys.executable, str(script), str(folder), evaluator]
    return subprocess.Popen(
        command, env=environment, start_new_session=True, preexec_fn=_heeds_ctrl_c, stderr=subprocess.PIPE, text=True
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def n_lines(folder):
    path = folder / "trials.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def pids(folder):
    return {int(path.read_text().split()[0]) for path in folder.glob("*-*")}


def test_a_search_that_was_killed_leaves_no_process_and_runs_no_finished_trial_again(tmp_path):
    search = start(tmp_path, "Scripted")
    wait_for(lambda: n_lines(tmp_path) >= 6)
    search.kill()
    search.communicate()
    wait_for(lambda: not any(map(alive, pids(tmp_path))), seconds=10)
    kept = n_lines(tmp_path) - 1
    assert 5 <= kept < 16

    settings = {"n_trials": 16, "round_size": 2, "progress": False}
    resumed = TrialLoop(Switches(), Sensitive(), Scripted(tmp_path, seconds=0.05), folder=tmp_path, **settings)
    resumed.run()
    (tmp_path / "whole").mkdir()
    uninterrupted = TrialLoop(Switches(), Sensitive(), Scripted(tmp_path / "whole"), **settings)
    uninterrupted.run()
    assert results(resumed.history) == results(uninterrupted.history)
    begun = evaluations(tmp_path)
    on_file = read_trials(tmp_path / "trials.jsonl", Switches())
    assert all(begun[trial.number] == 1 for trial in on_file[:kept])
    assert sum(begun.values()) <= 16 + 2


def test_an_interrupted_search_keeps_its_trials_and_stops_its_workers(tmp_path):
    search = start(tmp_path, "Own")
    wait_for(lambda: n_lines(tmp_path) >= 4)
    os.killpg(search.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    errors = search.communicate(timeout=60)[1]
    assert search.returncode != 0
    assert errors.count("Traceback") == 1  # the search's own: none of a worker
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not any(map(alive, pids(tmp_path)))
    assert len(read_trials(tmp_path / "trials.jsonl", Switches())) == n_lines(tmp_path) - 1 >= 3
