"""What a policy does step by step, compiled from a space.

A step runs the sequence model once; its hidden state decides one choice or, at once, all choices of a group, and what
was chosen is what the next step reads. To a state that choices can point at belongs an *anchor*, a hidden state:

1. After a node's last choice one more step, whose hidden state is the anchor, reads that choice; the step after it
   reads the learnt start embedding. This step is there only if a later choice can point at the node's state.
2. Where the node's last choices are a group of skips, the anchor is the hidden state of the group's own step.
3. The states of a cell that no node computes, its inputs, are anchored by steps on the start embedding before the
   cell's first choice. They are pointed at like others, but read as zeros.
4. The model's memory continues from cell to cell. Before the steps of rule 3 one more step reads the last choice.
5. A choice without sources, or of a node whose name ends in no number, points at nothing and is made like an operation.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_nas.spaces.base import Choice
from lightning_nas.spaces.tables import Tables

State = tuple[str, int]
"""A state of a cell: the cell's name and the state's number."""


@dataclasses.dataclass(frozen=True)
class Step:
    """One run of the sequence model.

    Attributes:
        choices: the indices of those that its hidden state decides, all of one kind.
        anchor: the state whose anchor its hidden state is, if any.
        is_input: whether that state is an input of its cell.
    """

    choices: tuple[int, ...] = ()
    anchor: State | None = None
    is_input: bool = False


def plan_steps(choices: Sequence[Choice]) -> list[Step]:
    """The steps of a policy over these choices, by the five rules above."""
    pointed = {(c.cell, source) for c in choices if is_pointing(c) for source in c.sources}
    inputs = sorted(pointed - {(c.cell, c.output) for c in choices if _is_state(c)})
    steps: list[Step] = []
    opened = set()
    for _, group in itertools.groupby(range(len(choices)), lambda k: (choices[k].group or k, choices[k].kind)):
        members = tuple(group)
        last = choices[members[-1]]
        if last.cell not in opened:
            opened.add(last.cell)
            own = [Step(anchor=state, is_input=True) for state in inputs if state[0] == last.cell]
            if own and steps and steps[-1].choices:
                steps.append(Step())
            steps += own
        anchor = (last.cell, last.output) if _is_state(last) and last.last_of_node else None
        if anchor not in pointed:
            steps.append(Step(members))
        elif last.kind == "skip":
            steps.append(Step(members, anchor))
        else:
            steps += [Step(members), Step(anchor=anchor)]
    return steps


def is_pointing(choice: Choice) -> bool:
    """Whether the options stand for states: taken by a pointer, read as anchors."""
    return choice.kind in ("input", "skip") and bool(choice.sources) and _is_state(choice)


def _is_state(choice: Choice) -> bool:
    return choice.node.rpartition("/")[2].isdecimal()


def automaton(tables: Tables, widest: int) -> dict[str, Tensor]:
    """All tables of a space in one: a row for each state of each choice, the start first; ``widest`` columns, one for
    each option.

    Returns:
        ``prior``, the log of the share of architectures that continue with the option, and ``next``, the row after
        it.
    """
    prior, following, end = [], [], 0
    for rows, counts in zip(tables.next, tables.counts, strict=True):
        end += len(rows)  # here the rows of the next choice begin
        for states, numbers in zip(rows, counts, strict=True):
            # a difference of logarithms: the counts are whole numbers of any length
            logs = (math.log(n) - math.log(sum(numbers)) if n else -math.inf for n in numbers)
            prior.append(padded(logs, widest, -math.inf))
            following.append(padded((0 if state is None else end + state for state in states), widest, 0))
    return {"prior": torch.tensor(prior), "next": torch.tensor(following)}


def columns(choices: Sequence[Choice], widest: int) -> Tensor:
    """Where each option is among the options of all choices, ``(n_choices, widest)``; past the end if there is none."""
    end = sum(len(choice.options) for choice in choices)
    numbers = iter(range(end))
    return torch.tensor([padded(itertools.islice(numbers, len(choice.options)), widest, end) for choice in choices])


def padded(values: Iterable[Any], length: int, value: Any) -> list[Any]:
    """A list of this length."""
    values = list(values)
    return values + [value] * (length - len(values))
