"""Figures of architectures as sums over what they have in the place of a reference, and the best of these sums."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np

from lightning_nas.compression.replacements import Changes, Replacements
from lightning_nas.spaces.base import Architecture

Figure = Callable[[Architecture], float]
"""What is measured or counted of an architecture."""


@dataclasses.dataclass(frozen=True)
class Sum:
    """A figure as that of the reference plus a term for each replacement, and for some pairs of them.

    Attributes:
        reference: the figure of the reference itself.
        terms: by how much the figure differs with a replacement, and with a pair beyond what both differ alone.
    """

    reference: float
    terms: Mapping[Changes, float]

    @classmethod
    def of(cls, replacements: Replacements, figure: Figure, wanted: Iterable[Changes]) -> Self:
        """Reads the terms off a figure: each is what those before it leave unexplained.

        Args:
            replacements: what there is in the place of what.
            figure: what is measured or counted of an architecture.
            wanted: the replacements and pairs that get a term.
        """
        found = cls(figure(replacements.reference), {})
        places = {each: replacements.at(each) for each in wanted}
        there = [(each, place, replacements.changes(place)) for each, place in places.items() if place is not None]
        for each, place, changes in sorted(there, key=lambda row: (len(row[0]), len(row[2]))):
            found.terms[each] = figure(place) - found(changes)  # type: ignore[index]
        return found

    def __call__(self, changes: Changes) -> float:
        """The sum for an architecture with these changes."""
        both = itertools.combinations(changes, 2)
        parts = itertools.chain((frozenset([each]) for each in changes), map(frozenset, both))
        return self.reference + sum(self.terms.get(part, 0.0) for part in parts)


@dataclasses.dataclass(frozen=True)
class Limit:
    """What a sum may be.

    Attributes:
        cost: the sum that is limited.
        low: the least that it may be.
        high: the most that it may be.
    """

    cost: Sum
    low: float = -np.inf
    high: float = np.inf


def best_sum(
    replacements: Replacements, value: Sum, limits: Sequence[Limit] = (), without: Iterable[Architecture] = ()
) -> Architecture | None:
    """The architecture of the least sum under limits: exactly, by a mixed-integer program (HiGHS).

    Args:
        replacements: what there is in the place of what.
        value: the sum that is made least; terms of pairs are not read.
        limits: the sums that are limited.
        without: architectures that are left out.

    Returns:
        the architecture, or None where none keeps the limits.
    """
    program = _Program()
    space, reference = replacements.space, replacements.reference
    options = {
        k: [o for o in range(len(choice.options)) if o == reference[k] or frozenset([(k, o)]) in value.terms]
        for k, choice in enumerate(space.choices)
    }
    for k, those in options.items():
        for o in those:
            program.variable((k, o), value.terms.get(frozenset([(k, o)]), 0.0), whole=True)
    _add_rule(program, replacements, options)
    _add_pairs(program, {pair for limit in limits for pair, term in limit.cost.terms.items() if len(pair) > 1 and term})
    for limit in limits:
        held = {next(iter(k)) if len(k) == 1 else k: term for k, term in limit.cost.terms.items() if term}
        program.row(held, limit.low - limit.cost.reference, limit.high - limit.cost.reference)
    for architecture in without:
        taken = [(k, o) for k, o in enumerate(architecture) if replacements.matters(k, architecture)]
        program.row(dict.fromkeys(taken, 1.0), -np.inf, len(taken) - 1)
    chosen = program.solved()
    if chosen is None:
        return None
    taken_of = dict(name for name in chosen if isinstance(name, tuple) and len(name) == 2)
    return tuple(taken_of.get(k, 0) for k in range(len(space.choices)))


def _add_rule(program: "_Program", replacements: Replacements, options: Mapping[int, Sequence[int]]) -> None:
    """A choice takes one option where it has an effect, and none where it has not; of a set of inputs one is on."""
    choices = replacements.space.choices
    index = {choice.name: k for k, choice in enumerate(choices)}
    for k, choice in enumerate(choices):
        taken = dict.fromkeys(((k, o) for o in options[k]), 1.0)
        either = {}
        for condition in replacements.conditions[choice.name]:
            runs = program.variable(("runs", k, condition))
            either[runs] = -1.0
            conjuncts = [
                {(index[name], o): 1.0 for o in options[index[name]] if choices[index[name]].options[o] in those}
                for name, those in condition
            ]
            for conjunct in conjuncts:
                program.row({runs: 1.0, **dict.fromkeys(conjunct, -1.0)}, -np.inf, 0)
            together = {x: -1.0 for conjunct in conjuncts for x in conjunct}
            program.row({runs: 1.0, **together}, 1 - len(conjuncts), np.inf)
            program.row({**taken, runs: -1.0}, 0, np.inf)
        program.row(taken, -np.inf, 1)
        program.row({**taken, **either}, -np.inf, 0)
        if choice.group and choice.last_of_node:
            group = [j for j, other in enumerate(choices) if other.group == choice.group]
            on = {(j, choices[j].options.index("on")): 1.0 for j in group}
            for runs in either:
                program.row({**on, runs: -1.0}, 0, np.inf)


def _add_pairs(program: "_Program", pairs: Iterable[Changes]) -> None:
    """A variable for every pair, which is 1 where both are taken."""
    rows: dict[tuple[Any, int], list[Any]] = {}
    for pair in pairs:
        one, other = sorted(pair)
        program.variable(pair)
        program.row({pair: 1.0, one: -1.0, other: -1.0}, -1, np.inf)
        rows.setdefault((one, other[0]), []).append((pair, other))
        rows.setdefault((other, one[0]), []).append((pair, one))
    for (one, _), partners in rows.items():  # of another choice at most one option is taken
        together = dict.fromkeys((pair for pair, _ in partners), 1.0)
        program.row({**together, one: -1.0}, -np.inf, 0)


class _Program:
    """A mixed-integer program whose variables have names and are from 0 to 1."""

    def __init__(self) -> None:
        self.names: dict[Any, int] = {}
        self.costs: list[float] = []
        self.whole: list[bool] = []
        self.rows: list[tuple[dict[int, float], float, float]] = []

    def variable(self, name: Any, cost: float = 0.0, whole: bool = False) -> Any:
        """Adds a variable, unless it is there, and returns its name."""
        if name not in self.names:
            self.names[name] = len(self.names)
            self.costs.append(cost)
            self.whole.append(whole)
        return name

    def row(self, held: Mapping[Any, float], low: float, high: float) -> None:
        """Adds a constraint: a weighted sum of variables is between ``low`` and ``high``."""
        scale = max((abs(weight) for weight in held.values()), default=1.0) or 1.0
        weights = {self.names[name]: weight / scale for name, weight in held.items() if name in self.names}
        self.rows.append((weights, low / scale, high / scale))

    def solved(self) -> list[Any] | None:
        """The names of the variables that are 1 in the best solution; None: there is none."""
        from scipy.optimize import Bounds, LinearConstraint, milp
        from scipy.sparse import coo_array

        where = [(r, column, weight) for r, (held, _, _) in enumerate(self.rows) for column, weight in held.items()]
        rows, columns, weights = zip(*where, strict=True)
        matrix = coo_array((weights, (rows, columns)), shape=(len(self.rows), len(self.names))).tocsr()
        low, high = zip(*((low, high) for _, low, high in self.rows), strict=True)
        costs = np.array(self.costs)
        found = milp(
            costs / (np.abs(costs).max() or 1.0) * 1e3,  # HiGHS ends when it is within 1e-6
            integrality=np.array(self.whole, dtype=int),
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, low, high),
            options={"mip_rel_gap": 0.0},
        )
        if found.x is None:
            return None
        return [name for name, column in self.names.items() if found.x[column] > 0.5]
