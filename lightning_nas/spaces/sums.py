"""Sums of terms of which some are not there."""

from typing import Any

import torch
from torch import Tensor

from lightning_nas.operations.layout import laid_out, transformed


def add_weighted(total: Tensor | None, term: Tensor | None, weight: Tensor | None = None) -> Tensor | None:
    """``total + weight · term`` where what is not there counts as zero, and a weight as one."""
    if term is None:
        return total
    term = term if weight is None else weight * term
    return term if total is None else total + term


class Node:
    """A sum of terms, which lives for one forward pass."""

    def __init__(self) -> None:
        self._sum: Tensor | None = None
        self._terms = 0

    def add(self, term: Tensor | None) -> None:
        """Adds a term; None counts as zero."""
        if term is None:
            return
        if self._sum is None:
            self._sum = term
        elif self._terms == 1:
            self._sum = self._sum + term  # the first term may be a view, that others read
        else:
            self._sum += term
        self._terms += 1

    def finish(self) -> Tensor | None:
        """The sum, to be read from now on; None where there was no term.

        Its gradient will be dense. A slice of a concatenation's makes the backward pass of BatchNorm several times
        slower.
        """
        if self._sum is None or not self._sum.requires_grad or transformed():
            return self._sum
        dense: Tensor = _DenseGradient.apply(self._sum)
        return dense


class _DenseGradient(torch.autograd.Function):
    """The same values, with a gradient that lies in memory without gaps.

    A hook on the tensor would do, but in a network that is compiled (``torch.compile``, PyTorch 2.14) a hook that is
    registered in ``forward`` gives wrong outputs without a word.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return laid_out(gradient)
