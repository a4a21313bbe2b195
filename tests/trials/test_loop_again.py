"""Trials that are run again, and results that are used again: a search replays them as it went."""

import contextlib
import itertools
import json
import math
from random import Random

import pytest

from lightning_nas.controllers import PPO
from lightning_nas.errors import SettingError
from lightning_nas.evaluators.base import Evaluation
from lightning_nas.executors import Serial
from lightning_nas.spaces import NASBench201
from lightning_nas.strategies import AgingEvolution, PolicyGradient, RandomSearch
from lightning_nas.strategies.base import Strategy
from lightning_nas.trials import TrialLoop, patience
from lightning_nas.trials.log import read_trials
from tests.helpers.own_search import Scripted, Sensitive, Switches, evaluations, results
from tests.trials.test_loop import Shuffling, Stop, Stopping

WRONG = dict.fromkeys(("1", "4", "5"), "wrong") | {"3": "nan", "6": "memory"}


def search(folder, executor=None, accidents=None, **settings):
    settings = {"n_trials": 12, "progress": False} | settings
    evaluator = settings.pop("evaluator", None) or Scripted(folder, accidents)
    strategy, space = settings.pop("strategy", None) or Sensitive(), settings.pop("space", None) or Switches()
    loop = TrialLoop(space, strategy, evaluator, executor, folder, **settings)
    # what is mended is no setting of the search, so it must not stand in the file
    evaluator._init_args["script"] = {}
    return loop


# -- again -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("deterministic", [True, False])
def test_failed_trials_are_run_again_once_their_reason_is_mended(tmp_path, deterministic):
    settings = {"deterministic": deterministic, "round_size": 4 if deterministic else 1}
    first = search(tmp_path, Shuffling(3, "both"), WRONG, **settings)
    first.run()
    assert first.n_failed == 5
    before = (tmp_path / "trials.jsonl").read_bytes()
    plain = search(tmp_path, accidents={}, **settings).open()
    assert plain.done
    plain.close()

    mended = search(tmp_path, Shuffling(3, "both"), {"3": "nan"}, retry_failed=True, **settings)
    best = mended.run()
    assert (tmp_path / "trials.jsonl").read_bytes().startswith(before)
    begun = evaluations(tmp_path)
    assert begun == {number: 2 if number in (1, 4, 5, 6) else 1 for number in range(12)}  # what diverged would again
    assert mended.n_failed == 1
    assert [t.status for t in mended.history if not t.done] == ["diverged"]
    assert [t.number for t in mended.history] == [t.number for t in first.history]
    assert best.score == max(t.score for t in mended.history) == mended.strategy.best.score
    assert len(mended.strategy.told) == 12 + 4
    assert repr(read_trials(tmp_path / "trials.jsonl", Switches())) != repr(first.history)
    assert mended.cost > first.cost

    again = search(tmp_path, accidents={}, n_trials=16, **settings)
    again.run()
    assert again.strategy.told[:16] == mended.strategy.told
    assert repr(again.history[:12]) == repr(mended.history)
    assert len(again.history) == 16
    replayed = search(tmp_path, accidents={}, n_trials=16, **settings).open()
    assert (repr(replayed.history), replayed.cost, replayed.n_failed) == (repr(again.history), again.cost, 1)
    assert replayed.strategy.told == again.strategy.told


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("after", range(8))
def test_a_search_cut_off_while_it_runs_trials_again_goes_on(tmp_path, after, deterministic):
    settings = {"deterministic": deterministic, "round_size": 4 if deterministic else 1, "retry_failed": True}
    with pytest.raises(Stop):
        search(tmp_path, Stopping(after=7), WRONG, **settings).run()
    with pytest.raises(Stop):
        search(tmp_path, Stopping(after=after), {"4": "wrong"}, **settings).run()
    rest = search(tmp_path, Shuffling(2, "first"), **settings)
    rest.run()
    assert sorted(trial.number for trial in rest.history) == list(range(12))
    assert rest.n_failed <= 1  # the one that diverged, if it was among the first
    replayed = search(tmp_path, **settings).open()
    assert replayed.done
    assert repr((replayed.history, replayed.cost)) == repr((rest.history, rest.cost))
    assert replayed.strategy.told == rest.strategy.told


