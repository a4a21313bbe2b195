"""The study of strategies: when a search ends, what is counted, and the arithmetic of table and curves."""

import csv
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from scipy.stats import ttest_rel

from lightning_nas.cli.main import main
from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import Evaluation, Evaluator, TabularBenchmark
from lightning_nas.objectives import Objective
from lightning_nas.pictures.curves import Curve
from lightning_nas.spaces import Choice, NASBench201, Space
from lightning_nas.strategies import AgingEvolution, RandomSearch, Trial
from lightning_nas.studies import strategies as search_study
from lightning_nas.studies.strategies import SearchStudy, study_search
from lightning_nas.trials.anytime import Incumbent, Limit, Run, run_search


class Sum(Evaluator):
    """The score is the sum of the options; a trial costs ten seconds for each option."""

    objective = Objective("score")

    def open(self, space, data=None, seed=0, folder=None):
        self.opened = (space, data, seed)

    def __call__(self, proposal, number):
        architecture = proposal.architecture
        if sum(architecture) == 0:
            raise MemoryError("nothing is left")
        score = math.nan if architecture[0] == 3 else float(sum(architecture))
        figures = {"product": float(math.prod(architecture)), "number": float(number), "score": score}
        return Evaluation(figures, 10.0 * len(architecture))


class Never(Evaluator):
    objective = Objective("score")

    def __call__(self, proposal, number):
        raise ValueError("no such thing")


class Free(Sum):
    def __call__(self, proposal, number):
        return Evaluation({"score": 1.0})


class Steady(Sum):
    """No trial fails, whose cost would be measured."""

    def __call__(self, proposal, number):
        product = float(math.prod(proposal.architecture))
        return Evaluation({"score": float(sum(proposal.architecture)), "product": product}, 10.0)


@pytest.fixture
def space():
    return Space(Choice(f"choice {k}", ("0", "1", "2", "3"), str(k)) for k in range(3))


@pytest.fixture
def table(tmp_path):
    """Cells of NAS-Bench-201 of two operations, scored by how many are the second."""
    path = tmp_path / "table.csv"
    rows = [f"{k:06b},{k.bit_count()},{k % 7},{1 + k % 3}" for k in range(64)]
    path.write_text("\n".join(["arch,valid,test,seconds", *rows]) + "\n")
    return {"path": str(path), "guide": "valid", "report": ["test"], "cost": "seconds", "digits": "arch"}


OPERATIONS = ["skip_connect", "nor_conv_3x3"]


# -- one search ------------------------------------------------------------------------------------------------------


def test_a_search_ends_after_its_trials(space):
    run = run_search(RandomSearch(), Sum(), space, Limit(n_trials=25), seed=3)
    drawn = [proposal.architecture for proposal in RandomSearch().begin(space, 3).ask(25)]
    best, expected = -math.inf, []
    for n, architecture in enumerate(drawn, start=1):
        score = -math.inf if architecture[0] == 3 or sum(architecture) == 0 else sum(architecture)
        if score > best:
            best = score
            expected.append((n, architecture, score))
    assert [(i.n_trials, i.trial.architecture, i.trial.score) for i in run.incumbents] == expected
    assert len(expected) > 1
    assert run.n_trials == 25
    failures = sum(sum(architecture) == 0 for architecture in drawn)
    assert run.seconds == pytest.approx(30 * (25 - failures), abs=0.5)
    assert run.incumbents[-1].value(None) == best
    assert run.incumbents[-1].value("product") == math.prod(expected[-1][1])


@pytest.mark.parametrize(("budget", "n_trials"), [(89.0, 3), (90.0, 3), (91.0, 4), (1.0, 1)])
def test_a_trial_that_begins_within_the_budget_counts(budget, n_trials, space):
    run = run_search(RandomSearch(), Sum(), space.restrict({"choice 0": "1"}), Limit(budget=budget), seed=0)
    assert (run.n_trials, run.seconds) == (n_trials, 30.0 * n_trials)
    assert run_search(RandomSearch(), Sum(), space, Limit(2, budget), 0).n_trials == min(2, n_trials)


