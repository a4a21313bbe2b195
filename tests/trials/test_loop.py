"""The search of many trials: what it asks and tells and when it ends, and that it continues where it was."""

import copy
import math
import subprocess
import sys
from collections import deque
from pathlib import Path

import pytest
import torch

from lightning_nas.controllers import PPO
from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation
from lightning_nas.executors import Executor, Processes, Ray, Serial
from lightning_nas.executors.trial import run_trial
from lightning_nas.strategies import PolicyGradient, RandomSearch
from lightning_nas.strategies.base import Strategy
from lightning_nas.testing.method import assert_same
from lightning_nas.trials import TrialLoop
from lightning_nas.trials.log import read_trials
from tests.helpers.own_search import Scripted, Sensitive, Switches, evaluations, results


class Shuffling(Executor):
    """Several trials at once in this process, which end in an order of their own: the last submitted first, say."""

    def __init__(self, n_workers=3, order="last"):
        self.n_workers, self.order = n_workers, order

    def open(self, evaluator, space, data=None, seed=0, folder=None):
        self.evaluator, self.waiting, self.n_ended = evaluator, deque(), 0
        evaluator.open(space, data, seed, folder)

    def submit(self, number, proposal):
        self.waiting.append((number, proposal))

    def next(self, timeout=None):
        self.n_ended += 1
        first = self.order == "first" or (self.order == "both" and self.n_ended % 3 == 0)
        return run_trial(self.evaluator, *(self.waiting.popleft() if first else self.waiting.pop()))


def search(folder, executor=None, accidents=None, **settings):
    settings = {"n_trials": 12, "progress": False} | settings
    strategy = settings.pop("strategy", None) or Sensitive()
    space = settings.pop("space", None) or Switches()
    return TrialLoop(space, strategy, Scripted(folder, accidents), executor, folder, **settings)


def test_a_plain_loop_gives_the_same(tmp_path):
    strategy, evaluator = Sensitive().begin(Switches(), 7), Scripted(tmp_path)
    evaluator.open(Switches(), None, 7)
    expected = []
    for number in range(12):
        (proposal,) = strategy.ask()
        expected.append(run_trial(evaluator, number, proposal).judged([evaluator.objective]))
        strategy.tell(expected[-1:])
    trials = search(tmp_path, seed=7)
    best = trials.run()
    assert trials.history == expected
    assert best == trials.best == max(expected, key=lambda trial: trial.score)
    assert trials.cost == 24.0
    assert read_trials(tmp_path / "trials.jsonl", Switches()) == expected
    assert [trial.number for trial in search(tmp_path, seed=7).open().history] == list(range(12))