def test_a_trial_that_fails_again_is_not_run_a_third_time_until_the_search_is_opened_again(tmp_path):
    search(tmp_path, accidents=WRONG).run()
    search(tmp_path, accidents=WRONG, retry_failed=True).run()
    assert [evaluations(tmp_path)[number] for number in (1, 4, 5, 6)] == [2, 2, 2, 2]
    search(tmp_path, accidents={}, retry_failed=True).run()
    assert [evaluations(tmp_path)[number] for number in (1, 4, 5, 6)] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    "strategy", [AgingEvolution(4, 2), PolicyGradient(), PolicyGradient(batch_size=3, update=PPO()), RandomSearch()]
)
def test_every_strategy_takes_a_second_result(tmp_path, strategy):
    search(tmp_path, accidents=WRONG, strategy=strategy).run()
    mended = search(tmp_path, strategy=type(strategy)(**strategy.spec["init_args"]), retry_failed=True, n_trials=15)
    mended.run()
    replayed = search(tmp_path, strategy=type(strategy)(**strategy.spec["init_args"]), n_trials=15).open()
    assert results(replayed.history) == results(mended.history)
    assert replayed.strategy.ask(5) == mended.strategy.ask(5)


def test_the_remedy_for_lines_taken_out_by_hand_works(tmp_path):
    search(tmp_path, accidents=WRONG).run()
    path = tmp_path / "trials.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(line for line in lines if '"failed"' not in line))
    with pytest.raises(
        SettingError, match="put the file back as it was, or delete this line and all below it"
    ) as caught:
        search(tmp_path).run()
    number = int(str(caught.value).partition(": line ")[2].partition(":")[0])
    path.write_text("".join(path.read_text().splitlines(keepends=True)[: number - 1]))
    search(tmp_path).run()
    done = search(tmp_path).open()
    assert done.done
    assert len(done.history) == 12


# -- reuse -----------------------------------------------------------------------------------------------------------


class Noisy(Scripted):
    """Another score for each trial, so that one that is used again is seen."""

    def __call__(self, proposal, number):
        super().__call__(proposal, number)
        return Evaluation({"score": float(number), "number": float(number)}, 2.0)


class Two(Strategy):
    """Asks for two architectures in turn."""

    def propose(self, number):
        return (number % 2, 0, 0, 0)


@pytest.mark.parametrize("deterministic", [True, False])
def test_an_equal_architecture_has_the_result_that_it_had(tmp_path, deterministic):
    settings = {"strategy": Two(), "deterministic": deterministic, "n_trials": 7, "reuse": True}
    trials = search(tmp_path, evaluator=Noisy(tmp_path), **settings)
    trials.run()
    assert [t.score for t in trials.history] == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0, 0.0]
    assert [t.same_as for t in trials.history] == [None, None, 0, 1, 0, 1, 0]
    assert [t.metrics["number"] for t in trials.history] == [t.score for t in trials.history]
    assert trials.cost == 4.0
    assert (trials.n_reused, evaluations(tmp_path)) == (5, {0: 1, 1: 1})
    replayed = search(tmp_path, evaluator=Noisy(tmp_path), **settings).open()
    assert replayed.done
    assert (replayed.history, replayed.cost, replayed.n_reused) == (trials.history, 4.0, 5)
    replayed.close()
    more = search(tmp_path, evaluator=Noisy(tmp_path), **(settings | {"reuse": False, "n_trials": 9}))
    more.run()
    assert [t.score for t in more.history[7:]] == [7.0, 8.0]


@pytest.mark.parametrize("after", [1, 2])
def test_reuse_is_the_same_after_an_interruption_and_for_any_number_of_workers(tmp_path, after):
    settings = {"strategy": Two(), "round_size": 3, "n_trials": 9, "reuse": True}
    with pytest.raises(Stop):
        search(tmp_path, Stopping(after=after), evaluator=Noisy(tmp_path), **settings).run()
    rest = search(tmp_path, Shuffling(2, "last"), evaluator=Noisy(tmp_path), **settings)
    rest.run()
    (tmp_path / "whole").mkdir()
    whole = search(tmp_path / "whole", Serial(), evaluator=Noisy(tmp_path / "whole"), **settings)
    whole.run()
    assert whole.history == rest.history
    assert [t.same_as for t in whole.history] == [None, None, None, 1, 0, 1, 0, 1, 0]  # those of a round are evaluated


def test_a_result_that_is_no_result_is_not_used_again(tmp_path):
    search(tmp_path, strategy=Two(), accidents={"0": "nan", "1": "wrong"}, n_trials=6, reuse=True).run()
    assert evaluations(tmp_path) == {0: 1, 1: 1, 2: 1, 3: 1}


