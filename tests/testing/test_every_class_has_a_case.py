"""No class of ours is left out of the contracts."""

import pytest

from lightning_nas.catalogue import KINDS
from lightning_nas.methods import OneShotMethod
from lightning_nas.spaces import Space
from lightning_nas.specs import concrete
from lightning_nas.strategies import Strategy
from tests.helpers.methods import CASES as METHODS
from tests.spaces.test_contracts import CASES as SPACES
from tests.strategies.test_contracts import STRATEGIES

COVERED = {
    Space: {type(case.space) for case in SPACES.values()},
    Strategy: {type(make()) for make in STRATEGIES.values()},
    OneShotMethod: {type(case.build()) for case in METHODS.values()},
}


@pytest.mark.parametrize("base", COVERED, ids=lambda base: base.__name__)
def test_every_class_has_a_case(base):
    assert KINDS  # the catalogue has imported all classes
    ours = {cls for cls in concrete(base) if cls.__module__.startswith("lightning_nas.")}
    assert ours
    assert not {cls.__name__ for cls in ours - COVERED[base]}