def test_workers_change_nothing_if_deterministic(tmp_path):
    histories = []
    for number, executor in enumerate([Serial(), Shuffling(2), Shuffling(3, "both"), Shuffling(4)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        trials = search(folder, executor, {"5": "wrong", "8": "nan"}, round_size=4, n_trials=14)
        trials.run()
        assert [trial.number for trial in trials.history] == list(range(14))
        histories.append(repr(results(trials.history)))
    assert len(set(histories)) == 1


def test_a_round_is_asked_together_and_told_in_the_order_of_numbers(tmp_path):
    said = []

    class Spoken(Sensitive):
        def ask(self, n=1):
            said.append(f"ask {n}")
            return super().ask(n)

        def tell(self, trials):
            said.append(f"tell {', '.join(str(trial.number) for trial in trials)}")
            super().tell(trials)

    trials = search(tmp_path, Shuffling(3), strategy=Spoken(), round_size=3, n_trials=8).open()
    assert [t.number for t in trials.step()] == [0, 1, 2]
    assert not trials.done
    assert [t.number for t in trials.step()] == [3, 4, 5]
    assert [t.number for t in trials.step()] == [6, 7]
    assert trials.done
    assert trials.step() == []
    trials.close()
    assert said == ["ask 3", "tell 0, 1, 2", "ask 3", "tell 3, 4, 5", "ask 2", "tell 6, 7"]
    assert [t.number for t in read_trials(tmp_path / "trials.jsonl", Switches())] == [2, 1, 0, 5, 4, 3, 7, 6]


def test_without_rounds_each_trial_is_told_when_it_ends_and_no_worker_waits(tmp_path):
    trials = search(tmp_path, Shuffling(3, "both"), deterministic=False, n_trials=7).open()
    told = []
    while not trials.done:
        told += [trial.number for trial in trials.step()]
        if not trials.done:
            assert len(trials.executor.waiting) == min(2, 7 - len(told))
    trials.close()
    assert told == [2, 3, 0, 5, 6, 1, 4]
    assert told == [trial.number for trial in trials.history]


def test_a_strategy_that_depends_on_what_it_was_told_differs_without_rounds(tmp_path):
    (tmp_path / "other").mkdir()
    one, other = search(tmp_path), search(tmp_path / "other", Shuffling(3), deterministic=False)
    one.run()
    other.run()
    assert {t.architecture for t in one.history} != {t.architecture for t in other.history}


class Stop(Exception):
    pass


class Stopping(Shuffling):
    """Is cut off after so many trials."""

    def __init__(self, n_workers=3, order="both", after=5):
        super().__init__(n_workers, order)
        self.after = after

    def next(self, timeout=None):
        if self.n_ended == self.after:
            raise Stop
        return super().next(timeout)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("after", range(12))
def test_a_search_cut_off_anywhere_goes_on_with_all_that_has_ended(tmp_path, after, deterministic):
    settings = {"deterministic": deterministic, "round_size": 4 if deterministic else 1}
    cut_off = search(tmp_path, Stopping(after=after), {"4": "wrong"}, **settings)
    with pytest.raises(Stop):
        cut_off.run()
    kept = read_trials(tmp_path / "trials.jsonl", Switches())
    assert len(kept) == after
    begun = evaluations(tmp_path)

    cut_again = search(tmp_path, Stopping(order="last", after=2), {"4": "wrong"}, **settings)
    if after < 10:
        with pytest.raises(Stop):
            cut_again.run()
    resumed = search(tmp_path, Shuffling(2, "first"), {"4": "wrong"}, **settings)
    resumed.run()
    assert sorted(trial.number for trial in resumed.history) == list(range(12))
    on_file = read_trials(tmp_path / "trials.jsonl", Switches())
    assert repr(on_file[:after]) == repr(kept)
    assert evaluations(tmp_path) | begun == evaluations(tmp_path)
    assert set(evaluations(tmp_path).values()) == {1}
    if deterministic:
        (tmp_path / "whole").mkdir()
        whole = search(tmp_path / "whole", accidents={"4": "wrong"}, **settings)
        whole.run()
        assert results(resumed.history) == results(whole.history)
    else:
        assert repr(resumed.history) == repr(on_file)
    again = search(tmp_path, accidents={"4": "wrong"}, **settings).open()
    assert again.done
    assert repr(again.history) == repr(resumed.history)
    assert (again.best, again.cost) == (resumed.best, resumed.cost)
    assert again.strategy.told == resumed.strategy.told


def test_ppo_told_out_of_order_is_replayed_to_the_bit_also_in_the_middle_of_a_batch(tmp_path):
    def begun():
        strategy = PolicyGradient(batch_size=4, update=PPO())
        return search(tmp_path, Shuffling(3), strategy=strategy, deterministic=False, n_trials=30).open()

    def learnt(trials):
        return trials.strategy.policy.start.detach().clone(), trials.strategy.baseline.state_dict()

    states = []
    with begun() as trials:
        while not trials.done:
            assert len(trials.step()) == 1
            states.append(copy.deepcopy(learnt(trials)))
    log = tmp_path / "trials.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    assert len(states) == 30
    for n_told in (3, 10, 17, 24):
        log.write_text("".join(lines[: 1 + n_told]))
        with begun() as trials:
            assert_same(learnt(trials), states[n_told - 1])
    assert not torch.equal(states[2][0], states[-1][0])


def test_a_search_goes_on_beyond_its_end_as_if_it_had_been_longer(tmp_path):
    (tmp_path / "long").mkdir()
    search(tmp_path, round_size=4, n_trials=6).run()
    longer, long = search(tmp_path, round_size=4, n_trials=15), search(tmp_path / "long", round_size=4, n_trials=15)
    longer.run()
    long.run()
    assert results(longer.history) == results(long.history)
    assert set(evaluations(tmp_path).values()) == {1}
    shorter = search(tmp_path, round_size=4, n_trials=3).open()
    assert shorter.done
    assert len(shorter.history) == 15


def test_trials_that_the_strategy_does_not_ask_for_are_refused(tmp_path):
    search(tmp_path).run()
    path = tmp_path / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    lines[5] = lines[5].replace('"on"', '"new"').replace('"off"', '"on"').replace('"new"', '"off"')
    path.write_text("".join(lines))
    with pytest.raises(
        SettingError, match=f"{path}: line 6: the strategy does not ask for this architecture in trial 4"
    ):
        search(tmp_path).open()
    path.write_text("".join(lines[:1] + lines[2:]))
    with pytest.raises(SettingError, match="line 2: told: expected a whole number up to 0"):
        search(tmp_path).open()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 1}, "seed: 0 on file, 1 now"),
        ({"space": Switches(5)}, r"space\.n: 4 on file, 5 now"),
        ({"accidents": {"3": "nan"}}, r"evaluator\.script: None on file, {'3': 'nan'} now"),
        ({"round_size": 2}, "round_size: 1 on file, 2 now"),
        ({"deterministic": False}, "deterministic: True on file, False now"),
        (
            {"strategy": RandomSearch()},
            r"strategy\.class_path: tests\.helpers\.own_search\.Sensitive on file, .*RandomSearch now",
        ),
    ],
)
def test_the_trials_of_another_search_are_refused(tmp_path, settings, message):
    search(tmp_path).run()
    with pytest.raises(SettingError, match=f"of another search, {message}"):
        search(tmp_path, **settings).open()


