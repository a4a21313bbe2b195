"""What every method promises of a user's own data."""

import pytest

from lightning_nas.testing import OwnDataContract
from tests.helpers.methods import CASES

IMAGES = {name: case for name, case in CASES.items() if case.data(0).modality == "images"}
FAST = ("random-search-ws", "gdas", "enas-micro")
"""One that learns nothing of architectures, one step after step, and one in two phases."""


class TestMethods(OwnDataContract):
    cases = {name: IMAGES[name] for name in FAST}  # noqa: RUF012


@pytest.mark.slow
class TestOtherMethods(OwnDataContract):
    cases = {name: case for name, case in IMAGES.items() if name not in FAST}  # noqa: RUF012
