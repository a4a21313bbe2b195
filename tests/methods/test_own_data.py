"""What every method promises of a user's own data."""

from typing import ClassVar

import pytest

from lightning_nas.testing import OwnDataContract
from tests.helpers.methods import CASES

IMAGES = {name: case for name, case in CASES.items() if case.data(0).modality == "images"}
FAST = ("random-search-ws", "gdas", "enas-micro")
"""One that learns nothing of architectures, one step after step, and one in two phases."""


class TestMethods(OwnDataContract):
    cases: ClassVar = {name: IMAGES[name] for name in FAST}


@pytest.mark.slow
class TestOtherMethods(OwnDataContract):
    cases: ClassVar = {name: case for name, case in IMAGES.items() if name not in FAST}