def test_a_strategy_is_told_what_failed(space):
    told = []

    class Spy(RandomSearch):
        def tell(self, trials):
            told.extend(trials)
            super().tell(trials)

    run_search(Spy(), Sum(), space, Limit(n_trials=100), seed=0)
    by_status = {trial.status: trial for trial in told}
    assert set(by_status) == {"done", "diverged", "out of memory"}
    assert by_status["diverged"].score == by_status["out of memory"].score == -math.inf


@pytest.mark.parametrize(
    ("evaluator", "limit", "message"),
    [
        (Never(), Limit(n_trials=5), "evaluator: every trial failed, the last: ValueError: no such thing"),
        (
            Never(),
            Limit(budget=1e9),
            "max_failures: 101 trials in a row failed, the last: failed, ValueError: no such thing",
        ),
        (Free(), Limit(budget=10.0), "budget: a trial of this evaluator costs nothing, so n_trials is needed"),
    ],
    ids=["all", "no end", "free"],
)
def test_a_search_without_a_result_or_an_end_says_why(evaluator, limit, message, space):
    with pytest.raises(SettingError) as caught:
        run_search(RandomSearch(), evaluator, space, limit, seed=0)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({}, "n_trials: without it a search needs a budget to end"),
        ({"n_trials": 0}, "n_trials: at least 1, or null, got 0"),
        ({"budget": 0.0}, "budget: seconds above 0, or null, got 0.0"),
    ],
)
def test_a_wrong_limit_is_named(limit, message):
    with pytest.raises(SettingError) as caught:
        Limit(**limit)
    assert str(caught.value) == message


# -- table, curves, files --------------------------------------------------------------------------------------------


def run_of(*steps, n_trials=4):
    """A run whose incumbents have these (trials, seconds, score, metric)."""
    incumbents = [Incumbent(Trial(n - 1, (0,), (score,), {"test": test}), n, s) for n, s, score, test in steps]
    return Run(incumbents, n_trials, 100.0)


FIRST = [run_of((1, 10, 1.0, 5.0), (3, 30, 2.0, 4.0)), run_of((2, 25, 1.0, 7.0))]
SECOND = [run_of((1, 12, 3.0, 8.0), n_trials=6), run_of((1, 20, 1.5, 6.0), (4, 110, 9.0, 9.0), n_trials=8)]


def test_curves_are_quartiles_from_where_every_run_has_a_value(tmp_path):
    study = SearchStudy({"first": FIRST, "second": SECOND}, Limit(n_trials=4), "test", tmp_path)
    curve = study.curves()["first"]
    assert curve.x == [2, 3, 4]
    assert curve.median == [6.0, 5.5, 5.5]
    assert curve.low == [5.5, 4.75, 4.75]
    assert curve.high == [6.5, 6.25, 6.25]
    scores = SearchStudy({"first": FIRST}, Limit(n_trials=4), None, tmp_path).curves()["first"]
    assert scores.median == [1.0, 1.5, 1.5]


def test_curves_over_seconds_end_at_the_budget(tmp_path):
    study = SearchStudy({"first": FIRST, "second": SECOND}, Limit(budget=100.0), "test", tmp_path)
    curve = study.curves()["second"]
    assert (curve.x[0], curve.x[-1]) == (20.0, 100.0)
    at = dict(zip(curve.x, curve.median, strict=True))
    assert (at[20.0], at[99.5], at[100.0]) == (7.0, 7.0, 8.5)  # what ended at 110 s counts at the end
    assert study.found == {"first": [4.0, 7.0], "second": [8.0, 9.0]}


