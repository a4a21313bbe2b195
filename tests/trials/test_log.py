"""The file of a search: what is on it, what a crash leaves of it, and what is refused."""

import dataclasses
import json
import math
import os
import re
import signal
import subprocess
import sys

import pytest

from lightning_nas.errors import SettingError
from lightning_nas.strategies.base import Trial
from lightning_nas.trials.log import TrialLog, read_trials
from tests.helpers.own_search import Switches

SPACE = Switches(2)
SEARCH = {
    "objectives": ["max val/accuracy"],
    "seed": 3,
    "evaluator": {"class_path": "own.Evaluator", "init_args": {"epochs": 5}},
}
DONE = Trial(0, (1, 0), (0.5,), {"val/accuracy": 0.5}, 1.5)
FAILED = Trial(2, (2, 2), (), {"val/loss": math.nan}, 0.5, "diverged", "val/loss is nan")
LINE = {
    "number": 0,
    "told": 0,
    "asked": 1,
    "choices": {"switch_0": "on", "switch_1": "off"},
    "fidelity": None,
    "continues": None,
    "metrics": {"val/accuracy": 0.5},
    "cost": 1.5,
    "status": "done",
    "reason": "",
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "runs" / "trials.jsonl"
    write(path, (DONE, 0), (FAILED, 1))
    return path


def write(path, *trials, before=None):
    log = TrialLog(path, SPACE, SEARCH, before)
    log.begin()
    for trial, told in trials:
        log.append(trial, told)
    log.close()


def entries(path, search=SEARCH):
    log = TrialLog(path, SPACE, search)
    log.begin()
    log.close()
    return log.entries


def test_what_is_written_is_read(path):
    first, second = entries(path)
    assert (first.trial, first.told, first.line) == (DONE, 0, 2)
    assert repr(second.trial) == repr(FAILED)  # which has a metric that is not a number
    assert (second.told, second.line) == (1, 3)
    assert repr(read_trials(path, SPACE)) == repr([DONE, FAILED])


def test_lines_are_json_with_options_by_name(path):
    lines = [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]
    assert lines[0] == {"format": "lightning_nas/trials/2", **SEARCH}
    assert lines[1] == LINE
    assert lines[2]["metrics"] == {"val/loss": None}


@pytest.mark.parametrize("cut", [1, 20])
def test_a_last_line_that_was_cut_off_is_dropped_with_a_message(path, cut, capsys):
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert [entry.trial for entry in entries(path)] == [DONE]
    assert capsys.readouterr().err == f"{path}: the last line was cut off; the search continues without that trial\n"
    assert path.read_bytes() == b"".join(whole.splitlines(keepends=True)[:2])
    write(path, (FAILED, 1))
    assert path.read_bytes() == whole


def test_a_file_that_was_hardly_begun_is_begun_anew(path):
    path.write_bytes(path.read_bytes()[:7])
    assert entries(path) == []
    assert json.loads(path.read_text())["seed"] == 3


def test_an_unfinished_line_is_not_read_while_the_search_runs(path):
    path.write_bytes(path.read_bytes()[:-5])
    assert read_trials(path, SPACE) == [DONE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"number": -1}, "number: expected a whole number from 0"),
        ({"number": True}, "number: expected a whole number from 0"),
        ({"number": 2}, "number: trial 2 is there already"),
        ({"told": 3}, "told: expected a whole number up to 2"),
        ({"asked": -1}, "asked: expected a whole number from 0"),
        ({"choices": ["on", "off"]}, "choices: expected option names by choice name"),
        ({"choices": {"switch_0": 1, "switch_1": "off"}}, "choices: expected option names by choice name"),
        ({"choices": {"switch_0": "on"}}, "choices.switch_1: missing"),
        ({"choices": {"switch_0": "on", "switch_1": "up"}}, "choices.switch_1: no option 'up'; it has off, on, auto"),
        ({"fidelity": 0}, "fidelity: expected a whole number from 1, or null"),
        ({"fidelity": "all"}, "fidelity: expected a whole number from 1, or null"),
        ({"continues": 1}, "continues: expected the number of an earlier trial, or null"),
        ({"continues": -1}, "continues: expected the number of an earlier trial, or null"),
        ({"metrics": {}}, "objectives: no metric is called 'val/accuracy'; an evaluation has no metrics"),
        ({"metrics": {"val/accuracy": None}}, "status: expected diverged, since val/accuracy is nan"),
        ({"status": "lost"}, "status: expected done or diverged or out of memory or failed"),
        ({"status": []}, "status: expected done or diverged or out of memory or failed"),
        ({"metrics": {"a": "0.5"}}, "metrics: expected numbers by name"),
        ({"cost": -1}, "cost: expected seconds"),
        ({"cost": 10**400}, "cost: expected seconds"),
        ({"reason": None}, "reason: expected words"),
        ({"rank\x1b": 1}, "rank?: unknown field; there are number, told"),
        (None, "the line is not an object"),
    ],
)
def test_damage_is_refused_by_file_line_and_field(path, change, message):
    line = [] if change is None else LINE | {"number": 1} | change
    with open(path, "a") as file:
        file.write(json.dumps(line) + "\n" + json.dumps(LINE) + "\n")
    for read in (entries, lambda path: read_trials(path, SPACE)):
        with pytest.raises(SettingError, match=f"^{re.escape(f'{path}: line 4: {message}')}"):
            read(path)