def test_the_budget_is_summed_over_what_was_told(tmp_path):
    trials = search(tmp_path, n_trials=None, budget=10.5)  # each costs 2
    trials.run()
    assert len(trials.history) == 6
    assert trials.cost == 12.0
    rounds = search(None or tmp_path / "rounds", n_trials=None, budget=10.5, round_size=4)
    rounds.evaluator.folder.mkdir()
    rounds.run()
    assert len(rounds.history) == 8
    assert search(tmp_path, n_trials=None, budget=3).open().done


def test_the_budget_and_the_number_end_a_search_whichever_comes_first(tmp_path):
    trials = search(tmp_path, n_trials=4, budget=100)
    trials.run()
    assert len(trials.history) == 4


def test_a_round_that_was_cut_off_is_finished_although_the_budget_is_spent(tmp_path):
    with pytest.raises(Stop):
        search(tmp_path, Stopping(after=3, order="first"), round_size=4, n_trials=None, budget=20).run()
    less = search(tmp_path, round_size=4, n_trials=None, budget=1)
    less.run()
    assert [trial.number for trial in less.history] == [0, 1, 2, 3]


def test_failures_are_recorded_and_the_best_is_of_the_history(tmp_path):
    trials = search(tmp_path, accidents={"0": "wrong", "3": "nan", "4": "gpu memory", "11": "memory"})
    best = trials.run()
    assert [t.status for t in trials.history if not t.done] == ["failed", "diverged", "out of memory", "out of memory"]
    assert all(t.score == -math.inf and t.reason for t in trials.history if not t.done)
    assert trials.n_failed == 4
    assert best.score == max(t.score for t in trials.history)
    assert trials.strategy.told[0] == "0: -inf"


def test_failures_in_a_row_stop_the_search_with_the_reason_of_the_last(tmp_path):
    accidents = dict.fromkeys("245789", "wrong")
    settings = {"accidents": accidents, "max_failures": 2}
    message = r"max_failures: 3 trials in a row failed, the last: failed, ValueError: a wrong network \(own_search"
    trials = search(tmp_path, **settings)
    with pytest.raises(SettingError, match=message):
        trials.run()
    assert len(trials.history) == 10  # 4 and 5 were two in a row, 7 to 9 three

    mended = search(tmp_path, **settings)  # those on file do not count
    mended.run()
    assert len(mended.history) == 12


@pytest.mark.parametrize(("max_failures", "n_ended"), [(0, 1), (0.25, 4), (0.2, 3), (1, 2), (5, 6)])
def test_max_failures_is_a_number_or_a_share(tmp_path, max_failures, n_ended):
    accidents = {str(number): "wrong" for number in range(12)}
    trials = search(tmp_path, accidents=accidents, max_failures=max_failures)
    with pytest.raises(SettingError, match=f"{n_ended} trials in a row failed"):
        trials.run()
    assert len(trials.history) == n_ended


def test_a_search_without_any_success_says_so(tmp_path):
    trials = search(tmp_path, n_trials=3, accidents=dict.fromkeys("012", "nan"))
    with pytest.raises(SettingError, match="none of 3 trials succeeded, the last: diverged, score is nan"):
        trials.run()
    assert trials.best is None


