"""Nodes, as cells of every space sum them up."""

import torch

from lightning_nas.spaces.cells import Node


def terms(n: int) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True) for _ in range(n)]


def sum_of(*given: torch.Tensor | None) -> torch.Tensor | None:
    node = Node()
    for term in given:
        node.add(term)
    return node.finish()


def test_a_node_is_the_sum_of_its_terms() -> None:
    a, b, c = terms(3)
    total = sum_of(a, None, b, c)
    torch.testing.assert_close(total, a + b + c)
    alone = sum_of(a)
    assert alone is not None
    assert alone.data_ptr() == a.data_ptr()  # one term is not copied
    assert sum_of(None) is None
    assert sum_of() is None


def test_what_others_read_is_left_alone() -> None:
    """A term may be a view of a state, which other edges read too."""
    given = terms(4)
    before = [term.detach().clone() for term in given]
    shared = [term.relu() for term in given]
    first, second = sum_of(*shared), sum_of(*shared)
    assert first is not None
    assert torch.equal(first, second)
    for term, value, relu in zip(given, before, shared, strict=True):
        assert torch.equal(term, value)
        assert torch.equal(relu, value.relu())


def test_gradients_arrive_dense() -> None:
    """Those of a concatenation are slices, with which BatchNorm's backward pass is slow."""
    (term,) = terms(1)
    of_term = []
    product = 2 * term.contiguous(memory_format=torch.channels_last)
    product.register_hook(of_term.append)
    state = sum_of(product, torch.ones_like(product))
    other = torch.ones_like(product)
    side_by_side = torch.cat([state, other], 1)  # type: ignore[list-item]
    gradient = torch.randn_like(side_by_side)
    side_by_side.backward(gradient)
    assert of_term[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(of_term[0], gradient[:, :3])
