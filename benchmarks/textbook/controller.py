"""ENAS's LSTM controllers (Pham et al., ICML 2018), which sample one architecture at a time, and their training."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Sampled(NamedTuple):
    """An architecture, its log-probability and the entropy of the distributions it was drawn from, summed, in nats."""

    options: list[int]
    log_prob: Tensor
    entropy: Tensor


class Controller(nn.Module):
    """What the controllers of all spaces have: an LSTM, operations with embeddings, and attention to earlier states.

    Args:
        operations: number of them.
        hidden: units of the LSTM.
        temperature, tanh_constant: of ``C tanh(x / T)``.
        operation_tanh_reduce: C is divided by it for operations.
        operation_bias: whether operations have a learnt bias.
    """

    def __init__(
        self,
        operations: int,
        hidden: int = 64,
        temperature: float = 1.0,
        tanh_constant: float = 1.1,
        operation_tanh_reduce: float = 2.5,
        operation_bias: bool = True,
    ) -> None:
        super().__init__()
        self.hidden, self.temperature, self.tanh_constant = hidden, temperature, tanh_constant
        self.operation_tanh_reduce = operation_tanh_reduce
        self.start = nn.Parameter(torch.empty(1, hidden).uniform_(-0.1, 0.1))
        self.lstm = nn.LSTMCell(hidden, hidden, bias=False)
        self.embedding = nn.Embedding(operations, hidden)
        self.operation = nn.Linear(hidden, operations, bias=operation_bias)
        self.key = nn.Linear(hidden, hidden, bias=False)
        self.query = nn.Linear(hidden, hidden, bias=False)
        self.attention = nn.Linear(hidden, 1, bias=False)

    def begin(self, forced: Sequence[int] | None) -> None:
        """A new architecture; its options are drawn, or those given."""
        self.forced = None if forced is None else list(forced)
        self.state = self.start.new_zeros(1, self.hidden), self.start.new_zeros(1, self.hidden)
        self.options: list[int] = []
        self.log_probs: list[Tensor] = []
        self.entropies: list[Tensor] = []

    def read(self, x: Tensor) -> Tensor:
        self.state = self.lstm(x, self.state)
        return self.state[0]

    def draw(self, logits: Tensor) -> int:
        """One option from the logits ``(1, options)``."""
        log_probs = logits.log_softmax(-1)
        drawn = torch.multinomial(log_probs.exp(), 1)
        option = int(drawn) if self.forced is None else self.forced[len(self.options)]
        self.options.append(option)
        self.log_probs.append(log_probs[0, option])
        self.entropies.append(-(log_probs * log_probs.exp()).sum())
        return option

    def draw_operation(self, h: Tensor) -> Tensor:
        """The embedding of the operation drawn."""
        logits = self.operation(h) / self.temperature
        option = self.draw(self.tanh_constant / self.operation_tanh_reduce * torch.tanh(logits))
        return self.embedding(torch.tensor([option], device=h.device))

    def draw_state(self, h: Tensor, anchors: list[Tensor], keys: list[Tensor]) -> Tensor:
        """The anchor of the state drawn among all so far."""
        logits = self.attention(torch.tanh(torch.cat(keys) + self.query(h))).t() / self.temperature
        return anchors[self.draw(self.tanh_constant * torch.tanh(logits))]

    def sampled(self) -> Sampled:
        return Sampled(self.options, torch.stack(self.log_probs).sum(), torch.stack(self.entropies).sum())


class CellController(Controller):
    """Of the micro space: two cells, one after the other in one run of the LSTM."""

    def __init__(self, nodes: int = 5, operations: int = 5, **settings: float) -> None:
        super().__init__(operations, **settings)
        self.nodes = nodes

    def sample(self, forced: Sequence[int] | None = None) -> Sampled:
        """For each node of each cell two states and two operations."""
        self.begin(forced)
        x = None
        for _ in ("normal", "reduce"):
            if x is not None:
                self.read(x)  # the last operation of the cell before
            anchors = [torch.zeros_like(self.start)] * 2
            keys = [self.key(self.read(self.start)) for _ in range(2)]
            for node in range(self.nodes):
                x = self.start
                for _ in range(2):
                    x = self.draw_state(self.read(x), anchors, keys)
                for _ in range(2):
                    x = self.draw_operation(self.read(x))
                if node < self.nodes - 1:
                    anchors.append(self.read(x))
                    keys.append(self.key(anchors[-1]))
        return self.sampled()


class RecurrentController(Controller):
    """Of the recurrent space: for each node an earlier state and an activation; the first has no state to choose."""

    def __init__(self, nodes: int = 12, operations: int = 4, **settings: float) -> None:
        super().__init__(operations, **settings)
        self.nodes = nodes

    def sample(self, forced: Sequence[int] | None = None) -> Sampled:
        self.begin(forced)
        x, anchors, keys = self.start, [], []
        for node in range(self.nodes):
            if node > 0:
                x = self.draw_state(self.read(self.start), anchors, keys)
            x = self.draw_operation(self.read(x))
            if node < self.nodes - 1:
                anchors.append(self.read(x))
                keys.append(self.key(anchors[-1]))
        return self.sampled()


class Reinforce:
    """Policy gradient with a moving average of rewards as baseline."""

    def __init__(
        self,
        controller: CellController | RecurrentController,
        lr: float = 0.0035,
        entropy_weight: float = 1e-4,
        baseline_decay: float = 0.99,
    ) -> None:
        self.controller, self.entropy_weight, self.baseline_decay = controller, entropy_weight, baseline_decay
        self.baseline = 0.0
        self.optimizer = torch.optim.Adam(controller.parameters(), lr, (0.0, 0.999), eps=1e-3)

    def step(
        self, reward: Callable[[list[int]], Tensor], samples: int, forced: Sequence[Sequence[int]] | None = None
    ) -> Tensor:
        """One update by some architectures, drawn or given; the loss."""
        losses, rewards = [], []
        for number in range(samples):
            sampled = self.controller.sample(None if forced is None else forced[number])
            rewards.append(reward(sampled.options) + self.entropy_weight * sampled.entropy.detach())
            losses.append(-sampled.log_prob * (rewards[-1] - self.baseline))
        loss = torch.stack(losses).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.baseline += (1 - self.baseline_decay**samples) * (torch.stack(rewards).mean() - self.baseline)
        return loss.detach()
