"""Recurrent cells: what those of ENAS and DARTS have in common.

The edges into a state that go through the same matrix are one product, and their activations are mixed before they pass
the gate. What a cell reads of words is one product for all time steps. Other forms were not worth their code on a CPU:
all edges that leave a state in one product (as fast where each has a matrix of its own, else slower, since every matrix
then gets a gradient from each of its edges), the gradient of a matrix in one product for all time steps, and a backward
pass of the mixture written by hand (both 0.95 to 1.1 times as fast).
"""

import dataclasses
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan  # a loop as a node of a graph; torch has no public name for it yet

from lightning_nas.errors import SettingError
from lightning_nas.spaces.base import Resolved
from lightning_nas.spaces.sums import add_weighted

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
}

PREVIOUS = -1
"""The number of the cell's output at the time step before. State 0 reads it together with the word, no other does."""

INITIAL = 0.04
"""Weights start uniform between this and its negative (released code of DARTS)."""


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
            mask: the mask of dropout, ``(N, hidden)``, on every state that is read; None: no dropout.
            gates: the options that run, with their weights.
        """
        readers = [
            [Reader(self, edges) for edges in grouped_by_form(self.edges(k, gates))] for k in range(self.n_states)
        ]
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

        def run(hidden: Tensor, at: Sequence[Tensor]) -> Tensor:
            return step(readers, at, outputs, n_outputs, self.state_norm, self.output_norm, hidden, mask)

        if torch.compiler.is_exporting():  # the program has the step once, for any number of words
            return scan(lambda hidden, at: (following := run(hidden, at), following.clone()), hidden, with_words)[1]
        over_time = []
        for at in zip(*(products.unbind() for products in with_words), strict=True):
            hidden = run(hidden, at)
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
            state = add_weighted(state, reader(states, mask, None if number else with_words[k]))
        states[number] = state_norm(torch.zeros_like(hidden) if state is None else state)
    output = None
    for number, weight in outputs.items():
        output = add_weighted(output, states[number], weight)
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


def grouped_by_form(edges: Iterable[Edge]) -> list[list[Edge]]:
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

    def read_words(self, words: Tensor) -> Tensor:
        """What the words contribute to the product at each time step; what is left of the matrix is for the state."""
        for_words, self.matrix = self.matrix.split(self.hidden)
        return words @ for_words

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
            result = add_weighted(result, ACTIVATIONS[activation](candidate), weight)
        assert result is not None
        if gate:
            kept = state if self.total_weight is None else self.total_weight * state
            result = torch.lerp(kept, result, gate[0].sigmoid())
        return result if len(self.sources) == 1 else result.sum(0)


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """``(n, …)``; a single tensor as it is."""
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors))