def test_a_curve_of_many_runs_against_counting():
    runs = [[(k % 5 + 1.0, float(k)), (k % 7 + 6.0, 2.0 * k)] for k in range(20)]
    curve = Curve.of(runs, [4.0, 5.0, 9.5])
    assert curve.x == [5.0, 9.5]
    at_the_end = [2.0 * k if k % 7 + 6 <= 9.5 else float(k) for k in range(20)]
    assert curve.median[1] == statistics.median(at_the_end)


def test_the_table_is_the_arithmetic_of_the_pairs(tmp_path):
    more = [*FIRST, run_of((1, 1, 0.5, 2.0))], [*SECOND, run_of((1, 1, 4.0, 1.5))]
    text = SearchStudy(dict(zip(("first", "second"), more, strict=True)), Limit(4, 100), "test", tmp_path).describe()
    first, second = [4.0, 7.0, 2.0], [8.0, 9.0, 1.5]
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    assert lines[0][0].startswith("test of the architecture with the best score, 3 seeds, 4 trials or 100 s each")
    assert lines[2] == ["first", f"4.3333 ± {statistics.stdev(first):.4f}", "1.1667 ± 0.7638", "4.0"]
    assert lines[3] == ["second", f"6.1667 ± {statistics.stdev(second):.4f}", "5.3333 ± 3.2146", "6.0"]
    differences = statistics.stdev(a - b for a, b in zip(second, first, strict=True))
    p = ttest_rel(second, first).pvalue
    assert lines[5] == ["second", f"1.8333 ± {differences:.4f}", "higher in 67%", f"p = {p:.2g}"]


def test_a_study_writes_every_incumbent_and_a_picture(space, tmp_path):
    strategies = {"random": RandomSearch(), "evolution": AgingEvolution(population=4, sample=3)}
    study = study_search(space, Sum(), strategies, Limit(n_trials=20), 3, tmp_path / "new" / "folder", "product")
    with open(study.folder / "search.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        *("strategy", "seed", "trials", "seconds", "score", "product", "number"),
        *("choice 0", "choice 1", "choice 2"),
    ]
    assert len(rows) == sum(len(run.incumbents) for runs in study.runs.values() for run in runs)
    for name, runs in study.runs.items():
        for seed, run in enumerate(runs):
            last = [row for row in rows if (row["strategy"], row["seed"]) == (name, str(seed))][-1]
            architecture = tuple(int(last[f"choice {k}"]) for k in range(3))
            assert architecture == run.incumbents[-1].trial.architecture
            assert float(last["score"]) == sum(architecture)
            assert float(last["product"]) == math.prod(architecture) == study.found[name][seed]
            assert int(last["trials"]) == float(last["number"]) + 1
            again = run_search(strategies[name], Sum(), space, Limit(n_trials=20), seed)
            assert [i.trial for i in again.incumbents] == [i.trial for i in run.incumbents]
    picture = (study.folder / "search.svg").read_text(encoding="utf-8")
    for text in (">random<", ">evolution<", ">trials<", ">median and middle half of 3 seeds<"):
        assert text in picture
    assert sorted(path.name for path in study.folder.iterdir()) == [
        *("search.csv", "search.svg", "searches.jsonl", "settings.yaml")
    ]


def test_each_seed_opens_the_evaluator(space, tmp_path, monkeypatch):
    opened, data = [], Digits()
    monkeypatch.setattr(Sum, "open", lambda self, space, data=None, seed=0, folder=None: opened.append((data, seed)))
    study_search(space, Sum(), {"random": RandomSearch()}, Limit(n_trials=9), 2, tmp_path, data=data)
    assert opened == [(data, 0), (data, 1)]


