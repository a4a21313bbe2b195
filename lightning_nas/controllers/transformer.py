"""A decoder-only transformer in place of the controller's LSTM (ours)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_nas.controllers.base import Controller
from lightning_nas.errors import SettingError

Past = tuple[Tensor, Tensor] | None
"""Keys and values of the steps so far, ``(n, heads, steps, width / heads)`` each; None: there were none."""

Memory = tuple[int, Sequence[Past]]
"""How many steps there were, and the past of each layer."""


class TransformerController(Controller):
    """Policies whose sequence model attends to all steps before, with a learnt embedding of the position.

    There is no dropout, so that a probability does not depend on when it is asked for.

    Args:
        width: the width of the hidden state.
        layers: each attention and a two-layer perceptron of four times the width, normalised before.
        heads: the number of attention heads, which divides the width.
        others: settings of every controller by name; see :class:`Controller`.
    """

    def __init__(self, width: int = 64, layers: int = 2, heads: int = 4, **others: Any) -> None:
        super().__init__(**others)
        for name, value in (("width", width), ("layers", layers), ("heads", heads)):
            if value < 1:
                raise SettingError(f"{name}: at least 1, got {value}")
        if width % heads:
            raise SettingError(f"heads: a divisor of the width {width}, got {heads}")
        self.width, self.layers, self.heads = width, layers, heads

    def sequence(self, steps: int) -> nn.Module:
        return Transformer(self.width, self.layers, self.heads, steps)


class Transformer(nn.Module):
    """One step at a time, over the keys and values of those before; see :meth:`Controller.sequence`."""

    def __init__(self, width: int, layers: int, heads: int, steps: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.empty(steps, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.constant_(self.norm.weight, 0.1)  # hidden states are read again, beside embeddings of this size

    def forward(self, x: Tensor, memory: Memory | None = None) -> tuple[Tensor, Memory]:
        step, pasts = memory or (0, [None] * len(self.layers))
        x = x + self.positions[step]
        after = []
        for layer, past in zip(self.layers, pasts, strict=True):
            x, past = layer(x, past)
            after.append(past)
        return self.norm(x), (step + 1, after)


class Layer(nn.Module):
    """Attention of one step to itself and the past, then a perceptron, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attended = nn.Linear(width, width, bias=False)
        self.perceptron = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 4 * width, bias=False),
            nn.GELU(),
            nn.Linear(4 * width, width, bias=False),
        )

    def forward(self, x: Tensor, past: Past) -> tuple[Tensor, Past]:
        projected = self.query_key_value(self.attention_norm(x)).unflatten(1, (3, self.heads, 1, -1))
        query, key, value = projected.unbind(1)
        if past is not None:
            key, value = torch.cat([past[0], key], 2), torch.cat([past[1], value], 2)
        attended = F.scaled_dot_product_attention(query, key, value)
        x = x + self.attended(attended.flatten(1))
        return x + self.perceptron(x), (key, value)
