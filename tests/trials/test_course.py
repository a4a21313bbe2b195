"""Searches whose strategies wait, end, and take trials further; and that continue from a snapshot."""

import dataclasses
import json
from random import Random

import pytest
import torch

from lightning_nas.data import Digits
from lightning_nas.errors import SettingError
from lightning_nas.evaluators import Evaluation, Evaluator, FromScratch, TabularBenchmark
from lightning_nas.executors import Processes, Serial
from lightning_nas.objectives import Objective
from lightning_nas.spaces import NASBench201
from lightning_nas.spaces.architecture_file import ArchitectureRecord
from lightning_nas.strategies import AgingEvolution, PolicyGradient, Proposal, RandomSearch, Strategy
from lightning_nas.tasks import ImageClassification
from lightning_nas.trials import TrialLoop
from lightning_nas.trials.log import read_trials
from tests.helpers.own_search import Scripted, Sensitive, Switches, evaluations, results
from tests.trials.test_loop import Shuffling, Stop, Stopping

SPACE = NASBench201(["skip_connect", "nor_conv_3x3"])
RUNGS = (1, 3, 9)


class Halving(Strategy):
    """Successive halving of eight architectures: all for one epoch, the better half for three, of that for nine."""

    fidelities = RUNGS

    def begin(self, space, seed=0):
        self.rungs = [[], [], []]  # what was told, by rung
        return super().begin(space, seed)

    def propose(self, number):
        for rung, (first, size) in enumerate([(0, 8), (8, 4), (12, 2)]):
            if number < first + size:
                if rung == 0:
                    return Proposal(self.space.random(self.random(number)), RUNGS[0])
                before = self.rungs[rung - 1]
                if len(before) < 2 * size:
                    return None
                best = sorted(before, key=lambda trial: (-trial.score, trial.number))[number - first]
                return Proposal(best.architecture, RUNGS[rung], best.number)
        return None

    def tell(self, trials):
        super().tell(trials)
        for trial in trials:
            if trial.number >= 0:
                self.rungs[RUNGS.index(trial.fidelity)].append(trial)


class Growing(Evaluator):
    """A table by a function: the more epochs, the better; it says what it was asked."""

    objective, fidelities = Objective("score"), (1, 3, 9)

    def __call__(self, proposal, number):
        score = sum(proposal.architecture) + proposal.fidelity / 100
        asked = {"reached": proposal.reached, "first": -1 if proposal.first is None else proposal.first}
        return Evaluation({"score": score, **asked}, float(proposal.fidelity - proposal.reached))


def halving(folder, executor=None, **settings):
    settings = {"n_trials": None, "budget": 1000.0, "progress": False, "space": SPACE} | settings
    evaluator, space = settings.pop("evaluator", None) or Growing(), settings.pop("space")
    strategy = settings.pop("strategy", None) or Halving()
    return TrialLoop(space, strategy, evaluator, executor, folder, **settings)


SETTINGS = [{"round_size": 1}, {"round_size": 3}, {"round_size": 20}, {"deterministic": False}]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_search_ends_where_its_strategy_does(tmp_path, settings):
    trials = halving(tmp_path, Shuffling(3 if settings != {"round_size": 1} else 1, "both"), **settings)
    best = trials.run()
    assert len(trials.history) == 14
    assert trials.done
    assert [t.fidelity for t in sorted(trials.history, key=lambda t: t.number)] == [1] * 8 + [3] * 4 + [9] * 2
    assert best.fidelity == 9  # whatever the scores of lower fidelities
    assert trials.cost == 8 * 1 + 4 * 2 + 2 * 6  # a continued trial costs what is added
    for trial in trials.history:
        chain = [trial]
        while chain[-1].continues is not None:
            chain.append(trials.course.told[chain[-1].continues])
        reached = chain[1].fidelity if len(chain) > 1 else 0
        first = chain[-1].number if len(chain) > 1 else -1
        assert (trial.metrics["reached"], trial.metrics["first"]) == (reached, first)
    assert trials.step() == []
    again = halving(tmp_path, **settings).open()
    assert again.step() == []
    assert again.done
    assert again.history == trials.history
    assert not (tmp_path / "states").exists()


