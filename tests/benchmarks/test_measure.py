"""Stopwatches, counterparts, and the printed tables."""

import sys

import pytest
import torch
from torch import nn

from benchmarks import __main__ as table
from benchmarks import growth
from benchmarks.counterparts import Counterparts, matched
from benchmarks.loader import images_per_second
from benchmarks.measure import SIDES, Stopwatch, recorded
from tests.helpers.small_sizes import SMALL


def test_a_stopwatch_leaves_out_the_first_step():
    stopwatch = Stopwatch(torch.device("cpu"))
    stopwatch.wall = {"textbook": [100.0, 2.0, 3.0, 4.0], "ours": [50.0, 1.0, 1.0, 4.0]}
    stopwatch.cpu = {"textbook": [0.0, 6.0, 6.0, 6.0], "ours": [0.0, 2.0, 2.0, 2.0]}
    assert (stopwatch.seconds("textbook"), stopwatch.first("ours")) == (3.0, 50.0)
    assert (stopwatch.ratio(), stopwatch.ratio(cpu=True)) == (3.0, 3.0)
    assert stopwatch.spread() == (1.0, 3.0)


def test_steps_are_timed_in_turns():
    row = table.ROWS["random-search-ws"](SMALL)
    stopwatch = row.time(rounds=2)
    assert [len(stopwatch.wall[side]) for side in SIDES] == [3, 3]
    assert all(seconds > 0 for side in SIDES for seconds in stopwatch.wall[side])
    assert [len(row.time(1, ["ours"]).wall[side]) for side in SIDES] == [0, 2]


@pytest.mark.parametrize("name", ["enas-rnn-shared", "enas-rnn-controller"])
def test_only_steps_of_the_phase_in_question_are_timed(name):
    stopwatch = table.ROWS[name](SMALL).time(rounds=2)
    assert [len(stopwatch.wall[side]) for side in SIDES] == [3, 3]


def test_gradients_are_recorded_as_an_optimiser_used_them():
    module = nn.Linear(2, 1)
    optimizer = torch.optim.SGD([module.weight], 0.1)
    module(torch.ones(1, 2)).sum().backward()
    with recorded(module) as found:
        optimizer.step()
    assert found.keys() == {"weight"}
    assert found["weight"].tolist() == [[1.0, 1.0]]


def test_one_of_ours_can_be_several_of_the_textbook():
    ours = nn.ParameterDict({"alphas": nn.Parameter(torch.arange(6.0).view(3, 2))})
    textbook = nn.ModuleDict({"alphas": nn.ParameterDict({"normal": torch.zeros(1, 2), "reduce": torch.zeros(2, 2)})})
    both = Counterparts(ours, textbook, matched(ours, textbook, [("alphas", "alphas")]))
    both.copy_weights()
    assert textbook["alphas"]["normal"].tolist() == [[0.0, 1.0]]
    assert textbook["alphas"]["reduce"].tolist() == [[2.0, 3.0], [4.0, 5.0]]


def test_every_parameter_needs_its_counterpart():
    ours, textbook = nn.Linear(2, 4), nn.Linear(2, 4)
    with pytest.raises(ValueError, match=r"without a counterpart: .*bias"):
        matched(ours, textbook, [("weight", "weight")])
    with pytest.raises(ValueError, match="weight and bias have not the same parameters"):
        matched(ours, textbook, [("weight", "bias")])


def test_the_table_is_printed(monkeypatch, capsys):
    sizes = [f"--{name}={value}" for name, value in vars(SMALL).items()]
    rows = ["--rows", "enas-sampling", "evolution", "--rounds=1", "--threads=1"]
    monkeypatch.setattr(sys, "argv", ["benchmarks", *rows, *sizes])
    table.main()
    printed = capsys.readouterr().out.splitlines()
    rows = [line for line in printed if line.startswith(("| ENAS controller", "| Aging evolution"))]
    assert len(rows) == 2
    assert all(row.count("|") == 10 for row in rows)
    assert any(line.startswith("  ENAS controller, sampling: float64: ") for line in printed)


def test_slopes():
    assert growth.slope({1: 3.0, 2: 12.0, 4: 48.0}) == pytest.approx(2)
    lines = [growth.line("Step", "cells", value, {1: 3.0, 2: 12.0}, {1: None, 2: None}) for value in (1, 2)]
    assert lines == ["| Step | cells | 1 | 3 |  |  |  |", "| Step | cells | 2 | 12 | 2.00 |  |  |"]


def test_the_loader_is_timed():
    assert images_per_second(16, num_workers=0, seconds=0.1) > 10
