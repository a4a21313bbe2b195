import pytest
import torch

# The networks in the tests are tiny: a second thread costs more than it brings, above all where cores are shared.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