def test_evolution_on_a_table_looks_every_architecture_up_once(tmp_path):
    space = NASBench201(["skip_connect", "nor_conv_3x3"])

    class Sum(Scripted):
        def __call__(self, proposal, number):
            super().__call__(proposal, number)
            return Evaluation({"score": float(sum(proposal.architecture))}, 1.0)

    histories = []
    for reuse in (False, True):
        folder = tmp_path / str(reuse)
        folder.mkdir()
        strategy = AgingEvolution(10, 3)
        trials = search(folder, evaluator=Sum(folder), strategy=strategy, space=space, n_trials=60, reuse=reuse)
        trials.run()
        histories.append([(t.architecture, t.score) for t in trials.history])
    assert histories[0] == histories[1]
    n_different = len({architecture for architecture, _ in histories[0]})
    assert len(evaluations(tmp_path / "True")) == n_different == 60 - trials.n_reused < 60
    assert trials.cost == n_different


def test_a_budget_that_is_never_spent_ends_with_a_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr(patience, "MOST_FREE", 20)
    settings = {"strategy": Two(), "n_trials": None, "budget": 10.0, "reuse": True}
    with pytest.raises(SettingError, match="budget: the last 21 trials cost nothing, so it would never be spent; set"):
        search(tmp_path, **settings).run()
    assert search(tmp_path, **(settings | {"n_trials": 23})).open().done


def test_a_cost_that_is_no_number_does_not_make_a_search_endless(tmp_path):
    class Wrong(Scripted):
        def __call__(self, proposal, number):
            return Evaluation({"score": 1.0}, math.nan)

    settings = {"n_trials": None, "budget": 5.0, "evaluator": Wrong(tmp_path), "max_failures": 3}
    with pytest.raises(SettingError, match="4 trials in a row failed, the last: failed, Wrong returned no evalua"):
        search(tmp_path, **settings).run()
    _, *lines = map(json.loads, (tmp_path / "trials.jsonl").read_text().splitlines())
    assert all(0 <= line["cost"] < 1 for line in lines)
    assert len(search(tmp_path, **settings).open().history) == 4


# -- nothing is left behind ------------------------------------------------------------------------------------------


def test_what_is_refused_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "new"
    refusing = TrialLoop(Switches(), Sensitive(), Scripted(tmp_path, refuses=True), folder=folder, n_trials=3)
    with pytest.raises(SettingError, match="not this space"):
        refusing.open()
    search(tmp_path, n_trials=3).run()
    other = search(folder, evaluator=Scripted(tmp_path), seed=1)
    with pytest.raises(SettingError, match=f"{tmp_path / 'trials.jsonl'}: line 1: of another search, seed: 0 on"):
        other.open(before=tmp_path / "trials.jsonl")
    assert not folder.exists()


def test_what_was_checked_is_not_checked_again(tmp_path):
    class Counting(Scripted):
        n_opened = 0

        def open(self, space, data, seed=0, folder=None):
            self.n_opened += 1
            super().open(space, data, seed, folder)

    evaluator = Counting(tmp_path)
    trials = search(tmp_path / "own", evaluator=evaluator, n_trials=3)
    trials.check()
    trials.check()
    assert not (tmp_path / "own").exists()
    trials.run()
    assert evaluator.n_opened == 1
    trials.run()
    assert len(trials.history) == 3


def test_random_accidents_cuts_and_retries_replay_exactly(tmp_path):
    """Many searches, each cut off several times, with and without retries, in rounds and without."""
    for case in range(12):
        rng, folder = Random(case), tmp_path / str(case)
        folder.mkdir()
        deterministic = bool(case % 2)
        settings = {"deterministic": deterministic, "round_size": 4 if deterministic else 1, "reuse": case % 3 == 0}
        settings |= {"space": Switches(2), "max_failures": 100}
        for n_trials in itertools.accumulate(rng.choices(range(2, 9), k=4)):
            accidents = {str(n): "wrong" for n in range(1, 40) if rng.random() < 0.3}
            executor = Stopping(order=rng.choice(["first", "last", "both"]), after=rng.randrange(1, 10))
            again = rng.random() < 0.5
            with contextlib.suppress(Stop):
                search(folder, executor, accidents, n_trials=n_trials, retry_failed=again, **settings).run()
        last = search(folder, n_trials=n_trials, retry_failed=True, **settings)
        last.run()
        assert all(trial.done for trial in last.history)
        replayed = search(folder, n_trials=n_trials, **settings).open()
        assert replayed.done
        assert replayed.strategy.told == last.strategy.told
        assert repr((replayed.history, replayed.cost)) == repr((last.history, last.cost))
        replayed.close()
