"""Ray: the same trials as in one process, whatever happens to a worker."""

import os
import sys
import time
from pathlib import Path
from random import Random

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.executors import Ray, Serial
from lightning_nas.strategies import Proposal
from lightning_nas.trials import TrialLoop
from tests.helpers.own_search import Scripted, Sensitive, Switches, evaluations, results

SCRIPT = {"1": "kill once", "2": "wrong", "4": "nan", "5": "memory"}


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SettingError, match=r"executor: Ray is not installed; pip install 'lightning_nas\[ray\]'"):
        Ray().open(Scripted(tmp_path), Switches())


@pytest.mark.parametrize(
    "settings", [{"n_workers": 0}, {"cpus": -1}, {"gpus": -0.5}, {"retries": -1}, {"max_minutes": -1}]
)
def test_settings_are_checked(settings):
    with pytest.raises(SettingError, match=f"{next(iter(settings))}: "):
        Ray(**settings)


@pytest.fixture(scope="module")
def ray():
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    path = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", path)  # as of a user's own modules
        ray.init(num_cpus=2, num_gpus=1, include_dashboard=False, log_to_driver=False, logging_level="error")
        yield ray
        ray.shutdown()


def test_trials_are_those_of_one_process_and_that_of_a_killed_worker_is_run_again(ray, tmp_path):
    histories = []
    for executor, script in [(Ray(2), SCRIPT), (Serial(), {k: v for k, v in SCRIPT.items() if k != "1"})]:
        folder = tmp_path / type(executor).__name__
        folder.mkdir()
        evaluator = Scripted(folder, script, seconds=0.01)
        search = TrialLoop(Switches(), Sensitive(), evaluator, executor, n_trials=8, round_size=2, progress=False)
        search.run()
        histories.append(repr(results(search.history)))
    assert histories[0] == histories[1]
    assert evaluations(tmp_path / "Ray") == {0: 1, 1: 2} | dict.fromkeys(range(2, 8), 1)
    assert ray.is_initialized()  # it was there before, and is left running


def test_fewer_workers_than_asked_for_do_all_trials_while_there_is_no_room(ray, tmp_path):
    executor, space = Ray(3, cpus=1.5), Switches()
    executor.open(Scripted(tmp_path), space)
    for number in range(4):
        executor.submit(number, Proposal(space.random(Random(number))))
    assert sorted(executor.next().number for _ in range(4)) == [0, 1, 2, 3]
    executor.close()
    pids = {path.read_text().split()[0] for path in tmp_path.glob("*-*")}
    assert len(pids) == 1


def test_a_trial_that_takes_too_long_has_failed(ray, tmp_path):
    executor = Ray(1, max_minutes=1.5 / 60)
    executor.open(Scripted(tmp_path, seconds=1.0), Switches())
    for number in (1, 2):  # the first takes two seconds
        executor.submit(number, Proposal((0, 0, 0, 0)))
    late, done = executor.next(), executor.next()
    executor.close()
    assert (late.number, late.reason) == (1, "it took longer than the executor's max_minutes, 0.025")
    assert (done.number, done.status) == (2, "done")


def test_workers_share_a_gpu(ray, tmp_path):
    executor = Ray(2, cpus=0.5, gpus=0.5)
    executor.open(Scripted(tmp_path), Switches())
    for number in range(2):
        executor.submit(number, Proposal((0, 0, 0, 0)))
    assert {executor.next().number for _ in range(2)} == {0, 1}
    end = time.monotonic() + 20
    while ray.available_resources().get("GPU", 0) and time.monotonic() < end:
        time.sleep(0.05)
    assert ray.available_resources().get("GPU", 0) == 0  # two halves
    executor.close()


def test_what_a_worker_refuses_is_the_users_to_read(ray, tmp_path):
    executor = Ray(1)
    executor.open(Scripted(tmp_path, refuses=True), Switches())
    executor.submit(0, Proposal((0, 0, 0, 0)))
    with pytest.raises(SettingError, match=r"^evaluator: not this space$"):
        executor.next()
    executor.close()
