"""The recurrent search network of DARTS (Liu, Simonyan, Yang, ICLR 2019, appendix A.1.2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "sigmoid": torch.sigmoid, "identity": lambda x: x}


class Output(NamedTuple):
    """Logits ``(T, N, V)``, the last hidden state ``(N, hidden)``, all of them raw and after dropout."""

    logits: Tensor
    last: Tensor
    raw: Tensor
    dropped: Tensor


def language_loss(output: Output, targets: Tensor, slowness: float = 1e-3) -> Tensor:
    """Cross-entropy, and a penalty of changes of the hidden state."""
    loss = F.cross_entropy(output.logits.view(-1, output.logits.shape[-1]), targets.view(-1))
    return loss + slowness * (output.raw[1:] - output.raw[:-1]).pow(2).mean()


def keep(x: Tensor, probability: float, *shape: int) -> Tensor:
    """A mask of dropout, to be used at all time steps."""
    return x.new_empty(*shape).bernoulli_(1 - probability) / (1 - probability)


class MixedCell(nn.Module):
    """Every node mixes all operations on all states before it."""

    def __init__(self, hidden: int, nodes: int, operations: Sequence[str]) -> None:
        super().__init__()
        self.hidden, self.operations = hidden, operations
        self.first = nn.Parameter(torch.empty(2 * hidden, 2 * hidden).uniform_(-0.04, 0.04))
        self.matrices = nn.ParameterList(
            nn.Parameter(torch.empty(hidden, 2 * hidden).uniform_(-0.04, 0.04)) for _ in range(nodes)
        )
        self.norm = nn.BatchNorm1d(hidden, affine=False)

    def forward(self, x: Tensor, h: Tensor, x_mask: Tensor | None, h_mask: Tensor | None, weights: Tensor) -> Tensor:
        """One time step: ``x`` and ``h`` ``(N, hidden)``, ``weights (edges, operations)``."""
        read = torch.cat([x if x_mask is None else x * x_mask, h if h_mask is None else h * h_mask], 1)
        candidate, gate = (read @ self.first).split(self.hidden, 1)
        states = self.norm(h + gate.sigmoid() * (candidate.tanh() - h)).unsqueeze(0)
        edge = 0
        for matrix in self.matrices:
            n = len(states)
            read = states if h_mask is None else states * h_mask
            candidate, gate = (read.view(-1, self.hidden) @ matrix).view(n, -1, 2 * self.hidden).split(self.hidden, 2)
            gate = gate.sigmoid()
            state = torch.zeros_like(h)
            for k, name in enumerate(self.operations):
                if name != "none":
                    through = states + gate * (ACTIVATIONS[name](candidate) - states)
                    state = state + (weights[edge : edge + n, k].view(-1, 1, 1) * through).sum(0)
            states = torch.cat([states, self.norm(state).unsqueeze(0)])
            edge += n
        return states[1:].mean(0)


class SearchModel(nn.Module):
    """Embedding, cell, decoder with the embedding's matrix, and the alphas."""

    def __init__(
        self,
        vocabulary: int,
        hidden: int = 300,
        nodes: int = 8,
        operations: Sequence[str] = ("none", *ACTIVATIONS),
        dropout: float = 0.75,
        dropout_h: float = 0.25,
        dropout_x: float = 0.75,
        dropout_i: float = 0.2,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.dropout, self.dropout_h, self.dropout_x, self.dropout_i = dropout, dropout_h, dropout_x, dropout_i
        self.encoder = nn.Embedding(vocabulary, hidden)
        self.cell = MixedCell(hidden, nodes, operations)
        self.decoder = nn.Linear(hidden, vocabulary)
        self.decoder.weight = self.encoder.weight
        edges = nodes * (nodes + 1) // 2
        self.alphas = nn.ParameterDict({"cell": nn.Parameter(1e-3 * torch.randn(edges, len(operations)))})

    def weights(self) -> list[nn.Parameter]:
        """All parameters but the alphas."""
        return [parameter for name, parameter in self.named_parameters() if not name.startswith("alphas.")]

    def forward(self, tokens: Tensor, h: Tensor | None) -> Output:
        """A window of tokens ``(T, N)`` after the hidden state ``(N, hidden)``; None: zeros."""
        x = self.encoder(tokens)
        shape = x.shape[1:]
        h = x.new_zeros(*shape) if h is None else h
        training = self.training
        if training and self.dropout_i:
            x = x * keep(x, self.dropout_i, 1, *shape)
        x_mask = keep(x, self.dropout_x, *shape) if training and self.dropout_x else None
        h_mask = keep(x, self.dropout_h, *shape) if training and self.dropout_h else None
        weights = F.softmax(self.alphas["cell"], dim=-1)
        outputs = []
        for word in x:
            h = self.cell(word, h, x_mask, h_mask, weights)
            outputs.append(h)
        raw = torch.stack(outputs)
        dropped = raw * keep(x, self.dropout, 1, *shape) if training and self.dropout else raw
        return Output(self.decoder(dropped), h, raw, dropped)