@pytest.mark.parametrize("field", LINE)
def test_a_missing_field_is_refused(path, field):
    with open(path, "a") as file:
        file.write(json.dumps({name: value for name, value in LINE.items() if name != field}) + "\n")
    with pytest.raises(SettingError, match=f"line 4: {field}: missing"):
        entries(path)


@pytest.mark.parametrize("content", [b"\n", b"no JSON\n", b"\xff\xfe\n", b"[" * 100_000 + b"\n", b'{"format": 1}\n'])
def test_a_file_that_is_none_is_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(SettingError, match=f"{path}: line 1: "):
        entries(path)


def test_a_file_of_another_search_is_refused_by_what_differs(path):
    other = SEARCH | {"evaluator": {"class_path": "own.Evaluator", "init_args": {"epochs": 10}}}
    with pytest.raises(SettingError, match=r"of another search, evaluator\.epochs: 5 on file, 10 now; continue with"):
        entries(path, other)
    with pytest.raises(SettingError, match=r"of another search, seed: 3 on file, None now"):
        entries(path, {name: value for name, value in SEARCH.items() if name != "seed"})


def test_a_search_has_its_file_for_itself(path):
    hold = (
        "import sys, pathlib; from lightning_nas.trials.locked_file import LockedFile; "
        "f = LockedFile(pathlib.Path(sys.argv[1])); print(flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", hold, str(path)], stdin=-1, stdout=-1, text=True) as other:
        other.stdout.readline()
        with pytest.raises(SettingError, match=f"{path}: another search is writing to it"):
            entries(path)
        assert len(read_trials(path, SPACE)) == 2
        other.communicate("")
    assert len(entries(path)) == 2


LOOK = """
import sys
from pathlib import Path
from tests.helpers.own_search import Switches
from lightning_nas.trials.log import TrialLog
try:
    TrialLog(Path(sys.argv[1]), Switches(2), {"objectives": ["max score"]}).begin()
except Exception as error:
    print(error)
"""


def test_reading_a_file_or_opening_it_again_here_lets_no_other_process_in(path):
    """As a notebook does that looks at its own search. Locks of the kind that POSIX has would be gone."""
    log = TrialLog(path, SPACE, SEARCH)
    log.begin()
    read_trials(path, SPACE)
    path.read_bytes()
    with pytest.raises(SettingError, match="another search is writing to it"):
        TrialLog(path, SPACE, SEARCH)
    other = subprocess.run([sys.executable, "-c", LOOK, str(path)], capture_output=True, text=True, check=True)
    assert other.stdout.startswith(f"{path}: another search is writing to it")
    log.append(dataclasses.replace(DONE, number=1), told=2)
    log.close()
    assert len(entries(path)) == 3