def test_several_processes_give_the_same(table, tmp_path, monkeypatch):
    space = NASBench201(OPERATIONS)
    strategies = {"random": RandomSearch(), "evolution": AgingEvolution(population=4, sample=3)}
    arguments = (space, TabularBenchmark(**table), strategies, Limit(budget=60.0), 5)
    alone = study_search(*arguments, tmp_path / "alone", "test")
    together = study_search(*arguments, tmp_path / "together", "test", processes=2)
    assert together.runs == alone.runs
    for name in ("search.csv", "search.svg"):
        assert (together.folder / name).read_bytes() == (alone.folder / name).read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"strategies": {}}, "strategies: at least one"),
        ({"seeds": 1}, "seeds: at least 2 are needed for a spread, got 1"),
        ({"processes": 0}, "processes: at least 1, got 0"),
        ({"report": "test"}, "report: one of product, number, score, or null, got 'test'"),
    ],
)
def test_wrong_settings_are_named_and_nothing_is_written(settings, message, space, tmp_path):
    given = {"strategies": {"random": RandomSearch()}, "seeds": 2, "limit": Limit(n_trials=9)}
    with pytest.raises(SettingError) as caught:
        study_search(space, Sum(), folder=tmp_path / "study", **(given | settings))
    assert str(caught.value) == message
    assert not (tmp_path / "study").exists()


OTHER_STUDIES = {
    "strategy": (
        {"strategies": {"a": AgingEvolution(population=4, sample=2)}},
        "strategies.a.init_args.sample is 3 there and 2 here",
    ),
    "reference": (
        {"strategies": {"b": RandomSearch(), "a": AgingEvolution(population=4, sample=3)}},
        "strategies.b is not set there and {'class_path': 'lightning_nas.RandomSearch'",
    ),
    "evaluator": ({"evaluator": Free()}, "evaluator.class_path is "),
    "limit": ({"limit": Limit(n_trials=6)}, "n_trials is 5 there and 6 here"),
    "seeds": ({"seeds": 3}, "seeds is 2 there and 3 here"),
    "report": ({"report": "product"}, "report is None there and 'product' here"),
}


@pytest.mark.parametrize(("other", "said"), OTHER_STUDIES.values(), ids=OTHER_STUDIES)
def test_a_folder_takes_one_study(other, said, space, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"evaluator": Sum(), "strategies": {"a": AgingEvolution(population=4, sample=3)}, "seeds": 2}
    given = {"space": space, "limit": Limit(n_trials=5), **given}
    default = study_search(**given, folder=None).folder
    monkeypatch.setattr(search_study, "in_processes", lambda bench, jobs, n: enumerate(map(bench, jobs)))
    assert study_search(**given, folder=None, processes=2).folder == default  # the same results, however many compute
    table = default / "search.csv"
    before = table.read_bytes()
    with monkeypatch.context() as context:
        context.setattr(search_study, "run_search", lambda *_: pytest.fail("known before the first search"))
        with pytest.raises(SettingError) as caught:
            study_search(**(given | other), folder=default)
    assert str(caught.value).startswith(f"--folder: {default} holds another study: {said}")
    assert table.read_bytes() == before
    elsewhere = study_search(**(given | other), folder=None).folder
    assert elsewhere.parent == default.parent
    assert elsewhere != default


# -- the command -----------------------------------------------------------------------------------------------------


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the parser, as in Lightning's command line


