"""The promises of spaces, strategies and methods as test classes, for your own classes too.

They need pytest, which the package itself does not install. A subclass says what to test, and pytest runs every promise
for every case::

    from lightning_nas.testing import SpaceCase, SpaceContract

    class TestRing(SpaceContract):
        cases = {"ring": SpaceCase(Ring(4), {"channels": 2})}
"""

from lightning_nas.testing.method import MethodCase, MethodContract
from lightning_nas.testing.own_data import OwnDataContract
from lightning_nas.testing.space import SpaceCase, SpaceContract
from lightning_nas.testing.strategy import StrategyCase, StrategyContract

__all__ = [
    "MethodCase",
    "MethodContract",
    "OwnDataContract",
    "SpaceCase",
    "SpaceContract",
    "StrategyCase",
    "StrategyContract",
]
