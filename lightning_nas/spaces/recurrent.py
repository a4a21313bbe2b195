"""Language models around a recurrent cell, and what the cells of ENAS and DARTS have in common.

A network embeds words, runs its cell over time and decodes the cell's outputs with the matrix of the embedding (Inan,
Khosravi, Socher 2017). Dropout is variational (Gal and Ghahramani 2016): in training a mask is drawn in every forward
pass and is the same at all time steps.

Words are embedded, read by the cell and decoded in one product each for all time steps. In the cell, the edges into a
state that go through the same matrix are one product, and their activations are mixed before they pass the gate. Other
forms were not worth their code on a CPU: all edges that leave a state in one product (as fast where each has a matrix
of its own, else slower, since every matrix then gets a gradient from each of its edges), the gradient of a matrix in
one product for all time steps, and a backward pass of the mixture written by hand (both 0.95 to 1.1 times as fast).
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.errors import SettingError
from lightning_nas.operations.normalization import batch_norms
from lightning_nas.spaces.base import Gates, Network, Resolved, Space
from lightning_nas.spaces.cells import plus

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}

PREVIOUS = -1
"""The number of the cell's output at the time step before. State 0 reads it together with the word, no other does."""

PENN_TREEBANK = {"vocabulary": 10_000}

INITIAL = 0.04
"""Weights start uniform between this and its negative (released code of DARTS)."""


# -- the cell ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Edge:
    """An earlier state as a state reads it.

    Attributes:
        source: the number of the earlier state.
        matrix: the name of the matrix that it is multiplied by.
        activations: those that run, by name, with their weights (None: the one alone, unweighted).
    """

    source: int
    matrix: str
    activations: Sequence[tuple[str, Tensor | None]]


class RecurrentCell(nn.Module):
    """States 0, 1, …, each a sum of edges from states before it; the output is the mean of some of them.

    In plain form an edge from state s is ``act(s W)``. In highway form (Zilly et al. 2017) W has twice as many columns,
    ``(u, t) = s W``, and the edge is ``s + σ(t) (act(u) - s)``. Under weights an edge is the weighted sum of this over
    its activations.

    A subclass says which edges and outputs there are, and may set the modules that normalise.

    Args:
        hidden: units of a state.
        highway: whether edges are in highway form.
        matrices: the names of those that lead to each state, state by state.
        compile: whether time steps under weights are compiled in training (:func:`compiled`).

    Attributes:
        product_norms: what is applied to ``s W``, by the name of the matrix.
        state_norm: what is applied to each state.
        output_norm: what is applied to the output.
    """

    def __init__(self, hidden: int, highway: bool, matrices: Iterable[Iterable[str]], compile: bool = False) -> None:
        super().__init__()
        if hidden < 1:
            raise SettingError(f"network.hidden: at least 1, got {hidden}")
        self.hidden = hidden
        self.columns = 2 * hidden if highway else hidden
        self.compile_steps = compile
        self.matrices = nn.ParameterDict()
        for state, names in enumerate(matrices):
            self.n_states = state + 1
            rows = hidden if state else 2 * hidden  # state 0 reads a word and a state
            for name in names:
                self.matrices[name] = nn.Parameter(torch.empty(rows, self.columns).uniform_(-INITIAL, INITIAL))
        self.product_norms = nn.ModuleDict()
        self.state_norm: nn.Module = nn.Identity()
        self.output_norm: nn.Module = nn.Identity()

    def edges(self, state: int, gates: Resolved) -> Iterable[Edge]:
        """The edges into a state."""
        raise NotImplementedError

    def outputs(self, gates: Resolved) -> Mapping[int, Tensor | None]:
        """The states whose mean is the output, with their weights (None: one)."""
        raise NotImplementedError

    def forward(self, words: Tensor, hidden: Tensor, mask: Tensor | None, gates: Resolved) -> Tensor:
        """The output at every time step, ``(T, N, hidden)``.

        Args:
            words: embedded, ``(T, N, hidden)``.
            hidden: the output before the first word, ``(N, hidden)``.
            mask: of dropout, ``(N, hidden)``, on every state that is read; None: no dropout.
            gates: what runs.
        """
        readers = [[Reader(self, edges) for edges in alike(self.edges(k, gates))] for k in range(self.n_states)]
        with_words = [reader.read_words(words) for reader in readers[0]]
        outputs = self.outputs(gates)
        n_outputs = sum(1 if weight is None else weight for weight in outputs.values())
        # architectures run each a code of their own, which is not worth compiling
        under_weights = all(reader.total_weight is not None for of_state in readers[1:] for reader in of_state)
        step = time_step
        if self.compile_steps and under_weights and torch.is_grad_enabled():
            step = compiled()
            if not hidden.requires_grad:  # else the first step would be compiled apart
                hidden = hidden.detach().requires_grad_()
        over_time = []
        for t in range(len(words)):
            at = [products[t] for products in with_words]
            hidden = step(readers, at, outputs, n_outputs, self.state_norm, self.output_norm, hidden, mask)
            over_time.append(hidden)
        return torch.stack(over_time)


