"""Language models around a recurrent cell.

A network embeds words, runs its cell over time and decodes the cell's outputs with the matrix of the embedding (Inan,
Khosravi, Socher 2017), in one product for all time steps. Dropout is variational (Gal and Ghahramani 2016): in training
a mask is drawn in every forward pass and is the same at all time steps.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.spaces.base import Gates, Network, Space
from lightning_nas.spaces.recurrent.cell import INITIAL, RecurrentCell

PENN_TREEBANK = {"vocabulary": 10_000}


class LanguageOutput(NamedTuple):
    """What a language model makes of a window of T words in N columns.

    Attributes:
        logits: the logits of the word that follows each, ``(T, N, vocabulary)``.
        carry: the cell's last output, ``(N, hidden)``, with which the next window begins; of a network of your own what
            its forward gets then, a tensor or a tuple, list or dict of tensors, or None.
        hidden: the cell's outputs, ``(T, N, hidden)``, in training; else None.
        dropped: the same after dropout, as they are decoded.
    """

    logits: Tensor
    carry: Any
    hidden: Tensor | None
    dropped: Tensor | None


class RecurrentNetwork(Network):
    """Embedding, cell over time, decoder with the embedding's matrix.

    Args:
        space: whose choices the cell has.
        inputs: ``vocabulary``, the number of words.
        cell: its width is the embedding's too.
        bias: whether the decoder has one.
        word_dropout: probability to drop a word of the vocabulary, wherever in a column it is.
        input_dropout: to drop a unit of the embedding.
        hidden_dropout: to drop a unit of the states that the cell reads.
        output_dropout: to drop a unit of the cell's outputs before they are decoded.

    Raises:
        SettingError: if a setting is out of its range; it names the field.
    """

    def __init__(
        self,
        space: Space,
        inputs: dict[str, int],
        cell: RecurrentCell,
        bias: bool,
        word_dropout: float,
        input_dropout: float,
        hidden_dropout: float,
        output_dropout: float,
    ) -> None:
        super().__init__()
        if "vocabulary" not in inputs:
            raise SettingError("inputs.vocabulary: missing; a language model needs the number of words")
        dropout = {"word": word_dropout, "input": input_dropout, "hidden": hidden_dropout, "output": output_dropout}
        for what, probability in dropout.items():
            if not 0 <= probability < 1:
                raise SettingError(f"network.{what}_dropout: from 0 to below 1, got {probability}")
        self.space = space
        self.inputs = dict(inputs)
        self.dropout = dropout
        embedding = torch.empty(inputs["vocabulary"], cell.hidden)
        self.embedding = nn.Parameter(embedding.uniform_(-INITIAL, INITIAL))
        self.cell = cell
        self.bias = nn.Parameter(torch.zeros(inputs["vocabulary"])) if bias else None

    def forward(  # type: ignore[override]  # a window has a carry, and no paths to drop
        self, tokens: Tensor, gates: Gates | None = None, carry: Tensor | None = None, first: Tensor | None = None
    ) -> LanguageOutput:
        """Runs a window.

        Args:
            tokens: numbers of words, ``(T, N)``.
            gates: how each choice is taken; None where the space has one architecture.
            carry: the hidden state after the window before, ``(N, hidden)``; None: zeros. Gradients flow into it unless
                it is detached.
            first: ``(T,)``, whether a text begins at a word. It can at the first alone, where the carry is zeros then.

        Raises:
            SettingError: if BatchNorm has to normalise a batch of a single column.
        """
        resolved = self.space.resolve(gates)
        n, hidden = tokens.shape[1], self.cell.hidden
        if n == 1 and any(norm.training for norm in batch_norms(self)):
            raise SettingError(
                "data.batch_size, data.evaluation_batch_size: at least 2 columns where BatchNorm normalises by the "
                "batch (in training; with model.bn batch in evaluation too), got 1"
            )
        words = F.embedding(tokens, self.embedding)
        of_words = self._mask("word", self.inputs["vocabulary"], 1)
        words = masked(words, None if of_words is None else F.embedding(tokens, of_words))
        words = masked(words, self._mask("input", n, hidden))
        if carry is None:
            carry = words.new_zeros(n, hidden)
        elif first is not None:
            carry = carry.masked_fill(first[0], 0)
        outputs = self.cell(words, carry, self._mask("hidden", n, hidden), resolved)
        dropped = masked(outputs, self._mask("output", n, hidden))
        logits = F.linear(dropped, self.embedding, self.bias)
        for_regularisers = (outputs, dropped) if self.training else (None, None)
        return LanguageOutput(logits, outputs[-1], *for_regularisers)

    def _mask(self, what: str, *shape: int) -> Tensor | None:
        """A mask whose mean is one; None where nothing is dropped."""
        keep = 1 - self.dropout[what]
        if keep == 1 or not self.training:
            return None
        return self.embedding.new_empty(shape).bernoulli_(keep).div_(keep)

    def example(self, batch_size: int = 1) -> Tensor:
        """A column of ``batch_size`` words, ``(batch_size, 1)``."""
        return torch.zeros(batch_size, 1, dtype=torch.long, device=self.embedding.device)


def masked(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
