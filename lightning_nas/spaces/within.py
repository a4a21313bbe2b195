"""Legal paths of which sums over the choices keep limits: the cheapest one, and random ones."""

import itertools
import math
from collections.abc import Sequence
from random import Random

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_array

from lightning_nas.spaces.tables import Cost, Tables

Terms = Sequence[Sequence[float]]
"""For each choice a number for each option; a path has their sum."""

INFEASIBLE = 2  # by the numbers that scipy gives to what became of a program


def cheapest_within(
    tables: Tables,
    cost: Cost,
    sums: Sequence[Terms],
    limits: Sequence[float],
    without: Sequence[Sequence[int]] = (),
) -> tuple[int, ...] | None:
    """The legal path of the smallest total cost whose sums are at most their limits.

    A path is a flow of one unit through the states of the rule, so this is an integer program (HiGHS). Its tolerances
    are a billionth of the largest cost and a millionth of the largest term: a path whose sum is so little above a limit
    may come, and can be left out then.

    Args:
        tables: the compiled rule of the paths.
        cost: what an option of a choice costs, a finite number.
        sums: the terms of each sum that is limited.
        limits: the largest value of each of the sums.
        without: legal paths that do not count.

    Returns:
        the options of the path; None where none keeps the limits.
    """
    arcs = [(k, state, option) for k in range(len(tables)) for state, option in tables.live(k)]
    costs = np.array([cost(k, option) for k, _, option in arcs])
    limited = np.array([[terms[k][option] for k, _, option in arcs] for terms in sums])
    largest = np.abs(limited).max(axis=1, initial=1e-9)
    taken = np.array([[path[k] == option for k, _, option in arcs] for path in without], float)
    constraints = [_flow(tables, arcs), LinearConstraint(limited / largest[:, None], -np.inf, limits / largest)]
    if len(without):
        constraints.append(LinearConstraint(taken, -np.inf, len(tables) - 0.5))
    found = milp(
        costs * (1e3 / (np.abs(costs).max() or 1.0)),  # optimal to 1e-6
        constraints=constraints,
        integrality=np.ones(len(arcs)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 0.0},
    )
    if found.status == INFEASIBLE:
        return None
    if found.x is None:
        raise RuntimeError(f"the integer program was given up: {found.message}")
    return tuple(option for (_, _, option), share in zip(arcs, found.x, strict=True) if share > 0.5)


def _flow(tables: Tables, arcs: Sequence[tuple[int, int, int]]) -> LinearConstraint:
    """As much leaves a state by its options as comes, and a unit leaves the first one."""
    rows = list(itertools.accumulate(map(len, tables.counts), initial=0))  # the first state of every choice
    inner = [j for j, (k, _, _) in enumerate(arcs) if k + 1 < len(tables)]
    out = [rows[k] + state for k, state, _ in arcs]
    into = [rows[arcs[j][0] + 1] + tables.after(*arcs[j]) for j in inner]
    values = [1.0] * len(arcs) + [-1.0] * len(inner)
    flow = csr_array((values, (out + into, [*range(len(arcs)), *inner])), shape=(rows[-1], len(arcs)))
    start = np.eye(1, rows[-1])[0]
    return LinearConstraint(flow, start, start)


class Draws:
    """Random legal paths whose sum is at most a limit, each as likely as any other, however few they are.

    Paths are drawn with a probability that falls with ``exp(−λ sum)`` and kept with ``exp(λ (sum − limit))``: the
    product is the same for all. That λ keeps most by which the mean sum is the limit.

    Args:
        tables: the compiled rule of the paths.
        terms: the terms of the sum.
        limit: its largest value, which some path has to keep.
    """

    def __init__(self, tables: Tables, terms: Terms, limit: float) -> None:
        self.tables, self.terms, self.limit = tables, terms, limit
        self.tilt, high = 0.0, 1e-6
        if self._mean(0.0) > limit:
            while self._mean(high) > limit and high < 1e6:
                self.tilt, high = high, 2 * high
            for _ in range(30):
                middle = (self.tilt + high) / 2
                self.tilt, high = (middle, high) if self._mean(middle) > limit else (self.tilt, middle)
        self.rest = self._pass(self.tilt)

    def __call__(self, rng: Random) -> tuple[tuple[int, ...], bool]:
        """A path, and whether it is kept if its sum is at most the limit."""
        path, total, state = [], 0.0, 0
        for k in range(len(self.tables)):
            options, weights, _ = self._continued(k, state, self.tilt, self.rest[k + 1])
            option = rng.choices(options, weights)[0]
            path.append(option)
            total += self.terms[k][option]
            state = self.tables.after(k, state, option)
        return tuple(path), rng.random() < math.exp(min(0.0, self.tilt * (total - self.limit)))

    def _mean(self, tilt: float) -> float:
        return self._pass(tilt)[0][0][1]

    def _pass(self, tilt: float) -> list[dict[int, tuple[float, float]]]:
        """For each choice and state the logarithm of the weight of all paths from there, and the mean of their sums."""
        last = len(self.tables) - 1
        ends = {self.tables.after(last, s, o) for s, o in self.tables.live(last)}
        rest = [dict.fromkeys(ends, (0.0, 0.0))]
        for k in range(last, -1, -1):
            row = {}
            for state in {state for state, _ in self.tables.live(k)}:
                options, weights, largest = self._continued(k, state, tilt, rest[-1])
                after = [self.terms[k][o] + rest[-1][self.tables.after(k, state, o)][1] for o in options]
                mean = sum(w * m for w, m in zip(weights, after, strict=True)) / sum(weights)
                row[state] = (largest + math.log(sum(weights)), mean)
            rest.append(row)
        return rest[::-1]

    def _continued(
        self, k: int, state: int, tilt: float, rest: dict[int, tuple[float, float]]
    ) -> tuple[list[int], list[float], float]:
        """The options that go on from a state, their weights, the largest of them one, and the logarithm of that."""
        options = [option for option, count in enumerate(self.tables.counts[k][state]) if count]
        logs = [rest[self.tables.after(k, state, o)][0] - tilt * self.terms[k][o] for o in options]
        largest = max(logs)
        return options, [math.exp(log - largest) for log in logs], largest
