"""The order of a policy's steps, written out, and the tables of a space in one."""

import math

import pytest
import torch

from lightning_nas.controllers.steps import Step, automaton, columns, plan_steps
from lightning_nas.spaces import Choice, Space


def test_a_cell_has_steps_for_its_inputs_and_for_every_node_that_can_be_read(spaces):
    space = spaces["Cells"](nodes=2)
    assert plan_steps(space.choices) == [
        *(Step(anchor=("normal", state), is_input=True) for state in (0, 1)),
        *(Step((k,)) for k in range(4)),
        Step(anchor=("normal", 2)),
        *(Step((k,)) for k in range(4, 8)),
        Step(),  # nothing points at node 3, but the reduction cell's first step reads the start embedding
        *(Step(anchor=("reduce", state), is_input=True) for state in (0, 1)),
        *(Step((k,)) for k in range(8, 12)),
        Step(anchor=("reduce", 2)),
        *(Step((k,)) for k in range(12, 16)),
    ]


def test_all_skips_of_a_layer_are_one_step_which_is_its_anchor(spaces):
    assert plan_steps(spaces["layers"].choices) == [
        Step(anchor=("", 0), is_input=True),  # the stem
        Step((0,)),
        Step(anchor=("", 1)),  # a layer without skips
        Step((1,)),
        Step((2,), ("", 2)),
        Step((3,)),
        Step((4, 5)),  # nothing points at layers 3 and 4
        Step((6,)),
        Step((7, 8, 9)),
    ]


def test_the_first_node_of_a_recurrent_cell_is_no_input(spaces):
    assert plan_steps(spaces["Recurrent"](nodes=3).choices) == [
        Step((0,)),
        Step(anchor=("", 0)),
        *(Step((k,)) for k in (1, 2)),
        Step(anchor=("", 1)),
        *(Step((k,)) for k in (3, 4)),
    ]


@pytest.mark.parametrize("name", ["darts", "labels"])
def test_where_nothing_points_every_step_decides(spaces, name):
    choices = spaces[name].choices
    steps = plan_steps(choices)
    assert all(step.choices and step.anchor is None for step in steps)
    assert [k for step in steps for k in step.choices] == list(range(len(choices)))
    assert len(steps) == (10 if name == "darts" else 4)  # of the labels two are a group


def test_a_state_that_no_choice_computes_is_an_input():
    bits = [  # of a stage: node 1 decides nothing
        Choice(f"stage/{a}->{b}", ("off", "on"), f"stage/{b}", "skip", f"stage/{b}", (a,))
        for b in (2, 3)
        for a in range(1, b)
    ]
    assert plan_steps(Space(bits).choices) == [
        Step(anchor=("stage", 1), is_input=True),
        Step((0,), ("stage", 2)),
        Step((1, 2)),
    ]


def test_the_automaton_goes_the_way_of_the_tables(space):
    widest = max(len(choice.options) for choice in space.choices)
    tables = automaton(space.tables, widest)
    for architecture in list(space)[:: max(1, space.size // 50)]:
        row, log_prob = 0, 0.0
        for option, counts in zip(architecture, space.tables.walk(architecture), strict=True):
            shares = [count / sum(counts) for count in counts]
            assert tables["prior"][row].exp().tolist() == pytest.approx(shares + [0] * (widest - len(shares)))
            log_prob += tables["prior"][row, option].item()
            row = int(tables["next"][row, option])
        assert log_prob == pytest.approx(-math.log(space.size), abs=1e-5)


def test_columns_find_each_option_among_all():
    choices = [Choice("a", ("x", "y"), "a"), Choice("b", ("x", "y", "z"), "b"), Choice("c", ("x",), "c")]
    assert torch.equal(columns(choices, 3), torch.tensor([[0, 1, 6], [2, 3, 4], [5, 6, 6]]))