@pytest.fixture
def config(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {
        "space": {"class_path": "NASBench201", "init_args": {"operations": OPERATIONS}},
        "evaluator": {"class_path": "TabularBenchmark", "init_args": table},
        "strategies": {
            "random": "RandomSearch",
            "evolution": {"class_path": "AgingEvolution", "init_args": {"population": 4, "sample": 3}},
        },
        "n_trials": 12,
        "seeds": 3,
        "report": "test",
        "folder": "study",
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(settings, sort_keys=False))
    return str(path)


def test_the_command_runs_what_the_file_says_and_flags_win(config, table, tmp_path, capsys):
    assert main(["study", "search", "--config", config, "--seeds=4"]) == 0
    said = capsys.readouterr().out
    strategies = {"random": RandomSearch(), "evolution": AgingEvolution(population=4, sample=3)}
    space = NASBench201(OPERATIONS)
    expected = study_search(
        space, TabularBenchmark(**table), strategies, Limit(n_trials=12), 4, tmp_path / "other", "test"
    )
    assert said == expected.describe().replace(str(tmp_path / "other"), "study") + "\n"
    assert (tmp_path / "study" / "search.csv").read_bytes() == (tmp_path / "other" / "search.csv").read_bytes()


@pytest.mark.parametrize(
    ("flags", "parts"),
    [
        (["--budget=-1"], ["budget: seconds above 0"]),
        (["--seeds=many"], ["seeds", "int", "many"]),
        (["--evaluator.guide=nothing"], ["table.csv, line 1: one column 'nothing' expected; there are arch, valid"]),
        (["--evaluator=Tabel"], ["evaluator", "Tabel"]),
        (["--strategies={a: Nothing}"], ["strategies", "Nothing"]),
        (["--report=loss"], ["report: one of valid, test, or null, got 'loss'"]),
    ],
)
def test_wrong_flags_give_one_line(flags, parts, config, capsys):
    assert main(["study", "search", "--config", config, *flags]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    line = error.splitlines()[-1]  # before it there may be a progress bar
    assert "error: " in line
    for part in parts:
        assert part in line


def test_the_example_of_the_module_is_a_file_that_the_parser_takes(tmp_path, table, monkeypatch, capsys):
    text = (search_study.__doc__ or "").partition("::\n")[2]
    settings = yaml.safe_load(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIGHTNING_NAS_DATA", raising=False)  # where the real table may lie
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    assert main(["study", "search", "--config=study.yaml"]) == 2
    assert "nasbench201.csv.gz: cannot be read as a table (No such file" in capsys.readouterr().err


def test_the_command_has_help(capsys):
    with pytest.raises(SystemExit):
        main(["study", "search", "--help"])
    said = capsys.readouterr().out
    for flag in ("config", "space", "evaluator", "strategies", "n_trials", "budget", "seeds", "report", "processes"):
        assert f"--{flag} " in said
    for name in ("AgingEvolution", "PolicyGradient", "RandomSearch", "TabularBenchmark", "FromScratch", "NASBench201"):
        assert f".{name}" in said


# -- a study that is interrupted -------------------------------------------------------------------------------------


def study(space, folder, **settings):
    strategies = {"random": RandomSearch(), "evolution": AgingEvolution(population=4, sample=3)}
    return study_search(space, **({"evaluator": Sum(), "strategies": strategies, "folder": folder} | settings))


def test_a_study_continues_with_the_searches_that_have_ended(space, tmp_path, monkeypatch, capsys):
    settings = {"limit": Limit(n_trials=20), "seeds": 4, "evaluator": Steady()}
    whole = study(space, tmp_path / "whole", **settings)
    ran = []

    def some(strategy, evaluator, space, limit, seed, data):
        if len(ran) == 3:
            raise KeyboardInterrupt
        ran.append((seed, type(strategy).__name__))
        return run_search(strategy, evaluator, space, limit, seed, data)

    monkeypatch.setattr(search_study, "run_search", some)
    with pytest.raises(SystemExit) as left:
        study(space, tmp_path / "part", **settings)
    assert left.value.code == 130
    said = f"Interrupted. 3 of 8 searches have ended and are kept in {tmp_path / 'part'}; the same command continues."
    assert said in capsys.readouterr().err
    file = tmp_path / "part" / "searches.jsonl"
    with open(file, "ab") as cut_off:
        cut_off.write(file.read_bytes().splitlines()[0][:50])

    monkeypatch.setattr(search_study, "run_search", lambda *given: ran.append("again") or run_search(*given))
    rest = study(space, tmp_path / "part", **settings)
    assert ran[3:] == ["again"] * 5
    assert rest.runs == whole.runs
    for name in ("search.csv", "search.svg"):
        assert (rest.folder / name).read_bytes() == (whole.folder / name).read_bytes()
    monkeypatch.setattr(search_study, "run_search", lambda *given: pytest.fail("all have ended"))
    assert study(space, tmp_path / "part", **settings).runs == whole.runs


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [lines[0], lines[1][:40], lines[2]], "line 2: JSONDecodeError, "),
        (lambda lines: [lines[0], lines[0]], "line 2: ValueError, 'no search of this study, or there already'"),
        (lambda lines: [lines[0].replace("random", "other")], "line 1: ValueError, 'no search of this study, or there"),
        (lambda lines: [lines[0].replace('"choice 0"', '"choice 7"')], "line 1: SettingError, "),
        (lambda lines: ["[]"], "line 1: TypeError, "),
    ],
)
def test_a_damaged_file_is_refused_with_a_remedy(damage, message, space, tmp_path):
    settings = {"limit": Limit(n_trials=5), "seeds": 2}
    study(space, tmp_path / "study", **settings)
    file = tmp_path / "study" / "searches.jsonl"
    file.write_text("\n".join(damage(file.read_text().splitlines())) + "\n")
    with pytest.raises(SettingError) as caught:
        study(space, tmp_path / "study", **settings)
    assert str(caught.value).startswith(f"{file}: {message}")
    assert str(caught.value).endswith("put the file back as it was, or delete the line, and its search is run again")