@pytest.mark.parametrize("settings", SETTINGS[1:])
@pytest.mark.parametrize("after", [0, 1, 5, 8, 9, 12, 13])
def test_a_search_with_fidelities_goes_on_where_it_was_cut_off(tmp_path, settings, after):
    with pytest.raises(Stop):
        halving(tmp_path, Stopping(3, after=after), **settings).run()
    rest = halving(tmp_path, Shuffling(2, "first"), **settings)
    rest.run()
    assert len(rest.history) == 14
    if "round_size" in settings:
        whole = halving(None, **settings)
        whole.run()
        assert rest.history == whole.history


def test_lines_say_fidelity_and_what_is_continued(tmp_path):
    halving(tmp_path, round_size=20).run()
    _, *lines = map(json.loads, (tmp_path / "trials.jsonl").read_text().splitlines())
    assert [(line["fidelity"], line["continues"] is None) for line in lines] == [(1, True)] * 8 + [
        (3, False),
        *[(3, False)] * 3,
        *[(9, False)] * 2,
    ]


def test_a_strategy_that_never_proposes_ends_at_once(tmp_path):
    class Mute(Strategy):
        def propose(self, number):
            return None

    for deterministic in (True, False):
        trials = TrialLoop(
            Switches(), Mute(), Scripted(tmp_path), n_trials=3, deterministic=deterministic, progress=False
        )
        with pytest.raises(SettingError, match="none of 0 trials succeeded"):
            trials.run()


class Wrong(Halving):
    """Proposes what cannot be."""

    fidelities = ()

    def __init__(self, proposals):
        self.proposals = proposals

    def propose(self, number):
        return self.proposals[number]


A, B = (0,) * 6, (1,) * 6