FORK = """
import os, signal, sys, time
from pathlib import Path
from lightning_nas.trials.locked_file import LockedFile
file = LockedFile(Path(sys.argv[1]))
ours, theirs = os.pipe()
child = os.fork()
if child == 0:  # as a worker of a data loader, which lives a while longer
    os.write(theirs, b"x")
    time.sleep(60)
os.read(ours, 1)
print(child, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_that_was_forked_does_not_keep_the_file(path, tmp_path):
    with open(tmp_path / "out", "w+") as out:
        subprocess.run([sys.executable, "-c", FORK, str(path)], stdout=out, check=False)
        out.seek(0)
        child = int(out.read())
    os.kill(child, 0)  # still there
    assert len(entries(path)) == 2
    os.kill(child, signal.SIGKILL)


def test_a_search_continues_in_another_folder_with_a_copy(path, tmp_path):
    other = tmp_path / "other" / "trials.jsonl"
    before = path.read_bytes()
    log = TrialLog(other, SPACE, SEARCH, before=path)
    assert not other.parent.exists()  # nothing is made before all is checked
    log.begin()
    log.append(dataclasses.replace(DONE, number=1), told=2)
    log.close()
    assert other.read_bytes().startswith(before)
    assert [entry.trial.number for entry in entries(other)] == [0, 2, 1]
    assert path.read_bytes() == before
    with pytest.raises(SettingError, match=f"{other}: holds other trials than {path}; continue in another folder"):
        write(other, before=path)


def test_a_file_that_has_changed_since_it_was_read_is_left_alone(path):
    log = TrialLog(path, SPACE, SEARCH)
    write(path, (dataclasses.replace(DONE, number=1), 2))
    with pytest.raises(SettingError, match="another search has written to it meanwhile"):
        log.begin()
    log.close()
    assert len(entries(path)) == 3


def test_a_trial_that_failed_may_be_there_again(path):
    mended = dataclasses.replace(FAILED, status="done", metrics={"val/accuracy": 0.5}, values=(0.5,), reason="")
    write(path, (mended, 2))
    assert [trial.status for trial in read_trials(path, SPACE)] == ["done", "done"]
    assert len(entries(path)) == 3
    write(path, (FAILED, 3))
    with pytest.raises(SettingError, match="line 5: number: trial 2 is there already; put the file back as it was, or"):
        entries(path)


def test_a_result_that_was_taken_over_says_of_which_trial(path):
    same = dataclasses.replace(DONE, number=1, cost=0.0, same_as=0)
    write(path, (same, 2))
    assert read_trials(path, SPACE)[-1] == same
    with open(path, "a") as file:
        file.write(json.dumps(LINE | {"number": 3, "same_as": -1}) + "\n")
    with pytest.raises(SettingError, match="line 5: same_as: expected the number of a trial that is done"):
        entries(path)


@pytest.mark.parametrize(
    ("trial", "message"),
    [
        (dataclasses.replace(DONE, number=1, cost=math.nan), "Out of range float values are not JSON compliant"),
        (dataclasses.replace(DONE, number=1, cost=-1.0), "cost: expected seconds"),
        (dataclasses.replace(DONE, number=1, status="lost"), "status: expected"),
        (dataclasses.replace(DONE, number=1, reason=None), "reason: expected words"),
    ],
)
def test_nothing_is_written_that_could_not_be_read(path, trial, message):
    """What run_trial refuses, from an executor of a user's own."""
    before = path.read_bytes()
    with pytest.raises(SettingError, match=f"executor: its trial 1 cannot be written: ({message})"):
        write(path, (trial, 2))
    assert path.read_bytes() == before


def test_half_a_character_is_written_as_json_has_it(path):
    odd = dataclasses.replace(FAILED, number=3, reason=os.fsdecode(b"bild\xff.png"))
    write(path, (odd, 2))
    assert b"bild\\udcff.png" in path.read_bytes()
    assert read_trials(path, SPACE)[-1].reason == odd.reason


def test_a_folder_that_cannot_be_written_to_is_said(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(SettingError, match="cannot be written"):
        TrialLog(tmp_path / "runs" / "trials.jsonl", SPACE, SEARCH).begin()


def test_a_full_disk_is_said(path, monkeypatch):
    log = TrialLog(path, SPACE, SEARCH)
    log.begin()
    with open("/dev/full", "wb", buffering=0) as full:
        monkeypatch.setattr(log._file, "_file", full)
        with pytest.raises(SettingError, match=r"trials.jsonl: cannot be written \(No space left on device\)"):
            log.append(DONE, told=2)
