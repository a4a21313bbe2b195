"""What every method promises of a user's own data."""

from typing import ClassVar

import pytest
import torch

from lightning_nas.testing import OwnDataContract
from lightning_nas.testing.method import assert_same
from tests.helpers.methods import CASES
from tests.helpers.ranks import ROOT, run_ranks

IMAGES = {name: case for name, case in CASES.items() if case.data(0).modality == "images"}
FAST = ("random-search-ws", "gdas")
"""One that learns nothing of architectures, and one that does."""


class TestMethods(OwnDataContract):
    cases: ClassVar = {name: IMAGES[name] for name in FAST}


@pytest.mark.slow
class TestOtherMethods(OwnDataContract):
    cases: ClassVar = {name: case for name, case in IMAGES.items() if name not in FAST}


TWO_RANKS = """
import sys, torch
from pathlib import Path
sys.path[:0] = [{root!r}]
from lightning_nas.testing import OwnDataContract
from lightning_nas.testing.method import EndAfter
from lightning_nas.testing.own_data import Seen, as_loaders
from tests.helpers.methods import CASES, trainer

torch.set_num_threads(1)
for number, name in enumerate({names!r}):
    case, seen = CASES[name], Seen()
    theirs = OwnDataContract().handed(case, noise=0.1, separate=number % 2 == 0)
    theirs.batch_size //= 2
    method = case.made()
    run = trainer(strategy="ddp", devices=2, max_epochs=3, callbacks=[EndAfter(1), seen])
    run.fit(method, **(dict(datamodule=theirs) if number % 3 else as_loaders(theirs)))
    own = ("running", "tracked", "metrics")  # of each rank
    state = {{k: v for k, v in method.state_dict().items() if not any(part in k for part in own)}}
    images = [batch if isinstance(batch, torch.Tensor) else batch[0] for s in seen.steps for batch in s.values()]
    torch.save({{"state": state, "images": images}}, Path({folder!r}) / f"{{name}}-{{run.global_rank}}.pt")
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder with what two ranks of every method have left; all in one pair of processes, which start slowly."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(TWO_RANKS.format(root=str(ROOT), names=list(IMAGES), folder=str(folder)), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", IMAGES)
def test_two_ranks_end_equal_and_read_other_examples(name, two_ranks):
    first, second = (torch.load(two_ranks / f"{name}-{rank}.pt", weights_only=True) for rank in (0, 1))
    assert_same(first["state"], second["state"])
    assert len(first["images"]) == len(second["images"])
    for batch, other in zip(first["images"], second["images"], strict=True):
        assert batch.shape == other.shape
        assert not torch.equal(batch, other)