def time_step(
    readers: "Sequence[Sequence[Reader]]",
    with_words: Sequence[Tensor],
    outputs: Mapping[int, Tensor | None],
    n_outputs: Tensor | int,
    state_norm: nn.Module,
    output_norm: nn.Module,
    hidden: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """The cell's output from the one before, ``(N, hidden)``; ``readers`` by the state that they lead to."""
    states = {PREVIOUS: hidden}
    for number, of_state in enumerate(readers):
        state = None
        for k, reader in enumerate(of_state):
            state = plus(state, reader(states, mask, None if number else with_words[k]))
        states[number] = state_norm(torch.zeros_like(hidden) if state is None else state)
    output = None
    for number, weight in outputs.items():
        output = plus(output, states[number], weight)
    assert output is not None  # no state reads the last
    return output_norm(output / n_outputs)


@functools.cache
def compiled() -> Callable[..., Tensor]:
    """:func:`time_step` as PyTorch compiles it, about a minute for a cell of DARTS; where it cannot, as it is."""
    fast = torch.compile(time_step, dynamic=False)
    works = True

    def step(*arguments: Any) -> Tensor:
        nonlocal works
        if works:
            try:
                return fast(*arguments)
            except torch._dynamo.exc.TorchDynamoException as error:
                works = False
                reason = str(error).strip().partition("\n")[0]
                warnings.warn(
                    "network.compile: the cell runs uncompiled, since PyTorch could not compile it; on a CPU that "
                    f"takes a C++ compiler, the variable CXX names it ({reason})",
                    stacklevel=2,
                )
        return time_step(*arguments)

    return step


def alike(edges: Iterable[Edge]) -> list[list[Edge]]:
    """Edges with the same activations together, without those of which nothing runs."""
    groups: dict[tuple[tuple[str, bool], ...], list[Edge]] = {}
    for edge in edges:
        if edge.activations:
            kind = tuple((activation, weight is None) for activation, weight in edge.activations)
            groups.setdefault(kind, []).append(edge)
    return list(groups.values())


class Reader:
    """Edges into a state with the same activations, computed together. It lives for one forward pass.

    Where they go through the same matrix they are the rows of one product, else a batch of products.
    """

    def __init__(self, cell: RecurrentCell, edges: Sequence[Edge]) -> None:
        names = list(dict.fromkeys(edge.matrix for edge in edges))
        self.hidden = cell.hidden
        self.sources = [edge.source for edge in edges]
        self.matrix = stacked([cell.matrices[name] for name in names])
        self.norms = [cell.product_norms[name] for name in names if name in cell.product_norms]
        self.mixture: list[tuple[str, Tensor | None]] = []
        for k, (activation, weight) in enumerate(edges[0].activations):
            if weight is not None and len(edges) > 1:
                weight = torch.stack([edge.activations[k][1] for edge in edges]).view(-1, 1, 1)  # type: ignore[misc]
            self.mixture.append((activation, weight))
        weights = [weight for _, weight in self.mixture if weight is not None]
        self.total_weight = sum(weights) if weights else None

    def read_words(self, words: Tensor) -> Sequence[Tensor]:
        """What the words contribute to the product at each time step; what is left of the matrix is for the state."""
        for_words, self.matrix = self.matrix.split(self.hidden)
        return (words @ for_words).unbind()

    def __call__(self, states: Mapping[int, Tensor], mask: Tensor | None, with_word: Tensor | None) -> Tensor:
        state = stacked([states[source] for source in self.sources])  # (N, hidden), of several edges (edges, N, hidden)
        read = state if mask is None else state * mask
        product = read @ self.matrix if with_word is None else torch.addmm(with_word, read, self.matrix)
        if self.norms:
            parts = product.view(len(self.norms), *product.shape[-2:])
            product = stacked([norm(part) for norm, part in zip(self.norms, parts, strict=True)])
        candidate, *gate = product.to(state.dtype).split(self.hidden, -1)  # autocast multiplies in another dtype
        result = None
        for activation, weight in self.mixture:
            result = plus(result, ACTIVATIONS[activation](candidate), weight)
        assert result is not None
        if gate:
            kept = state if self.total_weight is None else self.total_weight * state
            result = torch.lerp(kept, result, gate[0].sigmoid())
        return result if len(self.sources) == 1 else result.sum(0)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """``(n, …)``; a single tensor as it is."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))


# -- the language model ------------------------------------------------------------------------------------------------


class LanguageOutput(NamedTuple):
    """What a language model makes of a window of T words in N columns.

    Attributes:
        logits: of the word that follows each, ``(T, N, vocabulary)``.
        carry: the cell's last output, ``(N, hidden)``, with which the next window begins.
        hidden: the cell's outputs, ``(T, N, hidden)``, in training; else None.
        dropped: the same after dropout, as they are decoded.
    """

    logits: Tensor
    carry: Tensor
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
            carry: of the window before, ``(N, hidden)``; None: zeros. Gradients flow into it unless it is detached.
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
        words = times(words, None if of_words is None else F.embedding(tokens, of_words))
        words = times(words, self._mask("input", n, hidden))
        if carry is None:
            carry = words.new_zeros(n, hidden)
        elif first is not None:
            carry = carry.masked_fill(first[0], 0)
        outputs = self.cell(words, carry, self._mask("hidden", n, hidden), resolved)
        dropped = times(outputs, self._mask("output", n, hidden))
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


def times(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
