"""Recurrent cells that are compiled. What they compute is in the tests of their spaces."""

import copy
import os
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_nas.spaces import DARTSRecurrentCell
from lightning_nas.spaces.recurrent.cell import compiled
from lightning_nas.spaces.recurrent.language_model import RecurrentNetwork

TEXT = {"vocabulary": 13}
DROPOUT = ("word_dropout", "input_dropout", "hidden_dropout", "output_dropout")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def compiling():
    """The compiler as at the start of a process."""
    torch.compiler.reset()
    compiled.cache_clear()
    yield
    compiled.cache_clear()


def gradients(network: RecurrentNetwork, alphas: Tensor) -> dict[str, Tensor]:
    """Of a window's loss, after an earlier window."""
    gates = {choice.name: row for choice, row in zip(network.space.choices, alphas.softmax(1), strict=True)}
    tokens = torch.randint(13, (5, 3), generator=torch.Generator().manual_seed(0))
    carry = network(tokens[:2], gates).carry.detach()
    loss = F.cross_entropy(network(tokens, gates, carry).logits.flatten(0, 1), tokens.flatten())
    learning = dict(network.named_parameters()) | {"alphas": alphas}
    return dict(zip(learning, torch.autograd.grad(loss, list(learning.values())), strict=True))


def pair_of_networks() -> list[RecurrentNetwork]:
    """The same search network, to be compiled or not."""
    space = DARTSRecurrentCell(nodes=2)
    settings = dict.fromkeys(DROPOUT, 0.0)
    network = space.network(TEXT, hidden=4, compile=True, **settings).double()  # type: ignore[arg-type]
    other = copy.deepcopy(network)
    other.cell.compile_steps = False
    return [network, other]


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="needs a C++ compiler")
def test_a_compiled_cell_is_the_same_function(compiling: None, recwarn: pytest.WarningsRecorder) -> None:
    network, other = pair_of_networks()
    assert network.state_dict().keys() == other.state_dict().keys()
    alphas = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    found, expected = gradients(network, alphas), gradients(other, alphas)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10, msg=name)
    for name, value in other.named_buffers():
        torch.testing.assert_close(dict(network.named_buffers())[name], value, rtol=0, atol=1e-10, msg=name)
    assert not any("uncompiled" in str(warning.message) for warning in recwarn)
    with torch.compiler.set_stance("fail_on_recompile"):  # windows of another length take the same code
        network(
            torch.zeros(7, 3, dtype=torch.long),
            {c.name: row for c, row in zip(network.space.choices, alphas, strict=True)},
        )


def test_without_a_compiler_a_cell_runs_as_it_is(compiling: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/nowhere/c++",))
    network, other = pair_of_networks()
    alphas = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    with pytest.warns(UserWarning, match="network.compile: the cell runs uncompiled"):
        found = gradients(network, alphas)
    for name, value in gradients(other, alphas).items():
        assert torch.equal(found[name], value), name


def test_an_architecture_is_not_compiled(compiling: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would take a code of its own."""
    monkeypatch.setattr(torch, "compile", lambda *args, **kwargs: pytest.fail("compiled"))
    network, _ = pair_of_networks()
    gates = network.space.gates(next(iter(network.space)))
    assert network(torch.zeros(2, 3, dtype=torch.long), gates).logits.isfinite().all()
    with torch.no_grad():
        weights = {choice.name: torch.full((5,), 0.2, dtype=torch.float64) for choice in network.space.choices}
        assert network(torch.zeros(2, 3, dtype=torch.long), weights).logits.isfinite().all()