SLOW = """
import os, pathlib, signal, time
from lightning_nas.evaluators import Evaluation, Evaluator
from lightning_nas.objectives import Objective

class Slow(Evaluator):
    objective = Objective("sum")

    def __init__(self, folder: str, seconds: float = 0.02):
        self.folder, self.seconds = folder, seconds

    def __call__(self, proposal, number):
        folder = pathlib.Path(self.folder)
        (folder / f"pid-{os.getpid()}").touch()
        once = folder / "once"
        if number == 5 and once.exists():
            once.unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self.seconds)
        return Evaluation({"sum": float(sum(proposal.architecture))}, 1.0)
"""


def start(tmp_path):
    """A study with two processes, by the command line."""
    (tmp_path / "slow.py").write_text(SLOW)
    settings = {
        "space": {"class_path": "NASBench201", "init_args": {"operations": OPERATIONS}},
        "evaluator": {"class_path": "Slow", "init_args": {"folder": str(tmp_path)}},
        "strategies": {"random": "RandomSearch"},
        **{"n_trials": 12, "seeds": 12, "processes": 2, "folder": "study"},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    command = [sys.executable, "-m", "lightning_nas", "study", "search", "--import=slow", "--config=study.yaml"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.02)


def alive(pid):
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def n_ended(tmp_path):
    file = tmp_path / "study" / "searches.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_study_and_what_has_ended_is_kept(number, tmp_path):
    running = start(tmp_path)
    wait_for(lambda: n_ended(tmp_path) >= 3)
    if number == signal.SIGINT:
        os.killpg(running.pid, number)  # as a terminal does: the workers get it too
    else:
        running.send_signal(number)
    out, error = running.communicate(timeout=30)
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    assert len(pids) == 2
    wait_for(lambda: not any(map(alive, pids)), seconds=10)
    kept = n_ended(tmp_path)
    assert 3 <= kept < 12
    assert (out, "Traceback" in error) == ("", False)
    if number == signal.SIGINT:
        assert running.returncode == 130
        said = f"Interrupted. {kept} of 12 searches have ended and are kept in study; the same command continues."
        assert error.rstrip().endswith(said)
    before = (tmp_path / "study" / "searches.jsonl").read_bytes()
    out, error = start(tmp_path).communicate(timeout=60)
    assert "12 seeds, 12 trials each" in out, error
    assert (tmp_path / "study" / "searches.jsonl").read_bytes().startswith(before)
    assert n_ended(tmp_path) == 12


def test_a_killed_worker_costs_its_own_search_alone(tmp_path):
    (tmp_path / "once").touch()
    out, error = start(tmp_path).communicate(timeout=60)
    assert not (tmp_path / "once").exists()
    assert "12 seeds, 12 trials each" in out, error
    assert n_ended(tmp_path) == 12
    assert len(list(tmp_path.glob("pid-*"))) == 3
