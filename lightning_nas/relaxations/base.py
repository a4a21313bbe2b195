"""``Relaxation``: how gates come from learnt logits."""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from lightning_nas.specs import Configurable


class Relaxation(Configurable, ABC):
    """A differentiable function from the logits of all choices to the weights of their options.

    A subclass says which weights a step gets (:meth:`weights`) and, where these are not the softmax but for noise, what
    they are without noise (:meth:`expected`). Where choices have different numbers of options, rows are as long as the
    longest, and ``present`` says which entries are options.

    Attributes:
        anneals: whether the weights depend on how much of the search is done, so that its length must be known.
    """

    anneals: ClassVar[bool] = False

    @abstractmethod
    def weights(self, logits: Tensor, present: Tensor, generator: torch.Generator, progress: float) -> Tensor:
        """The weights of one step. An option whose weight is exactly zero is not run.

        Args:
            logits: what is learnt, ``(n_choices, most options)``.
            present: which entries are options, booleans shaped like ``logits``; no other gets weight or gradient.
            generator: the source of all noise in this step, on the device of ``logits``.
            progress: how much of the search is done: 0 in the first epoch, 1 in the last.

        Returns:
            the weights, shaped like ``logits`` and differentiable with respect to them.
        """
        raise NotImplementedError

    def expected(self, logits: Tensor, present: Tensor) -> Tensor:
        """The weights without noise, by which a search is validated, drawn and derived: the softmax.

        Args:
            logits: what is learnt, ``(n_choices, most options)``.
            present: which entries are options, booleans shaped like ``logits``.
        """
        return logits.masked_fill(~present, -torch.inf).softmax(1)