@pytest.mark.parametrize(
    ("proposals", "message"),
    [
        ([Proposal(A, 2)], "evaluator: Growing has the fidelities 1, 3, 9, and not 2, for which Wrong asks"),
        ([Proposal(A, 3, 0)], "strategy: Wrong continues trial 0, which cannot be continued so"),
        ([Proposal(A, 3), Proposal(A, 3, 0)], "strategy: Wrong continues trial 0, which cannot be continued so"),
        ([Proposal(A, 3), Proposal(B, 9, 0)], "strategy: Wrong continues trial 0, which cannot be continued so"),
        ([Proposal(A, 3), Proposal(A, 9, -1)], "strategy: Wrong continues trial -1, which cannot be continued so"),
    ],
)
def test_proposals_that_cannot_be_are_refused(proposals, message):
    with pytest.raises(SettingError) as caught:
        halving(None, strategy=Wrong(proposals)).run()
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("evaluator", "settings", "message"),
    [
        (Scripted("."), {}, "evaluator: Scripted has one fidelity; Halving asks for several"),
        (
            TabularBenchmark("t.csv", "a", digits="arch", fidelities={12: {"a": "b"}, 200: {"a": "c"}}),
            {},
            "evaluator: TabularBenchmark has the fidelities 12, 200, and not 1, for which Halving asks",
        ),
        (
            FromScratch(ImageClassification(), epochs=3),
            {},
            "evaluator: FromScratch has the fidelities 1 to 3, and not 9, for which Halving asks",
        ),
        (
            TabularBenchmark("t.csv", "valid", ["test"], digits="arch"),
            {"strategy": RandomSearch(), "objectives": ["max speed"]},
            "objectives: no metric is called 'speed'; an evaluation has valid, test",
        ),
        (Growing(), {"objectives": ["max"]}, "objectives: 'max' is no objective; write"),
        (Growing(), {"objectives": ["max a", "min a"]}, "objectives: each metric wanted once, got max a, min a"),
        (Growing(), {"known": "nowhere.jsonl"}, "known: nowhere.jsonl: cannot be read (No such file or directory)"),
        (Growing(), {"try_first": ["nowhere.json"]}, "try_first.architecture: there is no file 'nowhere.json'"),
        (
            Growing(),
            {"try_first": ["darts_v2"]},
            "try_first: an architecture of NASBench201 expected, got one of DARTS",
        ),
        (
            Growing(),
            {"try_first": [(5,) * 6]},
            "try_first: no legal architecture of NASBench201, got (5, 5, 5, 5, 5, 5)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(tmp_path, evaluator, settings, message):
    with pytest.raises(SettingError) as caught:
        halving(tmp_path / "run", evaluator=evaluator, **settings).run()
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


class Timed(Growing):
    wants_machine_alone = True


def test_what_wants_the_machine_alone_is_refused_beside_others(tmp_path):
    with pytest.raises(SettingError, match=r"executor\.n_workers: 1, since Timed measures latencies"):
        halving(tmp_path / "run", Shuffling(3), evaluator=Timed(), round_size=3).run()
    assert list(tmp_path.iterdir()) == []
    assert halving(None, evaluator=Timed()).run().done


def test_a_metric_that_no_evaluation_has_stops_the_search_at_its_first_trial(tmp_path):
    trials = TrialLoop(
        Switches(), Sensitive(), Scripted(tmp_path), objectives=["max speed"], n_trials=9, progress=False
    )
    with pytest.raises(SettingError, match="objectives: no metric is called 'speed'; an evaluation has score, n_on"):
        trials.run()
    assert evaluations(tmp_path) == {0: 1}


def test_an_evaluator_without_an_objective_asks_for_some():
    class Plain(Evaluator):
        def __call__(self, proposal, number):
            return Evaluation({"sum": float(sum(proposal.architecture))})

    settings = {"n_trials": 5, "progress": False}
    with pytest.raises(SettingError, match="objectives: Plain has no objective of its own; say one, such as 'max MET"):
        TrialLoop(SPACE, RandomSearch(), Plain(), **settings).run()
    best = TrialLoop(SPACE, RandomSearch(), Plain(), objectives=["min sum"], **settings).run()
    assert best.values == (-best.metrics["sum"],)


# -- objectives and limits -------------------------------------------------------------------------------------------


def test_limits_hold_where_they_can(tmp_path):
    settings = {"n_trials": 40, "progress": False}
    plain = TrialLoop(Switches(), Sensitive(), Scripted(tmp_path), **settings)
    plain.run()
    limited = TrialLoop(Switches(), Sensitive(), Scripted(tmp_path), objectives=["n_on <= 1"], **settings)
    best = limited.run()
    assert [str(objective) for objective in limited.objectives] == ["max score", "n_on <= 1"]
    assert best.metrics["n_on"] <= 1 < plain.best.metrics["n_on"]
    assert best.score == max(t.score for t in limited.history if t.metrics["n_on"] <= 1)
    assert {t.violation for t in limited.history} == {max(0.0, t.metrics["n_on"] - 1) for t in limited.history}


def test_the_front_is_of_all_trials(tmp_path):
    objectives = ["max score", "min n_on"]
    trials = TrialLoop(
        Switches(), Sensitive(), Scripted(tmp_path), None, tmp_path, 30, objectives=objectives, progress=False
    )
    trials.run()
    front = trials.front
    assert 2 <= len(front) < 30
    best = {n: max((t.score for t in trials.history if t.metrics["n_on"] == n), default=-1.0) for n in range(5)}
    assert all(t.score == best[int(t.metrics["n_on"])] for t in front)
    again = TrialLoop(
        Switches(), Sensitive(), Scripted(tmp_path), None, tmp_path, 30, objectives=objectives, progress=False
    )
    assert again.open().front == front
    again.close()
    other = TrialLoop(Switches(), Sensitive(), Scripted(tmp_path), None, tmp_path, 30, progress=False)
    with pytest.raises(SettingError, match="of another search, objectives: "):
        other.open()


# -- what is given before --------------------------------------------------------------------------------------------


class Remembering(Sensitive):
    def tell(self, trials):
        self.numbers = [*getattr(self, "numbers", []), *(trial.number for trial in trials)]
        super().tell(trials)


@pytest.mark.parametrize("deterministic", [True, False])
def test_some_architectures_are_tried_first(tmp_path, deterministic):
    file = tmp_path / "architecture.json"
    ArchitectureRecord(SPACE, (1, 0, 1, 0, 1, 0)).save(file)
    settings = {"try_first": [(0,) * 6, str(file)], "n_trials": 8, "progress": False, "deterministic": deterministic}
    trials = TrialLoop(SPACE, Remembering(), Growing(), None, tmp_path, **settings)
    trials.run()
    assert [t.architecture for t in trials.history[:2]] == [(0,) * 6, (1, 0, 1, 0, 1, 0)]
    assert [t.number for t in trials.history] == list(range(8))
    assert trials.strategy.numbers == list(range(8))
    longer = TrialLoop(SPACE, Remembering(), Growing(), None, tmp_path, **settings | {"n_trials": 10})
    longer.run()
    assert longer.history[:8] == trials.history
    with pytest.raises(SettingError, match="of another search, try_first: "):
        TrialLoop(SPACE, Remembering(), Growing(), None, tmp_path, **settings | {"try_first": [(0,) * 6]}).open()


@pytest.mark.parametrize("strategy", [Remembering, lambda: AgingEvolution(5, 2), PolicyGradient])
def test_results_of_another_search_are_told_before_the_first_trial(tmp_path, strategy):
    other = TrialLoop(SPACE, RandomSearch(), Growing(), None, tmp_path / "other", 6, progress=False)
    other.run()
    known, settings = tmp_path / "other" / "trials.jsonl", {"n_trials": 5, "progress": False}
    trials = TrialLoop(SPACE, strategy(), Growing(), None, tmp_path / "own", known=known, **settings)
    trials.run()
    assert [t.number for t in trials.known] == [-6, -5, -4, -3, -2, -1]
    assert [(t.architecture, t.values) for t in trials.known] == [(t.architecture, t.values) for t in other.history]
    assert len(trials.history) == 5
    assert trials.cost == 45.0
    assert trials.best in trials.history
    if isinstance(trials.strategy, Remembering):
        assert trials.strategy.numbers == [*range(-6, 0), *range(5)]
    longer = TrialLoop(SPACE, strategy(), Growing(), None, tmp_path / "own", known=known, **settings | {"n_trials": 9})
    longer.run()
    assert longer.history[:5] == trials.history
    whole = TrialLoop(SPACE, strategy(), Growing(), known=known, **settings | {"n_trials": 9})
    whole.run()
    assert whole.history == longer.history
    known.write_text("".join(known.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(SettingError, match=r"of another search, known\.n_trials: 6 on file, 5 now"):
        TrialLoop(SPACE, strategy(), Growing(), None, tmp_path / "own", known=known, **settings).open()


# -- snapshots -------------------------------------------------------------------------------------------------------


class Told(PolicyGradient):
    """Counts what it is told."""

    n_told = 0

    def tell(self, trials):
        Told.n_told += len(trials)
        super().tell(trials)


def learning(folder, executor=None, **settings):
    settings = {"n_trials": 30, "progress": False} | settings
    return TrialLoop(SPACE, Told(), Growing(), executor, folder, **settings)


@pytest.mark.parametrize("settings", [{}, {"round_size": 4}, {"deterministic": False}])
@pytest.mark.parametrize("after", [1, 10, 27])
def test_a_search_that_goes_on_from_a_snapshot_is_one_that_was_told_all(tmp_path, monkeypatch, settings, after):
    monkeypatch.setattr("lightning_nas.trials.loop.EVERY", 3)
    executor = Stopping(1 if settings == {} else 3, after=after)
    with pytest.raises(Stop):
        learning(tmp_path / "run", executor, **settings).run()
    Told.n_told = 0
    rest = learning(tmp_path / "run", Serial(), **settings).open()
    assert Told.n_told == 0
    while not rest.done:
        rest.step()
    rest.close()
    (tmp_path / "told").mkdir()
    (tmp_path / "told" / "trials.jsonl").write_bytes((tmp_path / "run" / "trials.jsonl").read_bytes())
    Told.n_told = 0
    told = learning(tmp_path / "told", Serial(), **settings).open()
    assert Told.n_told == 30
    assert (told.history, told.cost, told.best) == (rest.history, rest.cost, rest.best)
    assert told.strategy.best == rest.strategy.best
    policy, other = told.strategy.policy.state_dict(), rest.strategy.policy.state_dict()
    assert all(torch.equal(policy[name], other[name]) for name in policy)


@pytest.mark.parametrize("damage", [b"", b"no snapshot", None])
def test_a_snapshot_that_does_not_fit_is_left_aside(tmp_path, damage):
    learning(tmp_path / "run").run()
    snapshot = tmp_path / "run" / "strategy.ckpt"
    assert torch.load(snapshot, weights_only=True)["n_told"] == 30
    if damage is None:  # of other trials
        learning(tmp_path / "other", seed=1).run()
        damage = (tmp_path / "other" / "strategy.ckpt").read_bytes()
    snapshot.write_bytes(damage)
    Told.n_told = 0
    more = learning(tmp_path / "run", n_trials=33)
    more.run()
    assert Told.n_told == 33
    whole = learning(None, n_trials=33)
    whole.run()
    assert more.history == whole.history


def test_a_strategy_that_is_told_again_leaves_no_snapshot(tmp_path):
    TrialLoop(SPACE, RandomSearch(), Growing(), None, tmp_path, 5, progress=False).run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["trials.jsonl"]


# -- trainings that are continued ------------------------------------------------------------------------------------


class Two(Halving):
    """Two architectures for an epoch, the better of them for two more."""

    fidelities = (1, 3)

    def propose(self, number):
        if number < 2:
            return Proposal(self.space.random(Random(number)), 1)
        if number > 2 or len(self.rungs[0]) < 2:
            return None
        best = max(self.rungs[0], key=lambda trial: trial.score)
        return Proposal(best.architecture, 3, best.number)


def training(folder, executor=None, **settings):
    evaluator = FromScratch(
        ImageClassification(), {"channels": 2, "cells": 1}, epochs=3, trainer={"accelerator": "cpu"}
    )
    return TrialLoop(SPACE, Two(), evaluator, executor, folder, 10, round_size=2, progress=False, **settings)


def test_trainings_are_continued_in_other_processes_and_after_an_end(tmp_path):
    data = Digits(batch_size=512)
    states = tmp_path / "serial" / "states"
    serial = training(tmp_path / "serial").open(data)
    serial.step()
    assert sorted(path.name for path in states.iterdir()) == ["0.ckpt", "1.ckpt"]
    serial.close()
    assert len(list(states.iterdir())) == 2  # it has not ended yet
    serial = training(tmp_path / "serial")
    best = serial.run(data)
    assert (best.number, best.fidelity, best.metrics["epochs"]) == (2, 3, 3)
    assert not states.exists()
    workers = training(tmp_path / "workers", Processes(2, threads=1), keep_states=True)
    workers.run(data)
    assert results(workers.history) == results(serial.history)
    assert sorted(path.name for path in (tmp_path / "workers" / "states").iterdir()) == ["0.ckpt", "1.ckpt"]
    nowhere = training(None)
    nowhere.run(data)
    assert results(nowhere.history) == results(serial.history)
    whole = serial.evaluator(Proposal(best.architecture), best.continues)
    assert whole.metrics == best.metrics
    assert read_trials(tmp_path / "serial" / "trials.jsonl", SPACE)[-1] == dataclasses.replace(best)
