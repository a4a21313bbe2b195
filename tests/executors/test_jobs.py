"""Jobs in worker processes: every result, whatever happens to a worker."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.executors.jobs import in_processes


def square(folder, job):
    """Some jobs have accidents: once, or always."""
    accident, number = job
    first = not (Path(folder) / str(number)).exists()
    (Path(folder) / str(number)).touch()
    if accident == "kill" or (accident == "kill once" and first):
        os.kill(os.getpid(), signal.SIGKILL)
    if accident == "setting":
        raise SettingError("report: wrong")
    if accident == "exit":
        raise SystemExit(3)
    return number**2


def results(folder, *jobs):
    return sorted(in_processes(partial(square, str(folder)), jobs, 2))


def test_a_killed_worker_costs_nothing_but_time(tmp_path):
    jobs = [("", 3), ("kill once", 4), ("", 5), ("", 6)]
    assert results(tmp_path, *jobs) == [(0, 9), (1, 16), (2, 25), (3, 36)]


@pytest.mark.parametrize(
    ("accident", "error", "message"),
    [
        ("kill", RuntimeError, r"job 0, \('kill', 2\): its worker was killed by signal 9, in each of 3 attempts"),
        ("setting", SettingError, "^report: wrong$"),
        ("exit", RuntimeError, r"job 0, \('exit', 2\), failed in its worker:\n(.*\n)*SystemExit: 3"),
    ],
)
def test_what_goes_wrong_is_said(accident, error, message, tmp_path):
    with pytest.raises(error, match=message):
        results(tmp_path, (accident, 2))


def test_what_no_worker_could_import_is_refused():
    with pytest.raises(SettingError, match="processes: 1, since workers import the classes"):
        next(in_processes(lambda job: job, [1], 2))
