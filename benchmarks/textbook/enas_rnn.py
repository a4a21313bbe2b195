"""The shared language model of ENAS's recurrent search (Pham et al., ICML 2018, section 2.1)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.textbook.darts_rnn import ACTIVATIONS, Output, keep


class Node(NamedTuple):
    """The state that is read, and the number of the activation. The first node's state is the output before."""

    source: int
    activation: int


class SharedCell(nn.Module):
    """A matrix for each node and each state before it, of which a path takes one a node."""

    def __init__(self, hidden: int, nodes: int, activations: Sequence[str]) -> None:
        super().__init__()
        self.hidden, self.activations = hidden, [ACTIVATIONS[name] for name in activations]
        self.first = nn.Parameter(torch.empty(2 * hidden, 2 * hidden).uniform_(-0.04, 0.04))
        self.first_norm = nn.BatchNorm1d(2 * hidden, eps=1.0, momentum=0.001)
        self.matrices = nn.ModuleList(
            nn.ParameterList(torch.empty(hidden, 2 * hidden).uniform_(-0.04, 0.04) for _ in range(node))
            for node in range(1, nodes)
        )
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm1d(2 * hidden, eps=1.0, momentum=0.001) for _ in range(node))
            for node in range(1, nodes)
        )
        self.output_norm = nn.BatchNorm1d(hidden, eps=1.0, momentum=0.001)

    def forward(self, x: Tensor, h: Tensor, mask: Tensor | None, path: Sequence[Node]) -> Tensor:
        """One time step: ``x`` and ``h`` ``(N, hidden)``."""
        read = torch.cat([x, h if mask is None else h * mask], 1)
        states = [self.highway(h, self.first_norm(read @ self.first), path[0].activation)]
        loose = set(range(len(path)))
        for matrices, norms, node in zip(self.matrices, self.norms, path[1:], strict=True):
            source = states[node.source]
            product = (source if mask is None else source * mask) @ matrices[node.source]
            states.append(self.highway(source, norms[node.source](product), node.activation))
            loose.discard(node.source)
        return self.output_norm(torch.stack([states[k] for k in sorted(loose)]).mean(0))

    def highway(self, state: Tensor, product: Tensor, activation: int) -> Tensor:
        candidate, gate = product.split(self.hidden, 1)
        return state + gate.sigmoid() * (self.activations[activation](candidate) - state)


class SharedModel(nn.Module):
    """Embedding, cell, decoder with the embedding's matrix. BatchNorm normalises by the batch at all times."""

    def __init__(
        self,
        vocabulary: int,
        hidden: int = 720,
        nodes: int = 12,
        activations: Sequence[str] = ("tanh", "relu", "identity", "sigmoid"),
        word_dropout: float = 0.21,
        input_dropout: float = 0.75,
        hidden_dropout: float = 0.25,
        output_dropout: float = 0.76,
    ) -> None:
        super().__init__()
        self.word_dropout, self.input_dropout = word_dropout, input_dropout
        self.hidden_dropout, self.output_dropout = hidden_dropout, output_dropout
        self.encoder = nn.Embedding(vocabulary, hidden)
        self.cell = SharedCell(hidden, nodes, activations)
        self.decoder = nn.Linear(hidden, vocabulary, bias=False)
        self.decoder.weight = self.encoder.weight
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.track_running_stats = False
                module.running_mean = module.running_var = module.num_batches_tracked = None

    def forward(self, tokens: Tensor, h: Tensor | None, path: Sequence[Node]) -> Output:
        """A window of tokens ``(T, N)`` after the hidden state ``(N, hidden)``; None: zeros."""
        matrix = self.encoder.weight
        if self.training and self.word_dropout:
            x = nn.functional.embedding(tokens, matrix * keep(matrix, self.word_dropout, len(matrix), 1))
        else:
            x = self.encoder(tokens)
        shape = x.shape[1:]
        h = x.new_zeros(*shape) if h is None else h
        training = self.training
        if training and self.input_dropout:
            x = x * keep(x, self.input_dropout, *shape)
        mask = keep(x, self.hidden_dropout, *shape) if training and self.hidden_dropout else None
        outputs = []
        for word in x:
            h = self.cell(word, h, mask, path)
            outputs.append(h)
        raw = torch.stack(outputs)
        dropped = raw * keep(x, self.output_dropout, *shape) if training and self.output_dropout else raw
        return Output(self.decoder(dropped), h, raw, dropped)
