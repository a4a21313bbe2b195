"""Random search: its distribution."""

from collections import Counter

import pytest
from scipy.stats import chisquare

from lightning_nas.spaces import Choice, Space
from lightning_nas.strategies import RandomSearch


class Lopsided(Space):
    """After ``stop`` there is nothing to choose, else any of four."""

    def __init__(self):
        super().__init__([Choice("first", ("stop", "go"), "0"), Choice("then", ("absent", "a", "b", "c", "d"), "1")])

    def step(self, state, choice, option):
        if choice.name == "first":
            return 1 if option == "stop" else 2
        return 0 if (option == "absent") == (state == 1) else None


@pytest.mark.parametrize(
    ("by", "shares"),
    [("architecture", [1 / 5] * 5), ("choice", [1 / 2, *[1 / 8] * 4])],
)
def test_draws_have_the_distribution_asked_for(by, shares):
    space = Lopsided()
    strategy = RandomSearch(by).begin(space, seed=1)
    drawn = Counter(proposal.architecture for proposal in strategy.ask(5000))
    assert set(drawn) <= set(space)
    assert chisquare([drawn[a] for a in space], [5000 * share for share in shares]).pvalue > 1e-3
