"""Sums of terms of which some are not there."""

import torch
from torch import Tensor


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
        if self._sum is not None and self._sum.requires_grad:
            self._sum.register_hook(lambda gradient: gradient.contiguous(memory_format=torch.channels_last))
        return self._sum