def test_step_gives_up_waiting_and_goes_on(tmp_path):
    class Slow(Shuffling):
        patience = 0

        def next(self, timeout=None):
            assert timeout == 0.5
            self.patience += 1
            return None if self.patience % 2 else super().next()

    trials = search(tmp_path, Slow(2), n_trials=4, round_size=2).open()
    assert [[t.number for t in trials.step(timeout=0.5)] for _ in range(7)] == [[], [], [0, 1], [], [], [2, 3], []]
    assert trials.done


def test_a_keyboard_interrupt_keeps_what_has_ended_and_closes(tmp_path):
    class Interrupted(Scripted):
        def __call__(self, proposal, number):
            if number == 5:
                raise KeyboardInterrupt
            return super().__call__(proposal, number)

    executor = Shuffling(1)
    closed = []
    executor.close = lambda: closed.append(True)
    trials = TrialLoop(Switches(), Sensitive(), Interrupted(tmp_path), executor, tmp_path, n_trials=9, progress=False)
    with pytest.raises(KeyboardInterrupt):
        trials.run()
    assert closed == [True]
    assert len(read_trials(tmp_path / "trials.jsonl", Switches())) == 5


def test_nothing_is_written_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evaluations").mkdir()
    trials = TrialLoop(Switches(), Sensitive(), Scripted("evaluations"), n_trials=3, progress=False)
    trials.run()
    assert [path.name for path in tmp_path.iterdir()] == ["evaluations"]


@pytest.mark.parametrize("executor", [Serial(), Processes(1), Ray(1)])
def test_a_search_can_be_closed_before_it_is_open(tmp_path, executor):
    trials = search(tmp_path, executor)
    trials.close()
    trials.close()
    assert list(tmp_path.iterdir()) == []


def test_a_search_can_be_run_again(tmp_path):
    trials = TrialLoop(Switches(), Sensitive(), Scripted(tmp_path), n_trials=5, progress=False)
    assert trials.run() == trials.run()
    assert len(trials.history) == 5


def test_the_bar_shows_what_there_is_to_know(tmp_path, capsys):
    search(tmp_path, accidents={"2": "wrong"}, progress=True).run()
    shown = capsys.readouterr().err
    assert "12/12" in shown
    assert "best 0.75" in shown
    assert "1 failed" in shown
    (tmp_path / "budget").mkdir()
    search(tmp_path / "budget", n_trials=None, budget=10, progress=True).run()
    shown = capsys.readouterr().err
    assert "10/10 s" in shown
    assert "5 done" in shown


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_trials": None}, "n_trials: without it the search needs a budget"),
        ({"n_trials": 0}, "n_trials: at least 1"),
        ({"budget": 0}, "budget: seconds above 0"),
        ({"budget": math.nan}, "budget: seconds above 0"),
        ({"max_failures": -1}, "max_failures: 0 or more"),
        ({"n_trials": None, "budget": 5, "max_failures": 0.5}, "max_failures: .*no share unless n_trials"),
        ({"executor": Shuffling(3), "round_size": 2}, "round_size: at least 3, the number of workers, got 2; or set"),
        ({"deterministic": False, "round_size": 2}, "round_size: there are no rounds"),
    ],
)
def test_settings_are_checked(tmp_path, settings, message):
    with pytest.raises(SettingError, match=message):
        search(tmp_path, **settings)


def test_it_needs_no_lightning(tmp_path):
    program = f"""
import sys
sys.modules["lightning"] = sys.modules["torchmetrics"] = None
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from tests.helpers.own_search import Scripted, Sensitive, Switches
from lightning_nas.executors import Serial
from lightning_nas.trials import TrialLoop
print(TrialLoop(Switches(), Sensitive(), Scripted("."), Serial(), ".", n_trials=3).run().score)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert 0 < float(ran.stdout) < 1.01


def test_an_evaluation_can_be_a_function_of_the_users(tmp_path):
    class Mine(Scripted):
        def __call__(self, proposal, number):
            return Evaluation({"score": float(sum(proposal.architecture))})

    class Systematic(Strategy):
        def propose(self, number):
            return self.space.tables.unrank(number)

    trials = TrialLoop(Switches(2), Systematic(), Mine(tmp_path), n_trials=9, progress=False)
    assert trials.run().architecture == (2, 2)
